"""Listeners: the sockets that the master opens once and every worker inherits.

A listener outlives all workers, which is why connections survive reloads and crashes. Sockets are
made in blocking order but are non-blocking themselves, close on exec, and listen from the start; a
descriptor that was handed over is checked and adopted, and never given a new mode, backlog or name.

An upgrade hands all listeners to a new master. It is told what each was opened for, so that it
takes the one it would otherwise open itself, opens what is new, and closes what nobody asks for.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from daphne_supervisor import unix_sockets
from daphne_supervisor.errors import BootError
from daphne_supervisor.unix_sockets import SocketFile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daphne_supervisor.config import Bind
    from daphne_supervisor.endpoints import Endpoint, TlsFiles

__all__ = ["Listener", "abandon", "descriptors", "export", "open_all", "release"]

_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
_FIRST_PRIVILEGED_FREE = 1024
_LAST_STANDARD_DESCRIPTOR = 2


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket, where it came from, and how to call it in a log line.

    `made` is the socket file that was made for it, None when there is none of ours.
    """

    socket: socket.socket
    endpoint: Endpoint
    description: str
    made: SocketFile | None = None

    @property
    def tls(self) -> TlsFiles | None:
        """The files to speak TLS with, None for plain text."""
        return self.endpoint.tls


def open_all(
    endpoints: Iterable[Endpoint], bind: Bind, exported: str = "[]"
) -> tuple[Listener, ...]:
    """Open a listener for each endpoint, in order; `bind` has what an endpoint does not say.

    `exported` describes the listeners that another master has handed over. Raises `BootError` or
    `UsageError` for the first one that fails, after closing those opened before it.
    """
    handed_over = _Legacy(exported)
    opened: list[Listener] = []
    try:
        for endpoint in endpoints:
            taken = handed_over.take(endpoint)
            opened.append(taken or _open(endpoint, bind, opened))
    except BaseException:
        release(opened)
        raise
    finally:
        handed_over.close()
    return tuple(opened)


def release(listeners: Iterable[Listener]) -> None:
    """Close the listeners; remove the socket files that are still the ones we made.

    A file stays if another master shares it. What has been released already is left alone. For the
    master only: a worker that leaves closes its own copy of the sockets.
    """
    for listener in listeners:
        if listener.made is not None and listener.socket.fileno() >= 0:
            listener.made.remove()
        listener.socket.close()


def abandon(listeners: Iterable[Listener]) -> None:
    """Close, in a forked child that only serves, what says that the master lives."""
    for listener in listeners:
        if listener.made is not None:
            listener.made.lock.close()


def descriptors(listeners: Iterable[Listener]) -> tuple[int, ...]:
    """Return what a new master has to inherit."""
    found = []
    for listener in listeners:
        found.append(listener.socket.fileno())
        if listener.made is not None:
            found.append(listener.made.lock.fileno())
    return tuple(found)


def export(listeners: Iterable[Listener]) -> str:
    """Return what a new master has to know of the listeners, in JSON."""
    return json.dumps(
        [
            {
                "name": _name(listener.endpoint),
                "socket": listener.socket.fileno(),
                "made": listener.made and listener.made.export(),
            }
            for listener in listeners
        ]
    )


def _name(endpoint: Endpoint) -> str:
    """Return by what an endpoint is known to the next master: where it listens, not how."""
    if endpoint.kind == "fd":
        return f"fd {endpoint.fileno}"
    if endpoint.kind == "unix":
        return f"unix {os.path.abspath(endpoint.path)}"
    return f"tcp {endpoint.host} {endpoint.port}"


class _Legacy:
    """The listeners that another master has handed over, until they are taken."""

    def __init__(self, exported: str) -> None:
        """Adopt them all: two may have one name, as every port 0 has."""
        self._left: list[tuple[str, socket.socket, SocketFile | None]] = []
        for one in json.loads(exported):
            sock = socket.socket(fileno=one["socket"])
            sock.set_inheritable(False)
            sock.setblocking(False)
            made = SocketFile.adopt(**one["made"]) if one["made"] else None
            self._left.append((one["name"], sock, made))

    def take(self, endpoint: Endpoint) -> Listener | None:
        """Return the listener for `endpoint` as it is, None when it was not handed over."""
        wanted = _name(endpoint)
        for index, (name, sock, made) in enumerate(self._left):
            if name == wanted:
                if endpoint.tls is not None:
                    _check_files(endpoint, endpoint.tls)
                del self._left[index]
                return Listener(sock, endpoint, _describe(sock, endpoint), made)
        return None

    def close(self) -> None:
        """Close what nobody has asked for. Its file is the other master's to remove."""
        for _, sock, made in self._left:
            sock.close()
            if made is not None:
                made.lock.close()


def _open(endpoint: Endpoint, bind: Bind, opened: list[Listener]) -> Listener:
    if endpoint.tls is not None:
        _check_files(endpoint, endpoint.tls)
    if endpoint.kind == "fd":
        return _adopt(endpoint, opened)
    depth = bind.backlog if endpoint.backlog is None else endpoint.backlog
    if endpoint.kind == "unix":
        sock, made = unix_sockets.listen(endpoint, bind, depth)
        return Listener(sock, endpoint, _describe(sock, endpoint), made)
    return _listen_tcp(endpoint, depth, opened)


def _check_files(endpoint: Endpoint, tls: TlsFiles) -> None:
    """Refuse files that cannot be read. What is in them, only a worker's TLS library can say."""
    files = {
        "privateKey": tls.private_key,
        "certKey": tls.certificate,
        "extraCertChain": tls.chain,
        "dhParameters": tls.dh_parameters,
    }
    try:
        if tls.directory:
            os.listdir(tls.directory)
    except (OSError, ValueError) as error:
        endpoint.refuse(f"directory {tls.directory!r} cannot be read: {_cause(error)}")
    for name, path in files.items():
        try:
            if path:
                with open(path, "rb") as file:
                    file.read(1)
        except (OSError, ValueError) as error:
            endpoint.refuse(f"{name} {path!r} cannot be read: {_cause(error)}")


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
    return Listener(sock, endpoint, _describe(sock, endpoint))


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
    endpoint.refuse(f"interface {endpoint.host!r} {reason}")


def _refuse_address(
    endpoint: Endpoint, address: tuple[object, ...], error: OSError, opened: list[Listener]
) -> NoReturn:
    host, port, *_ = address
    where = _joined(str(host), int(str(port)))
    if error.errno == errno.EADDRINUSE:
        endpoint.refuse(f"{where} is in use by {_holder(where, opened)}")
    if error.errno == errno.EACCES and endpoint.port < _FIRST_PRIVILEGED_FREE:
        endpoint.refuse(
            "permission denied; a port below 1024 needs root, the capability"
            " CAP_NET_BIND_SERVICE, or a socket handed over with --fd",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        _refuse_host(endpoint, "is no address of this machine")
    endpoint.refuse(f"{where} cannot be listened on: {_cause(error)}")


def _holder(where: str, opened: list[Listener]) -> str:
    """Return who has an address that is taken: another endpoint of ours, or a stranger."""
    for listener in opened:
        if listener.description.partition(" (")[0] == f"TCP address {where}":
            return listener.endpoint.label
    return "another process"


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _describe(sock: socket.socket, endpoint: Endpoint) -> str:
    called = f" ({endpoint.name})" if endpoint.name else ""
    name = sock.getsockname()
    if endpoint.kind == "unix":
        return f"UNIX socket {endpoint.path}"
    if sock.family == socket.AF_UNIX:
        return f"UNIX socket {os.fsdecode(name).replace(chr(0), '@')}{called}"
    return f"TCP address {_joined(name[0], name[1])}{called}"


# Descriptors handed over


def _adopt(endpoint: Endpoint, opened: list[Listener]) -> Listener:
    number = endpoint.fileno
    for listener in opened:
        if listener.endpoint.fileno == number:
            endpoint.refuse(f"descriptor {number} is already used by {listener.endpoint.label}")
    try:
        sock = socket.socket(fileno=number)
    except OSError as error:
        reason = "is not open" if error.errno == errno.EBADF else "is no socket"
        endpoint.refuse(f"descriptor {number} {reason}")
    complaint = _complaint(sock)
    if complaint:
        sock.detach()
        endpoint.refuse(f"descriptor {number} {complaint}")
    if number <= _LAST_STANDARD_DESCRIPTOR:
        sock = _moved(sock)
    sock.set_inheritable(False)
    sock.setblocking(False)
    return Listener(sock, endpoint, _describe(sock, endpoint))


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
