"""A response on the wire: status line, headers, framing. Pure.

The server frames, the application does not: `Transfer-Encoding` and `Connection` from an
application are taken as hints and written anew; what it announces as `Content-Length` it is held
to. Every header is checked before a byte leaves, because a value with CR LF in it would be two
headers to the client (response splitting).
"""

from __future__ import annotations

import http
import re
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daphne_supervisor.worker.head import Head, Headers

__all__ = ["CONTINUE", "RETRY_AFTER", "Response", "encode_switch", "error_page"]

#: RFC 9110 section 15.2.1.
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: Seconds after which a client that was turned away may come back: time enough for a request to
#: end, and too little for a person to notice (RFC 9110 section 10.2.3).
RETRY_AFTER = (b"retry-after", b"1")

#: RFC 9110 section 5.6.2.
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: Headers of the application's that the server writes itself or is bound by.
_STEERING = frozenset(
    {b"connection", b"content-length", b"date", b"keep-alive", b"server", b"transfer-encoding"}
)
#: Names seen in responses, by their exact spelling: lower case if the server has to look at the
#: value, None if not. Applications use few names; one that makes them up does not fill the memory.
_names: dict[bytes, bytes | None] = {}
_MAX_NAMES = 1024

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    for status in http.HTTPStatus
}
#: Statuses whose responses never have a body (RFC 9110 sections 15.3.5, 15.4.5).
_NO_CONTENT = 204
_BODILESS = frozenset({_NO_CONTENT, 304})
_FIRST_FINAL, _LAST = 200, 999


def _learn(name: bytes) -> bytes | None:
    """Check a name that was not seen before; return what `_names` is to hold for it."""
    if not _TOKEN.fullmatch(name):
        message = f"header name {name!r} is not a token (RFC 9110 section 5.6.2)"
        raise ValueError(message)
    lower = name.lower()
    steering = lower if lower in _STEERING else None
    if len(_names) < _MAX_NAMES:
        _names[name] = steering
    return steering


def _blame(headers: Iterable[Any]) -> ValueError:
    """Return the error that names the header which cannot be sent."""
    for line in headers:
        try:
            name, value = line
        except (TypeError, ValueError):
            return ValueError(f"header {line!r} is not a pair of name and value")
        if not isinstance(name, bytes):
            return ValueError(
                f"Header name {name!r} expected to be `bytes`, but got `{type(name)}`"
            )
        if not isinstance(value, bytes):
            return ValueError(
                f"Header value {value!r} expected to be `bytes`, but got `{type(value)}`"
            )
        if any(byte in value for byte in b"\r\n\0"):
            return ValueError(f"value of header {name!r} has CR, LF or NUL: {value!r}")
    return ValueError("response headers cannot be encoded")


def status_line(status: int) -> bytes:
    """Return the status line; an unknown status has an empty reason phrase."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


class Response:
    """Encodes the responses of one connection, one after the other.

    `start` encodes the head, `body` each piece of the body. Then `complete` says that the last byte
    is encoded, `close` that the connection must end with it, `size` how many bytes of body went
    out.
    """

    __slots__ = ("_bodiless", "_chunked", "_left", "begun", "close", "complete", "size", "status")

    def __init__(self) -> None:
        """Be ready for a first response."""
        self.reset()

    def reset(self) -> None:
        """Be ready for the next response."""
        self.begun = self.complete = self.close = False
        self._bodiless = self._chunked = False
        self._left: int | None = None
        self.size = 0
        self.status = 0

    def start(
        self,
        request: Head,
        status: Any,
        headers: Sequence[Any],
        *,
        size: int | None,
        identity: tuple[bytes, bytes],
        close: bool,
    ) -> bytes:
        """Return the bytes of the head.

        `status` and `headers` are the application's, and may be anything. `size` is that of the
        whole body in bytes, `None` when it is still to be seen. `identity` holds the Date and
        Server lines for an application that sets none. Raises `ValueError` when status or headers
        cannot be sent.
        """
        if not isinstance(status, int) or not _FIRST_FINAL <= status <= _LAST:
            message = f"status {status!r} is not a final HTTP status (RFC 9110 section 15)"
            raise ValueError(message)
        self._bodiless = request.method == "HEAD" or status in _BODILESS
        self.close = close or request.close
        lines = [status_line(status)]
        try:
            length, date, server = self._add(lines, headers, identity)
        except (AttributeError, TypeError):
            raise _blame(headers) from None
        lines += self._frame(request, status, length, size)
        lines += (server, date, b"\r\n")
        head = _joined(lines, headers)
        self.begun = True
        self.status = status
        return head

    def _add(
        self, lines: list[bytes], headers: Sequence[Any], identity: tuple[bytes, bytes]
    ) -> tuple[int | None, bytes, bytes]:
        """Add the application's header lines; return its Content-Length, and Date and Server."""
        length = None
        date, server = identity
        for name, value in headers:
            steering = _names[name] if name in _names else _learn(name)
            if steering is None:
                lines.append(b"%b: %b\r\n" % (name, value))
            elif steering == b"content-length":
                length = _length(value, length)
            elif steering == b"date":
                date = b"%b: %b\r\n" % (name, value)
            elif steering == b"server":
                server = b"%b: %b\r\n" % (name, value)
            elif steering == b"connection" and b"close" in value.lower():
                self.close = True
        return length, date, server

    def _frame(
        self, request: Head, status: int, length: int | None, known: int | None
    ) -> list[bytes]:
        """Choose the framing (RFC 9112 section 6.3) and return the lines that announce it."""
        lines = []
        self._chunked = False
        if length is None and known is not None and (known or not self._bodiless):
            length = known
        if length is not None:
            if status != _NO_CONTENT:
                lines.append(b"Content-Length: %d\r\n" % length)
        elif not self._bodiless:
            if request.version == "1.1":
                self._chunked = True
                lines.append(b"Transfer-Encoding: chunked\r\n")
            else:
                self.close = True
        self._left = None if self._bodiless else length
        if self.close:
            lines.append(b"Connection: close\r\n")
        elif request.version == "1.0":
            lines.append(b"Connection: keep-alive\r\n")
        return lines

    def body(self, body: bytes, *, more: bool) -> bytes:
        """Return the bytes of a piece of the body, the last one unless there is `more`.

        Raises `ValueError` when the application sends more than its Content-Length: the rest would
        be the beginning of another response to the client. One that sends less has its connection
        closed, which tells the client.
        """
        self.complete = not more
        if self._bodiless:
            return b""
        size = len(body)
        self.size += size
        if self._chunked:
            return _chunk(body, size, more=more)
        if self._left is not None:
            self._left -= size
            if self._left < 0:
                message = "the application sends more than its Content-Length"
                raise ValueError(message)
            if self._left and not more:
                self.close = True
        return body

    @property
    def short(self) -> bool:
        """Say whether a complete response had fewer bytes than its Content-Length."""
        return self.complete and bool(self._left)


def _length(value: Any, before: int | None) -> int:
    """Return the application's Content-Length."""
    if not isinstance(value, bytes):
        raise TypeError
    if not value.isdigit():
        message = f"the application's Content-Length {value!r} is not a number"
        raise ValueError(message)
    length = int(value)
    if before is not None and before != length:
        message = "the application sends two Content-Lengths that differ"
        raise ValueError(message)
    return length


def _chunk(body: bytes, size: int, *, more: bool) -> bytes:
    """Return `body` as a chunk (RFC 9112 section 7.1), the last one too unless there is `more`.

    An empty piece in the middle is no chunk: a chunk of size zero ends the body.
    """
    chunk = b"%x\r\n%b\r\n" % (size, body) if size else b""
    return chunk if more else chunk + b"0\r\n\r\n"


def _joined(lines: list[bytes], headers: Iterable[Any]) -> bytes:
    """Return the head as bytes, sure that it has no line that nobody meant.

    Each entry of `lines` but the empty ones must be one line. Counting CR and LF over the whole
    is the same check as looking into each value, and much cheaper.
    """
    head = b"".join(lines)
    count = len(lines) - lines.count(b"")
    if head.count(b"\n") != count or head.count(b"\r") != count or b"\0" in head:
        raise _blame(headers)
    return head


#: What the application may not set in the answer to a handshake.
_HANDSHAKE = frozenset(
    {b"connection", b"sec-websocket-accept", b"sec-websocket-extensions"}
    | {b"sec-websocket-protocol", b"upgrade"}
)


def encode_switch(lines: Headers, headers: Sequence[Any], identity: tuple[bytes, bytes]) -> bytes:
    """Return a 101 response: our `lines`, then the application's `headers`.

    Raises `ValueError` when a header of the application's cannot be sent.
    """
    encoded = [status_line(101), *(b"%b: %b\r\n" % line for line in lines)]
    date, server = identity
    try:
        for name, value in headers:
            steering = _names[name] if name in _names else _learn(name)
            if name.lower() in _HANDSHAKE:
                message = f"header {name!r} of the handshake is the server's to set"
                raise ValueError(message)
            if steering == b"date":
                date = b""
            elif steering == b"server":
                server = b""
            elif steering is not None:
                continue  # a 101 has no body to frame
            encoded.append(b"%b: %b\r\n" % (name, value))
    except TypeError:
        raise _blame(headers) from None
    encoded += (server, date, b"\r\n")
    return _joined(encoded, headers)


def error_page(status: int, text: str) -> tuple[Headers, bytes]:
    """Return headers and body of a small HTML page that says what went wrong."""
    title = escape(f"{status} {status_phrase(status)}".strip())
    page = (
        f"<!DOCTYPE html><html><head><title>{title}</title></head>"
        f"<body><h1>{title}</h1><p>{escape(text)}</p></body></html>"
    )
    return [(b"content-type", b"text/html; charset=utf-8")], page.encode()


def status_phrase(status: int) -> str:
    """Return the reason phrase, empty for an unknown status."""
    return status_line(status)[13:-2].decode("ascii")
