"""Counters that leak."""

from __future__ import annotations

import pytest

from daphne_supervisor.worker.http2_frames import Code, ConnectionFault
from daphne_supervisor.worker.http2_limits import WINDOW, Bucket


def fill(bucket: Bucket, count: int, now: float = 0.0) -> None:
    """Count `count` at once."""
    for _ in range(count):
        bucket.add(now)


def test_one_too_many() -> None:
    """The limit itself is let through; the fault names what and which option."""
    bucket = Bucket(10, "pings", "--most-pings")
    fill(bucket, 10)
    with pytest.raises(ConnectionFault, match="pings: more than --most-pings in 10 s") as caught:
        bucket.add(0.0)
    assert caught.value.code is Code.ENHANCE_YOUR_CALM


def test_time_empties_it() -> None:
    """Half the time makes room for half."""
    bucket = Bucket(10, "", "")
    fill(bucket, 10)
    fill(bucket, 5, WINDOW / 2)
    with pytest.raises(ConnectionFault):
        bucket.add(WINDOW / 2)
    late = Bucket(10, "", "")
    fill(late, 1)
    fill(late, 10, 1000.0)


def test_what_had_a_reason_does_not_count() -> None:
    """It is given back, though never more than was there."""
    bucket = Bucket(10, "", "")
    fill(bucket, 10)
    bucket.give_back(4)
    fill(bucket, 4)
    bucket.give_back(1000)
    fill(bucket, 10)
    with pytest.raises(ConnectionFault):
        bucket.add(0.0)


def test_no_limit() -> None:
    """0 lets everything through."""
    fill(Bucket(0, "", ""), 1000)
