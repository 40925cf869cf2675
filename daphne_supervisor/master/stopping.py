"""The end: first a warning, if there is time for one, then the drain.

Theory. A load balancer needs a while to learn that a server will leave. With a shutdown delay the
workers therefore *linger* at first: they go on accepting, so that nobody is refused, but keep no
connection alive; and the pool is kept at its strength. Then the listeners are given up, and
everybody drains. Whoever asks a second time has no patience with either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daphne_supervisor.master import orders
from daphne_supervisor.master.model import CloseListeners, WorkerState

if TYPE_CHECKING:
    from typing import Self

    from daphne_supervisor.errors import ExitCode
    from daphne_supervisor.master.model import Action
    from daphne_supervisor.master.roster import Roster

__all__ = ["Stop"]

_ALIVE = (WorkerState.STARTING, WorkerState.READY, WorkerState.DRAINING)
"""The states in which a worker may still listen to reason."""


@dataclass(slots=True)
class Stop:
    """The decision to end: with which code, and why.

    `delay` is for how long the workers linger, in seconds; `closes_at` is when they begin to drain,
    and `ends_at` when even the slowest should be gone, both in monotonic seconds. `urgent` means
    that nobody is waited for, `closed` that the listeners were given up.
    """

    code: ExitCode
    why: str
    delay: float
    closes_at: float
    ends_at: float
    urgent: bool = False
    closed: bool = False

    @classmethod
    def after(cls, delay: float, leave: float, code: ExitCode, why: str, now: float, /) -> Self:
        """Return a stop whose workers linger for `delay` s and then take up to `leave` s."""
        return cls(code, why, delay, now + delay, now + delay + leave)

    def hurry(self, now: float) -> None:
        """Wait for nobody any more."""
        self.urgent = True
        self.closes_at = min(self.closes_at, now)

    def time_left(self, now: float) -> float:
        """Return for how many seconds the end may still take."""
        return max(0.0, self.ends_at - now)

    def linger(self, roster: Roster) -> list[Action]:
        """Tell those who serve, and do not know it yet, that the end is near."""
        serving = roster.who(WorkerState.READY)
        return [orders.linger(worker, self.why) for worker in serving if not worker.lingering]

    def wind_down(self, roster: Roster, now: float) -> list[Action]:
        """Close up, and tell everybody to leave."""
        actions: list[Action] = []
        if not self.closed:
            self.closed = True
            actions.append(CloseListeners(self.why))
        for worker in roster.who(*_ALIVE):
            if self.urgent:
                order = orders.leave_now(worker, self.why, now)
                actions += [] if order is None else [order]
            elif worker.state is not WorkerState.DRAINING:
                actions.append(orders.drain(worker, self.why, now))
        return actions
