"""What becomes of each worker: its news, its patience, its end.

Theory. Whoever leaves for any reason but an order of ours has failed, and its failure is judged
once, where it shows first. Every failure is charged to the slot. That of a worker that never served
also says something about the code it was made of: if no worker was ever ready, that the whole
service cannot start; else that the reload in progress has failed. This belongs to the timeout as
well as to the exit, or a release that hangs would be started over and over.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from daphne_supervisor.master import orders
from daphne_supervisor.master.model import (
    Cause,
    Exited,
    Fate,
    Garbled,
    Remark,
    Reopen,
    Reported,
    Severity,
    Spawned,
    WorkerState,
    WrongTransitionError,
)
from daphne_supervisor.master.policy import earliest
from daphne_supervisor.master.snapshot import Death
from daphne_supervisor.messages import BootFailed, Draining, Due, Heartbeat, Ready

if TYPE_CHECKING:
    from daphne_supervisor.master.model import Action, Worker
    from daphne_supervisor.master.reloads import Reloads
    from daphne_supervisor.master.roster import Roster
    from daphne_supervisor.messages import Report

__all__ = ["Fates"]

_CAUSES: dict[type[Report], Cause] = {
    Ready: Cause.SAID_READY,
    Draining: Cause.SAID_DRAINING,
    BootFailed: Cause.SAID_BOOT_FAILED,
    Heartbeat: Cause.SAID_ALIVE,
    Due: Cause.SAID_DUE,
}

KEPT = 20
"""Deaths to remember: more than any crash loop makes in five minutes."""


class Fates:
    """Follows every worker of `roster` from its birth to its end, and adds to `actions`.

    `hopeless` says why the service cannot start, "" while it may. `final` is set when the end of
    everything is decided: then it is no news any more that a worker does not boot.
    """

    def __init__(self, roster: Roster, reloads: Reloads, actions: list[Action]) -> None:
        """Begin with nobody to follow."""
        self.deaths: deque[Death] = deque(maxlen=KEPT)
        self.hopeless = ""
        self.final = self.ever_ready = False
        self._roster = roster
        self._reloads = reloads
        self._actions = actions
        self._shown = (0, "")

    def follow(self, event: Spawned | Reported | Garbled | Exited, now: float) -> None:
        """Take note of what happens to one worker; an unknown slot raises `KeyError`."""
        worker = self._roster.workers[event.slot]
        match event:
            case Spawned():
                worker.pid = event.pid
            case Reported():
                self._hear(worker, event.report, now)
            case Garbled():
                self._condemn(worker, event.why, now)
            case Exited():  # pragma: no branch - the last kind there is
                self._bury(worker, event.how, now)

    def expire(self, now: float) -> None:
        """Use force against everybody who is past patience."""
        for worker in self._roster.workers.values():
            limit = earliest(worker, self._reloads.settings.patience)
            if limit is None or limit.due > now:
                continue
            self._doom(worker, limit.why, now)
            self._actions.append(orders.climb(worker, limit.why, now))

    def forgive(self, why: str, now: float) -> None:
        """Let everybody's patience begin anew."""
        self._remark(Severity.WARNING, None, why)
        for worker in self._roster.workers.values():
            worker.granted = now

    def reopen(self) -> None:
        """Have everybody reopen the logs, who boots as soon as it is ready."""
        why = "the master was asked to"
        for worker in self._roster.who(WorkerState.STARTING):
            worker.reopen = True
        for worker in self._roster.who(WorkerState.READY, WorkerState.DRAINING):
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
            case Due() if not worker.due:
                worker.due = report.why
                self._remark(Severity.INFO, worker, f"is due to be replaced: {report.why}")
            case Draining() if worker.fate is None:
                worker.fate, worker.why = Fate.PLANNED, report.why
                self._remark(Severity.INFO, worker, f"drains by itself: {report.why}")
            case BootFailed() if worker.fate is None:
                reason = " ".join(report.reason.split())
                self._roster.blame(worker, f"boot failed: {reason}", now)
                self._judge_boot(worker, reason, report.traceback, now)

    def _welcome(self, worker: Worker, now: float) -> None:
        worker.ready_at = now
        if worker.state is not WorkerState.READY:
            return
        self.ever_ready = True
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
        self._roster.strike(worker, now)
        # It died before it could be told what this very step has decided.
        self._actions[:] = [each for each in self._actions if not orders.addressed(each, worker)]
        self.deaths.append(Death.of(worker, how, now))
        # What failed to boot was reported, as loudly as it deserves, when it failed.
        crashed = worker.fate is Fate.CRASHED and worker.ready_at is not None
        text = f"gone, {how} after {now - worker.born:.1f} s: {worker.why}"
        self._remark(Severity.ERROR if crashed else Severity.INFO, worker, text)

    def _doom(self, worker: Worker, why: str, now: float, detail: str = "") -> None:
        """Blame a worker that was not on its way out; one that never served does not boot."""
        if worker.fate is not None:
            worker.why = f"{worker.why}; {why}"
            return
        self._roster.blame(worker, why, now)
        if worker.state is WorkerState.STARTING:
            self._judge_boot(worker, f"worker {worker.slot} {why}{detail}", "", now)

    def _judge_boot(self, worker: Worker, reason: str, traceback: str, now: float) -> None:
        if self.final or self.hopeless or self._roster.stale(worker):
            return
        if not self.ever_ready:
            if traceback:
                self._remark(Severity.ERROR, worker, "the application failed", traceback)
            self._remark(Severity.CRITICAL, None, reason)
            self.hopeless = reason
            return
        # A slot that is tried again and again shows the same traceback but once for each reload.
        failure = (self._roster.newest, traceback)
        detail, self._shown = "" if failure == self._shown else traceback, failure
        self._remark(Severity.ERROR, worker, f"boot failed: {reason}", detail)
        self._actions += self._reloads.fail(reason, now)

    def _remark(
        self, severity: Severity, worker: Worker | None, why: str, detail: str = ""
    ) -> None:
        name = None if worker is None else worker.name
        self._actions.append(Remark(severity, name, why, detail))
