"""Which generation is in force, which one to return to, and what is given up."""

from __future__ import annotations

from dataclasses import replace

from daphne_supervisor.master.model import Action, KeepZygotes, Remark, Severity, WorkerState
from daphne_supervisor.master.policy import Settings
from daphne_supervisor.master.reloads import Reloads
from daphne_supervisor.master.rollout import RolloutState, Verdict
from daphne_supervisor.master.roster import Roster

SETTINGS = Settings(workers=2)


def running() -> tuple[Roster, Reloads]:
    """Return two ready workers of a complete first generation."""
    roster = Roster(2)
    reloads = Reloads(roster, SETTINGS)
    staff(roster)
    reloads.settle(5.0)
    return roster, reloads


def staff(roster: Roster) -> None:
    """Let there be exactly the target of ready workers, of the generation in force."""
    roster.workers.clear()
    for slot in range(1, roster.target + 1):
        roster.admit(slot, 0.0).state = WorkerState.READY


def said(actions: list[Action]) -> list[tuple[Severity, str]]:
    """Return the remarks."""
    return [(each.severity, each.why) for each in actions if isinstance(each, Remark)]


def kept(reloads: Reloads) -> list[set[int]]:
    """Return which generations are kept, if some are given up now."""
    return [{*each.generations} for each in reloads.tidy() if isinstance(each, KeepZygotes)]


def test_the_first_generation_is_complete_once() -> None:
    """That is no reload, so it has no outcome."""
    roster = Roster(2)
    reloads = Reloads(roster, SETTINGS)
    assert reloads.settle(1.0) == []
    staff(roster)
    assert said(reloads.settle(2.0)) == [(Severity.INFO, "generation 1 is complete")]
    assert reloads.settle(3.0) == []
    assert not reloads.rollout.outcomes
    assert kept(reloads) == []


def test_a_reload_that_is_done() -> None:
    """The line says in which time; the old generation can go, and only then."""
    roster, reloads = running()
    begun = reloads.begin(SETTINGS, 10.0, proven=True)
    assert said(begun) == [(Severity.INFO, "reload to generation 2")]
    assert kept(reloads) == []
    staff(roster)
    done = reloads.settle(13.5)
    assert said(done) == [(Severity.INFO, "reload to generation 2 done in 3.5 s")]
    assert kept(reloads) == [{2}]
    assert kept(reloads) == []


def test_new_code_that_does_not_boot_is_rolled_back() -> None:
    """Generation, settings and what they brought are those from before; the number only grows."""
    roster, reloads = running()
    reloads.begin(replace(SETTINGS, surge=3), 10.0, proven=True)
    assert reloads.settings.surge == 3
    failed = reloads.fail("no module", 12.0)
    text = "reload to generation 2 failed and was rolled back after 2.0 s: no module"
    assert said(failed) == [(Severity.ERROR, text)]
    assert reloads.settings == SETTINGS
    assert roster.generation == 1
    assert reloads.rollout.state is RolloutState.STEADY
    assert kept(reloads) == [{1}]
    reloads.begin(SETTINGS, 20.0, proven=True)
    assert roster.generation == 3


def test_new_code_that_boots_here_and_there_is_held() -> None:
    """What is ready stays, and both generations may still be needed."""
    roster, reloads = running()
    reloads.begin(replace(SETTINGS, surge=3), 10.0, proven=True)
    roster.admit(3, 11.0).state = WorkerState.READY
    text = "reload to generation 2 held after 2.0 s: no module"
    assert said(reloads.fail("no module", 12.0)) == [(Severity.ERROR, text)]
    assert (roster.generation, reloads.settings.surge) == (2, 3)
    assert reloads.rollout.state is RolloutState.HELD
    assert kept(reloads) == []
    assert reloads.fail("no module", 13.0) == []


def test_a_held_reload_whose_last_worker_is_gone_is_rolled_back() -> None:
    """Nothing of the new code is left, so what crashes now is replaced by the old."""
    roster, reloads = running()
    reloads.begin(SETTINGS, 10.0, proven=True)
    roster.admit(3, 11.0).state = WorkerState.READY
    reloads.fail("no module", 12.0)
    del roster.workers[3]
    reloads.fail("no module", 13.0)
    assert roster.generation == 1
    verdicts = [outcome.verdict for outcome in reloads.rollout.outcomes]
    assert verdicts == [Verdict.HELD, Verdict.ROLLED_BACK]


def test_a_held_reload_may_still_be_done() -> None:
    """If the workers come up after all, there is nothing left to complain of."""
    roster, reloads = running()
    reloads.begin(SETTINGS, 10.0, proven=True)
    roster.admit(3, 11.0).state = WorkerState.READY
    reloads.fail("no database", 12.0)
    staff(roster)
    assert said(reloads.settle(20.0)) == [(Severity.INFO, "reload to generation 2 done in 10.0 s")]
    assert kept(reloads) == [{2}]


def test_failures_outside_a_reload_change_nothing() -> None:
    """Old code that suddenly does not boot has nothing to return to."""
    roster, reloads = running()
    assert reloads.fail("no database", 12.0) == []
    assert (roster.generation, reloads.rollout.state) == (1, RolloutState.STEADY)


def test_a_reload_supersedes_the_one_before() -> None:
    """The one in the middle can go; the last complete one stays, to be returned to."""
    roster, reloads = running()
    reloads.begin(replace(SETTINGS, surge=2), 10.0, proven=True)
    begun = reloads.begin(replace(SETTINGS, surge=3), 11.0, proven=True)
    assert said(begun) == [
        (Severity.INFO, "reload to generation 2 superseded by generation 3 after 1.0 s"),
        (Severity.INFO, "reload to generation 3"),
    ]
    assert kept(reloads) == [{1, 3}]
    reloads.fail("no module", 12.0)
    assert (roster.generation, reloads.settings) == (1, SETTINGS)
    assert kept(reloads) == [{1}]


def test_a_reload_before_anything_has_worked_has_no_way_back() -> None:
    """Nobody knows whether the first generation would boot."""
    roster = Roster(2)
    reloads = Reloads(roster, SETTINGS)
    reloads.begin(SETTINGS, 10.0, proven=False)
    assert kept(reloads) == [{2}]
    reloads.fail("no module", 12.0)
    assert (roster.generation, reloads.rollout.state) == (2, RolloutState.HELD)


def test_a_refused_reload_changes_nothing() -> None:
    """It is over at once, and failed."""
    roster, reloads = running()
    said_so = said(reloads.refuse("shop.toml:3: no such option", 10.0))
    assert said_so == [(Severity.ERROR, "reload refused: shop.toml:3: no such option")]
    assert reloads.rollout.failed
    assert (roster.generation, reloads.rollout.state) == (1, RolloutState.STEADY)
    assert reloads.rollout.outcomes[-1].took == 0.0


def test_a_reload_makes_way_for_what_is_more_important() -> None:
    """A reload in progress is held and not loudly so; without one there is nothing to say."""
    _, reloads = running()
    assert reloads.preempt("the master was asked to stop", 9.0) == []
    reloads.begin(SETTINGS, 10.0, proven=True)
    text = "reload to generation 2 held after 1.0 s: the master was asked to stop"
    said_so = said(reloads.preempt("the master was asked to stop", 11.0))
    assert said_so == [(Severity.INFO, text)]


def test_the_number_of_workers_is_the_operator_s_until_the_configuration_changes_it() -> None:
    """TTIN and TTOU outlive a reload whose configuration says what it said before."""
    roster, reloads = running()
    roster.target = 5
    reloads.begin(replace(SETTINGS, surge=2), 10.0, proven=True)
    assert roster.target == 5
    reloads.begin(replace(SETTINGS, workers=3), 11.0, proven=True)
    assert roster.target == 3


def test_a_roll_back_restores_the_number_of_workers() -> None:
    """It is what TTIN had made of it, not what the old configuration said."""
    roster, reloads = running()
    roster.target = 5
    reloads.begin(replace(SETTINGS, workers=3), 10.0, proven=True)
    reloads.fail("no module", 11.0)
    assert roster.target == 5


def test_a_roll_back_keeps_what_was_asked_for_meanwhile() -> None:
    """TTIN during a reload that changes no number has nothing to do with its failure."""
    roster, reloads = running()
    reloads.begin(SETTINGS, 10.0, proven=True)
    roster.target = 5
    reloads.fail("no module", 11.0)
    assert roster.target == 5
