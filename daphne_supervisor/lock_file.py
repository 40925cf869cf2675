"""Files that say by a lock whether their owner lives.

Theory. A process id in a file proves nothing: it may have been given to somebody else since. A lock
of flock(2) cannot lie, because the kernel takes it away when the last copy of the descriptor that
took it is closed, however the process ended. Copies are what forks and a new master inherit: so a
forked child closes its copy at once, and two masters that share a lock both hold it.

A locked file may be removed or replaced by its owner while somebody else waits to lock it; who has
locked a file that no longer is the one at its path has locked nothing, and tries again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
from typing import TypeAlias

__all__ = ["Lock", "hold", "names", "take"]

Lock: TypeAlias = io.FileIO
"""A file that is locked while it, or a copy of its descriptor, is open."""

_PRIVATE = 0o600  # who can open a file can lock it, and keep everybody else out


def take(path: str) -> Lock | None:
    """Make the file at `path` if there is none, and lock it; None when somebody else holds it.

    Raises `OSError` when that cannot be done, with ELOOP for a symbolic link.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        with contextlib.ExitStack() as stack:
            lock = stack.enter_context(Lock(os.open(path, flags, _PRIVATE), "r+"))
            if not hold(lock):
                return None
            if names(path, lock):
                stack.pop_all()  # it stays open
                return lock


def hold(file: Lock) -> bool:
    """Lock `file`; return whether that went well, or somebody else holds it."""
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            return False
        raise
    return True


def names(path: str, file: Lock) -> bool:
    """Return whether the file at `path` is `file`."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(file.fileno()))
