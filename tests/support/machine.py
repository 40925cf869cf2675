"""Machines made of files: what /proc and /sys say about control groups, below another root."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["machine"]


def machine(root: Path, groups: str, files: Mapping[str, str]) -> str:
    """Write /proc/self/cgroup and `files` below /sys/fs/cgroup; return the root as a string."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)
