"""What the service manager hears, and when."""

from __future__ import annotations

import math

from daphne_supervisor.master.herald import Herald, Watchdog
from daphne_supervisor.master.model import Announce, Milestone, Reassure


def milestones(announcements: list[Announce]) -> list[Milestone | None]:
    """Return what was announced."""
    return [each.milestone for each in announcements]


def up() -> Herald:
    """Return a herald that has announced the start."""
    herald = Herald()
    assert milestones(herald.announce("1/1", ready=True)) == [Milestone.READY]
    return herald


def test_ready_is_told_once() -> None:
    """READY is owed from the start, told when it is true, and then only the status changes."""
    herald = Herald()
    assert milestones(herald.announce("0/1", ready=False)) == [None]
    assert herald.announce("0/1", ready=False) == []
    assert not herald.was_ready
    (told,) = herald.announce("1/1", ready=True)
    assert told == Announce(Milestone.READY, "1/1", "the master is ready")
    assert herald.was_ready
    assert herald.announce("1/1", ready=True) == []
    (told,) = herald.announce("2/2", ready=True, extend=3.0)
    assert told == Announce(None, "2/2", "the status has changed", extend=3.0)


def test_a_reload_is_told_at_both_ends() -> None:
    """RELOADING comes at its beginning and READY at its end, though the status be the same."""
    herald = up()
    herald.owe_reload()
    assert milestones(herald.announce("1/1", ready=False)) == [Milestone.RELOADING]
    assert milestones(herald.announce("1/1", ready=True)) == [Milestone.READY]


def test_a_reload_that_is_over_at_once_is_told_at_both_ends() -> None:
    """A refused reload has no duration, but whoever asked for it waits for both."""
    herald = up()
    herald.owe_reload()
    told = herald.announce("1/1; reload refused", ready=True, failed=True)
    assert milestones(told) == [Milestone.RELOADING, Milestone.READY]
    assert [each.failed for each in told] == [False, True]


def test_failure_is_told_with_the_ready_that_ends_the_reload() -> None:
    """A later READY, which ends no reload, does not repeat it."""
    herald = up()
    herald.owe_reload()
    told = herald.announce("; reloading", ready=False, failed=True)
    told += herald.announce("; reload failed", ready=True, failed=True)
    herald.resume()
    told += herald.announce("; reload failed", ready=True, failed=True)
    assert [each.failed for each in told] == [False, True, False]


def test_who_only_waits_is_told_of_no_failure() -> None:
    """A reload that means something else ends, but cannot fail."""
    herald = up()
    herald.owe_reload(judged=False)
    told = herald.announce("; upgrade rolled back", ready=True, failed=True)
    assert milestones(told) == [Milestone.RELOADING, Milestone.READY]
    assert [each.failed for each in told] == [False, False]


def test_a_reload_before_ready_is_part_of_the_start() -> None:
    """A service that is not up yet does not reload: it is still starting, and has not failed."""
    herald = Herald()
    herald.owe_reload()
    (told,) = herald.announce("1/1", ready=True, failed=True)
    assert (told.milestone, told.failed) == (Milestone.READY, False)


def test_stopping_silences_the_rest() -> None:
    """Who stops is not ready any more, whatever was owed before."""
    herald = Herald()
    herald.owe_stop()
    (told,) = herald.announce("draining", ready=True, extend=36.0)
    assert (told.milestone, told.extend) == (Milestone.STOPPING, 36.0)
    assert herald.announce("draining", ready=True) == []


def test_who_speaks_again_says_everything() -> None:
    """The new master has spoken in our place: its words are replaced by ours."""
    herald = up()
    herald.resume()
    assert milestones(herald.announce("1/1", ready=True)) == [Milestone.READY]


def test_who_stops_does_not_become_ready_again() -> None:
    """Neither before the service manager has heard of the end nor after."""
    herald = up()
    herald.owe_stop()
    herald.resume()
    assert milestones(herald.announce("draining", ready=True)) == [Milestone.STOPPING]
    herald.resume()
    assert milestones(herald.announce("draining", ready=True)) == [None]


def test_the_watchdog_speaks_at_its_interval() -> None:
    """At once, and then every so often; it says when it is due."""
    watchdog = Watchdog(10.0)
    assert watchdog.due == math.inf
    assert watchdog.watch(100.0, healthy=True) == [Reassure("the watchdog is due")]
    assert watchdog.due == 110.0
    assert watchdog.watch(109.9, healthy=True) == []
    assert watchdog.watch(110.0, healthy=True) != []


def test_the_watchdog_is_silent_while_all_is_not_well() -> None:
    """It wakes nobody meanwhile, and speaks as soon as all is well again."""
    watchdog = Watchdog(10.0)
    watchdog.watch(100.0, healthy=True)
    assert watchdog.watch(120.0, healthy=False) == []
    assert watchdog.due == math.inf
    assert watchdog.watch(121.0, healthy=True) != []


def test_without_an_interval_there_is_no_watchdog() -> None:
    """Nobody waits for it, so it never speaks and is never due."""
    watchdog = Watchdog(None)
    assert watchdog.watch(100.0, healthy=True) == []
    assert watchdog.due == math.inf
