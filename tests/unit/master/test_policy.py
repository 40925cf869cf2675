"""Patience and back-off."""

from __future__ import annotations

import pytest

from daphne_supervisor.master.model import Worker, WorkerState
from daphne_supervisor.master.policy import Patience, Restarts, backoff, charge, earliest, limits

PATIENCE = Patience(boot=60, heartbeat=30, graceful=25, margin=5, dump=2, abort=4, quit=3)


def worker(state: WorkerState, **facts: float) -> Worker:
    """Return a worker that was born at 0, and entered its state and was heard at 100."""
    one = Worker(1, 1, born=0.0, entered=100.0, heard=100.0, state=state)
    for name, value in facts.items():
        setattr(one, name, value)
    return one


@pytest.mark.parametrize(
    ("one", "dues", "word"),
    [
        (worker(WorkerState.STARTING), [160], "--ready-timeout"),
        (worker(WorkerState.STARTING, heard=150), [160], "--ready-timeout"),
        (worker(WorkerState.READY, heard=110), [140], "--worker-timeout"),
        (worker(WorkerState.DRAINING, ready_at=50), [130, 130], "--graceful-timeout 25"),
        (worker(WorkerState.DRAINING, ready_at=50, heard=20), [130, 130], "--graceful-timeout"),
        (worker(WorkerState.DRAINING, ready_at=50, heard=120), [130, 150], "--graceful-timeout"),
        (worker(WorkerState.DRAINING), [105], "within 5 s"),
        (worker(WorkerState.DRAINING, ready_at=50, quit_at=110), [113], "SIGQUIT"),
        (worker(WorkerState.DUMPING), [102], "SIGUSR2"),
        (worker(WorkerState.ABORTING), [104], "SIGABRT"),
        (worker(WorkerState.KILLED), [], ""),
        (worker(WorkerState.GONE), [], ""),
    ],
)
def test_each_state_has_its_limits(one: Worker, dues: list[float], word: str) -> None:
    """Every state in which a worker can hang ends, for a reason that names the option."""
    assert [limit.due for limit in limits(one, PATIENCE)] == dues
    first = earliest(one, PATIENCE)
    assert (first.due if first else None) == min(dues, default=None)
    assert word in (first.why if first else "")


@pytest.mark.parametrize(
    "one",
    [
        worker(WorkerState.STARTING),
        worker(WorkerState.READY),
        worker(WorkerState.DRAINING, ready_at=50),
        worker(WorkerState.DRAINING),
        worker(WorkerState.DRAINING, ready_at=50, quit_at=100),
        worker(WorkerState.DUMPING),
        worker(WorkerState.ABORTING),
    ],
)
def test_forgiveness_moves_every_limit(one: Worker) -> None:
    """After a pause of the master the whole patience begins anew."""
    before = [limit.due for limit in limits(one, PATIENCE)]
    one.granted = 1100.0
    assert [limit.due for limit in limits(one, PATIENCE)] == [due + 1000 for due in before]


def test_the_slowest_way_out_is_known() -> None:
    """From the order to drain, through every rung, to SIGKILL."""
    assert PATIENCE.leave == 25 + 5 + 2 + 4


def test_back_off_doubles_up_to_half_a_minute() -> None:
    """The first replacement comes at once; a broken release is not started in a tight loop."""
    waits = [backoff(failures) for failures in range(10)]
    assert waits == [0, 0, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff(10**6) == 30


def test_failures_add_up() -> None:
    """Each failure in a row is charged to the slot, from the moment of the failure."""
    once = charge(Restarts(), lived=0.0, now=100.0)
    assert once == Restarts(1, 100.0)
    assert charge(once, lived=29.0, now=200.0) == Restarts(2, 200.5)


def test_a_stable_life_clears_the_failures() -> None:
    """A crash after a long life is an accident again, not the end of a series."""
    assert charge(Restarts(7, 50.0), lived=30.0, now=100.0) == Restarts(1, 100.0)
