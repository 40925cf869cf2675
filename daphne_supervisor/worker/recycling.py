"""When a worker has served enough: --max-requests, --max-lifetime, --max-memory.

The worker asks, once, to be replaced, and goes on: when that happens is the master's decision, who
starts the new one first and replaces one at a time. Each worker lowers its own limits at random, so
that those of one age do not become due at one time.

Memory is measured as PSS: pages that workers share, with --preload most of them, count in parts. To
add it up takes the kernel milliseconds in which the event loop stands, so it is done seldom; and
once is not enough, since what a single request needs is soon given back.
"""

from __future__ import annotations

import functools
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from daphne_supervisor import cgroups

if TYPE_CHECKING:
    from collections.abc import Callable

    from daphne_supervisor.config import Config, Recycling

__all__ = [
    "Limits",
    "Recycler",
    "Work",
    "draw",
    "for_process",
    "granted_memory",
    "memory_share",
]

#: Seconds between two samples of the memory, and how many in a row must be above the limit.
INTERVAL, SAMPLES = 10.0, 3
_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker has done since its start; `messages` are those of WebSockets, both ways."""

    requests: int = 0
    websockets: int = 0
    messages: int = 0

    @property
    def sum(self) -> int:
        """All that --max-requests counts."""
        return self.requests + self.websockets + self.messages


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one worker, infinite where there is none: seconds, and bytes of PSS."""

    work: float = math.inf
    lifetime: float = math.inf
    memory: float = math.inf


def draw(recycling: Recycling, memory: int, chance: Callable[[], float] = random.random) -> Limits:
    """Return what `recycling` asks for, less a part that `chance` (0 to 1) decides.

    `memory` is what this worker is granted, in bytes: what a percentage is of.
    """

    def lowered(limit: float) -> float:
        return limit * (1 - recycling.jitter / 100 * chance()) if limit else math.inf

    most = recycling.max_memory
    size = 0.0 if most is None else most.size or memory * most.percent / 100
    return Limits(lowered(recycling.max_requests), lowered(recycling.max_lifetime), lowered(size))


def granted_memory(workers: int, limit: int | None = None) -> int:
    """Return the bytes for each of so many workers.

    `limit` is for all of them, by default that of the control groups, or else all there is.
    """
    whole = limit or cgroups.memory_limit() or psutil.virtual_memory().total
    return int(whole) // workers


def memory_share(process: psutil.Process) -> int:
    """Return the PSS of `process` in bytes, or its RSS where the kernel does not tell."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.AccessDenied:
        return int(process.memory_info().rss)


class Recycler:
    """Watches the limits of one worker."""

    def __init__(
        self,
        recycling: Recycling,
        limits: Limits,
        memory: Callable[[], int],
        interval: float = INTERVAL,
    ) -> None:
        """Watch `limits`, drawn from `recycling`; `memory` is measured every `interval` s."""
        self._recycling = recycling
        self._limits = limits
        self._memory = memory
        self._interval = interval
        self._since = -math.inf
        self._next_sample = math.inf
        self._samples: list[int] = []
        self._due = False

    def begin(self, now: float) -> None:
        """Count from `now` on, the moment at which the worker is ready."""
        self._since = now
        if self._limits.memory < math.inf:
            self._next_sample = now + self._interval

    def due(self, now: float, work: Work) -> str:
        """Return, once, why the worker should be replaced, else an empty string."""
        if self._due:
            return ""
        why = self._worked(work) or self._lived(now) or self._grown(now)
        self._due = bool(why)
        return why

    def _worked(self, work: Work) -> str:
        if work.sum < self._limits.work:
            return ""
        return (
            f"--max-requests {self._recycling.max_requests}, for this worker"
            f" {math.ceil(self._limits.work)}: {work.requests} requests,"
            f" {work.websockets} WebSockets, {work.messages} messages"
        )

    def _lived(self, now: float) -> str:
        if now - self._since < self._limits.lifetime:
            return ""
        return (
            f"--max-lifetime {self._recycling.max_lifetime:g} s, for this worker"
            f" {self._limits.lifetime:.1f} s"
        )

    def _grown(self, now: float) -> str:
        if now < self._next_sample:
            return ""
        self._next_sample = now + self._interval
        size = self._memory()
        self._samples = [*self._samples, size] if size >= self._limits.memory else []
        if len(self._samples) < SAMPLES:
            return ""
        sizes = ", ".join(f"{sample / _MEBIBYTE:.0f}" for sample in self._samples)
        return (
            f"--max-memory {self._recycling.max_memory}, for this worker"
            f" {self._limits.memory / _MEBIBYTE:.0f} MiB: PSS of {sizes} MiB"
        )


def for_process(config: Config, process: psutil.Process) -> Recycler:
    """Return the recycler of the worker that `process` is."""
    recycling = config.recycling
    memory = granted_memory(config.process.workers) if recycling.max_memory else 0
    measure = functools.partial(memory_share, process)
    return Recycler(recycling, draw(recycling, memory), measure, INTERVAL)
