"""How a new master takes over from this one, and how this one takes back.

RULE for this file: every step of a succession is in the table, with what is done at it; a missing
entry is a bug of ours.

Theory. An upgrade starts a new master on the same listeners. While it boots, nothing changes here,
so that a new release that does not come up costs nothing. When it is ready it becomes the main
process, and our workers drain; our last one takes us with it. Until then a reload means that the
operator wants the old release back:

    NONE -> STARTED -> HANDED_OVER -> (our end)
             |            |
             |            +-> RECALLED: the workers are started again ...
             |                   |
             +-> DISMISSED <-----+  ... and only when they are ready does the new master leave

Wherever the new master dies by itself, this one is the main process again. News that are late, such
as that it is ready when it was dismissed already, are normal, and the table says so.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daphne_supervisor.master.model import (
    Dismiss,
    HandOver,
    Launch,
    Remark,
    Severity,
    TakeBack,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daphne_supervisor.master.model import Action

__all__ = ["SUCCESSIONS", "Step", "Succession", "SuccessionState", "Turn"]


class SuccessionState(enum.Enum):
    """Where an upgrade of the master stands."""

    NONE = "none"
    STARTED = "started"
    HANDED_OVER = "handed over"
    RECALLED = "recalled"
    DISMISSED = "dismissed"


class Turn(enum.Enum):
    """What can happen to a succession."""

    UPGRADED = "an upgrade was asked for"
    READY = "the new master is ready"
    EXITED = "the new master is dead"
    RECALLED = "a reload was asked for"
    RESTORED = "this master's workers are ready again"
    STOPPED = "this master was asked to stop"


@dataclass(frozen=True, slots=True)
class Step:
    """The state after a step, what is done at it, and why; `severity` makes it a remark as well."""

    after: SuccessionState
    actions: tuple[type[Launch | HandOver | TakeBack | Dismiss], ...] = ()
    why: str = ""
    severity: Severity | None = None


def _stay(state: SuccessionState) -> dict[Turn, Step]:
    return dict.fromkeys(Turn, Step(state))


SUCCESSIONS: Mapping[SuccessionState, Mapping[Turn, Step]] = {
    SuccessionState.NONE: {
        **_stay(SuccessionState.NONE),
        Turn.UPGRADED: Step(
            SuccessionState.STARTED, (Launch,), "the master was asked to upgrade itself"
        ),
    },
    SuccessionState.STARTED: {
        **_stay(SuccessionState.STARTED),
        Turn.READY: Step(SuccessionState.HANDED_OVER, (HandOver,), "the new master is ready"),
        Turn.EXITED: Step(SuccessionState.NONE, (), "upgrade failed", Severity.ERROR),
        Turn.RECALLED: Step(
            SuccessionState.DISMISSED, (Dismiss,), "upgrade rolled back", Severity.INFO
        ),
        Turn.STOPPED: Step(SuccessionState.DISMISSED, (Dismiss,), "the old master is to stop"),
    },
    SuccessionState.HANDED_OVER: {
        **_stay(SuccessionState.HANDED_OVER),
        Turn.EXITED: Step(
            SuccessionState.NONE,
            (TakeBack,),
            "the new master is gone, so this one serves again",
            Severity.ERROR,
        ),
        Turn.RECALLED: Step(
            SuccessionState.RECALLED,
            (),
            "upgrade to be rolled back as soon as the old workers are replaced",
            Severity.INFO,
        ),
    },
    SuccessionState.RECALLED: {
        **_stay(SuccessionState.RECALLED),
        Turn.EXITED: Step(
            SuccessionState.NONE,
            (TakeBack,),
            "the new master is gone, so this one serves again",
            Severity.ERROR,
        ),
        Turn.RECALLED: Step(
            SuccessionState.RECALLED, (), "upgrade is being rolled back already", Severity.INFO
        ),
        Turn.RESTORED: Step(
            SuccessionState.DISMISSED, (TakeBack, Dismiss), "upgrade rolled back", Severity.INFO
        ),
        # Whoever stops this master now wants the new one after all.
        Turn.STOPPED: Step(SuccessionState.HANDED_OVER),
    },
    SuccessionState.DISMISSED: {
        **_stay(SuccessionState.DISMISSED),
        Turn.EXITED: Step(SuccessionState.NONE, (), "the new master has left", Severity.INFO),
    },
}

_SUFFIXES = {
    SuccessionState.NONE: "",
    SuccessionState.STARTED: "; upgrading",
    SuccessionState.HANDED_OVER: "; the new master serves",
    SuccessionState.RECALLED: "; taking over from the new master",
    SuccessionState.DISMISSED: "; upgrade rolled back",
}


class Succession:
    """The upgrade in progress, if there is one."""

    def __init__(self, state: SuccessionState = SuccessionState.NONE) -> None:
        """Begin with no other master."""
        self.state = state

    def change(self, turn: Turn, detail: str = "") -> list[Action]:
        """Take the step that `turn` means, and return what has to be done."""
        step = SUCCESSIONS[self.state][turn]
        self.state = step.after
        why = f"{step.why}: {detail}" if detail else step.why
        actions: list[Action] = [action(why) for action in step.actions]
        if step.severity is not None:
            actions.append(Remark(step.severity, None, why))
        return actions

    @property
    def away(self) -> bool:
        """Whether the new master is the main process."""
        return self.state in {SuccessionState.HANDED_OVER, SuccessionState.RECALLED}

    @property
    def recallable(self) -> bool:
        """Whether a reload means the end of the upgrade."""
        return self.away or self.state is SuccessionState.STARTED

    @property
    def alive(self) -> bool:
        """Whether there is a new master that has not been handed over to."""
        return self.state in {SuccessionState.STARTED, SuccessionState.DISMISSED}

    @property
    def suffix(self) -> str:
        """What the status line says about it."""
        return _SUFFIXES[self.state]
