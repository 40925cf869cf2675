"""From an admitted head to an ASGI scope, and whom to believe about the client.

The scopes follow the ASGI HTTP & WebSocket specification 2.5 with the keys that Daphne's users
know: `client` and `server` are lists, `path` is not prefixed by `root_path`.

Forwarding headers are believed only when the *peer* of the connection is a trusted proxy, and
X-Forwarded-For is read from the right: each hop appends the address it saw, so the first address
from the right that is no trusted proxy is the last one that nobody could forge.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from daphne_supervisor.worker.file_source import PATHSEND, ZEROCOPYSEND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daphne_supervisor.config import Proxy
    from daphne_supervisor.worker.head import Head

__all__ = ["Peer", "Proxies", "http_scope", "subprotocols", "websocket_scope"]

Scope = dict[str, Any]
Address = list[Any]  # [host, port], as ASGI writes it

_ASGI = {"version": "3.0", "spec_version": "2.5"}
#: Stands for the template of a head that has come once: most never come again.
_ONCE: dict[str, Any] = {}
_LAST_PORT = 65535
_PORT_DIGITS = 5
#: Hosts of which it is kept whether they are trusted.
_HOSTS = 1024
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class Peer:
    """What a connection's two ends are, fixed for its life.

    `client` and `server` are `(host, port)`, `None` for a unix socket. `trusted` says whether its
    forwarding headers are believed. `tls` is what the ASGI TLS extension says of the connection,
    None for plain text.
    """

    def __init__(
        self,
        client: tuple[str, int] | None,
        server: tuple[str, int] | None,
        scheme: str,
    ) -> None:
        """Describe a connection between `client` and `server`, over TLS if `scheme` is `https`."""
        self.client = client
        self.server = server
        self.scheme = scheme
        self.trusted = False
        self.tls: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """Return the client as the access log writes it."""
        return address_text(self.client)


def address_text(client: Sequence[Any] | None) -> str:
    """Return `client` as the access log writes it: `ip:port`, or `None` for a unix socket."""
    if not client:
        return "None"
    host, port = client[0], client[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text, strict=False)


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that `text` names, with or without a port; `None` if it names none."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


class Proxies:
    """The trust that `--forwarded-allow-ips` gives, and the reading of what a proxy says."""

    def __init__(self, config: Proxy) -> None:
        """Read the addresses, networks and words (`unix`, `*`) of the option once."""
        allowed = config.forwarded_allow_ips
        self._anyone = "*" in allowed
        self._unix = "unix" in allowed
        self._networks = [_network(text) for text in allowed if text not in {"*", "unix"}]
        self.enabled = config.proxy_headers
        self._for = config.proxy_headers_host.lower().encode()
        self._port = config.proxy_headers_port.lower().encode()
        self._names = {self._for, self._port, b"x-forwarded-proto"}
        # Of a proxy come most connections; and who connects without one mostly comes again.
        self.trusts = lru_cache(_HOSTS)(self._trusts)

    def _trusts(self, host: str | None) -> bool:
        """Say whether the peer at `host` (`None`: a unix socket) is a proxy of ours."""
        if host is None:
            return self._unix or self._anyone
        address = _ip(host)
        return address is not None and self._holds(address)

    def _holds(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        return self._anyone or any(address in network for network in self._networks)

    def ignored(self, head: Head) -> str | None:
        """Return the name of a header that an untrusted peer sent in vain, if there is one."""
        if head.root_path is not None:
            return "daphne-root-path"
        if not self.enabled:
            return None
        return next((name.decode() for name, _ in head.headers if name in self._names), None)

    def client(self, head: Head) -> Address | None:
        """Return `[host, port]` of the client that the forwarding headers name, if they do."""
        lines = head.values(self._for)
        if not lines:
            return None
        found = None
        for entry in reversed(b",".join(lines).decode("latin-1").split(",")):
            address = _ip(entry)
            if address is None:
                break
            found = str(address)
            if not self._holds(address):
                break
        return None if found is None else [found, self._forwarded_port(head)]

    def _forwarded_port(self, head: Head) -> int:
        for value in reversed(head.values(self._port)):
            # Thousands of digits would raise in int(), and a client may have sent them.
            if value.isdigit() and len(value) <= _PORT_DIGITS and int(value) <= _LAST_PORT:
                return int(value)
        return 0

    def scheme(self, head: Head) -> str | None:
        """Return `http` or `https` as the nearest proxy saw it, if it says so."""
        lines = head.values(b"x-forwarded-proto")
        if not lines:
            return None
        return _SCHEMES.get(lines[-1].decode("latin-1").split(",")[-1].strip().lower())


def http_scope(head: Head, peer: Peer, proxies: Proxies, root_path: str) -> Scope:
    """Return the `http` connection scope (ASGI HTTP specification, "HTTP Connection Scope").

    The same head again, as the codecs know it, means the same, whoever sends it: then the scope is
    a copy but for the two ends, and everything in it that somebody could change is made anew.
    """
    template = head.template
    if not template:
        if template is None:
            head.template = _ONCE
            return _http_scope(head, peer, proxies, root_path)
        template = head.template = _scope(head, Peer(None, None, ""), proxies, root_path)
        head.forwarded = _forwarded(head, proxies)
    scope = template.copy()
    client, server = peer.client, peer.server
    scope["asgi"] = _ASGI.copy()
    scope["scheme"] = peer.scheme
    scope["headers"] = head.headers.copy()
    if client is not None:
        scope["client"] = [*client]
    if server is not None:
        scope["server"] = [*server]
    extensions: dict[str, Any] = {PATHSEND: {}, ZEROCOPYSEND: {}}
    scope["extensions"] = extensions
    for name in head.extensions:
        extensions[name] = {}
    if peer.tls is not None:
        extensions["tls"] = peer.tls.copy()
    if head.forwarded and peer.trusted:
        scope |= head.forwarded
        scope["client"] = scope["client"] and scope["client"].copy()
    return scope


def _http_scope(head: Head, peer: Peer, proxies: Proxies, root_path: str) -> Scope:
    scope = _scope(head, peer, proxies, root_path)
    extensions = scope["extensions"]
    for name in (PATHSEND, ZEROCOPYSEND, *head.extensions):
        extensions[name] = {}
    return scope


def _scope(head: Head, peer: Peer, proxies: Proxies, root_path: str) -> Scope:
    """Return what the scopes of requests and of WebSockets have in common."""
    client, server = peer.client, peer.server
    scope = {
        "type": "http",
        "asgi": _ASGI.copy(),
        "http_version": head.version,
        "method": head.method,
        "scheme": peer.scheme,
        "path": head.path,
        "raw_path": head.raw_path,
        "query_string": head.query,
        "root_path": root_path,
        "headers": head.headers.copy(),
        "client": client and [*client],
        "server": server and [*server],
        "extensions": {} if peer.tls is None else {"tls": peer.tls.copy()},
    }
    if peer.trusted:
        scope |= _forwarded(head, proxies)
    return scope


def _forwarded(head: Head, proxies: Proxies) -> Scope:
    """Return what a trusted peer says of its client, in place of what we see of itself."""
    said: Scope = {}
    if head.root_path is not None:
        said["root_path"] = unquote_to_bytes(head.root_path).decode("utf-8", "replace")
    if proxies.enabled:
        client, scheme = proxies.client(head), proxies.scheme(head)
        if client is not None:
            said["client"] = client
        if scheme is not None:
            said["scheme"] = scheme
    return said


def subprotocols(head: Head) -> list[str]:
    """Return the subprotocols that the client offers, in its order (RFC 6455 section 4.1)."""
    lines = b",".join(head.values(b"sec-websocket-protocol")).decode("latin-1").split(",")
    return [name for line in lines if (name := line.strip())]


def websocket_scope(head: Head, peer: Peer, proxies: Proxies, root_path: str) -> Scope:
    """Return the `websocket` scope (ASGI specification, "WebSocket Connection Scope")."""
    scope = _scope(head, peer, proxies, root_path)
    scope["type"] = "websocket"
    del scope["method"]
    scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
    scope["subprotocols"] = subprotocols(head)
    scope["extensions"]["websocket.http.response"] = {}
    return scope
