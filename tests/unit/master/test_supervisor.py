"""The decisions, one story each, played in a simulated world."""

from __future__ import annotations

import pytest

from daphne_supervisor.errors import ExitCode
from daphne_supervisor.master.model import (
    Abort,
    Action,
    Announce,
    CloseListeners,
    Command,
    Dismiss,
    Drain,
    Dump,
    Exited,
    Garbled,
    Halt,
    HandOver,
    KeepZygotes,
    Kill,
    Launch,
    Linger,
    Milestone,
    Quit,
    Reassure,
    Reconfigured,
    ReloadRefused,
    Remark,
    Reopen,
    Severity,
    Spawn,
    SuccessorReady,
    TakeBack,
    WorkerState,
)
from daphne_supervisor.master.policy import Patience, Settings
from daphne_supervisor.master.supervisor import Supervisor
from daphne_supervisor.messages import BootFailed, Draining, Due, Heartbeat, Ready
from tests.support.world import Temper, World

PATIENCE = Patience(boot=60, heartbeat=30, graceful=25)


def started(given: int | Settings = 2) -> World:
    """Return a world in which the first generation is ready."""
    settings = Settings(given, PATIENCE) if isinstance(given, int) else given
    world = World(Supervisor(settings))
    world.advance(1)
    world.history.clear()
    return world


def slots(actions: list[Action], kind: type[Action]) -> list[int]:
    """Return the slots that actions of one kind are for, in order."""
    return [each.name.slot for each in actions if isinstance(each, kind)]  # type: ignore[union-attr]


def milestones(actions: list[Action]) -> list[Milestone]:
    """Return the milestones that were announced."""
    return [each.milestone for each in actions if isinstance(each, Announce) and each.milestone]


def failures(actions: list[Action]) -> list[tuple[Milestone, bool]]:
    """Return the milestones that were announced, and whether as the end of a failed reload."""
    told = [each for each in actions if isinstance(each, Announce)]
    return [(each.milestone, each.failed) for each in told if each.milestone]


def reassured(actions: list[Action]) -> bool:
    """Return whether the service manager was told that all is well."""
    return any(isinstance(each, Reassure) for each in actions)


def remarks(actions: list[Action], severity: Severity) -> list[str]:
    """Return what was remarked with this severity."""
    return [each.why for each in actions if isinstance(each, Remark) and each.severity is severity]


# The start


def test_ready_is_announced_when_everybody_is() -> None:
    """One worker of two is not enough to call the service up."""
    world = World(Supervisor(Settings(2, PATIENCE)))
    world.turn()
    assert world.supervisor.status == "0/2 workers ready, generation 1"
    world.says(world.processes[1], Ready())
    assert milestones(world.turn()) == []
    world.says(world.processes[2], Ready())
    assert milestones(world.turn()) == [Milestone.READY]
    assert world.supervisor.status == "2/2 workers ready, generation 1"


def test_broken_code_at_the_start_ends_the_master() -> None:
    """One line says why, one traceback shows where, and the exit code is 3 with any count."""
    world = World(Supervisor(Settings(4, PATIENCE)))
    world.temper = Temper.BROKEN
    done = world.advance(10)
    assert remarks(done, Severity.CRITICAL) == ["no such module"]
    assert [each.detail for each in done if isinstance(each, Remark) and each.detail] == [
        "Traceback ..."
    ]
    assert world.halt == Halt(ExitCode.BOOT_FAILED, "boot failed: no such module")
    assert slots(done, Spawn) == [1, 2, 3, 4]
    assert world.supervisor.status == "boot failed: no such module"


def test_a_reason_is_made_one_line_and_needs_no_traceback() -> None:
    """A mistake on the command line has a reason only."""
    world = World(Supervisor(Settings(1, PATIENCE)))
    world.turn()
    world.says(world.processes[1], BootFailed("bad\n  key"))
    done = world.turn()
    assert remarks(done, Severity.CRITICAL) == ["bad key"]
    assert remarks(done, Severity.ERROR) == []


def test_death_before_ready_at_the_start_ends_the_master() -> None:
    """A worker that cannot even report is described by how it died."""
    world = World(Supervisor(Settings(2, PATIENCE)))
    world.temper = Temper.DYING
    done = world.advance(10)
    assert remarks(done, Severity.CRITICAL) == ["worker 1 died before it was ready: exit code 1"]
    assert world.halt is not None
    assert world.halt.code == ExitCode.BOOT_FAILED


def test_a_hang_at_the_start_ends_the_master() -> None:
    """The boot timeout is a failure to boot, not a reason to start another one."""
    world = World(Supervisor(Settings(2, PATIENCE)))
    world.temper = Temper.HANGING
    done = world.advance(70)
    assert slots(done, Spawn) == [1, 2]
    assert slots(done, Abort) == [1, 2]
    assert remarks(done, Severity.CRITICAL) == [
        "worker 1 was not ready within 60 s (--ready-timeout)"
    ]
    assert world.halt is not None


def test_a_failure_after_the_first_ready_worker_is_a_crash() -> None:
    """Once the code has proved to boot, the master never gives up."""
    world = World(Supervisor(Settings(2, PATIENCE)))
    world.turn()
    world.says(world.processes[1], Ready())
    world.turn()
    world.ends(world.processes[2], "exit code 1")
    world.turn()
    world.advance(5)
    assert world.halt is None
    assert world.supervisor.status == "2/2 workers ready, generation 1"


# Crashes


@pytest.mark.parametrize("how", ["signal SIGKILL", "exit code 0"])
def test_a_crashed_worker_is_replaced_at_once_in_its_slot(how: str) -> None:
    """Any end that nobody asked for is a crash, a clean exit too."""
    world = started()
    world.ends(world.processes[1], how)
    done = world.turn()
    assert slots(done, Spawn) == [1]
    (line,) = remarks(done, Severity.ERROR)
    assert line == f"gone, {how} after 1.0 s: crashed"


def test_a_crash_loop_is_slowed_down() -> None:
    """The second replacement of a slot waits, and the deadline says until when."""
    world = started(1)
    for _ in range(2):
        world.ends(world.processes[1], "signal SIGSEGV")
        world.turn()
        world.turn()
    assert world.processes == {}
    assert world.supervisor.deadline() == world.now + 0.5
    assert slots(world.advance(0.5), Spawn) == [1]


def test_a_silent_worker_is_dumped_aborted_killed_and_replaced() -> None:
    """A blocked event loop is asked what it does, ended and replaced, and the log says why."""
    world = started()
    world.processes[2].temper = Temper.STUBBORN
    world.processes[2].blocked = True
    world.processes[2].beats_at = float("inf")
    done = world.advance(60)
    assert slots(done, Abort) == [2]
    assert slots(done, Kill) == [2]
    assert slots(done, Spawn) == [2]
    (dump,) = [each for each in done if isinstance(each, Dump)]
    assert dump.why == "sent no heartbeat for 30 s (--worker-timeout): its event loop is blocked"


def test_heartbeats_are_kept() -> None:
    """The last figures of a worker are at hand."""
    world = started(1)
    world.says(world.processes[1], Heartbeat(requests=9))
    world.turn()
    assert world.supervisor.roster.workers[1].figures == Heartbeat(requests=9)


def test_a_worker_that_writes_nonsense_is_killed() -> None:
    """It is the worker that suffers, once, and not the master."""
    world = started()
    world.post(Garbled(1, "not JSON"), Garbled(1, "not JSON"))
    done = world.turn()
    assert slots(done, Kill) == [1]
    assert slots(world.turn(), Spawn) == [1]


def test_a_worker_that_speaks_out_of_turn_is_killed() -> None:
    """Saying twice that one is ready is as mad as nonsense."""
    world = started()
    world.says(world.processes[1], Ready())
    done = world.turn()
    assert slots(done, Kill) == [1]
    assert "out of turn" in next(each.why for each in done if isinstance(each, Kill))


def test_the_dead_are_given_no_orders() -> None:
    """A worker whose last words and death arrive together is only buried."""
    world = started()
    world.post(Garbled(1, "not JSON"))
    world.ends(world.processes[1], "exit code 1")
    done = world.turn()
    assert slots(done, Kill) == []
    assert slots(done, Spawn) == [1]


def test_a_worker_that_drains_by_itself_is_replaced_as_planned() -> None:
    """Somebody else asked it to leave, and it said so."""
    world = started()
    world.says(world.processes[1], Draining("SIGTERM"))
    done = world.turn()
    assert slots(done, Spawn) == [3]
    world.ends(world.processes[1], "exit code 0")
    done = world.turn()
    assert remarks(done, Severity.ERROR) == []
    assert "gone, exit code 0 after 1.0 s: SIGTERM" in remarks(done, Severity.INFO)


# Reload


def test_a_reload_replaces_one_by_one_and_new_before_old() -> None:
    """There is one worker above the target, and never one below it."""
    world = started()
    world.post(Command.RELOAD)
    done = world.advance(5)
    order = [(type(each), each.name.slot) for each in done if isinstance(each, Spawn | Drain)]
    assert order == [(Spawn, 3), (Drain, 1), (Spawn, 4), (Drain, 2)]
    assert milestones(done) == [Milestone.RELOADING, Milestone.READY]
    assert world.supervisor.status == "2/2 workers ready, generation 2; reload done"


def test_broken_new_code_leaves_the_old_workers() -> None:
    """The reload is over, and failed; nothing was taken away; the log and the status say why."""
    world = started()
    world.temper = Temper.BROKEN
    world.post(Command.RELOAD)
    done = world.advance(100)
    assert slots(done, Drain) == []
    assert slots(done, Spawn) == [3]
    assert milestones(done) == [Milestone.RELOADING, Milestone.READY]
    assert len(remarks(done, Severity.ERROR)) == 2
    status = "2/2 workers ready, generation 1; reload failed, rolled back: no such module"
    assert world.supervisor.status == status


def test_hanging_new_code_leaves_the_old_workers() -> None:
    """A hang in the boot is found by its own timeout, and started once."""
    world = started()
    world.temper = Temper.HANGING
    world.post(Command.RELOAD)
    done = world.advance(200)
    assert slots(done, Spawn) == [3]
    assert slots(done, Abort) == [3]
    assert "rolled back: worker 3 was not ready within 60 s" in world.supervisor.status


def test_the_next_reload_tries_again() -> None:
    """A held reload is taken up by the next one, with whatever code is there by then."""
    world = started()
    world.temper = Temper.BROKEN
    world.post(Command.RELOAD)
    world.advance(100)
    world.temper = Temper.GOOD
    world.post(Command.RELOAD)
    world.advance(5)
    assert world.supervisor.status == "2/2 workers ready, generation 3; reload done"


def test_a_second_reload_does_not_wait_for_a_hanging_first() -> None:
    """Fixed code is started at once; who boots the bad code is sent away."""
    world = started()
    world.temper = Temper.HANGING
    world.post(Command.RELOAD)
    world.advance(5)
    world.temper = Temper.GOOD
    world.post(Command.RELOAD)
    done = world.advance(5)
    assert slots(done, Drain)[0] == 3
    assert world.supervisor.status == "2/2 workers ready, generation 3; reload done"


def test_a_failure_of_an_older_generation_holds_nothing() -> None:
    """A reload is not judged by code that it has just replaced."""
    world = started()
    world.post(Command.RELOAD)
    world.turn()
    world.post(Command.RELOAD)
    world.says(world.processes[3], BootFailed("old news"))
    world.ends(world.processes[3], "exit code 3")
    world.turn()
    world.advance(5)
    assert world.supervisor.status == "2/2 workers ready, generation 3; reload done"


def test_a_failure_of_a_worker_that_was_sent_away_counts_for_nothing() -> None:
    """It was leaving anyway."""
    world = started()
    world.processes[1].temper = Temper.STUBBORN
    world.says(world.processes[1], Draining("somebody asked"))
    world.turn()
    world.says(world.processes[1], BootFailed("late"))
    assert remarks(world.turn(), Severity.ERROR) == []


def test_crashes_during_a_held_reload_back_off_and_show_the_traceback_once() -> None:
    """The slot is tried again with growing pauses, and the log does not fill up with stacks."""
    world = started()
    world.temper = Temper.BROKEN
    world.post(Command.RELOAD)
    world.advance(5)
    world.history.clear()
    world.ends(world.processes[1], "signal SIGKILL")
    done = world.advance(60)
    assert 3 <= len(slots(done, Spawn)) <= 8
    assert set(slots(done, Spawn)) == {1}
    assert [each for each in done if isinstance(each, Remark) and each.detail] == []
    world.temper = Temper.GOOD
    world.advance(40)
    assert world.supervisor.status.startswith("2/2 workers ready, generation 1; reload failed")


def test_a_reload_before_anybody_is_ready_starts_anew() -> None:
    """The new code is what comes up, and the service manager hears of one start."""
    world = World(Supervisor(Settings(2, PATIENCE)))
    world.turn()
    world.post(Command.RELOAD)
    done = world.advance(5)
    assert milestones(done) == [Milestone.READY]
    assert world.supervisor.status == "2/2 workers ready, generation 2; reload done"


def test_a_ready_that_crosses_the_order_to_drain_is_normal() -> None:
    """The worker drains all the same."""
    world = World(Supervisor(Settings(1, PATIENCE)))
    world.temper = Temper.STUBBORN
    world.turn()
    world.post(Command.RELOAD)
    world.turn()
    world.says(world.processes[1], Ready())
    world.turn()
    assert world.supervisor.roster.workers[1].state is WorkerState.DRAINING


# Scaling


def test_more_and_fewer() -> None:
    """The target moves by one, never below one, and survives a reload."""
    world = started()
    world.post(Command.MORE)
    world.advance(1)
    assert world.supervisor.status == "3/3 workers ready, generation 1"
    world.post(Command.RELOAD)
    world.advance(5)
    assert world.supervisor.status == "3/3 workers ready, generation 2; reload done"
    world.post(Command.FEWER, Command.FEWER, Command.FEWER)
    world.advance(5)
    assert world.supervisor.status == "1/1 workers ready, generation 2; reload done"


def test_who_boots_for_nothing_is_sent_away() -> None:
    """More and fewer in quick succession do not wait for a boot nobody needs."""
    world = started()
    world.post(Command.MORE)
    world.turn()
    world.post(Command.FEWER)
    assert slots(world.turn(), Drain) == [3]


# Logs


def test_reopen_reaches_everybody_now_or_when_ready() -> None:
    """A worker that boots could not understand the signal yet, and gets it later."""
    world = started()
    world.post(Command.MORE)
    world.turn()
    world.post(Command.REOPEN)
    done = world.turn()
    names = [each.name for each in done if isinstance(each, Reopen)]
    assert [name and name.slot for name in names] == [None, 1, 2]
    later = [each.name for each in world.advance(1) if isinstance(each, Reopen)]
    assert [name and name.slot for name in later] == [3]


# The stop


def test_stop_drains_and_halts_when_all_are_buried() -> None:
    """Listeners are given up first; the code is 0; the deadline is none."""
    world = started()
    world.post(Command.DRAIN)
    done = world.advance(5)
    kinds = [type(each) for each in done if isinstance(each, CloseListeners | Drain | Halt)]
    assert kinds == [CloseListeners, Drain, Drain, Halt]
    assert milestones(done) == [Milestone.STOPPING]
    assert world.halt is not None
    assert world.halt.code == ExitCode.STOPPED
    assert world.supervisor.deadline() is None
    assert world.supervisor.status == "draining"


@pytest.mark.parametrize("second", [Command.DRAIN, Command.INTERRUPT, Command.QUIT])
def test_the_second_stop_means_now(second: Command) -> None:
    """Whoever asks twice does not wait for anybody's requests."""
    world = started()
    world.temper = Temper.SLOW
    world.post(Command.RELOAD)
    world.turn()
    world.post(Command.INTERRUPT)
    world.turn()
    world.post(second)
    done = world.turn()
    assert slots(done, Quit) == [1, 2]
    assert slots(done, Drain) == []
    world.advance(1)
    assert world.halt is not None


def test_quit_kills_who_boots_and_who_does_not_listen() -> None:
    """A booting worker is killed at once, a deaf one after a few seconds."""
    world = started()
    world.processes[1].temper = Temper.STUBBORN
    world.post(Command.MORE)
    world.turn()
    world.post(Command.QUIT)
    done = world.turn()
    assert slots(done, Kill) == [3]
    assert slots(done, Quit) == [1, 2]
    later = world.advance(10)
    assert slots(later, Kill) == [1]
    assert world.halt is not None


def test_a_worker_that_overstays_its_drain_is_dumped_and_killed() -> None:
    """The graceful timeout is kept by the master too."""
    world = started(1)
    world.processes[1].temper = Temper.STUBBORN
    world.post(Command.DRAIN)
    done = world.advance(60)
    assert slots(done, Dump) == [1]
    assert slots(done, Abort) == [1]
    assert slots(done, Kill) == [1]
    assert "--graceful-timeout 25" in next(each.why for each in done if isinstance(each, Dump))
    assert world.halt is not None
    assert world.halt.code == ExitCode.STOPPED


def test_stop_comes_before_a_reload() -> None:
    """A reload in progress is given up, and what is asked for during the stop is not done."""
    world = started()
    world.post(Command.RELOAD)
    world.turn()
    world.post(Command.DRAIN, Command.RELOAD, Command.MORE)
    done = world.turn()
    assert slots(done, Spawn) == []
    assert sorted(slots(done, Drain)) == [1, 2, 3]
    assert sum("nothing comes of" in line for line in remarks(done, Severity.INFO)) == 2
    world.advance(5)
    assert world.halt is not None


def test_boot_failures_during_the_stop_are_no_news() -> None:
    """The master is leaving with code 0 already."""
    world = World(Supervisor(Settings(2, PATIENCE)))
    world.turn()
    world.post(Command.DRAIN)
    world.says(world.processes[1], BootFailed("too late"))
    world.ends(world.processes[1], "exit code 3")
    assert remarks(world.turn(), Severity.CRITICAL) == []
    world.advance(10)
    assert world.halt == Halt(ExitCode.STOPPED, "the master was asked to stop")


# Time


def test_a_paused_master_forgives() -> None:
    """After a suspended machine nobody is called silent for what the master slept through."""
    world = started(1)
    world.temper = Temper.SLOW
    world.processes[1].beats_at = float("inf")
    world.pause(1000)
    done = world.turn()
    assert slots(done, Dump) == []
    assert any("late" in line for line in remarks(done, Severity.WARNING))
    assert slots(world.advance(29), Dump) == []
    assert slots(world.advance(2), Dump) == [1]


def test_all_news_are_heard_before_anybody_is_judged() -> None:
    """A heartbeat that waits behind another event is in time."""
    world = started(1)
    world.now += 30.5
    world.post(Command.REOPEN)
    world.says(world.processes[1], Heartbeat())
    assert slots(world.turn(), Dump) == []


def test_an_unknown_slot_is_a_bug() -> None:
    """News of somebody who was never spawned raises."""
    world = started(1)
    with pytest.raises(KeyError):
        world.supervisor.step([Exited(9, "exit code 0")], world.now)


# Reload with another configuration


def test_the_settings_of_a_reload_count_at_once() -> None:
    """The new number of workers, and as many at a time as the new surge allows."""
    world = started(2)
    world.post(Reconfigured(Settings(4, PATIENCE, surge=2)), Command.RELOAD)
    world.turn()
    assert [process.generation for process in world.processes.values()] == [1, 1, 2, 2, 2, 2]
    world.advance(5)
    assert world.supervisor.status == "4/4 workers ready, generation 2; reload done"


def test_a_roll_back_returns_to_the_generation_before() -> None:
    """Settings and number of workers too; what crashes is replaced by the old generation."""
    world = started(2)
    world.temper = Temper.BROKEN
    world.post(Reconfigured(Settings(3, PATIENCE, surge=2)), Command.RELOAD)
    done = world.advance(5)
    assert KeepZygotes(frozenset({1}), "no worker of generation 2 will be born any more") in done
    assert world.supervisor.settings == Settings(2, PATIENCE)
    assert failures(done) == [(Milestone.RELOADING, False), (Milestone.READY, True)]
    world.temper = Temper.GOOD
    world.ends(world.processes[1], "signal SIGKILL")
    world.advance(5)
    assert {process.generation for process in world.processes.values()} == {1}
    assert world.supervisor.status.startswith("2/2 workers ready, generation 1; reload failed")


def test_a_reload_that_breaks_half_way_is_held() -> None:
    """What is ready of the new code stays, and nobody else is replaced."""
    world = started(2)
    world.post(Command.RELOAD)
    world.advance(0.1)
    world.temper = Temper.BROKEN
    done = world.advance(60)
    assert failures(done) == [(Milestone.READY, True)]
    assert [process.generation for process in world.processes.values()] == [1, 2]
    assert "reload failed, held: no such module" in world.supervisor.status


def test_a_refused_reload_is_over_at_once() -> None:
    """The old workers stay; whoever waits for the reload hears of both its ends."""
    world = started(2)
    world.post(ReloadRefused("shop.toml:3: no such option"))
    done = world.advance(5)
    assert failures(done) == [(Milestone.RELOADING, False), (Milestone.READY, True)]
    assert slots(done, Spawn) == []
    assert world.supervisor.status.endswith("; reload refused: shop.toml:3: no such option")
    assert remarks(done, Severity.ERROR) == ["reload refused: shop.toml:3: no such option"]


def test_settings_without_a_reload_do_not_linger() -> None:
    """They were for a reload in the same step, and for no later one."""
    world = started(2)
    world.post(Reconfigured(Settings(4, PATIENCE)))
    world.turn()
    world.post(Command.RELOAD)
    world.advance(5)
    assert world.supervisor.settings == Settings(2, PATIENCE)


# Recycling


def test_workers_that_are_due_are_replaced_one_after_the_other() -> None:
    """New before old, and the next one only when the last is gone."""
    world = started(Settings(2, PATIENCE, min_lifetime=0.0))
    for process in world.processes.values():
        world.says(process, Due("--max-lifetime 60"))
    done = world.advance(5)
    order = [(type(each), each.name.slot) for each in done if isinstance(each, Spawn | Drain)]
    assert order == [(Spawn, 3), (Drain, 1), (Spawn, 1), (Drain, 2)]
    assert world.supervisor.status == "2/2 workers ready, generation 1"


def test_recycling_waits_for_the_minimum_lifetime() -> None:
    """The deadline says when, so that nobody has to look."""
    world = started(Settings(1, PATIENCE, min_lifetime=20.0))
    world.says(world.processes[1], Due("--max-requests 1"))
    since = world.supervisor.roster.workers[1].ready_since
    assert slots(world.advance(15), Spawn) == []
    assert slots(world.advance(10), Drain) == [1]
    assert world.supervisor.roster.workers[2].born == since + 20


# Shutting down


def test_a_shutdown_delay_warns_and_goes_on_serving() -> None:
    """The end is announced at once, with its time; the pool is kept until the delay is over."""
    world = started(Settings(2, PATIENCE, shutdown_delay=10.0))
    world.post(Command.DRAIN, Command.RELOAD)
    done = world.turn()
    (told,) = [each for each in done if isinstance(each, Announce)]
    assert (told.milestone, told.extend) == (Milestone.STOPPING, 10 + PATIENCE.leave)
    status = "shutting down in 10 s: 2/2 workers ready, generation 1"
    assert (told.status, world.supervisor.state) == (status, "stopping")
    assert slots(done, Linger) == [1, 2]
    world.ends(world.processes[1], "signal SIGKILL")
    done = world.advance(5)
    assert slots(done, Spawn) == [1]
    assert slots(done, Linger) == [1]
    assert world.listening
    done = world.advance(20)
    kinds = [type(each) for each in done if isinstance(each, CloseListeners | Drain | Halt)]
    assert kinds == [CloseListeners, Drain, Drain, Halt]
    (told,) = [each for each in done if isinstance(each, Announce)]
    assert (told.milestone, told.status) == (None, "draining")
    assert told.extend == PATIENCE.leave


@pytest.mark.parametrize("command", [Command.INTERRUPT, Command.QUIT])
def test_only_the_polite_stop_waits(command: Command) -> None:
    """Ctrl-C and SIGQUIT are for somebody who is looking on."""
    world = started(Settings(2, PATIENCE, shutdown_delay=10.0))
    world.post(command)
    world.turn()
    assert not world.listening


def test_a_second_stop_ends_the_delay() -> None:
    """Whoever asks twice means now."""
    world = started(Settings(2, PATIENCE, shutdown_delay=10.0))
    world.post(Command.DRAIN)
    world.turn()
    world.post(Command.DRAIN)
    assert slots(world.turn(), Quit) == [1, 2]


def test_a_service_that_is_not_up_warns_nobody() -> None:
    """No load balancer sends requests to it yet."""
    world = World(Supervisor(Settings(2, PATIENCE, shutdown_delay=10.0)))
    world.turn()
    world.post(Command.DRAIN)
    world.turn()
    assert not world.listening


def test_a_stop_holds_a_reload_for_good() -> None:
    """The log says what became of it, though it is no error."""
    world = started(Settings(2, PATIENCE, shutdown_delay=10.0))
    world.post(Command.RELOAD)
    world.turn()
    world.post(Command.DRAIN)
    done = world.advance(5)
    line = "reload to generation 2 held after 0.0 s: the master was asked to stop"
    assert line in remarks(done, Severity.INFO)
    assert [process.generation for process in world.processes.values()] == [1, 1]


# The watchdog


def test_the_watchdog_is_reassured_while_somebody_serves() -> None:
    """From READY on, at its interval; not while nobody is left; but until the very end."""
    world = World(Supervisor(Settings(1, PATIENCE), watchdog=10.0))
    assert not reassured(world.turn())
    done = world.advance(35)
    assert len([each for each in done if isinstance(each, Reassure)]) == 4
    world.temper = Temper.HANGING
    world.ends(world.processes[1], "signal SIGKILL")
    assert not reassured(world.advance(30))
    world.temper = Temper.GOOD
    world.post(Command.DRAIN)
    assert reassured(world.turn())


# Upgrade


def upgraded() -> World:
    """Return a world in which the new master serves, and the old workers still drain."""
    world = started()
    world.drain = 8.0
    world.post(Command.UPGRADE)
    world.advance(1)
    world.history.clear()
    return world


def test_an_upgrade_hands_over_and_leaves() -> None:
    """Nothing changes until the new master is ready; then the old one ends, and says nothing."""
    world = started()
    world.post(Command.UPGRADE)
    done = world.turn()
    assert any(isinstance(each, Launch) for each in done)
    assert world.supervisor.state == "upgrading"
    assert world.supervisor.status == "2/2 workers ready, generation 1; upgrading"
    done = world.advance(5)
    kinds = [type(each) for each in done if isinstance(each, HandOver | Drain | Halt | Announce)]
    assert kinds == [HandOver, Drain, Drain, Halt]
    assert world.halt == Halt(ExitCode.STOPPED, "the new master serves")
    assert world.listening


def test_who_boots_at_the_hand_over_is_sent_away_too() -> None:
    """And a reload in progress is held."""
    world = started()
    world.temper = Temper.HANGING
    world.post(Command.RELOAD, Command.UPGRADE)
    done = world.advance(2)
    assert slots(done, Drain) == [1, 2, 3]
    line = "reload to generation 2 held after 0.5 s: the new master serves"
    assert line in remarks(done, Severity.INFO)
    assert world.halt is not None


def test_late_news_of_a_dismissed_master_are_no_hand_over() -> None:
    """It was ready just when it was told to leave."""
    world = started()
    world.post(Command.UPGRADE)
    world.turn()
    world.post(Command.RELOAD, SuccessorReady())
    world.turn()
    assert world.main
    assert slots(world.advance(5), Drain) == []


def test_an_upgrade_that_fails_changes_nothing() -> None:
    """The old master says why, and goes on."""
    world = started()
    world.upgrade = Temper.BROKEN
    world.post(Command.UPGRADE)
    done = world.advance(5)
    assert remarks(done, Severity.ERROR) == ["upgrade failed: exit code 3"]
    assert slots(done, Drain) == []
    assert world.supervisor.status == "2/2 workers ready, generation 1"


def test_a_reload_during_the_start_of_the_new_master_calls_it_off() -> None:
    """It is no reload, but whoever waits for one hears of its end, and of no failure."""
    world = started()
    world.upgrade = Temper.HANGING
    world.post(ReloadRefused("earlier"))
    world.turn()
    world.post(Command.UPGRADE)
    world.turn()
    world.post(Command.RELOAD)
    done = world.turn()
    assert any(isinstance(each, Dismiss) for each in done)
    assert failures(done) == [(Milestone.RELOADING, False), (Milestone.READY, False)]
    assert "; upgrade rolled back" in world.supervisor.status
    done = world.advance(5)
    assert "the new master has left: exit code 0" in remarks(done, Severity.INFO)
    assert world.supervisor.roster.generation == 1


def test_a_reload_after_the_hand_over_takes_back() -> None:
    """The new master is dismissed only when the old workers' replacements are ready."""
    world = upgraded()
    assert world.supervisor.state == "handed over"
    world.post(Command.RELOAD)
    done = world.turn()
    assert slots(done, Spawn) == [3, 4]
    assert world.supervisor.state == "recalled"
    done = world.advance(2)
    kinds = [type(each) for each in done if isinstance(each, TakeBack | Dismiss | Announce)]
    assert kinds == [TakeBack, Dismiss, Announce, Announce]
    assert milestones(done) == [Milestone.READY]
    assert world.successor is None
    assert world.supervisor.status == "2/2 workers ready, generation 1"


def test_a_new_master_that_dies_is_replaced_at_once() -> None:
    """The old one takes back and fills up again."""
    world = upgraded()
    world.successor_ends("signal SIGKILL")
    done = world.turn()
    assert any(isinstance(each, TakeBack) for each in done)
    assert slots(done, Spawn) == [3, 4]
    (line,) = remarks(done, Severity.ERROR)
    assert line == "the new master is gone, so this one serves again: signal SIGKILL"


def test_a_new_master_that_is_asked_to_stop_stops_the_service() -> None:
    """Who stops the main process does not want the old one back."""
    world = upgraded()
    world.successor_ends("exit code 0")
    done = world.turn()
    assert slots(done, Spawn) == []
    world.successor_ends("exit code 0")  # late news change nothing
    done = world.advance(10)
    assert not any(isinstance(each, TakeBack) for each in done)
    assert world.halt == Halt(ExitCode.STOPPED, "the new master was asked to stop")


def test_a_dead_new_master_is_not_dismissed() -> None:
    """It died before it could be told."""
    world = started()
    world.upgrade = Temper.HANGING
    world.post(Command.UPGRADE)
    world.turn()
    world.post(Command.RELOAD)
    world.successor_ends("exit code 0")
    assert not any(isinstance(each, Dismiss) for each in world.turn())


def test_a_stop_during_an_upgrade_waits_for_both() -> None:
    """The old master is the one who is waited for, so it leaves last."""
    world = started()
    world.upgrade = Temper.HANGING
    world.post(Command.UPGRADE)
    world.turn()
    world.post(Command.DRAIN)
    world.turn()
    assert world.successor is not None
    world.successor.dies_at = world.now + 5
    world.advance(3)
    assert (world.processes, world.halt) == ({}, None)
    world.post(Command.DRAIN)
    assert any(isinstance(each, Dismiss) for each in world.turn())
    world.advance(5)
    assert world.halt == Halt(ExitCode.STOPPED, "the master was asked to stop")


def test_a_stop_after_the_hand_over_leaves_the_new_master_alone() -> None:
    """It ends the old master, who is leaving anyway, without waiting."""
    world = upgraded()
    world.post(Command.DRAIN)
    world.turn()
    world.post(Command.DRAIN)
    done = world.advance(1)
    assert slots(done, Quit) == [1, 2]
    assert milestones(world.history) == []
    assert world.halt is not None
    assert world.successor is not None


@pytest.mark.parametrize("command", [Command.UPGRADE, Command.MORE, Command.FEWER])
def test_after_the_hand_over_there_is_nothing_to_change(command: Command) -> None:
    """What is asked for would die with the old master."""
    world = upgraded()
    world.post(command)
    (line,) = remarks(world.turn(), Severity.INFO)
    assert f"so nothing comes of: {command.value}" in line


def test_an_upgrade_needs_a_service_that_is_up() -> None:
    """Neither at the start nor at the end, nor twice at once."""
    world = World(Supervisor(Settings(2, PATIENCE)))
    world.turn()
    world.post(Command.UPGRADE)
    line = "still starting, so nothing comes of: upgrade the master"
    assert line in remarks(world.turn(), Severity.INFO)
    world.advance(1)
    world.post(Command.UPGRADE, Command.UPGRADE)
    line = "an upgrade is under way, so nothing comes of: upgrade the master"
    assert line in remarks(world.turn(), Severity.INFO)


# The snapshot


def test_the_snapshot_tells_everything() -> None:
    """What is going on, who is there, what has come of reloads, who has died."""
    supervisor = Supervisor(Settings(2, PATIENCE))
    assert supervisor.snapshot(5.0)["uptime"] == 0.0
    world = World(supervisor)
    world.turn()
    assert supervisor.snapshot(world.now)["state"] == "starting"
    world.advance(1)
    world.ends(world.processes[1], "signal SIGKILL")
    world.post(Command.RELOAD)
    world.turn()
    assert supervisor.snapshot(world.now)["state"] == "reloading"
    world.advance(5)
    shown = supervisor.snapshot(world.now)
    assert shown["state"] == "running"
    assert shown["status"] == supervisor.status
    assert (shown["generation"], shown["target"], shown["uptime"]) == (2, 2, 6.0)
    assert [worker["slot"] for worker in shown["workers"]] == sorted(supervisor.roster.workers)
    assert [reload["result"] for reload in shown["reloads"]] == ["done"]
    assert [death["fate"] for death in shown["deaths"]] == ["crashed", "planned"]
