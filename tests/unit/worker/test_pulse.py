"""What time does to a WebSocket: answers awaited, pings, age."""

from __future__ import annotations

import math

import pytest

from daphne_supervisor.config import WebSocket as Limits
from daphne_supervisor.worker.pulse import CLOSE_TIMEOUT, Phase
from daphne_supervisor.worker.websocket import WebSocket
from tests.support.transports import Listener, Port, frame, handshake, opened

TEXT, PING, PONG = 1, 9, 10

CALM = Limits(websocket_timeout=-1, connect_timeout=0, ping_interval=0, ping_timeout=0)


def connecting(limits: Limits) -> tuple[WebSocket, Port, Listener]:
    """Return a codec whose handshake is not answered."""
    port, listener = Port(), Listener()
    websocket = WebSocket(port, handshake(), b"", limits)
    websocket.attach(listener)
    return websocket, port, listener


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


def test_a_ping_is_answered_at_once() -> None:
    """With what it said (RFC 6455 section 5.5.3); one of no bytes too."""
    websocket, port, listener = opened(CALM)
    websocket.receive(frame(PING, b"?") + frame(PING) + frame(PING, bytes(125)))
    assert port.take() == b"\x8a\x01?\x8a\x00\x8a\x7d" + bytes(125)
    assert (listener.messages, websocket.deadline) == ([], math.inf)


def test_a_peer_that_pings_and_does_not_read_has_one_answer() -> None:
    """To its last ping, once it reads: RFC 6455 section 5.5.3 allows it, and memory asks for it."""
    websocket, port, _ = opened(CALM)
    port.congested = True
    websocket.receive(frame(PING, b"1") + frame(PING, b"2"))
    websocket.expire(port.time + 1)
    assert (port.sent, websocket.deadline) == (b"", math.inf)
    port.congested = False
    websocket.relieved()
    assert port.take() == b"\x8a\x012"
    websocket.relieved()
    assert port.sent == b""


def test_an_answer_that_would_wait_again_is_not_forgotten() -> None:
    """A peer may fall back before its turn has come; a later ping takes the place of the first."""
    websocket, port, _ = opened(CALM)
    port.congested = True
    websocket.receive(frame(PING, b"1"))
    websocket.relieved()
    assert port.sent == b""
    websocket.receive(frame(PING))
    port.congested = False
    websocket.relieved()
    assert port.take() == b"\x8a\x00"


def test_an_answer_that_is_owed_does_not_hide_what_else_is_due() -> None:
    """The peer is not watched more often than any other that does not read."""
    websocket, port, _ = opened(Limits(websocket_timeout=-1, ping_interval=20, ping_timeout=30))
    port.congested = True
    websocket.receive(frame(PING))
    websocket.expire(port.time + 20)
    assert (port.sent, websocket.deadline) == (b"", port.time + 40)


def test_nothing_is_answered_behind_our_close_frame() -> None:
    """It is the last frame that we send (RFC 6455 section 5.5.1)."""
    websocket, port, _ = opened(CALM)
    websocket.close(1000, "")
    port.take()
    websocket.receive(frame(PING, b"?"))
    assert port.sent == b""


def test_nothing_owed_is_answered_behind_our_close_frame() -> None:
    """Nor what a peer that reads again has asked before."""
    websocket, port, _ = opened(CALM)
    port.congested = True
    websocket.receive(frame(PING, b"?"))
    websocket.close(1000, "")
    port.take()
    port.congested = False
    websocket.relieved()
    assert port.sent == b""
