"""WebSockets of a worker that leaves: told, in turn, and taken up by those who stay."""

from __future__ import annotations

import asyncio
import os
import signal
from bisect import bisect
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.client import get
from tests.support.daphne import Daphne, survivors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

APPLICATION = "tests.integration.drain_app:application"
PATIENCE = 40.0
SLICE = 0.1


@dataclass
class Ending:
    """How one WebSocket ended: whose it was, when, with which code, and who took its client."""

    worker: int
    moment: float
    code: int
    successor: int = 0


async def _open(port: int, count: int) -> list[tuple[ClientConnection, int]]:
    """Open `count` WebSockets; return each with the process id of its worker."""
    gate = asyncio.Semaphore(50)

    async def one() -> tuple[ClientConnection, int]:
        async with gate:
            websocket = await _connect(port)
            return websocket, int(await websocket.recv())

    return await asyncio.gather(*(one() for _ in range(count)))


def _connect(port: int) -> connect:
    return connect(
        f"ws://127.0.0.1:{port}/", ping_interval=None, compression=None, open_timeout=PATIENCE
    )


async def _end_of(websocket: ClientConnection, worker: int) -> Ending:
    try:
        await websocket.recv()
    except ConnectionClosed as closed:
        moment = asyncio.get_running_loop().time()
        return Ending(worker, moment, closed.rcvd.code if closed.rcvd else 1006)
    message = "a message, not the end"
    raise AssertionError(message)


async def _ending(port: int, websocket: ClientConnection, worker: int, *, returns: bool) -> Ending:
    """Return how `websocket` has ended, and who serves its client if it `returns`, at once."""
    ending = await _end_of(websocket, worker)
    if not returns:
        return ending
    async with _connect(port) as again:
        ending.successor = int(await again.recv())
    return ending


class Metronome:
    """Notes when this process was awake: what happened while it was not, it cannot tell apart.

    And how long workers, and this process, were ready to run and had no processor: what they make
    up for afterwards.
    """

    def __init__(self, workers: Collection[int]) -> None:
        """Beat five times a slice, and look after these processes."""
        self._loop = asyncio.get_running_loop()
        self._beats: list[float] = []
        self._delays: dict[int, list[float]] = {pid: [] for pid in (os.getpid(), *workers)}
        self._beat()

    def _beat(self) -> None:
        self._beats.append(self._loop.time())
        for pid, delays in self._delays.items():
            delays.append(_delay(pid) or delays[-1])  # nothing any more, when it has left
        self._loop.call_later(SLICE / 5, self._beat)

    def delay(self, worker: int, begin: float, end: float) -> float:
        """Return for how long between `begin` and `end` a worker or we had no processor (s)."""
        first = max(bisect(self._beats, begin) - 1, 0)
        last = min(bisect(self._beats, end), len(self._beats) - 1)
        both = (self._delays[worker], self._delays[os.getpid()])
        return sum(delays[last] - delays[first] for delays in both)

    def awake(self, begin: float, end: float) -> bool:
        """Say whether no beat was late between `begin` and `end`."""
        near = [beat for beat in self._beats if begin - SLICE < beat < end + SLICE]
        return all(second - first < SLICE / 2 for first, second in pairwise(near))


def _delay(pid: int) -> float:
    """Return how long the process was ready to run and did not (s), by the kernel's account."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


async def _drained(
    port: int, count: int, begin: Callable[[], None]
) -> tuple[list[Ending], Metronome]:
    """Open `count` WebSockets, call `begin`, and return how they have ended."""
    opened = await _open(port, count)
    metronome = Metronome({worker for _, worker in opened})
    begin()
    # Not all come back: they would keep this process from seeing the others' ends in time.
    waiting = [
        _ending(port, websocket, worker, returns=number % 10 == 0)
        for number, (websocket, worker) in enumerate(opened)
    ]
    return list(await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)), metronome


@pytest.mark.timeout(120)
def test_a_reload_closes_websockets_evenly_and_loses_none() -> None:
    """500 of them: all hear 1012, spread over --ws-drain-time, and come back to new workers.

    No tenth of a second holds more than twice its share of a worker's, beside what the worker makes
    up for since it had no processor.
    """
    seconds = 5.0
    options = ["--workers", "2", "--ws-drain-time", str(seconds), "--access-log", "/dev/null"]
    with Daphne(APPLICATION, *options) as server:
        old = server.workers()
        endings, metronome = asyncio.run(
            _drained(server.port, 500, lambda: server.signal(signal.SIGHUP))
        )
        server.wait(lambda said: "READY=1" in said.splitlines())
        assert survivors(old, PATIENCE) == []
    assert Counter(ending.code for ending in endings) == {1012: 500}
    before = {process.pid for process in old}
    assert {ending.worker for ending in endings} == before
    assert not {ending.successor for ending in endings} & before
    by_worker: defaultdict[int, list[float]] = defaultdict(list)
    for ending in endings:
        by_worker[ending.worker].append(ending.moment)
    for worker, moments in by_worker.items():
        first, last = min(moments), max(moments)
        assert seconds * 0.9 < last - first < seconds + 1
        slices = Counter(int((moment - first) / SLICE) for moment in moments)
        share = len(moments) * SLICE / seconds
        seen = {
            place: count
            for place, count in slices.items()
            if metronome.awake(first + place * SLICE, first + (place + 1) * SLICE)
        }
        assert len(seen) > len(slices) / 2
        for place, count in seen.items():
            begin = first + place * SLICE
            late = metronome.delay(worker, begin - SLICE, begin + SLICE)
            assert count <= share * (2 + late / SLICE), (count, share, late)


def test_a_few_websockets_are_closed_soon() -> None:
    """Nobody waits ten seconds for three of them."""

    async def play(server: Daphne) -> float:
        opened = await _open(server.port, 3)
        begun = asyncio.get_running_loop().time()
        server.signal(signal.SIGTERM)
        endings = await asyncio.gather(*(_end_of(*one) for one in opened))
        assert [ending.code for ending in endings] == [1012] * 3
        return max(ending.moment for ending in endings) - begun

    with Daphne(APPLICATION, "--workers", "1") as server:
        assert asyncio.run(play(server)) < 5
        assert server.wait_exit() == 0
    assert "worker 1: WebSockets that are closed with 1012: 3, over 0.3 s (--ws-drain-time)" in (
        server.final_log
    )


def test_websockets_may_stay_to_the_end() -> None:
    """--ws-drain wait: they work until --graceful-timeout is about to end, then hear 1012."""

    async def play(server: Daphne) -> float:
        ((websocket, worker),) = await _open(server.port, 1)
        begun = asyncio.get_running_loop().time()
        server.signal(signal.SIGTERM)
        await asyncio.to_thread(server.wait, lambda said: "STOPPING=1" in said.splitlines())
        await websocket.send("still there")
        assert await websocket.recv() == "still there"
        ending = await _end_of(websocket, worker)
        assert ending.code == 1012
        return ending.moment - begun

    options = ["--workers", "1", "--ws-drain", "wait", "--graceful-timeout", "3"]
    with Daphne(APPLICATION, *options) as server:
        assert asyncio.run(play(server)) > 2.4  # and who is cut off at 3 s hears no 1012
        assert server.wait_exit() == 0
    assert "worker 1: WebSockets that may stay: 1, for 2.6 s (--ws-drain wait)" in server.final_log


def test_a_worker_does_not_wait_for_websockets_that_leave_by_themselves() -> None:
    """With --ws-drain wait it is gone as soon as they are."""

    async def play(server: Daphne) -> None:
        ((websocket, _),) = await _open(server.port, 1)
        server.signal(signal.SIGTERM)
        await asyncio.to_thread(server.wait, lambda said: "STOPPING=1" in said.splitlines())
        await websocket.close()

    options = ["--workers", "1", "--ws-drain", "wait", "--graceful-timeout", "60"]
    with Daphne(APPLICATION, *options) as server:
        assert get(server.port, "/").status == 200
        asyncio.run(play(server))
        assert server.wait_exit(10) == 0
