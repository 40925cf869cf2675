"""What becomes of each worker."""

from __future__ import annotations

import pytest

from daphne_supervisor.master.fates import Fates
from daphne_supervisor.master.model import (
    Abort,
    Action,
    Dump,
    Exited,
    Fate,
    Garbled,
    Kill,
    Remark,
    Reopen,
    Reported,
    Severity,
    Spawned,
    Worker,
    WorkerState,
)
from daphne_supervisor.master.policy import Patience, Settings
from daphne_supervisor.master.reloads import Reloads
from daphne_supervisor.master.roster import Roster
from daphne_supervisor.messages import BootFailed, Draining, Due, Heartbeat, Ready, Report


class Stage:
    """Two workers that boot since 0, and everything that follows them."""

    def __init__(self) -> None:
        """Begin with a pid for each."""
        self.actions: list[Action] = []
        self.roster = Roster(2)
        self.reloads = Reloads(self.roster, Settings(2, Patience()))
        self.fates = Fates(self.roster, self.reloads, self.actions)
        for slot in (1, 2):
            self.roster.admit(slot, 0.0)
            self.fates.follow(Spawned(slot, 100 + slot), 0.0)

    def hear(self, slot: int, report: Report, now: float = 5.0) -> None:
        """Let a worker say something."""
        self.fates.follow(Reported(slot, report), now)

    def both_ready(self) -> None:
        """Let both serve since 5, and forget what was said of it."""
        self.hear(1, Ready())
        self.hear(2, Ready())
        self.reloads.settle(5.0)
        self.actions.clear()

    def worker(self, slot: int = 1) -> Worker:
        """Return the record."""
        return self.roster.workers[slot]

    def said(self, severity: Severity) -> list[str]:
        """Return what was remarked this loudly."""
        remarks = [one for one in self.actions if isinstance(one, Remark)]
        return [one.why for one in remarks if one.severity is severity]


@pytest.fixture
def stage() -> Stage:
    """Return a stage."""
    return Stage()


def test_a_worker_gets_its_pid_and_its_figures(stage: Stage) -> None:
    """Whatever is heard of it is in its record."""
    stage.hear(1, Ready(), 5.0)
    stage.hear(1, Heartbeat(requests=3), 6.0)
    worker = stage.worker()
    assert (worker.pid, worker.ready_at, worker.heard) == (101, 5.0, 6.0)
    assert worker.figures == Heartbeat(requests=3)
    assert stage.said(Severity.INFO) == ["ready"]
    assert stage.fates.ever_ready


def test_a_worker_is_due_once(stage: Stage) -> None:
    """The first reason is the reason."""
    stage.both_ready()
    stage.hear(1, Due("--max-requests 5: 5 requests"))
    stage.hear(1, Due("--max-lifetime 9"))
    assert stage.worker().due == "--max-requests 5: 5 requests"
    assert stage.said(Severity.INFO) == ["is due to be replaced: --max-requests 5: 5 requests"]


def test_a_worker_that_drains_by_itself_ends_as_planned(stage: Stage) -> None:
    """It was asked by somebody else, and says so once."""
    stage.both_ready()
    stage.hear(1, Draining("SIGTERM"))
    stage.hear(1, Draining("again"))
    assert (stage.worker().fate, stage.worker().why) == (Fate.PLANNED, "SIGTERM")
    assert stage.said(Severity.INFO) == ["drains by itself: SIGTERM"]


def test_who_does_not_boot_at_the_start_is_the_end(stage: Stage) -> None:
    """It is said once, however many fail, and what happens then is for others to decide."""
    stage.hear(1, BootFailed("no\nmodule", "Traceback ..."))
    stage.hear(2, BootFailed("no module", "Traceback ..."))
    assert stage.fates.hopeless == "no module"
    assert stage.said(Severity.CRITICAL) == ["no module"]
    assert stage.said(Severity.ERROR) == ["the application failed"]


def test_a_late_boot_failure_of_one_that_leaves_is_no_news(stage: Stage) -> None:
    """Its end is decided."""
    stage.both_ready()
    stage.hear(1, Draining("SIGTERM"))
    stage.actions.clear()
    stage.hear(1, BootFailed("late"))
    assert stage.actions == []


def test_nothing_is_hopeless_when_the_end_is_decided(stage: Stage) -> None:
    """Who stops anyway does not complain of workers that do not boot."""
    stage.fates.final = True
    stage.hear(1, BootFailed("no module"))
    assert stage.fates.hopeless == ""
    assert stage.actions == []


def test_a_failure_of_another_generation_is_none_of_ours(stage: Stage) -> None:
    """A reload is not judged by code that it has just replaced."""
    stage.hear(1, Ready())
    stage.reloads.begin(stage.reloads.settings, 6.0, proven=True)
    stage.actions.clear()
    stage.hear(2, BootFailed("no module"))
    assert stage.actions == []


def test_a_failure_after_the_start_shows_its_traceback_once_for_each_reload(stage: Stage) -> None:
    """A slot that is tried again and again does not fill the log."""
    stage.hear(1, Ready())
    stage.hear(2, BootFailed("no module", "Traceback ..."))
    for slot in (3, 4):
        stage.roster.admit(slot, 6.0)
        stage.hear(slot, BootFailed("no module", "Traceback ..."))
    stage.reloads.begin(stage.reloads.settings, 7.0, proven=True)
    stage.roster.admit(5, 7.0)
    stage.hear(5, BootFailed("no module", "Traceback ..."))
    failures = [one for one in stage.actions if isinstance(one, Remark) and one.name]
    details = [one.detail for one in failures if one.severity is Severity.ERROR]
    assert details == ["Traceback ...", "", "", "Traceback ..."]
    assert any("rolled back" in line for line in stage.said(Severity.ERROR))


def test_a_crash_is_loud_and_remembered(stage: Stage) -> None:
    """The line names the signal, the time and the reason; the death is kept."""
    stage.both_ready()
    stage.fates.follow(Exited(1, "signal SIGSEGV"), 25.0)
    assert stage.said(Severity.ERROR) == ["gone, signal SIGSEGV after 25.0 s: crashed"]
    assert list(stage.roster.workers) == [2]
    (death,) = stage.fates.deaths
    assert (death.slot, death.how, death.fate, death.uptime) == (1, "signal SIGSEGV", "crashed", 25)


def test_a_planned_end_is_not_loud(stage: Stage) -> None:
    """Nobody is woken for it."""
    stage.both_ready()
    stage.hear(1, Draining("SIGTERM"))
    stage.fates.follow(Exited(1, "exit code 0"), 25.0)
    assert stage.said(Severity.ERROR) == []
    assert stage.fates.deaths[-1].fate == "planned"


def test_a_death_before_ready_is_a_failure_to_boot(stage: Stage) -> None:
    """A worker that cannot even report is described by how it died."""
    stage.fates.follow(Exited(1, "exit code 1"), 2.0)
    assert stage.fates.hopeless == "worker 1 died before it was ready: exit code 1"


def test_the_dead_are_given_no_orders(stage: Stage) -> None:
    """What this very step has decided for it is taken back."""
    stage.both_ready()
    stage.fates.follow(Garbled(1, "not JSON"), 6.0)
    assert [type(one) for one in stage.actions] == [Kill]
    stage.fates.follow(Exited(1, "signal SIGKILL"), 6.0)
    assert not [one for one in stage.actions if isinstance(one, Kill)]


def test_nonsense_is_answered_once(stage: Stage) -> None:
    """Nobody is killed twice."""
    stage.both_ready()
    for _ in range(2):
        stage.fates.follow(Garbled(1, "not JSON"), 6.0)
    assert [type(one) for one in stage.actions] == [Kill]


def test_who_speaks_out_of_turn_is_killed(stage: Stage) -> None:
    """To be ready twice is as mad as nonsense."""
    stage.both_ready()
    stage.hear(1, Ready())
    (kill,) = stage.actions
    assert isinstance(kill, Kill)
    assert "spoke out of turn" in kill.why


def test_silence_is_answered_step_by_step(stage: Stage) -> None:
    """What is it busy with, where is it stuck, and then the end; each reason is kept."""
    stage.both_ready()
    stage.hear(2, Heartbeat(), 30.0)
    for now in (34.0, 35.0, 36.0, 41.0, 99.0):
        stage.hear(2, Heartbeat(), now)
        stage.fates.expire(now)
    assert [type(one) for one in stage.actions] == [Dump, Abort, Kill]
    why = stage.worker().why.split("; ")
    assert [each.split(" ")[0] for each in why] == ["sent", "did", "did"]
    assert stage.worker().fate is Fate.CRASHED
    assert stage.worker().state is WorkerState.KILLED


def test_a_hang_in_the_boot_is_a_failure_to_boot(stage: Stage) -> None:
    """It has no requests to name, so it is aborted at once."""
    stage.hear(2, Ready())
    stage.actions.clear()
    stage.hear(2, Heartbeat(), 59.0)
    stage.fates.expire(60.0)
    assert [type(one) for one in stage.actions if not isinstance(one, Remark)] == [Abort]
    (line,) = stage.said(Severity.ERROR)
    assert line == "boot failed: worker 1 was not ready within 60 s (--ready-timeout)"


def test_the_patience_is_that_of_the_settings_in_force(stage: Stage) -> None:
    """A reload changes it for those who live already."""
    stage.both_ready()
    settings = Settings(2, Patience(heartbeat=10.0))
    stage.reloads.begin(settings, 6.0, proven=True)
    stage.fates.expire(15.0)
    assert [type(one) for one in stage.actions] == [Dump, Dump]


def test_forgiveness_is_said_and_given(stage: Stage) -> None:
    """Everybody's patience begins anew."""
    stage.both_ready()
    stage.fates.forgive("the master was 99 s late", 104.0)
    stage.fates.expire(105.0)
    assert stage.said(Severity.WARNING) == ["the master was 99 s late"]
    assert not [one for one in stage.actions if isinstance(one, Dump)]


def test_logs_are_reopened_now_or_when_ready(stage: Stage) -> None:
    """A worker that boots could not understand the signal yet."""
    stage.hear(1, Ready())
    stage.actions.clear()
    stage.fates.reopen()
    stage.hear(2, Ready())
    names = [one.name for one in stage.actions if isinstance(one, Reopen)]
    assert [name and name.slot for name in names] == [1, 2]


def test_a_ready_that_comes_too_late_is_no_welcome(stage: Stage) -> None:
    """It crossed the order to leave."""
    worker = stage.worker()
    worker.state, worker.fate = WorkerState.DRAINING, Fate.PLANNED
    stage.hear(1, Ready())
    assert (worker.state, worker.ready_at) == (WorkerState.DRAINING, 5.0)
    assert stage.actions == []
    assert not stage.fates.ever_ready


def test_an_unknown_slot_is_a_bug(stage: Stage) -> None:
    """News of somebody who was never spawned raises."""
    with pytest.raises(KeyError):
        stage.fates.follow(Exited(9, "exit code 0"), 1.0)
