"""How many processors this process may use, for `--workers auto`.

Two things limit a process: the set of processors it may run on, and the share of processor time
that its control group is granted. Containers are usually given the second and see all the
processors of their host, so that counting those alone starts far too many workers.

A quota is, in version 2 of control groups, the file `cpu.max` ("max 100000" or "150000 100000",
microseconds of run time in each period), in version 1 a pair of files (-1: none).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from daphne_supervisor.cgroups import directories, read

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["affinity", "count"]

HIGHEST = 64
"""The most workers that auto starts: beyond it a forgotten limit is likelier than the wish."""


def affinity() -> int:
    """Return the number of processors that this process may be scheduled on."""
    schedulable = getattr(os, "sched_getaffinity", None)  # Linux has it, macOS has not
    return len(schedulable(0)) if schedulable else os.cpu_count() or 1


def count(processors: int, root: str = "/") -> tuple[int, str]:
    """Return a number of workers, at least 1, and the reason for it in words.

    `processors` is what `affinity` says; `root` is the directory that holds `proc` and `sys`.
    """
    quota = min(_quotas(root), default=None)
    granted = processors if quota is None else min(processors, int(quota))
    number = max(1, min(granted, HIGHEST))
    limits = f"{processors} by CPU affinity, "
    limits += "no cgroup quota" if quota is None else f"{quota:g} by cgroup quota"
    if granted > HIGHEST:
        limits += f", at most {HIGHEST}"
    return number, limits


def _quotas(root: str) -> Iterator[float]:
    """Yield every quota that applies, in processors."""
    for version, directory in directories("cpu", root):
        if version == 1:
            run_time = read(os.path.join(directory, "cpu.cfs_quota_us")).strip()
            period = read(os.path.join(directory, "cpu.cfs_period_us")).strip()
        else:
            run_time, period = [*read(os.path.join(directory, "cpu.max")).split(), "", ""][:2]
        if run_time.isdecimal() and period.isdecimal() and int(period) > 0:
            yield int(run_time) / int(period)
