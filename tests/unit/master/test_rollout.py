"""The state of a reload, and what the service manager hears of it."""

from __future__ import annotations

import itertools

import pytest

from daphne_supervisor.master.model import Milestone
from daphne_supervisor.master.rollout import ROLLOUTS, Herald, Rollout, RolloutState, Turn


@pytest.mark.parametrize(("state", "turn"), list(itertools.product(RolloutState, Turn)))
def test_every_turn_is_possible_in_every_state(state: RolloutState, turn: Turn) -> None:
    """The table is complete, and only a change of state counts as a change."""
    rollout = Rollout(state, "before")
    changed = rollout.change(turn, "after")
    assert rollout.state is ROLLOUTS[state][turn]
    assert changed == (rollout.state is not state)
    assert rollout.why == ("after" if changed else "before")


def test_broken_code_holds_a_reload_until_the_next() -> None:
    """A reload that failed goes on only when somebody asks again."""
    rollout = Rollout(RolloutState.STEADY)
    rollout.change(Turn.RELOADED)
    assert (rollout.complete, rollout.suffix) == (False, "; reloading")
    rollout.change(Turn.FAILED, "no module named x")
    assert (rollout.complete, rollout.suffix) == (True, "; reload failed: no module named x")
    rollout.change(Turn.RELOADED)
    rollout.change(Turn.SETTLED)
    assert rollout.suffix == "; reload done"


def test_the_first_generation_has_no_suffix() -> None:
    """Before any reload the status line speaks of none."""
    rollout = Rollout()
    assert rollout.suffix == ""
    rollout.change(Turn.SETTLED)
    assert rollout.suffix == ""


def test_ready_is_told_once() -> None:
    """READY is owed from the start, told when it is true, and then only the status changes."""
    herald = Herald()
    waiting = herald.announce("0/1", ready=False)
    assert waiting is not None
    assert waiting.milestone is None
    assert herald.announce("0/1", ready=False) is None
    told = herald.announce("1/1", ready=True)
    assert told is not None
    assert told.milestone is Milestone.READY
    assert herald.announce("1/1", ready=True) is None


def test_a_reload_is_told_at_both_ends() -> None:
    """RELOADING comes at its beginning and READY at its end, though the status be the same."""
    herald = Herald()
    herald.announce("1/1", ready=True)
    herald.owe_reload()
    begun = herald.announce("1/1; reloading", ready=False)
    assert begun is not None
    assert begun.milestone is Milestone.RELOADING
    ended = herald.announce("1/1; reloading", ready=True)
    assert ended is not None
    assert ended.milestone is Milestone.READY


def test_a_reload_before_ready_is_part_of_the_start() -> None:
    """A service that is not up yet does not reload: it is still starting."""
    herald = Herald()
    herald.owe_reload()
    told = herald.announce("1/1", ready=True)
    assert told is not None
    assert told.milestone is Milestone.READY


def test_stopping_silences_the_rest() -> None:
    """Who stops is not ready any more, whatever was owed before."""
    herald = Herald()
    herald.owe_stop()
    told = herald.announce("draining", ready=True)
    assert told is not None
    assert told.milestone is Milestone.STOPPING
    assert herald.announce("draining", ready=True) is None
