"""A response on the wire: status line, headers, framing. Pure.

The server frames, the application does not: `Transfer-Encoding` and `Connection` from an
application are taken as hints and written anew; what it announces as `Content-Length` it is held
to. Every header is checked before a byte leaves, because a value with CR LF in it would be two
headers to the client (response splitting).
"""

from __future__ import annotations

import http
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

from daphne_supervisor.worker.response_fields import (
    blame,
    learn,
    length_of,
    line,
    names,
    same_length,
    sent_lines,
    trailer_fields,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daphne_supervisor.worker.head import Head, Headers

    _Said = tuple[Any, Any, int | None, bool]  # status, headers, size, whether the connection ends
    _Known = tuple[bytes, int | None]  # the head but for its last lines, the bytes of the body

__all__ = [
    "BODILESS",
    "CONTINUE",
    "HANDSHAKE",
    "RETRY_AFTER",
    "UPGRADE_H2C",
    "Identity",
    "Response",
    "encode_switch",
    "error_page",
    "status_line",
]

#: The `Date` and `Server` header lines of a second; and both with the empty line behind them.
Identity = tuple[bytes, bytes, bytes]

#: RFC 9110 section 15.2.1.
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: RFC 7540 section 3.2.
UPGRADE_H2C = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
#: Seconds after which a client that was turned away may come back: time enough for a request to
#: end, and too little for a person to notice (RFC 9110 section 10.2.3).
RETRY_AFTER = (b"retry-after", b"1")

_SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\n"
_FIRST_FINAL, _LAST = 200, 999
_PHRASES = {status.value: status.phrase for status in http.HTTPStatus}
#: Statuses whose responses never have a body (RFC 9110 sections 15.3.5, 15.3.6, 15.4.5).
_NO_CONTENT, _RESET_CONTENT = 204, 205
BODILESS = frozenset({_NO_CONTENT, _RESET_CONTENT, 304})


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
    whose length is known. An application that says the same again has its head encoded once; where
    each request has its own connection, what was said last is said again on another.
    """

    _latest: ClassVar[tuple[_Said | None, _Known]] = (None, (b"", 0))
    """Of any connection, what ended it and sets no cookie."""

    def __init__(self) -> None:
        """Be ready for a first response."""
        self.begun = self.close = False
        self._bodiless = self._chunked = False
        self.left: int | None = None  # bytes of the body that are still to come, if that is known
        # What was said in an ordinary one, and what became of it.
        self._said, self._known = Response._latest

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
        if request.ordinary and self._said == (status, headers, size, close):
            head, self.left = self._known
            self.close = close
            self._bodiless = self._chunked = False
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
                steering = names[name] if name in names else learn(name)
                if steering is None:
                    lines.append(sent_lines.get((name, value)) or line(name, value))
                elif steering == b"content-length":
                    length = length_of(value) if length is None else same_length(value, length)
                elif steering == b"date":
                    date, rest = line(name, value), b""
                elif steering == b"server":
                    server, rest = line(name, value), b""
                elif steering == b"connection":
                    close = close or b"close" in value.lower()
                elif steering == b"upgrade":  # it has to be a connection option too
                    lines.append(line(name, value))
                    options = b"upgrade"
        except (AttributeError, TypeError):
            raise blame(headers) from None
        if close:
            options = b"close, upgrade" if options else b"close"
        self._frame(lines, request, status, length, size, options)
        head = b"".join(lines)
        plain = rest and request.ordinary and not (self._chunked or self._bodiless)
        # Only what nobody can change afterwards is known when it is said again.
        if plain and self.close is close and all(type(line) is tuple for line in headers):
            self._said, self._known = (status, headers, size, close), (head, self.left)
            if close and not any(bytes(name).lower() == b"set-cookie" for name, _ in headers):
                Response._latest = self._said, self._known
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
        bodiless = self._bodiless = status in BODILESS or request.method == "HEAD"
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

    def around(self, size: int) -> tuple[bytes, bytes]:
        """Return what stands before and behind `size` bytes of a body that leave by another way.

        More follows. Raises `ValueError` when the application sends more than its Content-Length.
        """
        if self.left is not None:
            if size > self.left:
                message = "the application sends more than its Content-Length"
                raise ValueError(message)
            self.left -= size
        return (b"%x\r\n" % size, b"\r\n") if self._chunked else (b"", b"")

    def trailers(self, headers: Sequence[Any]) -> bytes:
        """Return the end of the response, with a trailer section if there are chunks before it.

        Raises `ValueError` when it cannot be sent.
        """
        lines = [b"%b: %b\r\n" % line for line in trailer_fields(headers)]
        if not self._chunked:
            return self.body(b"", more=False)
        return b"".join((b"0\r\n", *lines, b"\r\n"))


def _chunk(body: bytes, size: int, *, more: bool) -> bytes:
    """Return `body` as a chunk (RFC 9112 section 7.1), the last one too unless there is `more`.

    An empty piece in the middle is no chunk: a chunk of size zero ends the body.
    """
    chunk = b"%x\r\n%b\r\n" % (size, body) if size else b""
    return chunk if more else chunk + b"0\r\n\r\n"


#: What the application may not set in the answer to a handshake.
HANDSHAKE = frozenset(
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
            steering = names[name] if name in names else learn(name)
            if name.lower() in HANDSHAKE:
                message = f"header {name!r} of the handshake is the server's to set"
                raise ValueError(message)
            if steering is None:
                encoded.append(line(name, value))
            elif steering == b"date":
                date = line(name, value)
            elif steering == b"server":
                server = line(name, value)
            # and nothing else: a 101 has no body to frame
    except (AttributeError, TypeError):
        raise blame(headers) from None
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
