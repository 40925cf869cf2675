"""Whether something that arrives in pieces arrives fast enough."""

from __future__ import annotations

import math

import pytest

from daphne_supervisor.worker.pace import GRACE, Pace


def test_nothing_is_due_before_it_is_watched() -> None:
    """A pace that nobody measures has nothing to say, and so has one without a rate."""
    assert Pace(100).due == math.inf
    pace = Pace(0)
    pace.watch(0, 1000.0)
    assert pace.due == math.inf


@pytest.mark.parametrize(
    ("received", "slow"), [(0, True), (499, True), (500, False), (9999, False)]
)
def test_the_rate_is_bytes_a_second(received: int, *, slow: bool) -> None:
    """Over the grace; exactly the rate is enough."""
    pace = Pace(100)
    pace.watch(0, 1000.0)
    assert pace.due == 1000 + GRACE == 1005
    assert pace.slow(received, pace.due) is slow


def test_it_is_measured_since_it_was_watched() -> None:
    """What came before does not count, neither bytes nor seconds."""
    pace = Pace(100)
    pace.watch(0, 1000.0)
    pace.watch(7000, 1003.0)
    assert pace.due == 1003 + GRACE
    assert pace.slow(7499, 1008.0)
    assert not pace.slow(7500, 1008.0)


def test_who_looks_late_asks_for_more() -> None:
    """The rate holds for the seconds that have passed, not for those that were meant to."""
    pace = Pace(100)
    pace.watch(0, 1000.0)
    assert pace.slow(999, 1010.0)
    assert not pace.slow(1000, 1010.0)
