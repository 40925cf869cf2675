"""A slow side costs patience, not memory: the other side is made to wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.client import Client, get
from tests.support.daphne import APPS, Daphne

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

MEBIBYTE = 1024 * 1024
SIZE = 200 * MEBIBYTE
ALLOWED = 5 * MEBIBYTE
HELD = 768 * 1024
"""Eight pieces leave together (512 KiB), behind up to 64 KiB of the write buffer; and what the
allocator loses between them."""
SETTLED = 50
"""Other requests served in the meantime without another byte of the stream: it stands still."""


@pytest.fixture
def server() -> Iterator[Daphne]:
    """Return one worker that has done everything once, so that later growth is what it holds."""
    with Daphne(f"{APPS}:probe", "--workers", "1", "--access-log", "/dev/null") as server:
        get(server.port, "/stream?4096")
        with Client(server.port) as client:
            client.ask("/digest", method="POST", body=bytes(4 * MEBIBYTE))
            client.response()
        yield server


def _memory(worker: psutil.Process) -> int:
    return int(worker.memory_info().rss)


def _wait_for_standstill(server: Daphne) -> int:
    """Wait until a stream makes no progress; return how many bytes of it were taken."""
    streamed, still = -1, 0
    while still < SETTLED:
        now = int(get(server.port, "/streamed").text)
        still = still + 1 if now == streamed else 0
        streamed = now
    return streamed


def test_a_download_that_nobody_reads_costs_next_to_nothing(server: Daphne) -> None:
    """The application is held up, and what the worker holds of 200 MB is below 5 MB.

    When the client reads after all, every byte arrives, at no greater cost.
    """
    (worker,) = server.workers()
    before = _memory(worker)
    with Client(server.port, receive_buffer=65536) as client:
        client.ask(f"/stream?{SIZE // 1024}")
        assert client.head().status == 200
        assert _wait_for_standstill(server) < SIZE // 10
        assert _memory(worker) - before < ALLOWED
        received = 0
        while piece := client.piece():
            received += len(piece)
        assert received == SIZE
        assert _memory(worker) - before < ALLOWED


def test_an_upload_that_nobody_reads_costs_next_to_nothing(server: Daphne) -> None:
    """The client is held up, and what the worker holds of 200 MB is below 5 MB."""
    (worker,) = server.workers()
    before = _memory(worker)
    with Client(server.port) as client:
        client.ask("/deaf", f"Content-Length: {SIZE}", method="POST")
        sent = client.stuff(SIZE, 1.0)
        assert 0 < sent < SIZE // 10
        assert _memory(worker) - before < ALLOWED
        assert get(server.port, "/").status == 200


def test_many_slow_readers_cost_a_buffer_each(server: Daphne) -> None:
    """Twenty downloads at once that nobody reads stay below 20 times 768 KiB."""
    (worker,) = server.workers()
    before = _memory(worker)
    clients = [Client(server.port, receive_buffer=65536) for _ in range(20)]
    try:
        for client in clients:
            client.ask(f"/stream?{SIZE // 1024}")
            assert client.head().status == 200
        _wait_for_standstill(server)
        assert _memory(worker) - before < 20 * HELD
    finally:
        for client in clients:
            client.close()
