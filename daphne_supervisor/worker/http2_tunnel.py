"""A WebSocket on a stream of HTTP/2 (RFC 8441): the same codec, whose connection is the stream.

What the codec writes leaves as DATA, what it leaves unread is not given back to the window, its
close is END_STREAM, and its abort RST_STREAM. Only the handshake differs: it is a CONNECT, and its
answer an ordinary response.

This module knows neither sockets nor ASGI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from daphne_supervisor.worker.http2_frames import Code
from daphne_supervisor.worker.http2_stream import Stream
from daphne_supervisor.worker.response import HANDSHAKE
from daphne_supervisor.worker.websocket import WebSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daphne_supervisor.config import WebSocket as Limits
    from daphne_supervisor.worker.head import Head, Headers
    from daphne_supervisor.worker.waist import Port, Worker

__all__ = ["StreamWebSocket", "Tunnel"]


class Carrier(Protocol):
    """What a tunnel asks of the codec of its connection."""

    def respond(
        self, stream: int, status: int, headers: Headers, body: bytes, *, more: bool
    ) -> None:
        """Send the head and the first piece of a response."""

    def send(self, stream: int, body: bytes, *, more: bool) -> None:
        """Send a further piece."""

    def cut(self, stream: Stream, code: Code) -> None:
        """End the stream with RST_STREAM."""

    def conclude(self, stream: Stream) -> None:
        """Note that both sides of a stream have ended."""

    def give_back(self, stream: Stream, size: int) -> None:
        """Let the client send more."""


class Tunnel(Stream):
    """The stream of a WebSocket: a port for its codec."""

    tunnel = True
    socket: WebSocket | None = None
    _paused = False
    _held: list[bytes] | None = None  # what came meanwhile; the end too, if it has `ended`

    def carry(self, carrier: Carrier, port: Port) -> None:
        """Send and receive through `carrier`, whose own port is `port`."""
        self._carrier = carrier
        self._port = port

    # -- what arrives --

    def receive(self, data: bytes, *, end: bool) -> None:
        """Take what has arrived, or hold it: the window bounds how much that can be."""
        self.ended = end
        if self._paused:
            if self._held is None:
                self._held = []
            self._held.append(data)
            return
        self._carrier.give_back(self, len(data))
        socket = self.socket
        if socket is not None and data:
            socket.receive(data)
        if end:
            self._end()

    def _end(self) -> None:
        """The client has ended its side: as on a connection of its own, it has left."""
        self.lost()
        if not (self.over or self.done):
            self.close()
        elif not self.over and self.pending is None:
            self._carrier.conclude(self)

    def relieve(self) -> None:
        """Nothing waits any more: go on."""
        super().relieve()
        if self.socket is not None:
            self._port.soon(self._relieved)

    def _relieved(self) -> None:
        if self.socket is not None and not self.congested:
            self.socket.relieved()

    def lost(self) -> None:
        """The stream is gone."""
        socket, self.socket = self.socket, None
        if socket is not None:
            socket.left()
            self._port.soon(socket.part)  # it may be this codec that has just ended the stream

    def drain(self) -> None:
        """The worker is leaving. An error of ours costs the connection, not all behind it."""
        try:
            if self.socket is not None:
                self.socket.drain()
        except Exception as error:  # noqa: BLE001
            self.broken(error)

    # -- what the codec asks for --

    @property
    def worker(self) -> Worker:
        """The worker that the connection belongs to."""
        return self._port.worker

    def write(self, data: bytes) -> None:
        """Send `data`, in order."""
        if not (self.over or self.done):
            self._carrier.send(self.id, data, more=True)

    def write_all(self, pieces: Sequence[bytes]) -> None:
        """Send `pieces` in order."""
        for piece in pieces:
            self.write(piece)

    def pause_reading(self) -> None:
        """Stop the flow of received bytes."""
        self._paused = True

    def resume_reading(self) -> None:
        """Let received bytes flow again."""
        self._paused = False
        if self._held is not None:
            self._port.soon(self._go_on)

    def _go_on(self) -> None:
        if self._paused or self.over or self._held is None:
            return
        held, self._held = b"".join(self._held), None
        self.receive(held, end=self.ended)

    def close(self) -> None:
        """End our side once everything is sent."""
        if not (self.over or self.done):
            if self.begun:
                self._carrier.send(self.id, b"", more=False)
            else:
                self._carrier.cut(self, Code.CANCEL)

    def shut(self) -> None:
        """End our side once everything is sent; go on reading."""
        self.close()

    def abort(self) -> None:
        """End the stream at once."""
        if not self.over:
            self._carrier.cut(self, Code.CANCEL)

    def broken(self, error: Exception) -> None:
        """Log an error of ours, which costs the connection."""
        self._port.broken(error)

    def soon(self, call: Callable[[], None]) -> None:
        """Do `call` when everybody else has had a turn."""
        self._port.soon(call)

    def now(self) -> float:
        """Return the monotonic time in seconds."""
        return self._port.now()

    # -- the answer to the handshake --

    def answer(self, status: int, headers: Headers, body: bytes, *, more: bool) -> None:
        """Send the response to the CONNECT. Raises `ValueError` when it cannot be sent."""
        self._carrier.respond(self.id, status, headers, body, more=more)

    def answer_further(self, body: bytes, *, more: bool) -> None:
        """Send a further piece of it. Raises `ValueError` if it is too much."""
        self._carrier.send(self.id, body, more=more)


class StreamWebSocket(WebSocket):
    """The codec of a WebSocket on a stream."""

    __slots__ = ("_tunnel",)

    def __init__(self, tunnel: Tunnel, head: Head, limits: Limits) -> None:
        """Answer the handshake `head` through `tunnel`."""
        super().__init__(tunnel, head, b"", limits)
        self._tunnel = tunnel

    def _switch(self, lines: Headers, headers: Sequence[Any]) -> None:
        """Accept: 200, without the proof that an upgrade would need (RFC 8441 section 5)."""
        rest = []
        for line in headers:
            known = isinstance(line, list | tuple) and line and isinstance(line[0], bytes)
            name = line[0].lower() if known else b""
            if name in HANDSHAKE:
                message = f"header {line[0]!r} of the handshake is the server's to set"
                raise ValueError(message)
            if name != b"content-length":  # there is no body: it would bind the messages
                rest.append(line)
        self._tunnel.answer(200, [*lines, *rest], b"", more=True)

    def _proof(self) -> Headers:
        return []

    def _start_denial(self, status: int, headers: Headers, body: bytes, *, more: bool) -> None:
        self._tunnel.answer(status, headers, body, more=more)
        self._denying(more=more)

    def deny_further(self, body: bytes, *, more: bool) -> None:
        """Send a further piece of the response. Raises `ValueError` if it is too much."""
        self._tunnel.answer_further(body, more=more)
        if not more:
            self._over()
