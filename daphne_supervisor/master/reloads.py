"""Reloads: which generation is in force, with which settings, and which one to return to.

Theory. A *release* is a generation with all that belongs to it: its number, the settings that were
read for it, the target at that time. There are at most two that matter. The one in force is what
new workers are made of. The other, the fallback, is the last that was complete; a reload whose code
does not boot returns to it. A generation that is neither will never be born again, and what was
kept ready for it can go.

The number of workers is the operator's, by signal, until the configuration changes it: a reload
whose configuration has the same number as before keeps what TTIN and TTOU have made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daphne_supervisor.master.model import KeepZygotes, Remark, Severity, WorkerState
from daphne_supervisor.master.rollout import Outcome, Rollout, RolloutState, Turn, Verdict

if TYPE_CHECKING:
    from daphne_supervisor.master.model import Action
    from daphne_supervisor.master.policy import Settings
    from daphne_supervisor.master.roster import Roster

__all__ = ["Release", "Reloads"]


@dataclass(frozen=True, slots=True)
class Release:
    """A generation and what belongs to it."""

    generation: int
    settings: Settings
    target: int


class Reloads:
    """Begins reloads, ends them well or badly, and keeps account of them."""

    def __init__(self, roster: Roster, settings: Settings) -> None:
        """Begin with the first generation of `roster`."""
        self.settings = settings
        self.rollout = Rollout()
        self._roster = roster
        self._fallback = self._present()
        self._kept = frozenset({roster.generation})
        self._began = 0.0

    def begin(self, settings: Settings, now: float, *, proven: bool) -> list[Action]:
        """Put a new generation in force; `proven` says whether there is one to return to."""
        actions: list[Action] = []
        if self.rollout.state is RolloutState.ROLLING:
            successor = self._roster.newest + 1
            actions.append(self._conclude(Verdict.SUPERSEDED, now, f"generation {successor}"))
        if self._at_home:
            self._fallback = self._present()
        self._roster.begin_generation()
        self._kept |= {self._roster.generation}
        if settings.workers != self.settings.workers:
            self._roster.target = settings.workers
        self.settings, self._began = settings, now
        if not proven:
            self._fallback = self._present()
        self.rollout.change(Turn.RELOADED)
        why = f"reload to generation {self._roster.generation}"
        return [*actions, Remark(Severity.INFO, None, why)]

    def refuse(self, why: str, now: float) -> list[Action]:
        """Note a reload whose configuration was not sound."""
        return [self._conclude(Verdict.REFUSED, now, why, Severity.ERROR)]

    def fail(self, why: str, now: float) -> list[Action]:
        """Take note that the generation in force does not boot."""
        serving = self._roster.who(WorkerState.READY)
        hopeless = all(map(self._roster.stale, serving)) and not self._at_home
        if not self.rollout.change(Turn.FAILED if hopeless else Turn.STALLED):
            return []
        if not hopeless:
            return [self._conclude(Verdict.HELD, now, why, Severity.ERROR)]
        remark = self._conclude(Verdict.ROLLED_BACK, now, why, Severity.ERROR)
        self._roster.return_to(self._fallback.generation)
        if self.settings.workers != self._fallback.settings.workers:
            self._roster.target = self._fallback.target
        self.settings = self._fallback.settings
        return [remark]

    def preempt(self, why: str, now: float) -> list[Action]:
        """Hold a reload in progress, because something else goes before."""
        changed = self.rollout.change(Turn.PREEMPTED)
        return [self._conclude(Verdict.HELD, now, why)] if changed else []

    def settle(self, now: float) -> list[Action]:
        """Take note when the generation in force is complete."""
        first = self.rollout.state is RolloutState.FIRST
        if not (self._roster.settled() and self.rollout.change(Turn.SETTLED)):
            return []
        self._fallback = self._present()
        if first:
            why = f"generation {self._roster.generation} is complete"
            return [Remark(Severity.INFO, None, why)]
        return [self._conclude(Verdict.DONE, now)]

    def tidy(self) -> list[Action]:
        """Return what can be given up because no worker will be made of it any more."""
        wanted = frozenset({self._roster.generation, self._fallback.generation})
        gone, self._kept = self._kept - wanted, wanted
        if not gone:
            return []
        names = ", ".join(map(str, sorted(gone)))
        return [KeepZygotes(wanted, f"no worker of generation {names} will be born any more")]

    @property
    def _at_home(self) -> bool:
        """Whether the generation in force is the one to return to."""
        return self._roster.generation == self._fallback.generation

    def _present(self) -> Release:
        return Release(self._roster.generation, self.settings, self._roster.target)

    def _conclude(
        self, verdict: Verdict, now: float, why: str = "", severity: Severity = Severity.INFO
    ) -> Remark:
        took = 0.0 if verdict is Verdict.REFUSED else now - self._began
        outcome = Outcome(now, self._roster.generation, verdict, took, why)
        self.rollout.outcomes.append(outcome)
        return Remark(severity, None, str(outcome))
