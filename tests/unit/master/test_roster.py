"""Who there is, who there should be, and where the next one goes."""

from __future__ import annotations

from daphne_supervisor.master.model import Fate, WorkerState
from daphne_supervisor.master.policy import Restarts
from daphne_supervisor.master.roster import Roster


def staffed(target: int, count: int, state: WorkerState = WorkerState.READY) -> Roster:
    """Return a roster with workers in the slots from 1 on, all in `state`."""
    roster = Roster(target)
    for slot in range(1, count + 1):
        worker = roster.admit(slot, float(slot))
        worker.state = state
        worker.ready_at = float(slot)
    return roster


def test_an_empty_roster_has_every_place_vacant() -> None:
    """The first workers take the slots from 1 on."""
    assert Roster(3).vacant(3) == [1, 2, 3]


def test_the_lowest_free_slot_comes_first() -> None:
    """A replacement takes the place of the one it replaces."""
    roster = staffed(3, 3)
    roster.strike(roster.workers[2], 10.0)
    assert roster.vacant(3) == [2]


def test_a_new_generation_makes_everybody_stale() -> None:
    """Those who are ready are counted; one more than there are is put in a slot of its own."""
    roster = staffed(3, 3)
    assert roster.stale_ready() == 0
    assert roster.vacant(3) == []
    roster.begin_generation()
    roster.admit(5, 5.0)
    assert roster.stale_ready() == 3
    assert roster.vacant(5) == [4]


def test_an_older_generation_can_be_returned_to() -> None:
    """The newer workers are the stale ones then, and the next generation has a new number."""
    roster = staffed(1, 1)
    roster.begin_generation()
    roster.admit(2, 5.0).state = WorkerState.READY
    roster.blame(roster.workers[2], "crashed", 6.0)
    roster.return_to(1)
    assert [roster.stale(worker) for worker in roster.workers.values()] == [False, True]
    assert [worker.slot for worker in roster.surplus()] == [2]
    assert roster.memory(2) == Restarts()
    roster.begin_generation()
    assert roster.generation == 3


def test_a_draining_worker_keeps_its_slot_but_not_its_place() -> None:
    """Its successor starts while it still finishes its requests, under another number."""
    roster = staffed(1, 1, WorkerState.DRAINING)
    roster.workers[1].fate = Fate.PLANNED
    assert roster.vacant(1) == [2]
    roster.workers[1].fate = Fate.CRASHED
    assert roster.vacant(1) == []


def test_the_stalest_retires_first_then_the_oldest() -> None:
    """A reload replaces the old generation before it touches the new one."""
    roster = staffed(1, 2)
    roster.begin_generation()
    roster.admit(3, 0.5).state = WorkerState.READY
    assert [worker.slot for worker in roster.surplus()] == [1, 2]
    roster.target = 3
    assert roster.surplus() == []


def test_who_boots_for_nothing_is_found() -> None:
    """All stale ones, and of the others the youngest, as many as there are too many."""
    roster = staffed(3, 3, WorkerState.STARTING)
    assert roster.superfluous(3) == []
    assert [worker.slot for worker in roster.superfluous(2)] == [3]
    roster.begin_generation()
    assert [worker.slot for worker in roster.superfluous(3)] == [1, 2, 3]


def test_who_is_recycled_goes_before_older_ones_but_after_the_stale() -> None:
    """It is the one that has been replaced."""
    roster = staffed(0, 3)
    recycled = roster.workers[2]
    assert [worker.slot for worker in roster.surplus(recycled)] == [2, 1, 3]
    recycled.generation = roster.generation = 2
    assert [worker.slot for worker in roster.surplus(recycled)] == [1, 3, 2]


def test_the_oldest_that_is_due_and_has_lived_is_ripe() -> None:
    """Due is not enough, and neither is age; it is known when it will be."""
    roster = staffed(3, 3)
    assert roster.ripe(60.0, 1000.0) is None
    for slot in (2, 3):
        roster.workers[slot].due = "--max-requests"
    assert roster.ripe(60.0, 61.9) is None
    assert roster.ripens(60.0, 61.9) == [62.0, 63.0]
    assert roster.ripe(60.0, 63.0) is roster.workers[2]
    assert roster.ripens(60.0, 62.0) == [63.0]


def test_nobody_is_ripe_while_another_leaves_or_all_are_replaced() -> None:
    """One at a time; and a reload goes before."""
    roster = staffed(2, 2)
    for worker in roster.workers.values():
        worker.due = "--max-requests"
    roster.workers[1].state = WorkerState.ABORTING
    assert roster.ripe(0.0, 1000.0) is None
    del roster.workers[1]
    assert roster.ripe(0.0, 1000.0) is roster.workers[2]
    roster.begin_generation()
    assert roster.ripe(0.0, 1000.0) is None


def test_settled_means_enough_and_nobody_stale() -> None:
    """A reload is over when the target is met by the new generation alone."""
    roster = staffed(2, 2)
    assert roster.enough
    assert roster.settled()
    roster.target = 3
    assert not roster.enough
    assert not roster.settled()
    roster.target = 2
    roster.begin_generation()
    assert not roster.settled()


def test_a_slot_remembers_failures() -> None:
    """Blame outlives the worker, and is charged to its slot alone."""
    roster = staffed(2, 2)
    roster.blame(roster.workers[1], "crashed", 5.0)
    roster.strike(roster.workers[1], 100.0)
    assert roster.memory(1) == Restarts(1, 5.0)
    assert roster.memory(2) == Restarts()


def test_a_planned_end_after_a_stable_life_clears_the_slot() -> None:
    """Failures before a good long life are no reason to make its successor wait."""
    roster = staffed(2, 2)
    for worker, end in ((roster.workers[1], 100.0), (roster.workers[2], 10.0)):
        roster.blame(worker, "crashed", 5.0)
        worker.fate = Fate.PLANNED
        roster.strike(worker, end)
    assert roster.memory(1) == Restarts()
    assert roster.memory(2).failures == 1


def test_a_new_generation_has_a_clean_record() -> None:
    """What failed was other code."""
    roster = staffed(1, 1)
    roster.blame(roster.workers[1], "crashed", 5.0)
    roster.begin_generation()
    assert roster.memory(1) == Restarts()
