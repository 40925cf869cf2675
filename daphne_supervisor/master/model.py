"""The vocabulary of the master: what a worker can be, what can happen, what can be done about it.

RULE for this file: it holds every state a worker can be in and every step between them. Code
elsewhere names a *cause* and looks the next state up; a missing entry is a bug of ours and raises.

Theory. A worker is born STARTING and climbs down, never up:

    STARTING -> READY -> DRAINING -> DUMPING -> ABORTING -> KILLED -> GONE

Any state may be skipped, because a process can die or be killed at any time. STARTING has no
traffic, READY has all of it, DRAINING finishes what it has. DUMPING was asked to say which requests
it is busy with, and to abort itself; ABORTING was sent SIGABRT, so that it dumps the stacks of all
its threads; KILLED was sent SIGKILL; GONE was reaped. News that is late, such as a `Ready` that
crossed our SIGTERM, is normal, and the table says so.

Events go into `Supervisor.step`, actions come out; both are plain data. Every action carries `why`,
so that one log line for each action tells the whole story of a master's life.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daphne_supervisor.errors import ExitCode
    from daphne_supervisor.master.policy import Settings
    from daphne_supervisor.messages import Heartbeat, Report

__all__ = [
    "TRANSITIONS",
    "Abort",
    "Action",
    "Announce",
    "Cause",
    "CloseListeners",
    "Command",
    "Dismiss",
    "Drain",
    "Dump",
    "Event",
    "Exited",
    "Fate",
    "Garbled",
    "Halt",
    "HandOver",
    "KeepZygotes",
    "Kill",
    "Launch",
    "Linger",
    "Milestone",
    "Name",
    "Order",
    "Quit",
    "Reassure",
    "Reconfigured",
    "ReloadRefused",
    "Remark",
    "Reopen",
    "Reported",
    "Severity",
    "Spawn",
    "Spawned",
    "SuccessorExited",
    "SuccessorReady",
    "TakeBack",
    "Worker",
    "WorkerState",
    "WrongTransitionError",
]


class WorkerState(enum.Enum):
    """Where a worker stands, as the master knows it."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    DUMPING = "dumping"
    ABORTING = "aborting"
    KILLED = "killed"
    GONE = "gone"


class Cause(enum.Enum):
    """What moves a worker: what it says, what it is told, and its end."""

    SAID_READY = "says that it is ready"
    SAID_DRAINING = "says that it drains"
    SAID_BOOT_FAILED = "says that it cannot boot"
    SAID_ALIVE = "sends a heartbeat"
    SAID_DUE = "says that it is due to be replaced"
    TOLD_TO_DRAIN = "is told to drain"
    TOLD_TO_QUIT = "is told to leave now"
    TOLD_TO_DUMP = "is told to dump"
    TOLD_TO_ABORT = "is told to abort"
    TOLD_TO_DIE = "is killed"
    EXITED = "exits"


_LATE_NEWS = [cause for cause in Cause if cause.name.startswith("SAID_")]

TRANSITIONS: Mapping[WorkerState, Mapping[Cause, WorkerState]] = {
    WorkerState.STARTING: {
        Cause.SAID_READY: WorkerState.READY,
        Cause.SAID_DRAINING: WorkerState.DRAINING,
        Cause.SAID_BOOT_FAILED: WorkerState.DRAINING,  # it leaves by itself
        Cause.SAID_ALIVE: WorkerState.STARTING,
        Cause.TOLD_TO_DRAIN: WorkerState.DRAINING,
        Cause.TOLD_TO_ABORT: WorkerState.ABORTING,
        Cause.TOLD_TO_DIE: WorkerState.KILLED,
        Cause.EXITED: WorkerState.GONE,
    },
    WorkerState.READY: {
        Cause.SAID_DRAINING: WorkerState.DRAINING,
        Cause.SAID_ALIVE: WorkerState.READY,
        Cause.SAID_DUE: WorkerState.READY,
        Cause.TOLD_TO_DRAIN: WorkerState.DRAINING,
        Cause.TOLD_TO_QUIT: WorkerState.DRAINING,
        Cause.TOLD_TO_DUMP: WorkerState.DUMPING,
        Cause.TOLD_TO_ABORT: WorkerState.ABORTING,
        Cause.TOLD_TO_DIE: WorkerState.KILLED,
        Cause.EXITED: WorkerState.GONE,
    },
    WorkerState.DRAINING: {
        **dict.fromkeys(_LATE_NEWS, WorkerState.DRAINING),
        Cause.TOLD_TO_QUIT: WorkerState.DRAINING,
        Cause.TOLD_TO_DUMP: WorkerState.DUMPING,
        Cause.TOLD_TO_ABORT: WorkerState.ABORTING,
        Cause.TOLD_TO_DIE: WorkerState.KILLED,
        Cause.EXITED: WorkerState.GONE,
    },
    WorkerState.DUMPING: {
        **dict.fromkeys(_LATE_NEWS, WorkerState.DUMPING),
        Cause.TOLD_TO_ABORT: WorkerState.ABORTING,
        Cause.TOLD_TO_DIE: WorkerState.KILLED,
        Cause.EXITED: WorkerState.GONE,
    },
    WorkerState.ABORTING: {
        **dict.fromkeys(_LATE_NEWS, WorkerState.ABORTING),
        Cause.TOLD_TO_DIE: WorkerState.KILLED,
        Cause.EXITED: WorkerState.GONE,
    },
    WorkerState.KILLED: {
        **dict.fromkeys(_LATE_NEWS, WorkerState.KILLED),
        Cause.EXITED: WorkerState.GONE,
    },
    WorkerState.GONE: {},
}


class WrongTransitionError(Exception):
    """The table has no row for this cause in this state."""


class Fate(enum.Enum):
    """How a worker's end is counted."""

    PLANNED = "planned"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class Name:
    """What a worker is called in log lines; `pid` is None until it is forked."""

    slot: int
    generation: int
    pid: int | None = None

    def __str__(self) -> str:
        """Return `worker 2 gen 3 pid 4711`."""
        pid = "" if self.pid is None else f" pid {self.pid}"
        return f"worker {self.slot} gen {self.generation}{pid}"


@dataclass(slots=True)
class Worker:
    """One worker as the master knows it; what runs inside is the worker package's affair.

    All times are monotonic seconds. `born` is the decision to fork; `entered` is the entry into
    the present state; `heard` the last report; `granted` the last time the master, having been
    late itself, forgave everybody. `ready_at` and `quit_at` are None until the worker was ready,
    or was told to leave now. `due` says why the worker asks to be replaced, "" while it does not;
    `lingering` that it was told that the end is near. `fate` is None until its end is decided, and
    `why` says by what. `reopen` means that the logs were reopened before the worker could be told.
    """

    slot: int
    generation: int
    born: float
    entered: float
    heard: float
    pid: int | None = None
    state: WorkerState = WorkerState.STARTING
    granted: float = float("-inf")
    ready_at: float | None = None
    quit_at: float | None = None
    figures: Heartbeat | None = None
    due: str = ""
    lingering: bool = False
    fate: Fate | None = None
    why: str = ""
    reopen: bool = False

    @property
    def name(self) -> Name:
        """The worker's name at this moment."""
        return Name(self.slot, self.generation, self.pid)

    @property
    def holds_place(self) -> bool:
        """Whether this worker's place is taken.

        A worker that is dying of its own fault keeps its place until it is buried: if its
        replacement took another slot at once, it would escape this slot's back-off.
        """
        serving = self.state in {WorkerState.STARTING, WorkerState.READY}
        return serving or self.fate is Fate.CRASHED

    @property
    def ready_since(self) -> float:
        """When this worker was ready first; infinity if it never was."""
        return math.inf if self.ready_at is None else self.ready_at

    def lived(self, now: float) -> float:
        """Return for how many seconds this worker has been ready, 0 if it never was."""
        return max(0.0, now - self.ready_since)

    def change(self, cause: Cause, now: float) -> None:
        """Take the step that `cause` means in the present state.

        Raises `WrongTransitionError` when the table has no such row.
        """
        after = TRANSITIONS[self.state].get(cause)
        if after is None:
            message = f"{self.name} is {self.state.value} and {cause.value}"
            raise WrongTransitionError(message)
        if after is not self.state:
            self.state, self.entered = after, now


class Command(enum.Enum):
    """What an operator asks of the master."""

    DRAIN = "stop after the requests in progress"
    INTERRUPT = "stop after the requests in progress (Ctrl-C)"
    QUIT = "stop now"
    RELOAD = "reload"
    MORE = "one worker more"
    FEWER = "one worker fewer"
    REOPEN = "reopen the logs"
    UPGRADE = "upgrade the master"


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """The configuration was read anew for the reload that follows, and is sound."""

    settings: Settings


@dataclass(frozen=True, slots=True)
class ReloadRefused:
    """A reload was asked for, but the configuration is not sound; `why` names file and line."""

    why: str


@dataclass(frozen=True, slots=True)
class SuccessorReady:
    """The new master that was started by an upgrade has its workers ready."""


@dataclass(frozen=True, slots=True)
class SuccessorExited:
    """The new master that was started by an upgrade is dead and reaped.

    `asked` says that it has ended in order, as a master does that was asked to stop.
    """

    how: str
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Spawned:
    """The worker in this slot was forked as `pid`."""

    slot: int
    pid: int


@dataclass(frozen=True, slots=True)
class Reported:
    """The worker in this slot sent a report."""

    slot: int
    report: Report


@dataclass(frozen=True, slots=True)
class Garbled:
    """The worker in this slot sent something that is no report."""

    slot: int
    why: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The worker in this slot is dead and reaped; `how` is `signal SIGKILL` or `exit code 3`."""

    slot: int
    how: str


Event = (
    Command
    | Reconfigured
    | ReloadRefused
    | SuccessorReady
    | SuccessorExited
    | Spawned
    | Reported
    | Garbled
    | Exited
)


@dataclass(frozen=True, slots=True)
class Order:
    """What is done to one worker, and why."""

    name: Name
    why: str


class Spawn(Order):
    """Fork a worker for this slot and generation."""


class Drain(Order):
    """Ask a worker to finish what it has and leave."""


class Quit(Order):
    """Tell a worker to leave without waiting for anybody."""


class Linger(Order):
    """Tell a worker that the end is near: it still accepts, but keeps no connection alive."""


class Dump(Order):
    """Make a worker say which requests it is busy with, and abort itself."""


class Abort(Order):
    """Make a worker dump the stacks of all its threads and die."""


class Kill(Order):
    """End a worker that nothing else can end."""


@dataclass(frozen=True, slots=True)
class Reopen:
    """Open the log files anew, in a worker or, without a name, in the master."""

    name: Name | None
    why: str


@dataclass(frozen=True, slots=True)
class CloseListeners:
    """Give up the listening sockets; no worker is born after this."""

    why: str


@dataclass(frozen=True, slots=True)
class KeepZygotes:
    """Give up the zygotes of all generations but these; their workers live on."""

    generations: frozenset[int]
    why: str


@dataclass(frozen=True, slots=True)
class Launch:
    """Start a new master beside this one, on the same listeners."""

    why: str


@dataclass(frozen=True, slots=True)
class HandOver:
    """Let the new master be the main process: pid file, service manager, socket files."""

    why: str


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Be the main process again: pid file, service manager, socket files."""

    why: str


@dataclass(frozen=True, slots=True)
class Dismiss:
    """Ask the new master to drain and leave."""

    why: str


@dataclass(frozen=True, slots=True)
class Reassure:
    """Tell the service manager's watchdog that all is well."""

    why: str


class Milestone(enum.Enum):
    """What a service manager waits for."""

    READY = "ready"
    RELOADING = "reloading"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the service manager; `milestone` is None when only the status line has changed.

    `failed` says that the last reload came to nothing. `extend` is the time in seconds that the
    service manager should grant for what has begun, 0 to leave it to its own patience.
    """

    milestone: Milestone | None
    status: str
    why: str
    failed: bool = False
    extend: float = 0.0


class Severity(enum.Enum):
    """How loud a remark is; the names are those of `logging`."""

    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"


@dataclass(frozen=True, slots=True)
class Remark:
    """Write a fact to the log; `detail` is text of several lines, such as a traceback."""

    severity: Severity
    name: Name | None
    why: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Halt:
    """Leave the loop: every worker is buried."""

    code: ExitCode
    why: str


Action = (
    Order
    | Reopen
    | CloseListeners
    | KeepZygotes
    | Launch
    | HandOver
    | TakeBack
    | Dismiss
    | Reassure
    | Announce
    | Remark
    | Halt
)
