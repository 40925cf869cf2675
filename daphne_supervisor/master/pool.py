"""How the pool is kept at its strength: the decisions that make it grow, shrink and renew itself.

Theory. Crash recovery, scaling, recycling and rolling reload are the same two rules:

    retire   while more are ready than the target: drain the stale, then the oldest
    fill     while places are free: start a worker in the lowest free slot, after its back-off

A reload only puts another generation in force, which makes workers stale, which allows some more
than the target, which makes too many as soon as the new ones are ready. A worker that is due to be
recycled is stale in the same sense, and allows one more; but a reload renews the whole pool anyway,
so nobody is recycled meanwhile. Retire comes before fill, since the reverse is no fixed point.

The pool is *calm* when the master neither stops nor hands over: only then are workers replaced that
still serve. The rest of the time the pool is merely kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daphne_supervisor.master import orders
from daphne_supervisor.master.model import Spawn
from daphne_supervisor.master.rollout import RolloutState

if TYPE_CHECKING:
    from daphne_supervisor.master.model import Action, Worker
    from daphne_supervisor.master.policy import Restarts
    from daphne_supervisor.master.reloads import Reloads
    from daphne_supervisor.master.roster import Roster

__all__ = ["Pool"]


class Pool:
    """Keeps `roster` at its target of workers of the generation in force."""

    def __init__(self, roster: Roster, reloads: Reloads) -> None:
        """Begin with nothing but the records."""
        self._roster = roster
        self._reloads = reloads

    def retire(self, now: float, *, calm: bool) -> list[Action]:
        """Send away who is ready beyond the target, or boots for nothing."""
        ripe = self._ripe(now, calm=calm)
        surplus = [
            orders.drain(worker, self._farewell(worker, ripe), now)
            for worker in self._roster.surplus(ripe)
        ]
        wanted = self._wanted(now, calm=calm)  # without those who were just sent away
        superfluous = [
            orders.drain(worker, "it is not needed any more", now)
            for worker in self._roster.superfluous(wanted)
        ]
        return [*surplus, *superfluous]

    def fill(self, now: float, *, calm: bool) -> list[Action]:
        """Start who is missing, unless the slot has to wait."""
        actions: list[Action] = []
        ripe = self._ripe(now, calm=calm)
        for slot in self._roster.vacant(self._wanted(now, calm=calm)):
            memory = self._roster.memory(slot)
            if memory.not_before <= now:
                worker = self._roster.admit(slot, now)
                actions.append(Spawn(worker.name, self._reason(memory, ripe)))
        return actions

    def times(self, now: float, *, calm: bool) -> list[float]:
        """Return when there will be somebody to start if nothing happens (monotonic seconds)."""
        vacant = self._roster.vacant(self._wanted(now, calm=calm))
        times = [self._roster.memory(slot).not_before for slot in vacant]
        if self._recycles(calm=calm):
            times += self._roster.ripens(self._reloads.settings.min_lifetime, now)
        return times

    def _wanted(self, now: float, *, calm: bool) -> int:
        """Return how many should serve or boot: the target, and more while workers are replaced."""
        if not calm or self._reloads.rollout.state is RolloutState.HELD:
            return self._roster.target
        surge = min(self._reloads.settings.surge, self._roster.stale_ready())
        return self._roster.target + max(surge, self._ripe(now, calm=calm) is not None)

    def _recycles(self, *, calm: bool) -> bool:
        return calm and self._reloads.rollout.state is RolloutState.STEADY

    def _ripe(self, now: float, *, calm: bool) -> Worker | None:
        """Return the worker that is to be recycled now."""
        if not self._recycles(calm=calm):
            return None
        return self._roster.ripe(self._reloads.settings.min_lifetime, now)

    def _farewell(self, worker: Worker, ripe: Worker | None) -> str:
        if self._roster.stale(worker):
            return f"generation {self._roster.generation} is ready"
        return f"recycled: {worker.due}" if worker is ripe else "above the target"

    def _reason(self, memory: Restarts, ripe: Worker | None) -> str:
        if memory.failures:
            return f"replaces a worker that failed, {memory.failures} in a row"
        if self._reloads.rollout.state is RolloutState.ROLLING:
            return f"reload to generation {self._roster.generation}"
        return f"the target is {self._roster.target}" if ripe is None else f"recycles {ripe.name}"
