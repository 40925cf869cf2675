"""The files of unix sockets: made whole, told apart from those of the living, removed at the end.

Theory. A socket is bound to a name of its own, given mode and group, made to listen, and then
renamed to its path: whoever looks there finds the old socket or the new one, never none and never
one with another mode. The bound name is the path and a tilde, which fits where the path itself
does, and is what `ss` shows.

Whether somebody serves a socket is told by a lock on the file beside it, PATH.lock. It is held by
the master, by the old and the new one together during an upgrade, and by nobody else: the workers
of a master that was killed finish what they have, and do not keep the next one from starting. The
lock says which socket was made under it. Any other socket at the path belongs to a server without
our lock: we connect, and only "connection refused" proves that nobody listens there (a full backlog
says "try again").

At the end everybody lets go of the lock and tries to take it once more. Who gets it was the last,
and removes the socket if it still is the one that was made: our open socket keeps its inode from
being used again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daphne_supervisor import lock_file
from daphne_supervisor.errors import BootError
from daphne_supervisor.privileges import group_id

if TYPE_CHECKING:
    from daphne_supervisor.config import Bind
    from daphne_supervisor.endpoints import Endpoint
    from daphne_supervisor.lock_file import Lock

__all__ = ["SocketFile", "listen"]

_SUFFIX = "~"
_LONGEST = 106
"""Bytes of the longest path: sun_path of unix(7) without its null byte and without our suffix."""

_IN_USE = "is in use by another process"


@dataclass(frozen=True, slots=True)
class SocketFile:
    """The file of a socket that we made, and the lock that says so; `path` is absolute."""

    path: str
    identity: tuple[int, int]
    lock: Lock

    @classmethod
    def adopt(cls, path: str, identity: list[int], lock: int) -> SocketFile:
        """Return the file that another master has made, with the lock that we now share."""
        os.set_inheritable(lock, False)
        device, inode = identity
        return cls(path, (device, inode), lock_file.Lock(lock, "r+"))

    def export(self) -> dict[str, object]:
        """Return what `adopt` takes."""
        return {"path": self.path, "identity": self.identity, "lock": self.lock.fileno()}

    def remove(self) -> None:
        """Let go of the lock; remove the file if nobody else holds it and it still is ours."""
        self.lock.close()
        with contextlib.suppress(OSError):
            if lock := lock_file.take(self.path + ".lock"):
                with lock:
                    if _identity(self.path) == self.identity:
                        os.unlink(self.path)
                    os.unlink(self.path + ".lock")


def listen(endpoint: Endpoint, bind: Bind, depth: int) -> tuple[socket.socket, SocketFile]:
    """Return a socket that listens at the endpoint's path, and its file.

    Raises `BootError` or `UsageError`.
    """
    if len(os.fsencode(endpoint.path)) > _LONGEST:
        endpoint.refuse(f"cannot be listened on: longer than {_LONGEST} bytes")
    path = os.path.abspath(endpoint.path)
    lock = _lock(endpoint)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _check(endpoint, lock)
        identity = _make(sock, endpoint, bind, depth, lock)
    except BaseException as error:
        sock.close()
        _give_up(path, lock)
        if isinstance(error, OSError):
            endpoint.refuse(f"cannot be listened on: {error.strerror}")
        raise
    return sock, SocketFile(path, identity, lock)


def _permit(path: str, endpoint: Endpoint, bind: Bind) -> None:
    """Give the file at `path` the group and the mode that are asked for."""
    if bind.uds_group is not None:
        group = group_id(bind.uds_group, "--uds-group")
        try:
            os.chown(path, -1, group)
        except OSError as error:
            message = f"--uds-group {bind.uds_group}: {endpoint.label} cannot have it: "
            raise BootError(message + str(error.strerror)) from None
    os.chmod(path, bind.uds_mode if endpoint.mode is None else endpoint.mode)


def _make(
    sock: socket.socket, endpoint: Endpoint, bind: Bind, depth: int, lock: Lock
) -> tuple[int, int]:
    """Bind and finish the socket out of sight, then show it; return its file's identity."""
    hidden = endpoint.path + _SUFFIX
    _clear(endpoint, hidden)
    sock.bind(hidden)
    try:
        _permit(hidden, endpoint, bind)  # nobody can connect before listen
        sock.listen(depth)
        sock.setblocking(False)
        found = os.lstat(hidden)
        lock.truncate(0)
        os.pwrite(lock.fileno(), _signature(found), 0)
        os.rename(hidden, endpoint.path)
    except BaseException:
        os.unlink(hidden)
        raise
    return found.st_dev, found.st_ino


def _clear(endpoint: Endpoint, hidden: str) -> None:
    """Remove a socket whose maker was killed before it could be renamed."""
    try:
        found = os.lstat(hidden)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        endpoint.refuse(f"{hidden} is in the way")
    os.unlink(hidden)


def _lock(endpoint: Endpoint) -> Lock:
    """Return the lock of the socket, which says that no other server of ours is there."""
    name = endpoint.path + ".lock"
    try:
        while os.path.islink(name):
            _break_link(endpoint, name)
        lock = lock_file.take(name)
    except OSError as error:
        endpoint.refuse(f"{name} cannot be locked: {error.strerror}")
    if lock is None:
        endpoint.refuse(_IN_USE)
    return lock


def _break_link(endpoint: Endpoint, name: str) -> None:
    """Remove the lock that a dead Daphne has left: a symbolic link to its process id.

    The number may be another process's by now, so the socket is asked. Two who want to remove the
    link exclude each other by locking its directory: the slower one would remove the other's lock.
    """
    directory = os.open(os.path.dirname(name) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.islink(name):
            return  # somebody was faster
        if not os.readlink(name).isdecimal():
            endpoint.refuse(f"{name} is a symbolic link")
        if reason := _occupied(endpoint.path):
            endpoint.refuse(reason)
        os.unlink(name)
    except BlockingIOError:
        endpoint.refuse(_IN_USE)
    finally:
        os.close(directory)


def _check(endpoint: Endpoint, lock: Lock) -> None:
    """Refuse to replace what is no socket, and a socket that somebody without our lock serves."""
    try:
        found = os.lstat(endpoint.path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        endpoint.refuse("exists and is no socket")
    if _signature(found) == lock.read():
        return  # made under this lock: its master is dead, and its workers are leaving
    if reason := _occupied(endpoint.path):
        endpoint.refuse(reason)


def _occupied(path: str) -> str:
    """Return what a connect to `path` tells of who may be there, "" if nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return _verdict(probe.connect_ex(path))


def _verdict(code: int) -> str:
    if code in {errno.ECONNREFUSED, errno.ENOENT}:
        return ""
    if code in {0, errno.EAGAIN, errno.EPROTOTYPE}:
        return _IN_USE
    return f"exists: {os.strerror(code)}"


def _signature(found: os.stat_result) -> bytes:
    # An inode's number may be used again once the file is gone; not at the same nanosecond.
    return f"{found.st_dev} {found.st_ino} {found.st_mtime_ns}\n".encode()


def _give_up(path: str, lock: Lock) -> None:
    """Remove the lock, unless a socket of a master that died needs it to be told from others."""
    with contextlib.suppress(OSError):
        if lock.seek(0, os.SEEK_END) == 0 or _identity(path) is None:
            os.unlink(path + ".lock")
    lock.close()


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
