"""The request head and the one policy that admits it.

A head is looked at exactly once, here, before anything else sees it: the same function serves
plain requests and WebSocket handshakes, so that no two parts of the server can read the same bytes
differently. What is wrong raises `Refused`, which carries the status for the client and the rule
for the log. Pure: bytes in, values out.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Head", "Headers", "Refused", "admit", "valid_host"]

Headers = list[tuple[bytes, bytes]]

#: RFC 3986 section 3.2.2 allows a name 255 characters; with a port and its colon, six more.
_MAX_HOST = 261
#: RFC 3986 section 3.2.2 with a port: a bracketed IPv6 literal, or a name. An underscore is let
#: through because container networks name their hosts with it.
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)
#: What may stand in a request target: visible ASCII but no fragment (RFC 3986, lax as all are).
_TARGET = re.compile(rb"[!\"$-~]+")
#: 16 bytes in base64: 22 digits and two signs of padding.
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
#: 2^63 has 19 digits: more cannot be a length, and would cost a quadratic `int()`.
_LENGTH = re.compile(rb"[0-9]{1,19}")


class Refused(Exception):
    """The peer broke a rule.

    `status` is the HTTP status it gets, with `headers`; `rule` names, for client and log, the rule
    or the option.
    """

    def __init__(self, status: int, rule: str, headers: Headers | None = None) -> None:
        """Refuse with `status` because of `rule`."""
        super().__init__(rule)
        self.status = status
        self.rule = rule
        self.headers = headers or []


class Head:
    """An admitted request head.

    `path` is percent-decoded text, `raw_path` and `query` bytes as sent; `headers` have lower-case
    names, in the order sent. `length` is the announced size of the body in bytes, `None` when it
    is chunked. `websocket` says that the request asks for an upgrade to WebSocket; `root_path` is
    what Daphne-Root-Path said: it speaks to the server, so it is not among `headers`.
    """

    method: str
    version: str
    path: str
    raw_path: bytes
    query: bytes
    headers: Headers
    # What most heads do not say stands here, once for all of them.
    root_path: bytes | None = None
    length: int | None = None
    chunked = False
    close = False
    keeps_alive = False
    expects_continue = False
    upgrade = False
    websocket = False

    def __init__(self, method: str, version: str) -> None:
        """Be the head of a request of which nothing else is known yet."""
        self.method = method
        self.version = version
        self.headers = []

    @property
    def has_body(self) -> bool:
        """Say whether body bytes follow the head."""
        return self.chunked or bool(self.length)

    @property
    def target(self) -> str:
        """Return path and query as sent, for the access log."""
        raw = self.raw_path + b"?" + self.query if self.query else self.raw_path
        return raw.decode("ascii")

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of every header line called `name` (lower case)."""
        return [value for key, value in self.headers if key == name]


def valid_host(value: bytes) -> bool:
    """Say whether `value` is a Host by RFC 9110 section 7.2: `uri-host [":" port]`."""
    return len(value) <= _MAX_HOST and _is_host(value)


@lru_cache(maxsize=512)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


def _split_target(head: Head, target: bytes) -> bytes | None:
    """Fill in path and query (RFC 9112 section 3.2); return the authority of an absolute form."""
    authority = None
    if not target.startswith(b"/"):
        if target == b"*" and head.method == "OPTIONS":
            head.path, head.raw_path, head.query = "*", b"*", b""
            return None
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            raise Refused(400, "request target is neither a path nor an http URL")
        authority, target = absolute.groups()
        if not authority or authority.startswith(b":"):
            raise Refused(400, "request target has no host")
        if not target.startswith(b"/"):
            target = b"/" + target
    if not _TARGET.fullmatch(target):
        raise Refused(400, "request target has a byte that must be percent-encoded")
    head.raw_path, _, head.query = target.partition(b"?")
    path = head.raw_path.decode("ascii")
    head.path = unquote(path) if "%" in path else path
    return authority


def _tokens(value: bytes) -> list[bytes]:
    return [token.strip(b" \t") for token in value.lower().split(b",")]


# The headers that steer the connection, a function each.


def _host(head: Head, value: bytes) -> None:
    if not valid_host(value):
        raise Refused(400, "Host is not a host (RFC 9110 section 7.2)")
    head.headers.append((b"host", value))


def _connection(head: Head, value: bytes) -> None:
    for token in _tokens(value):
        if token == b"close":
            head.close = True
        elif token == b"keep-alive":
            head.keeps_alive = True
        elif token == b"upgrade":
            head.upgrade = True
    head.headers.append((b"connection", value))


def _content_length(head: Head, value: bytes) -> None:
    if not _LENGTH.fullmatch(value):
        raise Refused(400, "Content-Length is not a number (RFC 9110 section 8.6)")
    if head.length is not None:
        raise Refused(400, "more than one Content-Length (RFC 9110 section 8.6)")
    head.length = int(value)
    head.headers.append((b"content-length", value))


def _transfer_encoding(head: Head, value: bytes) -> None:
    if head.version == "1.0":
        raise Refused(400, "Transfer-Encoding in HTTP/1.0 (RFC 9112 section 6.1)")
    if head.chunked or value.lower() != b"chunked":
        raise Refused(501, "Transfer-Encoding other than chunked (RFC 9112 section 6.1)")
    head.chunked = True
    head.headers.append((b"transfer-encoding", value))


def _expect(head: Head, value: bytes) -> None:
    if value.lower() != b"100-continue":
        raise Refused(417, "Expect other than 100-continue (RFC 9110 section 10.1.1)")
    head.expects_continue = head.version == "1.1"
    head.headers.append((b"expect", value))


def _root_path(head: Head, value: bytes) -> None:
    head.root_path = value


_READERS = {
    b"host": _host,
    b"connection": _connection,
    b"content-length": _content_length,
    b"transfer-encoding": _transfer_encoding,
    b"expect": _expect,
    b"daphne-root-path": _root_path,
}


def _read_headers(head: Head, lines: Iterable[tuple[bytes, bytes]]) -> None:
    """Fill in `head.headers` and what the steering headers say."""
    headers = head.headers
    for name, value in lines:
        # "X_Y" and "X-Y" are one variable to CGI-minded applications: CVE-2015-0219's class.
        if b"_" in name:
            continue
        name = name.lower()  # noqa: PLW2901 - the old spelling must not be used again
        value = value.strip(b" \t")  # noqa: PLW2901
        if name in _READERS:
            _READERS[name](head, value)
        else:
            headers.append((name, value))


def admit(method: str, target: bytes, version: str, lines: Iterable[tuple[bytes, bytes]]) -> Head:
    """Return the head if every rule holds; raise `Refused` if one does not.

    `lines` are the header lines as parsed: names are tokens, values free of control bytes.
    Rules: RFC 9110 sections 5, 7.2, 8.6, 10.1.1; RFC 9112 sections 3.2, 6.
    """
    if version not in {"1.0", "1.1"}:
        raise Refused(505, f"HTTP version {version}")
    if method == "CONNECT":
        raise Refused(501, "method CONNECT")
    head = Head(method, version)
    authority = _split_target(head, target)
    _read_headers(head, lines)
    _check_hosts(head, authority)
    if head.chunked:
        if head.length is not None:
            raise Refused(400, "Content-Length beside Transfer-Encoding (RFC 9112 section 6.3)")
    elif head.length is None:
        head.length = 0
    if version == "1.0":
        head.close = head.close or not head.keeps_alive
    elif head.upgrade:
        _look_for_websocket(head)
    return head


def _check_hosts(head: Head, authority: bytes | None) -> None:
    """Check that there is one Host (RFC 9112 section 3.2), or none in HTTP/1.0.

    The authority of an absolute target stands for it (RFC 9112 section 3.2.2).
    """
    hosts = [name for name, _ in head.headers if name == b"host"]
    if len(hosts) != 1 and (hosts or head.version == "1.1"):
        found = "more than one" if hosts else "no"
        raise Refused(400, f"{found} Host (RFC 9112 section 3.2)")
    if authority is not None:
        if b"@" in authority or not valid_host(authority):
            raise Refused(400, "host of the request target is not a host")
        others = [line for line in head.headers if line[0] != b"host"]
        head.headers = [(b"host", authority), *others]


def _look_for_websocket(head: Head) -> None:
    """Find out whether the upgrade is to WebSocket, and check what RFC 6455 asks for then."""
    if any(b"websocket" in _tokens(value) for value in head.values(b"upgrade")):
        _check_handshake(head)
        head.websocket = True


def _check_handshake(head: Head) -> None:
    """Check what RFC 6455 section 4.2.1 asks of a client's opening handshake."""
    if head.method != "GET":
        raise Refused(400, "WebSocket handshake with a method other than GET")
    if head.values(b"sec-websocket-version") != [b"13"]:
        # RFC 6455 section 4.4 asks for the one, RFC 9110 section 15.5.22 for the other.
        headers = [(b"Sec-WebSocket-Version", b"13"), (b"Upgrade", b"websocket")]
        raise Refused(426, "Sec-WebSocket-Version other than 13", headers)
    keys = head.values(b"sec-websocket-key")
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise Refused(400, "Sec-WebSocket-Key is not one key of 16 bytes in base64")
