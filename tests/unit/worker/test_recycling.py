"""When a worker asks to be replaced, and with which words."""

from __future__ import annotations

import math
import os
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from daphne_supervisor.config import Config, Recycling
from daphne_supervisor.values import Memory
from daphne_supervisor.worker.recycling import (
    INTERVAL,
    Limits,
    Recycler,
    Work,
    draw,
    for_process,
    granted_memory,
    memory_share,
)

MEBIBYTE = 1024 * 1024


def test_without_options_there_are_no_limits() -> None:
    """Nobody is replaced by default."""
    assert draw(Recycling(), MEBIBYTE) == Limits(math.inf, math.inf, math.inf)


@pytest.mark.parametrize(
    ("chance", "limits"),
    [
        (0.0, Limits(1000, 60, 400 * MEBIBYTE)),
        (0.5, Limits(900, 54, 360 * MEBIBYTE)),
        (1.0, Limits(800, 48, 320 * MEBIBYTE)),
    ],
)
def test_each_worker_lowers_its_limits(chance: float, limits: Limits) -> None:
    """By up to --recycle-jitter percent, so that not all are due at one time."""
    recycling = Recycling(
        max_requests=1000, max_lifetime=60, max_memory=Memory(400 * MEBIBYTE), jitter=20
    )
    assert draw(recycling, 1, lambda: chance) == limits


def test_the_chance_is_a_real_one() -> None:
    """Two workers hardly ever draw the same."""
    assert len({draw(Recycling(max_requests=1000), 1).work for _ in range(50)}) > 10


def test_a_percentage_is_of_what_one_worker_is_granted() -> None:
    """A part of the control group's limit, or of the machine's memory."""
    recycling = Recycling(max_memory=Memory(percent=80), jitter=0)
    granted = granted_memory(4, 1000 * MEBIBYTE)
    assert granted == 250 * MEBIBYTE
    assert draw(recycling, granted).memory == 200 * MEBIBYTE
    assert MEBIBYTE < granted_memory(1) <= psutil.virtual_memory().total


class Watched:
    """A recycler, its clock and its memory."""

    def __init__(self, **options: Any) -> None:
        """Be ready at the time 100."""
        recycling = Recycling(jitter=0, **options)
        self.size = 0
        self.measured = 0
        self.recycler = Recycler(recycling, draw(recycling, 1), self._measure)
        self.recycler.begin(100.0)

    def _measure(self) -> int:
        self.measured += 1
        return self.size

    def due(self, now: float, *work: int) -> str:
        """Ask at the time `now`."""
        return self.recycler.due(now, Work(*work))


def test_requests_websockets_and_messages_count() -> None:
    """The sentence names each figure, and is said once."""
    watched = Watched(max_requests=1000)
    assert watched.due(101, 800, 50, 149) == ""
    assert watched.due(102, 800, 50, 150) == (
        "--max-requests 1000, for this worker 1000: 800 requests, 50 WebSockets, 150 messages"
    )
    assert watched.due(103, 900, 50, 150) == ""


def test_a_lifetime_counts_from_being_ready() -> None:
    """However long the import took."""
    watched = Watched(max_lifetime=3600)
    assert watched.due(3699.9) == ""
    assert watched.due(3700) == "--max-lifetime 3600 s, for this worker 3600.0 s"
    assert watched.due(3800) == ""


def test_memory_has_to_be_too_much_several_times() -> None:
    """One large request is soon over; three samples in a row are a fact."""
    watched = Watched(max_memory=Memory(400 * MEBIBYTE))
    found = []
    for number, size in enumerate([500, 500, 300, 410, 420, 430, 500], start=1):
        watched.size = size * MEBIBYTE
        assert watched.due(100 + number * INTERVAL - 0.1) == ""
        found.append(watched.due(100 + number * INTERVAL))
    assert found[:5] + found[6:] == [""] * 6
    assert found[5] == (
        f"--max-memory {400 * MEBIBYTE}, for this worker 400 MiB: PSS of 410, 420, 430 MiB"
    )


def test_memory_is_measured_seldom_and_only_if_it_matters() -> None:
    """The event loop stands meanwhile."""
    idle = Watched(max_requests=5)
    watched = Watched(max_memory=Memory(MEBIBYTE))
    for moment in range(100, 100 + 5 * int(INTERVAL)):
        idle.due(moment)
        watched.due(moment)
    assert (idle.measured, watched.measured) == (0, 4)


def test_the_measure_is_pss() -> None:
    """What is shared counts in parts: more than what is our own, no more than all of it."""
    process = psutil.Process()
    full = process.memory_full_info()
    assert full.uss * 0.8 <= memory_share(process) <= full.rss * 1.2


def test_without_pss_it_is_rss() -> None:
    """Some kernels and containers do not tell."""

    def refuse() -> None:
        raise psutil.AccessDenied

    process: Any = SimpleNamespace(
        memory_full_info=refuse, memory_info=lambda: SimpleNamespace(rss=MEBIBYTE)
    )
    assert memory_share(process) == MEBIBYTE


def test_the_process_is_the_worker_s() -> None:
    """Its configuration decides, and its memory is what is measured."""
    config = Config(
        application="a:b", recycling=Recycling(max_requests=1, max_memory=Memory(1), jitter=0)
    )
    recycler = for_process(config, psutil.Process(os.getpid()))
    recycler.begin(0.0)
    for number in range(3):
        why = recycler.due(INTERVAL * (number + 1), Work())
    assert why.startswith("--max-memory 1, for this worker 0 MiB: PSS of ")
