"""What leaves: in which order, in which pieces, when."""

from __future__ import annotations

from typing import Any

import pytest

from daphne_supervisor.worker.head import Head
from daphne_supervisor.worker.http2_fields import literal
from daphne_supervisor.worker.http2_frames import ConnectionFault
from daphne_supervisor.worker.http2_limits import Bucket
from daphne_supervisor.worker.http2_sender import Sender
from daphne_supervisor.worker.http2_stream import Stream
from tests.support.wire import FakePort


class Rig:
    """A sender, its port and its streams."""

    def __init__(self, window: int = 2**20) -> None:
        """Let the connection's window be `window`."""
        self.port = FakePort()
        self.control = Bucket(4, "", "")
        self.sender = Sender(self.port, self.control, 60)
        self.sender.window = window
        self.completed: list[int] = []
        self.sender.completed = lambda stream: self.completed.append(stream.id)
        self.sender.pack = lambda fields: b"".join(literal(*field) for field in fields)

    def stream(
        self, number: int, window: int = 2**20, priority: tuple[int, bool] | None = None
    ) -> Stream:
        """Return a stream."""
        head = Head("GET", "2")
        head.priority = priority
        return Stream(number, head, window, 0)

    def turn(self) -> None:
        """Let one turn of the loop go by."""
        due, self.port.due = self.port.due, []
        for call in due:
            call()

    def sent(self) -> list[tuple[int, int, int]]:
        """Return stream, size and flags of the frames sent since the last look; all turns go by."""
        while self.port.due:
            self.turn()
        return self.frames()

    def frames(self) -> list[tuple[int, int, int]]:
        """Return stream, size and flags of the frames sent since the last look."""
        data, frames = bytes(self.port.sent), []
        self.port.sent.clear()
        while data:
            size = int.from_bytes(data[:3])
            frames.append((int.from_bytes(data[5:9]), size, data[4]))
            data = data[9 + size :]
        return frames


def last(stream: Stream) -> Stream:
    """Note that what follows is the last piece."""
    stream.done = True
    return stream


def test_a_turn_is_one_write() -> None:
    """Whatever is produced in it."""
    rig = Rig()
    one, two = rig.stream(1), rig.stream(3)
    rig.sender.send(last(one), b"abc", b"\0\0\1\1\4\0\0\0\1h")
    rig.sender.send(last(two), b"defg", b"\0\0\1\1\4\0\0\0\3h")
    assert rig.port.writes == []
    assert rig.sent() == [(1, 1, 4), (1, 3, 1), (3, 1, 4), (3, 4, 1)]
    assert len(rig.port.writes) == 1
    assert rig.completed == [1, 3]
    assert (rig.sender.window, one.window) == (2**20 - 7, 2**20 - 3)
    rig.sender.flush()
    assert len(rig.port.writes) == 1


def test_an_end_takes_no_room() -> None:
    """It is sent whatever the windows are, and nothing is sent for nothing."""
    rig = Rig(window=0)
    one = rig.stream(1, window=-5)
    rig.sender.send(one, b"")
    assert rig.sent() == []
    rig.sender.send(last(one), b"")
    assert rig.sent() == [(1, 0, 1)]


@pytest.mark.parametrize("scope", ["stream", "connection"])
def test_a_body_waits_for_the_windows(scope: str) -> None:
    """What fits is sent; the rest when there is room, to the last byte."""
    rig = Rig(window=10 if scope == "connection" else 100)
    one = rig.stream(1, window=10 if scope == "stream" else 100)
    rig.sender.send(last(one), bytes(25))
    assert rig.sent() == [(1, 10, 0)]
    assert one.congested
    assert one.stalled_at == rig.sender.stall_by == rig.port.time + 60
    for room, frames in ((10, [(1, 10, 0)]), (10, [(1, 5, 1)])):
        if scope == "stream":
            one.window += room
            rig.sender.enqueue(one)
        else:
            rig.sender.window += room
            rig.sender.wake()
        assert rig.sent() == frames
    assert rig.completed == [1]
    assert not one.congested


def test_what_follows_waits_behind_it() -> None:
    """Pieces leave in the order in which they came, an end among them."""
    rig = Rig()
    one = rig.stream(1, window=5)
    rig.sender.send(one, b"1234567")
    rig.sender.send(one, b"89")
    rig.sender.send(last(one), b"")
    assert rig.sent() == [(1, 5, 0)]
    one.window += 3
    rig.sender.enqueue(one)
    assert rig.sent() == [(1, 2, 0), (1, 1, 0)]
    one.window += 1
    rig.sender.enqueue(one)
    assert rig.sent() == [(1, 1, 0), (1, 0, 1)]


def test_trailers_are_packed_when_they_leave() -> None:
    """Behind the body, or alone."""
    rig = Rig()
    for number, body in ((1, b"x"), (3, b"")):
        stream = rig.stream(number)
        stream.trailers = [(b"a", b"b")]
        rig.sender.send(last(stream), body)
    assert rig.sent() == [(1, 1, 0), (1, 5, 5), (3, 5, 5)]


def test_equals_that_share_take_turns() -> None:
    """A piece each; who came first begins."""
    rig = Rig()
    for number in (1, 3):
        rig.sender.send(last(rig.stream(number)), bytes(40_000))
    assert [stream for stream, _, _ in rig.sent()] == [1, 3, 1, 3, 1, 3]


def test_those_that_do_not_share_go_one_after_the_other() -> None:
    """Half of two things is worth less than one (RFC 9218 section 4.2)."""
    rig = Rig()
    for number in (1, 3):
        rig.sender.send(last(rig.stream(number, priority=(3, False))), bytes(40_000))
    assert [stream for stream, _, _ in rig.sent()] == [1, 1, 1, 3, 3, 3]


def test_the_more_urgent_goes_first() -> None:
    """As it was asked for, or is asked for later."""
    rig = Rig()
    streams = [rig.stream(number, priority=(urgency, True)) for number, urgency in ((1, 5), (3, 1))]
    for stream in streams:
        rig.sender.send(last(stream), bytes(20_000))
    assert [stream for stream, _, _ in rig.sent()] == [3, 3, 1, 1]
    one, other = rig.stream(5), rig.stream(7)
    for stream in (one, other):
        rig.sender.send(last(stream), bytes(20_000))
    rig.sender.prioritize(other, 0, shares=False)
    assert (other.urgency, other.shares) == (0, False)
    assert [stream for stream, _, _ in rig.sent()] == [7, 7, 5, 5]
    rig.sender.prioritize(other, 4, shares=True)
    assert rig.sent() == []


def test_who_waits_is_not_overtaken() -> None:
    """A small body of the same stream, or of another, waits its turn."""
    rig = Rig()
    rig.sender.send(last(rig.stream(1)), bytes(20_000))
    rig.sender.send(last(rig.stream(3)), b"x")
    assert rig.sent() == [(1, 16_384, 0), (3, 1, 1), (1, 3_616, 1)]


def test_a_turn_is_bounded() -> None:
    """So that other connections have theirs."""
    rig = Rig()
    rig.sender.send(last(rig.stream(1)), bytes(2**19))
    rig.turn()
    assert 2**18 <= sum(size for _, size, _ in rig.frames()) < 2**18 + 16_384
    assert sum(size for _, size, _ in rig.sent()) <= 2**18
    assert rig.completed == [1]


def test_a_connection_that_is_full_gets_no_more() -> None:
    """Not even within a turn; control frames still leave."""
    rig = Rig()
    rig.port.congested = True
    rig.sender.send(last(rig.stream(1)), b"x")
    rig.sender.put(b"\0\0\0\6\0\0\0\0\0")
    assert rig.sent() == [(0, 0, 0)]
    rig.port.congested = False
    rig.sender.wake()
    rig.sender.wake()
    assert rig.sent() == [(1, 1, 1)]


def test_small_bodies_are_counted_too() -> None:
    """What is collected in a turn has a bound, whatever it consists of."""
    rig = Rig()
    streams = [rig.stream(number) for number in range(1, 21, 2)]
    for stream in streams:
        rig.sender.send(last(stream), bytes(10_000))
    assert any(stream.congested for stream in streams)
    assert [size for _, size, _ in rig.sent()] == [10_000] * 10


def test_a_stream_can_be_forgotten() -> None:
    """Nothing more of it leaves, and nobody waits behind it."""
    rig = Rig()
    one = rig.stream(1)
    rig.sender.send(last(one), bytes(20_000))
    rig.sender.send(last(rig.stream(3)), bytes(20_000))
    rig.sender.forget(one)
    rig.sender.forget(one)
    assert {stream for stream, _, _ in rig.sent()} == {3}


def test_who_ends_in_its_turn_is_out() -> None:
    """The exchange of a stream that is complete may end others."""
    rig = Rig()
    one, two = rig.stream(1), rig.stream(3)

    def complete(stream: Stream) -> None:
        rig.completed.append(stream.id)
        rig.sender.forget(two)

    rig.sender.completed = complete
    rig.sender.send(last(one), bytes(16_385))
    rig.sender.send(last(two), bytes(40_000))
    assert [stream for stream, _, _ in rig.sent()] == [1, 3, 1]


def test_data_are_a_reason_for_window_updates() -> None:
    """A client that is sent much has much to acknowledge; one that is sent drops has not."""
    rig = Rig()
    for _ in range(4):
        rig.control.add(0.0)
    rig.sender.send(rig.stream(1), bytes(1024))
    rig.control.add(0.0)
    rig.control.add(0.0)
    rig.sender.send(rig.stream(3), bytes(1023))
    with pytest.raises(ConnectionFault):
        rig.control.add(0.0)


def test_without_a_write_timeout_nobody_is_watched() -> None:
    """0 is never."""
    rig = Rig()
    sender = Sender(rig.port, rig.control, 0)
    stream = rig.stream(1, window=0)
    sender.send(stream, b"x")
    assert stream.stalled_at == float("inf")


def test_nothing_is_sent_behind_the_end() -> None:
    """What was collected is thrown away."""
    rig = Rig()
    stream = rig.stream(1)
    rig.sender.send(last(stream), bytes(20_000))
    rig.sender.put(b"x")
    rig.sender.part()
    stranger: Any = None
    rig.sender.completed(stranger)
    assert rig.sent() == []
