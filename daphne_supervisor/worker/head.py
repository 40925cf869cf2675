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
#: Bytes that may stand in a request target: visible ASCII (RFC 3986, lax as every server is).
_TARGET = re.compile(rb"[!-~]+")
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

    __slots__ = (
        "chunked",
        "close",
        "expects_continue",
        "headers",
        "keeps_alive",
        "length",
        "method",
        "path",
        "query",
        "raw_path",
        "root_path",
        "upgrade",
        "version",
        "websocket",
    )

    method: str
    version: str
    path: str
    raw_path: bytes
    query: bytes
    root_path: bytes | None
    headers: Headers
    length: int | None
    chunked: bool
    close: bool
    keeps_alive: bool
    expects_continue: bool
    upgrade: bool
    websocket: bool

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
    if not _TARGET.fullmatch(target) or b"#" in target:
        raise Refused(400, "request target has a byte that must be percent-encoded")
    head.raw_path, _, head.query = target.partition(b"?")
    path = head.raw_path.decode("ascii")
    head.path = unquote(path) if "%" in path else path
    return authority


def _tokens(value: bytes) -> list[bytes]:
    return [token.strip(b" \t") for token in value.lower().split(b",")]


class _Reader:
    """Reads the headers that steer the connection, one method each."""

    __slots__ = ("head", "hosts", "upgrades")

    def __init__(self, head: Head) -> None:
        self.head = head
        self.hosts = 0
        self.upgrades: list[bytes] = []

    def host(self, value: bytes) -> None:
        self.hosts += 1
        if self.hosts > 1:
            raise Refused(400, "more than one Host (RFC 9112 section 3.2)")
        if not valid_host(value):
            raise Refused(400, "Host is not a host (RFC 9110 section 7.2)")

    def connection(self, value: bytes) -> None:
        for token in _tokens(value):
            if token == b"close":
                self.head.close = True
            elif token == b"keep-alive":
                self.head.keeps_alive = True
            elif token == b"upgrade":
                self.head.upgrade = True

    def upgrade(self, value: bytes) -> None:
        self.upgrades += _tokens(value)

    def content_length(self, value: bytes) -> None:
        if not _LENGTH.fullmatch(value):
            raise Refused(400, "Content-Length is not a number (RFC 9110 section 8.6)")
        if self.head.length is not None:
            raise Refused(400, "more than one Content-Length (RFC 9110 section 8.6)")
        self.head.length = int(value)

    def transfer_encoding(self, value: bytes) -> None:
        if self.head.version == "1.0":
            raise Refused(400, "Transfer-Encoding in HTTP/1.0 (RFC 9112 section 6.1)")
        if self.head.chunked or value.lower() != b"chunked":
            raise Refused(501, "Transfer-Encoding other than chunked (RFC 9112 section 6.1)")
        self.head.chunked = True

    def root_path(self, value: bytes) -> None:
        self.head.root_path = value

    def expect(self, value: bytes) -> None:
        if value.lower() != b"100-continue":
            raise Refused(417, "Expect other than 100-continue (RFC 9110 section 10.1.1)")
        self.head.expects_continue = self.head.version == "1.1"


_READERS = {
    b"host": _Reader.host,
    b"connection": _Reader.connection,
    b"upgrade": _Reader.upgrade,
    b"content-length": _Reader.content_length,
    b"transfer-encoding": _Reader.transfer_encoding,
    b"expect": _Reader.expect,
    b"daphne-root-path": _Reader.root_path,
}


def _read_headers(head: Head, lines: Iterable[tuple[bytes, bytes]]) -> _Reader:
    """Fill in `head.headers` and what the steering headers say."""
    reader = _Reader(head)
    headers = head.headers
    for name, value in lines:
        # "X_Y" and "X-Y" are one variable to CGI-minded applications: CVE-2015-0219's class.
        if b"_" in name:
            continue
        name = name.lower()  # noqa: PLW2901 - the old spelling must not be used again
        value = value.strip(b" \t")  # noqa: PLW2901
        read = _READERS.get(name)
        if read is not None:
            read(reader, value)
        if read is not _Reader.root_path:
            headers.append((name, value))
    return reader


def admit(method: str, target: bytes, version: str, lines: Iterable[tuple[bytes, bytes]]) -> Head:
    """Return the head if every rule holds; raise `Refused` if one does not.

    `lines` are the header lines as parsed: names are tokens, values free of control bytes.
    Rules: RFC 9110 sections 5, 7.2, 8.6, 10.1.1; RFC 9112 sections 3.2, 6.
    """
    if version not in {"1.0", "1.1"}:
        raise Refused(505, f"HTTP version {version}")
    if method == "CONNECT":
        raise Refused(501, "method CONNECT")
    head = Head()
    head.method = method
    head.version = version
    head.headers = []
    head.length = head.root_path = None
    head.chunked = head.close = head.keeps_alive = head.upgrade = False
    head.expects_continue = head.websocket = False
    authority = _split_target(head, target)
    reader = _read_headers(head, lines)
    if not reader.hosts and version == "1.1":
        raise Refused(400, "no Host (RFC 9112 section 3.2)")
    if head.chunked and head.length is not None:
        raise Refused(400, "Content-Length beside Transfer-Encoding (RFC 9112 section 6.3)")
    if authority is not None:
        _replace_host(head, authority)
    if version == "1.0":
        head.close = head.close or not head.keeps_alive
    if head.upgrade and b"websocket" in reader.upgrades and version == "1.1":
        _check_handshake(head)
        head.websocket = True
    if not head.chunked and head.length is None:
        head.length = 0
    return head


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


def _replace_host(head: Head, authority: bytes) -> None:
    """Let the authority of an absolute target stand for Host (RFC 9112 section 3.2.2)."""
    if b"@" in authority or not valid_host(authority):
        raise Refused(400, "host of the request target is not a host")
    others = [line for line in head.headers if line[0] != b"host"]
    head.headers = [(b"host", authority), *others]
