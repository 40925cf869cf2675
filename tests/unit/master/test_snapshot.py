"""What the master shows of itself."""

from __future__ import annotations

import json
from dataclasses import asdict

from daphne_supervisor.master.model import Fate, Worker, WorkerState
from daphne_supervisor.master.rollout import Outcome, Verdict
from daphne_supervisor.master.snapshot import Death, of_death, of_outcome, of_worker
from daphne_supervisor.messages import Heartbeat


def serving() -> Worker:
    """Return a worker that was born at 10, ready at 12 and heard at 19."""
    state = WorkerState.READY
    return Worker(2, 3, born=10.0, entered=12.0, heard=19.0, pid=7, state=state, ready_at=12.0)


def test_a_worker_is_shown_with_its_last_figures() -> None:
    """Times are told as seconds before now, figures as they were reported."""
    worker = serving()
    worker.figures, worker.due = Heartbeat(requests=5, rss=4096), "--max-requests 5"
    shown = of_worker(worker, 20.0)
    assert shown == {
        "slot": 2,
        "generation": 3,
        "pid": 7,
        "state": "ready",
        "age": 10.0,
        "ready_for": 8.0,
        "silent_for": 1.0,
        "due": "--max-requests 5",
        **asdict(Heartbeat(requests=5, rss=4096)),
    }
    assert json.loads(json.dumps(shown)) == shown


def test_a_worker_that_has_not_spoken_yet_has_no_figures() -> None:
    """Whoever reads them need not ask whether they are there."""
    shown = of_worker(Worker(1, 1, born=10.0, entered=10.0, heard=10.0), 11.0)
    assert (shown["pid"], shown["ready_for"], shown["requests"]) == (None, 0.0, 0)


def test_a_reload_is_shown_by_its_outcome() -> None:
    """How it came out, why, how long it took and how long ago that was."""
    outcome = Outcome(at=15.0, generation=2, verdict=Verdict.ROLLED_BACK, took=3.0, why="broken")
    assert of_outcome(outcome, 20.0) == {
        "generation": 2,
        "result": "rolled back",
        "why": "broken",
        "took": 3.0,
        "age": 5.0,
    }


def test_a_death_is_shown_by_its_circumstances() -> None:
    """Who died how, after which time, and whose fault it was."""
    worker = serving()
    worker.fate, worker.why = Fate.CRASHED, "crashed"
    shown = of_death(Death.of(worker, "signal SIGSEGV", 15.0), 20.0)
    assert shown == {
        "slot": 2,
        "generation": 3,
        "pid": 7,
        "how": "signal SIGSEGV",
        "why": "crashed",
        "uptime": 5.0,
        "fate": "crashed",
        "age": 5.0,
    }
