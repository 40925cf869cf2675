"""A simulated world for the supervisor: workers with tempers, in virtual time, without processes.

The world performs the supervisor's actions on pretended processes and plays their reactions back
as events. A whole rolling reload takes microseconds, and a pause of the master is one argument.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daphne_supervisor.master.model import (
    Abort,
    CloseListeners,
    Dismiss,
    Drain,
    Dump,
    Exited,
    Garbled,
    Halt,
    HandOver,
    Kill,
    Launch,
    Linger,
    Quit,
    Reported,
    Spawn,
    Spawned,
    SuccessorExited,
    SuccessorReady,
    TakeBack,
)
from daphne_supervisor.messages import BootFailed, Draining, Heartbeat, Ready

if TYPE_CHECKING:
    from daphne_supervisor.master.model import Action, Event
    from daphne_supervisor.master.supervisor import Supervisor
    from daphne_supervisor.messages import Report

__all__ = ["Process", "Successor", "Temper", "World"]

BEAT = 5.0
"""Seconds between heartbeats."""

SLOW_BOOT = 15.0
SLOW_DRAIN = 10.0
"""Seconds that a slow process takes: long, and still within every patience that tests set."""


class Temper(enum.Enum):
    """What a process that is forked now will do."""

    GOOD = "boots, serves, leaves when asked"
    SLOW = "as GOOD, but takes its time for everything"
    BROKEN = "reports that it cannot boot, and leaves"
    DYING = "dies before it is ready"
    HANGING = "never gets ready"
    GARBLING = "writes nonsense to its channel"
    STUBBORN = "boots and serves, but listens to nothing short of SIGKILL"


@dataclass
class Process:
    """A pretended worker process. Times are of the world's clock; infinity means never."""

    pid: int
    slot: int
    generation: int
    temper: Temper
    boots_at: float
    dies_at: float = math.inf
    beats_at: float = math.inf
    how: str = "exit code 0"
    ready: bool = False
    blocked: bool = False
    told: bool = False
    lingering: bool = False

    @property
    def healthy(self) -> bool:
        """Whether nobody has a reason to use force against it."""
        return self.temper in {Temper.GOOD, Temper.SLOW} and not self.blocked

    @property
    def next_time(self) -> float:
        """When this process will do something by itself."""
        return min(self.boots_at, self.dies_at, self.beats_at)


@dataclass
class Successor:
    """A pretended new master. Times are of the world's clock; infinity means never."""

    ready_at: float
    dies_at: float = math.inf
    how: str = "exit code 0"

    @property
    def next_time(self) -> float:
        """When it will do something by itself."""
        return min(self.ready_at, self.dies_at)


class World:
    """Plays the system and the workers for one supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        """Begin at an arbitrary time with no process."""
        self.supervisor = supervisor
        self.now = 1000.0
        self.temper = Temper.GOOD
        self.processes: dict[int, Process] = {}  # by slot
        self.drain = 0.1  # seconds that the requests in progress take
        self.upgrade = Temper.GOOD
        self.successor: Successor | None = None
        self.listening = self.main = True
        self.halt: Halt | None = None
        self.history: list[Action] = []
        self._events: list[Event] = []
        self._last_pid = 100

    def post(self, *events: Event) -> None:
        """Let events wait for the next step."""
        self._events += events

    def says(self, process: Process, report: Report) -> None:
        """Let a process send a report."""
        self.post(Reported(process.slot, report))

    def ends(self, process: Process, how: str) -> None:
        """Let a process die."""
        del self.processes[process.slot]
        self.post(Exited(process.slot, how))

    def successor_ends(self, how: str) -> None:
        """Let the new master die."""
        self.successor = None
        self.post(SuccessorExited(how, asked=how == "exit code 0"))

    def turn(self) -> list[Action]:
        """Give all that waits to one step, and perform what it returns."""
        events, self._events = self._events, []
        actions = self.supervisor.step(events, self.now)
        for action in actions:
            self._perform(action)
        self.history += actions
        return actions

    def pause(self, seconds: float) -> None:
        """Let time pass for everybody while the master takes no step."""
        until = self.now + seconds
        while (soon := min([*self._times(), until])) < until:
            self.now = max(self.now, soon)
            self._play()
        self.now = until

    def advance(self, seconds: float) -> list[Action]:
        """Let time pass while the master steps whenever it should; return what it did."""
        until = self.now + seconds
        done = self.turn()
        while self.halt is None and (self._events or self._soon() <= until):
            if not self._events:
                self.now = max(self.now, self._soon())
                self._play()
            done += self.turn()
        self.now = until
        return done

    def _soon(self) -> float:
        deadline = self.supervisor.deadline()
        return min([*self._times(), math.inf if deadline is None else deadline])

    def _times(self) -> list[float]:
        times = [process.next_time for process in self.processes.values()]
        return times if self.successor is None else [*times, self.successor.next_time]

    def _play(self) -> None:
        """Let every process do what it does at this time."""
        for process in list(self.processes.values()):
            if process.dies_at <= self.now:
                self.ends(process, process.how)
            elif process.boots_at <= self.now:
                self._boot(process)
            elif process.beats_at <= self.now:
                process.beats_at = self.now + BEAT
                self.says(process, Heartbeat(requests=1))
        if self.successor is not None and self.successor.dies_at <= self.now:
            self.successor_ends(self.successor.how)
        elif self.successor is not None and self.successor.ready_at <= self.now:
            self.successor.ready_at = math.inf
            self.post(SuccessorReady())

    def _boot(self, process: Process) -> None:
        process.boots_at = math.inf
        match process.temper:
            case Temper.BROKEN:
                self.says(process, BootFailed("no such module", "Traceback ..."))
                process.dies_at, process.how = self.now + 0.1, "exit code 3"
            case Temper.DYING:
                self.ends(process, "exit code 1")
            case Temper.GARBLING:
                self.post(Garbled(process.slot, "not JSON"))
            case _:
                process.ready = True
                process.beats_at = self.now + BEAT
                self.says(process, Ready())

    def _perform(self, action: Action) -> None:
        match action:
            case Spawn(name):
                self._spawn(name.slot, name.generation)
            case Linger(name):
                self.processes[name.slot].lingering = True
            case Drain(name) | Quit(name):
                self._ask(self.processes[name.slot], urgent=isinstance(action, Quit))
            case Dump(name) | Abort(name):
                process = self.processes[name.slot]
                # Who has a blocked loop still has a thread that dumps; who is stubborn has neither.
                if process.temper is not Temper.STUBBORN:
                    self.ends(process, "signal SIGABRT")
            case Kill(name):
                self.ends(self.processes[name.slot], "signal SIGKILL")
            case CloseListeners():
                self.listening = False
            case Halt():
                self.halt = action
            case _:
                self._succeed(action)

    def _succeed(self, action: Action) -> None:
        """Play the new master."""
        match action:
            case Launch():
                self.successor = Successor(self.now + 0.5)
                if self.upgrade is not Temper.GOOD:
                    self.successor.ready_at = math.inf
                if self.upgrade is Temper.BROKEN:
                    self.successor.dies_at, self.successor.how = self.now + 0.5, "exit code 3"
            case Dismiss() if self.successor is not None:
                self.successor.dies_at = min(self.successor.dies_at, self.now + 0.3)
            case HandOver() | TakeBack():
                self.main = isinstance(action, TakeBack)

    def _spawn(self, slot: int, generation: int) -> None:
        self._last_pid += 1
        boot = {Temper.HANGING: math.inf, Temper.SLOW: SLOW_BOOT}.get(self.temper, 0.2)
        process = Process(self._last_pid, slot, generation, self.temper, self.now + boot)
        self.processes[slot] = process
        self.post(Spawned(slot, process.pid))

    def _ask(self, process: Process, *, urgent: bool) -> None:
        """Ask a process to leave: in a moment, or when its requests are done."""
        if process.temper is Temper.STUBBORN or process.blocked:
            return
        if not process.ready:
            self.ends(process, "signal SIGTERM")
            return
        if not process.told:
            process.told = True
            self.says(process, Draining("asked to"))
        drain = SLOW_DRAIN if process.temper is Temper.SLOW else self.drain
        process.dies_at = min(process.dies_at, self.now + (0.1 if urgent else drain))
