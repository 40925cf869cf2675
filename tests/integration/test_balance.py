"""Workers share the load evenly, a sibling that hangs keeps nobody waiting, and limits are kept."""

from __future__ import annotations

import os
import resource
import select
import selectors
import signal
import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.client import PATIENCE, Client
from tests.support.daphne import APPS, Daphne
from tests.support.transports import HANDSHAKE

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKERS = 4
CONNECTIONS = 1000
LARGEST = 1.05
"""Largest share of a worker over the mean."""
GAP = 0.002
"""Seconds from one connection to the next, when they do not come in a burst."""


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Let this process have all the connections at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Crowd:
    """Connections that stay, and which worker has each of them."""

    def __init__(self, port: int, stack: ExitStack) -> None:
        """Connect to `port`; the connections live as long as `stack`."""
        self._port = port
        self._stack = stack
        self._asked = stack.enter_context(selectors.DefaultSelector())
        self.shares: Counter[str] = Counter()

    def come(self, count: int, gap: float = 0.0) -> None:
        """Open `count` connections, one every `gap` seconds, each with a request."""
        begun = time.monotonic()
        for number in range(count):
            client = self._stack.enter_context(Client(self._port))
            client.ask("/")
            self._asked.register(client.socket, selectors.EVENT_READ, client)
            while (left := begun + number * gap - time.monotonic()) > 0:
                self._hear(left)
        while self._asked.get_map():
            assert self._hear(PATIENCE), f"not answered: {len(self._asked.get_map())}"

    def _hear(self, patience: float) -> bool:
        """Take the answers that come; return whether any came within `patience` seconds."""
        ready = self._asked.select(patience)
        for key, _ in ready:
            self._asked.unregister(key.fileobj)
            self.shares[key.data.response().text] += 1
        return bool(ready)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Return what keeps connections open to the end of the test."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("gap", [0.0, GAP], ids=["burst", "paced"])
@pytest.mark.usefixtures("descriptors")
def test_long_lived_connections_are_spread_evenly(gap: float, stack: ExitStack) -> None:
    """1000 of them, in a burst or one every 2 ms: nobody has 5 % more than the mean."""
    with Daphne(f"{APPS}:hello", "--workers", str(WORKERS)) as server:
        crowd = Crowd(server.port, stack)
        crowd.come(CONNECTIONS, gap)
        assert len(crowd.shares) == WORKERS
        assert max(crowd.shares.values()) <= LARGEST * CONNECTIONS / WORKERS, crowd.shares


def test_a_worker_that_hangs_keeps_nobody_waiting(stack: ExitStack) -> None:
    """It has the fewest connections, and still its siblings take what it would be given.

    When it goes on, it gets its share.
    """
    with Daphne(f"{APPS}:hello", "--workers", "3", "--worker-timeout", "300") as server:
        crowd = Crowd(server.port, stack)
        crowd.come(3)
        hung = int(next(iter(crowd.shares)))
        os.kill(hung, signal.SIGSTOP)
        try:
            before = crowd.shares[str(hung)]
            begun = time.monotonic()
            crowd.come(57)
            assert time.monotonic() - begun < PATIENCE / 2
            assert crowd.shares[str(hung)] == before
            assert len(crowd.shares) == 3
        finally:
            os.kill(hung, signal.SIGCONT)
        crowd.come(240)
        assert max(crowd.shares.values()) <= LARGEST * 300 / 3, crowd.shares


def test_new_workers_get_their_share_while_old_ones_leave(stack: ExitStack) -> None:
    """The connections of those that leave are no measure for those that come."""
    with Daphne(f"{APPS}:hello", "--workers", "2") as server:
        old = Crowd(server.port, stack)
        old.come(20)
        server.reload()
        crowd = Crowd(server.port, stack)
        crowd.come(200)
        shares = [share for worker, share in crowd.shares.items() if worker not in old.shares]
        assert len(shares) == 2
        assert max(shares) <= LARGEST * sum(shares) / 2, crowd.shares


def test_the_successor_of_a_killed_worker_gets_its_share(stack: ExitStack) -> None:
    """The connections of the dead one are gone with it; the new one begins with none."""
    with Daphne(f"{APPS}:hello", "--workers", "2") as server:
        crowd = Crowd(server.port, stack)
        crowd.come(20)
        killed = next(iter(crowd.shares))
        os.kill(int(killed), signal.SIGKILL)
        server.wait_status("1/2 workers ready")
        server.wait_status("2/2 workers ready")
        del crowd.shares[killed]
        crowd.come(200)
        assert max(crowd.shares.values()) <= LARGEST * crowd.shares.total() / 2, crowd.shares


# -- limits --


def _waits(client: Client) -> bool:
    """Whether nothing has come for `client` yet."""
    return not select.select([client.socket], [], [], 0)[0]


def test_a_full_worker_lets_others_wait_and_says_so(stack: ExitStack) -> None:
    """At --max-connections the next one waits in the queue until one of them has ended."""
    with Daphne(f"{APPS}:hello", "--workers", "1", "--max-connections", "2") as server:
        first, second = (stack.enter_context(Client(server.port)) for _ in range(2))
        first.get("/")
        second.get("/")
        third = stack.enter_context(Client(server.port))
        third.ask("/")
        for _ in range(20):
            assert first.get("/").status == second.get("/").status == 200
            assert _waits(third)
        assert server.log().count("--max-connections 2: no more are accepted") == 1
        second.close()
        assert third.response().status == 200


def test_whom_a_full_worker_cannot_take_its_sibling_takes(stack: ExitStack) -> None:
    """Every place is used before anybody waits."""
    with Daphne(f"{APPS}:hello", "--workers", "2", "--max-connections", "3") as server:
        crowd = Crowd(server.port, stack)
        crowd.come(6)
        assert sorted(crowd.shares.values()) == [3, 3]
        last = stack.enter_context(Client(server.port))
        last.ask("/")
        with Client(server.port) as other:
            other.ask("/")
            assert _waits(last)
            assert _waits(other)


def test_an_overloaded_worker_turns_requests_away(stack: ExitStack) -> None:
    """Beyond --max-inflight: 503 and when to come back, and the log names the option.

    So with handshakes; WebSockets that are open take no place, and below the limit all is well.
    """
    # Who has left an application that does not listen makes room when that is given up.
    options = ["--workers", "1", "--max-inflight", "2", "--application-close-timeout", "1"]
    with Daphne(f"{APPS}:probe", *options) as server:

        def knock() -> int:
            client = stack.enter_context(Client(server.port))
            client.send(HANDSHAKE.replace(b"/chat?room=1", b"/"))
            return client.head().status

        assert [knock() for _ in range(3)] == [101, 101, 101]
        busy = [stack.enter_context(Client(server.port)) for _ in range(2)]
        for client in busy:
            client.ask("/halves?60")
            assert client.head().status == 200
        other = stack.enter_context(Client(server.port))
        refused = other.get("/")
        assert (refused.status, refused.values("retry-after")) == (503, ["1"])
        assert knock() == 503
        assert "--max-inflight 2: turned away with 503: 1" in server.log()
        busy[0].close()
        answers = iter(lambda: other.get("/").status, 200)
        assert set(answers) <= {503}
        assert knock() == 101
