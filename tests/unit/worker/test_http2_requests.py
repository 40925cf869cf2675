"""Requests as they arrive: streams, bodies, windows, settings, and what ends them."""

from __future__ import annotations

from typing import Any

import pytest

from daphne_supervisor.config import Http
from daphne_supervisor.worker.head import Refused
from tests.support.streams import CONNECT, GET, POST, StreamRig, goaway, raw


def window(stream: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE."""
    return raw(8, stream, increment.to_bytes(4))


RESET = b"\0\0\0\x08"

# -- heads --


def test_a_request_is_begun() -> None:
    """It has its exchange at once; without a body it is complete."""
    rig = StreamRig()
    request = rig.ask()
    assert (request.started, request.ended, request.head.method) == (True, True, "GET")


def test_the_same_again_is_the_same() -> None:
    """A head that is known by its bytes is not admitted twice."""
    rig = StreamRig()
    first, second, third = (rig.ask(number).head for number in (1, 3, 5))
    assert first.headers == second.headers
    assert second is third


def test_a_malformed_request_ends_its_stream_alone() -> None:
    """PROTOCOL_ERROR, and the connection goes on."""
    rig = StreamRig()
    rig.feed(rig.headers(1, [*GET, ("connection", "close")]))
    assert rig.seen() == [("reset", 1, 1)]
    assert "RFC 9113" in rig.handler.refusals[0].rule
    assert rig.ask(3).started


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("end", [True, False])
def test_what_is_refused_is_answered(method: str, *, end: bool) -> None:
    """With the status that HTTP/1.1 has for it, and a page unless it is a HEAD."""
    rig = StreamRig()
    rig.feed(rig.headers(1, [(":method", method), *GET[1:], ("expect", "x")], end=end))
    head, *rest = rig.seen()
    assert head[:3] == ("headers", 1, "417")
    assert (head[3:] == ("end",)) is (method == "HEAD")
    assert [each[0] for each in rest] == ["data"] * (method == "GET") + ["reset"] * (not end)
    assert rig.handler.refusals[0].status == 417


def test_streams_are_limited() -> None:
    """--http2-max-streams: those beyond it may be sent again."""
    rig = StreamRig(max_streams=2)
    for number in (1, 3, 5):
        rig.feed(rig.headers(number))
    assert rig.seen() == [("reset", 5, 7)]
    assert rig.handler.crowds == 1
    rig.answer(1)
    assert rig.ask(7).started


def test_applications_that_run_on_are_limited() -> None:
    """--http2-max-running: a reset stream's application counts until it ends."""
    rig = StreamRig(max_running=2)
    first, second = rig.ask(1), rig.ask(3)
    rig.feed(raw(3, 1, RESET), raw(3, 3, RESET))
    assert first.gone
    assert second.gone
    rig.feed(rig.headers(5))
    assert rig.seen() == [("reset", 5, 7)]
    first.over = True
    assert rig.ask(7).started
    second.over = True
    assert rig.ask(9).started


def test_a_limit_of_refused_streams() -> None:
    """Whoever does not listen is counted among those that reset."""
    rig = StreamRig(max_streams=1, max_resets=2)
    rig.ask(1)
    rig.feed(*(rig.headers(number) for number in (3, 5, 7)))
    assert rig.seen()[-1] == goaway(11, last=7)


@pytest.mark.parametrize("number", [2, 3])
def test_streams_have_their_numbers(number: int) -> None:
    """Odd ones, and rising."""
    rig = StreamRig()
    rig.ask(5)
    rig.feed(rig.headers(number))
    assert rig.seen() == [goaway(1, last=5)]


# -- bodies --


def test_a_body_arrives_in_pieces() -> None:
    """And ends with its last."""
    rig = StreamRig()
    request = rig.post(1, [*POST, ("content-length", "5")])
    rig.feed(rig.data(1, b"ab"), rig.data(1, b""), rig.data(1, b"cde", end=True))
    assert (request.body, request.ended) == (b"abcde", True)


def test_an_empty_end_will_do() -> None:
    """No empty piece is handed on."""
    rig = StreamRig()
    request = rig.post()
    rig.feed(rig.data(1, b"ab"), rig.data(1, b"", end=True))
    assert (request.pieces, request.ended) == ([b"ab"], True)


def test_trailers_end_a_body() -> None:
    """They are checked, and nobody is told of them."""
    rig = StreamRig()
    request = rig.post()
    rig.feed(rig.data(1, b"ab"), rig.headers(1, [("x-sum", "1")]))
    assert (request.body, request.ended) == (b"ab", True)


@pytest.mark.parametrize(
    ("fields", "end", "code"),
    [
        ([("x", "y")], False, 1),
        ([(":path", "/")], True, 1),
        ([("connection", "x")], True, 1),
    ],
)
def test_trailers_that_are_wrong(fields: list[tuple[str, str]], code: int, *, end: bool) -> None:
    """They end the stream."""
    rig = StreamRig()
    request = rig.post()
    rig.feed(rig.headers(1, fields, end=end))
    assert rig.seen() == [("reset", 1, code)]
    assert request.gone


@pytest.mark.parametrize(
    ("length", "pieces"), [(5, [b"abcdef"]), (5, [b"abc", b"def"]), (5, [b"abcd"]), (1, [b""])]
)
def test_a_body_has_its_length(length: int, pieces: list[bytes]) -> None:
    """More or less than was announced is malformed (RFC 9113 section 8.1.1)."""
    rig = StreamRig()
    request = rig.post(1, [*POST, ("content-length", str(length))])
    for piece in pieces:
        rig.feed(rig.data(1, piece, end=piece is pieces[-1]))
    assert rig.seen() == [("reset", 1, 1)]
    assert request.gone


def test_trailers_behind_a_short_body() -> None:
    """The length is looked at whatever ends the body."""
    rig = StreamRig()
    rig.post(1, [*POST, ("content-length", "5")])
    rig.feed(rig.headers(1, [("x", "y")]))
    assert rig.seen() == [("reset", 1, 1)]


def test_a_body_above_the_limit() -> None:
    """--max-body-size: 413, or the end of a response that has begun."""
    rig = StreamRig(Http(max_body_size=5))
    request = rig.post()
    rig.feed(rig.data(1, b"123456", end=True))
    assert request.gone
    assert rig.seen()[0] == ("headers", 1, "413")
    rig.post(3)
    rig.answer(3, b"x", more=True)
    rig.frames()
    rig.feed(rig.data(3, b"123456"))
    assert rig.seen() == [("reset", 3, 8)]


def test_a_body_nobody_reads_is_dropped() -> None:
    """Behind a refusal that cannot leave yet."""
    rig = StreamRig(settings={4: 0})
    rig.feed(rig.headers(1, [*GET, ("expect", "x")], end=False))
    rig.feed(rig.data(1, b"abc"), rig.data(1, b"", end=True))
    assert rig.seen() == [("headers", 1, "417")]
    rig.feed(window(1, 1000))
    assert rig.seen()[0][:2] == ("data", 1)


# -- windows for the client --


def test_a_client_may_send_what_is_read() -> None:
    """The windows are credited for what the application has taken, half a window at a time."""
    rig = StreamRig(stream_window=65535)
    rig.post()
    rig.feed(rig.data(1, bytes(16_000)), rig.data(1, bytes(16_000)), rig.data(1, bytes(800)))
    assert rig.seen() == []
    rig.codec.taken(1)
    rig.breathe()
    assert rig.seen() == [("window", 1, 32_800), ("window", 0, 32_800)]
    rig.codec.taken(1)
    rig.codec.taken(3)
    assert rig.port.due == []


def test_a_stream_that_nobody_reads_does_not_stall_others() -> None:
    """The connection's window has room for all streams."""
    rig = StreamRig(stream_window=65535, max_streams=3)
    for number in (1, 3):
        rig.post(number)
        for _ in range(4):
            rig.feed(rig.data(number, bytes(16_000)))
    request = rig.post(5)
    rig.feed(rig.data(5, b"x"))
    assert request.body == b"x"


def test_padding_is_credited_at_once() -> None:
    """Nobody reads it."""
    rig = StreamRig(stream_window=65535)
    rig.post()
    for _ in range(130):
        rig.feed(rig.data(1, b"x", pad=255))
    assert [each[:2] for each in rig.seen()] == [("window", 1), ("window", 0)]


@pytest.mark.parametrize(("streams", "seen"), [(2, ("reset", 1, 3)), (1, goaway(3, last=1))])
def test_windows_are_kept_to(streams: int, seen: tuple[Any, ...]) -> None:
    """Who sends more than was allowed ends its stream, or the connection."""
    rig = StreamRig(stream_window=65535, max_streams=streams)
    rig.post()
    for _ in range(5):
        rig.feed(rig.data(1, bytes(16_000)))
    assert rig.seen()[0] == seen


def test_what_was_sent_on_a_stream_that_ended_is_credited() -> None:
    """To the connection, or it would run dry."""
    rig = StreamRig(stream_window=65535, max_streams=1)
    for number in range(1, 21, 2):
        rig.post(number)
        rig.feed(rig.data(number, bytes(16_000)), raw(3, number, RESET))
    rig.feed(rig.headers(21))
    assert rig.handler.requests[21].started


# -- streams that are not there --


def end_by_us(rig: StreamRig) -> None:
    """End stream 1 with a complete response before the request is."""
    rig.post()
    rig.answer(1)


def end_by_client(rig: StreamRig) -> None:
    """Let the client reset stream 1."""
    rig.post()
    rig.feed(raw(3, 1, RESET))


def end(rig: StreamRig) -> None:
    """End stream 1 on both sides."""
    rig.ask()
    rig.answer(1)


LATE = {
    "data": lambda rig: rig.data(1, b"x"),
    "headers": lambda rig: rig.headers(1),
    "window": lambda _: window(1, 5),
    "nothing": lambda _: window(1, 0),
    "reset": lambda _: raw(3, 1, RESET),
    "priority": lambda _: raw(2, 1, bytes(5)),
    "update": lambda _: raw(16, 0, b"\0\0\0\1u=1"),
}
PASSES: list[tuple[Any, ...]] = []


@pytest.mark.parametrize(
    ("ended", "what", "seen"),
    [
        *((end_by_us, what, PASSES) for what in LATE),
        *((ended, what, PASSES) for ended in (end_by_client, end) for what in list(LATE)[2:]),
        (end_by_client, "data", [("reset", 1, 5)]),
        (end_by_client, "headers", [("reset", 1, 5)]),
        (end, "data", [goaway(5, last=1)]),
        (end, "headers", [goaway(5, last=1)]),
    ],
)
def test_frames_on_a_stream_that_has_ended(
    ended: Any, what: str, seen: list[tuple[Any, ...]]
) -> None:
    """What was under way is let go; what cannot have been is a fault (RFC 9113 section 5.1)."""
    rig = StreamRig()
    ended(rig)
    rig.frames()
    rig.feed(LATE[what](rig))
    assert rig.seen() == seen


@pytest.mark.parametrize("number", [2, 7])
@pytest.mark.parametrize("what", ["data", "window", "reset"])
def test_frames_on_a_stream_that_has_not_begun(what: str, number: int) -> None:
    """They are a fault of the connection."""
    rig = StreamRig()
    rig.ask(5)
    frame = {"data": rig.data(number, b"x"), "window": window(number, 1)}
    rig.feed(frame.get(what, raw(3, number, RESET)))
    assert rig.seen() == [goaway(1, last=5)]


@pytest.mark.parametrize("what", ["data", "headers"])
def test_frames_behind_the_end_of_a_request(what: str) -> None:
    """They end the stream while it is being answered."""
    rig = StreamRig()
    request = rig.ask()
    rig.feed(rig.data(1, b"x") if what == "data" else rig.headers(1, [("a", "b")]))
    assert rig.seen() == [("reset", 1, 5)]
    assert request.gone


def test_ends_are_not_remembered_for_ever() -> None:
    """A thousand streams later nobody sends anything that was under way."""
    rig = StreamRig(max_resets=0)
    for number in range(1, 2005, 2):
        rig.ask(number)
        rig.answer(number)
    assert len(rig.codec._ends) == 1000


# -- resets --


def test_resets_are_limited() -> None:
    """--http2-max-resets, CVE-2023-44487: the applications hear it, the connection ends."""
    rig = StreamRig(max_resets=5)
    for number in range(1, 15, 2):
        rig.feed(rig.headers(number) + raw(3, number, RESET))
    assert rig.seen() == [goaway(11, last=11)]
    assert "--http2-max-resets" in rig.handler.faults[0].rule
    assert all(request.gone for request in rig.handler.requests.values())


@pytest.mark.parametrize(
    "provoke",
    [
        lambda _, number: window(number, 0),
        lambda _, number: window(number, 2**31 - 1),
        lambda rig, number: rig.data(number, b"x"),
        lambda rig, number: rig.headers(number, [("a", "b")]),
        lambda _, number: raw(2, number, bytes(4)),
    ],
)
def test_resets_that_are_provoked_are_limited(provoke: Any) -> None:
    """The same limit, CVE-2025-8671: it does not matter whose frame it is."""
    rig = StreamRig(max_resets=5)
    for number in range(1, 15, 2):
        rig.feed(rig.headers(number) + provoke(rig, number))
    assert rig.seen()[-1] == goaway(11, last=11)


# -- frames that carry nothing --


@pytest.mark.parametrize(
    "frame",
    [
        raw(4, 0),
        raw(4, 0, b"", 1),
        raw(6, 0, bytes(8)),
        raw(6, 0, bytes(8), 1),
        raw(2, 1, bytes(5)),
        raw(8, 0, b"\0\0\0\1"),
        raw(8, 1, b"\0\0\0\1"),
        raw(0, 1),
        raw(16, 0, b"\0\0\0\1"),
        raw(99, 0),
    ],
)
def test_frames_that_carry_nothing_are_limited(frame: bytes) -> None:
    """--http2-max-control-frames, CVE-2019-9511 to -9518."""
    rig = StreamRig(max_control_frames=20)
    rig.post()
    rig.feed(frame * 30)
    assert rig.seen()[-1] == goaway(11, last=1)
    assert "--http2-max-control-frames" in rig.handler.faults[0].rule


# -- the client's windows and settings --


def test_the_client_opens_windows() -> None:
    """Of a stream, or of the connection."""
    rig = StreamRig(settings={4: 2})
    rig.ask()
    rig.answer(1, b"12345")
    assert rig.seen() == [("headers", 1, "200"), ("data", 1, b"12")]
    rig.feed(window(1, 2))
    assert rig.seen() == [("data", 1, b"34")]
    rig.feed(raw(4, 0, b"\0\4\0\0\0\3"))
    assert ("data", 1, b"5", "end") in rig.seen()


def test_the_connection_s_window_is_shared() -> None:
    """It opens for all."""
    rig = StreamRig(settings={4: 2**20})
    rig.ask()
    rig.answer(1, bytes(65_536))
    assert sum(len(each[2]) for each in rig.seen()[1:]) == 65_535
    rig.feed(window(0, 1))
    assert rig.seen() == [("data", 1, b"\0", "end")]


def test_windows_can_shrink() -> None:
    """Below zero, too (RFC 9113 section 6.9.2)."""
    rig = StreamRig(settings={4: 10})
    rig.ask()
    rig.answer(1, bytes(20), more=True)
    rig.frames()
    rig.feed(raw(4, 0, b"\0\4\0\0\0\0"), window(1, 10))
    assert rig.seen() == [("ack",)]
    rig.feed(window(1, 3))
    assert rig.seen() == [("data", 1, b"\0\0\0")]


@pytest.mark.parametrize(
    ("frame", "seen"),
    [
        (window(0, 0), goaway(1, last=1)),
        (window(0, 2**31 - 1), goaway(3, last=1)),
        (window(1, 0), ("reset", 1, 1)),
        (window(1, 2**31 - 1), ("reset", 1, 3)),
        (window(1, 2**31 - 1 - 65535) + raw(4, 0, b"\0\4\0\1\0\0"), goaway(3, last=1)),
        (raw(4, 0, b"\0\4\xff\xff\xff\xff"), goaway(3, last=1)),
        (raw(4, 0, b"\0\2\0\0\0\2"), goaway(1, last=1)),
    ],
)
def test_windows_and_settings_have_their_range(frame: bytes, seen: tuple[Any, ...]) -> None:
    """A stream's concerns the stream, a setting the connection."""
    rig = StreamRig()
    rig.ask()
    rig.feed(frame)
    assert rig.seen() == [seen]


def test_the_client_s_table_is_kept_to() -> None:
    """SETTINGS_HEADER_TABLE_SIZE: the next block says that it was heard."""
    rig = StreamRig(settings={1: 0, 250: 7})
    rig.ask()
    rig.answer(1, headers=[(b"x", b"y")])
    (frame,) = rig.frames()
    assert frame.data[0] == 0x20


def test_settings_that_are_said_again_and_again() -> None:
    """A frame of them costs what one of them does: the last one counts."""
    rig = StreamRig()
    rig.ask()
    rig.feed(raw(4, 0, b"\0\4\0\0\0\0" * 2000 + b"\0\4\0\0\0\1"))
    rig.answer(1, b"xy", more=True)
    assert rig.seen()[-1] == ("data", 1, b"x")


def test_frames_that_go_nowhere_are_limited() -> None:
    """On streams that have ended, or will not be processed."""
    rig = StreamRig(max_control_frames=20)
    end_by_us(rig)
    rig.feed(rig.headers(1) * 30)
    assert rig.seen()[-1] == goaway(11, last=1)
    rig = StreamRig(max_control_frames=20)
    rig.ask()
    rig.codec.drain()
    rig.codec.expire(rig.port.time + 1)
    rig.feed(*(rig.headers(number) for number in range(3, 70, 2)))
    assert rig.handler.faults[0].code == 11


def test_pings_are_answered() -> None:
    """With what they carry."""
    rig = StreamRig()
    rig.feed(raw(6, 0, b"12345678"))
    assert rig.seen() == [("pong", b"12345678")]


# -- priorities --


def test_priorities_are_heard() -> None:
    """From the head, before the head, and later."""
    rig = StreamRig(settings={4: 0})
    rig.feed(raw(16, 0, b"\0\0\0\3u=1,i"))
    rig.ask(1, [*GET, ("priority", "u=5")])
    rig.ask(3)
    rig.ask(5)
    rig.feed(raw(16, 0, b"\0\0\0\5u=0"))
    streams = rig.handler.streams.values()
    assert [(each.urgency, each.shares) for each in streams] == [(5, False), (1, True), (0, False)]


def test_priorities_of_streams_to_come_are_bounded() -> None:
    """There cannot be more of them than streams."""
    rig = StreamRig(max_streams=2)
    rig.feed(*(raw(16, 0, number.to_bytes(4) + b"u=1") for number in (5, 7, 9)))
    assert sorted(rig.codec._priorities) == [5, 7]


# -- WebSockets --


def test_a_handshake_opens_a_tunnel() -> None:
    """RFC 8441."""
    rig = StreamRig()
    rig.feed(rig.headers(1, CONNECT, end=False))
    assert rig.handler.tunnels == list(rig.codec.tunnels.values())
    rig.feed(raw(3, 1, RESET))
    assert rig.codec.tunnels == {}


def test_no_handshake_while_too_many_run() -> None:
    """It is answered as a request would be."""
    rig = StreamRig()
    rig.handler.overloaded = Refused(503, "--max-inflight")
    rig.feed(rig.headers(1, CONNECT, end=False))
    assert rig.seen()[0] == ("headers", 1, "503")
    assert rig.handler.tunnels == []


def test_who_is_turned_away_may_have_sent_on() -> None:
    """Frames of a WebSocket that is not opened go nowhere, and the end ends the stream."""
    rig = StreamRig()
    rig.handler.overloaded = Refused(503, "--max-inflight")
    rig.feed(rig.headers(1, CONNECT, end=False))
    rig.seen()
    rig.feed(rig.data(1, b"he", end=False))
    assert 1 in rig.codec.streams
    rig.feed(rig.data(1, b"", end=True))
    assert (rig.seen(), rig.codec.streams) == ([], {})


def test_no_handshake_while_the_worker_leaves() -> None:
    """But the first of a connection is taken: its client could not know."""
    rig = StreamRig()
    rig.port.worker.draining = True
    rig.feed(rig.headers(1, CONNECT, end=False))
    assert len(rig.handler.tunnels) == 1
    rig.feed(rig.headers(3, CONNECT, end=False))
    assert rig.seen()[0] == ("headers", 3, "503")
    assert rig.handler.refusals[0].status == 503


def test_a_tunnel_has_no_trailers() -> None:
    """What is not DATA on it ends it."""
    rig = StreamRig()
    rig.feed(rig.headers(1, CONNECT, end=False), rig.headers(1, [("a", "b")]))
    assert rig.seen() == [("reset", 1, 1)]


def test_a_fault_on_a_stream_that_we_have_reset() -> None:
    """It is counted, and not answered again."""
    rig = StreamRig(max_resets=3)
    end_by_us(rig)
    rig.frames()
    rig.feed(raw(2, 1, bytes(4)), raw(2, 1, bytes(4)))
    assert rig.seen() == []
    rig.feed(raw(2, 1, bytes(4)) * 2)
    assert rig.seen() == [goaway(11, last=1)]


@pytest.mark.parametrize("number", [4, 9])
def test_a_fault_on_a_stream_that_has_not_begun(number: int) -> None:
    """There is nothing to reset: the connection ends, with the same code."""
    rig = StreamRig()
    rig.ask(5)
    rig.feed(raw(2, number, bytes(4)))
    assert rig.seen() == [goaway(6, last=5)]


def test_refusals_are_limited() -> None:
    """Each is a line of the log: whoever goes on is told to calm down."""
    rig = StreamRig(max_resets=3)
    wrong = [*GET, ("expect", "x")]
    rig.feed(*(rig.headers(number, wrong) for number in range(1, 15, 2)))
    assert rig.seen()[-1] == goaway(11, last=7)
    assert len(rig.handler.refusals) == 4


def test_bodies_that_are_refused_are_counted() -> None:
    """Each has cost a call and a line of the log."""
    rig = StreamRig(Http(max_body_size=3), max_resets=1)
    for number in (1, 3):
        rig.post(number)
        rig.feed(rig.data(number, b"more"))
    assert rig.seen()[-1] == goaway(11, last=3)


def test_priorities_of_streams_that_never_came_make_room() -> None:
    """Or those to come would be served as if nothing had been said."""
    rig = StreamRig(max_streams=1)
    rig.feed(raw(16, 0, (1).to_bytes(4) + b"u=1"), raw(16, 0, (3).to_bytes(4) + b"u=1"))
    rig.ask(5)
    rig.answer(5)
    rig.feed(raw(16, 0, (7).to_bytes(4) + b"u=2"), raw(16, 0, (9).to_bytes(4) + b"u=2"))
    rig.ask(7)
    assert rig.handler.streams[7].urgency == 2


def test_a_body_that_its_head_has_denied_has_no_other_end() -> None:
    """Content-Length: 0, and END_STREAM behind it: the exchange knows from the head already."""
    rig = StreamRig()
    request = rig.post(1, [*POST, ("content-length", "0")])
    assert request.ended
    rig.feed(rig.data(1, end=True))  # the fake would fail if it were told
    rig.answer(1)
    assert rig.seen() == [("headers", 1, "200", "end")]
