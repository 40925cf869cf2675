"""The head of an HTTP/2 request: the same policy, on fields instead of lines (RFC 9113 section 8).

What HTTP/2 itself calls malformed (pseudo-header fields in disorder, names in upper case, fields
that speak of a connection) is `Malformed` and ends the stream; everything that HTTP/1.1 would
refuse too is refused with the same status. Pure: fields in, values out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

from daphne_supervisor.worker.head import (
    METHODS,
    READERS,
    Head,
    Refused,
    check_websocket,
    split_path,
    underscored,
    valid_host,
)
from daphne_supervisor.worker.http2_stream import read_priority

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daphne_supervisor.config import Http

__all__ = ["EXTENSIONS", "Malformed", "admit", "check_trailers"]

#: RFC 9113 section 8.2.1 asks for less; HTTP/1.1 gets no other names either.
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: Control bytes, and blanks at either end, which section 8.2.1 forbids.
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]|\A[\t ]|[\t ]\Z")
#: What of ASGI's extensions works on every stream.
EXTENSIONS = ("http.response.trailers", "http.response.early_hint")
_SCHEMES = frozenset({b"http", b"https"})
_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})


class Malformed(Refused):
    """The request is malformed (RFC 9113 section 8.1.1): its stream ends with PROTOCOL_ERROR."""

    def __init__(self, rule: str) -> None:
        """Refuse because of `rule`."""
        super().__init__(400, rule)


def _malformed(what: str, where: str) -> NoReturn:
    raise Malformed(f"{what} ({where})")  # noqa: EM102, TRY003 - it is what all of them go through


def _forbidden(head: Head, value: bytes) -> None:  # noqa: ARG001 - the name says it all
    _malformed("a field that speaks of the connection", "RFC 9113 section 8.2.2")


def _te(head: Head, value: bytes) -> None:
    if value != b"trailers":
        _malformed("te other than trailers", "RFC 9113 section 8.2.2")
    head.headers.append((b"te", value))


def _host(head: Head, value: bytes) -> None:
    if head.host is None:
        _set_host(head, value)
    elif head.host.lower() != value.lower():
        _malformed("Host is not :authority, or differs", "RFC 9113 section 8.3.1")


def _set_host(head: Head, value: bytes) -> None:
    if not value or not valid_host(value):
        raise Refused(400, "the authority is not a host (RFC 9110 section 7.2)")
    head.host = value
    head.headers.insert(0, (b"host", value))


def _length(head: Head, value: bytes) -> None:
    try:
        READERS[b"content-length"](head, value)
    except Refused as reason:
        raise Malformed(reason.rule) from None


def _expect(head: Head, value: bytes) -> None:
    READERS[b"expect"](head, value)
    head.expects_continue = True


def _cookie(head: Head, value: bytes) -> None:
    """Collect the crumbs of a cookie, to be one again (RFC 9113 section 8.2.3)."""
    for place, (name, before) in enumerate(head.headers):
        if name == b"cookie":
            head.headers[place] = (name, before + b"; " + value)
            return
    head.headers.append((b"cookie", value))


def _priority(head: Head, value: bytes) -> None:
    head.priority = read_priority(value)
    head.headers.append((b"priority", value))


_STEERING: dict[bytes, Callable[[Head, bytes], None]] = {
    **READERS,
    b"connection": _forbidden,
    b"content-length": _length,
    b"cookie": _cookie,
    b"expect": _expect,
    b"host": _host,
    b"keep-alive": _forbidden,
    b"priority": _priority,
    b"proxy-connection": _forbidden,
    b"te": _te,
    b"transfer-encoding": _forbidden,
    b"upgrade": _forbidden,
}

#: Names seen in requests, and who reads the value, as `head` does it.
_names: dict[bytes, Callable[[Head, bytes], None] | None] = {}
_MAX_NAMES, _LONGEST_NAME = 1024, 64


def _learn(name: bytes) -> Callable[[Head, bytes], None] | None:
    """Check a name that was not seen before; return what `_names` is to hold for it."""
    if not _NAME.fullmatch(name):
        _malformed("a field name that is no token in lower case", "RFC 9113 section 8.2.1")
    reader = underscored if b"_" in name else _STEERING.get(name)
    if len(_names) < _MAX_NAMES and len(name) <= _LONGEST_NAME:
        _names[name] = reader
    return reader


def _take_pseudo(fields: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the pseudo-header fields, which must stand first, each once."""
    pseudo: dict[bytes, bytes] = {}
    for name, value in fields:
        if name[:1] != b":":
            break
        if name not in _PSEUDO:
            _malformed("unknown pseudo-header field", "RFC 9113 section 8.3")
        if name in pseudo:
            _malformed("a pseudo-header field twice", "RFC 9113 section 8.3")
        if _BAD_VALUE.search(value):
            _malformed("a control byte or an outer blank in a value", "RFC 9113 section 8.2.1")
        pseudo[name] = value
    return pseudo


def _check_size(fields: Sequence[tuple[bytes, bytes]], limits: Http) -> None:
    if len(fields) > limits.max_header_count:
        raise Refused(431, "headers exceed --max-header-count")
    if sum(len(name) + len(value) for name, value in fields) > limits.max_header_size:
        raise Refused(431, "headers exceed --max-header-size")


def admit(fields: Sequence[tuple[bytes, bytes]], limits: Http, *, end: bool) -> Head:
    """Return the head if every rule holds; raise `Refused` or `Malformed` if one does not.

    `fields` are those of the request as unpacked; `end` says that no body follows them.
    Rules: RFC 9113 sections 8.1 to 8.5, RFC 8441 section 4, and those of `head.admit`.
    """
    _check_size(fields, limits)
    pseudo = _take_pseudo(fields)
    head = _begin(pseudo, limits)
    authority = pseudo.get(b":authority")
    if authority is not None:
        _set_host(head, authority)
    bad = _BAD_VALUE.search
    for line in fields[len(pseudo) :]:
        name, value = line
        read = _names[name] if name in _names else _learn(name)
        if bad(value):
            _malformed("a control byte or an outer blank in a value", "RFC 9113 section 8.2.1")
        if read is None:
            head.headers.append((name, value))
        else:
            read(head, value)
    if head.host is None:
        _malformed("neither :authority nor Host", "RFC 9113 section 8.3.1")
    if end:
        if head.length:
            _malformed("Content-Length without a body", "RFC 9113 section 8.1.1")
        head.length = 0
    if limits.max_body_size and (head.length or 0) > limits.max_body_size:
        raise Refused(413, "Content-Length exceeds --max-body-size")
    head.expects_continue = head.expects_continue and head.length != 0
    head.ordinary = head.method != "HEAD"
    if b":protocol" in pseudo:
        _look_for_websocket(head, pseudo[b":protocol"], end=end)
    return head


def _begin(pseudo: dict[bytes, bytes], limits: Http) -> Head:
    """Return a head with method and target (RFC 9113 section 8.3.1)."""
    method, target = pseudo.get(b":method"), pseudo.get(b":path")
    if method is None or not _METHOD.fullmatch(method):
        _malformed("no :method, or one that is no token", "RFC 9113 section 8.3.1")
    if method == b"CONNECT" or b":protocol" in pseudo:
        _check_connect(pseudo)
    if b":scheme" not in pseudo or not target:
        _malformed("no :scheme or no :path", "RFC 9113 section 8.3.1")
    if pseudo[b":scheme"] not in _SCHEMES:
        raise Refused(400, "a scheme other than http and https")
    if len(method) + len(target) > limits.max_request_line:
        raise Refused(414, "method and path exceed --max-request-line")
    if method not in METHODS:
        raise Refused(501, "unknown method (RFC 9110 section 9.1)")
    head = Head(METHODS[method], "2")
    head.extensions = EXTENSIONS
    if target.startswith(b"/"):
        head.path, head.raw_path, head.query = split_path(target)
    elif target == b"*" and method == b"OPTIONS":
        head.path, head.raw_path, head.query = "*", b"*", b""
    else:
        _malformed(":path is not a path", "RFC 9113 section 8.3.1")
    return head


def _check_connect(pseudo: dict[bytes, bytes]) -> None:
    """Let through a CONNECT that names a protocol (RFC 8441 section 4), and no other."""
    if b":authority" not in pseudo:
        _malformed("CONNECT without :authority", "RFC 9113 section 8.5")
    if b":protocol" not in pseudo:
        if b":scheme" in pseudo or b":path" in pseudo:
            _malformed("CONNECT with :scheme or :path", "RFC 9113 section 8.5")
        raise Refused(501, "method CONNECT")
    if pseudo[b":method"] != b"CONNECT":
        _malformed(":protocol without CONNECT", "RFC 8441 section 4")


def _look_for_websocket(head: Head, protocol: bytes, *, end: bool) -> None:
    """Admit an extended CONNECT, which is a handshake for WebSocket (RFC 8441 section 5)."""
    if protocol != b"websocket":
        raise Refused(501, "a :protocol other than websocket (RFC 8441 section 4)")
    if end or head.length is not None:
        _malformed("a WebSocket handshake with a body or an end", "RFC 8441 section 5")
    check_websocket(head)
    head.websocket = True


def check_trailers(fields: Sequence[tuple[bytes, bytes]], limits: Http) -> None:
    """Check a request's trailer fields, which nobody is told of. Raises `Refused`."""
    _check_size(fields, limits)
    for name, value in fields:
        if name[:1] == b":":
            _malformed("a pseudo-header field in trailers", "RFC 9113 section 8.1")
        reader = _names[name] if name in _names else _learn(name)
        if reader is _forbidden:
            _malformed("a field that speaks of the connection", "RFC 9113 section 8.2.2")
        if _BAD_VALUE.search(value):
            _malformed("a control byte or an outer blank in a value", "RFC 9113 section 8.2.1")
