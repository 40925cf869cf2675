"""How many processors this process may use, for `--workers auto`.

Two things limit a process: the set of processors it may run on, and the share of processor time
that its control group is granted. Containers are usually given the second and see all the
processors of their host, so that counting those alone starts far too many workers.

A quota is looked for in the group of the process and in every group above it, as each one binds. In
version 2 of control groups it is the file `cpu.max` ("max 100000" or "150000 100000", microseconds
of run time in each period), in version 1 a pair of files (-1: none). What cannot be read does not
limit. See cgroups(7) and the kernel's admin-guide/cgroup-v2.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

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
    mounts = os.path.join(root, "sys/fs/cgroup")
    for line in _read(os.path.join(root, "proc/self/cgroup")).splitlines():
        _, controllers, group = line.split(":", 2)
        for parent in _upwards(group):
            if not controllers:
                yield from _second_version(os.path.join(mounts, parent))
                # Where both versions are mounted, the second lives in a directory of its own.
                yield from _second_version(os.path.join(mounts, "unified", parent))
            elif "cpu" in controllers.split(","):
                yield from _first_version(os.path.join(mounts, controllers, parent))
                yield from _first_version(os.path.join(mounts, "cpu", parent))


def _upwards(group: str) -> Iterator[str]:
    """Yield the group and all above it, as paths relative to the mount point.

    A container may see its path on the host while its own group is mounted at the top: the top
    is therefore always looked at.
    """
    while group := group.strip("/"):
        yield group
        group = os.path.dirname(group)
    yield ""


def _second_version(directory: str) -> Iterator[float]:
    words = _read(os.path.join(directory, "cpu.max")).split()
    yield from _share(*words)


def _first_version(directory: str) -> Iterator[float]:
    run_time = _read(os.path.join(directory, "cpu.cfs_quota_us")).strip()
    period = _read(os.path.join(directory, "cpu.cfs_period_us")).strip()
    yield from _share(run_time, period)


def _share(run_time: str = "", period: str = "") -> Iterator[float]:
    if run_time.isdecimal() and period.isdecimal() and int(period) > 0:
        yield int(run_time) / int(period)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
