"""HTTP/1.x request bytes to heads and bodies, by llhttp through httptools.

Theory of operation. llhttp knows the grammar, `head.admit` the rules; this module stands between
them, keeps the limits, and tells its sink what has arrived, in order, whatever the slicing. What is
wrong ends it: it raises `Refused` once, and must not be fed again.

llhttp cannot be told that an upgrade is not offered: it takes such a request for one without a
body, and stops. Then another parser reads on, beginning with a head made from nothing but the
framing of the request, a number or the word "chunked".

This is the only module that knows httptools.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import httptools

from daphne_supervisor.worker.head import Refused, admit

if TYPE_CHECKING:
    from daphne_supervisor.config import Http
    from daphne_supervisor.worker.head import Head, Headers

__all__ = ["Parser", "Sink"]


class Sink(Protocol):
    """What the parser tells."""

    def begin_request(self, head: Head) -> None:
        """Take the head of a request."""

    def receive_body(self, data: bytes) -> None:
        """Take a piece of its body."""

    def end_request(self) -> None:
        """The body is complete."""

    def begin_handshake(self, head: Head) -> None:
        """Take the head of a WebSocket handshake; nothing behind it is parsed."""


def _framing(head: Head) -> bytes:
    """Return a head that says nothing but how the body of `head` is framed."""
    framing = b"Content-Length: %d" % (head.length or 0)
    if head.chunked:
        framing = b"Transfer-Encoding: chunked"
    connection = b"close" if head.close else b"keep-alive"
    return b"POST / HTTP/1.1\r\nConnection: %b\r\n%b\r\n\r\n" % (connection, framing)


class Parser:
    """The parser of one connection.

    `begun` says that a head has begun to arrive and is not whole, `received` counts the bytes of
    the present body.
    """

    __slots__ = (
        "_framing",
        "_limits",
        "_lines",
        "_oversize",
        "_parser",
        "_partial",
        "_sink",
        "_stopped",
        "_target",
        "begun",
        "received",
    )

    def __init__(self, sink: Sink, limits: Http) -> None:
        """Tell `sink`, keep to `limits`."""
        self._sink = sink
        self._limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._lines: Headers = []
        self._partial = 0  # bytes of a head or of trailers so far, one read short at the most
        self._oversize = False  # it may be too large: count exactly
        self._framing = b""  # a head for the next parser, behind an upgrade that is ignored
        self._stopped = False  # behind a handshake
        self.begun = False
        self.received = 0

    @property
    def method(self) -> bytes:
        """Return the method of the present request."""
        return self._parser.get_method()

    def feed(self, data: bytes) -> bytes:
        """Read `data`; return what of it lies behind a handshake. Raises `Refused`."""
        if self._stopped:
            return data
        limits = self._limits
        self._oversize = self.begun or len(data) > limits.max_header_size
        self._partial += len(data)
        while data and not self._stopped:
            data = self._feed(data)
        # llhttp keeps a line until it ends: of a head, and of the trailers behind a body.
        if self._partial > limits.max_request_line + limits.max_header_size:
            raise Refused(431, "headers exceed --max-header-size")
        return data

    def _feed(self, data: bytes) -> bytes:
        """Let llhttp read `data`; return what it has left."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            rest = data[stop.args[0] :]
            if self._stopped:
                return rest
            self._parser = httptools.HttpRequestParser(self)
            return self._framing + rest
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, Refused):
                raise error.__context__ from None
            raise
        except httptools.HttpParserInvalidMethodError:
            raise Refused(501, "unknown method") from None
        except httptools.HttpParserError as error:
            raise Refused(400, f"malformed request: {error}") from None
        return b""

    # -- httptools' callbacks --

    def on_message_begin(self) -> None:
        """Note the first byte of a request."""
        self.begun = True
        self._partial = 0

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request target."""
        self._target += url
        if len(self._target) > self._limits.max_request_line:
            raise Refused(414, "request line exceeds --max-request-line")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header line. Behind a body it is a trailer, which nobody may take for a header."""
        if self.begun:
            self._lines.append((name, value))

    def on_headers_complete(self) -> None:
        """Admit the head and tell of it."""
        parser, lines, target = self._parser, self._lines, self._target
        self._lines, self._target, self.begun, self._partial = [], b"", False, 0
        if self._framing:
            self._framing = b""
            return
        self._check_size(lines)
        head = admit(parser.get_method().decode("ascii"), target, parser.get_http_version(), lines)
        limit = self._limits.max_body_size
        if limit and head.length is not None and head.length > limit:
            raise Refused(413, "Content-Length exceeds --max-body-size")
        # llhttp decides, not the head: it also takes Proxy-Connection for Connection.
        if parser.should_upgrade():
            if head.websocket:
                if head.has_body:
                    raise Refused(400, "a body beside a WebSocket handshake")
                self._stopped = True
                self._sink.begin_handshake(head)
                return
            self._framing = _framing(head)
        self.received = 0
        self._sink.begin_request(head)

    def _check_size(self, lines: Headers) -> None:
        limits = self._limits
        if len(lines) > limits.max_header_count:
            raise Refused(431, "headers exceed --max-header-count")
        if self._oversize:
            size = sum(len(name) + len(value) + 4 for name, value in lines)
            if size > limits.max_header_size:
                raise Refused(431, "headers exceed --max-header-size")

    def on_body(self, data: bytes) -> None:
        """Hand a piece of the body on."""
        self.received += len(data)
        self._partial = 0
        limit = self._limits.max_body_size
        if limit and self.received > limit:
            raise Refused(413, "body exceeds --max-body-size")
        self._sink.receive_body(data)

    def on_message_complete(self) -> None:
        """Tell that the body is complete."""
        if not self._framing and not self._stopped:
            self._partial = 0
            self._sink.end_request()
