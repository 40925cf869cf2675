"""A stream: its priority, and what waits at it."""

from __future__ import annotations

import asyncio
import math
from collections import deque

import pytest

from daphne_supervisor.worker.head import Head
from daphne_supervisor.worker.http2_stream import DEFAULT_PRIORITY, Stream, read_priority
from tests.support.transports import on_loop, turn
from tests.support.wire import FakeRequest


def stream() -> Stream:
    """Return a stream of which nothing is known."""
    return Stream(1, Head("GET", "2"), 10, 10)


@pytest.mark.parametrize(
    ("value", "priority"),
    [
        (b"", (3, False)),
        (b"u=0", (0, False)),
        (b"u=7, i", (7, True)),
        (b"i=?1", (3, True)),
        (b"i,i=?0", (3, False)),
        (b"u=8", (3, False)),
        (b'u=-1, x="a", u=2', (2, False)),
        (b"\xff", (3, False)),
    ],
)
def test_priorities_are_read(value: bytes, priority: tuple[int, bool]) -> None:
    """What is not understood is ignored (RFC 9218 section 4)."""
    assert read_priority(value) == priority


def test_it_has_the_priority_of_its_head() -> None:
    """Who says nothing is in the middle, and shares."""
    assert (stream().urgency, stream().shares) == DEFAULT_PRIORITY
    head = Head("GET", "2")
    head.priority = (1, False)
    other = Stream(3, head, 10, 10)
    assert (other.urgency, other.shares) == (1, False)


@on_loop
async def test_who_sends_waits_for_what_waits() -> None:
    """Everybody who waits goes on when nothing is left; who has nothing waiting does not wait."""
    one = stream()
    assert not one.congested
    await one.drained()
    one.pending = deque([b"x"])
    one.stalled_at = 5.0
    assert one.congested
    waiting = [asyncio.ensure_future(one.drained()) for _ in range(2)]
    await turn()
    assert not any(each.done() for each in waiting)
    one.relieve()
    await asyncio.gather(*waiting)
    assert (one.congested, one.stalled_at) == (False, math.inf)


@on_loop
async def test_nobody_waits_behind_the_end() -> None:
    """Neither for room nor for an exchange."""
    one = stream()
    one.pending = deque([b"x"])
    one.exchange = one.call = FakeRequest(one.head, 1)
    waiting = asyncio.ensure_future(one.drained())
    await turn()
    assert not one.is_closing()
    one.finish()
    await waiting
    assert one.is_closing()
    assert (one.exchange, one.call, one.pending) == (None, None, None)


def test_the_application_hears_of_the_end() -> None:
    """If there is one."""
    one = stream()
    one.lost()
    one.exchange = request = FakeRequest(one.head, 1)
    one.lost()
    assert request.gone
