"""Stopping: what has begun is finished, everybody is told, and it does not take for ever."""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import ClientConnection, connect

from tests.support.client import Client, get
from tests.support.daphne import APPS, Daphne

if TYPE_CHECKING:
    from collections.abc import Iterator

UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


@contextmanager
def _halfway(server: Daphne, seconds: float) -> Iterator[Client]:
    """Yield a client in the middle of a response whose other half comes after `seconds`."""
    with Client(server.port) as client:
        client.ask(f"/halves?{seconds}")
        client.head()
        assert client.piece() == b"one "
        yield client


@contextmanager
def _idle(server: Daphne) -> Iterator[Client]:
    """Yield a client with a kept-alive connection that was used once."""
    with Client(server.port) as client:
        assert not client.get("/").closes
        yield client


def _wait_for_drain(websocket: ClientConnection) -> None:
    """Wait until the worker drains, which it tells its WebSockets, and check what it tells."""
    with pytest.raises(ConnectionClosedError) as caught:
        websocket.recv(timeout=10)
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1012, "service restart")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_drain_serves_everybody_to_the_end(number: signal.Signals) -> None:
    """TERM or one INT: WebSockets are told 1012, a response that has begun is completed.

    Who has an idle connection is answered once more and told to close it, but gets no new
    WebSocket. Then the master leaves with 0.
    """
    with (
        Daphne(f"{APPS}:probe", "--workers", "1") as server,
        connect(f"ws://127.0.0.1:{server.port}/") as websocket,
        _halfway(server, 1.5) as halfway,
        _idle(server) as idle,
        _idle(server) as upgrading,
    ):
        websocket.send("before")
        assert websocket.recv(timeout=10) == "before"
        server.signal(number)
        server.wait(lambda said: "STOPPING=1" in said.splitlines())
        _wait_for_drain(websocket)
        last = idle.get("/")
        assert (last.status, last.closes, idle.rest()) == (200, True, b"")
        refused = upgrading.get("/", *UPGRADE)
        assert (refused.status, refused.closes, upgrading.rest()) == (503, True, b"")
        with pytest.raises(ConnectionRefusedError):
            Client(server.port)
        assert (halfway.piece(), halfway.piece()) == (b"two", b"")
        assert halfway.get("/").closes
        halfway.close()
        assert server.wait_exit() == 0


def test_a_request_in_flight_is_answered_with_close() -> None:
    """A response that begins during the drain tells its client to come back elsewhere."""
    with (
        Daphne(f"{APPS}:probe", "--workers", "1") as server,
        connect(f"ws://127.0.0.1:{server.port}/") as websocket,
        Client(server.port) as client,
    ):
        client.ask("/slow?1.5")
        server.signal(signal.SIGTERM)
        _wait_for_drain(websocket)
        response = client.response()
        assert (response.status, response.closes, client.rest()) == (200, True, b"")
        client.close()
        assert server.wait_exit() == 0


def test_connections_in_the_queue_are_served() -> None:
    """Who was connected when the listener closed, though not accepted yet, gets an answer."""
    options = ["--workers", "1", "--worker-timeout", "30"]
    with Daphne(f"{APPS}:probe", *options) as server, Client(server.port) as blocking:
        blocking.ask("/block?1")
        waiting = [Client(server.port) for _ in range(20)]
        for client in waiting:
            client.ask("/")
        server.signal(signal.SIGTERM)
        for client in waiting:
            assert client.response().status == 200
            client.close()
        assert blocking.response().status == 200
        blocking.close()
        assert server.wait_exit() == 0


def test_the_graceful_timeout_cuts_off_and_says_what() -> None:
    """At --graceful-timeout a response without end is cut, and the log names the request."""
    options = ["--workers", "1", "--graceful-timeout", "1"]
    with Daphne(f"{APPS}:probe", *options) as server, _halfway(server, 600) as client:
        begun = time.monotonic()
        server.signal(signal.SIGTERM)
        with pytest.raises(ConnectionError):
            client.piece()
        assert 1 <= time.monotonic() - begun < 5
        assert server.wait_exit() == 0
    assert "--graceful-timeout of 1 s is over; cut off: 1 connections, 1 application calls" in (
        server.final_log
    )
    assert "(GET /halves?600)" in server.final_log
    assert "killed" not in server.final_log


STREAMS = "tests.integration.drain_app:application"


def test_streams_may_be_told_before_the_end() -> None:
    """--disconnect-delay: the application hears http.disconnect, and its last words are sent."""
    options = ["--workers", "1", "--disconnect-delay", "1", "--graceful-timeout", "60"]
    with Daphne(STREAMS, *options) as server, Client(server.port) as client:
        client.ask("/stream")
        client.head()
        assert client.piece() == b"more"
        begun = time.monotonic()
        server.signal(signal.SIGTERM)
        pieces = list(iter(client.piece, b""))
        assert pieces[-1] == b"http.disconnect"
        assert set(pieces[:-1]) == {b"more"}
        assert 0.9 < time.monotonic() - begun < 5
        client.close()
        assert server.wait_exit() == 0
    assert "(--disconnect-delay 1)" in server.final_log


def test_each_phase_of_a_drain_is_in_the_log() -> None:
    """In order, with figures; a phase that has nothing to do is not."""
    with (
        Daphne(STREAMS, "--workers", "1", "--disconnect-delay", "1") as server,
        connect(f"ws://127.0.0.1:{server.port}/"),
        Client(server.port) as client,
    ):
        client.ask("/stream")
        client.head()
        server.signal(signal.SIGTERM)
        while client.piece():
            pass
        client.close()
        assert server.wait_exit() == 0
    phases = [
        "worker 1: HTTP connections: 1, with requests in progress: 1; they have 25 s",
        "worker 1: WebSockets that are closed with 1012: 1, over 0.1 s",
        "worker 1: responses in progress whose application hears http.disconnect: 1",
        "worker 1: shutdown of the lifespan, at most 2 s",
    ]
    places = [server.final_log.find(phase) for phase in phases]
    assert places == sorted(places)
    assert -1 not in places
    assert "connections that waited" not in server.final_log


def test_a_load_balancer_has_time_to_notice() -> None:
    """--shutdown-delay: everything goes on, new connections too, but none is kept alive.

    Then the drain begins.
    """
    options = ["--workers", "2", "--shutdown-delay", "2"]
    with Daphne(f"{APPS}:probe", *options) as server, Client(server.port) as before:
        assert not before.get("/").closes
        begun = time.monotonic()
        server.signal(signal.SIGTERM)
        server.wait(lambda said: "STOPPING=1" in said.splitlines())
        last = before.get("/slow?0.3")
        assert (last.status, last.closes) == (200, True)
        for _ in range(10):
            answer = get(server.port, "/")
            assert (answer.status, answer.closes) == (200, True)
        with connect(f"ws://127.0.0.1:{server.port}/") as websocket:
            websocket.send("new")
            assert websocket.recv(timeout=10) == "new"
            _wait_for_drain(websocket)
        assert time.monotonic() - begun >= 1.9
        with pytest.raises(ConnectionRefusedError):
            Client(server.port)
        assert server.wait_exit() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_who_is_in_a_hurry_does_not_wait_for_load_balancers(number: signal.Signals) -> None:
    """Ctrl-C and QUIT know no --shutdown-delay; nor does a second TERM."""
    with Daphne(f"{APPS}:probe", "--shutdown-delay", "600") as server:
        server.signal(number)
        assert server.wait_exit(10) == 0
    with Daphne(f"{APPS}:probe", "--shutdown-delay", "600") as server:
        server.signal(signal.SIGTERM)
        server.wait(lambda said: "STOPPING=1" in said.splitlines())
        server.signal(signal.SIGTERM)
        assert server.wait_exit(10) == 0


def test_an_idle_server_stops_at_once() -> None:
    """With nothing in flight, a drain takes no part of --graceful-timeout."""
    with Daphne(f"{APPS}:probe", "--workers", "2") as server:
        begun = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT])
def test_a_second_signal_does_not_wait(second: signal.Signals) -> None:
    """During a drain, another INT, TERM or QUIT means now."""
    with Daphne(f"{APPS}:probe", "--workers", "1") as server, _halfway(server, 600) as client:
        server.signal(signal.SIGINT)
        server.wait(lambda said: "STOPPING=1" in said.splitlines())
        _assert_leaves_now(server, client, second)


def test_quit_does_not_wait() -> None:
    """QUIT cuts what is under way, and the exit code is still that of a stop."""
    with Daphne(f"{APPS}:probe", "--workers", "1") as server, _halfway(server, 600) as client:
        _assert_leaves_now(server, client, signal.SIGQUIT)


def _assert_leaves_now(server: Daphne, client: Client, number: signal.Signals) -> None:
    begun = time.monotonic()
    server.signal(number)
    with pytest.raises(ConnectionError):
        client.piece()
    assert server.wait_exit() == 0
    assert time.monotonic() - begun < 5
