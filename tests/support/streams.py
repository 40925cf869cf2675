"""An HTTP/2 codec between fakes. What it sends is read by hyperframe and hpack, not by our code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from daphne_supervisor.config import Http, Http2
from daphne_supervisor.worker import http2
from tests.support.wire import FakePort, FakeRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from daphne_supervisor.worker.head import Head, Refused
    from daphne_supervisor.worker.http2_frames import ConnectionFault
    from daphne_supervisor.worker.http2_stream import Stream
    from daphne_supervisor.worker.http2_tunnel import Tunnel

__all__ = ["GET", "POST", "PREFACE", "FakeStreams", "StreamRig", "goaway", "raw"]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GET = [(":method", "GET"), (":scheme", "https"), (":authority", "test"), (":path", "/")]
POST = [(":method", "POST"), *GET[1:]]
CONNECT = [
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    *GET[1:],
    ("sec-websocket-version", "13"),
]


def raw(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """Return a frame, whatever is wrong with it."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


class FakeStreams:
    """Takes what a codec of streams tells its connection."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.requests: dict[int, FakeRequest] = {}
        self.streams: dict[int, Stream] = {}
        self.tunnels: list[Tunnel] = []
        self.refusals: list[Refused] = []
        self.faults: list[ConnectionFault] = []
        self.crowds = 0
        self.forgotten = False
        self.overloaded: Refused | None = None

    def begin_stream(self, head: Head, stream: Stream) -> FakeRequest:
        """Return an exchange."""
        request = FakeRequest(head, stream.id)
        self.requests[stream.id] = request
        self.streams[stream.id] = stream
        return request

    def open_tunnel(self, head: Head, tunnel: Tunnel) -> None:
        """Remember a WebSocket; the test gives it a socket."""
        assert head.websocket
        self.tunnels.append(tunnel)

    def overload(self) -> Refused | None:
        """Return what the test has set."""
        return self.overloaded

    def refused(self, reason: Refused) -> None:
        """Remember the refusal."""
        self.refusals.append(reason)

    def crowded(self) -> None:
        """Count who was turned away."""
        self.crowds += 1

    def forget(self) -> None:
        """Remember that nobody is waited for any more."""
        self.forgotten = True

    def broke(self, fault: ConnectionFault) -> None:
        """Remember the end of the connection; it has one."""
        assert not self.faults
        self.faults.append(fault)


class StreamRig:
    """An HTTP/2 codec between the fakes, and a client that has introduced itself."""

    def __init__(
        self,
        limits: Http | None = None,
        *,
        settings: dict[int, int] | None = None,
        begin: bool = True,
        **own: Any,
    ) -> None:
        """Open a connection with `limits`, and `own` of HTTP/2; the client's are `settings`."""
        self.port = FakePort()
        self.handler = FakeStreams()
        self.codec = http2.Http2(self.port, self.handler, limits or Http(), Http2(**own))
        self.encoder = Encoder()
        self._decoder = Decoder()
        self._read = 0
        if begin:
            self.feed(PREFACE + SettingsFrame(0, settings=settings or {}).serialize())
            self.frames()

    def feed(self, *pieces: bytes) -> None:
        """Let pieces arrive, and do what comes of it."""
        for piece in pieces:
            self.codec.receive(piece)
            self.breathe()

    def breathe(self) -> None:
        """Do what was to be done soon, and what comes of it."""
        while self.port.due:
            self.port.due.pop(0)()

    def headers(
        self, stream: int, fields: Iterable[tuple[str, str]] = GET, *, end: bool = True
    ) -> bytes:
        """Return a request's HEADERS."""
        frame = HeadersFrame(stream, self.encoder.encode(list(fields)))
        frame.flags.add("END_HEADERS")
        if end:
            frame.flags.add("END_STREAM")
        return frame.serialize()

    @staticmethod
    def data(stream: int, data: bytes = b"", *, end: bool = False, pad: int = 0) -> bytes:
        """Return a DATA frame."""
        frame = DataFrame(stream, data)
        if end:
            frame.flags.add("END_STREAM")
        if pad:
            frame.flags.add("PADDED")
            frame.pad_length = pad
        return frame.serialize()

    def ask(self, stream: int = 1, fields: Iterable[tuple[str, str]] = GET) -> FakeRequest:
        """Let a request without a body arrive."""
        self.feed(self.headers(stream, fields))
        return self.handler.requests[stream]

    def post(self, stream: int = 1, fields: Iterable[tuple[str, str]] = POST) -> FakeRequest:
        """Let the head of a request with a body arrive."""
        self.feed(self.headers(stream, fields, end=False))
        return self.handler.requests[stream]

    def answer(self, stream: int, body: bytes = b"", **more: Any) -> None:
        """Answer as an application would."""
        options = {"status": 200, "headers": [], "more": False, **more}
        request = self.handler.requests.get(stream)
        if request is not None and not options["more"]:
            request.answered = True
        self.codec.respond(
            stream, options["status"], options["headers"], body, more=options["more"]
        )
        self.breathe()

    def frames(self) -> list[Frame]:
        """Return what was sent since the last look; field blocks are decoded as `fields`."""
        data = bytes(self.port.sent[self._read :])
        self._read = len(self.port.sent)
        frames: list[Any] = []
        at = 0
        while at < len(data):
            frame, size = Frame.parse_frame_header(memoryview(data[at : at + 9]))
            frame.parse_body(memoryview(data[at + 9 : at + 9 + size]))
            at += 9 + size
            if isinstance(frame, ContinuationFrame):
                frames[-1].data += frame.data
                frames[-1].flags |= frame.flags
            else:
                frames.append(frame)
        for frame in frames:
            if isinstance(frame, HeadersFrame):
                frame.fields = [  # type: ignore[attr-defined]
                    (str(name), str(value)) for name, value in self._decoder.decode(frame.data)
                ]
        return frames

    def seen(self) -> list[tuple[Any, ...]]:
        """Return what was sent since the last look, a tuple for each frame."""
        return [_tell(frame) for frame in self.frames()]


def goaway(code: int, last: int = 0) -> tuple[Any, ...]:
    """Return a GOAWAY as `seen` tells of it."""
    return ("goaway", last, code)


def _tell(frame: Any) -> tuple[Any, ...]:
    return _TELL[type(frame)](frame)


def _end(frame: Any) -> tuple[str, ...]:
    return ("end",) if "END_STREAM" in frame.flags else ()


def _tell_headers(frame: Any) -> tuple[Any, ...]:
    fields = dict(frame.fields)
    return ("headers", frame.stream_id, fields.get(":status", fields), *_end(frame))


_TELL: dict[type[Frame], Callable[[Any], tuple[Any, ...]]] = {
    HeadersFrame: _tell_headers,
    DataFrame: lambda frame: ("data", frame.stream_id, bytes(frame.data), *_end(frame)),
    RstStreamFrame: lambda frame: ("reset", frame.stream_id, frame.error_code),
    WindowUpdateFrame: lambda frame: ("window", frame.stream_id, frame.window_increment),
    GoAwayFrame: lambda frame: ("goaway", frame.last_stream_id, frame.error_code),
    PingFrame: lambda frame: ("pong" if "ACK" in frame.flags else "ping", frame.opaque_data),
    SettingsFrame: lambda frame: (
        ("ack",) if "ACK" in frame.flags else ("settings", dict(frame.settings))
    ),
}
