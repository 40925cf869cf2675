"""Workers that have served enough are replaced: one at a time, the new one first."""

from __future__ import annotations

import re

import pytest
from websockets.sync.client import connect

from tests.support.client import get
from tests.support.daphne import Daphne, survivors
from tests.support.load import Load

APPLICATION = "tests.integration.drain_app:application"
HURRIED = "tests.integration.recycling_app:application"
#: Seconds for a worker to be replaced. Far more than it takes, but for --max-memory.
PATIENCE = 30.0
QUIET = ("--recycle-jitter", "0", "--access-log", "/dev/null")


def _replaced(log: str) -> list[tuple[str, str]]:
    """Return (worker, why) for each worker that was recycled, in order."""
    return re.findall(r"(worker \d+ gen \d+ pid \d+): told to drain: recycled: (.*)", log)


def _ready_when(log: str, place: int) -> int:
    """Return how many workers were ready at `place` of the `log` and had not been told to drain."""
    text = log[:place]
    ready = set(re.findall(r"(worker \d+ gen \d+ pid \d+): ready", text))
    left = set(re.findall(r"(worker \d+ gen \d+ pid \d+): told to drain", text))
    return len(ready - left)


@pytest.mark.parametrize("workers", [1, 3])
def test_after_max_requests_a_worker_is_replaced_and_nobody_notices(workers: int) -> None:
    """The new one is ready before the old one drains, and only one is replaced at a time."""
    options = ["--workers", str(workers), "--max-requests", "50", "--min-lifetime", "0", *QUIET]
    with Daphne(APPLICATION, *options) as server:
        first = server.workers()
        with Load(server.port, connections=8) as load:
            assert survivors(first, PATIENCE) == []
        assert load.losses == []
    log = server.final_log
    replaced = _replaced(log)
    assert len(replaced) >= workers
    assert all(why.startswith("--max-requests 50, for this worker 50: ") for _, why in replaced)
    for found in re.finditer(r"told to drain: recycled", log):
        assert _ready_when(log, found.start()) == workers + 1
    assert _at_once(log) == 1


def _at_once(log: str) -> int:
    """Return how many workers at most were on their way out for being due, at the same time."""
    leaving: set[str] = set()
    most = 0
    for pid, what in re.findall(r"pid (\d+): (told to drain: recycled|gone)", log):
        leaving.discard(pid) if what == "gone" else leaving.add(pid)
        most = max(most, len(leaving))
    return most


def test_websockets_and_their_messages_count() -> None:
    """The log names how many of each there were."""
    options = ["--workers", "1", "--max-requests", "12", "--min-lifetime", "0", *QUIET]
    with Daphne(APPLICATION, *options) as server:
        before = server.workers()
        get(server.port, "/")
        with connect(f"ws://127.0.0.1:{server.port}/") as websocket:
            for _ in range(5):
                websocket.send("x")
                websocket.recv(timeout=10)
            assert survivors(before, PATIENCE) == []
    assert "--max-requests 12, for this worker 12: 1 requests, 1 WebSockets, 11 messages" in (
        server.final_log
    )


def test_after_max_lifetime_a_worker_is_replaced() -> None:
    """However little it has done."""
    options = ["--workers", "2", "--max-lifetime", "1", "--min-lifetime", "0", *QUIET]
    with Daphne(APPLICATION, *options) as server:
        assert survivors(server.workers(), PATIENCE) == []
    replaced = _replaced(server.final_log)
    assert {why for _, why in replaced} == {"--max-lifetime 1 s, for this worker 1.0 s"}
    assert _at_once(server.final_log) == 1


@pytest.mark.parametrize(
    "application",
    [
        pytest.param(HURRIED, id="every second"),
        pytest.param(APPLICATION, id="every 10 s", marks=pytest.mark.long),
    ],
)
@pytest.mark.timeout(120)
def test_above_max_memory_a_worker_is_replaced(application: str) -> None:
    """Once it has been too large several times in a row; the log has the sizes.

    Every 10 s is promised: that is what the long test waits for. The unit test reckons with it.
    """
    options = ["--workers", "1", "--max-memory", "200M", "--min-lifetime", "0", *QUIET]
    with Daphne(application, *options) as server:
        large = server.workers()
        before = get(server.port, "/hold?300").text
        assert survivors(large, 2 * PATIENCE) == []
        assert get(server.port, "/").text != before
    ((_, why),) = _replaced(server.final_log)[:1]
    found = re.fullmatch(
        r"--max-memory 209715200, for this worker 200 MiB: PSS of (\d+), (\d+), (\d+) MiB", why
    )
    assert found is not None
    assert all(300 < int(size) < 500 for size in found.groups())


def test_a_worker_is_not_replaced_before_it_has_served_a_while() -> None:
    """--min-lifetime: a limit that is far too low does not make the pool turn without end."""
    options = ["--workers", "1", "--max-requests", "1", "--min-lifetime", "3", *QUIET]
    with Daphne(APPLICATION, *options) as server:
        (before,) = server.workers()
        for _ in range(20):
            get(server.port, "/")
        assert survivors([before], PATIENCE) == []
    lived = re.search(rf"pid {before.pid}: gone, .* after (\d+\.\d) s", server.final_log)
    assert lived is not None
    assert float(lived.group(1)) >= 3
