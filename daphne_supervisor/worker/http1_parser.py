"""HTTP/1.x request bytes to heads and bodies (RFC 9112).

Theory of operation. `http1_lines` knows the grammar, `head.admit` the rules; this module stands
between them, keeps the limits, and tells its sink what has arrived, in order, whatever the slicing.
It reads one request and stops: what a client sends ahead waits as bytes, until it is fed again.
What is wrong ends it: it raises `Refused` once, and must not be fed again.

Why not llhttp, as others do? It forgives what is not to be forgiven here (blanks in the request
line, a lone CR before it, RTSP), lets a trailer decide whether the connection ends, and tells of
neither the protocol nor a chunk's extension, so that nobody above it could be stricter.

A client that polls, or posts to one place, sends the same head again and again. So the last head of
a connection is kept, as long as it is short: the same bytes mean the same. And so are, for all
connections together, heads that were the whole first read of one: health checks and clients that
do not keep theirs begin each with the same bytes. Those with credentials are not among them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from daphne_supervisor.worker.chunks import Chunks
from daphne_supervisor.worker.head import Head, Refused, admit
from daphne_supervisor.worker.http1_lines import (
    SECRET,
    check_start,
    header_lines,
    refuse,
    request_line,
    stray,
)

if TYPE_CHECKING:
    from daphne_supervisor.config import Http

__all__ = ["Parser", "Sink"]

#: Bytes of a head that is kept for its next coming; browsers' have half of that.
_LONGEST_KEPT = 2048
#: First heads that are kept for all connections: with the longest, half a megabyte.
_MAX_HEADS = 256
#: Where the parser is: at the beginning of a request of which there is nothing yet, in a request
#: line, in header lines, in a body of known length, in a chunked one, behind the last request of
#: the connection.
_LINE, _HEAD, _BODY, _CHUNKS, _READY, _DONE = range(6)


#: What is no request's head yet.
_NONE = Head("", "")


#: The first line of what a client of HTTP/2 sends at once (RFC 9113 section 3.4).
_PREFACE = b"PRI * HTTP/2.0\r\n"


class Sink(Protocol):
    """What the parser tells."""

    def begin_request(self, head: Head, body: bytes = b"") -> None:
        """Take the head of a request, and its `body` if all of it has come already.

        Otherwise what has a body has more to come: see below.
        """

    def receive_body(self, data: bytes) -> None:
        """Take a piece of its body."""

    def end_request(self) -> None:
        """The body, of a request that has one, is complete."""

    def begin_handshake(self, head: Head, rest: bytes) -> None:
        """Take the head of a WebSocket handshake, and what was received behind it."""

    def begin_http2(self, data: bytes) -> bool:
        """Go on with HTTP/2, as which `data` begins; return whether that is done."""

    def begin_upgrade(self, head: Head, rest: bytes) -> bool:
        """Go on with HTTP/2, as `head` asks; return whether that is done."""


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

    def __init__(self, sink: Sink, limits: Http, heads: dict[bytes, Head] | None = None) -> None:
        """Tell `sink`, keep to `limits`.

        `heads` are those with which other connections under the same limits have begun, by their
        bytes; they are added to.
        """
        self._sink = sink
        self._limits = limits
        self._heads = {} if heads is None else heads
        self._first = True  # nothing was fed yet
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
        nobody: Any = None
        self._sink = nobody

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
        kept = self._kept
        if self._place is not _READY:
            self._read(data, 0)
        elif data == kept and self._head.length == 0:
            self.rest = b""
            self._sink.begin_request(self._head)
        elif kept is not None and data.startswith(kept):
            head, end = self._head, len(kept)
            if head.length == 0:
                self.rest = data[end:]
                self._sink.begin_request(head)
            elif head.length == len(data) - end and not self._limits.max_body_size:
                self.received, self.rest = head.length, b""
                self._sink.begin_request(head, data[end:])
            else:
                self.method = head.method
                self._begin(head)
                self._read(data, end)
        elif self._first:
            self._first = False
            self._feed_first(data)
        else:
            self._place = _LINE
            self._read(data, self._read_whole(data))

    def _feed_first(self, data: bytes) -> None:
        """Read what a connection begins with."""
        short = len(data) <= _LONGEST_KEPT
        head = self._heads.get(data) if short else None
        if head is not None:
            self.method = head.method
            self._head = head
            self._kept = None if head.close else data
            self._begin(head)
            return
        self._place = _LINE
        end = self._read_whole(data)
        if short and 0 < end == len(data) and not self._head.has_body:
            self._remember(data)
        self._read(data, end)

    def _remember(self, data: bytes) -> None:
        """Let other connections know what `data`, which is a head and nothing else, means."""
        if any(name in SECRET for name, _ in self._head.headers):
            return
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        self._heads[data] = self._head

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
        if head.upgrade:
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
            if data[at:] not in {b"", b"\r"}:
                refuse(check_start(data[at:]))
            return at
        if data.startswith(_PREFACE, at) and self._sink.begin_http2(data[at:]):
            self._place = _DONE
            return len(data)
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
            refuse(stray("header", data, at + self._scanned, len(data)))
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
        elif head.h2c is not None and self._sink.begin_upgrade(head, data[end:]):
            self._place = _DONE
            return len(data)
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
