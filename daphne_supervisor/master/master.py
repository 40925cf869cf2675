"""The loop: wait, step, perform. The only place where the master blocks.

Theory. Everything that can happen to the master arrives at a descriptor: signals in the mailbox,
reports on the workers' channels; and a death sends SIGCHLD. So one `select` until the supervisor's
deadline is the whole of waiting, and nothing here decides anything: what was read becomes events,
the supervisor turns events into actions, and each action is one entry in a table below.

This module and all that it imports stay small on purpose: no reactor, no threads, no network
library. What the master does not have cannot break it, and is not copied into every worker.
"""

from __future__ import annotations

import functools
import logging
import os
import selectors
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from daphne_supervisor.errors import SupervisorError
from daphne_supervisor.master.announce import Notifier, watchdog_interval
from daphne_supervisor.master.broker import BrokerHandle, live
from daphne_supervisor.master.model import (
    Abort,
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
    Order,
    Quit,
    Reassure,
    Reconfigured,
    ReloadRefused,
    Remark,
    Reopen,
    Reported,
    Spawn,
    Spawned,
    TakeBack,
)
from daphne_supervisor.master.nursery import receive
from daphne_supervisor.master.office import Office
from daphne_supervisor.master.pid_file import PidFile
from daphne_supervisor.master.policy import Patience, Settings
from daphne_supervisor.master.processes import Processes
from daphne_supervisor.master.signals import Mailbox
from daphne_supervisor.master.status_file import StatusFile
from daphne_supervisor.master.successor import Start, own_command
from daphne_supervisor.master.supervisor import Supervisor
from daphne_supervisor.master.upgrade import Upgrade
from daphne_supervisor.messages import LINGER, WORKER_REPORTS, Decoder, Ready

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from daphne_supervisor.config import Config
    from daphne_supervisor.master.model import Action, Event
    from daphne_supervisor.master.processes import Hands
    from daphne_supervisor.master.successor import Inheritance
    from daphne_supervisor.master.zygote import Heritage
    from daphne_supervisor.messages import Report

__all__ = ["Master"]

_log = logging.getLogger("daphne_supervisor.master")

_LEVELS = logging.getLevelNamesMapping()

_ORDERS: dict[type[Order], tuple[signal.Signals, int, str]] = {
    Drain: (signal.SIGTERM, logging.INFO, "told to drain"),
    Quit: (signal.SIGQUIT, logging.INFO, "told to leave now"),
    Dump: (signal.SIGUSR2, logging.WARNING, "told to say what it is busy with, and to abort"),
    Abort: (signal.SIGABRT, logging.WARNING, "aborted, its stacks follow"),
    Kill: (signal.SIGKILL, logging.WARNING, "killed"),
}
"""How each order reaches a worker, and how it is logged."""


@dataclass(slots=True)
class _Line:
    """The line to one worker: our end of its channel, and what was read of a report so far."""

    slot: int
    generation: int
    channel: socket.socket
    pid: int | None = None
    decoder: Decoder[Report] = field(default_factory=lambda: Decoder(WORKER_REPORTS))
    open: bool = True


class Master:
    """Runs workers until it is told to stop."""

    def __init__(
        self,
        heritage: Heritage,
        reread: Callable[[Config], Heritage],
        inheritance: Inheritance | None = None,
        *,
        directory: str = "",
        hands: Hands | None = None,
        selector: selectors.BaseSelector | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; the listeners in `heritage` belong to the master from here on.

        `reread` returns what the next generation is born with, given the present configuration, or
        raises `SupervisorError`. `directory` is where an upgrade is started. The last three are for
        tests. Raises `BootError` when the system is not fit.
        """
        self._heritage = heritage
        self._reread = reread
        self._clock = clock
        self._mailbox = Mailbox()
        environ = dict(os.environ)  # as it is before anything is taken out
        self._selector = selector or selectors.DefaultSelector()
        self._notifier = Notifier(os.environ)
        config = heritage.config
        pid_file = PidFile(config.process.pid_file)
        self._office = Office(self._notifier, pid_file, heritage.listeners, config.application)
        self._status_file = StatusFile(config.process.status_file)
        start = Start(own_command(), directory, environ)
        self._upgrade = Upgrade(inheritance, self._office, heritage.listeners, start)
        self._hands = hands or Processes(heritage, self._selector, self._leave_alone)
        self._broker = BrokerHandle(heritage.broker, self._start_broker, self._hands.end, clock)
        self._supervisor = Supervisor(
            _settings(config), watchdog=watchdog_interval(environ, os.getpid())
        )
        self._deeds: dict[type[Action], Callable[[Any], None]] = {
            **dict.fromkeys(_ORDERS, self._order),
            Spawn: self._spawn,
            Linger: self._linger,
            Reopen: self._reopen,
            CloseListeners: self._close_listeners,
            KeepZygotes: self._keep_zygotes,
            **dict.fromkeys((Launch, HandOver, TakeBack, Dismiss), self._change_masters),
            Reassure: self._reassure,
            Announce: self._announce,
            Remark: self._remark,
            Halt: self._stop,
        }
        self._lines: dict[int, _Line] = {}  # by slot
        self._news: list[Event] = []  # what performing has brought about
        self._halt: Halt | None = None

    def run(self) -> int:
        """Serve until told to stop, and return the exit code.

        Raises `BootError` when the pid file cannot be written.
        """
        try:
            self._upgrade.begin(self._selector)
            self._broker.begin(self._selector)
            with self._mailbox:
                code = self._loop()
            self._heritage.hooks.on_exit(code=code)
            return code
        finally:
            self._hands.close()
            self._broker.close()
            self._mailbox.close()
            self._selector.close()
            self._office.leave()
            self._upgrade.abandon()
            if self._office.held:
                self._status_file.remove()

    def _loop(self) -> int:
        self._selector.register(self._mailbox, selectors.EVENT_READ, self._read_mail)
        while self._halt is None:
            self._turn()
        return int(self._halt.code)

    def _turn(self) -> None:
        """Gather all that waits, take one step, and do what it says."""
        events, now = self._gather()
        actions = self._supervisor.step(events, now)
        for action in actions:
            self._perform(action)
        if self._office.held:  # during an upgrade two masters have one file
            self._status_file.update(
                lambda: self._supervisor.snapshot(now), now, changed=bool(actions)
            )

    # --- waiting ----------------------------------------------------------------------------

    def _gather(self) -> tuple[list[Event], float]:
        """Wait for something to happen; return all that has, and until when."""
        events, self._news = self._news, []
        self._broker.wake()
        events += self._births_and_deaths()
        self._selector.select(0 if events else self._timeout())
        # The clock first, then the look: a process may be stopped anywhere, and go on much later.
        # By the new time, but without what was reported meanwhile, every worker would seem silent.
        now = self._clock()
        ready = self._selector.select(0)
        events += self._known(self._hands.news())  # who speaks is known to have been born
        for key, _ in ready:
            events += self._known(key.data())
        return events + self._births_and_deaths(), now

    def _timeout(self) -> float | None:
        deadlines = (self._supervisor.deadline(), self._broker.deadline())
        deadline = min((one for one in deadlines if one is not None), default=None)
        return None if deadline is None else max(0.0, deadline - self._clock())

    def _births_and_deaths(self) -> list[Event]:
        events = self._known(self._hands.news())
        strangers = self._hands.strangers()
        self._broker.recognise(strangers)
        return events + self._upgrade.recognise(strangers)

    def _known(self, found: list[Event]) -> list[Event]:
        """Note what concerns the lines; a worker's last words come before its end."""
        events: list[Event] = []
        for event in found:
            if isinstance(event, Spawned):
                self._introduce(event)
            elif isinstance(event, Exited):
                events += self._bury(self._lines[event.slot], event.how)
            events.append(event)
        return events

    def _read_mail(self) -> list[Event]:
        events: list[Event] = []
        for command in self._mailbox.read():
            events += self._reconfigure() if command is Command.RELOAD else [command]
        return events

    def _reconfigure(self) -> list[Event]:
        """Read the configuration anew, for a reload that was asked for."""
        try:
            heritage = self._reread(self._heritage.config)
        except SupervisorError as error:
            return [ReloadRefused(str(error))]
        self._heritage = heritage
        self._hands.renew(heritage)
        heritage.hooks.on_reload(application=heritage.config.application)
        return [Reconfigured(_settings(heritage.config)), Command.RELOAD]

    def _introduce(self, event: Spawned) -> None:
        line = self._lines[event.slot]
        line.pid = event.pid
        _log.info("worker %d gen %d pid %d: forked", line.slot, line.generation, event.pid)

    def _listen(self, line: _Line) -> list[Event]:
        """Read what a worker has sent, up to the present."""
        events: list[Event] = []
        while line.open and (data := receive(line.channel)) is not None:
            if not data:
                self._hang_up(line)
                break
            try:
                reports = line.decoder.feed(data)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                events.append(Garbled(line.slot, f"sent what is no report: {error!r}"))
                self._hang_up(line)
                break
            events += [Reported(line.slot, report) for report in reports]
            if any(isinstance(report, Ready) for report in reports):
                self._heritage.hooks.worker_ready(
                    slot=line.slot, generation=line.generation, pid=line.pid
                )
        return events

    def _hang_up(self, line: _Line) -> None:
        """Listen no more: a channel at its end is readable for ever."""
        line.open = False
        self._selector.unregister(line.channel)

    def _bury(self, line: _Line, how: str) -> list[Event]:
        """Close the line to a dead worker, and return the last that came over it."""
        events = self._listen(line)
        if line.open:  # a process that the worker started may hold the far end
            self._hang_up(line)
        self._hands.forget(line.slot)
        del self._lines[line.slot]
        self._heritage.hooks.worker_exit(
            slot=line.slot, generation=line.generation, pid=line.pid, how=how
        )
        return events

    # --- performing -------------------------------------------------------------------------

    def _perform(self, action: Action) -> None:
        self._deeds[type(action)](action)

    def _order(self, action: Order) -> None:
        number, level, words = _ORDERS[type(action)]
        _log.log(level, "%s: %s: %s", action.name, words, action.why)
        self._hands.signal(action.name.slot, number)

    def _close_listeners(self, action: CloseListeners) -> None:
        _log.info("listeners closed: %s", action.why)
        self._heritage.scoreboard.close()
        self._office.close_listeners()
        self._hands.keep(frozenset())  # zygotes have them open too

    def _keep_zygotes(self, action: KeepZygotes) -> None:
        self._hands.keep(action.generations)

    def _change_masters(self, action: Launch | HandOver | TakeBack | Dismiss) -> None:
        self._news += self._upgrade.perform(action)

    def _reassure(self, _: Reassure) -> None:
        self._office.reassure()

    def _announce(self, action: Announce) -> None:
        _log.debug("status: %s", action.status)
        self._office.announce(action)
        if action.milestone is Milestone.READY:
            self._upgrade.ready()

    def _stop(self, action: Halt) -> None:
        self._halt = action
        _log.info("stopped: %s", action.why)

    def _spawn(self, action: Spawn) -> None:
        slot, generation = action.name.slot, action.name.generation
        _log.info("worker %d gen %d: to be forked: %s", slot, generation, action.why)
        try:
            channel = self._hands.spawn(slot, generation)
        except OSError as error:
            self._news.append(Exited(slot, f"could not be forked: {error.strerror}"))
            return
        line = self._lines[slot] = _Line(slot, generation, channel)
        self._selector.register(
            channel, selectors.EVENT_READ, functools.partial(self._listen, line)
        )

    def _linger(self, action: Linger) -> None:
        _log.info("%s: told to keep no connection alive: %s", action.name, action.why)
        try:
            self._lines[action.name.slot].channel.send(LINGER)
        except OSError as error:  # it is dead, or does not read
            _log.info("%s: was not told: %s", action.name, error.strerror)

    def _reopen(self, action: Reopen) -> None:
        if action.name is not None:
            self._hands.signal(action.name.slot, signal.SIGUSR1)
            _log.info("%s: told to reopen the logs: %s", action.name, action.why)
            return
        self._hands.reopen()

    def _remark(self, action: Remark) -> None:
        text = action.why if action.name is None else f"{action.name}: {action.why}"
        if action.detail:
            text = f"{text}\n{action.detail.rstrip()}"
        _log.log(_LEVELS[action.severity.value], "%s", text)

    def _start_broker(self, lifeline: socket.socket) -> int:
        return self._hands.start(functools.partial(live, self._heritage, lifeline))

    def _leave_alone(self) -> None:
        """Close, in a forked child, what is the master's alone."""
        self._broker.leave_alone()
        self._mailbox.close()
        self._selector.close()
        self._office.abandon()
        self._upgrade.abandon()


def _settings(config: Config) -> Settings:
    process = config.process
    return Settings(
        workers=process.workers,
        patience=Patience(
            boot=process.ready_timeout,
            heartbeat=process.worker_timeout,
            graceful=config.drain.graceful_timeout,
        ),
        surge=process.reload_surge,
        min_lifetime=config.recycling.min_lifetime,
        shutdown_delay=config.drain.shutdown_delay,
    )
