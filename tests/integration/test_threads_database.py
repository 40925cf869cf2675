"""--threads and a real PostgreSQL behind Django: connections persist, and there are never more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.client import Client, get
from tests.support.daphne import Daphne
from tests.support.postgres import USER, Postgres, postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

APPLICATION = "tests.integration.database_app:application"
THREADS = 4
CLIENTS = 64
EACH = 4
"""Requests of each client."""


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    """Run one for all tests here."""
    with postgres() as running:
        yield running


def environment(database: Postgres, age: int = 60) -> dict[str, str]:
    """Return what tells the project of its `database`, and how old connections may be (s)."""
    return {
        "DATABASE": str(database.socket),
        "DATABASE_USER": USER,
        "CONN_MAX_AGE": str(age),
    }


def ask(port: int | str) -> set[tuple[int, int]]:
    """Ask from as many connections as there are clients, at once; return (backend, thread)s."""
    together = threading.Barrier(CLIENTS)

    def one(_: int) -> set[tuple[int, int]]:
        with Client(port) as client:
            together.wait(20)
            answers = [json.loads(client.get("/query").text) for _ in range(EACH)]
            return {(answer["backend"], answer["thread"]) for answer in answers}

    with ThreadPoolExecutor(CLIENTS) as clients:
        return set().union(*clients.map(one, range(CLIENTS)))


def peak(
    database: Postgres, process: psutil.Process, port: int | str
) -> tuple[set[tuple[int, int]], int, int]:
    """Ask, and look meanwhile: return what `ask` does, the most connections, the most threads."""
    connections, threads = 0, 0
    with ThreadPoolExecutor(1) as asker:
        asking = asker.submit(ask, port)
        while not asking.done():
            connections = max(connections, database.count("project"))
            threads = max(threads, process.num_threads())
            wait([asking], 0.005)
    return asking.result(), connections, threads


def threads_of(worker: psutil.Process) -> list[str]:
    """Return what the kernel calls each thread of `worker`."""
    tasks = Path(f"/proc/{worker.pid}/task").iterdir()
    return [(task / "comm").read_text().strip() for task in tasks]


def test_connections_persist_and_are_as_many_as_threads(database: Postgres) -> None:
    """With CONN_MAX_AGE: of each worker no more than --threads, each for ever on its own thread.

    Sixty-four clients at once do not change that; at the end of the worker none is left.
    """
    with Daphne(APPLICATION, "--threads", str(THREADS), env=environment(database)) as server:
        (worker,) = server.workers()
        seen, connections, threads = peak(database, worker, server.port)
        print(f"ours: {len(seen)} opened, {connections} at a time, {threads} threads")  # noqa: T201
        assert len(seen) == len({thread for _, thread in seen}) == THREADS
        assert connections == database.count("project") == THREADS
        assert threads == THREADS + 2  # the main one, and the one that speaks in a hang
        assert ask(server.port) == seen
        names = threads_of(worker)
        assert sorted(name for name in names if name.startswith("sync-")) == [
            f"sync-{number + 1}" for number in range(THREADS)
        ]
        assert len(names) == THREADS + 2
        database.cut("project")
        again = ask(server.port)
        assert {thread for _, thread in again} == {thread for _, thread in seen}
        assert not {backend for backend, _ in again} & {backend for backend, _ in seen}


def test_a_worker_that_leaves_closes_its_connections_itself(database: Postgres) -> None:
    """On the thread that each belongs to, as nobody else can."""
    with Daphne(APPLICATION, "--threads", "2", env=environment(database)) as server:
        before = json.loads(get(server.port, "/query").text)["backend"]
        assert database.count("project") == 1
        assert "connection closed" not in server.log()
        server.replace_all()
        assert "connection closed on daphne-supervisor-sync-1\n" in server.log()
        assert json.loads(get(server.port, "/query").text)["backend"] != before


def test_without_persistent_connections_each_request_has_its_own(database: Postgres) -> None:
    """CONN_MAX_AGE is Django's to keep: with 0 it closes at the end of each request."""
    with Daphne(APPLICATION, "--threads", "2", env=environment(database, 0)) as server:
        answers = [json.loads(get(server.port, "/query").text) for _ in range(3)]
        assert len({answer["backend"] for answer in answers}) == 3
        assert len({answer["thread"] for answer in answers}) <= 2


@pytest.mark.long
def test_uvicorn_beside(database: Postgres, tmp_path: Path) -> None:
    """What the same project does there: a new thread, and so a new connection, for every request.

    It keeps docs/threads.md true, which shows these figures.
    """
    path = str(tmp_path / "socket")
    command = [sys.executable, "-m", "uvicorn", "--uds", path, "--no-access-log", APPLICATION]
    with subprocess.Popen(
        command,
        env=os.environ | environment(database),
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stderr is not None
            assert any("Uvicorn running" in line for line in server.stderr)
            found = peak(database, psutil.Process(server.pid), path)
        finally:
            server.terminate()
    seen, connections, threads = found
    print(f"uvicorn: {len(seen)} opened, {connections} at a time, {threads} threads")  # noqa: T201
    assert len(seen) == CLIENTS * EACH
    assert threads > 2 * THREADS
