"""The inbound half of HTTP/2: frames in, requests out (RFC 9113 sections 5, 6 and 8).

A fault that concerns one stream ends that stream and nothing else; what cannot be read on after, or
what nobody who means well would send, ends the connection with a GOAWAY that says why.

This module knows neither sockets nor ASGI.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from daphne_supervisor.worker.head import Refused
from daphne_supervisor.worker.head_http2 import Malformed, admit, check_trailers
from daphne_supervisor.worker.http2_fields import OVERHEAD, FieldReader
from daphne_supervisor.worker.http2_frames import (
    LAST_STREAM,
    Code,
    ConnectionFault,
    Setting,
    StreamFault,
    check_setting,
    ping,
    reset,
    settings_ack,
)
from daphne_supervisor.worker.http2_reader import Reader
from daphne_supervisor.worker.http2_responses import BY_CLIENT, BY_END, BY_US, Responses
from daphne_supervisor.worker.http2_stream import Stream, read_priority
from daphne_supervisor.worker.http2_tunnel import Tunnel
from daphne_supervisor.worker.pace import Pace

if TYPE_CHECKING:
    from daphne_supervisor.config import Http, Http2
    from daphne_supervisor.worker.head import Head
    from daphne_supervisor.worker.waist import Port, StreamHandler

__all__ = ["Requests"]

#: A field block may unpack to so many times --max-header-size, for its client to be told 431; a
#: bomb unpacks to thousands of times its size.
_UNPACKED = 2


class Requests(Responses):
    """What arrives, frame by frame: the reader's sink."""

    def __init__(self, port: Port, handler: StreamHandler, limits: Http, own: Http2) -> None:
        """Speak through `port`, report to `handler`, keep to `limits` and our `own`."""
        super().__init__(port, handler, limits, own)
        most = limits.max_header_size + OVERHEAD * limits.max_header_count
        self._longest_list = most
        self._fields = FieldReader(most * _UNPACKED)
        self._reader = Reader(self, most_block=most, most_continuations=own.max_continuations)
        self.last = 0  # the highest number of a stream that the client has begun
        self._final = LAST_STREAM  # above it nothing is begun any more
        self._begun = 0  # requests
        self._priorities: dict[int, tuple[int, bool]] = {}  # of streams to come
        self._client_leaves = False
        self._held = 0  # bytes of the window that are used when the client has introduced itself

    # -- requests --

    def receive_headers(self, number: int, block: bytes, *, end: bool) -> None:
        """Begin a request, or end one with trailers."""
        stream = self.streams.get(number)
        if stream is not None:
            self._receive_trailers(stream, block, end=end)
            return
        if number <= self.last or not number & 1:
            self._fields.read(block)
            self._control.add(self._port.now())
            self._receive_late(number, "HEADERS")
            return
        self.last = number
        if number > self._final:  # it was said that this will not be processed
            self._fields.read(block)
            self._control.add(self._port.now())
            self._note_end(number, BY_US)  # its body is under way (RFC 9113 section 6.8)
            return
        own = self._own
        if len(self.streams) >= own.max_streams or (
            self._left_behind and self._running() >= own.max_running
        ):
            self._fields.read(block)
            self._refuse_stream(number)
            return
        head = self._fields.known.get((block, end)) or self._read_head(number, block, end=end)
        if head is not None:
            self._begin(number, head, end=end)

    def _read_head(self, number: int, block: bytes, *, end: bool) -> Head | None:
        """Return the head that a block says, `None` if it was refused."""
        fields = self._fields.read(block)
        try:
            head = admit(fields, self._limits, end=end)
        except Malformed as reason:
            self._handler.refused(reason)
            self._reset_unbegun(number, Code.PROTOCOL_ERROR)
            return None
        except Refused as reason:
            self._handler.refused(reason)
            method = next((value for name, value in fields if name == b":method"), b"")
            self.answer_refusal(self._refusal(number, method, ended=end), reason)
            self._resets.add(self._port.now())  # or the log would have no bound
            return None
        self._fields.keep(block, end=end, meaning=head)
        return head

    def _begin(self, number: int, head: Head, *, end: bool) -> None:
        """Make the exchange of an admitted request, and start it."""
        self._begun += 1
        kind = Tunnel if head.websocket else Stream
        stream = kind(number, head, self._sender.initial, self._own.stream_window)
        stream.ended = end
        if self._priorities:
            priority = self._priorities.pop(number, None)
            if priority is not None:
                stream.urgency, stream.shares = priority
        self.streams[number] = stream
        self._control.give_back(2)  # clients update priorities and windows as they ask
        timeout = self._limits.http_timeout
        if len(self.streams) == 1:
            self._due = math.inf
        if self._begun == self._own.max_requests:
            self.drain()
        if isinstance(stream, Tunnel):
            self._begin_tunnel(stream)
            return
        if timeout:
            stream.answer_by = self._port.now() + timeout
            self._due = min(self._due, stream.answer_by)
        if not end:
            stream.pace = Pace(self._limits.body_min_rate)
            stream.pace.watch(0, self._port.now())
            self._due = min(self._due, stream.pace.due)
        exchange = stream.exchange = stream.call = self._handler.begin_stream(head, stream)
        exchange.start()

    def _begin_tunnel(self, stream: Tunnel) -> None:
        """Begin a WebSocket (RFC 8441)."""
        stream.carry(self, self._port)  # who is turned away may send on meanwhile
        overload = None
        if self._port.worker.draining and self._begun > 1:
            overload = Refused(503, "the worker is leaving: no new WebSocket")
            self._handler.refused(overload)
        overload = overload or self._handler.overload()
        if overload is not None:
            self.answer_refusal(stream, overload)
            return
        self.tunnels[stream.id] = stream
        self._handler.open_tunnel(stream.head, stream)

    def _refuse_stream(self, number: int) -> None:
        """Turn a stream away; the client may try again (RFC 9113 section 8.7)."""
        self._handler.crowded()
        self._reset_unbegun(number, Code.REFUSED_STREAM)

    def _reset_unbegun(self, number: int, code: Code) -> None:
        self._sender.put(reset(number, code))
        self._note_end(number, BY_US)
        self._resets.add(self._port.now())

    def _receive_trailers(self, stream: Stream, block: bytes, *, end: bool) -> None:
        """Check trailers, which nobody is told of, and end the request."""
        fields = self._fields.read(block)
        if stream.ended:
            raise StreamFault(stream.id, Code.STREAM_CLOSED, "HEADERS behind the end")
        if stream.tunnel or not end:
            raise StreamFault(stream.id, Code.PROTOCOL_ERROR, "HEADERS in a body")
        try:
            check_trailers(fields, self._limits)
        except Refused as reason:
            raise StreamFault(stream.id, Code.PROTOCOL_ERROR, reason.rule) from None
        self._end_body(stream)

    def _receive_late(self, number: int, what: str) -> None:
        """Judge a frame on a stream that is not there any more (RFC 9113 section 5.1)."""
        if not number & 1 or number > self.last:
            raise ConnectionFault(
                Code.PROTOCOL_ERROR, f"{what} on an idle stream (RFC 9113 section 5.1)"
            )
        how = self._ends.get(number)
        if how == BY_US:  # it was under way
            return
        if how == BY_CLIENT:
            raise StreamFault(number, Code.STREAM_CLOSED, f"{what} behind RST_STREAM")
        raise ConnectionFault(
            Code.STREAM_CLOSED if how == BY_END else Code.PROTOCOL_ERROR,
            f"{what} on a stream that has ended (RFC 9113 section 5.1)",
        )

    # -- bodies --

    def receive_data(self, number: int, data: bytes, size: int, *, end: bool) -> None:
        """Take a piece of a body."""
        self._room -= size
        if self._room < 0:
            raise ConnectionFault(
                Code.FLOW_CONTROL_ERROR,
                "DATA beyond the connection's window (RFC 9113 section 5.2)",
            )
        if not data and not end:
            self._control.add(self._port.now())
        stream = self.streams.get(number)
        if stream is None:
            self._give_back_connection(size)
            self._receive_late(number, "DATA")
            return
        stream.unread += size
        if stream.ended:
            raise StreamFault(number, Code.STREAM_CLOSED, "DATA behind the end")
        stream.room -= size
        if stream.room < 0:
            raise StreamFault(number, Code.FLOW_CONTROL_ERROR, "DATA beyond the stream's window")
        if size > len(data):
            self.give_back(stream, size - len(data))
        if stream.tunnel:
            stream.receive(data, end=end)  # type: ignore[attr-defined]
            return
        self._receive_body(stream, data)
        if end and not stream.over:
            self._end_body(stream)

    def _receive_body(self, stream: Stream, data: bytes) -> None:
        stream.received += len(data)
        length, limit = stream.head.length, self._limits.max_body_size
        if length is not None and stream.received > length:
            raise StreamFault(stream.id, Code.PROTOCOL_ERROR, "a body above its Content-Length")
        if limit and stream.received > limit:
            self._break_body(stream, Refused(413, "body exceeds --max-body-size"))
        elif stream.exchange is not None and data:
            stream.exchange.receive_body(data)

    def _break_body(self, stream: Stream, reason: Refused) -> None:
        """End a request whose body will not be read: it has no other answer than this."""
        self._handler.refused(reason)
        self.forsake(stream)
        if stream.begun:
            self.cut(stream, Code.CANCEL)
        else:
            self.answer_refusal(stream, reason)
        self._resets.add(self._port.now())  # it has cost a call and a line of the log

    def _end_body(self, stream: Stream) -> None:
        length = stream.head.length
        if length is not None and stream.received != length:
            raise StreamFault(stream.id, Code.PROTOCOL_ERROR, "a body below its Content-Length")
        stream.ended = True
        stream.pace = None
        if stream.exchange is not None and length != 0:  # else its head has said so
            stream.exchange.end_body()

    # -- the rest --

    def receive_reset(self, number: int, code: int) -> None:  # noqa: ARG002
        """The client has lost interest in a stream."""
        stream = self.streams.get(number)
        if stream is not None:
            self._abandon(stream, BY_CLIENT)
        elif number not in self._ends and (number > self.last or not number & 1):
            raise ConnectionFault(
                Code.PROTOCOL_ERROR, "RST_STREAM on an idle stream (RFC 9113 section 6.4)"
            )
        self._resets.add(self._port.now())

    def fail_stream(self, fault: StreamFault) -> None:
        """End a stream for a fault. Raises `ConnectionFault` when there are too many.

        One that is idle cannot be reset, and one that has ended need not be (RFC 9113 section 5.1);
        but a client that goes on behind its own RST_STREAM is told so, once.
        """
        number = fault.stream
        if number > self.last or not number & 1:
            raise ConnectionFault(fault.code, fault.rule)
        self._handler.refused(Refused(400, fault.rule))
        stream = self.streams.get(number)
        if stream is not None:
            self._sender.put(reset(number, fault.code))
            self._abandon(stream, BY_US)
        elif self._ends.get(number) == BY_CLIENT:
            self._sender.put(reset(number, fault.code))
            self._note_end(number, BY_US)
        self._resets.add(self._port.now())

    def receive_window(self, number: int, increment: int) -> None:
        """The client lets more through."""
        self._control.add(self._port.now())
        sender = self._sender
        if not number:
            if not increment:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            sender.window += increment
            if sender.window > LAST_STREAM:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "window above 2^31-1")
            sender.wake()
            return
        stream = self.streams.get(number)
        if stream is None:
            if number > self.last or not number & 1:
                raise ConnectionFault(
                    Code.PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream (RFC 9113 section 5.1)"
                )
            return
        if not increment:
            raise StreamFault(number, Code.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        stream.window += increment
        if stream.window > LAST_STREAM:
            raise StreamFault(number, Code.FLOW_CONTROL_ERROR, "window above 2^31-1")
        sender.enqueue(stream)

    def receive_settings(self, values: list[tuple[int, int]]) -> None:
        """Keep to what the client can take (RFC 9113 section 6.5)."""
        self._control.add(self._port.now())
        self._adopt(values)
        self._sender.put(settings_ack())
        if self._held:
            self._sender.window += self._held
            self._held = 0
            self._sender.wake()

    def _adopt(self, values: list[tuple[int, int]]) -> None:
        for setting, value in values:
            check_setting(setting, value)
        # What is said several times in one frame is done once: it may be said thousands of times.
        for setting, value in dict(values).items():
            if setting == Setting.HEADER_TABLE_SIZE:
                self._heads.writer.resize(value)
            elif setting == Setting.INITIAL_WINDOW_SIZE:
                self._resize_windows(value)

    def _resize_windows(self, initial: int) -> None:
        sender = self._sender
        change, sender.initial = initial - sender.initial, initial
        for stream in self.streams.values():
            stream.window += change
            if stream.window > LAST_STREAM:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "window above 2^31-1")
            sender.enqueue(stream)

    def receive_ping(self, payload: bytes) -> None:
        """Answer a ping."""
        self._control.add(self._port.now())
        self._sender.put(ping(payload, ack=True))

    def receive_pong(self, payload: bytes) -> None:  # noqa: ARG002 - for the codec to look at
        """Count an answer to no ping of ours."""
        self._control.add(self._port.now())

    def receive_goaway(self, last: int, code: int) -> None:  # noqa: ARG002 - we begin no streams
        """The client will begin no more streams: what runs is finished."""
        self._control.add(self._port.now())
        self._client_leaves = True
        if not self.streams:
            self._idle()

    def receive_priority(self, number: int, value: bytes) -> None:
        """Serve a stream earlier, or later (RFC 9218 section 7.1)."""
        urgency, shares = read_priority(value)
        stream = self.streams.get(number)
        if stream is not None:
            self._sender.prioritize(stream, urgency, shares=shares)
        elif number > self.last:
            self._foresee(number, (urgency, shares))

    def _foresee(self, number: int, priority: tuple[int, bool]) -> None:
        """Keep the priority of a stream to come: of no more than may be open at once."""
        most = self._own.max_streams
        if len(self._priorities) >= most:  # some may never have come, or were refused
            last = self.last
            self._priorities = {key: it for key, it in self._priorities.items() if key > last}
        if len(self._priorities) < most:
            self._priorities[number] = priority

    def receive_other(self) -> None:
        """Count a frame that means nothing here."""
        self._control.add(self._port.now())
