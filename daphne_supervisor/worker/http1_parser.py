"""HTTP/1.x request bytes to heads and bodies (RFC 9112).

Theory of operation. `http1_lines` knows the grammar, `head.admit` the rules; this module stands
between them, keeps the limits, and tells its sink what has arrived, in order, whatever the slicing.
It reads one request and stops: what a client sends ahead waits as bytes, until it is fed again.
What is wrong ends it: it raises `Refused` once, and must not be fed again.

Why not llhttp, as others do? It forgives what is not to be forgiven here (blanks in the request
line, a lone CR before it, RTSP), lets a trailer decide whether the connection ends, and tells of
neither the protocol nor a chunk's extension, so that nobody above it could be stricter.

A client that polls, or posts to one place, sends the same head again and again. So the last head of
a connection is kept, as long as it is short: the same bytes mean the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from daphne_supervisor.worker.chunks import Chunks
from daphne_supervisor.worker.head import Head, Refused, admit
from daphne_supervisor.worker.http1_lines import (
    check_start,
    header_lines,
    request_line,
    stray,
)

if TYPE_CHECKING:
    from daphne_supervisor.config import Http

__all__ = ["Parser", "Sink"]

#: Bytes of a head that is kept for its next coming; browsers' have half of that.
_LONGEST_KEPT = 2048
#: Where the parser is: at the beginning of a request of which there is nothing yet, in a request
#: line, in header lines, in a body of known length, in a chunked one, behind the last request of
#: the connection.
_LINE, _HEAD, _BODY, _CHUNKS, _READY, _DONE = range(6)


#: What is no request's head yet.
_NONE = Head("", "")


class Sink(Protocol):
    """What the parser tells."""

    def begin_request(self, head: Head) -> None:
        """Take the head of a request."""

    def receive_body(self, data: bytes) -> None:
        """Take a piece of its body."""

    def end_request(self) -> None:
        """The body, of a request that has one, is complete."""

    def begin_handshake(self, head: Head, rest: bytes) -> None:
        """Take the head of a WebSocket handshake, and what was received behind it."""


def _end_of_lines(data: bytes, at: int, count: int) -> int:
    """Return where the line ends that is the `count`th from `at` on."""
    for _ in range(count):
        at = data.index(b"\r\n", at) + 2
    return at


class Parser:
    """The parser of one connection.

    `method` is that of the last request line, `received` counts the bytes of the present body,
    `rest` is what was received and not read yet; `hasty` says that it has more pieces of a body
    than are read in one go. `surplus` says that something came behind the last request of the
    connection; it is thrown away (RFC 9112 section 9.6).
    """

    __slots__ = (
        "_chunks",
        "_head",
        "_kept",
        "_left",
        "_limits",
        "_place",
        "_scanned",
        "_sink",
        "_start",
        "_target",
        "_version",
        "hasty",
        "method",
        "received",
        "rest",
        "surplus",
    )

    def __init__(self, sink: Sink, limits: Http) -> None:
        """Tell `sink`, keep to `limits`."""
        self._sink = sink
        self._limits = limits
        self._place = _READY
        self._head = _NONE
        self._kept: bytes | None = None  # the bytes of the last head, up to the empty line
        self._start = -1  # where the present head begins in what is being read, if it does
        self._target = b""
        self._version = ""
        self._scanned = 0  # bytes of a head that were searched for its end
        self._left = 0  # bytes of a body that are to come
        self._chunks: Chunks
        self.method = ""
        self.received = 0
        self.rest = b""
        self.hasty = self.surplus = False

    def part(self) -> None:
        """Tell nobody any more: nothing will be fed. The sink holds the parser, not vice versa."""
        del self._sink

    @property
    def begun(self) -> bool:
        """Say whether a head has begun to arrive and is not whole."""
        return self._place <= _HEAD

    @property
    def ready(self) -> bool:
        """Say whether what is kept begins with a request."""
        return self._place is _READY

    def keep(self, data: bytes) -> None:
        """Keep `data` for later: a request is complete, and not answered."""
        if self._place is _DONE:
            self.surplus = True
        else:
            self.rest += data

    def feed(self, data: bytes) -> None:
        """Read what was kept, and `data`, up to the end of a request. Raises `Refused`."""
        if self.rest:
            data = self.rest + data
        if self._place is not _READY:
            self._read(data, 0)
        elif self._kept is None or not data.startswith(self._kept):
            self._place = _LINE
            self._read(data, self._read_whole(data))
        elif self._head.length == 0:
            self.rest = data[len(self._kept) :]
            self._sink.begin_request(self._head)
        else:
            self.method = self._head.method
            self._begin(self._head)
            self._read(data, len(self._kept))

    def _read_whole(self, data: bytes) -> int:
        """Read the head that `data` begins with, if it is whole and right; return where it ends.

        It is nearly always so, and takes half the time. What is not is left, to be read line by
        line, and refused for its first fault.
        """
        limits = self._limits
        end = data.find(b"\r\n\r\n")
        if end <= 0 or data.count(b"\r\n", 0, end) > limits.max_header_count:
            return 0
        line, *lines = data[:end].split(b"\r\n")
        size = end - len(line)
        if len(line) > limits.max_request_line or size > limits.max_header_size:
            return 0
        try:
            method, target, version = request_line(line)
            head = admit(method, target, version, header_lines("header", lines))
        except Refused:
            return 0
        if head.websocket:
            return 0
        self.method = method
        self._head = head
        end += 4
        self._kept = data[:end] if end <= _LONGEST_KEPT and not head.close else None
        self._begin(head)
        return end

    def _read(self, data: bytes, at: int) -> None:
        """Read `data` up to the end of a request, or to what is not whole, which becomes `rest`."""
        before = self._start = -1
        while at != before and self._place < _READY and at < len(data):
            before = at
            at = _READERS[self._place](self, data, at)
            if self.hasty:  # the others first
                break
        self.rest = data[at:]
        if self._place is _DONE and self.rest:
            self.surplus, self.rest = True, b""
        elif self._place is _LINE and not self.rest:
            self._place = _READY

    def _read_line(self, data: bytes, at: int) -> int:
        """Read the request line; empty lines before it mean nothing (RFC 9112 section 2.2)."""
        self.method = ""
        while data.startswith(b"\r\n", at):
            at += 2
        end = data.find(b"\r\n", at)
        longest = self._limits.max_request_line
        read = len(data) - 1 if end < 0 else end  # a CR may be the last byte
        if read - at > longest:
            raise check_start(data[at : at + longest + 1]) or Refused(
                414, "request line exceeds --max-request-line"
            )
        if end < 0:
            wrong = check_start(data[at:]) if data[at:] not in {b"", b"\r"} else None
            if wrong is not None:
                raise wrong
            return at
        self._start = at
        self.method, self._target, self._version = request_line(data[at:end])
        self._place = _HEAD
        self._scanned = 0
        return end

    def _read_head(self, data: bytes, at: int) -> int:
        """Read the header lines; `at` is the end of the request line, its CR LF still to come."""
        limits = self._limits
        end = data.find(b"\r\n\r\n", at + self._scanned)
        size = (len(data) - 3 if end < 0 else end) - at
        stop = at + min(size, limits.max_header_size) + 4
        option = ""
        if data.count(b"\r\n", at + 2, stop - 2) > limits.max_header_count:
            option = "--max-header-count"
            stop = _end_of_lines(data, at + 2, limits.max_header_count + 1) + 1
        elif size > limits.max_header_size:
            option = "--max-header-size"
        if option:
            raise stray("header", data, at, stop) or Refused(431, f"headers exceed {option}")
        if end < 0:
            lone = stray("header", data, at + self._scanned, len(data))
            if lone is not None:
                raise lone
            self._scanned = max(size, 0)
            return at
        block = data[at + 2 : end]
        lines = header_lines("header", block.split(b"\r\n") if block else [])
        head = self._head = admit(self.method, self._target, self._version, lines)
        end += 4
        short = self._start >= 0 and end - self._start <= _LONGEST_KEPT
        self._kept = data[self._start : end] if short and not head.close else None
        if head.websocket:
            if head.has_body:
                raise Refused(400, "a body beside a WebSocket handshake (RFC 6455 section 4.1)")
            self._place = _DONE
            self._sink.begin_handshake(head, data[end:])
        else:
            self._begin(head)
        return end

    def _begin(self, head: Head) -> None:
        """Tell of an admitted head."""
        self.received = 0
        limit = self._limits.max_body_size
        if limit and (head.length or 0) > limit:
            raise Refused(413, "Content-Length exceeds --max-body-size")
        if head.chunked:
            self._place = _CHUNKS
            self._chunks = Chunks(self._limits)
        elif head.length:
            self._place = _BODY
            self._left = head.length
        else:
            self._place = _DONE if head.close else _READY
        self._sink.begin_request(head)

    def _read_body(self, data: bytes, at: int) -> int:
        """Read the body of a request with Content-Length."""
        piece = data[at : at + self._left]
        size = len(piece)
        self._left -= size
        if self._limits.max_body_size:
            self._receive(piece)
        else:
            self.received += size
            self._sink.receive_body(piece)
        if not self._left:
            self._end()
        return at + size

    def _read_chunks(self, data: bytes, at: int) -> int:
        """Read a chunked body."""
        piece, at = self._chunks.read(data, at)
        self.hasty = self._chunks.hasty
        if piece:
            self._receive(piece)
        if self._chunks.done:
            self._end()
        return at

    def _receive(self, piece: bytes) -> None:
        limit = self._limits.max_body_size
        fitting = limit - self.received if limit else len(piece)
        self.received += len(piece)
        if fitting:
            self._sink.receive_body(piece[:fitting])
        if fitting < len(piece):
            raise Refused(413, "body exceeds --max-body-size")

    def _end(self) -> None:
        self._place = _DONE if self._head.close else _READY
        self._sink.end_request()


#: Who reads what comes next, by the place.
_READERS = {
    _LINE: Parser._read_line,  # noqa: SLF001
    _HEAD: Parser._read_head,  # noqa: SLF001
    _BODY: Parser._read_body,  # noqa: SLF001
    _CHUNKS: Parser._read_chunks,  # noqa: SLF001
}
