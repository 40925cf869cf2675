"""A WebSocket on a stream: its port, and its handshake."""

from __future__ import annotations

from typing import Any

import pytest

from daphne_supervisor.config import WebSocket as Limits
from daphne_supervisor.worker.http2_tunnel import StreamWebSocket, Tunnel
from daphne_supervisor.worker.websocket import Phase
from tests.support.streams import CONNECT, StreamRig, raw
from tests.support.transports import Listener, frame

RESET = raw(3, 1, b"\0\0\0\x08")


class Rig(StreamRig):
    """A WebSocket on stream 1, whose exchange remembers."""

    def __init__(self, *fields: tuple[str, str], limits: Limits | None = None, **more: Any) -> None:
        """Shake hands with `fields`, so that the server has to answer."""
        super().__init__(**more)
        self.feed(self.headers(1, [*CONNECT, *fields], end=False))
        self.tunnel: Tunnel = self.handler.tunnels[0]
        self.exchange = Listener()
        self.socket = StreamWebSocket(self.tunnel, self.tunnel.head, limits or Limits())
        self.socket.attach(self.exchange)
        self.tunnel.socket = self.socket

    def accepted(self) -> Rig:
        """Return it with an open WebSocket."""
        self.socket.accept(None, [])
        self.socket.catch_up()
        self.breathe()
        assert self.seen() == [("headers", 1, "200")]
        return self

    def say(self, data: bytes, *, end: bool = False) -> None:
        """Let the client send frames."""
        self.feed(self.data(1, data, end=end))

    def now(self) -> list[tuple[Any, ...]]:
        """Return what is sent, when everything due is done."""
        self.breathe()
        return self.seen()


# -- the handshake --


def test_the_answer_is_200() -> None:
    """Without the proof and the upgrade of HTTP/1.1 (RFC 8441 section 5)."""
    rig = Rig(
        ("sec-websocket-protocol", "wamp"), ("sec-websocket-extensions", "permessage-deflate")
    )
    rig.socket.accept("wamp", [(b"X-Own", b"1")])
    rig.breathe()
    (head,) = rig.frames()
    assert "END_STREAM" not in head.flags
    assert [name for name, _ in head.fields][:3] == [":status", "sec-websocket-protocol", "x-own"]


def test_compression_is_agreed_on() -> None:
    """The same offer has the same answer."""
    rig = Rig(("sec-websocket-extensions", "permessage-deflate"), limits=Limits(compression=True))
    rig.socket.accept(None, [])
    rig.breathe()
    (head,) = rig.frames()
    assert dict(head.fields)["sec-websocket-extensions"].startswith("permessage-deflate")


@pytest.mark.parametrize(
    "header",
    [(b"Sec-WebSocket-Accept", b"x"), (b"Upgrade", b"x"), (b"a", b"\n"), (b"a", "b"), 5, b"", ()],
)
def test_the_handshake_s_headers_are_checked(header: Any) -> None:
    """Nothing is sent for one that is the server's, or none; it may be tried again."""
    rig = Rig()
    with pytest.raises(ValueError):  # noqa: PT011 - the words are each rule's own
        rig.socket.accept(None, [header])
    rig.accepted()


@pytest.mark.parametrize("more", [False, True])
def test_a_denial_is_a_response(*, more: bool) -> None:
    """In one piece or in several; the WebSocket is over with it."""
    rig = Rig()
    rig.socket.deny(403, [(b"x", b"y")], b"no", more=more)
    if more:
        assert rig.socket.phase is Phase.DENYING
        rig.socket.deny_further(b"nay", more=True)
        rig.socket.deny_further(b"", more=False)
    assert rig.socket.phase is Phase.CLOSED
    head, *rest = rig.now()
    assert head == ("headers", 1, "403")
    assert b"".join(each[2] for each in rest) == (b"nonay" if more else b"no")
    assert rest[-1][-1] == "end"
    rig.say(b"", end=True)
    assert rig.now() == []
    assert rig.codec.streams == {}


def test_a_denial_that_cannot_be_sent() -> None:
    """Nothing is sent, and it may be tried again."""
    rig = Rig()
    with pytest.raises(ValueError, match="not a final"):
        rig.socket.deny(100, [], b"", more=False)
    assert rig.socket.phase is Phase.CONNECTING


# -- messages --


def test_messages_go_both_ways() -> None:
    """As frames in DATA, in any slicing."""
    rig = Rig().accepted()
    message = frame(1, b"hello")
    rig.say(message[:3])
    rig.say(message[3:] + frame(2, b"\0"))
    assert rig.exchange.messages == ["hello", b"\0"]
    rig.socket.send(b"you", text=True)
    rig.socket.send(bytes(20_000), text=False)
    sent = b"".join(each[2] for each in rig.now())
    assert sent == b"\x81\x03you" + b"\x82\x7e" + (20_000).to_bytes(2) + bytes(20_000)


def test_frames_before_the_answer_wait() -> None:
    """As on a connection of its own."""
    rig = Rig()
    rig.say(frame(1, b"early"))
    assert rig.exchange.messages == []
    rig.socket.accept(None, [])
    rig.socket.catch_up()
    assert rig.exchange.messages == ["early"]


def test_a_client_that_takes_nothing_makes_wait() -> None:
    """The stream's window is the WebSocket's; a ping is answered when it opens."""
    rig = Rig(settings={4: 5}).accepted()
    rig.socket.send(b"hello", text=True)
    assert rig.now() == [("data", 1, b"\x81\x05hel")]
    assert rig.tunnel.congested
    rig.say(frame(9, b"?"))
    assert rig.now() == []
    rig.feed(raw(8, 1, (100).to_bytes(4)))
    assert rig.seen() == [("data", 1, b"lo"), ("data", 1, b"\x8a\x01?")]


def test_a_websocket_that_ends_while_it_catches_up() -> None:
    """It is not told that there is room."""
    rig = Rig(settings={4: 5}).accepted()
    rig.socket.send(b"hello", text=True)
    rig.now()
    rig.codec.receive(raw(8, 1, (100).to_bytes(4)))
    rig.port.due.pop(0)()
    rig.codec.receive(RESET)
    rig.breathe()
    assert rig.exchange.ends == [(1006, "")]


def test_who_sends_on_while_it_catches_up_still_waits() -> None:
    """The pong waits for the room that another message has taken."""
    rig = Rig(settings={4: 5}).accepted()
    rig.socket.send(b"hello", text=True)
    rig.now()
    rig.codec.receive(raw(8, 1, (2).to_bytes(4)))
    rig.port.due.pop(0)()
    rig.socket.send(b"again", text=True)
    assert rig.now() == [("data", 1, b"lo")]


def test_what_is_not_read_is_not_credited() -> None:
    """While reading pauses what arrives is held, and the window with it."""
    rig = Rig(stream_window=65_535).accepted()
    rig.tunnel.pause_reading()
    for _ in range(4):
        rig.say(frame(2, bytes(10_000)))
    assert rig.exchange.messages == []
    assert rig.now() == []
    rig.tunnel.resume_reading()
    rig.breathe()
    assert rig.exchange.messages == [bytes(10_000)] * 4
    assert {each[:2] for each in rig.seen()} == {("window", 1), ("window", 0)}


def test_a_pause_may_begin_again() -> None:
    """Before what was held has had its turn."""
    rig = Rig().accepted()
    rig.tunnel.pause_reading()
    rig.say(frame(1, b"a"), end=True)
    rig.tunnel.resume_reading()
    rig.tunnel.pause_reading()
    rig.breathe()
    assert rig.exchange.messages == []
    rig.tunnel.resume_reading()
    rig.breathe()
    assert rig.exchange.messages == ["a"]
    assert rig.exchange.ends == [(1006, "")]
    rig.tunnel.pause_reading()
    rig.tunnel.resume_reading()


# -- the end --


def test_the_closing_handshake() -> None:
    """Ours is complete with END_STREAM, and the client's with its own."""
    rig = Rig().accepted()
    rig.say(frame(8, b"\x03\xe8"))
    assert rig.now() == [("data", 1, b"\x88\x02\x03\xe8"), ("data", 1, b"", "end")]
    assert rig.exchange.ends == [(1000, "")]
    rig.say(b"", end=True)
    assert rig.now() == []
    assert rig.codec.streams == rig.codec.tunnels == {}


def test_a_client_that_just_ends_has_left() -> None:
    """As one that closes its connection."""
    rig = Rig().accepted()
    rig.say(frame(1, b"bye"), end=True)
    assert rig.exchange.messages == ["bye"]
    assert rig.exchange.ends == [(1006, "")]
    assert rig.now() == [("data", 1, b"", "end")]
    assert rig.codec.streams == {}


def test_a_client_that_ends_before_it_is_answered() -> None:
    """There is nobody to answer."""
    rig = Rig()
    rig.say(b"", end=True)
    assert rig.exchange.ends == [(1006, "")]
    assert rig.now() == [("reset", 1, 8)]


def test_a_client_that_ends_while_our_end_waits() -> None:
    """The stream is there until the window has let it out."""
    rig = Rig(settings={4: 5}).accepted()
    rig.say(frame(8, b"\x03\xe8why not"))
    assert len(rig.now()[0][2]) == 5
    rig.say(b"", end=True)
    rig.feed(raw(8, 1, (100).to_bytes(4)))
    assert rig.seen()[-1][-1] == "end"
    assert rig.codec.streams == {}


def test_a_client_that_breaks_a_rule() -> None:
    """It gets its close frame, and the end of our side; nothing more is read."""
    rig = Rig().accepted()
    rig.say(frame(1, b"\xff"))
    close, end = rig.now()
    assert close[2][2:4] == b"\x03\xef"
    assert end == ("data", 1, b"", "end")
    rig.say(frame(1, b"more"))
    assert rig.exchange.messages == []


@pytest.mark.parametrize("how", ["reset", "lost"])
def test_a_stream_that_is_gone(how: str) -> None:
    """The application hears it once."""
    rig = Rig().accepted()
    if how == "reset":
        rig.feed(RESET)
    else:
        rig.codec.lost()
    assert rig.exchange.ends == [(1006, "")]
    rig.tunnel.write(b"x")
    rig.tunnel.close()
    rig.tunnel.abort()
    rig.tunnel.resume_reading()
    assert rig.now() == []
    rig.tunnel.lost()


def test_an_abort_is_a_reset() -> None:
    """CANCEL."""
    rig = Rig().accepted()
    rig.socket.abort()
    assert rig.now() == [("reset", 1, 8)]


def test_frames_behind_our_end_go_nowhere() -> None:
    """A socket that is let go has nobody to tell."""
    rig = Rig().accepted()
    rig.tunnel.lost()
    rig.say(frame(1, b"x"))
    assert rig.exchange.messages == []


def test_the_worker_leaves() -> None:
    """1012, as on a connection of its own."""
    rig = Rig().accepted()
    rig.tunnel.drain()
    assert rig.now()[0][2][2:4] == b"\x03\xf4"
    rig.tunnel.socket = None
    rig.tunnel.drain()


def test_what_breaks_in_us_is_said() -> None:
    """An error of ours in a drain does not stop the drain."""
    rig = Rig().accepted()
    rig.tunnel.socket = 5  # type: ignore[assignment]
    with pytest.raises(AssertionError, match="an error of ours"):
        rig.tunnel.drain()


def test_it_is_a_port() -> None:
    """What a codec asks for of its connection the stream has, or passes on."""
    rig = Rig().accepted()
    tunnel = rig.tunnel
    assert (tunnel.now(), tunnel.worker) == (rig.port.time, rig.port.worker)
    done: list[int] = []
    tunnel.soon(lambda: done.append(1))
    tunnel.write_all([b"a", b"b"])
    assert [each[2] for each in rig.now()] == [b"a", b"b"]
    assert done == [1]


def test_nothing_comes_behind_an_end_that_is_held() -> None:
    """It is an end, though the application has not heard of it yet."""
    rig = Rig().accepted()
    rig.tunnel.pause_reading()
    rig.say(b"", end=True)
    rig.say(b"more")
    assert rig.now() == [("reset", 1, 5)]


def test_what_is_resumed_with_nothing_held_goes_on() -> None:
    """Twice in a turn, too."""
    rig = Rig().accepted()
    rig.tunnel.pause_reading()
    rig.say(frame(1, b"one"))
    rig.tunnel.resume_reading()
    rig.tunnel.resume_reading()
    rig.breathe()
    assert rig.exchange.messages == ["one"]


def test_the_answer_announces_no_length() -> None:
    """It would bind the messages: what was accepted has no body."""
    rig = Rig()
    rig.socket.accept(None, [(b"Content-Length", b"0")])
    rig.breathe()
    (head,) = rig.frames()
    assert "content-length" not in dict(head.fields)
