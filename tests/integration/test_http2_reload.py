"""HTTP/2 and a worker that leaves: GOAWAY, what runs is finished, and nothing is lost."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.client import get
from tests.support.daphne import APPS, Daphne, survivors
from tests.support.http2 import Http2Client
from tests.support.http2_frames import Code, Flag, Type, block, frame, headers
from tests.support.http2_load import Http2Load, Kind
from tests.support.transports import frame as websocket_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

PROBE = f"{APPS}:probe"
PATIENCE = 20.0
LAST = 2**31 - 1
_CONNECT = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b":scheme", b"http"),
    (b":path", b"/chat"),
    (b":authority", b"test"),
    (b"sec-websocket-version", b"13"),
]
_RESTART = b"\x88\x11\x03\xf4service restart"
"""A close frame with the code 1012, as a server sends it."""
#: Streams that are open for a while, most of the time waiting: it is no load that is tried here.
KINDS = (
    Kind("/slow?0.2"),
    Kind("/halves?0.3", size=7),
    Kind("/echo", uploads=True),
)


@pytest.fixture
def server() -> Iterator[Daphne]:
    """Serve with one worker that tells its WebSockets within a second.

    An upload may pause for as long as a reload takes.
    """
    options = ("-w", "1", "--ws-drain-time", "1", "--body-min-rate", "0")
    with Daphne(PROBE, *options, "--access-log", "/dev/null") as server:
        yield server
        assert "Traceback" not in server.log()


@pytest.mark.timeout(120)
def test_reloads_under_load_lose_no_stream() -> None:
    """50 connections with three streams each: two HUPs, and every stream is answered."""
    options = ("-w", "2", "--access-log", "/dev/null")
    with Daphne(PROBE, *options) as server:
        pids = set(server.worker_pids())
        with Http2Load(server.port, 50, KINDS) as load:
            for _ in range(2):
                server.replace_all()
                load.turn()
                assert not pids & set(server.worker_pids())
                pids |= set(server.worker_pids())
        assert load.losses == []
        assert load.sent == load.answered > 500
        assert {int(pid) for pid in load.servers} == pids
        assert load.connections >= 50 * 3, "each reload ends each connection"
        assert "Traceback" not in server.log()


def test_a_leaving_worker_says_goaway_twice(server: Daphne) -> None:
    """First without a number, since requests may be under way; then with the last; then it ends."""
    with Http2Client(server.port, pongs=False) as client:
        upload = client.open("/digest", end=False)
        client.round_trip()
        server.signal(signal.SIGHUP)
        client.until(lambda: bool(client.judge.goaways), PATIENCE)
        assert [(each.last, each.code) for each in client.judge.goaways] == [(LAST, Code.NO_ERROR)]
        # The client has not seen it when it sends this one: it is answered all the same.
        crossing = client.open("/hello")
        [ping] = client.judge.pings
        client.write(frame(Type.PING, ping, flags=Flag.ACK))
        client.until(lambda: len(client.judge.goaways) == 2)
        assert client.judge.goaways[1].last == crossing
        late = client.open("/hello")
        assert client.answer(crossing).outcome == "200"
        client.data(upload, b"", end=True)
        assert client.answer(upload).outcome == "200"
        client.end()
        assert client.judge.answer(late).outcome == ""


def test_a_client_that_answers_no_ping_does_not_hold_a_worker_up(server: Daphne) -> None:
    """The second GOAWAY comes after a while all the same."""
    with Http2Client(server.port, pongs=False) as client:
        assert client.get("/hello").outcome == "200"
        (worker,) = server.workers()
        begun = time.monotonic()
        server.signal(signal.SIGHUP)
        said = client.end(PATIENCE)
        assert said is not None
        assert (said.last, said.code) == (1, Code.NO_ERROR)
        assert time.monotonic() - begun < 10
        assert survivors([worker], PATIENCE) == []


def test_an_upload_and_a_download_are_finished(server: Daphne) -> None:
    """Both began long before the reload and end long after it."""
    with Http2Client(server.port) as client:
        up = client.open("/digest", end=False)
        client.send(up, bytes(50_000), end=False)
        down = client.open("/stream?1000")
        client.stalled.add(down)
        client.until(lambda: client.judge.answer(down).size == 65_535)
        said = server.reload()
        assert "reload done" in said
        assert get(server.port, "/hello").status == 200
        client.send(up, bytes(50_000))
        assert client.answer(up).outcome == "200"
        client.stalled.clear()
        client.judge.uncredited[down] = 65_535
        client.credit()
        assert client.answer(down).size == 1_024_000
        client.end()


def test_websockets_on_streams_hear_1012(server: Daphne) -> None:
    """Each of ten on a connection, and each stream ends in order before the connection does."""
    with Http2Client(server.port) as client:
        streams = range(1, 20, 2)
        answers = [client.judge.answer(stream) for stream in streams]
        for stream in streams:
            client.write(headers(stream, _CONNECT, end=False))
        client.until(lambda: all(one.status == 200 for one in answers))
        for stream in streams:
            client.data(stream, websocket_frame(1, b"hello"))
        client.until(lambda: all(one.body == b"\x81\x05hello" for one in answers))
        server.signal(signal.SIGHUP)
        left = list(zip(streams, answers, strict=True))
        while left:
            client.until(lambda: any(one.body.endswith(_RESTART) for _, one in left), PATIENCE)
            for stream, one in list(left):
                if one.body.endswith(_RESTART):
                    client.data(stream, websocket_frame(8, b"\x03\xf4"), end=True)
                    left.remove((stream, one))
        client.end(PATIENCE)
        assert {one.outcome for one in answers} == {"200"}


def test_a_worker_that_stops_finishes_its_streams() -> None:
    """TERM: what runs is answered, and the exit code is 0."""
    with Daphne(PROBE, "-w", "1") as server, Http2Client(server.port) as client:
        slow = [client.open("/slow?1") for _ in range(10)]
        client.round_trip()
        server.signal(signal.SIGTERM)
        assert {client.answer(stream, PATIENCE).outcome for stream in slow} == {"200"}
        client.end()
        assert server.wait_exit() == 0


def test_new_websockets_are_not_begun_on_a_leaving_connection(server: Daphne) -> None:
    """A handshake that crosses the GOAWAY is answered 503, or not at all."""
    with Http2Client(server.port, pongs=False) as client:
        upload = client.open("/digest", end=False)
        client.round_trip()
        server.signal(signal.SIGHUP)
        client.until(lambda: bool(client.judge.goaways), PATIENCE)
        client.write(frame(Type.HEADERS, block(_CONNECT), flags=Flag.END_HEADERS, stream=3))
        client.until(lambda: client.judge.answer(3).status is not None)
        assert client.judge.answer(3).status == 503
        client.data(upload, b"", end=True)
        client.end(PATIENCE)
