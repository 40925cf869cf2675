"""Who is missing, and who is one too many."""

from __future__ import annotations

from daphne_supervisor.master.model import Action, Drain, Order, Spawn, WorkerState
from daphne_supervisor.master.policy import Settings
from daphne_supervisor.master.pool import Pool
from daphne_supervisor.master.reloads import Reloads
from daphne_supervisor.master.roster import Roster

STARTING, READY = WorkerState.STARTING, WorkerState.READY


class Stage:
    """A pool with its records."""

    def __init__(self, workers: int = 2, surge: int = 1, min_lifetime: float = 60.0) -> None:
        """Let there be as many ready workers as are wanted, since 100."""
        settings = Settings(workers, surge=surge, min_lifetime=min_lifetime)
        self.roster = Roster(workers)
        self.reloads = Reloads(self.roster, settings)
        self.pool = Pool(self.roster, self.reloads)
        self.fill(100.0)
        self.boot(100.0)
        self.reloads.settle(100.0)

    def boot(self, now: float) -> None:
        """Let everybody who boots be ready."""
        for worker in self.roster.who(STARTING):
            worker.state, worker.ready_at = READY, now

    def reload(self, now: float = 100.0) -> None:
        """Put another generation in force."""
        self.reloads.begin(self.reloads.settings, now, proven=True)

    def fill(self, now: float, *, calm: bool = True) -> list[tuple[int, str]]:
        """Return who is started and why."""
        return told(self.pool.fill(now, calm=calm), Spawn)

    def retire(self, now: float, *, calm: bool = True) -> list[tuple[int, str]]:
        """Return who is sent away and why."""
        return told(self.pool.retire(now, calm=calm), Drain)


def told(actions: list[Action], kind: type[Order]) -> list[tuple[int, str]]:
    """Return who was told and why; there must be no other kind of action."""
    assert all(type(one) is kind for one in actions)
    return [(one.name.slot, one.why) for one in actions if isinstance(one, Order)]


def test_the_target_is_filled_from_the_lowest_slot() -> None:
    """Every place is filled, once."""
    stage = Stage()
    stage.roster.workers.clear()
    assert stage.fill(100.0) == [(1, "the target is 2"), (2, "the target is 2")]
    assert stage.fill(100.0) == []


def test_a_slot_that_failed_waits() -> None:
    """The back-off is kept, and it is known when it ends."""
    stage = Stage(1)
    for now in (100.0, 101.0):
        worker = stage.roster.workers[1]
        stage.roster.blame(worker, "crashed", now)
        stage.roster.strike(worker, now)
        assert stage.pool.times(now, calm=True) != []
        started = stage.fill(now)
    assert started == []
    assert stage.pool.times(101.0, calm=True) == [101.5]
    assert stage.fill(101.5) == [(1, "replaces a worker that failed, 2 in a row")]
    assert stage.pool.times(101.5, calm=True) == []


def test_who_is_above_the_target_is_sent_away() -> None:
    """The oldest goes, and so does who boots for nothing."""
    stage = Stage(2)
    stage.roster.target = 3
    stage.fill(101.0)
    stage.roster.target = 1
    assert stage.retire(102.0) == [(1, "above the target"), (3, "it is not needed any more")]


def test_a_reload_takes_as_many_at_a_time_as_it_may() -> None:
    """New ones first; then as many of the old as have been replaced."""
    stage = Stage(4, surge=3)
    stage.reload()
    assert stage.fill(101.0) == [(slot, "reload to generation 2") for slot in (5, 6, 7)]
    assert stage.retire(101.0) == []
    stage.boot(102.0)
    assert stage.retire(102.0) == [(slot, "generation 2 is ready") for slot in (1, 2, 3)]
    assert stage.fill(102.0) == [(8, "reload to generation 2")]


def test_a_held_reload_takes_no_further_step() -> None:
    """Who boots the new code is sent away; both generations serve."""
    stage = Stage(2)
    stage.reload()
    stage.fill(101.0)
    stage.boot(102.0)
    stage.retire(102.0)
    stage.fill(102.0)
    stage.reloads.fail("broken", 103.0)
    assert stage.retire(103.0) == [(4, "it is not needed any more")]
    assert stage.fill(103.0) == []


def test_without_calm_the_pool_is_merely_kept() -> None:
    """While the master leaves, a reload starts nobody; a crash is made good."""
    stage = Stage(2)
    stage.reload()
    assert stage.fill(101.0, calm=False) == []
    del stage.roster.workers[1]
    assert [slot for slot, _ in stage.fill(101.0, calm=False)] == [1]


def test_who_is_due_is_replaced_first_and_drained_then() -> None:
    """The reason is the worker's own, and the pool is never below its target."""
    stage = Stage()
    stage.roster.workers[2].due = "--max-requests 10: 10 requests"
    assert stage.retire(160.0) == []
    assert stage.fill(160.0) == [(3, "recycles worker 2 gen 1")]
    assert stage.retire(161.0) == []
    stage.boot(162.0)
    assert stage.retire(162.0) == [(2, "recycled: --max-requests 10: 10 requests")]


def test_nobody_is_recycled_before_its_time() -> None:
    """A limit that is reached at once must not turn the service into a carousel."""
    stage = Stage()
    stage.roster.workers[2].due = "--max-requests 1"
    assert stage.fill(159.0) == []
    assert stage.pool.times(159.0, calm=True) == [160.0]
    assert stage.pool.times(159.0, calm=False) == []
    assert stage.fill(160.0, calm=False) == []
    assert [slot for slot, _ in stage.fill(160.0)] == [3]
    assert stage.pool.times(160.0, calm=True) == []


def test_one_is_recycled_at_a_time() -> None:
    """The second waits until the first is gone, not only until it was told."""
    stage = Stage()
    for worker in stage.roster.workers.values():
        worker.due = "--max-lifetime 60"
    assert len(stage.fill(200.0)) == 1
    stage.boot(201.0)
    assert [slot for slot, _ in stage.retire(201.0)] == [1]
    assert stage.fill(201.0) == []
    del stage.roster.workers[1]
    assert stage.fill(202.0) == [(1, "recycles worker 2 gen 1")]


def test_a_reload_does_the_work_of_recycling() -> None:
    """While it rolls, or is held, nobody is recycled beside it."""
    stage = Stage(2)
    stage.roster.workers[1].due = "--max-lifetime 60"
    stage.reload(200.0)
    assert stage.fill(200.0) == [(3, "reload to generation 2")]
    assert stage.pool.times(200.0, calm=True) == []
    stage.boot(201.0)
    stage.reloads.fail("broken", 202.0)
    del stage.roster.workers[2]
    assert stage.retire(202.0) == []
    assert stage.fill(202.0) == []
