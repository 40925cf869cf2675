"""The master is small, and asleep unless there is something to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.daphne import APPS, Daphne

if TYPE_CHECKING:
    from collections.abc import Iterator

MEBIBYTE = 1024 * 1024
WORKERS = 8
IDLE = 5.0
"""Seconds over which wake-ups are counted: a heartbeat of every worker."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Daphne]:
    """Return eight workers, and a master that writes its status file too."""
    options = ["--workers", str(WORKERS), "--status-file", str(tmp_path / "status")]
    with Daphne(f"{APPS}:hello", *options, "--access-log", os.devnull) as server:
        yield server


def _wakes(pid: int) -> int:
    """Return how often process `pid` has gone to sleep by itself: as often as it has woken up."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    figures = dict(line.split(":", 1) for line in lines)
    return int(figures["voluntary_ctxt_switches"])


def test_the_master_of_eight_workers_is_small(server: Daphne) -> None:
    """Less than 30 MB are resident, also after a reload."""
    master = psutil.Process(server.pid)
    assert len(server.workers()) == WORKERS
    before = master.memory_info().rss
    server.replace_all()
    after = master.memory_info().rss
    print(f"RSS {before / MEBIBYTE:.1f} MiB, {after / MEBIBYTE:.1f} MiB after a reload")  # noqa: T201
    assert max(before, after) < 30 * MEBIBYTE


def test_an_idle_master_sleeps(server: Daphne) -> None:
    """With eight idle workers it wakes up five times a second at the most, and has no news."""
    server.listen(1.0)
    before = _wakes(server.pid)
    heard = server.listen(IDLE)
    woken = (_wakes(server.pid) - before) / IDLE
    print(f"{woken:.1f} wake-ups a second")  # noqa: T201 - the figure
    assert heard == []
    assert woken <= 5
