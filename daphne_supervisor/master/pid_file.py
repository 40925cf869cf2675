"""The pid file: the master's process id, for those who want to signal it.

Theory. The number in the file proves nothing, since it may be another process's by now; so the
owner keeps the file locked while he lives, and a file that nobody has locked is stale, whatever it
says. It is written elsewhere, locked, and put in its place by one system call: as a new name if
there is no file, over the stale one if there is. Of two who want that, only the one who has locked
the stale file may replace it. So there always is a whole file of somebody, and one owner.

An upgrade has two masters. The old one sets its file aside as FILE.old, and may put it back: over
the file of the new one, which then leaves it alone.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import TYPE_CHECKING

from daphne_supervisor import lock_file
from daphne_supervisor.errors import BootError
from daphne_supervisor.lock_file import Lock

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PidFile"]

_ASIDE = ".old"
_LONGEST_NUMBER = 32
"""More bytes than a process id has."""


class PidFile:
    """The file that holds the master's process id while it runs; None means that there is none."""

    def __init__(self, path: str | None) -> None:
        """Remember where it will be."""
        self._place = "" if path is None else os.path.abspath(path)
        self._path = self._place
        self._lock: Lock | None = None

    def write(self) -> None:
        """Write our process id, whole or not at all, over a stale file.

        Raises `BootError` when a living process owns the file, or it cannot be written.
        """
        if not self._place or self._lock is not None:
            return
        self._path = self._place
        try:
            with _written(self._place) as (name, lock):
                while not _put(name, self._place):
                    pass  # pragma: no cover - somebody has come or gone at this very moment
                self._lock = lock
        except OSError as error:
            message = f"--pid-file {self._place}: {error.strerror}"
            raise BootError(message) from None

    def remove(self) -> None:
        """Remove the file if it is still ours."""
        if self._lock is None:
            return
        if lock_file.names(self._path, self._lock):
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        self.abandon()

    def set_aside(self) -> None:
        """Call the file FILE.old, so that a new master can have its name."""
        self._move(self._place + _ASIDE)

    def restore(self) -> None:
        """Give the file its name back, also when a new master has taken it."""
        self._move(self._place)

    def abandon(self) -> None:
        """Close our copy of the lock: a forked child must not keep the file from being stale."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _move(self, path: str) -> None:
        """Rename the file, if it is still ours; it stays where it is if that cannot be done."""
        if self._lock is not None and lock_file.names(self._path, self._lock):
            with contextlib.suppress(OSError):
                os.rename(self._path, path)
                self._path = path


@contextlib.contextmanager
def _written(path: str) -> Iterator[tuple[str, Lock]]:
    """Write and lock a file beside `path`, and take away its first name at the end."""
    directory, base = os.path.split(path)
    descriptor, name = tempfile.mkstemp(prefix=f".{base}.", dir=directory)
    lock = Lock(descriptor, "r+")
    try:
        lock_file.hold(lock)
        lock.write(b"%d\n" % os.getpid())
        os.fchmod(descriptor, 0o644)  # everybody may know whom to signal
        yield name, lock
    except BaseException:
        lock.close()
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _put(name: str, path: str) -> bool:
    """Call the file `name` `path`; return False when it has to be tried again.

    Raises `BootError` when somebody owns what is there.
    """
    try:
        os.link(name, path)
    except FileExistsError:
        return _replace(name, path)
    return True


def _replace(name: str, path: str) -> bool:
    try:
        # Without O_NONBLOCK a pipe would be waited for.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return False
    with Lock(descriptor) as stale:
        return _take_over(name, path, stale)


def _take_over(name: str, path: str, stale: Lock) -> bool:
    held = lock_file.hold(stale)
    if not lock_file.names(path, stale):
        return False
    if not held:
        number = stale.read(_LONGEST_NUMBER).decode(errors="replace").strip()
        message = f"--pid-file {path}: another master has it; the file says {number!r}"
        raise BootError(message)
    os.rename(name, path)
    return True
