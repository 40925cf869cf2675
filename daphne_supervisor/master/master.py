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
from typing import TYPE_CHECKING

from daphne_supervisor import listeners as listening
from daphne_supervisor.master.announce import Notifier, PidFile, set_title
from daphne_supervisor.master.model import (
    Abort,
    Announce,
    CloseListeners,
    Drain,
    Exited,
    Garbled,
    Halt,
    Kill,
    Order,
    Quit,
    Remark,
    Reopen,
    Reported,
    Spawn,
    Spawned,
)
from daphne_supervisor.master.policy import Patience
from daphne_supervisor.master.processes import Processes
from daphne_supervisor.master.signals import Mailbox
from daphne_supervisor.master.supervisor import Supervisor
from daphne_supervisor.messages import Decoder

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from daphne_supervisor.config import Config
    from daphne_supervisor.listeners import Listener
    from daphne_supervisor.logs import AccessLog
    from daphne_supervisor.master.model import Action, Event
    from daphne_supervisor.master.processes import Child, Hands
    from daphne_supervisor.messages import Assignment

__all__ = ["Master"]

_log = logging.getLogger("daphne_supervisor.master")

_LEVELS = logging.getLevelNamesMapping()

_ORDERS: dict[type[Order], tuple[signal.Signals, int, str]] = {
    Drain: (signal.SIGTERM, logging.INFO, "told to drain"),
    Quit: (signal.SIGQUIT, logging.INFO, "told to leave now"),
    Abort: (signal.SIGABRT, logging.WARNING, "aborted, its stacks follow"),
    Kill: (signal.SIGKILL, logging.WARNING, "killed"),
}
"""How each order reaches a worker, and how it is logged."""


@dataclass(slots=True)
class _Line:
    """The line to one worker: its process, and what was read of a report so far."""

    slot: int
    child: Child
    decoder: Decoder = field(default_factory=Decoder)
    open: bool = True


class Master:
    """Runs workers until it is told to stop."""

    def __init__(
        self,
        config: Config,
        listeners: tuple[Listener, ...],
        run_worker: Callable[[Assignment], int],
        access_log: AccessLog | None,
        *,
        hands: Hands | None = None,
        selector: selectors.BaseSelector | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; `listeners` belong to the master from here on. The last three are for tests."""
        self._config = config
        self._listeners = listeners
        self._access_log = access_log
        self._clock = clock
        self._mailbox = Mailbox()
        self._selector = selector or selectors.DefaultSelector()
        self._hands = hands or Processes(
            run_worker, config, listeners, access_log, abandon=self._abandon
        )
        self._supervisor = Supervisor(config.process.workers, _patience(config))
        self._notifier = Notifier(os.environ)
        self._pid_file = PidFile(config.process.pid_file)
        self._lines: dict[int, _Line] = {}  # by slot
        self._news: list[Event] = []  # what performing has brought about
        self._halt: Halt | None = None

    def run(self) -> int:
        """Serve until told to stop, and return the exit code.

        Raises `BootError` when the pid file cannot be written.
        """
        try:
            self._pid_file.write()
            with self._mailbox:
                return self._loop()
        finally:
            self._mailbox.close()
            self._selector.close()
            listening.release(self._listeners)
            self._pid_file.remove()

    def _loop(self) -> int:
        set_title(self._config.application)
        self._selector.register(self._mailbox, selectors.EVENT_READ, self._mailbox.read)
        while self._halt is None:
            self._turn()
        return int(self._halt.code)

    def _turn(self) -> None:
        """Gather all that waits, take one step, and do what it says."""
        events = self._gather()
        for action in self._supervisor.step(events, self._clock()):
            self._perform(action)

    # --- waiting ----------------------------------------------------------------------------

    def _gather(self) -> list[Event]:
        events, self._news = self._news, []
        for key, _ in self._selector.select(0 if events else self._timeout()):
            events += key.data()
        for death in self._hands.reap():
            line = next(line for line in self._lines.values() if line.child.pid == death.pid)
            events += self._bury(line)  # its last words come before its end
            events.append(Exited(line.slot, death.how))
        return events

    def _timeout(self) -> float | None:
        deadline = self._supervisor.deadline()
        return None if deadline is None else max(0.0, deadline - self._clock())

    def _listen(self, line: _Line) -> list[Event]:
        """Read what a worker has sent, up to the present."""
        events: list[Event] = []
        while line.open and (data := _receive(line.child.channel)) is not None:
            if not data:
                self._hang_up(line)
                break
            try:
                events += [Reported(line.slot, report) for report in line.decoder.feed(data)]
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                events.append(Garbled(line.slot, f"sent what is no report: {error!r}"))
                self._hang_up(line)
        return events

    def _hang_up(self, line: _Line) -> None:
        """Listen no more: a channel at its end is readable for ever."""
        line.open = False
        self._selector.unregister(line.child.channel)

    def _bury(self, line: _Line) -> list[Event]:
        """Close the line to a dead worker, and return the last that came over it."""
        events = self._listen(line)
        if line.open:  # a process that the worker started may hold the far end
            self._hang_up(line)
        self._hands.forget(line.child.pid)
        del self._lines[line.slot]
        return events

    # --- performing -------------------------------------------------------------------------

    def _perform(self, action: Action) -> None:
        match action:
            case Spawn():
                self._spawn(action)
            case Order():
                number, level, words = _ORDERS[type(action)]
                _log.log(level, "%s: %s: %s", action.name, words, action.why)
                self._hands.signal(self._lines[action.name.slot].child.pid, number)
            case Reopen():
                self._reopen(action)
            case CloseListeners():
                _log.info("listeners closed: %s", action.why)
                listening.release(self._listeners)
                self._listeners = ()
            case Announce():
                _log.debug("status: %s", action.status)
                self._notifier.announce(action)
            case Remark():
                self._remark(action)
            case Halt():  # pragma: no branch - the last kind there is
                self._halt = action
                _log.info("stopped: %s", action.why)

    def _spawn(self, action: Spawn) -> None:
        slot, generation = action.name.slot, action.name.generation
        try:
            child = self._hands.spawn(slot, generation)
        except OSError as error:
            self._news.append(Exited(slot, f"could not be forked: {error.strerror}"))
            return
        line = self._lines[slot] = _Line(slot, child)
        self._selector.register(
            child.channel, selectors.EVENT_READ, functools.partial(self._listen, line)
        )
        self._news.append(Spawned(slot, child.pid))
        _log.info("worker %d gen %d pid %d: started: %s", slot, generation, child.pid, action.why)

    def _reopen(self, action: Reopen) -> None:
        if action.name is not None:
            self._hands.signal(self._lines[action.name.slot].child.pid, signal.SIGUSR1)
            _log.info("%s: told to reopen the logs: %s", action.name, action.why)
        elif self._access_log is not None:
            self._access_log.reopen()

    def _remark(self, action: Remark) -> None:
        text = action.why if action.name is None else f"{action.name}: {action.why}"
        if action.detail:
            text = f"{text}\n{action.detail.rstrip()}"
        _log.log(_LEVELS[action.severity.value], "%s", text)

    def _abandon(self) -> None:
        """Close, in a forked child, what is the master's alone."""
        self._mailbox.close()
        self._selector.close()


def _receive(channel: socket.socket) -> bytes | None:
    """Return what can be read now, nothing at the end, None when there is nothing yet."""
    try:
        return channel.recv(65536)
    except BlockingIOError:
        return None
    except OSError:  # the far end is gone, which is an end as good as any
        return b""


def _patience(config: Config) -> Patience:
    process = config.process
    return Patience(
        boot=process.boot_timeout,
        heartbeat=process.worker_timeout,
        graceful=process.graceful_timeout,
    )
