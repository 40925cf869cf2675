"""kill -9 of the master: its workers notice, finish what they have, and leave."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.support.client import Client
from tests.support.daphne import APPS, PATIENCE, Daphne, survivors

if TYPE_CHECKING:
    import psutil


def _kill_master(server: Daphne) -> list[psutil.Process]:
    """Kill the master; return the workers and the zygote that it leaves behind."""
    workers = [*server.workers(), *server.zygotes()]
    server.process.kill()
    server.process.wait()
    return workers


def test_idle_workers_leave_within_two_seconds() -> None:
    """Workers with nothing to do are gone at once, and the port is free.

    On a machine so busy that they took longer to start, they have as long to leave.
    """
    begun = time.monotonic()
    with Daphne(f"{APPS}:probe", "--workers", "3") as server:
        start = time.monotonic() - begun
        assert survivors(_kill_master(server), max(2, start)) == []
        with pytest.raises(ConnectionRefusedError):
            Client(server.port)


def test_a_request_on_its_way_is_finished_first() -> None:
    """A response that has begun is completed, and then its worker leaves as well."""
    with Daphne(f"{APPS}:probe", "--workers", "2") as server, Client(server.port) as client:
        client.ask("/halves?1.5")
        client.head()
        assert client.piece() == b"one "
        workers = _kill_master(server)
        assert (client.piece(), client.piece()) == (b"two", b"")
        assert client.get("/").closes
        assert survivors(workers, PATIENCE) == []


def test_the_drain_of_an_orphan_has_an_end() -> None:
    """A response without end is cut off after --graceful-timeout, as in any drain."""
    options = ["--workers", "1", "--graceful-timeout", "1"]
    with Daphne(f"{APPS}:probe", *options) as server, Client(server.port) as client:
        client.ask("/halves?600")
        client.head()
        client.piece()
        begun = time.monotonic()
        workers = _kill_master(server)
        with pytest.raises(ConnectionError):
            client.piece()
        assert time.monotonic() - begun > 1
        assert survivors(workers, PATIENCE) == []
