"""Responses as they leave: heads, bodies, trailers, and the ends of streams."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.streams import CONNECT, GET, StreamRig


def test_a_small_response() -> None:
    """Head and body in one turn; nothing is left of the stream."""
    rig = StreamRig()
    rig.ask()
    rig.answer(1, b"body")
    assert rig.seen() == [("headers", 1, "200"), ("data", 1, b"body", "end")]
    assert rig.codec.streams == {}
    assert len(rig.port.writes) == 2  # how it began, and this


def test_an_empty_response_ends_with_its_head() -> None:
    """No DATA frame for nothing."""
    rig = StreamRig()
    rig.ask()
    rig.answer(1)
    assert rig.seen() == [("headers", 1, "200", "end")]


@pytest.mark.parametrize("more", [False, True])
def test_a_head_has_no_body(*, more: bool) -> None:
    """Whatever the application sends."""
    rig = StreamRig()
    rig.ask(1, [(":method", "HEAD"), *GET[1:]])
    rig.answer(1, b"body", more=more)
    if more:
        rig.codec.send(1, b"more", more=True)
        rig.codec.send(1, b"", more=False)
        rig.breathe()
        assert rig.seen() == [("headers", 1, "200"), ("data", 1, b"", "end")]
    else:
        assert rig.seen() == [("headers", 1, "200", "end")]


def test_a_body_in_pieces() -> None:
    """Nothing is sent for an empty piece in the middle."""
    rig = StreamRig()
    rig.ask()
    rig.answer(1, b"a", more=True)
    rig.codec.send(1, b"", more=True)
    rig.codec.send(1, b"b", more=True)
    rig.codec.send(1, b"", more=False)
    rig.breathe()
    assert rig.seen() == [
        ("headers", 1, "200"),
        ("data", 1, b"a"),
        ("data", 1, b"b"),
        ("data", 1, b"", "end"),
    ]


LENGTH = [(b"content-length", b"3")]


def test_a_body_is_held_to_its_length() -> None:
    """What is more is not sent, and the application is told."""
    rig = StreamRig()
    rig.ask()
    with pytest.raises(ValueError, match="more than its Content-Length"):
        rig.answer(1, b"1234", headers=LENGTH)
    rig.answer(1, b"12", headers=LENGTH, more=True)
    with pytest.raises(ValueError, match="more than its Content-Length"):
        rig.codec.send(1, b"34", more=False)
    rig.codec.send(1, b"3", more=False)
    rig.breathe()
    assert rig.seen()[-1] == ("data", 1, b"3", "end")


@pytest.mark.parametrize("way", ["at once", "later", "empty", "trailers"])
def test_a_body_that_falls_short_is_no_whole_one(way: str) -> None:
    """The stream is reset, so that the client does not take it for one."""
    rig = StreamRig()
    rig.ask()
    if way == "at once":
        rig.answer(1, b"12", headers=LENGTH)
    elif way == "empty":
        rig.answer(1, b"", headers=LENGTH)
    else:
        rig.answer(1, b"12", headers=LENGTH, more=True)
        if way == "later":
            rig.codec.send(1, b"", more=False)
        else:
            rig.codec.trailers(1, [])
    rig.breathe()
    assert rig.seen()[-1] == ("reset", 1, 2)
    assert not any("end" in each for each in rig.seen())


def test_a_body_that_falls_short_behind_what_waits() -> None:
    """What waits is not sent."""
    rig = StreamRig(settings={4: 1})
    rig.ask()
    rig.answer(1, b"12", headers=LENGTH, more=True)
    rig.codec.send(1, b"", more=False)
    rig.breathe()
    assert rig.seen()[-1] == ("reset", 1, 2)


def test_trailers_end_a_response() -> None:
    """Behind the body."""
    rig = StreamRig()
    rig.ask()
    rig.answer(1, b"x", more=True)
    with pytest.raises(ValueError, match="cannot stand in trailers"):
        rig.codec.trailers(1, [(b"content-type", b"x")])
    rig.codec.trailers(1, [(b"X-Sum", b"1")])
    rig.breathe()
    assert rig.seen()[1:] == [("data", 1, b"x"), ("headers", 1, {"x-sum": "1"}, "end")]


def test_interim_responses() -> None:
    """Before the response, as many as there are."""
    rig = StreamRig()
    rig.ask()
    rig.codec.inform(1, 103, [(b"link", b"</a>")])
    rig.codec.inform(1, 103, [(b"link", b"</b>")])
    rig.answer(1)
    assert [each[2] for each in rig.seen()] == ["103", "103", "200"]


def test_a_client_that_waits_is_asked() -> None:
    """While there is something to ask for."""
    rig = StreamRig()
    rig.post()
    rig.codec.proceed(1)
    rig.breathe()
    assert rig.seen() == [("headers", 1, "100")]
    rig.handler.streams[1].pace = None  # of a refused one there is none
    rig.codec.proceed(1)
    rig.breathe()
    assert rig.seen() == [("headers", 1, "100")]
    rig.answer(1, b"x", more=True)
    rig.codec.proceed(1)
    rig.codec.proceed(3)
    rig.ask(5)
    rig.codec.proceed(5)
    rig.breathe()
    assert rig.seen() == [("headers", 1, "200"), ("data", 1, b"x")]


def test_a_request_that_is_answered_early_may_stop() -> None:
    """RFC 9113 section 8.1: RST_STREAM with NO_ERROR behind a complete response."""
    rig = StreamRig()
    rig.post()
    rig.answer(1, b"no")
    assert rig.seen()[-1] == ("reset", 1, 0)


def test_a_response_that_cannot_go_on() -> None:
    """It is cut."""
    rig = StreamRig()
    rig.ask()
    rig.answer(1, b"x", more=True)
    rig.codec.give_up(1)
    rig.breathe()
    assert rig.seen()[-1] == ("reset", 1, 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda codec: codec.respond(1, 200, [], b"", more=False),
        lambda codec: codec.send(1, b"", more=False),
        lambda codec: codec.trailers(1, []),
        lambda codec: codec.inform(1, 103, []),
        lambda codec: codec.give_up(1),
    ],
)
@pytest.mark.parametrize("waits", [False, True])
def test_who_is_answered_is_not_answered_again(call: Any, *, waits: bool) -> None:
    """Whether the client has it all or not: it is our bug."""
    rig = StreamRig(settings={4: 0 if waits else 9})
    rig.ask()
    rig.answer(1, b"x")
    with pytest.raises(RuntimeError, match="not being answered"):
        call(rig.codec)


def test_a_reset_throws_away_what_waits() -> None:
    """The client does not want it."""
    rig = StreamRig(settings={4: 1})
    rig.ask()
    rig.answer(1, b"123")
    rig.frames()
    rig.feed(b"\0\0\4\3\0\0\0\0\1\0\0\0\x08\0\0\4\x08\0\0\0\0\1\0\0\0\x08")
    assert rig.seen() == []
    assert rig.codec.streams == {}


def test_a_window_opens_while_a_stream_is_reset() -> None:
    """A stream that waits its turn is taken out of the queue when it ends."""
    rig = StreamRig()
    rig.ask()
    rig.port.congested = True
    rig.answer(1, b"123")
    rig.codec.receive(b"\0\0\4\3\0\0\0\0\1\0\0\0\x08")
    rig.port.congested = False
    rig.codec.relieved()
    rig.breathe()
    assert [each[0] for each in rig.seen()] == ["headers"]


def test_a_handshake_that_is_denied_waits_for_its_client() -> None:
    """The client ends its side, or is given up."""
    rig = StreamRig()
    rig.feed(rig.headers(1, CONNECT, end=False))
    rig.handler.tunnels[0].answer(403, [], b"no", more=False)
    rig.breathe()
    assert rig.seen() == [("headers", 1, "403"), ("data", 1, b"no", "end")]
    assert rig.codec.deadline == rig.port.time + 2
    rig.codec.expire(rig.port.time + 2)
    rig.breathe()
    assert rig.seen() == [("reset", 1, 8)]
