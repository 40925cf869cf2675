"""The supervisor against a model world: any history, and what must hold at every step of it."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from daphne_supervisor.errors import ExitCode
from daphne_supervisor.master.model import (
    Abort,
    Announce,
    Command,
    Dismiss,
    Drain,
    Dump,
    Garbled,
    Halt,
    HandOver,
    KeepZygotes,
    Kill,
    Launch,
    Linger,
    Milestone,
    Reassure,
    Reconfigured,
    ReloadRefused,
    Spawn,
    SuccessorReady,
    TakeBack,
    WorkerState,
)
from daphne_supervisor.master.policy import LATE, Patience, Settings
from daphne_supervisor.master.rollout import RolloutState, Verdict
from daphne_supervisor.master.succession import SuccessionState
from daphne_supervisor.master.supervisor import Supervisor
from daphne_supervisor.messages import BootFailed, Draining, Due, Heartbeat, Ready
from tests.support.world import Temper, World

if TYPE_CHECKING:
    from daphne_supervisor.master.model import Action
    from tests.support.world import Process

# Ten seconds of computing, and more by chance; how long that takes is the machine's affair.
pytestmark = pytest.mark.timeout(300)

WATCHDOG = 10.0
LONG = 200.0
"""Seconds in which a well-behaved world is at rest: every patience and back-off in a row."""

STOPS = [Command.DRAIN, Command.INTERRUPT, Command.QUIT]

configurations = st.builds(
    Settings,
    workers=st.integers(1, 4),
    patience=st.builds(
        Patience, boot=st.sampled_from([30.0, 60.0]), heartbeat=st.sampled_from([15.0, 30.0])
    ),
    surge=st.integers(1, 3),
    min_lifetime=st.sampled_from([0.0, 20.0]),
    shutdown_delay=st.sampled_from([0.0, 10.0]),
)

running = precondition(lambda self: self.world.halt is None)
with_processes = precondition(lambda self: bool(self.world.processes))
with_successor = precondition(lambda self: self.world.successor is not None)


class CheckedWorld(World):
    """A world that checks every step as it happens."""

    def __init__(self, supervisor: Supervisor) -> None:
        """Begin as any world, with nothing announced."""
        super().__init__(supervisor)
        self.told: list[Milestone] = []
        self.given_up: set[int] = set()
        self.reassured = -math.inf

    def turn(self) -> list[Action]:
        """Take the step, then check it."""
        before, listening, urgent = dict(self.processes), self.listening, self._urgent
        actions = super().turn()
        for action in actions:
            self._check_order(action, before, urgent=urgent or self._urgent)
            self._check_birth(action, before, listening=listening)
            self._check_word(action)
        self._check_state()
        return actions

    def _perform(self, action: Action) -> None:
        self._check_once(action)
        super()._perform(action)

    @property
    def _urgent(self) -> bool:
        return self.supervisor.stop is not None and self.supervisor.stop.urgent

    @property
    def _ready(self) -> int:
        return len(self.supervisor.roster.who(WorkerState.READY))

    @property
    def _away(self) -> bool:
        return self.supervisor.succession.away

    def _check_order(self, action: Action, before: dict[int, Process], *, urgent: bool) -> None:
        match action:
            case Drain(name) if self._keeps and before[name.slot].ready:
                assert self._ready >= self.supervisor.roster.target, "retired too early"
                if action.why.startswith("recycled"):
                    self._check_recycling()
            case Dump(name) | Abort(name) | Kill(name):
                process = before[name.slot]
                spared = urgent and not process.ready and isinstance(action, Kill)
                assert spared or not process.healthy, f"{process} did nothing wrong: {action.why}"
            case Halt():
                assert self.processes == {}, "halted over the living"
                assert self.successor is None or not self.main, "halted over the new master"

    @property
    def _keeps(self) -> bool:
        return self.supervisor._keeping

    def _check_recycling(self) -> None:
        workers = self.supervisor.roster.workers.values()
        leaving = [one for one in workers if one.due and one.state is not WorkerState.READY]
        assert len(leaving) == 1, "two are recycled at once"
        assert self.supervisor.reloads.rollout.state is RolloutState.STEADY
        assert self.supervisor.stop is None

    def _check_birth(self, action: Action, before: dict[int, Process], *, listening: bool) -> None:
        match action:
            case Spawn(name):
                assert listening, "a worker is born after the listeners are closed"
                assert self.listening
                assert name.slot not in before, "a slot is taken twice"
                assert name.generation not in self.given_up, "what it is made of was given up"
            case KeepZygotes(generations):
                known = set(range(1, self.supervisor.roster.newest + 1))
                assert not self.given_up & generations, "what was given up is kept"
                assert known - generations > self.given_up, "nothing new is given up"
                self.given_up = known - generations

    def _check_word(self, action: Action) -> None:
        """Check what the service manager hears."""
        match action:
            case Announce(milestone=Milestone() as milestone):
                assert self.told[-1:] != [Milestone.STOPPING], "speaks after the end"
                assert self.told or milestone is not Milestone.RELOADING, "reloads before it is up"
                assert not action.failed or Milestone.RELOADING in self.told
                self.told.append(milestone)
            case Reassure():
                assert self.now >= self.reassured + WATCHDOG, "reassures too often"
                assert Milestone.READY in self.told
                assert self._ready or self.supervisor.stop or self._away, "all is not well"
                self.reassured = self.now

    def _check_once(self, action: Action) -> None:
        """Check, before it is done, what can be done but once."""
        match action:
            case Linger(name):
                assert not self.processes[name.slot].lingering, "told twice"
            case Launch():
                assert self.successor is None, "two new masters"
            case Dismiss():
                assert self.successor is not None, "dismisses nobody"
            case HandOver() | TakeBack():
                assert self.main == isinstance(action, HandOver), "the hand-over is out of step"
            case Announce():
                assert self.main, "speaks in the name of the new master"

    def _check_state(self) -> None:
        supervisor, roster = self.supervisor, self.supervisor.roster
        deadline = supervisor.deadline()
        assert deadline is None or deadline > self.now, "a deadline has passed unheeded"
        assert supervisor.step([], self.now) == [], "reconciling twice is not the same as once"
        serving = roster.who(WorkerState.READY, WorkerState.STARTING)
        leaving = [worker for worker in roster.workers.values() if worker not in serving]
        assert all(worker.fate is not None for worker in leaving), "nobody knows why it leaves"
        if supervisor.stop is None:
            surge = 0 if self._away else supervisor.settings.surge
            assert len(serving) <= roster.target + surge, "more workers than were asked for"
            assert self._ready <= roster.target
        if self.halt is None and Milestone.READY in self.told and self._ready:
            assert deadline is not None
            assert deadline <= self.reassured + WATCHDOG, "the watchdog is forgotten"
        assert self.main is not self._away

    def check_snapshot(self) -> None:
        """Check that what is shown fits into JSON, and is true."""
        roster = self.supervisor.roster
        shown = json.loads(json.dumps(self.supervisor.snapshot(self.now)))
        assert {one["slot"] for one in shown["workers"]} == set(roster.workers)
        assert all(one["age"] >= 0 for one in shown["reloads"] + shown["deaths"])


class Histories(RuleBasedStateMachine):
    """Any sequence of events, tempers, accidents and jumps of the clock."""

    @initialize(
        configuration=configurations,
        temper=st.sampled_from([*[Temper.GOOD] * 9, *Temper]),
        drain=st.sampled_from([0.1, 8.0]),
    )
    def begin(self, configuration: Settings, temper: Temper, drain: float) -> None:
        """Start a master with workers of some temper and business."""
        self.world = CheckedWorld(Supervisor(configuration, watchdog=WATCHDOG))
        self.world.temper, self.world.drain = temper, drain
        self.world.turn()

    @running
    @rule(command=st.sampled_from([one for one in Command if one not in STOPS]))
    def command(self, command: Command) -> None:
        """An operator sends a signal."""
        self.world.post(command)

    @running
    @rule(command=st.sampled_from(STOPS), seldom=st.integers(0, 5))
    def stop(self, command: Command, seldom: int) -> None:
        """An operator stops the service, but seldom, or no history would be long."""
        if seldom == 0:
            self.world.post(command)

    @running
    @with_successor
    @rule(command=st.sampled_from(STOPS))
    def stop_during_an_upgrade(self, command: Command) -> None:
        """An operator has enough of the old master, and maybe of both."""
        self.world.post(command)

    @running
    @rule(configuration=configurations)
    def reconfigure(self, configuration: Settings) -> None:
        """An operator reloads with another configuration."""
        self.world.post(Reconfigured(configuration), Command.RELOAD)

    @running
    @rule(command=st.sampled_from([Command.RELOAD, Command.UPGRADE]))
    def begin_in_peace(self, command: Command) -> None:
        """An operator waits for the first worker or the new master to be ready, and goes on."""
        self.world.post(command)
        self.world.advance(0.6)

    @running
    @rule()
    def break_halfway(self) -> None:
        """The code on the disk breaks while it is rolled out."""
        self.world.temper = Temper.GOOD
        self.world.post(Command.RELOAD)
        self.world.advance(0.1)
        self.world.temper = Temper.BROKEN
        self.world.advance(0.5)

    @running
    @rule()
    def refuse(self) -> None:
        """An operator reloads with a configuration that is not sound."""
        self.world.post(ReloadRefused("shop.toml:3: no such option"))

    @rule(temper=st.sampled_from(Temper), upgrade=st.sampled_from([*[Temper.GOOD] * 4, *Temper]))
    def release(self, temper: Temper, upgrade: Temper) -> None:
        """Other code is put on the disk."""
        self.world.temper, self.world.upgrade = temper, upgrade

    @with_processes
    @rule(data=st.data(), how=st.sampled_from(["signal SIGKILL", "exit code 0"]))
    def crash(self, data: st.DataObject, how: str) -> None:
        """A worker dies unasked."""
        self.world.ends(self._pick(data), how)

    @with_successor
    @rule(how=st.sampled_from(["signal SIGKILL", "exit code 0"]))
    def end_of_the_new_master(self, how: str) -> None:
        """The new master dies, or is asked to stop by somebody else."""
        self.world.successor_ends(how)

    @with_successor
    @rule()
    def says_again_that_it_is_ready(self) -> None:
        """The new master repeats itself, wherever its succession stands."""
        if not self.world.main:
            self.world.post(SuccessorReady())

    @with_processes
    @rule(data=st.data())
    def block(self, data: st.DataObject) -> None:
        """A worker's event loop stops turning."""
        self._spoil(self._pick(data))

    @with_processes
    @rule(data=st.data())
    def garble(self, data: st.DataObject) -> None:
        """A worker writes nonsense."""
        process = self._pick(data)
        self._spoil(process)
        self.world.post(Garbled(process.slot, "nonsense"))

    @with_processes
    @rule(data=st.data())
    def becomes_due(self, data: st.DataObject) -> None:
        """A worker asks to be replaced."""
        process = self._pick(data)
        if process.ready:
            self.world.says(process, Due("--max-requests 10: 10 requests"))

    @running
    @rule()
    def become_due_in_peace(self) -> None:
        """Every worker lives for a while, and then all ask at once to be replaced."""
        self.world.advance(25)
        for process in self.world.processes.values():
            if process.ready:
                self.world.says(process, Due("--max-lifetime 25"))
        self.world.advance(1)

    @with_processes
    @rule(data=st.data())
    def drains_by_itself(self, data: st.DataObject) -> None:
        """A worker was asked to leave by somebody else."""
        process = self._pick(data)
        if process.ready and not process.told:
            process.told = True
            self.world.says(process, Draining("somebody asked"))
            process.dies_at = self.world.now + 1

    @with_processes
    @rule(
        data=st.data(),
        report=st.sampled_from(
            [Ready(), Draining("why not"), BootFailed("no"), Heartbeat(), Due("old")]
        ),
    )
    def babble(
        self, data: st.DataObject, report: Ready | Draining | BootFailed | Heartbeat | Due
    ) -> None:
        """A worker that is out of its mind says anything, in any state."""
        process = self._pick(data)
        self._spoil(process)
        self.world.says(process, report)

    @running
    @rule(seconds=st.floats(0, 2) | st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.world.advance(seconds)

    @running
    @rule(seconds=st.floats(0, 100))
    def pause(self, seconds: float) -> None:
        """The master is stopped for a while, and then finds everything at once."""
        self.world.pause(seconds)
        self.world.turn()

    @running
    @rule(seconds=st.floats(0, 1000))
    def jump(self, seconds: float) -> None:
        """The machine is suspended: the clock has moved, and nobody has done anything.

        A few seconds late is what a busy machine is, and no reason to doubt the clock.
        """
        deadline = self.world.supervisor.deadline()
        until = self.world.now + seconds
        if deadline is not None and deadline <= until <= deadline + LATE:
            until = deadline + 2 * LATE
        self.world.now = until
        self.world.turn()

    @invariant()
    def shows_itself(self) -> None:
        """The snapshot can be taken at any time."""
        self.world.check_snapshot()

    def teardown(self) -> None:
        """From any state a well-behaved world comes to rest at target times present generation."""
        world = self.world
        if world.halt is None:
            world.temper = world.upgrade = Temper.GOOD
            world.advance(LONG)
        if world.halt is None and world.supervisor.stop is None:
            self._check_calm()
            self._check_reload()
            world.post(Command.DRAIN)
            world.advance(LONG)
        self._check_end()

    def _check_calm(self) -> None:
        """Nothing is left to be recycled, and a new master either serves or is not heard of."""
        roster, now = self.world.supervisor.roster, self.world.now
        if self.world.supervisor.reloads.rollout.state is RolloutState.STEADY:
            assert roster.ripe(self.world.supervisor.settings.min_lifetime, now) is None
        if self.world.successor is not None:
            assert self.world.supervisor.succession.state is SuccessionState.STARTED
            self.world.post(Command.RELOAD)
            self.world.advance(LONG)
        assert self.world.supervisor.succession.state is SuccessionState.NONE

    def _check_reload(self) -> None:
        """A reload with good code is done, and the service manager hears of it."""
        world, supervisor = self.world, self.world.supervisor
        world.post(Command.RELOAD)
        world.advance(LONG)
        roster, rollout = supervisor.roster, supervisor.reloads.rollout
        workers = list(roster.workers.values())
        assert [worker.state for worker in workers] == [WorkerState.READY] * roster.target
        assert {worker.generation for worker in workers} == {roster.generation}
        assert rollout.state is RolloutState.STEADY
        assert rollout.outcomes[-1].verdict is Verdict.DONE
        assert world.told[-1] is Milestone.READY

    def _check_end(self) -> None:
        halt = self.world.halt
        assert halt is not None, "did not stop"
        assert halt.code in {ExitCode.STOPPED, ExitCode.BOOT_FAILED}
        assert self.world.listening == (halt.why == "the new master serves")
        assert self.world.successor is None or not self.world.main

    def _pick(self, data: st.DataObject) -> Process:
        return self.world.processes[data.draw(st.sampled_from(sorted(self.world.processes)))]

    def _spoil(self, process: Process) -> None:
        """Let a process stop working: it is at fault from here on."""
        process.blocked = True
        process.beats_at = process.boots_at = math.inf


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=100, stateful_step_count=40)
