"""The supervisor against a model world: any history, and what must hold at every step of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from daphne_supervisor.errors import ExitCode
from daphne_supervisor.master.model import (
    Abort,
    Command,
    Drain,
    Garbled,
    Halt,
    Kill,
    Spawn,
    WorkerState,
)
from daphne_supervisor.master.policy import SURGE, Patience
from daphne_supervisor.master.rollout import RolloutState
from daphne_supervisor.master.supervisor import Supervisor
from daphne_supervisor.messages import Draining, Ready
from tests.support.world import Temper, World

if TYPE_CHECKING:
    from daphne_supervisor.master.model import Action
    from tests.support.world import Process

PATIENCE = Patience(boot=60, heartbeat=30, graceful=25)
LONG = 300.0
"""Seconds in which a well-behaved world is at rest: every patience and back-off in a row."""

running = precondition(lambda self: self.world.halt is None)
with_processes = precondition(lambda self: bool(self.world.processes))


class CheckedWorld(World):
    """A world that checks every step as it happens."""

    def turn(self) -> list[Action]:
        """Take the step, then check it."""
        before = dict(self.processes)
        listening = self.listening
        urgent = self._is_urgent()
        actions = super().turn()
        for action in actions:
            self._check(action, before, listening=listening, urgent=urgent or self._is_urgent())
        self._check_state()
        return actions

    def _is_urgent(self) -> bool:
        return self.supervisor._stop is not None and self.supervisor._stop.urgent

    def _check(
        self, action: Action, before: dict[int, Process], *, listening: bool, urgent: bool
    ) -> None:
        match action:
            case Spawn(name):
                assert listening, "a worker is born after the listeners are closed"
                assert self.listening
                assert name.slot not in before, "a slot is taken twice"
            case Drain(name) if self.supervisor._stop is None and before[name.slot].ready:
                assert self._ready() >= self.supervisor.roster.target, "retired too early"
            case Abort(name) | Kill(name):
                process = before[name.slot]
                spared = urgent and not process.ready and isinstance(action, Kill)
                assert spared or not process.healthy, f"{process} did nothing wrong: {action.why}"
            case Halt():
                assert self.processes == {}, "halted over the living"

    def _check_state(self) -> None:
        supervisor, roster = self.supervisor, self.supervisor.roster
        deadline = supervisor.deadline()
        assert deadline is None or deadline > self.now, "a deadline has passed unheeded"
        assert supervisor.step([], self.now) == [], "reconciling twice is not the same as once"
        serving = roster.who(WorkerState.READY, WorkerState.STARTING)
        leaving = [worker for worker in roster.workers.values() if worker not in serving]
        assert all(worker.fate is not None for worker in leaving), "nobody knows why it leaves"
        if supervisor._stop is None:
            surge = 0 if supervisor.rollout.state is RolloutState.HELD else SURGE
            assert len(serving) <= roster.target + surge, "more workers than were asked for"
            assert self._ready() <= roster.target

    def _ready(self) -> int:
        return len(self.supervisor.roster.who(WorkerState.READY))


class Histories(RuleBasedStateMachine):
    """Any sequence of commands, tempers, accidents and pauses."""

    @initialize(workers=st.integers(1, 4), temper=st.sampled_from([*[Temper.GOOD] * 9, *Temper]))
    def begin(self, workers: int, temper: Temper) -> None:
        """Start a master with workers of some temper."""
        self.world = CheckedWorld(Supervisor(workers, PATIENCE))
        self.world.temper = temper
        self.world.turn()

    @running
    @rule(command=st.sampled_from([Command.RELOAD, Command.MORE, Command.FEWER, Command.REOPEN]))
    def command(self, command: Command) -> None:
        """An operator sends a signal."""
        self.world.post(command)

    @running
    @rule(
        command=st.sampled_from([Command.DRAIN, Command.INTERRUPT, Command.QUIT]),
        seldom=st.integers(0, 5),
    )
    def stop(self, command: Command, seldom: int) -> None:
        """An operator stops the service, but seldom, or no history would be long."""
        if seldom == 0:
            self.world.post(command)

    @rule(temper=st.sampled_from(Temper))
    def release(self, temper: Temper) -> None:
        """Other code is put on the disk."""
        self.world.temper = temper

    @with_processes
    @rule(data=st.data(), how=st.sampled_from(["signal SIGKILL", "exit code 0"]))
    def crash(self, data: st.DataObject, how: str) -> None:
        """A worker dies unasked."""
        self.world.ends(self._pick(data), how)

    @with_processes
    @rule(data=st.data())
    def block(self, data: st.DataObject) -> None:
        """A worker's event loop stops turning."""
        process = self._pick(data)
        process.blocked = True
        process.beats_at = process.boots_at = float("inf")

    @with_processes
    @rule(data=st.data())
    def garble(self, data: st.DataObject) -> None:
        """A worker writes nonsense."""
        process = self._pick(data)
        process.blocked = True  # it is at fault from here on
        self.world.post(Garbled(process.slot, "nonsense"))

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
    @rule(data=st.data())
    def out_of_turn(self, data: st.DataObject) -> None:
        """A worker says twice that it is ready."""
        process = self._pick(data)
        if process.ready:
            process.blocked = True  # it is at fault from here on
            self.world.says(process, Ready())

    @running
    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.world.advance(seconds)

    @running
    @rule(seconds=st.floats(0, 100))
    def pause(self, seconds: float) -> None:
        """The master is stopped for a while, and then finds everything at once."""
        self.world.pause(seconds)
        self.world.turn()

    def teardown(self) -> None:
        """From any state a well-behaved world comes to rest at target times present generation."""
        world = self.world
        if world.halt is not None:
            return
        world.temper = Temper.GOOD
        world.advance(LONG)
        if world.supervisor._stop is None:
            world.post(Command.RELOAD)
            world.advance(LONG)
            self._check_rest()
            world.post(Command.DRAIN)
            world.advance(LONG)
        self._check_end()

    def _check_end(self) -> None:
        halt = self.world.halt
        assert halt is not None, "did not stop"
        assert halt.code in {ExitCode.STOPPED, ExitCode.BOOT_FAILED}
        assert not self.world.listening

    def _check_rest(self) -> None:
        supervisor = self.world.supervisor
        roster = supervisor.roster
        workers = list(roster.workers.values())
        assert [worker.state for worker in workers] == [WorkerState.READY] * roster.target
        assert {worker.generation for worker in workers} == {roster.generation}
        assert supervisor.rollout.state is RolloutState.DONE

    def _pick(self, data: st.DataObject) -> Process:
        return self.world.processes[data.draw(st.sampled_from(sorted(self.world.processes)))]


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150, stateful_step_count=40)
