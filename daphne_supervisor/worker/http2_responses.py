"""The outbound half of HTTP/2: responses in, frames out (RFC 9113 section 8).

Streams end here, too, in each of the ways that they can end, and what the client had sent on them
is given back to the window of the connection.

This module knows neither sockets nor ASGI.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from daphne_supervisor.worker.head import Head
from daphne_supervisor.worker.http2_frames import (
    Code,
    header_frames,
    reset,
    window_update,
)
from daphne_supervisor.worker.http2_limits import Bucket
from daphne_supervisor.worker.http2_response import ResponseHeads
from daphne_supervisor.worker.http2_sender import INITIAL_WINDOW, Sender
from daphne_supervisor.worker.http2_stream import Stream
from daphne_supervisor.worker.response import error_page
from daphne_supervisor.worker.response_fields import trailer_fields

if TYPE_CHECKING:
    from daphne_supervisor.config import Http, Http2
    from daphne_supervisor.worker.head import Headers, Refused
    from daphne_supervisor.worker.http2_tunnel import Tunnel
    from daphne_supervisor.worker.waist import Port, Running, StreamHandler

__all__ = ["BY_CLIENT", "BY_END", "BY_US", "Responses"]

#: How a stream has ended: both sides were done, the client has reset it, we have.
BY_END, BY_CLIENT, BY_US = "end", "client", "us"
#: Ends that are remembered: frames that were under way when a stream ended are not faults.
_MAX_ENDS = 1000
#: Seconds that a client has to end its side of a WebSocket's stream, when ours has ended.
_FAREWELL = 2.0


class Responses:
    """What leaves, stream by stream; the base of the codec."""

    _due: float  # when something of ours is: see `deadline`

    def __init__(self, port: Port, handler: StreamHandler, limits: Http, own: Http2) -> None:
        """Speak through `port`, report to `handler`, keep to `limits` and our `own`."""
        self._port = port
        self._handler = handler
        self._limits = limits
        self._own = own
        self._control = Bucket(
            own.max_control_frames, "frames that carry nothing", "--http2-max-control-frames"
        )
        self._resets = Bucket(own.max_resets, "streams reset", "--http2-max-resets")
        self._sender = Sender(port, self._control, limits.write_timeout)
        self._heads = ResponseHeads()
        self._sender.completed = self._complete
        self._sender.pack = self._heads.writer.write
        self.streams: dict[int, Stream] = {}
        self.tunnels: dict[int, Tunnel] = {}  # those of them that carry WebSockets
        self._ends: dict[int, str] = {}
        self._left_behind: set[Running] = set()  # whose stream is reset, and application runs on
        self._whole_room = own.stream_window * own.max_streams  # of the connection
        self._room = INITIAL_WINDOW  # that the client has left of it
        self._owed = self._whole_room - INITIAL_WINDOW  # of it, to be given to the client

    @abstractmethod
    def drain(self) -> None:
        """The worker is leaving."""

    @abstractmethod
    def _idle(self) -> None:
        """The last stream has ended."""

    # -- what the exchange asks for --

    def _answering(self, number: int) -> Stream:
        """Return the stream, whose response is due."""
        stream = self.streams.get(number)
        if stream is None or stream.done:
            message = f"stream {number} is not being answered"
            raise RuntimeError(message)
        return stream

    def taken(self, stream: int) -> None:
        """The application has read what was received for a stream: let the client send more."""
        one = self.streams.get(stream)
        if one is not None and one.unread:
            self.give_back(one, one.unread)

    def proceed(self, stream: int) -> None:
        """The application waits for the body: tell a client that waits for us (100 Continue)."""
        one = self.streams.get(stream)
        if one is not None and not (one.begun or one.ended):
            self.inform(stream, 100, [])
            if one.pace is not None:  # from here on it can come
                one.pace.watch(one.received, self._port.now())

    def inform(self, stream: int, status: int, headers: Headers) -> None:
        """Send an interim response. Raises `ValueError` when it cannot be sent."""
        self._answering(stream)
        block = self._heads.inform(status, headers)
        self._sender.put(header_frames(stream, block, end=False))

    def respond(
        self, stream: int, status: int, headers: Headers, body: bytes, *, more: bool
    ) -> None:
        """Send the head and the first piece of the body. Raises `ValueError` if they are wrong."""
        one = self._answering(stream)
        port = self._port
        if port.worker.lingering:
            self.drain()
        size = len(body)
        block, left, bodiless = self._heads.start(
            one.head, status, headers, size, port.worker.identity, more=more
        )
        one.begun = True
        one.bodiless = bodiless
        one.done = not more
        if not more and (bodiless or not (size or left)):
            self._sender.put(header_frames(stream, block, end=True))
            self._complete(one)
            return
        head = header_frames(stream, block, end=False)
        if bodiless:
            body = b""
        elif left is not None:
            one.left = left - size
            if one.left and not more:
                self._sender.put(head)
                self.cut(one, Code.INTERNAL_ERROR)
                return
        self._sender.send(one, body, head)

    def send(self, stream: int, body: bytes, *, more: bool) -> None:
        """Send a further piece of the body. Raises `ValueError` if it is more than announced."""
        one = self._answering(stream)
        if one.bodiless:
            body = b""
        elif one.left is not None:
            left = one.left - len(body)
            if left < 0:
                message = "the application sends more than its Content-Length"
                raise ValueError(message)
            one.left = left
        one.done = not more
        if one.left and not more:  # complete, and shorter than was announced
            self.cut(one, Code.INTERNAL_ERROR)
        elif body or not more:
            self._sender.send(one, body)

    def trailers(self, stream: int, headers: Headers) -> None:
        """End the response with a trailer section. Raises `ValueError` if it cannot be sent."""
        one = self._answering(stream)
        if one.left:
            self.cut(one, Code.INTERNAL_ERROR)
            return
        one.trailers = trailer_fields(headers)
        one.done = True
        self._sender.send(one, b"")

    def give_up(self, stream: int) -> None:
        """End a response in the middle."""
        self.cut(self._answering(stream), Code.INTERNAL_ERROR)

    def answer_refusal(self, stream: Stream, reason: Refused) -> None:
        """Answer a request that no application will see."""
        headers, page = error_page(reason.status, reason.rule)
        stream.exchange = None
        self.respond(stream.id, reason.status, headers + reason.headers, page, more=False)

    # -- the windows of the client --

    def give_back(self, stream: Stream, size: int) -> None:
        """Let the client send `size` bytes more on a stream, and on the connection."""
        stream.unread -= size
        stream.owed += size
        if not stream.ended and stream.owed * 2 >= self._own.stream_window:
            self._sender.put(window_update(stream.id, stream.owed))
            stream.room += stream.owed
            stream.owed = 0
        self._give_back_connection(size)

    def _give_back_connection(self, size: int) -> None:
        self._owed += size
        if self._owed * 2 >= self._own.stream_window:
            self._sender.put(window_update(0, self._owed))
            self._room += self._owed
            self._owed = 0

    # -- the end of a stream --

    def _complete(self, stream: Stream) -> None:
        """The response is sent; a client that still sends its request need not any more."""
        if stream.ended:
            self._close(stream, BY_END)
        elif stream.tunnel:
            stream.answer_by = self._port.now() + _FAREWELL
            self._due = min(self._due, stream.answer_by)
        else:  # RFC 9113 section 8.1
            self._sender.put(reset(stream.id, Code.NO_ERROR))
            self._close(stream, BY_US)

    def conclude(self, stream: Stream) -> None:
        """Note that both sides of a stream have ended."""
        self._close(stream, BY_END)

    def cut(self, stream: Stream, code: Code) -> None:
        """End a stream with RST_STREAM, as its exchange has asked."""
        self._sender.put(reset(stream.id, code))
        self._close(stream, BY_US)

    def _abandon(self, stream: Stream, how: str) -> None:
        """End a stream under its application, which runs on until it notices."""
        self.forsake(stream)
        self._close(stream, how)

    def forsake(self, stream: Stream) -> None:
        """Tell the application of a stream that its client is gone; it counts while it runs on."""
        call = stream.call
        stream.lost()
        if call is not None and call.running:
            self._left_behind.add(call)
        stream.exchange = stream.call = None

    def _close(self, stream: Stream, how: str) -> None:
        number = stream.id
        del self.streams[number]
        if stream.tunnel:
            self.tunnels.pop(number, None)
        self._note_end(number, how)
        if stream.queued:
            self._sender.forget(stream)
        if stream.unread:
            self._give_back_connection(stream.unread)
            stream.unread = 0
        stream.finish()
        if not self.streams:
            self._idle()

    def _note_end(self, number: int, how: str) -> None:
        ends = self._ends
        if len(ends) >= _MAX_ENDS:
            del ends[next(iter(ends))]
        ends[number] = how

    def _running(self) -> int:
        """Return how many applications run for this connection."""
        self._left_behind = {one for one in self._left_behind if one.running}
        return len(self.streams) + len(self._left_behind)

    def _refusal(self, number: int, method: bytes, *, ended: bool) -> Stream:
        """Return a stream for a request that was refused before it had a head."""
        head = Head("HEAD" if method == b"HEAD" else "GET", "2")
        head.ordinary = method != b"HEAD"
        stream = Stream(number, head, self._sender.initial, self._own.stream_window)
        stream.ended = ended
        self.streams[number] = stream
        return stream
