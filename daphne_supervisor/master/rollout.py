"""Where the replacement of one generation by the next stands, and who was told of it.

RULE for this file: every step of a rollout is in the table; a missing entry is a bug of ours.

Theory. The first generation either comes up or ends the master, so nothing can be held back then.
After that a reload either runs to its end or is HELD: new code that does not boot leaves the old
workers where they are, and only the next reload tries again, because an operator who was told that
the reload failed must not find it half done an hour later.

A service manager waits for milestones: a reload that fails is over as well, and must be announced
as such, or the manager would wait until its own timeout. The `Herald` keeps what is still owed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daphne_supervisor.master.model import Announce, Milestone

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ROLLOUTS", "Herald", "Rollout", "RolloutState", "Turn"]


class RolloutState(enum.Enum):
    """Where the present generation stands."""

    FIRST = "first"
    STEADY = "steady"
    ROLLING = "rolling"
    HELD = "held"
    DONE = "done"


class Turn(enum.Enum):
    """What can happen to a rollout."""

    RELOADED = "a reload was asked for"
    FAILED = "a worker of the present generation does not boot"
    SETTLED = "enough workers are ready, all of the present generation"


_ANYWHERE = {Turn.RELOADED: RolloutState.ROLLING}

ROLLOUTS: Mapping[RolloutState, Mapping[Turn, RolloutState]] = {
    RolloutState.FIRST: {
        **_ANYWHERE,
        Turn.FAILED: RolloutState.FIRST,
        Turn.SETTLED: RolloutState.STEADY,
    },
    RolloutState.STEADY: {
        **_ANYWHERE,
        Turn.FAILED: RolloutState.STEADY,
        Turn.SETTLED: RolloutState.STEADY,
    },
    RolloutState.ROLLING: {
        **_ANYWHERE,
        Turn.FAILED: RolloutState.HELD,
        Turn.SETTLED: RolloutState.DONE,
    },
    RolloutState.HELD: {
        **_ANYWHERE,
        Turn.FAILED: RolloutState.HELD,
        Turn.SETTLED: RolloutState.DONE,
    },
    RolloutState.DONE: {
        **_ANYWHERE,
        Turn.FAILED: RolloutState.DONE,
        Turn.SETTLED: RolloutState.DONE,
    },
}


@dataclass(slots=True)
class Rollout:
    """The rollout in progress, or the last one; `why` is the reason while it is HELD."""

    state: RolloutState = RolloutState.FIRST
    why: str = ""

    def change(self, turn: Turn, why: str = "") -> bool:
        """Take the step that `turn` means, and return whether the state is a new one."""
        before, self.state = self.state, ROLLOUTS[self.state][turn]
        if self.state is before:
            return False
        self.why = why
        return True

    @property
    def complete(self) -> bool:
        """Whether nothing is under way, be it finished or held."""
        return self.state not in {RolloutState.FIRST, RolloutState.ROLLING}

    @property
    def suffix(self) -> str:
        """What the status line says about it."""
        return {
            RolloutState.FIRST: "",
            RolloutState.STEADY: "",
            RolloutState.ROLLING: "; reloading",
            RolloutState.HELD: f"; reload failed: {self.why}",
            RolloutState.DONE: "; reload done",
        }[self.state]


class Herald:
    """Remembers what the service manager was told, and what it still has to hear."""

    def __init__(self) -> None:
        """Owe the first READY."""
        self._owed = {Milestone.READY}
        self._told: set[Milestone] = set()
        self._status = ""

    def owe_reload(self) -> None:
        """Owe RELOADING, unless the service is not even up, and READY at its end."""
        self._owed.add(Milestone.READY)
        if self.was_ready:
            self._owed.add(Milestone.RELOADING)

    def owe_stop(self) -> None:
        """Owe STOPPING, and nothing else any more."""
        self._owed = {Milestone.STOPPING}

    @property
    def was_ready(self) -> bool:
        """Whether READY was ever announced."""
        return Milestone.READY in self._told

    def announce(self, status: str, *, ready: bool) -> Announce | None:
        """Return what there is to tell, None if nothing; `ready` allows the milestone READY."""
        milestone = self._due(ready=ready)
        if milestone is None and status == self._status:
            return None
        self._status = status
        why = "the status has changed" if milestone is None else f"the master is {milestone.value}"
        return Announce(milestone, status, why)

    def _due(self, *, ready: bool) -> Milestone | None:
        """Return the milestone that is due, and strike it off."""
        for milestone in (Milestone.STOPPING, Milestone.RELOADING, Milestone.READY):
            if milestone in self._owed and (ready or milestone is not Milestone.READY):
                self._owed.discard(milestone)
                self._told.add(milestone)
                return milestone
        return None
