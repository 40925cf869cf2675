"""A response on the wire: status line, headers, framing. Pure.

The server frames, the application does not: `Transfer-Encoding` and `Connection` from an
application are taken as hints and written anew; what it announces as `Content-Length` it is held
to. Every header is checked before a byte leaves, because a value with CR LF in it would be two
headers to the client (response splitting).
"""

from __future__ import annotations

import http
import re
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daphne_supervisor.worker.head import Head, Headers

__all__ = ["CONTINUE", "RETRY_AFTER", "Identity", "Response", "encode_switch", "error_page"]

#: The `Date` and `Server` header lines of a second; and both with the empty line behind them.
Identity = tuple[bytes, bytes, bytes]

#: RFC 9110 section 15.2.1.
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: Seconds after which a client that was turned away may come back: time enough for a request to
#: end, and too little for a person to notice (RFC 9110 section 10.2.3).
RETRY_AFTER = (b"retry-after", b"1")

#: 2^63 has 19 digits: more cannot be a length, and clients refuse them.
_LENGTH_DIGITS = 19
#: RFC 9110 section 5.6.2.
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: Headers of the application's that the server writes itself or is bound by.
_STEERING = frozenset(
    {b"connection", b"content-length", b"date", b"keep-alive", b"server", b"transfer-encoding"}
    | {b"upgrade"}
)
#: Names seen in responses, by their exact spelling: lower case if the server has to look at the
#: value, None if not. Applications use few names; one that makes them up does not fill the memory.
_names: dict[bytes, bytes | None] = {}
_MAX_NAMES = 1024
#: Lines seen in responses, as they are sent: most applications send most of them every time. Those
#: who never send the same twice begin anew when there are so many; a cookie is not kept at all.
_lines: dict[tuple[bytes, bytes], bytes] = {}
_MAX_LINES, _LONGEST_LINE = 1024, 256
#: Control bytes, of which a horizontal tab is none (RFC 9110 section 5.5). Some of them would end
#: the line, or the head; and some would do so for a client that is lax.
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

_SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\n"
_FIRST_FINAL, _LAST = 200, 999
_PHRASES = {status.value: status.phrase for status in http.HTTPStatus}
#: Statuses whose responses never have a body (RFC 9110 sections 15.3.5, 15.3.6, 15.4.5).
_NO_CONTENT, _RESET_CONTENT = 204, 205
_BODILESS = frozenset({_NO_CONTENT, _RESET_CONTENT, 304})


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


def _line(name: bytes, value: bytes) -> bytes:
    """Return a header line as it is sent. Raises `ValueError` when it would not be one line."""
    if not isinstance(value, bytes):
        raise TypeError
    if _FORBIDDEN.search(value):
        message = f"value of header {name!r} has a control byte: {value!r}"
        raise ValueError(message)
    line = b"%b: %b\r\n" % (name, value)
    if len(line) <= _LONGEST_LINE and name.lower() != b"set-cookie":
        if len(_lines) >= _MAX_LINES:
            _lines.clear()
        _lines[name, value] = line
    return line


def _blame(headers: Iterable[Any]) -> ValueError:
    """Return the error that names the header which is no pair of byte strings."""
    for line in headers:
        try:
            name, value = line
        except (TypeError, ValueError):
            return ValueError(f"header {line!r} is not a pair of name and value")
        for what, text in (("name", name), ("value", value)):
            if not isinstance(text, bytes):
                return ValueError(
                    f"Header {what} {text!r} expected to be `bytes`, but got `{type(text)}`"
                )
    return ValueError("response headers cannot be encoded")


@lru_cache(maxsize=_LAST)
def status_line(status: int) -> bytes:
    """Return the status line; an unknown status has an empty reason phrase.

    Raises `ValueError` for what is no final status (RFC 9110 section 15).
    """
    if not _FIRST_FINAL <= status <= _LAST:
        message = f"status {status!r} is not a final HTTP status (RFC 9110 section 15)"
        raise ValueError(message)
    phrase = _PHRASES.get(status, "")
    return f"HTTP/1.1 {status:d} {phrase}\r\n".encode("ascii")


class Response:
    """Encodes the responses of one connection, one after the other.

    `start` encodes the head, `body` each piece of the body. `begun` says that a head was encoded,
    `close` that the connection must end with the last byte, `left` is what is to come of a body
    whose length is known. An application that says the same again has its head encoded once.
    """

    __slots__ = ("_bodiless", "_chunked", "_known", "_said", "begun", "close", "left")

    def __init__(self) -> None:
        """Be ready for a first response."""
        self.begun = self.close = False
        self._bodiless = self._chunked = False
        self.left: int | None = None  # bytes of the body that are still to come, if that is known
        self._said: tuple[Any, Any, Any] | None = None  # status, headers, size of an ordinary one,
        self._known: tuple[bytes, int | None] = (b"", 0)  # and what became of them

    def start(
        self,
        request: Head,
        status: Any,
        headers: Sequence[Any],
        size: int | None,
        identity: Identity,
        *,
        close: bool,
    ) -> bytes:
        """Return the bytes of the head.

        `status` and `headers` are the application's, and may be anything. `size` is that of the
        whole body in bytes, `None` when it is still to be seen. `identity` holds the Date and
        Server lines for an application that sets none. Raises `ValueError`, with nothing changed,
        when status or headers cannot be sent.
        """
        close = close or request.close
        if request.ordinary and not close and self._said == (status, headers, size):
            head, self.left = self._known
            self.close = self._bodiless = self._chunked = False
            head += identity[2]
        else:
            head = self._encode(request, status, headers, size, identity, close=close)
        self.begun = True
        return head

    def _encode(  # noqa: C901 - one loop with as few calls as can be
        self,
        request: Head,
        status: Any,
        headers: Sequence[Any],
        size: int | None,
        identity: Identity,
        *,
        close: bool,
    ) -> bytes:
        if not isinstance(status, int):
            message = f"status {status!r} is not a number"
            raise ValueError(message)  # noqa: TRY004 - what a bad status has always raised
        lines = [status_line(status)]
        length = None
        options = b""
        date, server, rest = identity
        try:
            for name, value in headers:
                steering = _names[name] if name in _names else _learn(name)
                if steering is None:
                    lines.append(_lines.get((name, value)) or _line(name, value))
                elif steering == b"content-length":
                    length = _length(value) if length is None else _same_length(value, length)
                elif steering == b"date":
                    date, rest = _line(name, value), b""
                elif steering == b"server":
                    server, rest = _line(name, value), b""
                elif steering == b"connection":
                    close = close or b"close" in value.lower()
                elif steering == b"upgrade":  # it has to be a connection option too
                    lines.append(_line(name, value))
                    options = b"upgrade"
        except (AttributeError, TypeError):
            raise _blame(headers) from None
        if close:
            options = b"close, upgrade" if options else b"close"
        self._frame(lines, request, status, length, size, options)
        head = b"".join(lines)
        plain = rest and request.ordinary and not (options or self._chunked or self._bodiless)
        # Only what nobody can change afterwards is known when it is said again.
        if plain and all(type(line) is tuple for line in headers):
            self._said, self._known = (status, headers, size), (head, self.left)
        return head + (rest or server + date + b"\r\n")

    def _frame(  # noqa: PLR0917 - the second half of `_encode`
        self,
        lines: list[bytes],
        request: Head,
        status: int,
        length: int | None,
        size: int | None,
        options: bytes,
    ) -> None:
        """Choose the framing (RFC 9112 section 6.3) and add the lines that announce it."""
        bodiless = self._bodiless = status in _BODILESS or request.method == "HEAD"
        self._chunked = False
        if status == _RESET_CONTENT:
            length = 0  # it has to be said: without framing it would last until the end
        elif length is None and (size or not bodiless):
            length = size
        if length is not None:
            if status != _NO_CONTENT:
                lines.append(b"Content-Length: %d\r\n" % length)
        elif not bodiless:
            if request.version == "1.1":
                self._chunked = True
                lines.append(b"Transfer-Encoding: chunked\r\n")
            else:
                options = b"close, upgrade" if b"upgrade" in options else b"close"
        self.left = None if bodiless else length
        self.close = options.startswith(b"close")
        if options:
            lines.append(b"Connection: %b\r\n" % options)
        elif request.version == "1.0":
            lines.append(b"Connection: keep-alive\r\n")

    def pieces(self, body: bytes, *, more: bool) -> Sequence[bytes]:
        """Return the same as `body`, in as many pieces as it takes not to copy it."""
        if self._chunked and body:
            return b"%x\r\n" % len(body), body, b"\r\n" if more else b"\r\n0\r\n\r\n"
        data = self.body(body, more=more)
        return (data,) if data else ()

    def body(self, body: bytes, *, more: bool) -> bytes:
        """Return the bytes of a piece of the body, the last one unless there is `more`.

        Raises `ValueError` when the application sends more than its Content-Length: the rest would
        be the beginning of another response to the client. One that sends less has its connection
        closed, which tells the client.
        """
        if self.left is not None:
            left = self.left - len(body)
            if left < 0:
                message = "the application sends more than its Content-Length"
                raise ValueError(message)
            self.left = left
            if left and not more:
                self.close = True
        elif self._bodiless:
            return b""
        elif self._chunked:
            return _chunk(body, len(body), more=more)
        return body


@lru_cache(maxsize=1024)
def _length(value: bytes) -> int:
    """Return the application's Content-Length."""
    if not isinstance(value, bytes):
        raise TypeError
    if not value.isdigit() or len(value) > _LENGTH_DIGITS:
        message = f"the application's Content-Length {value!r} is not a number of bytes"
        raise ValueError(message)
    return int(value)


def _same_length(value: bytes, before: int) -> int:
    """Return another Content-Length of the application's, if it is the same one."""
    if _length(value) != before:
        message = "the application sends two Content-Lengths that differ"
        raise ValueError(message)
    return before


def _chunk(body: bytes, size: int, *, more: bool) -> bytes:
    """Return `body` as a chunk (RFC 9112 section 7.1), the last one too unless there is `more`.

    An empty piece in the middle is no chunk: a chunk of size zero ends the body.
    """
    chunk = b"%x\r\n%b\r\n" % (size, body) if size else b""
    return chunk if more else chunk + b"0\r\n\r\n"


#: What the application may not set in the answer to a handshake.
_HANDSHAKE = frozenset(
    {b"connection", b"sec-websocket-accept", b"sec-websocket-extensions"}
    | {b"sec-websocket-protocol", b"upgrade"}
)


def encode_switch(lines: Headers, headers: Sequence[Any], identity: Identity) -> bytes:
    """Return a 101 response: our `lines`, then the application's `headers`.

    Raises `ValueError` when a header of the application's cannot be sent.
    """
    encoded = [_SWITCHING, *(b"%b: %b\r\n" % line for line in lines)]
    date, server, _ = identity
    try:
        for name, value in headers:
            steering = _names[name] if name in _names else _learn(name)
            if name.lower() in _HANDSHAKE:
                message = f"header {name!r} of the handshake is the server's to set"
                raise ValueError(message)
            if steering is None:
                encoded.append(_line(name, value))
            elif steering == b"date":
                date = _line(name, value)
            elif steering == b"server":
                server = _line(name, value)
            # and nothing else: a 101 has no body to frame
    except (AttributeError, TypeError):
        raise _blame(headers) from None
    return b"".join([*encoded, server, date, b"\r\n"])


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
