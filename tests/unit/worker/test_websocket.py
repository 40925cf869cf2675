"""The codec of a WebSocket: frames in, messages out, and what time does to it."""

from __future__ import annotations

import math

import pytest

from daphne_supervisor.config import WebSocket as Limits
from daphne_supervisor.worker.websocket import CLOSE_TIMEOUT, Phase, WebSocket
from tests.support.transports import Listener, Port, frame, handshake, opened

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

CALM = Limits(websocket_timeout=-1, connect_timeout=0, ping_interval=0, ping_timeout=0)


def connecting(limits: Limits = CALM, early: bytes = b"") -> tuple[WebSocket, Port, Listener]:
    """Return a codec whose handshake is not answered."""
    port, listener = Port(), Listener()
    websocket = WebSocket(port, handshake(), early, limits)
    websocket.attach(listener)
    return websocket, port, listener


# -- the handshake --


def test_the_answer_proves_that_the_handshake_was_read() -> None:
    """The example of RFC 6455 section 1.3, with a subprotocol and a header of the application's."""
    websocket, port, _ = connecting()
    websocket.accept("soap", [(b"x-one", b"1")])
    assert websocket.phase is Phase.OPEN
    assert port.sent == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: soap\r\n"
        b"x-one: 1\r\n\r\n"
    )


def test_an_answer_that_cannot_be_sent_changes_nothing() -> None:
    """After a header with CR LF the handshake can still be denied."""
    websocket, port, _ = connecting()
    with pytest.raises(ValueError, match="x-one"):
        websocket.accept(None, [(b"x-one", b"1\r\nx-two: 2")])
    assert (websocket.phase, port.sent) == (Phase.CONNECTING, b"")


def test_frames_that_come_early_are_kept() -> None:
    """A client that does not wait for the answer loses nothing."""
    websocket, _, listener = connecting(early=frame(TEXT, b"one")[:4])
    websocket.receive(frame(TEXT, b"one")[4:] + frame(TEXT, b"two"))
    assert listener.messages == []
    websocket.accept(None, [])
    websocket.catch_up()
    assert listener.messages == ["one", "two"]


def test_a_client_that_floods_before_the_answer_is_dropped() -> None:
    """What waits for an application that does not answer is bounded."""
    websocket, port, listener = connecting()
    websocket.receive(bytes(65_536))
    assert port.end == ""
    websocket.receive(b"x")
    assert (port.end, listener.ends[0][0]) == ("abort", 1006)


def test_a_handshake_answered_while_the_worker_leaves_is_closed_at_once() -> None:
    """The client learns that it may come back, rather than lose its connection later."""
    websocket, port, listener = connecting(early=frame(TEXT, b"early"))
    port.closing_websockets = True
    websocket.accept(None, [])
    websocket.catch_up()
    assert port.sent.endswith(b"\x88\x11\x03\xf4service restart")
    assert (listener.messages, listener.ends) == ([], [(1012, "service restart")])


def test_a_denial_is_an_http_response() -> None:
    """Whole, with its length, and the end of the connection."""
    websocket, port, _ = connecting(early=b"x")
    websocket.deny(418, [(b"x-why", b"tea")], b"short", more=False)
    assert port.sent == (
        b"HTTP/1.1 418 I'm a Teapot\r\nx-why: tea\r\nContent-Length: 5\r\n"
        b"Connection: close\r\n\r\nshort"
    )
    assert (websocket.phase, port.end) == (Phase.CLOSED, "close")


def test_a_denial_may_come_in_pieces() -> None:
    """Each piece leaves at once; the last one ends the connection. What comes in is thrown away."""
    websocket, port, listener = connecting()
    websocket.deny(403, [], b"one", more=True)
    websocket.receive(frame(TEXT, b"hello?"))
    assert (port.take().split(b"\r\n\r\n")[1], websocket.phase) == (b"3\r\none\r\n", Phase.DENYING)
    websocket.deny_further(b"two", more=True)
    websocket.deny_further(b"", more=False)
    assert (port.sent, port.end) == (b"3\r\ntwo\r\n0\r\n\r\n", "close")
    assert listener.messages == []


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [(99, [], b""), (403, [(b"a b", b"")], b""), (403, [(b"content-length", b"1")], b"two")],
)
def test_a_denial_that_cannot_be_sent_changes_nothing(
    status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """There is never half a denial on the wire: another one can follow."""
    websocket, port, _ = connecting()
    with pytest.raises(ValueError, match=r"."):
        websocket.deny(status, headers, body, more=False)
    assert (websocket.phase, port.sent, port.end) == (Phase.CONNECTING, b"", "")


def test_the_application_has_so_long_to_answer() -> None:
    """The deadline is --websocket_connect_timeout; it is reported once."""
    websocket, port, listener = connecting(Limits(connect_timeout=5))
    assert websocket.deadline == port.time + 5
    websocket.expire(port.time + 5)
    assert (listener.expired, websocket.deadline) == (True, math.inf)


@pytest.mark.parametrize("patience", [0.0, -1.0])
def test_the_application_may_have_forever(patience: float) -> None:
    """0 and less mean no limit."""
    websocket, _, _ = connecting(Limits(connect_timeout=patience))
    assert websocket.deadline == math.inf


# -- messages in --


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 65_537, 300_000])
def test_a_message_of_any_size_arrives(size: int) -> None:
    """All three encodings of a length, in the lane and beyond it."""
    websocket, _, listener = opened(CALM)
    websocket.receive(frame(BINARY, b"x" * size) + frame(TEXT, b"next"))
    assert listener.messages == [b"x" * size, "next"]


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 8, 100])
def test_a_message_may_come_in_two_reads(cut: int) -> None:
    """Wherever the network cuts: in the header, in the mask, in the payload."""
    websocket, _, listener = opened(CALM)
    data = frame(TEXT, b"a" * 200)
    websocket.receive(data[:cut])
    assert listener.messages == []
    websocket.receive(data[cut:] + frame(BINARY, b"b"))
    assert listener.messages == ["a" * 200, b"b"]


def test_the_lane_is_left_for_fragments_and_found_again() -> None:
    """Before, in and after a fragmented message nothing is lost, whatever the reads are."""
    websocket, port, listener = opened(CALM)
    websocket.receive(frame(TEXT, b"1") + frame(TEXT, b"2", last=False))
    websocket.receive(frame(PING, b"?") + frame(0, b"3"))
    websocket.receive(frame(TEXT, b"4") + frame(PING, b"!") + frame(TEXT, b"5")[:3])
    websocket.receive(frame(TEXT, b"5")[3:])
    assert listener.messages == ["1", "23", "4", "5"]
    assert port.sent == b"\x8a\x01?\x8a\x01!"


def test_a_pong_is_no_message() -> None:
    """It only proves that the peer is there."""
    websocket, port, listener = opened(CALM)
    websocket.receive(frame(PONG, b"x") + frame(PONG))
    assert (listener.messages, port.sent, port.end) == ([], b"", "")


# -- messages out --


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, b"\x82\x00"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (16_385, b"\x82\x7e\x40\x01"),
        (65_535, b"\x82\x7e\xff\xff"),
        (65_536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_a_message_leaves_as_one_frame(size: int, header: bytes) -> None:
    """In the shortest form of its length (RFC 6455 section 5.2)."""
    websocket, port, _ = opened(CALM)
    websocket.send(b"x" * size, text=False)
    assert port.sent == header + b"x" * size


def test_text_is_marked_as_text() -> None:
    """The opcode tells text from bytes."""
    websocket, port, _ = opened(CALM)
    websocket.send("é".encode(), text=True)
    assert port.sent == b"\x81\x02\xc3\xa9"


# -- the end --


def test_the_peer_closes() -> None:
    """Its code and reason are told once, its frame is echoed, and we close first."""
    websocket, port, listener = opened(CALM)
    websocket.receive(frame(CLOSE, b"\x0f\xa0bye") + frame(TEXT, b"behind"))
    assert (listener.ends, listener.messages) == ([(4000, "bye")], [])
    assert (port.sent, port.end) == (b"\x88\x05\x0f\xa0bye", "close")
    websocket.lost()
    websocket.receive(frame(TEXT, b"x"))
    assert len(listener.ends) == 1


def test_a_peer_that_gives_no_code_gave_none() -> None:
    """1005 stands for "no code" (RFC 6455 section 7.1.5)."""
    websocket, _, listener = opened(CALM)
    websocket.receive(frame(CLOSE))
    assert listener.ends == [(1005, "")]


def test_we_close() -> None:
    """The end is told at once; messages on their way are thrown away; the answer ends it."""
    websocket, port, listener = opened(CALM)
    websocket.close(4001, "enough")
    assert (port.take(), listener.ends) == (b"\x88\x08\x0f\xa1enough", [(4001, "enough")])
    assert websocket.deadline == port.time + CLOSE_TIMEOUT
    websocket.close(4002, "again")
    websocket.receive(frame(TEXT, b"late") + frame(PING, b"?") + frame(CLOSE, b"\x0f\xa1enough"))
    assert (port.sent, port.end, listener.messages) == (b"", "close", [])
    assert (websocket.phase, websocket.deadline, len(listener.ends)) == (Phase.CLOSED, math.inf, 1)


def test_a_long_reason_is_cut_between_characters() -> None:
    """A control frame holds 125 bytes (RFC 6455 section 5.5), and text stays UTF-8."""
    websocket, port, _ = opened(CALM)
    websocket.close(1000, "x" + "é" * 100)
    assert port.sent[:4] == b"\x88\x7d\x03\xe8"
    assert port.sent[4:].decode() == "x" + "é" * 61


def test_both_close_at_the_same_time() -> None:
    """Each side's frame is taken for the answer to the other's."""
    websocket, port, listener = opened(CALM)
    websocket.close(1000, "")
    websocket.receive(frame(CLOSE, b"\x03\xe9"))
    assert (listener.ends, port.end) == ([(1000, "")], "close")


def test_a_peer_that_does_not_answer_our_close_is_cut_off() -> None:
    """The closing handshake has its time."""
    websocket, port, _ = opened(CALM)
    websocket.close(1000, "")
    websocket.expire(websocket.deadline)
    assert (port.end, websocket.phase) == ("abort", Phase.CLOSED)


def test_a_peer_that_still_takes_messages_is_not_cut_off() -> None:
    """Our close frame waits behind them; how long that may take is --write-timeout's to say."""
    websocket, port, _ = opened(CALM)
    websocket.close(1000, "")
    port.congested = True
    now = websocket.deadline
    websocket.expire(now)
    assert (port.end, websocket.deadline) == ("", now + CLOSE_TIMEOUT)


def test_a_violation_while_we_close_is_the_end() -> None:
    """There is nothing to wait for any more."""
    websocket, port, listener = opened(CALM)
    websocket.close(1000, "")
    websocket.receive(frame(TEXT, b"x", mask=None))
    assert (port.end, listener.ends) == ("close", [(1000, "")])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"x", mask=None), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xff", last=False), 1007),
        (b"\x8a\xfe\x00\x7e", 1002),
        (frame(CLOSE, b"\x03\xed"), 1002),
    ],
)
def test_a_violation_fails_the_connection(
    data: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """We say why, close our side, and listen no more; the log has one line."""
    caplog.set_level("INFO")
    websocket, port, listener = opened(CALM)
    websocket.receive(data + frame(CLOSE, b"\x03\xe8") + frame(TEXT, b"x"))
    websocket.receive(frame(TEXT, b"y") + b"\xff" * 100)
    assert port.sent[:1] == b"\x88"
    assert int.from_bytes(port.sent[2:4]) == code
    assert port.end == "shut"
    assert [end[0] for end in listener.ends] == [code]
    assert listener.messages == []
    assert websocket._machine is None, "what is thrown away would be kept"
    assert [f"closed {code}" in record.getMessage() for record in caplog.records] == [True]
    websocket.expire(websocket.deadline)
    assert websocket.phase is Phase.CLOSED


@pytest.mark.parametrize(
    "limits",
    [Limits(max_message_size=100, max_frame_size=0), Limits(max_message_size=0, max_frame_size=9)],
)
def test_a_message_too_large_names_the_options(
    limits: Limits, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever reads the log knows what to raise."""
    caplog.set_level("INFO")
    websocket, _, listener = opened(limits)
    websocket.receive(frame(BINARY, b"x" * 101))
    assert listener.ends[0][0] == 1009
    assert "--websocket-max-message-size, --websocket-max-frame-size" in caplog.text


def test_a_connection_that_is_lost_closed_abnormally() -> None:
    """1006 is never sent, only reported (RFC 6455 section 7.1.5)."""
    websocket, port, listener = opened(CALM)
    websocket.lost()
    assert (listener.ends, port.sent, port.end) == ([(1006, "")], b"", "")


def test_the_worker_leaves() -> None:
    """1012 tells a client to come back (IANA registry)."""
    websocket, port, listener = opened(CALM)
    websocket.drain()
    websocket.drain()
    assert listener.ends == [(1012, "service restart")]
    assert port.sent == b"\x88\x11\x03\xf4service restart"


# -- time --


def test_a_silent_peer_is_pinged_and_dropped() -> None:
    """After the interval a ping, after the timeout the end; the log names the option."""
    websocket, port, listener = opened(
        Limits(websocket_timeout=-1, ping_interval=20, ping_timeout=30)
    )
    assert websocket.deadline == port.time + 20
    websocket.expire(port.time + 20)
    assert (port.take(), websocket.deadline) == (b"\x89\x00", port.time + 50)
    websocket.expire(port.time + 49)
    assert (port.take(), port.end) == (b"", "")
    websocket.expire(port.time + 50)
    assert (port.end, listener.ends[0][0]) == ("abort", 1006)


def test_a_peer_that_speaks_is_not_pinged() -> None:
    """Whatever it sends proves that it is there."""
    websocket, port, _ = opened(Limits(websocket_timeout=-1, ping_interval=20, ping_timeout=30))
    begin = port.time
    port.time = begin + 19
    websocket.receive(frame(TEXT, b"x"))
    websocket.expire(begin + 20)
    assert (port.sent, websocket.deadline) == (b"", begin + 39)


def test_a_peer_that_answers_lives_on() -> None:
    """The next ping comes an interval after its pong."""
    websocket, port, _ = opened(Limits(websocket_timeout=-1, ping_interval=20, ping_timeout=30))
    begin = port.time
    websocket.expire(begin + 20)
    port.time = begin + 21
    websocket.receive(frame(PONG))
    websocket.expire(begin + 50)
    assert (port.take(), port.end) == (b"\x89\x00\x89\x00", "")


@pytest.mark.parametrize("why", ["paused", "congested"])
def test_a_peer_that_cannot_be_heard_is_not_dropped(why: str) -> None:
    """While the application reads nothing, a pong waits; while the peer is slow, our ping does."""
    websocket, port, listener = opened(
        Limits(websocket_timeout=-1, ping_interval=20, ping_timeout=30)
    )
    websocket.expire(port.time + 20)
    setattr(listener if why == "paused" else port, why, True)
    websocket.expire(port.time + 60)
    assert (port.end, websocket.deadline) == ("", port.time + 80)
    listener.paused = port.congested = False
    websocket.expire(port.time + 80)
    websocket.expire(port.time + 110)
    assert port.end == "abort"


def test_without_a_ping_timeout_a_silent_peer_is_kept() -> None:
    """0 keeps it; the ping alone keeps proxies awake."""
    websocket, port, _ = opened(Limits(websocket_timeout=-1, ping_interval=20, ping_timeout=0))
    websocket.expire(port.time + 20)
    assert (port.take(), websocket.deadline) == (b"\x89\x00", math.inf)


def test_a_websocket_has_an_age() -> None:
    """At --websocket_timeout it is closed in order, however lively it is."""
    websocket, port, listener = opened(Limits(websocket_timeout=60, ping_interval=0))
    assert websocket.deadline == port.time + 60
    websocket.expire(port.time + 60)
    assert listener.ends == [(1000, "")]
    assert port.end == ""


def test_without_limits_nothing_is_watched() -> None:
    """An idle connection asks for no attention."""
    assert opened(CALM)[0].deadline == math.inf


def test_an_abort_is_the_end() -> None:
    """Nothing is watched or heard behind it."""
    websocket, port, listener = opened(CALM)
    websocket.abort()
    websocket.lost()
    assert (port.end, websocket.deadline, listener.ends) == ("abort", math.inf, [])
