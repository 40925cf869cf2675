r"""Endpoint strings: Twisted's notation, read without Twisted.

An endpoint string is a kind and its parameters, separated by colons: `tcp:8000:interface=\:\:1`.
Parameters are given by position or as `name=value`. The names, their order and their defaults are
those of `twisted.internet.endpoints`; only the backlog's default is ours. `haproxy:` before another
endpoint string asks for a PROXY header on each connection. What is not `native` here, a plug-in of
Twisted's knows: see `plugin_endpoints`.

The options --bind, --port, --unix-socket and --fd are spelled as endpoint strings too, as Daphne
does it, so that one notation is logged, sorted and parsed. When nothing is asked for, it is the
sockets that a service manager hands over, if any. This module is pure: it makes addresses of texts,
and opens nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NoReturn

from daphne_supervisor import notation, values
from daphne_supervisor.errors import BootError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from daphne_supervisor.config import Bind

__all__ = ["NATIVE", "Endpoint", "TlsFiles", "assemble", "native", "parse", "unwrapped"]

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
FIRST_INHERITED = 3
"""The lowest descriptor that systemd hands over: SD_LISTEN_FDS_START of sd_listen_fds(3)."""
INHERITED = "LISTEN_FDS"
"""What stands in place of the option for a descriptor that is listened on without being asked."""

Kind = Literal["tcp", "ssl", "tls", "unix", "fd"]
_Parameters = dict[str, str]
_PROXIED = "haproxy"

_SIGNATURES = {
    "tcp": ("port", "interface", "backlog"),
    "tcp6": ("port", "backlog", "interface"),
    "ssl": (
        "port",
        "privateKey",
        "certKey",
        "sslmethod",
        "interface",
        "backlog",
        "extraCertChain",
        "dhParameters",
    ),
    "tls": ("path", "port", "backlog", "interface"),
    "unix": ("address", "mode", "backlog", "lockfile"),
    "fd": ("fileno", "domain"),
    "systemd": ("domain", "index", "name"),
}
NATIVE = (*_SIGNATURES, _PROXIED)
"""The kinds of endpoints that need no plug-in."""
_REQUIRED = {
    "tcp": "port",
    "tcp6": "port",
    "ssl": "port",
    "tls": "path",
    "unix": "address",
    "fd": "fileno",
}
# The names of OpenSSL's methods that a server can use, as Twisted looks them up in pyOpenSSL.
_TLS_METHODS = frozenset(
    {
        "SSLv23_METHOD",
        "TLS_METHOD",
        "TLS_SERVER_METHOD",
        "TLSv1_METHOD",
        "TLSv1_1_METHOD",
        "TLSv1_2_METHOD",
    }
)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The PEM files of a listener, and OpenSSL's name of the protocol; "" where not given.

    A tls endpoint has a `directory` of them, and nothing else.
    """

    private_key: str = ""
    certificate: str = ""
    chain: str = ""
    dh_parameters: str = ""
    method: str = ""
    directory: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One place to listen on.

    `text` is the endpoint string, `origin` the option that asked for it. `host` and `port` belong
    to tcp, ssl and tls, `tls` to the last two, `path` and `mode` to unix, `fileno` to fd, with the
    `name` that systemd gave it. A `backlog` or `mode` of None is left to the configuration; a
    `host` of "" means every IPv4 interface.

    `proxied` says that each connection begins with a PROXY header. With a `plugin`, which is an
    endpoint string too, workers ask Twisted what it puts around connections; `place` counts, from
    0, the listeners that belong to one such endpoint.
    """

    kind: Kind
    text: str
    origin: str
    host: str = ""
    port: int = 0
    path: str = ""
    mode: int | None = None
    fileno: int = -1
    name: str = ""
    backlog: int | None = None
    tls: TlsFiles | None = None
    proxied: bool = False
    plugin: str = ""
    place: int = 0

    @property
    def label(self) -> str:
        """How a message names this endpoint: the option and what was given to it."""
        given: dict[str, object] = {
            "--port": self.port,
            "--unix-socket": _shown(self.path),
            "--fd": self.fileno,
            INHERITED: _shown(self.name) or self.fileno,
        }
        return f"{self.origin} {given.get(self.origin, _shown(self.text))}"

    def refuse(self, reason: str) -> NoReturn:
        """Raise the `BootError` that says why this endpoint cannot be had."""
        message = f"{self.label}: {reason}"
        raise BootError(message) from None


def _shown(text: str) -> str:
    return text if text.isprintable() else repr(text)


def assemble(bind: Bind, inherited: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """Return the endpoint strings asked for, each with the option that it came from, sorted.

    With none asked for they are the descriptors handed over, of which `inherited` are the names,
    and if there are none, 127.0.0.1 port 8000. Otherwise only a half-given pair of --bind and
    --port is completed. Duplicates stay, and fail when they are opened.
    """
    host, port = bind.host or None, bind.port
    asked = [(text, "--endpoint") for text in bind.endpoints]
    nothing = (host, port, bind.unix_socket, bind.fd) == (None,) * 4 and not asked
    if nothing and inherited:
        return [(f"systemd:index={index}", INHERITED) for index in range(len(inherited))]
    if host is not None or port is not None or nothing:
        asked.append((_tcp_text(host or DEFAULT_HOST, port), "--port"))
    if bind.unix_socket is not None:
        asked.append((f"unix:{notation.escape(bind.unix_socket)}", "--unix-socket"))
    if bind.fd is not None:
        asked.append((f"fd:fileno={bind.fd}", "--fd"))
    return sorted(asked)


def _tcp_text(host: str, port: int | None) -> str:
    interface = notation.escape(host.strip("[]"))
    return f"tcp:port={DEFAULT_PORT if port is None else port}:interface={interface}"


def parse(text: str, origin: str, inherited: tuple[str, ...] = ()) -> Endpoint:
    """Return the endpoint that `text` describes.

    `inherited` are the names of the descriptors handed over by systemd. Raises `UsageError` for a
    text that makes no sense, `BootError` for a systemd descriptor that is not there.
    """
    try:
        inner, proxied = unwrapped(text)
        kind, parameters = _read(inner)
        return replace(_MAKERS[kind](text, origin, parameters, inherited), proxied=proxied)
    except ValueError as error:
        message = f"{origin} {_shown(text)}: {error}"
        raise UsageError(message) from None


def native(text: str) -> bool:
    """Say whether `text` is ours to parse, be it only to say what is wrong with it."""
    try:
        kind = notation.kind(unwrapped(text)[0])
    except ValueError:
        return True
    return kind in NATIVE or not kind.replace("-", "_").isidentifier()


def unwrapped(text: str) -> tuple[str, bool]:
    """Return `text` without a `haproxy:` before it, and whether there was one."""
    kind, colon, rest = text.partition(":")
    proxied = kind == _PROXIED and bool(colon)
    return (rest, True) if proxied else (text, False)


def _read(text: str) -> tuple[str, _Parameters]:
    (kind, *rest), *parts = notation.parameters(text)
    if kind == _PROXIED:
        message = "haproxy: stands once, before another endpoint string, as in haproxy:tcp:8000"
        raise ValueError(message)
    if rest or kind not in _SIGNATURES:
        known = ", ".join(f"{each}:" for each in NATIVE)
        message = f"is of no kind that is known: {known} or that of an installed plug-in of Twisted"
        raise ValueError(message)
    return kind, _assign(kind, parts)


def _assign(kind: str, parts: list[list[str]]) -> _Parameters:
    """Give each parameter its name, as Python does it with the arguments of a call."""
    names = _SIGNATURES[kind]
    positional = [part[0] for part in parts if len(part) == 1]
    if len(positional) > len(names):
        message = f"{kind}: takes at most {len(names)} parameters: {', '.join(names)}"
        raise ValueError(message)
    assigned = dict(zip(names, positional, strict=False))
    for name, value in (part for part in parts if len(part) > 1):
        if name not in names:
            message = f"{kind}: has no parameter {name!r}; there are {', '.join(names)}"
            raise ValueError(message)
        if name in assigned:
            message = rf"{name} is given twice (a colon in a value is written \:)"
            raise ValueError(message)
        assigned[name] = value
    required = _REQUIRED.get(kind)
    if required and not assigned.get(required):
        message = f"{required} is missing"
        raise ValueError(message)
    return assigned


def _backlog(parameters: _Parameters) -> int | None:
    return values.backlog(parameters["backlog"]) if "backlog" in parameters else None


def _tcp(text: str, origin: str, given: _Parameters, _: tuple[str, ...]) -> Endpoint:
    return Endpoint(
        kind="tcp",
        text=text,
        origin=origin,
        host=given.get("interface", ""),
        port=values.port(given["port"]),
        backlog=_backlog(given),
    )


def _tcp6(text: str, origin: str, given: _Parameters, inherited: tuple[str, ...]) -> Endpoint:
    return _tcp(text, origin, {"interface": "::", **given}, inherited)


def _ssl(text: str, origin: str, given: _Parameters, _: tuple[str, ...]) -> Endpoint:
    private_key = given.get("privateKey", "server.pem")
    method = given.get("sslmethod", "")
    if method and method not in _TLS_METHODS:
        message = f"{method!r} is no sslmethod; there are {', '.join(sorted(_TLS_METHODS))}"
        raise ValueError(message)
    tls = TlsFiles(
        private_key=private_key,
        certificate=given.get("certKey", private_key),
        chain=given.get("extraCertChain", ""),
        dh_parameters=given.get("dhParameters", ""),
        method=method,
    )
    return Endpoint(
        kind="ssl",
        text=text,
        origin=origin,
        host=given.get("interface", ""),
        port=values.port(given["port"]),
        backlog=_backlog(given),
        tls=tls,
    )


def _tls(text: str, origin: str, given: _Parameters, _: tuple[str, ...]) -> Endpoint:
    return Endpoint(
        kind="tls",
        text=text,
        origin=origin,
        host=given.get("interface", "::"),
        port=values.port(given.get("port", "443")),
        backlog=_backlog(given),
        tls=TlsFiles(directory=values.path(given["path"])),
    )


def _unix(text: str, origin: str, given: _Parameters, _: tuple[str, ...]) -> Endpoint:
    # There always is a lock file. The parameter is read so that endpoint strings in use go on
    # working.
    values.mark(given.get("lockfile", "1"))
    return Endpoint(
        kind="unix",
        text=text,
        origin=origin,
        path=values.path(given["address"]),
        mode=_mode(given["mode"]) if "mode" in given else None,
        backlog=_backlog(given),
    )


def _mode(given: str) -> int:
    digits = given.removeprefix("0o").lstrip("0") or "0"
    if len(digits) > len("777") or not set(digits) <= set("01234567"):
        message = f"{given!r} is not a file mode (octal, as 660)"
        raise ValueError(message)
    return int(digits, 8)


def _fd(text: str, origin: str, given: _Parameters, _: tuple[str, ...]) -> Endpoint:
    # `domain`, which Daphne's plug-in has, is not needed: the socket knows its own family.
    return Endpoint(kind="fd", text=text, origin=origin, fileno=values.descriptor(given["fileno"]))


def _systemd(text: str, origin: str, given: _Parameters, inherited: tuple[str, ...]) -> Endpoint:
    if ("index" in given) == ("name" in given):
        message = "exactly one of index and name is needed"
        raise ValueError(message)
    if "index" in given:
        index = values.limit(given["index"])
    else:
        index = inherited.index(given["name"]) if given["name"] in inherited else len(inherited)
    if index >= len(inherited):
        message = (
            f"{origin} {_shown(text)}: is not among the sockets that systemd has handed over"
            f" (LISTEN_FDS): {len(inherited)}"
        )
        raise BootError(message)
    return Endpoint(
        kind="fd",
        text=text,
        origin=origin,
        fileno=FIRST_INHERITED + index,
        name=inherited[index],
    )


_MAKERS: dict[str, Callable[[str, str, _Parameters, tuple[str, ...]], Endpoint]] = {
    "tcp": _tcp,
    "tcp6": _tcp6,
    "ssl": _ssl,
    "tls": _tls,
    "unix": _unix,
    "fd": _fd,
    "systemd": _systemd,
}
