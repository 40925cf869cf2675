"""Clients that mean harm over HTTP/2: each limit ends them with the right code, and nobody else."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

import pytest

from tests.support.client import get
from tests.support.daphne import APPS, Daphne
from tests.support.http2 import Http2Client, shut_out
from tests.support.http2_frames import (
    PREFACE,
    Code,
    Flag,
    Setting,
    Type,
    block,
    data,
    frame,
    goaway,
    headers,
    ping,
    priority,
    priority_update,
    reset,
    settings,
    window_update,
)
from tests.support.http2_frames import get as request
from tests.support.peak import Peak
from tests.support.siege import MEBIBYTE, Siege
from tests.support.swarm import Manner
from tests.support.transports import frame as websocket_frame

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_HELLO = PREFACE + settings()
_MEMORY = 16 * MEBIBYTE
_REQUEST = (
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":path", b"/"),
    (b":authority", b"test"),
)

_CONNECT = (
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    *_REQUEST[1:],
    (b"sec-websocket-version", b"13"),
)


def flood(frames: Iterable[bytes]) -> Manner:
    """Return the manner of who sends all that, and comes back when it is thrown out."""
    return Manner(opening=_HELLO + b"".join(frames), returns=True)


def _half(stream: int) -> bytes:
    """Return a request whose application ends with its client: it waits for the body."""
    return request(stream, b"/hello", end=False)


def streams(count: int) -> range:
    """Return the numbers of so many streams."""
    return range(1, 2 * count + 1, 2)


def bomb() -> bytes:
    """Return HEADERS of 16 KiB whose fields would take 64 MiB: one is named 12,000 times.

    It is known as the HPACK bomb: the field is put into the table once (RFC 7541 section 6.2.1).
    """
    field = b"\x40\x03x-a\x7f\xa1\x1e" + b"a" * (127 + 0x21 + (0x1E << 7))
    payload = block(_REQUEST) + field + b"\xbe" * 12_000
    return frame(Type.HEADERS, payload, flags=Flag.END_HEADERS | Flag.END_STREAM, stream=1)


# -- what would keep a neighbour waiting --


def test_rapid_reset() -> None:
    """Requests that are taken back at once (CVE-2023-44487): ENHANCE_YOUR_CALM, and the end."""
    with Siege() as siege:
        each = (_half(stream) + reset(stream) for stream in streams(5000))
        endings = siege.bear(4, flood(each), memory=_MEMORY)
        assert {shut_out(ending.last) for ending in endings} == {Code.ENHANCE_YOUR_CALM}
        assert "--http2-max-resets" in siege.log


def test_a_flood_of_requests() -> None:
    """Ten thousand requests in one go are answered in turn with everybody else's."""
    with Siege() as siege:
        manner = flood(request(stream) for stream in streams(10_000))
        siege.bear(4, manner, memory=_MEMORY)


def test_a_flood_of_requests_whose_answers_nobody_reads() -> None:
    """Answers wait at their streams, and streams are few.

    The answers have a size: 20,000 that are as short as a process id may fit into the window, and
    then nothing waits and nobody is thrown out.
    """
    with Siege("--write-timeout", "1") as siege:
        opening = _HELLO + b"".join(request(stream, b"/blob?1") for stream in streams(20_000))
        manner = Manner(opening=opening, reads=False)
        siege.bear(4, manner, memory=_MEMORY, thrown_out=True)
        assert "--http2-max-resets" in siege.log


def test_a_flood_of_pings_whose_answers_nobody_reads() -> None:
    """Nothing piles up for who does not listen."""
    with Siege() as siege:
        manner = Manner(opening=_HELLO + ping() * 100_000, reads=False)
        siege.bear(4, manner, memory=_MEMORY, thrown_out=True)
        assert "--http2-max-control-frames" in siege.log


def test_a_flood_of_pings_on_a_websocket() -> None:
    """One by one in DATA frames, they keep nobody waiting."""
    with Siege() as siege:
        each = data(1, websocket_frame(9, b"a"), end=False)
        opening = _HELLO + headers(1, _CONNECT, end=False)
        siege.bear(4, Manner(opening=opening, flood=each * 1000, returns=True), memory=_MEMORY)


def test_a_header_bomb() -> None:
    """What unpacks to thousands of times its size is not unpacked to the end."""
    with Siege() as siege:
        endings = siege.bear(4, flood([bomb()]), memory=_MEMORY)
        assert {shut_out(ending.last) for ending in endings} == {Code.ENHANCE_YOUR_CALM}
        assert "--max-header-size" in siege.log


# -- each limit, by one client with a neighbour --


@pytest.fixture(scope="module")
def server() -> Iterator[Daphne]:
    """Serve with one worker and limits that are soon reached."""
    options = ("--http2-max-streams", "5", "--http2-max-running", "8", "--http2-max-resets", "50")
    with Daphne(f"{APPS}:probe", "-w", "1", "--access-log", "/dev/null", *options) as server:
        with Http2Client(server.port) as client:
            client.get("/hello")
        pids = server.worker_pids()
        yield server
        assert server.worker_pids() == pids
        assert "Traceback" not in server.log()


def ended(server: Daphne, what: bytes, code: Code, option: str) -> None:
    """Check that `what` ends its connection with `code`, says why in the log, and costs nothing.

    A neighbour on a connection from before and one on a new one are served.
    """
    (worker,) = server.workers()
    before = len(server.log())
    with Http2Client(server.port) as neighbour:
        neighbour.get("/hello")
        peak = Peak(worker.pid)
        with Http2Client(server.port) as client:
            with contextlib.suppress(ConnectionError):  # the server may have had enough
                client.write(what)
            said = client.end()
        assert said is not None, "ended without a word"
        assert said.code == code
        assert neighbour.get("/hello").outcome == "200"
        assert get(server.port, "/hello").status == 200
    assert peak.growth < _MEMORY
    lines = server.log()[before:].splitlines()
    assert [line for line in lines if f"{code.name}: " in line and option in line], lines
    assert len([line for line in lines if "connection ended" in line]) == 1


CONTROL = {
    "SETTINGS": settings((Setting.INITIAL_WINDOW_SIZE, 65_535)),
    "acknowledged SETTINGS": settings(ack=True),
    "PING": ping(),
    "acknowledged PING": ping(ack=True),
    "PRIORITY": priority(3),
    "PRIORITY_UPDATE": priority_update(3, b"u=1"),
    "WINDOW_UPDATE": window_update(0, 1),
    "unknown frames": frame(0xBB, b"12345678"),
    "GOAWAY": goaway(),
}


@pytest.mark.parametrize("kind", CONTROL)
def test_a_flood_of_frames_that_carry_nothing(server: Daphne, kind: str) -> None:
    """More than --http2-max-control-frames of them in ten seconds are too many, of each kind."""
    opening = request(1, b"/wait") if kind == "GOAWAY" else b""  # which would end an idle one
    what = opening + CONTROL[kind] * 3000
    ended(server, what, Code.ENHANCE_YOUR_CALM, "--http2-max-control-frames")


def test_a_flood_of_empty_data(server: Daphne) -> None:
    """DATA without a byte is a frame that carries nothing."""
    what = request(1, b"/deaf", end=False) + data(1, end=False) * 3000
    ended(server, what, Code.ENHANCE_YOUR_CALM, "--http2-max-control-frames")


def test_a_flood_of_padding(server: Daphne) -> None:
    """So is DATA of padding only."""
    what = request(1, b"/deaf", end=False) + data(1, end=False, pad=0) * 3000
    ended(server, what, Code.ENHANCE_YOUR_CALM, "--http2-max-control-frames")


def test_a_flood_of_window_updates_for_a_stream(server: Daphne) -> None:
    """A window that is opened byte by byte (CVE-2019-9511) is more work than it is worth."""
    opening = settings((Setting.INITIAL_WINDOW_SIZE, 0)) + request(1, b"/stream?1000")
    what = opening + window_update(1, 1) * 5000
    ended(server, what, Code.ENHANCE_YOUR_CALM, "--http2-max-control-frames")


@pytest.mark.parametrize("size", [0, 8], ids=["empty", "small"])
def test_a_flood_of_continuations(server: Daphne, size: int) -> None:
    """A head without end (CVE-2024-27316) ends at --http2-max-continuations."""
    head = headers(1, _REQUEST, last=False)
    piece = block([(b"x-a", b"1")]) if size else b""
    what = head + frame(Type.CONTINUATION, piece, stream=1) * 1000
    ended(server, what, Code.ENHANCE_YOUR_CALM, "--http2-max-continuations")


def test_a_head_that_is_too_large_to_be_read_on(server: Daphne) -> None:
    """Full CONTINUATION frames end at --max-header-size."""
    head = headers(1, _REQUEST, last=False)
    piece = block([(b"x-a", b"a" * 16_000)])
    what = head + frame(Type.CONTINUATION, piece, stream=1) * 50
    ended(server, what, Code.ENHANCE_YOUR_CALM, "--max-header-size")


def test_resets_are_counted(server: Daphne) -> None:
    """Of requests that were answered at once, too."""
    what = b"".join(request(stream, b"/wait") + reset(stream) for stream in streams(200))
    ended(server, what, Code.ENHANCE_YOUR_CALM, "--http2-max-resets")


MALFORMED = {
    "increments of zero": lambda stream: request(stream, b"/wait") + window_update(stream, 0),
    "windows that overflow": lambda stream: (
        request(stream, b"/wait") + window_update(stream, 2**31 - 1)
    ),
    "DATA behind the end": lambda stream: request(stream, b"/wait") + data(stream, b"a"),
    "PRIORITY of four bytes": lambda stream: (
        request(stream, b"/wait") + frame(Type.PRIORITY, bytes(4), stream=stream)
    ),
    "names in upper case": lambda stream: request(stream, b"/", (b"X-A", b"1")),
    "bodies above their length": lambda stream: (
        request(stream, b"/", (b"content-length", b"1"), end=False) + data(stream, b"ab")
    ),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_resets_of_the_server_are_counted(server: Daphne, kind: str) -> None:
    """Whatever makes the server reset a stream (CVE-2025-8671)."""
    what = b"".join(MALFORMED[kind](stream) for stream in streams(200))
    ended(server, what, Code.ENHANCE_YOUR_CALM, "--http2-max-resets")


def test_streams_that_are_refused_are_counted(server: Daphne) -> None:
    """Who goes on beyond --http2-max-streams without listening has enough of them refused."""
    what = b"".join(request(stream, b"/wait") for stream in streams(200))
    ended(server, what, Code.ENHANCE_YOUR_CALM, "--http2-max-resets")


def test_data_beyond_the_windows_of_the_connection(server: Daphne) -> None:
    """Who sends what nobody has asked for ends with FLOW_CONTROL_ERROR."""
    # Behind a stream that is reset for it, the connection's window takes what comes.
    opening = b"".join(request(stream, b"/deaf", end=False) for stream in streams(5))
    bodies = b"".join(data(stream, bytes(16_384), end=False) * 8 for stream in streams(5))
    what = opening + bodies + data(1, b"a", end=False)
    with Http2Client(server.port) as client:
        client.write(what)
        # 131,072 bytes on each of five streams are all that both windows take; one more is not.
        client.until(lambda: bool(client.judge.goaways) or client.judge.answer(1).ended)
        codes = [each.code for each in client.judge.goaways] or [client.judge.answer(1).reset]
    assert codes == [Code.FLOW_CONTROL_ERROR]
    assert "window" in server.log()


def test_data_beyond_the_window_of_a_stream(server: Daphne) -> None:
    """It ends the stream, and nothing else."""
    with Http2Client(server.port) as client:
        stream = client.open("/deaf", end=False)
        for _ in range(9):
            client.data(stream, bytes(16_384))
        assert client.answer(stream).outcome == "FLOW_CONTROL_ERROR"
        assert client.get("/hello").outcome == "200"
    assert "DATA beyond the stream's window" in server.log()


def test_streams_beyond_the_limit(server: Daphne) -> None:
    """They are refused in a way that lets them be sent again; the others are served."""
    with Http2Client(server.port) as client:
        open_ = [client.open("/wait") for _ in range(5)]
        assert client.answer(client.open("/hello")).outcome == "REFUSED_STREAM"
        client.write(reset(open_[0]))
        assert client.get("/hello").outcome == "200"
        assert not client.judge.goaways
    assert "--http2-max-streams" in server.log()


def test_applications_that_run_on(server: Daphne) -> None:
    """A stream that was reset counts while its application runs: no more than so many do."""
    with Http2Client(server.port) as client:
        for _ in range(8):  # which take no notice of their clients
            client.write(reset(client.open("/slow?30")))
        assert client.answer(client.open("/hello")).outcome == "REFUSED_STREAM"
        assert not client.judge.goaways
        with Http2Client(server.port) as neighbour:
            assert neighbour.get("/hello").outcome == "200"
    assert "--http2-max-running" in server.log()


# -- limits that need a server of their own --


def test_requests_of_a_connection() -> None:
    """After --http2-max-requests the connection ends in order, and no request is lost by that."""
    with Daphne(f"{APPS}:probe", "-w", "1", "--http2-max-requests", "20") as server:
        answered = 0
        with Http2Client(server.port) as client:
            answers = [client.judge.answer(client.open("/hello")) for _ in range(50)]
            said = client.end()
            answered = sum(one.outcome == "200" for one in answers)
        assert said is not None
        assert said.code == Code.NO_ERROR
        assert answered >= 20
        for stream, one in zip(itertools.count(1, 2), answers, strict=False):
            assert one.outcome == ("200" if stream <= said.last else ""), stream


def test_deadlines() -> None:
    """Each kind of dawdling has its end: a head, a body, a window, and doing nothing."""
    options = ("--head-timeout", "1", "--write-timeout", "1.5", "--keep-alive", "1")
    with Daphne(f"{APPS}:probe", "-w", "1", "--body-min-rate", "1000", *options) as server:
        clients = {
            name: Http2Client(server.port, credits_=False)
            for name in ("silent", "idle", "head", "body", "stream", "connection")
        }
        clients["idle"].open("/hello")
        clients["head"].write(headers(1, _REQUEST, last=False))
        slow = clients["body"].open("/digest", end=False)
        clients["body"].data(slow, b"a")
        clients["stream"].write(window_update(0, 100_000))
        stalled = clients["stream"].open("/stream?100")
        clients["connection"].write(settings((Setting.INITIAL_WINDOW_SIZE, 1_000_000)))
        clients["connection"].open("/stream?100")
        said = {name: clients[name].end() for name in ("silent", "idle", "head", "connection")}
        codes = {name: one and one.code for name, one in said.items()}
        assert codes.pop("silent") in {None, Code.NO_ERROR}
        calm = Code.ENHANCE_YOUR_CALM
        assert codes == {"idle": Code.NO_ERROR, "head": calm, "connection": calm}
        assert clients["stream"].answer(stalled).outcome == "200 CANCEL"
        assert clients["body"].answer(slow).status == 408
        assert get(server.port, "/hello").status == 200
        for client in clients.values():
            client.socket.close()
    for option in ("--head-timeout", "--write-timeout", "--body-min-rate"):
        assert option in server.final_log
