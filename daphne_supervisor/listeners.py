"""Listeners: the sockets that the master opens once and every worker inherits.

A listener outlives all workers, which is why connections survive reloads and crashes. Sockets are
made in blocking order but are non-blocking themselves, close on exec, and listen from the start; a
descriptor that was handed over is checked and adopted, and never given a new mode, backlog or name.

The unix socket's file. A file left over by a dead process is replaced, a living server's is not:
we connect, and only "connection refused" proves that nobody listens (a full backlog says "try
again"). The file is looked at once more right before it is unlinked, so that a server that started
in between keeps its own. At the end it is unlinked only while it still is the file that we made:
our open socket keeps its inode from being used again.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from daphne_supervisor.errors import BootError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daphne_supervisor.endpoints import Endpoint, TlsFiles

__all__ = ["Listener", "open_all", "release"]

_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
_FIRST_PRIVILEGED_FREE = 1024
_LAST_STANDARD_DESCRIPTOR = 2

_Identity = tuple[int, int]
"""Device and inode of a file."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket, where it came from, and how to call it in a log line.

    `made` identifies the socket file that was made for it, None when there is none of ours.
    """

    socket: socket.socket
    endpoint: Endpoint
    description: str
    made: _Identity | None = None

    @property
    def tls(self) -> TlsFiles | None:
        """The files to speak TLS with, None for plain text."""
        return self.endpoint.tls


def open_all(endpoints: Iterable[Endpoint], backlog: int) -> tuple[Listener, ...]:
    """Open a listener for each endpoint, in order; `backlog` is for those that bring none.

    Raises `BootError` for the first one that fails, after closing those opened before it.
    """
    opened: list[Listener] = []
    try:
        for endpoint in endpoints:
            opened.append(_open(endpoint, backlog, opened))
    except BaseException:
        release(opened)
        raise
    return tuple(opened)


def release(listeners: Iterable[Listener]) -> None:
    """Close the listeners, and unlink the socket files that are still the ones we made.

    For the master alone: a worker that leaves closes its own copy of the sockets. What has been
    released already is left alone.
    """
    for listener in listeners:
        if listener.made is not None and listener.socket.fileno() >= 0:
            _unlink(listener.endpoint.path, listener.made)
        listener.socket.close()


def _open(endpoint: Endpoint, backlog: int, opened: list[Listener]) -> Listener:
    if endpoint.tls is not None:
        _check_files(endpoint, endpoint.tls)
    if endpoint.kind == "fd":
        return _adopt(endpoint, opened)
    depth = backlog if endpoint.backlog is None else endpoint.backlog
    if endpoint.kind == "unix":
        return _listen_unix(endpoint, depth)
    return _listen_tcp(endpoint, depth, opened)


def _refuse(endpoint: Endpoint, reason: str) -> NoReturn:
    message = f"{endpoint.label}: {reason}"
    raise BootError(message) from None


def _check_files(endpoint: Endpoint, tls: TlsFiles) -> None:
    """Refuse files that cannot be read. What is in them, only a worker's TLS library can say."""
    files = {
        "privateKey": tls.private_key,
        "certKey": tls.certificate,
        "extraCertChain": tls.chain,
        "dhParameters": tls.dh_parameters,
    }
    for name, path in files.items():
        try:
            if path:
                with open(path, "rb") as file:
                    file.read(1)
        except (OSError, ValueError) as error:
            _refuse(endpoint, f"{name} {path!r} cannot be read: {_cause(error)}")


def _cause(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)


# TCP


def _listen_tcp(endpoint: Endpoint, depth: int, opened: list[Listener]) -> Listener:
    family, address = _resolve(endpoint)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # `::` takes IPv4 too, as people who write `-b ::` in a container expect. The kernel's
            # default is a sysctl; a listener's reach must not depend on it.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
        sock.listen(depth)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        _refuse_address(endpoint, address, error, opened)
    return Listener(sock, endpoint, _describe(sock))


def _resolve(endpoint: Endpoint) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    """Return the family and address to bind: of a name its first IPv4 address, else its first."""
    try:
        found = socket.getaddrinfo(
            endpoint.host or "0.0.0.0",  # noqa: S104 - Twisted's meaning of an empty interface
            endpoint.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no host name"
        _refuse_host(endpoint, f"cannot be resolved: {reason}")
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    return family, address


def _refuse_host(endpoint: Endpoint, reason: str) -> NoReturn:
    if endpoint.origin == "--port":
        message = f"--bind {endpoint.host}: {reason}"
        raise BootError(message) from None
    _refuse(endpoint, f"interface {endpoint.host!r} {reason}")


def _refuse_address(
    endpoint: Endpoint, address: tuple[object, ...], error: OSError, opened: list[Listener]
) -> NoReturn:
    host, port, *_ = address
    where = _joined(str(host), int(str(port)))
    if error.errno == errno.EADDRINUSE:
        _refuse(endpoint, f"{where} is in use by {_holder(where, opened)}")
    if error.errno == errno.EACCES and endpoint.port < _FIRST_PRIVILEGED_FREE:
        _refuse(
            endpoint,
            "permission denied; a port below 1024 needs root, the capability"
            " CAP_NET_BIND_SERVICE, or a socket handed over with --fd",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        _refuse_host(endpoint, "is no address of this machine")
    _refuse(endpoint, f"{where} cannot be listened on: {_cause(error)}")


def _holder(where: str, opened: list[Listener]) -> str:
    """Return who has an address that is taken: another endpoint of ours, or a stranger."""
    for listener in opened:
        if listener.description == f"TCP address {where}":
            return listener.endpoint.label
    return "another process"


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _describe(sock: socket.socket) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"UNIX socket {os.fsdecode(name).replace(chr(0), '@')}"
    return f"TCP address {_joined(name[0], name[1])}"


# Unix sockets


def _listen_unix(endpoint: Endpoint, depth: int) -> Listener:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made = None
    try:
        _make_way(endpoint)
        sock.bind(endpoint.path)
        made = _identity(endpoint.path)
        # Nobody can connect before listen, so the mode is right from the first connection on.
        os.chmod(endpoint.path, endpoint.mode)
        sock.listen(depth)
        sock.setblocking(False)
    except BaseException as error:
        if made is not None:
            _unlink(endpoint.path, made)
        sock.close()
        if isinstance(error, OSError):
            _refuse(endpoint, f"cannot be listened on: {_cause(error)}")
        raise
    return Listener(sock, endpoint, f"UNIX socket {endpoint.path}", made)


def _identity(path: str) -> _Identity | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _unlink(path: str, made: _Identity) -> None:
    if _identity(path) == made:
        os.unlink(path)


def _make_way(endpoint: Endpoint) -> None:
    """Remove a socket file that nobody listens on; refuse anything else at its path."""
    path = endpoint.path
    seen = _identity(path)
    if seen is None:
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        _refuse(endpoint, "exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(path)
    reason = _occupied(code)
    if reason:
        _refuse(endpoint, reason)
    _unlink(path, seen)


def _occupied(code: int) -> str:
    """Return what a connect that ended with `code` tells of a socket file, "" if nobody listens."""
    if code in {errno.ECONNREFUSED, errno.ENOENT}:
        return ""
    if code in {0, errno.EAGAIN, errno.EPROTOTYPE}:
        return "is in use by another process"
    return f"exists: {os.strerror(code)}"


# Descriptors handed over


def _adopt(endpoint: Endpoint, opened: list[Listener]) -> Listener:
    number = endpoint.fileno
    for listener in opened:
        if listener.endpoint.fileno == number:
            _refuse(endpoint, f"descriptor {number} is already used by {listener.endpoint.label}")
    try:
        sock = socket.socket(fileno=number)
    except OSError as error:
        reason = "is not open" if error.errno == errno.EBADF else "is no socket"
        _refuse(endpoint, f"descriptor {number} {reason}")
    complaint = _complaint(sock)
    if complaint:
        sock.detach()
        _refuse(endpoint, f"descriptor {number} {complaint}")
    if number <= _LAST_STANDARD_DESCRIPTOR:
        sock = _moved(sock)
    sock.set_inheritable(False)
    sock.setblocking(False)
    return Listener(sock, endpoint, _describe(sock))


def _complaint(sock: socket.socket) -> str:
    """Return what keeps a socket from being a listener, "" for nothing."""
    if sock.family not in _FAMILIES:
        return "is neither a TCP nor a unix socket"
    if sock.type != socket.SOCK_STREAM:
        return "is no stream socket"
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "is a socket that does not listen"
    return ""


def _moved(sock: socket.socket) -> socket.socket:
    """Return `sock` under a higher number, with /dev/null in its old place.

    Descriptors 0 to 2 belong to standard streams. Programs that the application starts inherit
    them, and would hold the listener open, or read from it.
    """
    copy = sock.dup()
    number = sock.detach()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, number)
    os.close(null)
    return copy
