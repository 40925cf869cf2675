"""The state of a reload, and what is said of it when it is over."""

from __future__ import annotations

import itertools

import pytest

from daphne_supervisor.master.rollout import (
    ROLLOUTS,
    Outcome,
    Rollout,
    RolloutState,
    Turn,
    Verdict,
)


@pytest.mark.parametrize(("state", "turn"), list(itertools.product(RolloutState, Turn)))
def test_every_turn_is_possible_in_every_state(state: RolloutState, turn: Turn) -> None:
    """The table is complete, and only a change of state counts as a change."""
    rollout = Rollout(state)
    changed = rollout.change(turn)
    assert rollout.state is ROLLOUTS[state][turn]
    assert changed == (rollout.state is not state)


def test_only_another_reload_takes_up_what_has_failed() -> None:
    """Neither time nor crashes set a reload rolling again."""
    for row in ROLLOUTS.values():
        rolling = [turn for turn, after in row.items() if after is RolloutState.ROLLING]
        assert rolling == [Turn.RELOADED]


@pytest.mark.parametrize(
    ("state", "complete"),
    [
        (RolloutState.FIRST, False),
        (RolloutState.STEADY, True),
        (RolloutState.ROLLING, False),
        (RolloutState.HELD, True),
    ],
)
def test_a_reload_that_failed_is_complete(state: RolloutState, complete: bool) -> None:  # noqa: FBT001
    """Whoever waits for the end of a reload must not wait for one that is held."""
    assert Rollout(state).complete is complete


@pytest.mark.parametrize(
    ("verdict", "failed", "suffix", "line"),
    [
        (Verdict.DONE, False, "; reload done", "reload to generation 3 done in 2.5 s"),
        (
            Verdict.ROLLED_BACK,
            True,
            "; reload failed, rolled back: {why}",
            "reload to generation 3 failed and was rolled back after 2.5 s: {why}",
        ),
        (
            Verdict.HELD,
            True,
            "; reload failed, held: {why}",
            "reload to generation 3 held after 2.5 s: {why}",
        ),
        (Verdict.REFUSED, True, "; reload refused: {why}", "reload refused: {why}"),
        (
            Verdict.SUPERSEDED,
            False,
            "; reloading",
            "reload to generation 3 superseded by {why} after 2.5 s",
        ),
    ],
)
def test_each_outcome_is_one_line(verdict: Verdict, failed: bool, suffix: str, line: str) -> None:  # noqa: FBT001
    """The log and the status line say how it came out and, where it failed, why."""
    rollout = Rollout(RolloutState.STEADY)
    outcome = Outcome(at=9.0, generation=3, verdict=verdict, took=2.5, why="no module {x}")
    rollout.outcomes.append(outcome)
    assert rollout.failed is failed
    assert rollout.suffix == suffix.replace("{why}", "no module {x}")
    assert str(outcome) == line.replace("{why}", "no module {x}")


def test_before_any_reload_there_is_nothing_to_say() -> None:
    """The status line of the first generation speaks of no reload."""
    rollout = Rollout()
    assert (rollout.suffix, rollout.failed) == ("", False)


def test_a_reload_in_progress_hides_the_outcome_of_the_last() -> None:
    """What was wrong with the last one is no news while the next one is tried."""
    rollout = Rollout(RolloutState.ROLLING)
    rollout.outcomes.append(Outcome(9.0, 2, Verdict.HELD, 1.0, "broken"))
    assert rollout.suffix == "; reloading"


def test_the_last_ten_outcomes_are_kept() -> None:
    """A service that reloads for years does not grow."""
    rollout = Rollout()
    for generation in range(12):
        rollout.outcomes.append(Outcome(9.0, generation, Verdict.DONE, 1.0))
    assert [outcome.generation for outcome in rollout.outcomes] == list(range(2, 12))
