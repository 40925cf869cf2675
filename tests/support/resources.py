"""What processes hold: to be compared before and after, so that a leak shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.daphne import Daphne

__all__ = ["Holding", "at_rest", "counted", "holding", "holdings"]

_LOOKS, _PAUSE = 100, 0.1
"""How often it is looked whether all is at rest, and the seconds in between."""


@dataclass(frozen=True)
class Holding:
    """What one process holds."""

    descriptors: int
    threads: int
    children: int
    """Living ones."""
    zombies: int
    """Dead children that it has not reaped."""
    rss: int
    """Resident memory in bytes."""

    @property
    def countable(self) -> tuple[int, int, int, int]:
        """All but the memory, which is never the same twice."""
        return self.descriptors, self.threads, self.children, self.zombies


def holding(process: psutil.Process) -> Holding:
    """Return what `process` holds now."""
    states = [_state(child) for child in process.children()]
    zombies = states.count(psutil.STATUS_ZOMBIE)
    with process.oneshot():
        return Holding(
            descriptors=process.num_fds(),
            threads=process.num_threads(),
            children=len([state for state in states if state]) - zombies,
            zombies=zombies,
            rss=process.memory_info().rss,
        )


def holdings(server: Daphne) -> list[Holding]:
    """Return what the master holds now, and each worker."""
    return [holding(process) for process in [psutil.Process(server.pid), *server.workers()]]


def counted(everybody: Sequence[Holding]) -> list[tuple[int, ...]]:
    """Return all but the memory of each of them."""
    return [one.countable for one in everybody]


def at_rest(server: Daphne) -> list[Holding]:
    """Return what the master and each worker hold, once whoever has left is gone for good.

    A reload is done before that: the master has a descriptor for each old worker until it is
    reaped, and for the old zygote, which leaves by itself and unannounced. So one zygote is left,
    nobody waits to be reaped, and twice the same is seen.
    """
    before: list[Holding] = []
    for _ in range(_LOOKS):
        alone = len(server.zygotes()) == 1
        now = holdings(server)
        if alone and not any(one.zombies for one in now) and counted(now) == counted(before):
            return now
        before = now
        server.listen(_PAUSE)
    message = f"they do not come to rest: {before}, {now}"
    raise AssertionError(message)


def _state(process: psutil.Process) -> str:
    """Return the state of `process`, empty if it is gone."""
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return ""
