"""A control group with a limit of memory, made for one test: needs root, and a machine's own /sys.

Version 1 is looked for first, because a machine that has both keeps memory there.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.support.tools import unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MemoryCgroup"]

_MOUNTS = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
)


class MemoryCgroup:
    """The group, as a context manager; whoever is left in it at the end is given back."""

    def __init__(self, limit: int) -> None:
        """Grant `limit` bytes to all members together."""
        self._limit = limit

    def __enter__(self) -> Self:
        """Make the group, or skip the test where it cannot be made."""
        reason = self._make()
        if reason:
            unavailable(f"no control group for memory can be made: {reason}")
        return self

    def _make(self) -> str:
        """Make the group where it can be made; return why it cannot."""
        reason = ""
        for mount, file in _MOUNTS:
            self._path = mount / f"daphne-test-{os.getpid()}"
            try:
                self._path.mkdir()
            except OSError as error:
                reason = str(error)
                continue
            if (self._path / file).exists():
                (self._path / file).write_text(str(self._limit))
                return ""
            self._path.rmdir()
            reason = f"{mount} does not limit memory"
        return reason

    def __exit__(self, *_: object) -> None:
        """Remove the group, which takes that nobody is in it."""
        for pid in (self._path / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (self._path.parent / "cgroup.procs").write_text(pid)
        self._path.rmdir()

    def adopt(self, pids: Iterable[int]) -> None:
        """Take processes in; what they use already stays on the bill of where they were."""
        for pid in pids:
            (self._path / "cgroup.procs").write_text(str(pid))
