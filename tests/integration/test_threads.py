"""--threads: synchronous code runs on a bounded pool of long-lived threads."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

from tests.support.client import get
from tests.support.daphne import APPS, Daphne

THREADS = 3
CLIENTS = 12
WORK = 0.1
"""Seconds of synchronous code in one step; each request has two steps."""


def test_synchronous_code_has_never_more_than_its_threads() -> None:
    """Twelve requests at once share three threads, each stays on one, and nobody waits for ever.

    The same threads serve again: a database connection that is bound to a thread lives on.
    """
    with (
        Daphne(f"{APPS}:probe", "--workers", "1", "--threads", str(THREADS)) as server,
        ThreadPoolExecutor(CLIENTS) as clients,
    ):
        (worker,) = server.workers()

        def ask(seconds: float) -> list[int]:
            steps: list[int] = json.loads(get(server.port, f"/threads?{seconds}").text)
            return steps

        begun = time.monotonic()
        first = list(clients.map(ask, [WORK] * CLIENTS))
        taken = time.monotonic() - begun
        second = list(clients.map(ask, [WORK] * CLIENTS))
        for one, two in first + second:
            assert one == two
        used = {one for one, _ in first}
        assert len(used) == THREADS
        assert {one for one, _ in second} == used
        threads = {thread.id for thread in worker.threads()}
        assert threads > used | {worker.pid}
        assert len(threads) == THREADS + 2  # the main one, and the one that speaks in a hang
        assert taken >= CLIENTS * 2 * WORK / THREADS


def test_the_event_loop_goes_on_while_all_threads_are_busy() -> None:
    """Asynchronous requests are answered at once when synchronous code holds every thread."""
    with (
        Daphne(f"{APPS}:probe", "--workers", "1", "--threads", "1") as server,
        ThreadPoolExecutor(2) as clients,
    ):
        slow = [clients.submit(get, server.port, "/threads?0.5") for _ in range(2)]
        for _ in range(50):
            assert get(server.port, "/").status == 200
        assert not all(each.done() for each in slow)
        assert {each.result().status for each in slow} == {200}
