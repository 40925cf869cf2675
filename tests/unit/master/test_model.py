"""States, transitions and names."""

from __future__ import annotations

import itertools
import math

import pytest

from daphne_supervisor.master.model import (
    TRANSITIONS,
    Cause,
    Fate,
    Name,
    Worker,
    WorkerState,
    WrongTransitionError,
)


def worker(state: WorkerState = WorkerState.STARTING) -> Worker:
    """Return a worker that entered `state` at 10."""
    return Worker(2, 3, born=10.0, entered=10.0, heard=10.0, state=state)


@pytest.mark.parametrize(("state", "cause"), list(itertools.product(WorkerState, Cause)))
def test_each_cause_in_each_state_is_in_the_table_or_raises(
    state: WorkerState, cause: Cause
) -> None:
    """A cause leads to the table's next state, and where the table is silent it is a bug."""
    one = worker(state)
    after = TRANSITIONS[state].get(cause)
    if after is None:
        with pytest.raises(WrongTransitionError, match="worker 2 gen 3 is"):
            one.change(cause, 20.0)
        assert one.state is state
    else:
        one.change(cause, 20.0)
        assert one.state is after


def test_no_transition_leads_back() -> None:
    """A worker climbs down the list of states and never up."""
    order = list(WorkerState)
    for before, row in TRANSITIONS.items():
        assert all(order.index(after) >= order.index(before) for after in row.values())


def test_every_living_worker_can_die() -> None:
    """A process may end at any time, and then it is gone."""
    for state in set(WorkerState) - {WorkerState.GONE}:
        assert TRANSITIONS[state][Cause.EXITED] is WorkerState.GONE
    assert TRANSITIONS[WorkerState.GONE] == {}


def test_only_a_new_state_is_entered() -> None:
    """News that changes nothing does not make a worker look freshly arrived in its state."""
    one = worker(WorkerState.READY)
    one.change(Cause.SAID_ALIVE, 20.0)
    assert one.entered == 10.0
    one.change(Cause.TOLD_TO_DRAIN, 30.0)
    assert one.entered == 30.0


def test_a_worker_is_called_by_slot_generation_and_pid() -> None:
    """Log lines of one worker are found by one name, which has its pid once it is forked."""
    assert str(worker().name) == "worker 2 gen 3"
    assert str(Name(2, 3, 4711)) == "worker 2 gen 3 pid 4711"


def test_who_dies_of_its_own_fault_keeps_its_place() -> None:
    """A crashing worker's replacement cannot take another slot and so escape the back-off."""
    one = worker(WorkerState.READY)
    assert one.holds_place
    one.change(Cause.TOLD_TO_ABORT, 20.0)
    one.fate = Fate.CRASHED
    assert one.holds_place
    one.fate = Fate.PLANNED
    assert not one.holds_place


def test_life_is_counted_from_ready() -> None:
    """A worker that never served has not lived."""
    one = worker()
    assert (one.lived(100.0), one.ready_since) == (0.0, math.inf)
    one.ready_at = 40.0
    assert (one.lived(100.0), one.ready_since) == (60.0, 40.0)
