"""Orders change the record and tell the worker, together."""

from __future__ import annotations

import pytest

from daphne_supervisor.master import orders
from daphne_supervisor.master.model import (
    Abort,
    Cause,
    Drain,
    Dump,
    Fate,
    Kill,
    Linger,
    Quit,
    Remark,
    Reopen,
    Severity,
    Worker,
    WorkerState,
    WrongTransitionError,
)


def serving() -> Worker:
    """Return a worker that is ready since 5."""
    one = Worker(1, 1, born=0.0, entered=0.0, heard=0.0, pid=7)
    one.change(Cause.SAID_READY, 5.0)
    one.ready_at = 5.0
    return one


def test_a_drained_worker_dies_as_planned() -> None:
    """Whatever ends it from here on is no crash."""
    one = serving()
    assert orders.drain(one, "reload", 9.0) == Drain(one.name, "reload")
    assert (one.state, one.fate, one.why) == (WorkerState.DRAINING, Fate.PLANNED, "reload")


def test_nobody_is_told_to_drain_twice() -> None:
    """That would be a bug of the supervisor, and raises."""
    one = serving()
    orders.drain(one, "reload", 9.0)
    with pytest.raises(WrongTransitionError):
        orders.drain(one, "again", 9.0)


def test_a_serving_worker_is_told_once_to_leave_now() -> None:
    """It gets one SIGQUIT, and the time of it is remembered."""
    one = serving()
    assert orders.leave_now(one, "stop", 9.0) == Quit(one.name, "stop")
    assert (one.state, one.fate, one.quit_at) == (WorkerState.DRAINING, Fate.PLANNED, 9.0)
    assert orders.leave_now(one, "stop", 10.0) is None


def test_the_reason_of_a_drain_outlives_the_hurry() -> None:
    """A worker that was leaving anyway keeps the reason it was leaving for."""
    one = serving()
    orders.drain(one, "reload", 9.0)
    orders.leave_now(one, "stop", 10.0)
    assert one.why == "reload"


def test_a_booting_worker_is_killed_instead() -> None:
    """It serves nobody, and has no handler for SIGQUIT yet."""
    one = Worker(1, 1, born=0.0, entered=0.0, heard=0.0)
    assert orders.leave_now(one, "stop", 9.0) == Kill(one.name, "stop")
    assert (one.state, one.fate) == (WorkerState.KILLED, Fate.PLANNED)


def test_force_comes_in_three_steps() -> None:
    """What is it busy with, where is it stuck, and then SIGKILL."""
    one = serving()
    given = [orders.climb(one, "silent", now) for now in (9.0, 10.0, 15.0)]
    assert given == [Dump(one.name, "silent"), Abort(one.name, "silent"), Kill(one.name, "silent")]
    assert one.state is WorkerState.KILLED


def test_who_never_served_is_not_asked_what_it_is_busy_with() -> None:
    """It has no requests, and nobody in it who would listen."""
    one = Worker(1, 1, born=0.0, entered=0.0, heard=0.0)
    assert orders.climb(one, "hangs", 9.0) == Abort(one.name, "hangs")
    assert orders.climb(one, "hangs", 15.0) == Kill(one.name, "hangs")


def test_who_was_told_to_leave_now_is_killed_next() -> None:
    """Nobody waits for its stacks."""
    one = serving()
    orders.leave_now(one, "stop", 9.0)
    assert orders.climb(one, "stays", 15.0) == Kill(one.name, "stays")


def test_who_lingers_still_serves() -> None:
    """It is told, and remembered as told, but its state is the same."""
    one = serving()
    assert orders.linger(one, "stop") == Linger(one.name, "stop")
    assert (one.lingering, one.state) == (True, WorkerState.READY)


def test_only_orders_need_a_living_worker() -> None:
    """What is sent by signal is addressed; what is written to the log is not."""
    one = serving()
    assert orders.addressed(Kill(one.name, ""), one)
    assert orders.addressed(Reopen(one.name, ""), one)
    assert not orders.addressed(Reopen(None, ""), one)
    assert not orders.addressed(Remark(Severity.INFO, one.name, ""), one)
