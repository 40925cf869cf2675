"""A worker whose event loop is blocked is found, shown and replaced."""

from __future__ import annotations

import time

import pytest

from tests.support.client import Client, get
from tests.support.daphne import APPS, Daphne

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
    assert TIMEOUT * 0.7 < noticed < TIMEOUT + 2
    log = server.final_log
    assert f"pid {before}: aborted, its stacks follow: sent no heartbeat" in log
    assert "Current thread" in log
    assert "in path_block" in log
    assert "in _work" in log
    assert f"pid {before}: gone, signal SIGABRT" in log


def _wait_for_thread(server: Daphne) -> None:
    """Wait until the worker has a thread in synchronous code."""
    (worker,) = server.workers()
    for _ in range(1000):
        get(server.port, "/")  # one turn of its loop, and more
        if worker.num_threads() > 1:
            return
    message = "no thread was started"
    raise AssertionError(message)


def test_a_busy_worker_is_left_alone() -> None:
    """Blocking for less than --worker-timeout, again and again, is no reason to be replaced."""
    options = ["--workers", "1", "--worker-timeout", str(TIMEOUT)]
    with Daphne(f"{APPS}:probe", *options) as server, Client(server.port) as client:
        pids = {client.get("/block?0.9").text for _ in range(4)}
        assert pids == {str(pid) for pid in server.worker_pids()}
    assert "aborted" not in server.final_log
