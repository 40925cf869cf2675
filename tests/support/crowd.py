"""Many WebSockets that stay: they talk now and then, and come back when they are told to.

All of them live in one thread with an event loop of its own. Nothing is repaired silently: how each
connection has ended, and each handshake that came to nothing, is on record.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.support.client import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ABNORMAL", "Crowd", "Ending", "Failure"]

ABNORMAL = 1006
"""The connection has ended without a close frame (RFC 6455, 7.1.5)."""

_PAUSE = 1.0
"""Seconds between two messages."""
_ENOUGH = 100
"""Failed handshakes after which a seat stays empty: what they show is shown."""


@dataclass(frozen=True)
class Ending:
    """How a WebSocket has ended that was open."""

    code: int
    server: int
    """The process id of the worker."""
    port: int
    """The client's end of the connection."""
    begun: float
    """When the connection was begun (monotonic seconds)."""
    ended: float
    """When its end was noticed."""


@dataclass(frozen=True)
class Failure:
    """A handshake that came to nothing."""

    why: str
    port: int
    begun: float


@dataclass
class _Seat:
    """Where one WebSocket after the other sits."""

    server: int = 0  # that it is connected to, 0 for none
    failures: int = 0


class Crowd:
    """So many WebSockets while the `with` block runs; afterwards, what became of them."""

    def __init__(self, port: int, count: int) -> None:
        """Connect `count` times to `port`, where every message is answered by a process id."""
        self._port = port
        self._seats = [_Seat() for _ in range(count)]
        self._change = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._everyone: asyncio.Task[None] | None = None
        self.endings: list[Ending] = []
        self.failures: list[Failure] = []

    def __enter__(self) -> Self:
        """Start, and wait until all are connected."""
        self._thread.start()
        try:
            self.wait_seated()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Let everybody leave in order."""
        self._stop()

    def _stop(self) -> None:
        if self._everyone is not None:
            self._loop.call_soon_threadsafe(self._everyone.cancel)
        self._thread.join(2 * PATIENCE)

    @property
    def servers(self) -> Counter[int]:
        """How many are connected to which worker."""
        return Counter(seat.server for seat in self._seats if seat.server)

    def wait_seated(self, servers: Iterable[int] = ()) -> None:
        """Wait until everybody is connected, to one of `servers` if there are any."""
        wanted = set(servers)
        with self._change:
            done = self._change.wait_for(
                lambda: all(self._settled(seat, wanted) for seat in self._seats), 3 * PATIENCE
            )
        assert done, f"{self.servers.total()} of {len(self._seats)} are connected: {self.servers}"

    def _settled(self, seat: _Seat, wanted: set[int]) -> bool:
        return seat.server in wanted if wanted else seat.server != 0

    # -- in the thread --

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._everybody())

    async def _everybody(self) -> None:
        """Let them come and go until this task is cancelled; then wait until all have left."""
        self._everyone = asyncio.current_task()
        with contextlib.suppress(asyncio.CancelledError):
            async with asyncio.TaskGroup() as group:
                for seat in self._seats:
                    group.create_task(self._stay(seat))

    async def _stay(self, seat: _Seat) -> None:
        while seat.failures < _ENOUGH:
            await self._visit(seat)

    async def _visit(self, seat: _Seat) -> None:
        """Open one WebSocket, and talk until it ends."""
        begun, port = time.monotonic(), 0
        client = socket.socket()
        try:
            client.setblocking(False)
            await self._loop.sock_connect(client, ("127.0.0.1", self._port))
            port = client.getsockname()[1]
            websocket = await connect(
                "ws://test/",
                sock=client,
                open_timeout=2 * PATIENCE,
                close_timeout=PATIENCE,
                ping_interval=None,
                compression=None,
                proxy=None,
            )
        except (OSError, EOFError, InvalidHandshake) as error:
            client.close()
            seat.failures += 1
            self.failures.append(Failure(repr(error), port, begun))
            return
        try:
            code = await self._talk(seat, websocket)
            self.endings.append(Ending(code, seat.server, port, begun, time.monotonic()))
            self._sit(seat, 0)
        finally:
            await websocket.close()

    async def _talk(self, seat: _Seat, websocket: ClientConnection) -> int:
        """Say something now and then; return the code that the server has closed with."""
        try:
            while True:
                try:
                    async with asyncio.timeout(_PAUSE):
                        self._sit(seat, int(await websocket.recv()))
                except TimeoutError:
                    await websocket.send("still there")
        except ConnectionClosed as closed:
            return ABNORMAL if closed.rcvd is None else closed.rcvd.code

    def _sit(self, seat: _Seat, server: int) -> None:
        with self._change:
            seat.server = server
            self._change.notify_all()
