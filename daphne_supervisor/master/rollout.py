"""Where the replacement of one generation by the next stands, and what became of it.

RULE for this file: every step of a rollout is in the table; a missing entry is a bug of ours.

Theory. The first generation either comes up or ends the master, so nothing can be held back then.
After that a reload runs to its end or it fails, when new code does not boot. If none of the new
workers is ready, the pool returns to the generation before: whoever crashes afterwards is replaced
by code that is known to boot. If some are ready already, the reload is HELD where it is: old and
new workers stay. Either way only the next reload tries again, because an operator who was told that
the reload failed must not find it half done an hour later.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ROLLOUTS", "Outcome", "Rollout", "RolloutState", "Turn", "Verdict"]

KEPT = 10
"""Outcomes to remember: a bad evening's worth of reloads."""


class RolloutState(enum.Enum):
    """Where the present generation stands."""

    FIRST = "first"
    STEADY = "steady"
    ROLLING = "rolling"
    HELD = "held"


class Turn(enum.Enum):
    """What can happen to a rollout."""

    RELOADED = "a reload was asked for"
    FAILED = "the present generation does not boot, and there is another to return to"
    STALLED = "a worker does not boot, but others of the present generation are ready"
    PREEMPTED = "something is under way that a reload may not disturb"
    SETTLED = "enough workers are ready, all of the present generation"


ROLLOUTS: Mapping[RolloutState, Mapping[Turn, RolloutState]] = {
    RolloutState.FIRST: {
        Turn.RELOADED: RolloutState.ROLLING,
        Turn.FAILED: RolloutState.FIRST,
        Turn.STALLED: RolloutState.FIRST,
        Turn.PREEMPTED: RolloutState.FIRST,
        Turn.SETTLED: RolloutState.STEADY,
    },
    RolloutState.STEADY: {
        Turn.RELOADED: RolloutState.ROLLING,
        Turn.FAILED: RolloutState.STEADY,
        Turn.STALLED: RolloutState.STEADY,
        Turn.PREEMPTED: RolloutState.STEADY,
        Turn.SETTLED: RolloutState.STEADY,
    },
    RolloutState.ROLLING: {
        Turn.RELOADED: RolloutState.ROLLING,
        Turn.FAILED: RolloutState.STEADY,
        Turn.STALLED: RolloutState.HELD,
        Turn.PREEMPTED: RolloutState.HELD,
        Turn.SETTLED: RolloutState.STEADY,
    },
    RolloutState.HELD: {
        Turn.RELOADED: RolloutState.ROLLING,
        Turn.FAILED: RolloutState.STEADY,
        Turn.STALLED: RolloutState.HELD,
        Turn.PREEMPTED: RolloutState.HELD,
        Turn.SETTLED: RolloutState.STEADY,
    },
}


class Verdict(enum.Enum):
    """How a reload came out."""

    DONE = "done"
    ROLLED_BACK = "rolled back"
    HELD = "held"
    REFUSED = "refused"
    SUPERSEDED = "superseded"


_LINES = {
    Verdict.DONE: "reload to generation {generation} done in {took:.1f} s",
    Verdict.ROLLED_BACK: "reload to generation {generation} failed and was rolled back"
    " after {took:.1f} s: {why}",
    Verdict.HELD: "reload to generation {generation} held after {took:.1f} s: {why}",
    Verdict.REFUSED: "reload refused: {why}",
    Verdict.SUPERSEDED: "reload to generation {generation} superseded by {why} after {took:.1f} s",
}
"""What the log says of a reload that is over."""

_SUFFIXES = {
    Verdict.DONE: "; reload done",
    Verdict.ROLLED_BACK: "; reload failed, rolled back: {why}",
    Verdict.HELD: "; reload failed, held: {why}",
    Verdict.REFUSED: "; reload refused: {why}",
    Verdict.SUPERSEDED: "; reloading",
}
"""What the status line says of the last reload when it is over."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One reload that is over: `at` is when (monotonic seconds), `took` how long it took."""

    at: float
    generation: int
    verdict: Verdict
    took: float
    why: str = ""

    @property
    def failed(self) -> bool:
        """Whether the reload came to nothing, or to less than was asked for."""
        return self.verdict in {Verdict.ROLLED_BACK, Verdict.HELD, Verdict.REFUSED}

    def __str__(self) -> str:
        """Return the line for the log."""
        return _LINES[self.verdict].format(generation=self.generation, took=self.took, why=self.why)


class Rollout:
    """The rollout in progress, and the outcomes of those before."""

    def __init__(self, state: RolloutState = RolloutState.FIRST) -> None:
        """Begin with no reload behind us."""
        self.state = state
        self.outcomes: deque[Outcome] = deque(maxlen=KEPT)

    def change(self, turn: Turn) -> bool:
        """Take the step that `turn` means, and return whether the state is a new one."""
        before, self.state = self.state, ROLLOUTS[self.state][turn]
        return self.state is not before

    @property
    def complete(self) -> bool:
        """Whether nothing is under way, be it finished or held."""
        return self.state not in {RolloutState.FIRST, RolloutState.ROLLING}

    @property
    def failed(self) -> bool:
        """Whether the last reload that is over has failed."""
        return bool(self.outcomes) and self.outcomes[-1].failed

    @property
    def suffix(self) -> str:
        """What the status line says about it."""
        if self.state is RolloutState.ROLLING:
            return "; reloading"
        if not self.outcomes:
            return ""
        last = self.outcomes[-1]
        return _SUFFIXES[last.verdict].format(why=last.why)
