"""The request head and the one policy that admits it.

A head is looked at exactly once, here, before anything else sees it: the same function serves
plain requests and WebSocket handshakes, so that no two parts of the server can read the same bytes
differently. What is wrong raises `Refused`, which carries the status for the client and the rule
for the log. Pure: bytes in, values out.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from daphne_supervisor.worker.compression import extensions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = [
    "METHODS",
    "READERS",
    "Head",
    "Headers",
    "Refused",
    "admit",
    "check_websocket",
    "split_path",
    "underscored",
    "valid_host",
]

Headers = list[tuple[bytes, bytes]]

#: RFC 3986 section 3.2.2 allows a name 255 characters; with a port and its colon, six more.
_MAX_HOST = 261
#: RFC 3986 section 3.2.2 with a port: a bracketed IPv6 literal, or a name. An underscore is let
#: through because container networks name their hosts with it.
_HOST = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]+)\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)(?::([0-9]{0,5}))?"
)
_LAST_PORT = 65535
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)
#: What may stand in a request target: visible ASCII but no fragment (RFC 3986, lax as all are).
_TARGET = re.compile(rb"[!\"$-~]+")
#: Bytes of a target that may be kept for its next coming.
_SHORT = 256
#: 16 bytes in base64: 22 digits and two signs of padding.
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
#: 2^63 has 19 digits: more cannot be a length, and would cost a quadratic `int()`.
_LENGTH = re.compile(rb"[0-9]{1,19}")

#: The methods of the IANA registry and those that WebDAV servers and caches have been asked for.
METHODS = {
    name: name.decode()
    for name in (
        b"GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH QUERY ACL BASELINE-CONTROL BIND"
        b" CHECKIN CHECKOUT COPY LABEL LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF"
        b" MKWORKSPACE MOVE M-SEARCH NOTIFY ORDERPATCH PROPFIND PROPPATCH PURGE REBIND REPORT"
        b" SEARCH SUBSCRIBE UNBIND UNCHECKOUT UNLINK UNLOCK UNSUBSCRIBE UPDATE UPDATEREDIRECTREF"
        b" VERSION-CONTROL"
    ).split()
}


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
    what Daphne-Root-Path said: it speaks to the server, so it is not among `headers`. `template`
    and `forwarded` are what `scope.http_scope` makes of a head that comes again.
    """

    method: str
    version: str
    path: str
    raw_path: bytes
    query: bytes
    headers: Headers
    host: bytes | None
    length: int | None
    close: bool
    ordinary: bool  # its response needs no special framing: HTTP/1.1, and not HEAD
    # What most heads do not say stands here, once for all of them.
    root_path: bytes | None = None
    codings: Sequence[bytes] = ()  # of the transfer
    chunked = False
    keeps_alive = False
    expects_continue = False
    upgrade = False
    websocket = False
    h2c: bytes | None = None  # the client's HTTP2-Settings, if it asks for HTTP/2
    extensions: Sequence[str] = ()  # of ASGI, that its response may use
    priority: tuple[int, bool] | None = None  # of its response, in HTTP/2

    def __init__(self, method: str, version: str) -> None:
        """Be the head of a request of which nothing else is known yet."""
        self.method = method
        self.version = version
        self.headers = []
        self.host = self.length = None
        self.template: dict[str, Any] | None = None
        self.forwarded: dict[str, Any] = {}
        self.close = self.ordinary = False

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
    match = _HOST.fullmatch(value)
    if match is None:
        return not value  # a client may have no name for the host (RFC 9112 section 3.2)
    literal, port = match.groups()
    if literal is not None:
        try:
            ipaddress.IPv6Address(literal.decode("ascii"))
        except ValueError:
            return False
    return not port or int(port) <= _LAST_PORT


def split_path(target: bytes) -> tuple[str, bytes, bytes]:
    """Return decoded path, path and query of a target in origin form (RFC 9112 section 3.2.1)."""
    return _split(target) if len(target) <= _SHORT else _split.__wrapped__(target)


@lru_cache(maxsize=1024)
def _split(target: bytes) -> tuple[str, bytes, bytes]:
    if not _TARGET.fullmatch(target):
        raise Refused(400, "request target has a byte that must be percent-encoded (RFC 3986)")
    raw_path, _, query = target.partition(b"?")
    path = raw_path.decode("ascii")
    return (unquote(path) if "%" in path else path), raw_path, query


def _split_target(method: str, target: bytes) -> tuple[bytes | None, str, bytes, bytes]:
    """Return authority, if there is one, and path and query (RFC 9112 section 3.2)."""
    if target == b"*" and method == "OPTIONS":
        return None, "*", b"*", b""
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise Refused(400, "request target is neither a path nor an http URL")
    authority, target = absolute.groups()
    if not authority or authority.startswith(b":"):
        raise Refused(400, "request target has no host")
    if b"@" in authority or not valid_host(authority):
        raise Refused(400, "host of the request target is not a host")
    if not target.startswith(b"/"):
        target = b"/" + target
    return authority, *split_path(target)


def _tokens(value: bytes) -> list[bytes]:
    value = value.lower()
    return [token.strip(b" \t") for token in value.split(b",")] if b"," in value else [value]


# The headers that steer the connection, a function each.


def _host(head: Head, value: bytes) -> None:
    if head.host is not None:
        raise Refused(400, "more than one Host (RFC 9112 section 3.2)")
    if not valid_host(value):
        raise Refused(400, "Host is not a host (RFC 9110 section 7.2)")
    head.host = value
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
    head.codings = [*head.codings, *_tokens(value)]
    head.headers.append((b"transfer-encoding", value))


def _expect(head: Head, value: bytes) -> None:
    if value.lower() != b"100-continue":
        raise Refused(417, "Expect other than 100-continue (RFC 9110 section 10.1.1)")
    head.expects_continue = head.version == "1.1"
    head.headers.append((b"expect", value))


def _te(head: Head, value: bytes) -> None:
    if head.version == "1.1" and b"trailers" in _tokens(value):
        head.extensions = ("http.response.trailers",)
    head.headers.append((b"te", value))


def _root_path(head: Head, value: bytes) -> None:
    head.root_path = value


def underscored(head: Head, value: bytes) -> None:
    """Drop a name with an underscore: "X_Y" and "X-Y" are one variable to CGI-minded applications.

    It is CVE-2015-0219's class.
    """


READERS: dict[bytes, Callable[[Head, bytes], None]] = {
    b"host": _host,
    b"connection": _connection,
    b"content-length": _content_length,
    b"transfer-encoding": _transfer_encoding,
    b"expect": _expect,
    b"te": _te,
    b"daphne-root-path": _root_path,
}

#: Names seen in requests, and who reads the value. Clients use few names; one that makes them up
#: does not fill the memory.
_names: dict[bytes, Callable[[Head, bytes], None] | None] = {}
_MAX_NAMES, _LONGEST_NAME = 1024, 64


def _learn(name: bytes) -> Callable[[Head, bytes], None] | None:
    """Return what `_names` is to hold for a name that was not seen before."""
    reader = underscored if b"_" in name else READERS.get(name)
    if len(_names) < _MAX_NAMES and len(name) <= _LONGEST_NAME:
        _names[name] = reader
    return reader


def admit(  # noqa: C901 - a branch for each rule, and no call for any: it is run for each request
    method: str, target: bytes, version: str, lines: Iterable[tuple[bytes, bytes]]
) -> Head:
    """Return the head if every rule holds; raise `Refused` if one does not.

    `version` is 1.0 or 1.1. `lines` are the header lines as parsed: names are tokens in lower case,
    values free of control bytes and of blanks around them.
    Rules: RFC 9110 sections 5, 7.2, 8.6, 10.1.1; RFC 9112 sections 3.2, 6.
    """
    if method == "CONNECT":
        raise Refused(501, "method CONNECT")
    head = Head(method, version)
    authority = None
    if target.startswith(b"/"):
        head.path, head.raw_path, head.query = split_path(target)
    else:
        authority, head.path, head.raw_path, head.query = _split_target(method, target)
    for line in lines:
        name = line[0]
        read = _names[name] if name in _names else _learn(name)
        if read is None:
            head.headers.append(line)
        else:
            read(head, line[1])
    if head.host is None and version == "1.1":
        raise Refused(400, "no Host (RFC 9112 section 3.2)")
    if authority is not None:
        _replace_host(head, authority)
    if head.codings:
        _check_codings(head)
    elif head.length is None:
        head.length = 0
    head.ordinary = version == "1.1" and method != "HEAD"
    if version == "1.0":
        head.close = head.close or not head.keeps_alive
    elif head.upgrade:
        _look_for_websocket(head)
        _look_for_h2c(head)
    return head


def _replace_host(head: Head, authority: bytes) -> None:
    """Let the authority of the target stand for the Host (RFC 9112 section 3.2.2)."""
    others = [line for line in head.headers if line[0] != b"host"]
    head.headers = [(b"host", authority), *others]


def _check_codings(head: Head) -> None:
    """Check that the body is chunked and nothing else (RFC 9112 sections 6.1 and 6.3)."""
    if head.length is not None:
        raise Refused(400, "Content-Length beside Transfer-Encoding (RFC 9112 section 6.3)")
    if head.codings[-1] != b"chunked" or head.codings.count(b"chunked") > 1:
        raise Refused(
            400, "Transfer-Encoding without one chunked at its end (RFC 9112 section 6.3)"
        )
    if len(head.codings) > 1:
        raise Refused(501, "Transfer-Encoding other than chunked (RFC 9112 section 6.1)")
    head.chunked = True


def _look_for_websocket(head: Head) -> None:
    """Find out whether the upgrade is to WebSocket, and check what RFC 6455 asks for then."""
    if any(b"websocket" in _tokens(value) for value in head.values(b"upgrade")):
        _check_handshake(head)
        head.websocket = True


def _look_for_h2c(head: Head) -> None:
    """Find out whether the upgrade is to HTTP/2, as RFC 7540 section 3.2 has it.

    One with a body is not: it would have to be read before the connection can change.
    """
    settings = head.values(b"http2-settings")
    offered = any(b"h2c" in _tokens(value) for value in head.values(b"upgrade"))
    bound = any(b"http2-settings" in _tokens(value) for value in head.values(b"connection"))
    if offered and bound and len(settings) == 1 and not (head.has_body or head.websocket):
        head.h2c = settings[0]


def _check_handshake(head: Head) -> None:
    """Check what RFC 6455 section 4.2.1 asks of a client's opening handshake."""
    if head.method != "GET":
        raise Refused(400, "WebSocket handshake with a method other than GET")
    keys = head.values(b"sec-websocket-key")
    check_websocket(head)
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise Refused(400, "Sec-WebSocket-Key is not one key of 16 bytes in base64")


def check_websocket(head: Head) -> None:
    """Check what a handshake says of the protocol, whichever way it comes."""
    if head.values(b"sec-websocket-version") != [b"13"]:
        # RFC 6455 section 4.4 asks for the one, RFC 9110 section 15.5.22 for the other.
        headers = [(b"Sec-WebSocket-Version", b"13"), (b"Upgrade", b"websocket")]
        raise Refused(426, "WebSocket with a Sec-WebSocket-Version other than 13", headers)
    try:
        extensions(head.values(b"sec-websocket-extensions"))
    except ValueError:
        rule = "Sec-WebSocket-Extensions is not a list of extensions (RFC 6455 section 9.1)"
        raise Refused(400, rule) from None
