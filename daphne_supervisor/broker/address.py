"""Where the broker is met: an abstract unix socket that the kernel names (unix(7), autobind).

Such a socket has no file: nobody has to find a directory for it that --user may use, and nothing
is left behind by a master that was killed. It has no permissions either, so both sides ask the
kernel who the other one is (SO_PEERCRED of unix(7)): whoever accepts takes its own user and root,
and so does whoever connects, which has asked for the user that called listen(2).

Processes find the address in an environment variable: workers, and what they start.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["VARIABLE", "connect", "is_trusted", "listen", "pid_of", "text_of"]

VARIABLE = "DAPHNE_CHANNEL_BROKER"
"""The variable with the address, as `@name`; it is no option, and so without an option's prefix."""

_BACKLOG = 128
"""Connections that may wait for the broker to be started: each process has one or two."""

_CREDENTIALS = struct.Struct("3i")
"""struct ucred: pid, uid, gid."""


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def listen(make: Callable[[], socket.socket] = _socket) -> socket.socket:
    """Return a listening socket at an address that nobody else has. Raises `OSError`.

    `make` is for tests.
    """
    listener = make()
    try:
        listener.bind("")
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def text_of(listener: socket.socket) -> str:
    """Return the address of `listener`, as it stands in the variable."""
    name: bytes = listener.getsockname()
    return "@" + name[1:].decode()


def _credentials(connection: socket.socket) -> tuple[int, int]:
    """Return process and user of the other side, as they were when it connected."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, user, _ = _CREDENTIALS.unpack(data)
    return pid, user


def pid_of(connection: socket.socket) -> int:
    """Return the process that is the other side."""
    return _credentials(connection)[0]


def is_trusted(connection: socket.socket) -> bool:
    """Say whether the other side is run by root or by our own user."""
    return _credentials(connection)[1] in {0, os.geteuid()}


def connect(address: str, trusted: Callable[[socket.socket], bool] = is_trusted) -> socket.socket:
    """Return a connection to `address`, which does not block.

    Raises `OSError` when nobody listens, or somebody who is neither root nor our own user.
    `trusted` is for tests.
    """
    connection = _socket()
    try:
        connection.setblocking(False)
        connection.connect("\0" + address[1:])
        if not trusted(connection):
            message = "another user listens there"
            raise PermissionError(message)
    except OSError:
        connection.close()
        raise
    return connection
