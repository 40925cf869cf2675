"""A worker whose event loop is blocked is found, shown and replaced."""

from __future__ import annotations

import re
import signal
import time

import pytest

from tests.support.client import Client, get
from tests.support.daphne import APPS, Daphne, survivors

TIMEOUT = 2


def test_a_blocked_worker_is_replaced_and_its_stacks_are_logged() -> None:
    """After --worker-timeout every thread's stack is in the log, with what blocked; it serves on.

    One of the threads is in synchronous code of another request.
    """
    options = ["--workers", "1", "--worker-timeout", str(TIMEOUT), "--graceful-timeout", "60"]
    with (
        Daphne(f"{APPS}:probe", *options) as server,
        Client(server.port) as busy,
        Client(server.port) as blocking,
    ):
        before = int(get(server.port, "/").text)
        busy.ask("/threads?60", method="GET")
        _wait_for_thread(server)
        begun = time.monotonic()
        blocking.ask("/block")
        server.wait_status("0/1 workers ready")
        noticed = time.monotonic() - begun
        server.wait_status("1/1 workers ready")
        with pytest.raises(ConnectionError):
            blocking.response()
        after = int(get(server.port, "/").text)
    assert after != before
    # The last heartbeat was up to a quarter of the timeout before the block.
    assert TIMEOUT * 0.7 < noticed < TIMEOUT + 10
    log = server.final_log
    busy_with = re.search(r"worker 1: busy with: (.*)", log)
    assert busy_with is not None
    assert re.fullmatch(
        r"GET /threads\?60 \d+\.\d s, GET /block \d+\.\d s; threads in synchronous code: 1",
        busy_with.group(1),
    )
    assert f"pid {before}: told to say what it is busy with, and to abort: sent no heartbeat" in log
    assert "Current thread" in log
    assert "in path_block" in log
    assert "in _work" in log
    assert re.search(rf"pid {before}: gone, signal SIGABRT", log)


def _wait_for_thread(server: Daphne) -> None:
    """Wait until the worker has a thread in synchronous code, beside its own two."""
    (worker,) = server.workers()
    for _ in range(1000):
        get(server.port, "/")  # one turn of its loop, and more
        if worker.num_threads() > 2:
            return
    message = "no thread was started"
    raise AssertionError(message)


def test_a_worker_that_is_stopped_is_replaced() -> None:
    """It can neither speak nor abort: it is killed."""
    options = ["--workers", "1", "--worker-timeout", str(TIMEOUT)]
    with Daphne(f"{APPS}:probe", *options) as server:
        (stopped,) = server.workers()
        stopped.suspend()
        server.wait_status("0/1 workers ready")
        server.wait_status("1/1 workers ready")
        assert int(get(server.port, "/").text) != stopped.pid
        assert survivors([stopped], 20.0) == []
    assert f"pid {stopped.pid}: gone, signal SIG" in server.final_log


def test_a_master_that_was_stopped_blames_nobody() -> None:
    """What it has slept through was not its workers' silence."""
    options = ["--workers", "2", "--worker-timeout", str(TIMEOUT)]
    with Daphne(f"{APPS}:probe", *options) as server:
        before = server.worker_pids()
        server.signal(signal.SIGSTOP)
        assert get(server.port, f"/slow?{TIMEOUT + 2}").status == 200
        server.signal(signal.SIGCONT)
        assert get(server.port, f"/slow?{TIMEOUT}").status == 200
        assert server.worker_pids() == before
    assert "told to say" not in server.final_log


def test_a_busy_worker_is_left_alone() -> None:
    """Blocking for less than --worker-timeout, again and again, is no reason to be replaced."""
    options = ["--workers", "1", "--worker-timeout", str(TIMEOUT)]
    with Daphne(f"{APPS}:probe", *options) as server, Client(server.port) as client:
        pids = {client.get("/block?0.9").text for _ in range(4)}
        assert pids == {str(pid) for pid in server.worker_pids()}
    assert "told to say" not in server.final_log
