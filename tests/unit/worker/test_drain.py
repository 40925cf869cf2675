"""How a worker leaves, phase by phase, with connections in memory."""

from __future__ import annotations

import asyncio
import logging
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection

from daphne_supervisor.config import Drain
from daphne_supervisor.worker.drain import Departure, spread, websocket_time
from daphne_supervisor.worker.http1 import DRAIN_IDLE
from tests.support.transports import HANDSHAKE, Line, Stage, on_loop, service, turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from daphne_supervisor.worker.service import Service

RESTART = b"\x88\x11\x03\xf4service restart"


class Door:
    """An acceptor at whose listener `waiting` connections wait."""

    def __init__(self, waiting: int = 0) -> None:
        """Be open."""
        self.waiting = waiting
        self.opening = 0
        self.closed = False

    def close(self, *, last_call: bool) -> None:
        """Accept who waits, at the last call; their TLS handshakes are not over."""
        self.opening += self.waiting if last_call else 0
        self.closed = True


class Scene:
    """A worker in memory, and its drain."""

    def __init__(self, *doors: Door, **limits: Any) -> None:
        """Leave within the `limits`."""
        self.stage = Stage()
        self.service: Service = service(self.stage, drain=Drain(**limits))
        acceptors: Any = doors
        self.departure = Departure(3, self.service, acceptors)
        self.lines: list[Line] = []

    async def http(self, *, begun: bool = False) -> Line:
        """Connect and ask; the response may have begun."""
        line = Line(self.service)
        await line.ask(b"/%d" % len(self.lines))
        self.lines.append(line)
        if begun:
            await self.stage.call.start()
            await self.stage.call.body(b"x", more=True)
        return line

    async def websocket(self, *, accepted: bool = True) -> Line:
        """Connect and open a WebSocket."""
        line = Line(self.service)
        await line.send(HANDSHAKE)
        self.lines.append(line)
        if accepted:
            await self.stage.call.send({"type": "websocket.accept"})
            line.take()
        return line

    def leave(self, *, last_call: bool = True) -> asyncio.Task[None]:
        """Begin to leave."""
        self.departure.begin(last_call=last_call)
        return asyncio.ensure_future(self.departure.finish())

    async def over(self, line: Line) -> None:
        """Let the client of `line` leave, and its application return."""
        await line.leave()
        await self.stage.calls[self.lines.index(line)].returns()


async def until(wanted: Callable[[], bool]) -> None:
    """Let the loop turn until it is as `wanted`; the time of the whole test is bounded."""
    while not wanted():
        await turn()


class Clock:
    """The time of the running loop, which stands still: however slow the machine is."""

    def __init__(self) -> None:
        """Stop the time."""
        self._loop: Any = asyncio.get_running_loop()
        self._real = self._loop.time
        self._now = self._real()
        self._loop.time = lambda: self._now

    async def wait(self, seconds: float) -> None:
        """Let so much time pass at once."""
        self._now += seconds
        await turn()

    def go_on(self) -> None:
        """Let the time pass by itself again, from where it stands."""
        ahead = self._now - self._real()
        self._loop.time = lambda: self._real() + ahead


@pytest.fixture(autouse=True)
def _verbose(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "daphne_supervisor.worker")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines of the log."""
    return [record.getMessage() for record in caplog.records]


# -- how WebSockets are spread --


@pytest.mark.parametrize(
    ("count", "limits", "seconds"),
    [
        (500, Drain(), 10.0),
        (30, Drain(), 3.0),
        (1, Drain(), 0.1),
        (500, Drain(websocket_time=2), 2.0),
        (500, Drain(websocket_time=0), 0.0),
        (500, Drain(graceful_timeout=5), 4.5),
        (500, Drain(graceful_timeout=60, websocket_time=100), 50.0),
        (5000, Drain(graceful_timeout=60, websocket_time=100), 59.0),
        (500, Drain(graceful_timeout=0), 0.0),
    ],
)
def test_the_time_for_websockets(count: int, limits: Drain, seconds: float) -> None:
    """As long as --ws-drain-time, but few are closed faster, and all of them before the end."""
    assert websocket_time(count, limits) == pytest.approx(seconds)


@pytest.mark.parametrize(("count", "seconds"), [(500, 10.0), (7, 0.7), (1, 0.1), (5, 0.0)])
def test_websockets_are_spread_evenly(count: int, seconds: float) -> None:
    """No part of the time holds more than its share and one, wherever it begins."""
    moments = spread(count, seconds)
    part = seconds / count
    assert len(moments) == count
    for place, moment in enumerate(moments):
        assert place * part <= moment <= (place + 1) * part
    assert all(second - first <= 2 * part for first, second in pairwise(moments))


def test_no_two_workers_beat_in_time() -> None:
    """Where in its part each moment lies is chance."""
    assert len({spread(1, 10.0)[0] for _ in range(20)}) > 10


# -- the phases --


@on_loop
async def test_nobody_to_wait_for_is_nothing_to_say(caplog: pytest.LogCaptureFixture) -> None:
    """An idle worker has left at once, with its listeners closed."""
    door = Door()
    scene = Scene(door)
    await scene.leave()
    assert (door.closed, said(caplog)) == (True, [])
    assert scene.service.draining
    assert scene.service.lingering


@on_loop
async def test_who_waits_at_the_listeners_is_accepted(caplog: pytest.LogCaptureFixture) -> None:
    """And waited for: a handshake may take a while."""
    first, second = Door(2), Door(1)
    scene = Scene(first, second)
    leaving = scene.leave()
    await turn()
    assert not leaving.done()
    first.opening = second.opening = 0
    await leaving
    assert said(caplog) == [
        "worker 3: listeners closed; connections that waited there and were accepted: 3"
    ]


@on_loop
async def test_who_waits_is_left_to_the_siblings(caplog: pytest.LogCaptureFixture) -> None:
    """While the service goes on there is somebody else to take them."""
    await Scene(Door(2)).leave(last_call=False)
    assert said(caplog) == []


@on_loop
async def test_http_is_finished(caplog: pytest.LogCaptureFixture) -> None:
    """A request is answered, its connection closed; an idle connection has a moment."""
    scene = Scene()
    busy, idle = await scene.http(), Line(scene.service)
    leaving = scene.leave()
    assert idle.connection.deadline <= scene.service.now() + DRAIN_IDLE
    await idle.leave()
    await scene.stage.call.start()
    await scene.stage.call.body(b"done")
    assert b"Connection: close" in busy.take()
    assert busy.closed
    assert not leaving.done()
    await scene.over(busy)
    await leaving
    assert said(caplog) == [
        (
            "worker 3: HTTP connections: 2, with requests in progress: 1; they have 25 s"
            " (--graceful-timeout)"
        )
    ]


@on_loop
async def test_websockets_are_closed_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    """With 1012, over the time that is due to so many; one that is gone already is no matter."""
    scene = Scene()
    lines = [await scene.websocket() for _ in range(4)]
    begun = scene.service.now()
    leaving = scene.leave()
    await turn()
    await scene.over(lines[0])
    for line in lines[1:]:
        await until(lambda line=line: RESTART in line.sent)  # type: ignore[misc]
    assert 0.1 < scene.service.now() - begun < 5
    for line in lines[1:]:
        await scene.over(line)
    await leaving
    assert said(caplog) == [
        "worker 3: WebSockets that are closed with 1012: 4, over 0.4 s (--ws-drain-time)"
    ]


@on_loop
async def test_a_handshake_that_is_answered_late_is_closed_at_once() -> None:
    """Nobody will come back to it when the others are closed."""
    scene = Scene()
    line = await scene.websocket(accepted=False)
    leaving = scene.leave()
    await turn()
    await scene.stage.call.send({"type": "websocket.accept"})
    assert RESTART in line.take()
    await scene.over(line)
    await leaving


class Ordered(list[Any]):
    """The connections of a service, in order."""

    def discard(self, connection: object) -> None:
        """Remove one, as from a set."""
        self.remove(connection)


@on_loop
async def test_websockets_on_streams_are_closed_too(caplog: pytest.LogCaptureFixture) -> None:
    """Each of them; the connection hears GOAWAY, and ends with the last."""
    scene, client = Scene(), H2Connection(H2Configuration(client_side=True))
    line = Line(scene.service, ("127.0.0.1", 1))
    client.initiate_connection()
    fields = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http")]
    fields += [(":authority", "a"), (":path", "/"), ("sec-websocket-version", "13")]
    for number in (1, 3):
        client.send_headers(number, fields)
        await line.send(client.data_to_send())
        await scene.stage.call.send({"type": "websocket.accept"})
        line.take()
        client.clear_outbound_data_buffer()
    leaving = scene.leave()
    await until(lambda: line.sent.count(RESTART) == 2)
    assert b"\0\0\x08\7\0\0\0\0\0\x7f\xff\xff\xff" in line.sent
    await line.leave()
    for call in scene.stage.calls:
        await call.returns()
    await leaving
    assert "WebSockets that are closed with 1012: 2, over 0.2 s" in "".join(said(caplog))


@on_loop
async def test_the_order_of_websockets_is_chance() -> None:
    """Those of one client, opened one after the other, do not come back one after the other."""
    scene = Scene(websocket_time=0.0)
    lines = [await scene.websocket() for _ in range(40)]
    scene.service.connections = Ordered(line.connection for line in lines)  # type: ignore[assignment]
    closed: list[int] = []
    for number, line in enumerate(lines):
        line.connection.drain = lambda number=number: closed.append(number)  # type: ignore[method-assign, misc]
    leaving = scene.leave()
    await until(lambda: len(closed) == 40)
    assert closed != sorted(closed)
    for line in lines:
        await scene.over(line)
    await leaving


@on_loop
async def test_websockets_may_stay_until_the_end_is_near(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """--ws-drain wait: also one whose application answers meanwhile."""
    clock = Clock()
    scene = Scene(websockets="wait", graceful_timeout=1.0, websocket_time=0.1)
    late, early = await scene.websocket(accepted=False), await scene.websocket()
    leaving = scene.leave()
    await turn()
    await scene.stage.calls[0].send({"type": "websocket.accept"})
    assert late.take().startswith(b"HTTP/1.1 101 ")
    assert early.take() == b""
    await clock.wait(0.79)
    assert RESTART not in late.sent
    assert RESTART not in early.sent
    await clock.wait(0.02)
    await clock.wait(0.1)
    assert RESTART in late.sent
    assert RESTART in early.sent
    for line in (late, early):
        await scene.over(line)
    clock.go_on()
    await leaving
    assert said(caplog) == [
        "worker 3: WebSockets that may stay: 2, for 0.8 s (--ws-drain wait)",
        "worker 3: WebSockets that are closed with 1012: 2, over 0.1 s (--ws-drain-time)",
    ]


@on_loop
async def test_nobody_waits_for_websockets_that_are_gone() -> None:
    """Nor, if there are none, for the time at which they would be closed."""
    before = asyncio.all_tasks()
    scene = Scene(websockets="wait")
    line = await scene.websocket()
    leaving = scene.leave()
    await turn()
    await scene.over(line)
    await leaving
    await turn()
    assert line.take() == b""
    assert not scene.service.closing_websockets
    assert asyncio.all_tasks() == before


@on_loop
async def test_streams_are_told_before_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """From --disconnect-delay on, once: those that are being sent, and may go on."""
    scene = Scene(disconnect_delay=0.0)
    stream = await scene.http(begun=True)
    thinking = await scene.http()
    leaving = scene.leave()
    call, other = scene.stage.calls
    assert (await call.receive())["type"] == "http.request"
    assert (await call.receive())["type"] == "http.disconnect"
    await call.body(b"bye")
    assert b"bye" in stream.take()
    assert (await other.receive())["type"] == "http.request"
    for line in (stream, thinking):
        await scene.over(line)
    await leaving
    assert said(caplog)[1:] == [
        (
            "worker 3: responses in progress whose application hears http.disconnect: 1"
            " (--disconnect-delay 0)"
        )
    ]


@on_loop
async def test_by_default_streams_are_told_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """The log names what is cut off; an application that heeds the disconnect is not cancelled."""
    scene = Scene(graceful_timeout=0.1)
    line = await scene.http(begun=True)
    leaving = scene.leave()
    heard = asyncio.ensure_future(_disconnected(scene))
    await until(heard.done)
    assert not line.aborted
    await scene.over(line)
    await leaving
    assert said(caplog)[1:] == [
        (
            "worker 3: --graceful-timeout of 0.1 s is over; cut off: 1 connections, 1 application"
            " calls (GET /0)"
        )
    ]


async def _disconnected(scene: Scene) -> None:
    while (await scene.stage.call.receive())["type"] != "http.disconnect":
        pass


@on_loop
async def test_who_does_not_heed_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """And cut off, a second later; many are not all named."""
    scene = Scene(graceful_timeout=0.1)
    lines = [await scene.http() for _ in range(7)]
    begun = scene.service.now()
    leaving = scene.leave()
    await until(lambda: all(line.aborted for line in lines))
    assert 1.0 < scene.service.now() - begun < 3.0
    await turn()
    assert scene.service.exchanges == set()
    for line in lines:
        await line.leave()
    await leaving
    assert "cut off: 7 connections, 7 application calls (GET /" in said(caplog)[-1]
    assert said(caplog)[-1].endswith(", ...)")


@on_loop
async def test_what_cannot_be_cancelled_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    """The end comes all the same; a connection without a call is counted."""
    scene = Scene(graceful_timeout=0.0)
    line = Line(scene.service)
    await scene.leave()
    assert line.aborted
    assert said(caplog)[-1].endswith("cut off: 1 connections, 0 application calls ")
