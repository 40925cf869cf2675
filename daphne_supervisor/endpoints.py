r"""Endpoint strings: Twisted's notation, read without Twisted.

An endpoint string is a kind and its parameters, separated by colons: `tcp:8000:interface=\:\:1`.
Parameters are given by position or as `name=value`; a backslash takes the next character as it is,
so that a value may hold a colon. The names, their order and their defaults are those of
`twisted.internet.endpoints`; only the backlog's default is ours.

The options --bind, --port, --unix-socket and --fd are spelled as endpoint strings too, as Daphne
does it, so that one notation is logged, sorted and parsed. When nothing is asked for, it is the
sockets that a service manager hands over, if any. This module is pure: it makes addresses of texts,
and opens nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NoReturn

from daphne_supervisor import values
from daphne_supervisor.errors import BootError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daphne_supervisor.config import Bind

__all__ = ["Endpoint", "TlsFiles", "assemble", "parse"]

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
FIRST_INHERITED = 3
"""The lowest descriptor that systemd hands over: SD_LISTEN_FDS_START of sd_listen_fds(3)."""
INHERITED = "LISTEN_FDS"
"""What stands in place of the option for a descriptor that is listened on without being asked."""

Kind = Literal["tcp", "ssl", "unix", "fd"]
_Parameters = dict[str, str]

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
    "unix": ("address", "mode", "backlog", "lockfile"),
    "fd": ("fileno", "domain"),
    "systemd": ("domain", "index", "name"),
}
_REQUIRED = {"tcp": "port", "tcp6": "port", "ssl": "port", "unix": "address", "fd": "fileno"}
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
    """The PEM files of an ssl endpoint, and OpenSSL's name of the protocol; "" where not given."""

    private_key: str
    certificate: str
    chain: str = ""
    dh_parameters: str = ""
    method: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One place to listen on.

    `text` is the endpoint string, `origin` the option that asked for it. `host`, `port` and `tls`
    belong to tcp and ssl, `path` and `mode` to unix, `fileno` to fd, with the `name` that systemd
    gave it. A `backlog` or `mode` of None is left to the configuration; a `host` of "" means every
    IPv4 interface.
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


def _escape(text: str) -> str:
    for special in "\\:=":
        text = text.replace(special, "\\" + special)
    return text


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
        asked.append((f"unix:{_escape(bind.unix_socket)}", "--unix-socket"))
    if bind.fd is not None:
        asked.append((f"fd:fileno={bind.fd}", "--fd"))
    return sorted(asked)


def _tcp_text(host: str, port: int | None) -> str:
    interface = _escape(host.strip("[]"))
    return f"tcp:port={DEFAULT_PORT if port is None else port}:interface={interface}"


def parse(text: str, origin: str, inherited: tuple[str, ...] = ()) -> Endpoint:
    """Return the endpoint that `text` describes.

    `inherited` are the names of the descriptors handed over by systemd. Raises `UsageError` for a
    text that makes no sense, `BootError` for a systemd descriptor that is not there.
    """
    try:
        kind, parameters = _read(text)
        return _MAKERS[kind](text, origin, parameters, inherited)
    except ValueError as error:
        message = f"{origin} {_shown(text)}: {error}"
        raise UsageError(message) from None


def _read(text: str) -> tuple[str, _Parameters]:
    (kind, *rest), *parts = _split(text)
    if rest or kind not in _SIGNATURES:
        message = "the kinds served are tcp:, ssl:, unix: and fd: (also tcp6: and systemd:)"
        raise ValueError(message)
    return kind, _assign(kind, parts)


def _split(text: str) -> Iterator[list[str]]:
    """Yield each parameter as [value] or [name, value]."""
    part = [""]
    characters = iter(text)
    for character in characters:
        if character == ":":
            yield part
            part = [""]
        elif character == "=" and len(part) == 1:
            part.append("")
        elif character == "\\":
            part[-1] += _escaped(characters)
        else:
            part[-1] += character
    yield part


def _escaped(characters: Iterator[str]) -> str:
    following = next(characters, "")
    if not following:
        message = "a backslash at the end escapes nothing"
        raise ValueError(message)
    return following


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
    "unix": _unix,
    "fd": _fd,
    "systemd": _systemd,
}
