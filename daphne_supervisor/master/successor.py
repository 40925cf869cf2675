"""The new master of an upgrade: how the old one starts it, and what it is handed.

Theory. It is started by the command line that its own start had, so a new version of Python, of
this package or of the command's own files takes effect. The listening descriptors are inherited,
and one end of a channel; one variable says which they are. It names the process that it is meant
for, because an environment is inherited further than was meant.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daphne_supervisor.errors import BootError
from daphne_supervisor.master.birth import fork

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, MutableMapping

__all__ = ["VARIABLE", "Inheritance", "Start", "Successor", "inheritance", "own_command"]

VARIABLE = "DAPHNE_SUPERVISOR_INHERITANCE"
"""The variable that tells the new master what it was handed."""

_NOT_FOUND = 127
"""The exit code of a shell's for a command that cannot be run."""


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a new master was handed: the channel to `process`, and its listeners in text."""

    process: int
    channel: socket.socket
    listeners: str


def inheritance(environ: MutableMapping[str, str]) -> Inheritance | None:
    """Take what the old master has left out of `environ`; None when there was none.

    The variable names the process it is meant for: one that has leaked elsewhere means nothing.
    Raises `BootError` when it cannot be understood.
    """
    text = environ.pop(VARIABLE, "")
    if not text:
        return None
    try:
        left = json.loads(text)
        if left["pid"] != os.getpid():
            return None
        channel = socket.socket(fileno=left["channel"])
        channel.set_inheritable(False)
        return Inheritance(left["old"], channel, left["listeners"])
    except (KeyError, OSError, TypeError, ValueError) as error:
        message = f"{VARIABLE}: not what a master leaves to the next one: {error!r}"
        raise BootError(message) from None


def own_command() -> tuple[str, ...]:
    """Return the whole command line of this process, from the path of the interpreter on."""
    return sys.executable, *sys.orig_argv[1:]


@dataclass(frozen=True, slots=True)
class Start:
    """How a master is started: the command line, in which directory, with which variables."""

    command: tuple[str, ...]
    directory: str
    environ: Mapping[str, str]

    def run(self, changed: Mapping[str, str], descriptors: Iterable[int]) -> int:
        """Become that master, with `descriptors` open; return only if that cannot be done.

        Signals that a master acts upon stay ignored until the new one is there to take them.
        """
        program, environ = self.command[0], {**self.environ, **changed}
        try:
            for descriptor in descriptors:
                os.set_inheritable(descriptor, True)
            os.chdir(self.directory or ".")
            os.execve(program, self.command, environ)  # noqa: S606
        except OSError as error:
            os.write(2, f"upgrade: {error.filename or program}: {error.strerror}\n".encode())
        return _NOT_FOUND

    def changed(self, old: int, channel: int, listeners: str) -> dict[str, str]:
        """Return what this process, a child of `old`, needs in its environment to take over."""
        left = {"pid": os.getpid(), "old": old, "channel": channel, "listeners": listeners}
        names = ("LISTEN_PID", "WATCHDOG_PID")  # sd_listen_fds(3), sd_watchdog_enabled(3)
        ours = {name: str(os.getpid()) for name in names if self.environ.get(name) == str(old)}
        return {VARIABLE: json.dumps(left), **ours}


class Successor:
    """The new master, as the old one knows it."""

    def __init__(self, start: Start, listeners: str, descriptors: Iterable[int]) -> None:
        """Start it with `descriptors` open, which `listeners` describes.

        Raises `OSError` when it cannot be forked.
        """
        self.channel, far = socket.socketpair()
        self.serves = False
        old, number = os.getpid(), far.fileno()
        inherited = [*descriptors, number]  # exec closes what is not inheritable
        with far:
            try:
                self.pid = fork(lambda: start.run(start.changed(old, number, listeners), inherited))
            except OSError:
                self.channel.close()
                raise

    def say(self, word: bytes) -> None:
        """Say `word`; one that is gone does not listen."""
        with contextlib.suppress(OSError):
            self.channel.send(word)

    def dismiss(self) -> None:
        """Ask it to drain and leave; it is not reaped, so the pid is its own.

        One that serves need not wait for anybody to notice (--shutdown-delay): others serve, too.
        """
        os.kill(self.pid, signal.SIGINT if self.serves else signal.SIGTERM)
