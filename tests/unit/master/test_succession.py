"""How one master follows the other, and goes back."""

from __future__ import annotations

import itertools

import pytest

from daphne_supervisor.master.model import (
    Action,
    Dismiss,
    HandOver,
    Launch,
    Remark,
    Severity,
    TakeBack,
)
from daphne_supervisor.master.succession import (
    SUCCESSIONS,
    Succession,
    SuccessionState,
    Turn,
)

State = SuccessionState


@pytest.mark.parametrize(("state", "turn"), list(itertools.product(State, Turn)))
def test_every_turn_is_possible_in_every_state(state: State, turn: Turn) -> None:
    """The table is complete: what comes late or twice changes nothing, and does nothing."""
    succession = Succession(state)
    step = SUCCESSIONS[state][turn]
    actions = succession.change(turn)
    assert succession.state is step.after
    assert [type(each) for each in actions if not isinstance(each, Remark)] == list(step.actions)
    if step.after is state:
        assert step.actions == ()


def test_hand_over_and_take_back_alternate() -> None:
    """We are the main process exactly when the state says so, by whatever way we came to it."""
    for state, row in SUCCESSIONS.items():
        for step in row.values():
            leaves = not Succession(state).away and Succession(step.after).away
            returns = Succession(state).away and not Succession(step.after).away
            assert (HandOver in step.actions) == leaves
            assert (TakeBack in step.actions) == returns


def play(*turns: Turn) -> tuple[State, list[Action]]:
    """Return where turns lead from the beginning, and what is done on the way."""
    succession = Succession()
    actions = [action for turn in turns for action in succession.change(turn, "exit code 3")]
    return succession.state, actions


def kinds(actions: list[Action]) -> list[type[Action]]:
    """Return what is done, without what is said."""
    return [type(each) for each in actions if not isinstance(each, Remark)]


def said(actions: list[Action]) -> list[tuple[Severity, str]]:
    """Return what is said."""
    return [(each.severity, each.why) for each in actions if isinstance(each, Remark)]


def test_an_upgrade_that_succeeds() -> None:
    """The new master is started, and handed over to when it is ready."""
    state, actions = play(Turn.UPGRADED, Turn.READY)
    assert state is State.HANDED_OVER
    assert kinds(actions) == [Launch, HandOver]


def test_an_upgrade_that_fails() -> None:
    """The old master goes on as if nothing had been, and the log says why."""
    state, actions = play(Turn.UPGRADED, Turn.EXITED)
    assert state is State.NONE
    assert kinds(actions) == [Launch]
    assert said(actions) == [(Severity.ERROR, "upgrade failed: exit code 3")]


def test_an_upgrade_that_is_called_off() -> None:
    """A new master that is not ready yet is sent away at once."""
    state, actions = play(Turn.UPGRADED, Turn.RECALLED, Turn.READY, Turn.EXITED)
    assert state is State.NONE
    assert kinds(actions) == [Launch, Dismiss]


def test_an_upgrade_that_is_taken_back() -> None:
    """A new master that serves is sent away only when the old workers are back."""
    state, actions = play(Turn.UPGRADED, Turn.READY, Turn.RECALLED)
    assert state is State.RECALLED
    assert kinds(actions) == [Launch, HandOver]
    state, actions = play(Turn.UPGRADED, Turn.READY, Turn.RECALLED, Turn.RESTORED)
    assert state is State.DISMISSED
    assert kinds(actions) == [Launch, HandOver, TakeBack, Dismiss]


@pytest.mark.parametrize("more", [(), (Turn.RECALLED,)])
def test_a_new_master_that_dies_is_replaced_by_the_old(more: tuple[Turn, ...]) -> None:
    """Whether the old one was on its way back already or not."""
    state, actions = play(Turn.UPGRADED, Turn.READY, *more, Turn.EXITED)
    assert state is State.NONE
    assert kinds(actions) == [Launch, HandOver, TakeBack]
    assert said(actions)[-1][0] is Severity.ERROR


def test_a_stop_during_the_start_of_a_new_master_stops_both() -> None:
    """There would be nobody who knows of it."""
    state, actions = play(Turn.UPGRADED, Turn.STOPPED)
    assert state is State.DISMISSED
    assert kinds(actions) == [Launch, Dismiss]


def test_a_stop_on_the_way_back_leaves_the_field_to_the_new_master() -> None:
    """It serves, and nobody has said that the service should end."""
    state, actions = play(Turn.UPGRADED, Turn.READY, Turn.RECALLED, Turn.STOPPED)
    assert state is State.HANDED_OVER
    assert kinds(actions) == [Launch, HandOver]


@pytest.mark.parametrize(
    ("state", "away", "recallable", "alive", "suffix"),
    [
        (State.NONE, False, False, False, ""),
        (State.STARTED, False, True, True, "; upgrading"),
        (State.HANDED_OVER, True, True, False, "; the new master serves"),
        (State.RECALLED, True, True, False, "; taking over from the new master"),
        (State.DISMISSED, False, False, True, "; upgrade rolled back"),
    ],
)
def test_what_each_state_means(
    state: State,
    *,
    away: bool,
    recallable: bool,
    alive: bool,
    suffix: str,
) -> None:
    """Who is the main process, what a reload means, whom to wait for, what the status says."""
    succession = Succession(state)
    assert succession.away is away
    assert succession.recallable is recallable
    assert succession.alive is alive
    assert succession.suffix == suffix
