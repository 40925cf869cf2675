"""What processes hold: to be compared before and after, so that a leak shows."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

__all__ = ["Holding", "holding"]


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


def _state(process: psutil.Process) -> str:
    """Return the state of `process`, empty if it is gone."""
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return ""
