"""The only module that forks, signals and reaps.

Theory. From fork until it has handlers of its own, a child runs with the master's: it even shares
the wake-up socket, so that a SIGTERM meant for the child would land in the master's mailbox and
stop the whole service. Hence signals are blocked across the fork, and a child unblocks them only
when it has given the handlers back. For the same reason a child closes everything of the master
that it inherited: a sibling's channel kept open by accident would hide that sibling's death.

A child never returns into the master's stack. It leaves through `os._exit`, so that none of the
master's cleaning up (the pid file, unix sockets) runs twice.

As process 1 of a container the master also inherits orphans; they are reaped and not counted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from daphne_supervisor.errors import ExitCode
from daphne_supervisor.master.signals import HANDLED
from daphne_supervisor.messages import Assignment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

    from daphne_supervisor.config import Config
    from daphne_supervisor.listeners import Listener
    from daphne_supervisor.logs import AccessLog

__all__ = ["Child", "Death", "Hands", "Processes", "describe"]

_log = logging.getLogger("daphne_supervisor.master")

_FOR_THE_MASTER = (
    signal.SIGINT,  # a terminal sends it to the whole group: Ctrl-C is the master's to judge
    signal.SIGHUP,  # as SIGINT, when the terminal goes away; and `pkill -HUP` hits everybody
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR2,
    signal.SIGUSR1,  # may arrive before the worker can reopen anything; by default it would kill
)


@dataclass(frozen=True, slots=True)
class Child:
    """A forked worker: its process id and the master's end of its channel."""

    pid: int
    channel: socket.socket


@dataclass(frozen=True, slots=True)
class Death:
    """A reaped worker; `how` is `signal SIGKILL` or `exit code 3`."""

    pid: int
    how: str


class Hands(Protocol):
    """What the master can do to processes."""

    def spawn(self, slot: int, generation: int) -> Child:
        """Fork a worker; raises `OSError` when the system has no room for it."""
        ...

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a worker that was not reaped yet."""
        ...

    def reap(self) -> list[Death]:
        """Return the workers that died since the last call."""
        ...

    def forget(self, pid: int) -> None:
        """Close the channel of a dead worker."""
        ...


def describe(status: int) -> str:
    """Return a wait status in words: `signal SIGKILL` or `exit code 3`."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:  # real-time signals have no names
        return f"signal {-code}"


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # It may be None or closed, and whoever reads a pipe may have gone.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()


class Processes:
    """The real hands."""

    def __init__(
        self,
        run_worker: Callable[[Assignment], int],
        config: Config,
        listeners: tuple[Listener, ...],
        access_log: AccessLog | None,
        *,
        abandon: Callable[[], None],
    ) -> None:
        """Remember what workers are born with; `abandon` closes the master's own files in them."""
        self._run_worker = run_worker
        self._config = config
        self._listeners = listeners
        self._access_log = access_log
        self._abandon = abandon
        self._channels: dict[int, socket.socket] = {}

    def spawn(self, slot: int, generation: int) -> Child:
        """Fork a worker; raises `OSError` when the system has no room for it."""
        near, far = socket.socketpair()
        near.setblocking(False)
        _flush()  # what is buffered now would otherwise be written by both
        with far, _signals_blocked():
            try:
                pid = os.fork()
            except OSError:
                near.close()
                raise
            if pid == 0:
                near.close()
                self._live(
                    Assignment(
                        slot, generation, self._config, self._listeners, far, self._access_log
                    )
                )
        self._channels[pid] = near
        return Child(pid, near)

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a worker, which may be dead but is not reaped, so its pid is its own."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def reap(self) -> list[Death]:
        """Return the workers that died since the last call; reap strangers on the way."""
        deaths = []
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                pid, status = found
                if pid in self._channels:
                    deaths.append(Death(pid, describe(status)))
                else:
                    _log.debug("reaped process %d, no worker: %s", pid, describe(status))
        return deaths

    def forget(self, pid: int) -> None:
        """Close the channel of a dead worker."""
        self._channels.pop(pid).close()

    def _live(self, assignment: Assignment) -> NoReturn:
        """Be the child: give back what is the master's, work, and leave."""
        code = int(ExitCode.CRASHED)
        try:
            self._be_born()
            code = self._run_worker(assignment)
        except BaseException:  # noqa: BLE001 - nothing may climb into the master's stack
            traceback.print_exc()
        finally:
            _flush()
            os._exit(code)

    def _be_born(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in HANDLED:
            ignored = number in _FOR_THE_MASTER
            signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
        self._abandon()
        for channel in self._channels.values():
            channel.close()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
