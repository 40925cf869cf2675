"""The deadlocks that a bound on threads could cause: impossible, or named in the log.

What a case does is in `deadlock_app`. Each runs under load, for a moment here and for half a minute
when `make conformance` runs the long ones.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

import pytest
from websockets.sync.client import connect

from tests.support.client import Client, get
from tests.support.daphne import Daphne

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

APPLICATION = "tests.integration.deadlock_app:application"
CLIENTS = 16
SECONDS = [0.5, pytest.param(30.0, marks=pytest.mark.long)]
WAITED = "synchronous code has waited"

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def two_threads() -> Iterator[Daphne]:
    """Serve with two threads of each kind, eight times fewer than there are clients."""
    with Daphne(APPLICATION, "--threads", "2", "--access-log", "/dev/null") as server:
        yield server


def until(seconds: float, step: Callable[[], None]) -> int:
    """Take `step` for so many seconds, and once at least; return how often."""
    deadline, count = time.monotonic() + seconds, 0
    while not count or time.monotonic() < deadline:
        step()
        count += 1
    return count


# -- impossible --


@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize(
    "case",
    [
        pytest.param("/bridge", id="sync-async-sync"),
        pytest.param("/tasks", id="tasks-within-async_to_sync"),
        pytest.param("/gather", id="first-calls-at-once"),
        pytest.param("/free", id="sensitive-waits-for-free-and-back"),
    ],
)
def test_it_cannot_get_stuck(two_threads: Daphne, case: str, seconds: float) -> None:
    """All threads are in `async_to_sync`, and what they wait for needs a thread: it has one.

    asgiref runs it on the thread that waits, which is the request's own; what is not
    thread-sensitive has threads of another kind.
    """

    def ask(_: int) -> int:
        with Client(two_threads.port) as client:

            def step() -> None:
                answer = client.get(case)
                assert (answer.status, answer.text) == (200, "True")

            return until(seconds, step)

    with ThreadPoolExecutor(CLIENTS) as clients:
        assert min(clients.map(ask, range(CLIENTS))) > 0


@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize(
    ("consumer", "answer"),
    [
        pytest.param("consumer", "hello 1", id="database_sync_to_async"),
        pytest.param("synchronous", "hello", id="sync-consumer-and-channel-layer"),
    ],
)
def test_consumers_cannot_get_stuck(
    two_threads: Daphne, consumer: str, answer: str, seconds: float
) -> None:
    """Eight times as many WebSockets as threads, all open, all in synchronous code again and again.

    Each has a thread that stays its own; a WebSocket that is open and asks for nothing holds none.
    """

    def talk(_: int) -> int:
        with connect(f"ws://127.0.0.1:{two_threads.port}/{consumer}", proxy=None) as client:

            def step() -> None:
                client.send("hello")
                assert client.recv(timeout=20) == answer

            return until(seconds, step)

    with ThreadPoolExecutor(CLIENTS) as clients:
        assert min(clients.map(talk, range(CLIENTS))) > 0


# -- possible, and named --


class Stuck:
    """Requests that get stuck, while others that need no thread go on."""

    def __init__(self, threads: int) -> None:
        """Serve with `threads` of each kind."""
        arguments = ("--thread-wait-warning", "0.3", "--application-close-timeout", "0.2")
        self.server = Daphne(APPLICATION, "--threads", str(threads), *arguments)
        self._clients: list[Client] = []

    def __enter__(self) -> Self:
        """Serve."""
        self.server.__enter__()
        return self

    def __exit__(self, *reason: object) -> None:
        """End."""
        for client in self._clients:
            client.close()
        self.server.__exit__(*reason)  # type: ignore[arg-type]

    def ask(self, target: str) -> Client:
        """Send a request; return who waits for the answer."""
        client = Client(self.server.port)
        self._clients.append(client)
        client.ask(target)
        return client

    def leave(self) -> None:
        """Let every client be gone."""
        while self._clients:
            self._clients.pop().close()

    def reported(self, seconds: float) -> str:
        """Serve others until the log names the deadlock, at least so long; return what it says."""
        began = time.monotonic()
        with Client(self.server.port) as client:
            while WAITED not in (log := self.server.log()) or time.monotonic() - began < seconds:
                assert client.get("/").text == "quick"
                assert time.monotonic() - began < seconds + 20, log
        return "\n".join(
            line for line in log[log.index(WAITED) :].splitlines() if '"GET / ' not in line
        )

    def moves(self) -> None:
        """See that all threads have come free."""
        clients = [self.ask("/bridge") for _ in range(4)]
        assert [client.response().text for client in clients] == ["True"] * 4


@pytest.mark.parametrize("seconds", SECONDS)
def test_a_request_that_waits_for_another_s_thread_is_reported(seconds: float) -> None:
    """All threads wait for what only the next request would do: the log shows both stacks."""
    with Stuck(threads=2) as stuck:
        waiting = [stuck.ask("/waits_for_another_request") for _ in range(2)]
        with Client(stuck.server.port) as client:
            while client.get("/stuck").text != "2":
                pass
        other = stuck.ask("/other_request")
        text = stuck.reported(seconds)
        assert "GET /other_request waits for a free one; threads busy: 2 of 2" in text
        assert "in other_request\n" in text
        assert text.count("for GET /waits_for_another_request, here:") == 2
        assert text.count("in _stuck\n") == 2
        assert get(stuck.server.port, "/release").text == "2"
        assert {each.response().status for each in (*waiting, other)} == {200}
        stuck.moves()


@pytest.mark.parametrize("seconds", SECONDS)
def test_a_request_that_waits_for_its_own_thread_is_reported(seconds: float) -> None:
    """A task of the request's that was begun outside of `async_to_sync` needs the thread in it.

    asgiref cannot know that they belong together. When its client leaves, it is over.
    """
    with Stuck(threads=2) as stuck:
        stuck.ask("/own_task")
        text = stuck.reported(seconds)
        assert "GET /own_task waits for daphne-supervisor-sync-1; threads busy: 1 of 2" in text
        assert "GET /own_task waits here:" in text
        assert "in needs_the_thread\n" in text
        assert "for GET /own_task, here:" in text
        assert "in has_the_thread\n" in text
        stuck.leave()
        stuck.moves()


@pytest.mark.parametrize("seconds", SECONDS)
def test_free_code_that_waits_for_more_of_it_is_reported(seconds: float) -> None:
    """All threads of the second kind wait for one of the second kind; leased ones go on."""
    with Stuck(threads=2) as stuck:
        for _ in range(2):
            stuck.ask("/free_in_free")
        text = stuck.reported(seconds)
        assert "GET /free_in_free waits for a free one; threads busy: 2 of 2" in text
        assert "in inner\n" in text
        assert text.count("in holds_a_free_thread\n") == 2
        stuck.moves()
        stuck.leave()
        assert get(stuck.server.port, "/free").text == "True"


@pytest.mark.parametrize("seconds", SECONDS)
def test_a_lock_that_is_kept_from_step_to_step_is_reported(seconds: float) -> None:
    """Who waits for the lock has the thread on which it would be released."""
    with Stuck(threads=1) as stuck:
        clients = [stuck.ask("/lock") for _ in range(2)]
        text = stuck.reported(seconds)
        assert "GET /lock waits for daphne-supervisor-sync-1; threads busy: 1 of 1" in text
        assert "in lock\n" in text
        assert "in takes_the_lock\n" in text
        assert get(stuck.server.port, "/unlock").text == "unlocked"
        assert [each.response().text for each in clients] == ["True", "True"]
        stuck.moves()
