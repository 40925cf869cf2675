"""What the control groups of this process grant, and what they have done to it.

A process is in one group for each controller, and bound by that group and by every one above it.
There are two versions, and both may be mounted: in version 1 every controller has a tree of its
own below /sys/fs/cgroup, in version 2 there is one tree for all. What cannot be read does not
limit. See cgroups(7) and the kernel's admin-guide/cgroup-v2 and admin-guide/cgroup-v1/memory.

`root` is everywhere the directory that holds `proc` and `sys`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["directories", "memory_limit", "oom_kills", "read"]

_UNLIMITED = 2**60
"""Version 1 spells "no limit" as the highest whole number of pages, 2**63 less one page."""


def directories(controller: str, root: str = "/") -> Iterator[tuple[int, str]]:
    """Yield (version, directory) for each group that binds us, our own before those above it.

    Where several places are possible all are named, and those that do not exist hold nothing.
    """
    mounts = os.path.join(root, "sys/fs/cgroup")
    for line in read(os.path.join(root, "proc/self/cgroup")).splitlines():
        _, controllers, group = line.split(":", 2)
        for parent in _upwards(group):
            if not controllers:
                yield 2, os.path.join(mounts, parent)
                # Where both versions are mounted, the second lives in a directory of its own.
                yield 2, os.path.join(mounts, "unified", parent)
            elif controller in controllers.split(","):
                yield 1, os.path.join(mounts, controllers, parent)
                yield 1, os.path.join(mounts, controller, parent)


def _upwards(group: str) -> Iterator[str]:
    """Yield the group and all above it, as paths relative to the mount point.

    A container may see its path on the host while its own group is mounted at the top: the top
    is therefore always looked at.
    """
    while group := group.strip("/"):
        yield group
        group = os.path.dirname(group)
    yield ""


def memory_limit(root: str = "/") -> int | None:
    """Return the bytes that our groups may use in all, None when nothing limits them."""
    files = {1: "memory.limit_in_bytes", 2: "memory.max"}
    found = [
        read(os.path.join(directory, files[version])).strip()
        for version, directory in directories("memory", root)
    ]
    limits = [int(text) for text in found if text.isdecimal() and int(text) < _UNLIMITED]
    return min(limits, default=None)


def oom_kills(root: str = "/") -> int | None:
    """Return how many processes of our own group were killed for want of memory, None: not known.

    The kernel counts before it kills: when a process is seen dead, its death is in the number. It
    counts in the group of the process, whichever group's limit was hit.
    """
    # The local file leaves out the groups below ours, but it is younger (Linux 5.2).
    files = {1: ("memory.oom_control",), 2: ("memory.events.local", "memory.events")}
    for version, directory in directories("memory", root):
        for file in files[version]:
            counts = dict(
                words
                for line in read(os.path.join(directory, file)).splitlines()
                if len(words := line.split()) == 2  # noqa: PLR2004 - a name and a number
            )
            if counts.get("oom_kill", "").isdecimal():
                return int(counts["oom_kill"])
    return None


def read(path: str) -> str:
    """Return the text of a file, "" where there is none."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
