"""Every decision of the master, as a pure function of state, events and the time.

Theory. `Supervisor.step` does two things. First it *applies*: each event updates one record. Then
it *reconciles*, which looks at the present only and returns what has to be done:

    expire   a worker past its patience is dumped, then aborted, and then killed
    stop     when stopping: drain everybody, and halt when nobody is left
    depart   when a new master serves: the same
    retire   while more are ready than wanted: drain somebody
    settle   take note that a reload, or the way back from an upgrade, is complete
    fill     while places are free: start somebody

Reconciling twice changes nothing. What the steps go by lives in a module each: `fates` for what
becomes of a worker, `pool` for who is missing, `reloads` for the generation in force, `succession`
for upgrades, `stopping` for the end, `herald` for what the service manager hears.

All waiting events belong into one step. Judged in between, a worker whose heartbeat waits behind
another event would be found silent after a pause of the master itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from daphne_supervisor.errors import ExitCode
from daphne_supervisor.master import orders, snapshot
from daphne_supervisor.master.fates import Fates
from daphne_supervisor.master.herald import Herald, Watchdog
from daphne_supervisor.master.model import (
    Command,
    Dismiss,
    Halt,
    Reconfigured,
    ReloadRefused,
    Remark,
    Reopen,
    Severity,
    SuccessorExited,
    SuccessorReady,
    WorkerState,
)
from daphne_supervisor.master.policy import LATE, earliest
from daphne_supervisor.master.pool import Pool
from daphne_supervisor.master.reloads import Reloads
from daphne_supervisor.master.rollout import RolloutState
from daphne_supervisor.master.roster import Roster
from daphne_supervisor.master.stopping import Stop
from daphne_supervisor.master.succession import Succession, SuccessionState, Turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daphne_supervisor.master.model import Action, Event
    from daphne_supervisor.master.policy import Settings

__all__ = ["Supervisor"]

_STOPS = {Command.DRAIN, Command.INTERRUPT, Command.QUIT}

_STATES = {
    RolloutState.FIRST: "starting",
    RolloutState.STEADY: "running",
    RolloutState.ROLLING: "reloading",
    RolloutState.HELD: "running",
}
"""What the snapshot calls a master that neither stops nor upgrades itself."""


class Supervisor:
    """Keeps the target of workers of the present generation ready, by telling others what to do."""

    def __init__(self, settings: Settings, *, watchdog: float | None = None) -> None:
        """Start with no worker; the first step asks for all of them.

        `watchdog` is the number of seconds between two signs of life to the service manager.
        """
        self._actions: list[Action] = []
        self.roster = Roster(settings.workers)
        self.reloads = Reloads(self.roster, settings)
        self.succession = Succession()
        self.stop: Stop | None = None
        self._fates = Fates(self.roster, self.reloads, self._actions)
        self._pool = Pool(self.roster, self.reloads)
        self._herald = Herald()
        self._watchdog = Watchdog(watchdog)
        self._proposed: Settings | None = None
        self._began: float | None = None
        self._expected: float | None = -math.inf
        self._halted = False

    def step(self, events: Sequence[Event], now: float) -> list[Action]:
        """Take in everything that has happened until `now`, and return what to do about it.

        `now` is in monotonic seconds. Nobody may be heard of who was not spawned and announced by
        `Spawned` before; an unknown slot raises `KeyError`.
        """
        self._began = now if self._began is None else self._began
        self._forgive(now)
        for event in events:
            self._apply(event, now)
        self._proposed = None  # it was for a reload in this very step
        self._reconcile(now)
        self._expected = self._soonest(now)
        actions = [*self._actions]
        self._actions.clear()
        return actions

    def deadline(self) -> float | None:
        """Return when the next step is due if nothing happens, None if only events matter."""
        return self._expected

    def snapshot(self, now: float) -> dict[str, Any]:
        """Return everything there is to know at `now`, as data that fits into JSON."""
        workers = [worker for _, worker in sorted(self.roster.workers.items())]
        return {
            "state": self.state,
            "status": self.status,
            "generation": self.roster.generation,
            "target": self.roster.target,
            "uptime": 0.0 if self._began is None else now - self._began,
            "workers": [snapshot.of_worker(worker, now) for worker in workers],
            "reloads": [snapshot.of_outcome(one, now) for one in self.reloads.rollout.outcomes],
            "deaths": [snapshot.of_death(one, now) for one in self._fates.deaths],
        }

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.reloads.settings

    @property
    def state(self) -> str:
        """The one word for what the master is doing."""
        if self.stop is not None:
            return "stopping"
        if self.succession.away:
            return self.succession.state.value
        if self.succession.state is SuccessionState.STARTED:
            return "upgrading"
        return _STATES[self.reloads.rollout.state]

    @property
    def status(self) -> str:
        """The one line that describes everything to a service manager."""
        ready = self.roster.who(WorkerState.READY)
        generation = min((one.generation for one in ready), default=self.roster.generation)
        count = f"{len(ready)}/{self.roster.target} workers ready, generation {generation}"
        if self.stop is None:
            return count + self.reloads.rollout.suffix + self.succession.suffix
        if not self.stop.closed:
            return f"shutting down in {self.stop.delay:g} s: {count}"
        return "draining" if self.stop.code == ExitCode.STOPPED else self.stop.why

    # --- facts ------------------------------------------------------------------------------

    def _forgive(self, now: float) -> None:
        late = 0.0 if self._expected is None else now - self._expected
        if LATE < late < math.inf:
            # After a suspended machine or a stopped master, silence is nobody's fault but ours.
            why = f"the master was {late:.0f} s late: every worker gets fresh patience"
            self._fates.forgive(why, now)

    def _apply(self, event: Event, now: float) -> None:
        match event:
            case Command():
                self._obey(event, now)
            case Reconfigured():
                self._proposed = event.settings
            case ReloadRefused():
                self._reload(now, event.why)
            case SuccessorReady():
                self._succeed(Turn.READY, now)
            case SuccessorExited():
                self._outlive(event, now)
            case _:
                self._fates.follow(event, now)
                self._despair(now)

    def _obey(self, command: Command, now: float) -> None:
        if command in _STOPS:
            self._end(ExitCode.STOPPED, "the master was asked to stop", now, command)
        elif command is Command.REOPEN:
            self._actions.append(Reopen(None, "the master was asked to"))
            self._fates.reopen()
        elif command is Command.RELOAD:
            self._reload(now)
        elif not self._excused(command):
            self._change(command, now)

    def _change(self, command: Command, now: float) -> None:
        if command is Command.UPGRADE:
            self._succeed(Turn.UPGRADED, now)
            return
        change = 1 if command is Command.MORE else -1
        self.roster.target = max(1, self.roster.target + change)
        self._remark(f"{command.value}: the target is {self.roster.target}")

    def _excused(self, command: Command) -> bool:
        """Return whether nothing comes of `command` now, and say why."""
        excuse = ""
        if self.stop is not None:
            excuse = "stopping"
        elif command is Command.UPGRADE and not self._herald.was_ready:
            excuse = "still starting"
        elif command is Command.UPGRADE and self.succession.state is not SuccessionState.NONE:
            excuse = "an upgrade is under way"
        elif command is not Command.RELOAD and self.succession.state is SuccessionState.HANDED_OVER:
            excuse = "the new master serves"
        if excuse:
            self._remark(f"{excuse}, so nothing comes of: {command.value}")
        return bool(excuse)

    def _reload(self, now: float, refusal: str = "") -> None:
        """Begin a reload, or refuse it; during an upgrade it means that the operator goes back."""
        if self._excused(Command.RELOAD):
            return
        if not self.succession.away:  # or else the service manager does not listen to us
            self._herald.owe_reload(judged=not self.succession.recallable)
        if self.succession.recallable:
            self._succeed(Turn.RECALLED, now)
        elif refusal:
            self._actions += self.reloads.refuse(refusal, now)
        else:
            settings = self._proposed or self.settings
            self._actions += self.reloads.begin(settings, now, proven=self._fates.ever_ready)

    def _succeed(self, turn: Turn, now: float, detail: str = "") -> None:
        """Take a step in the succession of masters."""
        before = self.succession.away
        self._actions += self.succession.change(turn, detail)
        if self.succession.away and not before:
            self._actions += self.reloads.preempt("the new master serves", now)
        if before and not self.succession.away:
            self._herald.resume()

    def _outlive(self, event: SuccessorExited, now: float) -> None:
        """Go on without the new master; but who has stopped it in office meant the service."""
        # It died before it could be told what this very step has decided.
        self._actions[:] = [one for one in self._actions if not isinstance(one, Dismiss)]
        if not event.asked or self.succession.state is not SuccessionState.HANDED_OVER:
            self._succeed(Turn.EXITED, now, event.how)
        elif self.stop is None:
            self._end(ExitCode.STOPPED, "the new master was asked to stop", now)

    def _despair(self, now: float) -> None:
        """Stop if the service cannot even start."""
        if self._fates.hopeless and self.stop is None:
            self._end(ExitCode.BOOT_FAILED, f"boot failed: {self._fates.hopeless}", now)

    def _end(self, code: ExitCode, why: str, now: float, command: Command | None = None) -> None:
        """Begin to stop or, if that was asked for before, stop waiting for anybody."""
        if self.stop is not None:
            if self.succession.alive and not self.stop.urgent:
                self._actions.append(Dismiss("the master was asked twice to stop"))
            self.stop.hurry(now)
            return
        # Before the first READY, and while a new master serves, there is nobody to warn.
        serving = self._herald.was_ready and not self.succession.away
        delay = self.settings.shutdown_delay if serving and command is Command.DRAIN else 0.0
        self.stop = Stop.after(delay, self.settings.patience.leave, code, why, now)
        self.stop.urgent = command is Command.QUIT
        if delay:
            self._remark(f"shutting down in {delay:g} s (--shutdown-delay), accepting until then")
        self._fates.final = True
        self._herald.owe_stop()
        self._actions += self.reloads.preempt(why, now)
        self._succeed(Turn.STOPPED, now)

    # --- decisions --------------------------------------------------------------------------

    def _reconcile(self, now: float) -> None:
        self._fates.expire(now)
        self._despair(now)
        if self.stop is not None and self.stop.closes_at <= now:
            self._actions += self.stop.wind_down(self.roster, now)
        elif self.succession.state is SuccessionState.HANDED_OVER:
            self._depart(now)
        else:
            self._keep(now)
        self._announce(now)
        self._finish()

    def _depart(self, now: float) -> None:
        """Leave the field to the new master."""
        for worker in self.roster.who(WorkerState.STARTING, WorkerState.READY):
            self._actions.append(orders.drain(worker, "the new master serves", now))

    def _keep(self, now: float) -> None:
        """Keep the pool at its strength."""
        self._actions += self._pool.retire(now, calm=self._calm)
        self._actions += self.reloads.settle(now)
        self._actions += self.reloads.tidy()
        if self.roster.enough and self.succession.state is SuccessionState.RECALLED:
            self._succeed(Turn.RESTORED, now)
        self._actions += self._pool.fill(now, calm=self._calm)
        if self.stop is not None:
            self._actions += self.stop.linger(self.roster)

    def _announce(self, now: float) -> None:
        if not self.succession.away:
            # The first READY waits for everybody; a later one ends a reload, well or badly.
            rollout = self.reloads.rollout
            self._actions += self._herald.announce(
                self.status,
                ready=rollout.complete and (self.roster.enough or self._herald.was_ready),
                failed=rollout.failed,
                extend=0.0 if self.stop is None else self.stop.time_left(now),
            )
        well = bool(self.roster.who(WorkerState.READY)) or not self._calm
        self._actions += self._watchdog.watch(now, healthy=well and self._herald.was_ready)

    def _finish(self) -> None:
        """Halt when everybody is buried who has to be."""
        if self.roster.workers or self._halted or self._keeping:
            return
        if self.stop is None:
            self._halt(ExitCode.STOPPED, "the new master serves")
        elif not self.succession.alive:
            self._halt(self.stop.code, self.stop.why)

    def _halt(self, code: ExitCode, why: str) -> None:
        self._halted = True
        self._actions.append(Halt(code, why))

    # --- the present ------------------------------------------------------------------------

    @property
    def _calm(self) -> bool:
        """Whether we neither stop nor have handed over."""
        return self.stop is None and not self.succession.away

    @property
    def _keeping(self) -> bool:
        """Whether workers that are missing are started."""
        if self.stop is not None:
            return not self.stop.closed
        return self.succession.state is not SuccessionState.HANDED_OVER

    def _soonest(self, now: float) -> float | None:
        """Return when something will be due if nothing happens."""
        if self._halted:
            return None
        patience = self.settings.patience
        met = [earliest(worker, patience) for worker in self.roster.workers.values()]
        times = [self._watchdog.due, *(limit.due for limit in met if limit is not None)]
        if self._keeping:
            times += self._pool.times(now, calm=self._calm)
        if self.stop is not None and not self.stop.closed:
            times.append(self.stop.closes_at)
        soonest = min(times)
        return None if soonest == math.inf else soonest

    def _remark(self, why: str) -> None:
        self._actions.append(Remark(Severity.INFO, None, why))
