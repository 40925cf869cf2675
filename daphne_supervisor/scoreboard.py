"""How many connections each worker has: a page of memory that all workers share.

The master makes it before the first fork, every worker writes its own slot and reads the others',
and the master wipes the slot of a worker that has died. A worker that does not accept (because it
starts, drains or is full) is no part of the pool's mean.

One more number is the master's: whether the listeners are closed for good. Then nobody is left to
take those who wait in their queues but the workers that leave.

Each slot is one aligned 32-bit integer, written by one process at a time, so no lock is needed: a
reader sees the old number or the new one. The number of the highest slot is the exception: of two
workers that raise it at once, one may have to raise it again, with the next connection it posts.
"""

from __future__ import annotations

import mmap
from struct import Struct

__all__ = ["CAPACITY", "IDLE", "Scoreboard", "mean"]

CAPACITY = 1024
"""Slots: more workers than any machine runs. Who has a higher one looks, and is not seen."""

IDLE = -1
"""What stands in the slot of a worker that does not accept."""

_HIGHEST = 0
"""Position of the highest slot that was ever used; slots themselves count from 1."""

_LAST_CALL = CAPACITY + 1
"""Position of the master's number."""


def mean(counts: tuple[int, ...]) -> float:
    """Return the mean of the `counts` of those who accept, 0 if there are none."""
    idle = counts.count(IDLE)
    accepting = len(counts) - idle
    return (sum(counts) - idle * IDLE) / accepting if accepting else 0.0


class Scoreboard:
    """The connections of every slot; -1 where nobody accepts."""

    def __init__(self) -> None:
        """Make the shared page; to be called before the first fork."""
        self._page = mmap.mmap(-1, 4 * (CAPACITY + 2))
        self._numbers = memoryview(self._page).cast("i")
        for position in range(1, CAPACITY + 1):
            self._numbers[position] = IDLE
        self._used = Struct("")

    def post(self, slot: int, connections: int) -> None:
        """Say that the worker in `slot` accepts and has so many connections; or that it is idle."""
        numbers = self._numbers
        if slot > CAPACITY:
            return
        numbers[slot] = connections
        if numbers[_HIGHEST] < slot:  # noqa: PLR1730 - most never write here, and share the line
            numbers[_HIGHEST] = slot

    def leave(self, slot: int) -> None:
        """Say that nobody accepts in `slot`."""
        if slot <= CAPACITY:
            self._numbers[slot] = IDLE

    def close(self) -> None:
        """Say that the listeners are closed for good."""
        self._numbers[_LAST_CALL] = 1

    @property
    def closed(self) -> bool:
        """Whether the listeners are closed for good."""
        return bool(self._numbers[_LAST_CALL])

    def counts(self) -> tuple[int, ...]:
        """Return the connections of each slot that was ever used, -1 where nobody accepts."""
        size = 4 * self._numbers[_HIGHEST]
        if self._used.size != size:
            self._used = Struct(f"{size // 4}i")
        return self._used.unpack_from(self._page, 4)
