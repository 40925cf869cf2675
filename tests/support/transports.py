"""Connections in memory: what a client sends and gets, and an application that the test plays.

The transport is Twisted's own `StringTransport`. The event loop is a real one, but nothing on it
waits for time: deadlines are passed to `expire`, and `turn` lets everybody who can go on do so.
"""

from __future__ import annotations

import asyncio
import functools
import zlib
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from daphne_supervisor.config import Config
from daphne_supervisor.scoreboard import Scoreboard
from daphne_supervisor.worker.connection import Connection
from daphne_supervisor.worker.head import Head, admit
from daphne_supervisor.worker.service import Service
from daphne_supervisor.worker.websocket import WebSocket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from daphne_supervisor.config import WebSocket as Limits
    from daphne_supervisor.worker.response import Identity

__all__ = [
    "HANDSHAKE",
    "Call",
    "Line",
    "Listener",
    "Port",
    "Records",
    "Stage",
    "Transport",
    "deflated",
    "frame",
    "handshake",
    "on_loop",
    "opened",
    "service",
    "turn",
]

#: Seconds for a whole test on an event loop. Nothing in it waits for time.
PATIENCE = 20.0
#: Turns of the loop after which nothing is left to do: the longest chain of wake-ups has four.
_TURNS = 8
#: What must not be collected before its event loop has ended its tasks.
_kept: list[Service] = []

#: A client's half of the opening handshake.
HANDSHAKE = (
    b"GET /chat?room=1 HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: soap, wamp\r\n\r\n"
)


def on_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test that is a coroutine on an event loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            asyncio.run(asyncio.wait_for(test(*args, **kwargs), PATIENCE))
        finally:
            _kept.clear()

    return run


async def turn() -> None:
    """Let everybody go on who can."""
    loop = asyncio.get_running_loop()
    for _ in range(_TURNS):
        done = loop.create_future()
        loop.call_soon(done.set_result, None)
        await done


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    last: bool = True,
    mask: bytes | None = b"\x01\x02\x03\x04",
    reserved: int = 0,
) -> bytes:
    """Return a WebSocket frame as a client sends it, written down from RFC 6455 section 5.2."""
    first = (0x80 if last else 0) | (reserved << 4) | opcode
    size = len(payload)
    masked = 0 if mask is None else 0x80
    if size < 126:
        header = bytes([first, masked | size])
    elif size < 65536:
        header = bytes([first, masked | 126]) + size.to_bytes(2)
    else:
        header = bytes([first, masked | 127]) + size.to_bytes(8)
    if mask is None:
        return header + payload
    return header + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def deflated(payload: bytes) -> bytes:
    """Return what a client makes of a message by RFC 7692 section 7.2.1."""
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4] or b"\x00"


class Transport(StringTransport):
    """Twisted's fake with the rest of what `LoopTransport` offers."""

    def __init__(self, peer: Any = None) -> None:
        """Lead to `peer`, which is what a socket says of it: by default it has some address."""
        super().__init__(lenient=True)  # type: ignore[no-untyped-call]
        self.peername = ("192.168.1.1", 54321) if peer is None else peer
        self.sockname = ("10.0.0.1", 80) if isinstance(self.peername, tuple) else "/run/socket"
        self.ssl_object: Any = None
        self.waiting = 0
        """Bytes that the client has not taken."""
        self.shut = False
        self.reset = False
        """Whether it has ended with RST rather than FIN."""

    def get_extra_info(self, name: str) -> Any:
        """Return the connection's end of TLS, of which alone it is asked."""
        assert name == "ssl_object"
        return self.ssl_object

    def unsent(self) -> int:
        """Return the bytes that wait in the write buffer."""
        return self.waiting

    def deliver(self, receive: Callable[[bytes], None]) -> None:
        """Leave it to the test to call `dataReceived`."""

    def is_closing(self) -> bool:
        """Say whether what is written goes nowhere."""
        return self.disconnecting

    def loseWriteConnection(self) -> None:  # noqa: N802
        """Note that our side is closed."""
        self.shut = True

    def resetConnection(self) -> None:  # noqa: N802
        """Note how the connection ended."""
        self.reset = True
        self.abortConnection()  # type: ignore[no-untyped-call]


class Records:
    """The access log, kept in memory."""

    def __init__(self) -> None:
        """Begin with an empty log."""
        self.lines: list[tuple[Any, ...]] = []

    def http(self, client: str, method: str, target: str, status: int, size: int) -> None:
        """Keep a request."""
        del client
        self.lines.append((method, target, status, size))

    def websocket(self, action: str, client: str, path: str) -> None:
        """Keep what has become of a WebSocket."""
        del client
        self.lines.append((action, path))


def service(
    application: Callable[..., Awaitable[None]], log: Records | None = None, **sections: Any
) -> Service:
    """Return the service of `application` on the running loop; `sections` are of the `Config`."""
    config = Config(application="tests:application", **sections)
    loop = asyncio.get_running_loop()
    _kept.append(
        Service(config, application, log, loop, scoreboard=Scoreboard(), slot=1)  # type: ignore[arg-type]
    )
    return _kept[-1]


class Call:
    """One application call: the test receives, sends, and says how it ends."""

    def __init__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Play the call."""
        self.scope = scope
        self.receive = receive
        self.send = send
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
        """Send the head of a response."""
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def body(self, body: bytes = b"", *, more: bool = False) -> None:
        """Send a piece of the response."""
        await self.send({"type": "http.response.body", "body": body, "more_body": more})

    async def returns(self) -> None:
        """Return from the application."""
        self.end.set_result(None)
        await turn()

    async def raises(self, error: BaseException) -> None:
        """Raise `error` in the application."""
        self.end.set_exception(_Wrapped(error))
        await turn()


class _Wrapped(Exception):
    """Carries what a future does not: `SystemExit` and `StopIteration` mean something to it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


class Stage:
    """An application whose calls are played by the test."""

    def __init__(self) -> None:
        """Wait for the first call."""
        self.calls: list[Call] = []

    @property
    def call(self) -> Call:
        """The latest call."""
        return self.calls[-1]

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Hand the call to the test, and end as it says."""
        call = Call(scope, receive, send)
        self.calls.append(call)
        try:
            await call.end
        except _Wrapped as wrapped:
            raise wrapped.error from None


class Line:
    """A connection in memory, from the client's end."""

    def __init__(
        self,
        served: Service,
        peer: Any = None,
        *,
        secure: bool = False,
        transport: Transport | None = None,
    ) -> None:
        """Connect to `served` from the address `peer`."""
        self.transport = transport or Transport(peer)
        served.share.enter()
        self.connection = Connection(served, "https" if secure else "http")
        self.connection.makeConnection(self.transport)

    async def send(self, data: bytes) -> None:
        """Send `data`, and let the server do what it makes of it."""
        self.connection.dataReceived(data)
        await turn()

    async def ask(self, target: bytes = b"/", method: bytes = b"GET", *lines: bytes) -> None:
        """Send a request."""
        head = b"\r\n".join([method + b" " + target + b" HTTP/1.1", b"Host: test", *lines])
        await self.send(head + b"\r\n\r\n")

    def take(self) -> bytes:
        """Return what has come since the last time."""
        data = self.sent
        self.transport.clear()  # type: ignore[no-untyped-call]
        return data

    @property
    def sent(self) -> bytes:
        """What has come and was not taken."""
        data: bytes = self.transport.value()  # type: ignore[no-untyped-call]
        return data

    def stall(self, waiting: int = 70_000) -> None:
        """Read no more: `waiting` bytes are still to be taken, which is above the high water."""
        self.transport.waiting = waiting
        self.connection.pauseProducing()

    def catch_up(self) -> None:
        """Read again."""
        self.transport.waiting = 0
        self.connection.resumeProducing()

    async def leave(self) -> None:
        """Be gone."""
        self.transport.disconnecting = True
        self.connection.connectionLost(Failure(ConnectionDone()))
        self.transport.unregisterProducer()  # type: ignore[no-untyped-call]
        await turn()

    @property
    def closed(self) -> bool:
        """Whether the server has closed in order."""
        return self.transport.disconnecting and not self.transport.disconnected

    @property
    def aborted(self) -> bool:
        """Whether the server has cut the connection."""
        return self.transport.disconnected

    @property
    def reading(self) -> bool:
        """Whether the server reads."""
        return self.transport.producerState == "producing"


class Worker:
    """How far a worker has come in leaving, as the test says."""

    def __init__(self) -> None:
        """Stay."""
        self.lingering = self.draining = self.closing_websockets = False
        self.identity: Identity = (b"", b"", b"\r\n")


class Port:
    """The port of a codec: it remembers, and its clock stands until it is moved."""

    def __init__(self) -> None:
        """Be open, at some time that is not zero."""
        self.time = 1000.0
        self.sent = b""
        self.end = ""
        """The first of "close", "abort" and "shut" that was asked for."""
        self.worker = Worker()
        self.congested = False

    def write(self, data: bytes) -> None:
        """Remember `data`."""
        assert self.end not in {"close", "abort"}, "written behind the end"
        self.sent += data

    def write_all(self, pieces: Sequence[bytes]) -> None:
        """Remember `pieces`."""
        for piece in pieces:
            self.write(piece)

    def take(self) -> bytes:
        """Return what was written since the last time."""
        data, self.sent = self.sent, b""
        return data

    def _ended(self, how: str) -> None:
        self.end = self.end or how

    def close(self) -> None:
        """Remember the end."""
        self._ended("close")

    def abort(self) -> None:
        """Remember the end."""
        self._ended("abort")

    def shut(self) -> None:
        """Remember the end of our side."""
        self._ended("shut")

    def pause_reading(self) -> None:
        """Let it be: nothing flows by itself."""

    def resume_reading(self) -> None:
        """Let it be."""

    def broken(self, error: Exception) -> None:
        """Let the test see it."""
        raise error

    def soon(self, call: Callable[[], None]) -> None:
        """Refuse: it is the exchange that lets others have their turn."""
        raise AssertionError(call)

    def now(self) -> float:
        """Return the time that was set."""
        return self.time


class Listener:
    """The exchange of a WebSocket, as its codec sees it: it remembers what it is told."""

    def __init__(self) -> None:
        """Have heard nothing."""
        self.messages: list[str | bytes] = []
        self.ends: list[tuple[int, str]] = []
        self.expired = False
        self.paused = False
        self.breathless = False
        """Whether it was asked to let others have their turn: `codec.resume()` ends that."""

    def breathe(self) -> None:
        """Hear that enough was read for now."""
        self.breathless = True

    def receive_message(self, message: str | bytes) -> None:
        """Take a message."""
        assert not self.ends, "a message behind the end"
        self.messages.append(message)

    def expire(self) -> None:
        """Hear that the application takes too long."""
        self.expired = True

    def closed(self, code: int, reason: str) -> None:
        """Hear of the end."""
        self.ends.append((code, reason))


def opened(limits: Limits, offer: bytes = b"") -> tuple[WebSocket, Port, Listener]:
    """Return a codec that has accepted its handshake, with its port and its exchange.

    The client has offered the extensions in `offer`.
    """
    port, listener = Port(), Listener()
    websocket = WebSocket(port, handshake(offer), b"", limits)
    websocket.attach(listener)
    websocket.accept(None, [])
    websocket.catch_up()
    port.take()
    return websocket, port, listener


def handshake(offer: bytes = b"") -> Head:
    """Return the head of `HANDSHAKE`, admitted, with the extensions in `offer`."""
    first, *lines = HANDSHAKE.split(b"\r\n")[:-2]
    if offer:
        lines.append(b"Sec-WebSocket-Extensions: " + offer)
    pairs = [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines)]
    return admit("GET", first.split(b" ")[1], "1.1", pairs)
