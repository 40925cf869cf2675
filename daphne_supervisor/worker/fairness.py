"""How the workers of a pool come to equal numbers of connections, without anybody in between.

Theory. All workers are woken for a connection, and whoever comes first gets it: the same few, again
and again. So a worker that has more than its *share*, which is the pool's mean and one more, steps
back for a moment; those who have less take the connection meanwhile. That costs nobody anything
while they do. A connection that still waits afterwards, while not one of them has moved, means that
they hang, or compute: then this worker may be ahead of the mean by twice as much, and twice as much
again, until it takes what waits. It falls back to its share as soon as one of them is seen to move.
The more it would get ahead, the longer it steps back: on a machine with more to do than processors
a sibling that lives may not move for many milliseconds.

Pure: what happens when is up to the acceptor.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from daphne_supervisor.scoreboard import CAPACITY, IDLE, mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from daphne_supervisor.scoreboard import Scoreboard

__all__ = ["LONGEST_STEP_BACK", "STEP_BACK", "Share", "Turns"]

#: Seconds to step back: the siblings are woken at the same time as we are, and need a fraction of
#: it; a client does not notice it. For each connection that we may be ahead, so many; but never
#: longer than a busy scheduler needs to let everybody run once.
STEP_BACK, LONGEST_STEP_BACK = 0.002, 0.016
#: Connections above the mean that nobody minds: without it the worker that has one more than the
#: others would already step back.
_LEAD = 1


class Share:
    """The connections of this worker, beside those of its siblings.

    `connections` are the accepted ones, open or in their TLS handshake; at `most` of them the
    worker is full, 0 being no limit. What `when_there_is_room` was asked to call is called once,
    when a connection has ended.
    """

    def __init__(self, scoreboard: Scoreboard, slot: int, most: int) -> None:
        """Count for `slot` of the `scoreboard`."""
        self._scoreboard = scoreboard
        self._slot = slot
        self._most = most or sys.maxsize
        self._accepting = False
        self._waiting: list[Callable[[], None]] = []
        self.connections = 0

    @property
    def full(self) -> bool:
        """Say whether no more connections are to be accepted."""
        return self.connections >= self._most

    def join(self) -> None:
        """Be one of those who accept."""
        self._accepting = True
        self._post()

    def leave(self) -> None:
        """Accept no more: what this worker has is no measure for the others."""
        self._accepting = False
        self._scoreboard.leave(self._slot)

    def enter(self) -> None:
        """Count a connection that was accepted."""
        self.connections += 1
        self._post()

    def exit(self) -> None:
        """Count a connection no more."""
        self.connections -= 1
        self._post()
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for resume in waiting:
                resume()

    def when_there_is_room(self, resume: Callable[[], None]) -> None:
        """Call `resume` when a connection has ended."""
        self._waiting.append(resume)

    def _post(self) -> None:
        if self._accepting:
            connections = self.connections
            self._scoreboard.post(self._slot, connections if connections < self._most else IDLE)

    @property
    def alone(self) -> bool:
        """Say whether nobody else accepts."""
        counts = self.siblings()
        return counts.count(IDLE) == len(counts) - 1 and self._slot <= CAPACITY

    def siblings(self) -> tuple[int, ...]:
        """Return the connections of every slot, our own among them; -1 where nobody accepts."""
        return self._scoreboard.counts()


class Turns:
    """Whose turn it is to take what waits at one listener."""

    def __init__(self, share: Share) -> None:
        """Decide for the worker that has this `share`."""
        self._share = share
        self._lead = _LEAD
        # What everybody had when we last had more than our share; who had no more than the limit
        # was to take what waited.
        self._counts: tuple[int, ...] = ()
        self._limit = 0.0

    def ours(self, *, again: bool = False) -> bool:
        """Say whether to take what waits, or to step back.

        `again` says that this was asked before, and that a connection waits after the step back.
        """
        ours = self._share.connections
        if ours <= _LEAD:  # whatever the mean is; and mostly it is so
            self._lead = _LEAD
            return True
        counts = self._share.siblings()
        average = mean(counts)
        limit = average + _LEAD
        if ours <= limit:
            self._lead = _LEAD
            return True
        if self._others_move(counts):
            self._lead = _LEAD
        elif again:
            self._lead *= 2
        self._counts, self._limit = counts, limit
        return ours <= average + self._lead

    @property
    def patience(self) -> float:
        """Return for how many seconds to step back."""
        return min(self._lead * STEP_BACK, LONGEST_STEP_BACK)

    def _others_move(self, counts: tuple[int, ...]) -> bool:
        """Say whether anybody who was to take what waited shows a sign of life."""
        return any(
            0 <= then <= self._limit and now != then
            for then, now in zip(self._counts, counts, strict=False)
        )
