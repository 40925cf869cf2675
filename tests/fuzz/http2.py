"""HTTP/2: what a stream of bytes means depends on nothing but the bytes.

One reading, whole, whose applications answer as soon as a request is complete, is the measure: cut
anywhere it gives the same requests, the same faults and the same bytes. Where a window has held up
an answer, what came meanwhile may have met another state; then only the requests are compared.

Whatever applications, time, drains and congestion do: what is sent are frames that hyperframe,
hpack and the judge of the conformance tests take, within the client's windows; every application is
told of one end; what is held keeps to the limits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hyperframe.frame import Frame, SettingsFrame

from daphne_supervisor.config import Http, WebSocket
from daphne_supervisor.config import Http2 as Own
from daphne_supervisor.worker import websocket
from daphne_supervisor.worker.head import Refused
from daphne_supervisor.worker.http2 import AHEAD, Http2, Phase
from daphne_supervisor.worker.http2_tunnel import StreamWebSocket
from tests.fuzz.choices import pieces, split
from tests.fuzz.http2_windows import Windows
from tests.support.http2_frames import block
from tests.support.http2_judge import Judge
from tests.support.streams import PREFACE, FakeStreams, raw
from tests.support.transports import Listener, frame
from tests.support.wire import FakePort, FakeRequest, Rig

if TYPE_CHECKING:
    from collections.abc import Callable

    from daphne_supervisor.worker.head import Head
    from daphne_supervisor.worker.http2_stream import Stream
    from daphne_supervisor.worker.http2_tunnel import Tunnel
    from tests.fuzz.choices import Choices

__all__ = ["DICTIONARY", "IN_WIRE", "check"]

#: The defaults, which hardly any input reaches, and limits that every input reaches.
FAR = (Http(), Own())
NEAR = (
    Http(max_header_size=400, max_header_count=8, max_body_size=3000),
    Own(
        max_streams=4,
        max_running=5,
        max_resets=6,
        max_control_frames=20,
        max_continuations=3,
        max_requests=12,
        stream_window=16_384,
    ),
)
#: The bits of the first choice: near limits, the preface is in the wire, an upgrade came before.
NEARLY, IN_WIRE, UPGRADED = 1, 2, 4

_GET = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/")]
_POST = [(b":method", b"POST"), *_GET[1:]]
_CONNECT = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    *_GET[1:],
    (b"sec-websocket-version", b"13"),
]
_MASKED = frame(1, b"hello")

DICTIONARY = [
    PREFACE,
    SettingsFrame(0).serialize(),
    *(raw(1, number, block(_GET), 5) for number in (1, 3, 5, 7)),
    *(raw(1, number, block(_POST), 4) for number in (1, 3, 5)),
    raw(1, 1, block(_CONNECT), 4),
    raw(1, 3, block(_CONNECT), 4),
    raw(1, 1, block([(b":method", b"HEAD"), *_GET[1:]]), 5),
    raw(1, 1, block([*_POST, (b"content-length", b"5")]), 4),
    raw(1, 1, block([*_POST, (b"expect", b"100-continue")]), 4),
    raw(1, 1, block([*_GET, (b"priority", b"u=0, i")]), 5),
    raw(1, 1, block([*_GET, (b"connection", b"close")]), 5),
    raw(1, 1, block([(b"x-sum", b"1")]), 5),
    raw(1, 1, block(_GET), 1),
    raw(9, 1, b"", 4),
    raw(9, 1, b""),
    raw(1, 1, bytes(5) + block(_GET), 0x25),
    raw(1, 1, b"\x02" + block(_GET) + b"\0\0", 0x0D),
    raw(1, 3, b"\x82\x87\x84\x41\x01a", 5),
    raw(1, 3, b"\xbe\xbf\x82\x84\x87", 5),
    raw(1, 1, b"\x3f\xe1\x1f\x20\x82", 5),
    raw(0, 1, b"hello", 1),
    raw(0, 1, b"hello"),
    raw(0, 1, b"", 1),
    raw(0, 1),
    raw(0, 1, b"\x03hello\0\0\0", 9),
    raw(0, 1, _MASKED),
    raw(0, 3, _MASKED),
    raw(0, 1, frame(8, b"\x03\xe8")),
    raw(0, 1, frame(9, b""), 1),
    raw(2, 1, bytes(5)),
    raw(3, 1, b"\0\0\0\x08"),
    raw(3, 3, b"\0\0\0\x08"),
    raw(4, 0, b"", 1),
    raw(4, 0, b"\0\x04\0\0\0\0"),
    raw(4, 0, b"\0\x04\0\0\0\x05"),
    raw(4, 0, b"\0\x04\x7f\xff\xff\xff"),
    raw(4, 0, b"\0\x01\0\0\0\0"),
    raw(4, 0, b"\0\x01\0\0\x10\0"),
    raw(4, 0, b"\0\x02\0\0\0\x02"),
    raw(4, 0, b"\0\x05\0\0\x40\0"),
    raw(5, 1, b"\0\0\0\x02\x82", 4),
    raw(6, 0, b"12345678"),
    raw(6, 0, b"goodbye!", 1),
    raw(7, 0, bytes(8)),
    raw(8, 0, b"\0\0\0\x01"),
    raw(8, 1, b"\0\0\0\x01"),
    raw(8, 1, b"\0\0\x40\0"),
    raw(8, 1, b"\x7f\xff\xff\xff"),
    raw(8, 0, b"\x7f\xff\xff\xff"),
    raw(8, 1, bytes(4)),
    raw(16, 0, b"\0\0\0\x01u=0, i"),
    raw(16, 0, b"\0\0\0\x05u=7"),
    raw(99, 1, b"?"),
]


def check(data: bytes) -> None:
    """Fail if an input breaks what this module promises."""
    wire, choices = split(data)
    form = choices.number()
    whole = Eager(form).read([wire])
    cut = Eager(form).read(pieces(wire, choices.rest()))
    agree(whole, cut)
    Chaos(form, choices).play(wire)


def agree(whole: Reading, cut: Reading) -> None:
    """Check that two slicings had the same outcome, or the same requests if any had to wait."""
    if not (whole.waited or cut.waited):
        assert cut.outcome == whole.outcome
        assert cut.port.sent == whole.port.sent
        return
    for number, request in cut.handler.requests.items():
        if number in whole.handler.requests:
            assert meaning(request) == meaning(whole.handler.requests[number])


def meaning(request: FakeRequest) -> tuple[object, ...]:
    """Return all that the head of a request says."""
    head = request.head
    return (head.method, head.version, head.raw_path, head.query, tuple(head.headers))


class Handler(FakeStreams):
    """Makes the exchanges of a reading."""

    def __init__(self, reading: Reading) -> None:
        """Ask `reading` what an exchange does."""
        super().__init__()
        self.reading = reading
        self.listeners: list[Listener] = []
        self.sockets: list[StreamWebSocket] = []

    def begin_stream(self, head: Head, stream: Stream) -> FakeRequest:
        """Return an exchange."""
        assert stream.id not in self.requests
        request = self.requests[stream.id] = self.reading.exchange(head, stream)
        return request

    def open_tunnel(self, head: Head, tunnel: Tunnel) -> None:
        """Run a WebSocket."""
        super().open_tunnel(head, tunnel)
        socket = tunnel.socket = StreamWebSocket(tunnel, head, WebSocket())
        listener = Listener()
        socket.attach(listener)
        self.listeners.append(listener)
        self.sockets.append(socket)
        self.reading.opened(socket)


class Reading:
    """A connection between fakes, and all that a client can hold against it."""

    def __init__(self, form: int) -> None:
        """Open it in the way that `form` says."""
        self.limits, self.own = NEAR if form & NEARLY else FAR
        self.port = FakePort()
        self.handler = Handler(self)
        self.codec = Http2(self.port, self.handler, self.limits, self.own)
        self.judge = Judge()
        self.windows = Windows()
        self.waited = False
        self._heard = 0
        if form & UPGRADED:
            self.windows.upgrade()
            first = Rig()
            first.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            self.codec.answer_upgrade(first.current.head, [])
        if form & IN_WIRE:
            self.settle()  # an input may be empty, and ours is said all the same
        else:
            self.feed(PREFACE + SettingsFrame(0).serialize())

    def exchange(self, head: Head, stream: Stream) -> FakeRequest:
        """Return what stands for the application of a request."""
        return FakeRequest(head, stream.id)

    def opened(self, socket: StreamWebSocket) -> None:
        """Take note of a WebSocket that may be accepted."""

    @property
    def deaf(self) -> bool:
        """Whether no transport would deliver any more."""
        return self.codec.phase is Phase.OVER or "close" in self.port.ends

    def feed(self, data: bytes) -> None:
        """Let a piece arrive, and do what comes of it."""
        self.windows.granted(data)
        self.codec.receive(data)
        self.settle()

    def settle(self) -> None:
        """Do what was to be done soon, and check what holds at any time."""
        while self.port.due or any(each.breathless for each in self.handler.listeners):
            while self.port.due:
                self.port.due.pop(0)()
            for listener, socket in self.pairs:
                if listener.breathless:
                    listener.breathless = False
                    self.waited = True
                    socket.resume()
        self.hear()
        self.holds()

    @property
    def pairs(self) -> list[tuple[Listener, StreamWebSocket]]:
        """Return each WebSocket with what stands for its application."""
        return list(zip(self.handler.listeners, self.handler.sockets, strict=True))

    def hear(self) -> None:
        """Read what was sent, with readers that share no code with the server."""
        data = bytes(self.port.sent[self._heard :])
        self._heard = len(self.port.sent)
        self.judge.hear(data)
        assert not self.judge.rest, "half a frame"
        at = 0
        while at < len(data):
            one, size = Frame.parse_frame_header(memoryview(data[at : at + 9]), strict=True)
            one.parse_body(memoryview(data[at + 9 : at + 9 + size]))
            at += 9 + size
            self.windows.spent(one)

    def holds(self) -> None:
        """Check what holds at any time: above all that memory is bounded."""
        codec, own = self.codec, self.own
        sender = getattr(codec, "_sender", None)  # which a lost connection has no more
        behind = sender is not None and sender.ahead > AHEAD
        assert self.port.reading or behind or codec.phase is Phase.OVER
        assert len(codec.streams) <= own.max_streams
        assert codec.tunnels.keys() <= codec.streams.keys()
        assert len(codec._left_behind) <= max(own.max_streams, own.max_running)
        assert len(codec._priorities) <= own.max_streams
        assert len(codec._ends) <= 1000
        self.waited = self.waited or (sender is not None and math.isfinite(sender.stall_by))
        if codec.phase >= Phase.LINGERING:
            assert not codec.streams
            return
        assert len(codec._reader.rest) < 9 + 16_384 or codec._reader.hasty
        assert codec._reader._size <= codec._longest_list + 16_384
        unread = sum(each.unread for each in codec.streams.values())
        assert codec._room + codec._owed + unread == codec._whole_room
        assert all(0 <= each.room <= own.stream_window for each in codec.streams.values())

    @property
    def outcome(self) -> tuple[object, ...]:
        """All that has come of what was fed."""
        handler = self.handler
        requests = [
            (number, meaning(each), each.body, each.ended, each.gone, each.answered)
            for number, each in handler.requests.items()
        ]
        return (
            requests,
            [(each.messages, each.ends) for each in handler.listeners],
            [(reason.status, reason.rule) for reason in handler.refusals],
            [(fault.code, fault.rule) for fault in handler.faults],
            (handler.crowds, self.port.ends, self.codec.phase),
        )

    def leave(self) -> None:
        """Lose the client: then everybody has heard of one end, and nothing is kept."""
        self.codec.lost()
        self.settle()
        assert not self.codec.streams
        assert not self.codec.tunnels
        for request in self.handler.requests.values():
            assert request.gone != request.answered, request
        for listener in self.handler.listeners:
            assert len(listener.ends) == 1


# -- the measure: applications that answer at once --


class Prompt(FakeRequest):
    """Reads as it comes, and answers with what it has read."""

    codec: Http2

    def start(self) -> None:
        """Answer what has no body."""
        super().start()
        if self.ended:
            self.answer()

    def receive_body(self, data: bytes) -> None:
        """Read a piece."""
        super().receive_body(data)
        self.codec.taken(self.stream)

    def end_body(self) -> None:
        """Answer."""
        super().end_body()
        self.answer()

    def answer(self) -> None:
        """Say what was read."""
        self.answered = True
        self.codec.respond(self.stream, 200, [], self.body, more=False)


class Eager(Reading):
    """A connection whose applications answer as soon as they can."""

    def exchange(self, head: Head, stream: Stream) -> FakeRequest:
        """Return one that answers at once."""
        request = Prompt(head, stream.id)
        request.codec = self.codec
        return request

    def opened(self, socket: StreamWebSocket) -> None:
        """Accept."""
        socket.accept(None, [])
        socket.catch_up()

    def read(self, stream: list[bytes]) -> Eager:
        """Feed `stream` as a connection does, then leave."""
        for piece in stream:
            if self.deaf:
                break
            self.feed(piece)
        self.leave()
        return self


# -- a reading in which anything may happen in between --


class Chaos(Reading):
    """Feeds a stream, and lets the choices say what happens between its pieces."""

    def __init__(self, form: int, choices: Choices) -> None:
        """Let `choices` say it."""
        super().__init__(form)
        self.choices = choices

    def play(self, wire: bytes) -> None:
        """Feed `wire`, let time pass, end the connection."""
        while wire and not self.deaf:
            count = self.choices.number() + 1 if self.choices else len(wire)
            self.feed(wire[:count])
            wire = wire[count:]
            self.act()
        while self.choices and not self.deaf:
            self.act()
        self.port.congested = False
        if not self.deaf:
            self.codec.relieved()
            self.settle()
        self.leave()

    def act(self) -> None:
        """Do what is chosen, if it can be done now."""
        if self.choices and not self.deaf:
            Chaos.ACTIONS[self.choices.number(len(Chaos.ACTIONS))](self)
            self.settle()

    def due(self) -> FakeRequest | None:
        """Return one of the requests whose application has something to say."""
        streams = self.codec.streams
        found = [
            each
            for number, each in self.handler.requests.items()
            if not (each.gone or each.answered) and number in streams
        ]
        return found[self.choices.number(len(found))] if found else None

    def socket(self) -> StreamWebSocket | None:
        """Return one of the WebSockets."""
        found = self.handler.sockets
        return found[self.choices.number(len(found))] if found else None

    # what may happen

    def nothing(self) -> None:
        """Let the next piece come."""

    def _say(self, size: int, *, more: bool) -> None:
        request = self.due()
        if request is None:
            return
        request.answered = not more
        body = bytes(size)
        if self.codec.streams[request.stream].begun:
            self.codec.send(request.stream, body, more=more)
        else:
            headers = [(b"x-a", b"b" * self.choices.number())] if more else []
            self.codec.respond(request.stream, 200, headers, body, more=more)

    def finish(self) -> None:
        """Say the last piece of a response, or all of it."""
        self._say(self.choices.number() * 5, more=False)

    def stream_on(self) -> None:
        """Say a piece, which may be large."""
        self._say(self.choices.number() * 400, more=True)

    def trail(self) -> None:
        """End with trailers."""
        request = self.due()
        if request is not None and self.codec.streams[request.stream].begun:
            request.answered = True
            self.codec.trailers(request.stream, [(b"x-sum", b"1")])

    def ask(self) -> None:
        """Wait for the body."""
        request = self.due()
        if request is not None and request.waits_for_continue:
            request.asked = True
            self.codec.proceed(request.stream)

    def hint(self) -> None:
        """Send an interim response."""
        request = self.due()
        if request is not None and not self.codec.streams[request.stream].begun:
            self.codec.inform(request.stream, 103, [(b"link", b"</a>")])

    def take(self) -> None:
        """Read what has come."""
        request = self.due()
        if request is not None:
            self.codec.taken(request.stream)

    def fail(self) -> None:
        """Fail in the middle, or before the beginning."""
        request = self.due()
        if request is not None:
            request.answered = True
            self.codec.give_up(request.stream)

    def stop(self) -> None:
        """Let those applications return that were left behind."""
        for request in self.handler.requests.values():
            request.over = request.over or request.gone

    def accept(self) -> None:
        """Accept a WebSocket."""
        socket = self.socket()
        if socket is not None and socket.phase is websocket.Phase.CONNECTING:
            socket.accept(None, [])
            socket.catch_up()

    def say(self) -> None:
        """Send a message."""
        socket = self.socket()
        if socket is not None and socket.phase is websocket.Phase.OPEN:
            socket.send(bytes(self.choices.number() * 300), text=False)

    def close(self) -> None:
        """Close a WebSocket."""
        socket = self.socket()
        if socket is not None and socket.phase is websocket.Phase.OPEN:
            socket.close(1000, "")

    def pause(self) -> None:
        """Let too much wait for the application of a WebSocket, or no longer."""
        for listener, socket in self.pairs:
            listener.paused = not listener.paused
            if not listener.paused and not listener.ends:
                socket.resume()

    def expire(self) -> None:
        """Let time pass."""
        if math.isfinite(self.codec.deadline):
            self.port.time = max(self.port.time, self.codec.deadline)
            self.codec.expire(self.port.time)

    def drain(self) -> None:
        """Let the worker prepare to leave."""
        self.port.worker.draining = True
        self.codec.drain()

    def linger(self) -> None:
        """Let every response be the last of its connection, or no longer."""
        worker = self.port.worker
        worker.lingering = not worker.lingering

    def overload(self) -> None:
        """Let there be no room for a WebSocket, or room again."""
        handler = self.handler
        handler.overloaded = None if handler.overloaded else Refused(503, "overloaded")

    def congest(self) -> None:
        """Let the client read slowly, or no longer."""
        self.port.congested = not self.port.congested
        if not self.port.congested:
            self.codec.relieved()

    ACTIONS: tuple[Callable[[Any], None], ...] = (
        nothing,
        finish,
        stream_on,
        trail,
        ask,
        hint,
        take,
        fail,
        stop,
        accept,
        say,
        close,
        pause,
        expire,
        drain,
        linger,
        overload,
        congest,
    )
