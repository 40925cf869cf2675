"""What is written down: the log on the standard error, and the access log.

The log is Python's `logging`, set up once in the master and inherited by every worker. The access
log is not a logger: its lines have a form of their own, older than any of our users' log analysers,
and one is written for every request. So it is a descriptor: opened once, in append mode, shared by
all processes, and written to with one `write` per line, which the kernel does not tear apart.

Nothing here raises into the code that serves requests. A full disk or a reader that has gone away
costs lines, never requests.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from typing import TYPE_CHECKING, Literal

from daphne_supervisor import log_file, log_setup
from daphne_supervisor.errors import BootError

if TYPE_CHECKING:
    from collections.abc import Callable

    from daphne_supervisor.config import Log

__all__ = ["AccessLog", "Action", "access_log_path", "configure"]

Action = Literal["WSCONNECTING", "WSCONNECT", "WSREJECT", "WSDISCONNECT"]

STANDARD_OUTPUT = "-"
_STANDARD_OUTPUT_DESCRIPTOR = 1
_NOWHERE = -1
_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG, logging.DEBUG)
_log = logging.getLogger(__name__)


def configure(log: Log, logger: logging.Logger | None = None) -> None:
    """Log as `log` says, and no longer as it was said the last time.

    Without a file of the user's the log goes to the standard error, as much of it as the verbosity
    asks for; `logger` is the one to set up then: by default the root, so that every library's words
    are seen. Raises `UsageError` for a bad file, and the log stays as it was.
    """
    if log.log_config is not None:
        log_setup.replace(log_file.load(log.log_config))
        return
    logger = logging.getLogger() if logger is None else logger
    log_setup.replace(functools.partial(_set_up, log, logger))


def _set_up(log: Log, logger: logging.Logger) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(log.log_fmt))
    logger.addHandler(handler)
    logger.setLevel(_LEVELS[log.verbosity])


def access_log_path(log: Log) -> str | None:
    """Return the file of the access log, "-" for the standard output, None when there is none."""
    if log.access_log is not None:
        return log.access_log
    return STANDARD_OUTPUT if log.verbosity > 0 else None


class AccessLog:
    """Writes one line for each request and for each step in the life of a WebSocket."""

    __slots__ = ("_clock", "_descriptor", "_owner", "_path", "_second", "_stamp")

    def __init__(
        self,
        descriptor: int,
        path: str | None,
        clock: Callable[[], float] = time.time,
        *,
        owner: int | None = None,
    ) -> None:
        """Write to `descriptor`; `path` is what to open again, None for what cannot be."""
        self._descriptor = descriptor
        self._owner = owner
        self._path = path
        self._clock = clock
        self._second = -1
        self._stamp = ""

    def __repr__(self) -> str:
        """Tell where the lines go."""
        return f"<AccessLog {self._path or STANDARD_OUTPUT}>"

    @classmethod
    def open(cls, path: str, owner: int | None = None) -> AccessLog:
        """Return the log in the file `path`, or on the standard output for "-".

        A file that is made here belongs to the user `owner`, whose processes may open it anew.
        Raises `BootError` when the file cannot be opened for appending.
        """
        if path == STANDARD_OUTPUT:
            return cls(_STANDARD_OUTPUT_DESCRIPTOR, None)
        # An absolute path survives an application that changes its directory.
        path = os.path.abspath(path)
        try:
            return cls(_open(path, owner), path, owner=owner)
        except OSError as error:
            message = f"--access-log {path}: cannot be written: {error.strerror}"
            raise BootError(message) from None

    def http(self, client: str | None, method: str, target: str, status: int, size: int) -> None:
        """Note a response: `size` bytes of body, and `target` as the client sent it."""
        self._write(client, f"{method} {target}", status, size)

    def websocket(self, action: Action, client: str | None, path: str) -> None:
        """Note that a WebSocket is connecting, is open, was refused or is closed."""
        self._write(client, f"{action} {path}", 0, 0)

    def reopen(self) -> None:
        """Open the file anew, after it has been renamed away. The old one stays if that fails."""
        if self._path is None:
            return
        try:
            descriptor = _open(self._path, self._owner)
        except OSError as error:
            _log.error("--access-log %s: cannot be reopened: %s", self._path, error.strerror)
            return
        os.dup2(descriptor, self._descriptor, inheritable=False)
        os.close(descriptor)

    def close(self) -> None:
        """Close the file; nobody may write any more."""
        if self._path is not None:
            os.close(self._descriptor)
            self._descriptor = _NOWHERE

    def _write(self, client: str | None, request: str, status: int, size: int) -> None:
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%d/%b/%Y:%H:%M:%S", time.localtime(second))
        line = (
            f"{client and _printable(client)} - - [{self._stamp}]"
            f' "{_printable(request)}" {status or "-"} {size or "-"}\n'
        )
        with contextlib.suppress(OSError):
            os.write(self._descriptor, line.encode())


def _open(path: str, owner: int | None) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    if owner is None or os.geteuid() != 0:
        return os.open(path, flags, 0o666)
    try:
        descriptor = os.open(path, flags | os.O_EXCL, 0o666)
    except FileExistsError:
        # Only a file of our own making changes hands: in a directory that the user may write to,
        # the name could lead to somebody else's.
        return os.open(path, flags, 0o666)
    os.fchown(descriptor, owner, -1)
    return descriptor


def _printable(text: str) -> str:
    """Return `text` with everything escaped that could end the field or the line, or hide in it."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
