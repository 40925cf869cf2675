"""The master's hands: workers are born, signalled and reaped here.

Theory. The master names workers by their slots; the process id comes later, when the generation's
zygote has borne the worker, and is nobody else's business. A signal for a worker that has no
process id yet is kept for it, or cancels its birth.

Whoever is forked closes everything of the master that it has inherited: a sibling's channel kept
open by accident would hide that sibling's death.

The master is a subreaper (PR_SET_CHILD_SUBREAPER of prctl(2)): workers become its children when
their parent leaves, and so do orphans of the application's own subprocesses. Those are reaped and
not counted, as are the orphans that process 1 of a container inherits.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import socket
from typing import TYPE_CHECKING, Protocol

from daphne_supervisor import cgroups
from daphne_supervisor.errors import BootError
from daphne_supervisor.master.birth import fork
from daphne_supervisor.master.model import Exited
from daphne_supervisor.master.nursery import Nursery
from daphne_supervisor.master.zygote import Zygote

if TYPE_CHECKING:
    import selectors
    from collections.abc import Callable

    from daphne_supervisor.logs import AccessLog
    from daphne_supervisor.master.model import Event
    from daphne_supervisor.master.zygote import Heritage

__all__ = ["Hands", "Processes", "describe"]

_log = logging.getLogger("daphne_supervisor.master")

_PR_SET_CHILD_SUBREAPER = 36
"""From linux/prctl.h; Python has no name for it."""


class Hands(Protocol):
    """What the master can do to processes."""

    def spawn(self, slot: int, generation: int) -> socket.socket:
        """Have a worker born; return our end of its channel. Raises `OSError`."""
        ...

    def start(self, child: Callable[[], int]) -> int:
        """Run `child` in a process of its own; return its pid. Raises `OSError`."""
        ...

    def end(self, pid: int) -> None:
        """Kill and reap a process that was started."""
        ...

    def signal(self, slot: int, number: signal.Signals) -> None:
        """Send a signal to a worker that was not reaped yet."""
        ...

    def news(self) -> list[Event]:
        """Return who was born and who has died since the last call."""
        ...

    def strangers(self) -> dict[int, str]:
        """Return the ends of processes that were no workers, by pid; each is told once."""
        ...

    def forget(self, slot: int) -> None:
        """Close the channel of a dead worker."""
        ...

    def keep(self, generations: frozenset[int]) -> None:
        """Bear no more workers of other generations."""
        ...

    def renew(self, heritage: Heritage) -> None:
        """Let later generations be born with something else."""
        ...

    def reopen(self) -> None:
        """Open the access logs anew, for the workers to come."""
        ...

    def close(self) -> None:
        """End what is left, and close every descriptor."""
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


def _become_subreaper() -> None:
    """Be given the children of our children when they lose their parent."""
    prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)
    if prctl is None or prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        message = "this system has no PR_SET_CHILD_SUBREAPER (prctl): Linux 3.4 or later is needed"
        raise BootError(message)


class Processes:
    """The real hands."""

    def __init__(
        self, heritage: Heritage, selector: selectors.BaseSelector, abandon: Callable[[], None]
    ) -> None:
        """Have workers born with `heritage`; `abandon` closes the master's own files in children.

        Raises `BootError` when the system is not fit for it.
        """
        _become_subreaper()
        self._heritage = heritage
        self._heritages: dict[int, Heritage] = {}  # by generation, as it was at its beginning
        self._abandon = abandon
        self._nursery = Nursery(self._fork_zygote, self._born, selector)
        self._channels: dict[int, socket.socket] = {}
        self._pids: dict[int, int] = {}  # by slot
        self._killed: set[int] = set()  # slots that were sent SIGKILL by us
        self._strangers: dict[int, str] = {}  # by pid
        self._untold: dict[int, str] = {}  # those of them that `strangers` has not returned yet
        self._oom_kills = cgroups.oom_kills()

    def spawn(self, slot: int, generation: int) -> socket.socket:
        """Have a worker born; return our end of its channel. Raises `OSError`."""
        near, far = socket.socketpair()
        near.setblocking(False)
        self._heritages.setdefault(generation, self._heritage)
        self._channels[slot] = near  # before the fork: the child has to know what to close
        try:
            self._nursery.order(slot, generation, far)
        except OSError:
            self._channels.pop(slot).close()
            far.close()
            raise
        return near

    def start(self, child: Callable[[], int]) -> int:
        """Run `child` in a process of its own, a stranger; return its pid. Raises `OSError`."""
        return fork(child, abandon=self._leave_to_the_master)

    def end(self, pid: int) -> None:
        """Kill and reap a process that was started, and that is not known to be dead."""
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def signal(self, slot: int, number: signal.Signals) -> None:
        """Send a signal to a worker, which may be dead but is not reaped, so its pid is its own."""
        if number is signal.SIGKILL:
            self._killed.add(slot)
        if slot in self._pids:
            os.kill(self._pids[slot], number)
        else:
            self._nursery.signal(slot, number)

    def news(self) -> list[Event]:
        """Return who was born and who has died since the last call; reap strangers on the way."""
        events = self._nursery.news()
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                events += self._bury(*found)
        return events

    def strangers(self) -> dict[int, str]:
        """Return the ends of processes that were no workers, by pid; each is told once.

        But it is remembered as long as it may turn out to be a worker that died at birth.
        """
        untold, self._untold = self._untold, {}
        if not self._nursery.expecting():
            self._strangers.clear()
        return untold

    def forget(self, slot: int) -> None:
        """Close the channel of a dead worker."""
        self._channels.pop(slot).close()
        self._pids.pop(slot, None)
        self._killed.discard(slot)
        self._heritage.scoreboard.leave(slot)

    def keep(self, generations: frozenset[int]) -> None:
        """Bear no more workers of other generations."""
        self._nursery.keep(generations)
        for generation in self._heritages.keys() - generations:
            log = self._heritages.pop(generation).access_log
            if log is not None and log not in self._access_logs():
                log.close()

    def renew(self, heritage: Heritage) -> None:
        """Let later generations be born with something else."""
        self._heritage = heritage

    def reopen(self) -> None:
        """Open the access logs anew, here and in the zygotes: that is what workers inherit.

        Here first: without privileges, a zygote may only open what root has made for it.
        """
        for log in self._access_logs():
            log.reopen()
        self._nursery.reopen()

    def _access_logs(self) -> set[AccessLog]:
        heritages = [self._heritage, *self._heritages.values()]
        return {one.access_log for one in heritages if one.access_log is not None}

    def close(self) -> None:
        """End what is left, and close every descriptor."""
        self._nursery.end()
        self._close_channels()

    def _close_channels(self) -> None:
        self._nursery.close()
        for channel in self._channels.values():
            channel.close()

    def _fork_zygote(self, generation: int, far: socket.socket) -> int:
        zygote = Zygote(generation, self._heritages[generation], far)
        return fork(zygote.live, abandon=self._leave_to_the_master)

    def _leave_to_the_master(self) -> None:
        self._abandon()
        self._close_channels()

    def _born(self, slot: int, pid: int) -> list[Event]:
        """Note a worker's process id; it may have died before it was known to be one."""
        if pid in self._strangers:
            self._untold.pop(pid, None)
            return [Exited(slot, self._strangers.pop(pid))]
        self._pids[slot] = pid
        return []

    def _bury(self, pid: int, status: int) -> list[Event]:
        slot = next((one for one, worker in self._pids.items() if worker == pid), None)
        how = describe(status) + self._cause(status, ours=slot in self._killed)
        if slot is not None:
            return [Exited(slot, how)]
        events = self._nursery.bury(pid, how)
        if events is None:
            self._strangers[pid] = self._untold[pid] = how
            _log.debug("reaped process %d, no worker: %s", pid, how)
        return events or []

    def _cause(self, status: int, *, ours: bool) -> str:
        """Return what the kernel knows of a death by SIGKILL, unless that was `ours`."""
        if status & 0x7F != signal.SIGKILL:
            return ""
        before, self._oom_kills = self._oom_kills, cgroups.oom_kills()
        if ours or before is None or self._oom_kills is None or self._oom_kills <= before:
            return ""
        return f", out of memory: the cgroup's oom_kill rose from {before} to {self._oom_kills}"
