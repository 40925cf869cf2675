"""The most memory that a process has had since somebody began to look."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["Peak"]

_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


class Peak:
    """The resident memory of a process, by the kernel's account (proc(5))."""

    def __init__(self, pid: int) -> None:
        """Begin now with process `pid`."""
        self._proc = Path(f"/proc/{pid}")
        self.begin()

    def begin(self) -> None:
        """Let the kernel begin anew: what is resident now is not growth."""
        (self._proc / "clear_refs").write_text("5", "ascii")
        self._before = self._highest()

    @property
    def growth(self) -> int:
        """How many bytes more than at the beginning it has had at some time since."""
        return self._highest() - self._before

    def _highest(self) -> int:
        found = _PEAK.search((self._proc / "status").read_text("ascii"))
        assert found is not None
        return int(found[1]) * 1024
