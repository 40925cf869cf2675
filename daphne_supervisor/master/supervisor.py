"""Every decision of the master, as a pure function of state, events and the time.

Theory. `Supervisor.step` does two things. First it *applies*: each event updates one record. Then
it *reconciles*, which looks at the present only and returns what has to be done:

    expire   a worker past its patience is aborted, and then killed
    stop     when stopping: drain everybody, and halt when nobody is left
    retire   while more are ready than wanted: drain the stalest, then the oldest
    fill     while places are free: start a worker in the lowest free slot, after its back-off

Crash recovery, scaling and rolling reload are the same two rules, retire and fill: a reload only
raises the generation, which makes workers stale, which allows one more than the target, which
makes one too many as soon as the new one is ready. Retire comes before fill, since the reverse is
no fixed point. Reconciling twice changes nothing.

All waiting events belong into one step. Judged in between, a worker whose heartbeat waits behind
another event would be found silent after a pause of the master itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daphne_supervisor.errors import ExitCode
from daphne_supervisor.master import orders
from daphne_supervisor.master.model import (
    Cause,
    CloseListeners,
    Command,
    Exited,
    Fate,
    Garbled,
    Halt,
    Remark,
    Reopen,
    Reported,
    Severity,
    Spawn,
    Spawned,
    WorkerState,
    WrongTransitionError,
)
from daphne_supervisor.master.policy import LATE, SURGE, earliest
from daphne_supervisor.master.rollout import Herald, Rollout, RolloutState, Turn
from daphne_supervisor.master.roster import Roster
from daphne_supervisor.messages import BootFailed, Draining, Heartbeat, Ready

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daphne_supervisor.master.model import Action, Event, Worker
    from daphne_supervisor.master.policy import Patience, Restarts
    from daphne_supervisor.messages import Report

__all__ = ["Supervisor"]

_CAUSES: dict[type[Report], Cause] = {
    Ready: Cause.SAID_READY,
    Draining: Cause.SAID_DRAINING,
    BootFailed: Cause.SAID_BOOT_FAILED,
    Heartbeat: Cause.SAID_ALIVE,
}

_ALIVE = (WorkerState.STARTING, WorkerState.READY, WorkerState.DRAINING)
"""The states in which a worker may still listen to reason."""


@dataclass(slots=True)
class _Stop:
    """The decision to end: with which code, why, and whether nobody is waited for."""

    code: ExitCode
    why: str
    urgent: bool = False


class Supervisor:
    """Keeps `target` workers of the present generation ready, by telling others what to do."""

    def __init__(self, target: int, patience: Patience) -> None:
        """Start with no worker; the first step asks for `target` of them."""
        self.roster = Roster(target)
        self.rollout = Rollout()
        self._patience = patience
        self._herald = Herald()
        self._stop: _Stop | None = None
        self._actions: list[Action] = []
        self._ever_ready = self._closed = self._halted = False
        self._shown_failure = ""
        self._expected: float | None = None

    def step(self, events: Sequence[Event], now: float) -> list[Action]:
        """Take in everything that has happened until `now`, and return what to do about it.

        `now` is in monotonic seconds. Nobody may be heard of who was not spawned and announced by
        `Spawned` before; an unknown slot raises `KeyError`.
        """
        self._forgive(now)
        for event in events:
            self._apply(event, now)
        self._reconcile(now)
        self._expected = self.deadline()
        actions, self._actions = self._actions, []
        return actions

    def deadline(self) -> float | None:
        """Return when the next step is due if nothing happens, None if only events matter."""
        if self._halted:
            return None
        met = [earliest(worker, self._patience) for worker in self.roster.workers.values()]
        dues = [limit.due for limit in met if limit is not None]
        if self._stop is None:
            dues += [
                self.roster.memory(slot).not_before for slot in self.roster.vacant(self._surge)
            ]
        return min(dues, default=None)

    @property
    def status(self) -> str:
        """The one line that describes everything to a service manager."""
        if self._stop is not None:
            return "draining" if self._stop.code == ExitCode.STOPPED else self._stop.why
        ready = self.roster.who(WorkerState.READY)
        generation = min((one.generation for one in ready), default=self.roster.generation)
        count = f"{len(ready)}/{self.roster.target} workers ready, generation {generation}"
        return count + self.rollout.suffix

    @property
    def _surge(self) -> int:
        return 0 if self.rollout.state is RolloutState.HELD else SURGE

    def _forgive(self, now: float) -> None:
        if self._expected is None or now - self._expected <= LATE:
            return
        # After a suspended machine or a stopped master, silence is nobody's fault but ours.
        why = f"the master was {now - self._expected:.0f} s late: every worker gets fresh patience"
        self._remark(Severity.WARNING, None, why)
        for worker in self.roster.workers.values():
            worker.granted = now

    def _apply(self, event: Event, now: float) -> None:
        if isinstance(event, Command):
            self._obey(event)
            return
        worker = self.roster.workers[event.slot]
        match event:
            case Spawned():
                worker.pid = event.pid
            case Reported():
                self._hear(worker, event.report, now)
            case Garbled():
                self._condemn(worker, event.why, now)
            case Exited():  # pragma: no branch - the last kind there is
                self._bury(worker, event.how, now)

    def _obey(self, command: Command) -> None:
        if command in {Command.DRAIN, Command.INTERRUPT, Command.QUIT}:
            self._end(ExitCode.STOPPED, "the master was asked to stop", command)
        elif command is Command.REOPEN:
            self._reopen()
        elif self._stop is not None:
            self._remark(Severity.INFO, None, f"stopping, so nothing comes of: {command.value}")
        elif command is Command.RELOAD:
            self._reload()
        else:
            change = 1 if command is Command.MORE else -1
            self.roster.target = max(1, self.roster.target + change)
            self._remark(
                Severity.INFO, None, f"{command.value}: the target is {self.roster.target}"
            )

    def _end(self, code: ExitCode, why: str, command: Command | None = None) -> None:
        """Begin to stop or, if that was asked for before, stop waiting for anybody."""
        urgent = command is Command.QUIT or self._stop is not None
        if self._stop is None:
            self._stop = _Stop(code, why)
            self._herald.owe_stop()
        self._stop.urgent |= urgent

    def _reload(self) -> None:
        self.roster.begin_generation()
        self.rollout.change(Turn.RELOADED)
        self._herald.owe_reload()
        self._shown_failure = ""
        self._remark(Severity.INFO, None, f"reload to generation {self.roster.generation}")

    def _reopen(self) -> None:
        why = "the master was asked to"
        self._actions.append(Reopen(None, why))
        for worker in self.roster.who(WorkerState.STARTING):
            worker.reopen = True
        for worker in self.roster.who(WorkerState.READY, WorkerState.DRAINING):
            self._actions.append(Reopen(worker.name, why))

    def _hear(self, worker: Worker, report: Report, now: float) -> None:
        worker.heard = now
        try:
            worker.change(_CAUSES[type(report)], now)
        except WrongTransitionError as error:
            # Only this worker is out of its mind; the table's rule is for the orders we give.
            self._condemn(worker, f"spoke out of turn: {error}", now)
            return
        match report:
            case Heartbeat():
                worker.figures = report
            case Ready():
                self._welcome(worker, now)
            case Draining() if worker.fate is None:
                worker.fate, worker.why = Fate.PLANNED, report.why
                self._remark(Severity.INFO, worker, f"drains by itself: {report.why}")
            case BootFailed() if worker.fate is None:
                reason = " ".join(report.reason.split())
                self.roster.blame(worker, f"boot failed: {reason}", now)
                self._judge_boot(worker, reason, report.traceback)

    def _welcome(self, worker: Worker, now: float) -> None:
        worker.ready_at = now
        if worker.state is not WorkerState.READY:
            return
        self._ever_ready = True
        self._remark(Severity.INFO, worker, "ready")
        if worker.reopen:
            self._actions.append(Reopen(worker.name, "the logs were reopened while it booted"))

    def _condemn(self, worker: Worker, why: str, now: float) -> None:
        if worker.state is WorkerState.KILLED:
            return
        self._doom(worker, why, now)
        self._actions.append(orders.kill(worker, why, now))

    def _bury(self, worker: Worker, how: str, now: float) -> None:
        if worker.state is WorkerState.STARTING:
            self._doom(worker, "died before it was ready", now, detail=f": {how}")
        elif worker.fate is None:
            self._doom(worker, "crashed", now)
        worker.change(Cause.EXITED, now)
        self.roster.strike(worker, now)
        # It died before it could be told what this very step has decided.
        self._actions = [each for each in self._actions if not orders.addressed(each, worker)]
        # What failed to boot was reported, as loudly as it deserves, when it failed.
        crashed = worker.fate is Fate.CRASHED and worker.ready_at is not None
        text = f"gone, {how} after {now - worker.born:.1f} s: {worker.why}"
        self._remark(Severity.ERROR if crashed else Severity.INFO, worker, text)

    def _doom(self, worker: Worker, why: str, now: float, detail: str = "") -> None:
        """Blame a worker that was not on its way out; one that never served does not boot.

        Whoever leaves STARTING for any reason but an order of ours is judged here, the timeout as
        well as the exit: otherwise a release that hangs would be started over and over.
        """
        if worker.fate is not None:
            worker.why = f"{worker.why}; {why}"
            return
        self.roster.blame(worker, why, now)
        if worker.state is WorkerState.STARTING:
            self._judge_boot(worker, f"worker {worker.slot} {why}{detail}", "")

    def _judge_boot(self, worker: Worker, reason: str, traceback: str) -> None:
        if self._stop is not None or self.roster.stale(worker):
            return
        if not self._ever_ready:
            if traceback:
                self._remark(Severity.ERROR, worker, "the application failed", traceback)
            self._remark(Severity.CRITICAL, None, reason)
            self._end(ExitCode.BOOT_FAILED, f"boot failed: {reason}")
            return
        detail = "" if traceback == self._shown_failure else traceback
        self._shown_failure = traceback
        self._remark(Severity.ERROR, worker, f"boot failed: {reason}", detail)
        if self.rollout.change(Turn.FAILED, reason):
            why = "the reload is held, the old workers stay, the next reload tries again"
            self._remark(Severity.ERROR, None, f"{why}: {reason}")

    def _reconcile(self, now: float) -> None:
        self._expire(now)
        if self._stop is not None:
            self._wind_down(self._stop, now)
        else:
            self._retire(now)
            self._fill(now)
            self._settle()
        self._announce()
        if self._stop is not None and not self.roster.workers and not self._halted:
            self._halted = True
            self._actions.append(Halt(self._stop.code, self._stop.why))

    def _expire(self, now: float) -> None:
        for worker in self.roster.workers.values():
            limit = earliest(worker, self._patience)
            if limit is None or limit.due > now:
                continue
            self._doom(worker, limit.why, now)
            last = worker.state is WorkerState.ABORTING or worker.quit_at is not None
            climb = orders.kill if last else orders.abort
            self._actions.append(climb(worker, limit.why, now))

    def _wind_down(self, stop: _Stop, now: float) -> None:
        if not self._closed:
            self._closed = True
            self._actions.append(CloseListeners(stop.why))
        for worker in self.roster.who(*_ALIVE):
            if stop.urgent:
                order = orders.leave_now(worker, stop.why, now)
                self._actions += [] if order is None else [order]
            elif worker.state is not WorkerState.DRAINING:
                self._actions.append(orders.drain(worker, stop.why, now))

    def _retire(self, now: float) -> None:
        for worker in self.roster.surplus():
            stale = self.roster.stale(worker)
            why = f"generation {self.roster.generation} is ready" if stale else "above the target"
            self._actions.append(orders.drain(worker, why, now))
        for worker in self.roster.superfluous(self._surge):
            why = "it is not needed any more"
            self._actions.append(orders.drain(worker, why, now))

    def _fill(self, now: float) -> None:
        for slot in self.roster.vacant(self._surge):
            memory = self.roster.memory(slot)
            if memory.not_before <= now:
                worker = self.roster.admit(slot, now)
                self._actions.append(Spawn(worker.name, self._reason(memory)))

    def _reason(self, memory: Restarts) -> str:
        if memory.failures:
            return f"replaces a worker that failed, {memory.failures} in a row"
        if self.rollout.state is RolloutState.ROLLING:
            return f"reload to generation {self.roster.generation}"
        return f"the target is {self.roster.target}"

    def _settle(self) -> None:
        if self.roster.settled() and self.rollout.change(Turn.SETTLED):
            self._remark(Severity.INFO, None, f"generation {self.roster.generation} is complete")

    def _announce(self) -> None:
        enough = len(self.roster.who(WorkerState.READY)) >= self.roster.target
        # The first READY waits for everybody; a later one ends a reload, be it well or badly.
        ready = self.rollout.complete and (enough or self._herald.was_ready)
        announcement = self._herald.announce(self.status, ready=ready)
        if announcement is not None:
            self._actions.append(announcement)

    def _remark(
        self, severity: Severity, worker: Worker | None, why: str, detail: str = ""
    ) -> None:
        name = None if worker is None else worker.name
        self._actions.append(Remark(severity, name, why, detail))
