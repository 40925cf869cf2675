"""The end: the warning, the drain, the hurry."""

from __future__ import annotations

from daphne_supervisor.errors import ExitCode
from daphne_supervisor.master.model import (
    CloseListeners,
    Drain,
    Kill,
    Linger,
    Order,
    Quit,
    WorkerState,
)
from daphne_supervisor.master.roster import Roster
from daphne_supervisor.master.stopping import Stop


def staffed(*states: WorkerState) -> Roster:
    """Return a roster with a worker in each of these states."""
    roster = Roster(len(states))
    for slot, state in enumerate(states, 1):
        worker = roster.admit(slot, 0.0)
        worker.state = state
        worker.ready_at = None if state is WorkerState.STARTING else 0.0
    return roster


def stop(delay: float = 0.0) -> Stop:
    """Return a stop that was asked for at 100."""
    return Stop.after(delay, 36.0, ExitCode.STOPPED, "asked to", 100.0)


def told(actions: object) -> list[tuple[type, int | None]]:
    """Return who was told what."""
    assert isinstance(actions, list)
    return [(type(one), one.name.slot if isinstance(one, Order) else None) for one in actions]


def test_it_closes_at_once_or_after_a_delay() -> None:
    """The time left is that of the delay and of the slowest worker, and never negative."""
    assert stop().closes_at == 100.0
    assert stop(10.0).closes_at == 110.0
    assert stop(10.0).time_left(101.0) == 45.0
    assert stop().time_left(200.0) == 0.0


def test_those_who_serve_are_warned_once() -> None:
    """A worker that boots could not understand it; one that drains knows."""
    roster = staffed(WorkerState.STARTING, WorkerState.READY, WorkerState.DRAINING)
    assert told(stop(10.0).linger(roster)) == [(Linger, 2)]
    assert stop(10.0).linger(roster) == []
    roster.workers[1].state = WorkerState.READY
    assert told(stop(10.0).linger(roster)) == [(Linger, 1)]


def test_winding_down_closes_and_drains() -> None:
    """The listeners are given up once, and whoever leaves already is left alone."""
    roster = staffed(
        WorkerState.STARTING, WorkerState.READY, WorkerState.DRAINING, WorkerState.ABORTING
    )
    end = stop()
    assert told(end.wind_down(roster, 100.0)) == [(CloseListeners, None), (Drain, 1), (Drain, 2)]
    assert end.closed
    assert end.wind_down(roster, 101.0) == []


def test_hurry_ends_the_delay_and_the_patience() -> None:
    """Who serves is told to leave now, who boots is killed, and everybody is told once."""
    roster = staffed(WorkerState.STARTING, WorkerState.READY, WorkerState.DRAINING)
    end = stop(10.0)
    end.hurry(104.0)
    assert end.closes_at == 104.0
    assert told(end.wind_down(roster, 104.0)) == [
        (CloseListeners, None),
        (Kill, 1),
        (Quit, 2),
        (Quit, 3),
    ]
    assert end.wind_down(roster, 105.0) == []
    end.hurry(120.0)
    assert end.closes_at == 104.0
