"""HTTP/2 on the wire (RFC 9113): time, and the end of a connection.

Theory of operation. `Reader` cuts what arrives into frames; `Requests` makes requests of them, each
a `Stream`, and `Responses` turns what their applications say into frames, which `Sender` lets out
as far as windows, priorities and the connection allow. This is the codec that a connection sees.

A connection that is to end says so with GOAWAY, twice (section 6.8): the first promises nothing
about numbers, since requests are under way; a round trip later the second one names the last stream
that is answered. What runs is finished, then the connection closes. A client that breaks a rule of
the connection, or goes beyond a limit, has one GOAWAY that says why, and deaf ears.

This module knows neither sockets nor ASGI.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING

from daphne_supervisor.worker.head import Refused
from daphne_supervisor.worker.http2_frames import (
    LAST_STREAM,
    NO_RFC7540_PRIORITIES,
    Code,
    ConnectionFault,
    Setting,
    StreamFault,
    goaway,
    ping,
    settings,
    window_update,
)
from daphne_supervisor.worker.http2_reader import BUDGET, REQUEST
from daphne_supervisor.worker.http2_requests import Requests

if TYPE_CHECKING:
    from daphne_supervisor.config import Http
    from daphne_supervisor.config import Http2 as Limits
    from daphne_supervisor.worker.head import Head
    from daphne_supervisor.worker.http2_stream import Stream
    from daphne_supervisor.worker.waist import Port, StreamHandler

__all__ = ["AHEAD", "BEHIND_UPGRADE", "LINGER", "ROUND_TRIP", "Http2", "Phase"]

#: A read of more bytes says that more wait, as for HTTP/1.1.
GULP = 65_536
#: Seconds that a connection which ends with an error goes on reading, so that what comes does not
#: reset it before the client has read why.
LINGER = 2.0
#: Seconds after the first GOAWAY in which the answer to our ping should have come.
ROUND_TRIP = 1.0
#: Bytes of a body that are sent behind an upgrade before the client's preface has come.
BEHIND_UPGRADE = 8192
#: Bytes of heads and other frames that no window bounds, written for a client that does not read:
#: with more, nothing is read of it (CVE-2019-9517).
AHEAD = 65_536
_DRAIN_PING = b"goodbye!"


class Phase(enum.IntEnum):
    """Where the connection is."""

    OPEN = 0
    LEAVING = 1  # GOAWAY is sent, without a number: requests that were under way are answered
    LAST = 2  # GOAWAY is sent with the number of the last stream
    LINGERING = 3  # our side is closed, what still comes is thrown away
    OVER = 4


_OPEN, _LEAVING, _LAST, _LINGERING, _OVER = Phase


class Http2(Requests):
    """The codec of one HTTP/2 connection."""

    def __init__(self, port: Port, handler: StreamHandler, limits: Http, own: Limits) -> None:
        """Speak through `port`, report to `handler`, keep to `limits` and our `own`."""
        super().__init__(port, handler, limits, own)
        self.phase = _OPEN
        self._paused = False
        self._head_by = math.inf  # when a field block that has begun must have ended
        self._final_by = math.inf  # when the second GOAWAY is due
        self._due = port.now() + limits.head_timeout
        opening = settings(
            (
                (Setting.MAX_CONCURRENT_STREAMS, own.max_streams),
                (Setting.INITIAL_WINDOW_SIZE, own.stream_window),
                (Setting.MAX_HEADER_LIST_SIZE, self._longest_list),
                (Setting.ENABLE_CONNECT_PROTOCOL, 1),
                (NO_RFC7540_PRIORITIES, 1),
            )
        )
        if self._owed:
            opening += window_update(0, self._owed)
            self._room += self._owed
            self._owed = 0
        self._sender.put(opening)

    def answer_upgrade(self, head: Head, values: list[tuple[int, int]]) -> None:
        """Begin with the request that asked for the upgrade, as stream 1 (RFC 7540 section 3.2)."""
        self._adopt(values)
        # Behind its 101 curl takes no more than its buffer holds, until it speaks HTTP/2 itself.
        self._held = self._sender.window - BEHIND_UPGRADE
        self._sender.window = BEHIND_UPGRADE
        self.last = 1
        self._begin(1, head, end=True)

    # -- bytes in --

    def receive(self, data: bytes) -> None:
        """Take what the client sent, in any slicing."""
        if self.phase >= _LINGERING:
            return
        try:
            try:
                self._read(data)
            except ConnectionFault as fault:
                if self.phase is not _OVER:  # what came behind the client's own end is its affair
                    self._fail(fault)
                return
            if self.phase is _OVER:
                return
            if len(data) > GULP or self._reader.hasty or self._sender.ahead > AHEAD:
                self._breathe()
            if self._reader.in_block and self._head_by == math.inf:
                self._head_by = self._port.now() + self._limits.head_timeout
            elif not self._reader.in_block:
                self._head_by = math.inf
        except Exception as error:  # noqa: BLE001
            self._port.broken(error)

    def _read(self, data: bytes) -> None:
        """Let the reader read on, whatever streams fail over it, as far as one turn goes."""
        reader = self._reader
        reader.budget = BUDGET
        while True:
            try:
                reader.feed(data)
            except StreamFault as fault:
                reader.budget -= REQUEST
                self.fail_stream(fault)
                data = b""
            else:
                return
            if self.phase >= _LINGERING:
                return

    def _breathe(self) -> None:
        """Read no more of this client until everyone else has had a turn: more of it waits."""
        if not self._paused:
            self._paused = True
            self._port.pause_reading()
            self._port.soon(self._go_on)

    def _go_on(self) -> None:
        if self.phase is _OVER or not self._paused:  # there may be no port any more
            return
        if self._sender.ahead > AHEAD:  # until the client has read
            return
        self._paused = False
        self._port.resume_reading()
        if self._reader.hasty:
            self.receive(b"")

    def receive_pong(self, payload: bytes) -> None:
        """The client has seen what was sent before our ping."""
        if payload == _DRAIN_PING and self.phase is _LEAVING:
            self._say_last()
        else:
            super().receive_pong(payload)

    def relieved(self) -> None:
        """The client has taken most of what was written."""
        self._sender.ahead = 0
        self._go_on()
        self._sender.wake()

    # -- the end --

    def drain(self) -> None:
        """The worker is leaving: begin nothing more, and finish what runs."""
        if self.phase is not _OPEN:
            return
        self.phase = _LEAVING
        port = self._port
        self._sender.put(goaway(LAST_STREAM, Code.NO_ERROR) + ping(_DRAIN_PING, ack=False))
        self._final_by = port.now() + ROUND_TRIP

    def _say_last(self) -> None:
        """Say which stream was the last that is answered; close if none is."""
        self.phase = _LAST
        self._final_by = math.inf
        self._final = self.last
        self._sender.put(goaway(self.last, Code.NO_ERROR))
        if not self.streams:
            self._idle()

    def _idle(self) -> None:
        """No stream is left: wait for others, or close."""
        if self.phase is _LAST or self._client_leaves:
            self._finish()
        else:
            self._due = self._port.now() + self._limits.keep_alive

    def _finish(self) -> None:
        """Close, once everything is sent."""
        self._end()
        self._final = self.last  # the same read may hold more
        self._sender.flush()
        self._port.close()

    def _fail(self, fault: ConnectionFault) -> None:
        """End the connection for a fault of the client's."""
        self._handler.broke(fault)
        self.phase = _LINGERING
        self._abandon_all()
        self._sender.put(goaway(min(self.last, self._final), fault.code, fault.rule))
        self._sender.flush()
        self._sender.part()
        self._head_by = self._final_by = math.inf
        self._due = self._port.now() + LINGER
        if self._paused:
            self._paused = False
            self._port.resume_reading()
        self._port.shut()

    def _abandon_all(self) -> None:
        """Tell every application that its client is gone."""
        streams = list(self.streams.values())
        self.streams.clear()
        self.tunnels.clear()
        for stream in streams:
            self.forsake(stream)
            stream.finish()

    def _end(self) -> None:
        self.phase = _OVER
        self._due = self._head_by = self._final_by = math.inf
        self._reader.budget = 0  # what is behind in the same read is as late as what comes later

    def lost(self) -> None:
        """The connection is gone: tell everyone who waits."""
        self._end()
        self._abandon_all()
        # What is no cycle is freed at once, and not when the collector comes by.
        self._sender.part()
        self._reader.part()
        self._left_behind.clear()
        del self._port, self._handler, self._sender

    # -- time --

    @property
    def deadline(self) -> float:
        """Return when `expire` wants to be called."""
        due = min(self._due, self._head_by, self._final_by, self._sender.stall_by)
        for tunnel in self.tunnels.values():
            if tunnel.socket is not None:
                due = min(due, tunnel.socket.deadline)
        return due

    def expire(self, now: float) -> None:
        """Act on the deadlines that have passed, and find out which is next."""
        try:
            self._expire(now)
        except ConnectionFault as fault:
            self._fail(fault)

    def _expire(self, now: float) -> None:
        if self.phase >= _LINGERING:
            self._end()
            self._handler.forget()
            return
        if self._head_by <= now:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "head took longer than --head-timeout")
        if self._final_by <= now:
            self._say_last()
        if not self.streams:
            if self._due <= now and self.phase is not _OVER:
                self._expire_idle()
            return
        self._due = math.inf
        self._sender.stall_by = math.inf
        for stream in list(self.streams.values()):
            if not stream.over:
                self._expire_stream(stream, now)

    def _expire_idle(self) -> None:
        """Close a connection on which nothing has happened for too long.

        Who has introduced itself is told first: a request may be under way.
        """
        if self._reader.started and self.phase is _OPEN:
            self.drain()
            self._due = math.inf
        else:
            self._finish()

    def _expire_stream(self, stream: Stream, now: float) -> None:
        tunnel = self.tunnels.get(stream.id)
        if tunnel is not None and tunnel.socket is not None and tunnel.socket.deadline <= now:
            tunnel.socket.expire(now)
        elif stream.stalled_at <= now and not self._port.congested:
            self._drop_stalled(stream)
        elif stream.answer_by <= now:
            stream.answer_by = math.inf
            if stream.exchange is not None and not stream.done:
                stream.exchange.expire()
            elif stream.tunnel:
                self.cut(stream, Code.CANCEL)
        elif stream.pace is not None and stream.pace.due <= now:
            self._judge_pace(stream, now)
        if not stream.over:
            self._due = min(self._due, stream.answer_by)
            if stream.pace is not None:
                self._due = min(self._due, stream.pace.due)
            if stream.stalled_at <= now:  # the connection is what stalls: it is watched elsewhere
                stream.stalled_at = now + self._limits.write_timeout
            self._sender.stall_by = min(self._sender.stall_by, stream.stalled_at)

    def _drop_stalled(self, stream: Stream) -> None:
        """Give up on a client that opens no window for what it has asked for."""
        if self._sender.window <= 0:
            raise ConnectionFault(
                Code.ENHANCE_YOUR_CALM, "the connection's window stays shut (--write-timeout)"
            )
        self.fail_stream(
            StreamFault(stream.id, Code.CANCEL, "the stream's window stays shut (--write-timeout)")
        )

    def _judge_pace(self, stream: Stream, now: float) -> None:
        """Refuse a body that comes too slowly, unless that is for us to change.

        Half a window is given back at a time: with less left the application is behind.
        """
        pace, exchange = stream.pace, stream.exchange
        assert pace is not None  # noqa: S101 - for the type checker
        behind = stream.room * 2 <= self._own.stream_window
        ours = behind or exchange is None or exchange.waits_for_continue
        if not ours and pace.slow(stream.received, now):
            self._break_body(stream, Refused(408, "body slower than --body-min-rate"))
        else:
            pace.watch(stream.received, now)
