"""A worker that the kernel kills for want of memory: the log says so, and it is back."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.client import Client, get
from tests.support.daphne import Daphne
from tests.support.memory_cgroup import MemoryCgroup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEBIBYTE = 2**20
LIMIT = 96 * MEBIBYTE
APPLICATION = f"""
async def application(scope, receive, send):
    if scope["type"] != "http":
        raise ValueError(scope["type"])
    if scope["path"] == "/eat":
        eaten = [b"x" * {MEBIBYTE} for _ in range(300)]
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": b"fed"}})
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Daphne]:
    """Return two workers in a control group that has not enough memory for all they may eat."""
    (tmp_path / "glutton.py").write_text(APPLICATION)
    arguments = ["--workers", "2", "--app-dir", str(tmp_path)]
    with MemoryCgroup(LIMIT) as group, Daphne("glutton:application", *arguments) as server:
        children = psutil.Process(server.pid).children(recursive=True)
        group.adopt([server.pid, *(child.pid for child in children)])
        yield server


def _lose_one(server: Daphne) -> None:
    """Wait until a worker is gone and another one is ready in its place."""
    server.wait_status("1/2 workers ready")
    server.wait_status("2/2 workers ready")


def test_a_worker_that_eats_all_memory_is_named_and_replaced(server: Daphne) -> None:
    """One line says that it was the kernel, and for want of what; the service goes on."""
    with Client(server.port) as client, contextlib.suppress(ConnectionError, TimeoutError):
        client.get("/eat")
    _lose_one(server)
    assert re.search(
        r"worker \d gen 1 pid \d+: gone, signal SIGKILL.*, out of memory", server.log()
    )
    assert get(server.port, "/").text == "fed"


def test_a_worker_that_somebody_kills_is_not_said_to_lack_memory(server: Daphne) -> None:
    """The kernel's count of such deaths has not moved."""
    line = re.search(r"worker 1 gen 1 pid (\d+): ready", server.log())
    assert line is not None
    [worker] = [each for each in server.workers() if each.pid == int(line[1])]
    worker.kill()
    _lose_one(server)
    assert "signal SIGKILL" in server.log()
    assert "out of memory" not in server.log()
