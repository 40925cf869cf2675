"""A connection of the broker's: real socketpairs, whose other end takes nothing if it should."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Self

import pytest

from daphne_supervisor.broker.connection import BUSY, EASED, Connection
from daphne_supervisor.broker.frames import ACK, LARGEST, frame
from daphne_supervisor.config import Channels

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = 100.0
LIMITS = Channels(max_unread=4 * BUSY, stuck_after=2.0)
PIECE = bytes(65536)


class Line:
    """A connection, and the process at its other end."""

    def __init__(self) -> None:
        """Connect."""
        near, self.far = socket.socketpair()
        near.setblocking(False)
        self.far.setblocking(False)
        self.wrote: list[Connection] = []
        self.connection = Connection(near, self.wrote.append, LIMITS)

    def __enter__(self) -> Self:
        """Be ready."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close both ends."""
        self.connection.sock.close()
        self.far.close()

    def fill(self, size: int) -> None:
        """Write until more than `size` bytes wait, which nobody takes."""
        while self.connection.waiting <= size:
            self.connection.write(PIECE)
            self.connection.flush()

    def drain(self) -> bytes:
        """Take all that there is."""
        taken = b""
        while True:
            self.connection.flush()
            try:
                taken += self.far.recv(1 << 20)
            except BlockingIOError:
                return taken


@pytest.fixture
def line() -> Iterator[Line]:
    """Yield a connection."""
    with Line() as found:
        yield found


def test_frames_arrive(line: Line) -> None:
    """Each as it was sent; while there is nothing, nothing."""
    assert line.connection.read() == []
    line.far.send(frame(ACK, 1) + frame(ACK, 2, b"x")[:5])
    assert line.connection.read() == [(ACK, 1, b"")]
    line.far.send(frame(ACK, 2, b"x")[5:])
    assert line.connection.read() == [(ACK, 2, b"x")]
    assert not line.connection.ended


def test_the_end_is_noted(line: Line) -> None:
    """An end of the connection is no error; what is written afterwards is dropped."""
    line.far.close()
    assert line.connection.read() == []
    assert line.connection.ended
    line.connection.write(b"nobody")
    assert line.wrote == []


def test_a_reset_is_an_end(line: Line) -> None:
    """A process that dies with unread frames resets the connection."""
    line.connection.write(frame(ACK))
    line.connection.flush()
    line.far.close()
    assert line.connection.read() == []
    assert line.connection.ended


def test_no_frame_is_an_error(line: Line) -> None:
    """It is for the caller to end such a connection."""
    line.far.send((LARGEST + 1).to_bytes(4, "little") + bytes(5))
    with pytest.raises(ValueError, match="a frame of"):
        line.connection.read()


def test_what_is_written_in_a_round_is_sent_together(line: Line) -> None:
    """The first frame says that there is something to send; nothing leaves before `flush`."""
    line.connection.write(b"one")
    line.connection.write(b"two")
    assert line.wrote == [line.connection]
    with pytest.raises(BlockingIOError):
        line.far.recv(10)
    line.connection.flush()
    assert line.far.recv(10) == b"onetwo"
    assert line.connection.waiting == 0
    line.connection.flush()


def test_what_the_kernel_does_not_take_waits_in_order(line: Line) -> None:
    """A write that is taken in part goes on where it stopped."""
    sent = b""
    for number in range(400):
        piece = number.to_bytes(2, "little") * 1000
        sent += piece
        line.connection.write(piece)
    line.connection.flush()
    assert line.connection.waiting > 0
    assert "bytes wait" in repr(line.connection)
    assert line.drain() == sent
    assert line.connection.waiting == 0


def test_a_peer_that_is_gone_ends_the_connection_when_it_is_written_to(line: Line) -> None:
    """What waits is dropped."""
    line.connection.write(b"nobody")
    line.far.close()
    line.connection.flush()
    assert line.connection.ended
    assert line.connection.waiting == 0


def test_much_that_waits_makes_it_busy_until_most_is_taken(line: Line) -> None:
    """Between the two marks it stays what it was, so that it does not flicker."""
    line.fill(EASED)
    assert not line.connection.judge(NOW)
    line.fill(BUSY)
    assert line.connection.busy
    assert line.connection.judge(NOW)
    while line.connection.waiting > EASED:
        assert line.connection.judge(NOW)
        line.far.recv(65536)
        line.connection.flush()
    assert not line.connection.judge(NOW)
    assert not line.connection.busy


def test_one_that_stays_busy_is_stuck_until_it_takes_something(line: Line) -> None:
    """After --channels-stuck-after nobody waits for it any more."""
    line.fill(BUSY)
    assert line.connection.judge(NOW)
    assert line.connection.judge(NOW + 1.99)
    assert not line.connection.judge(NOW + 2)
    assert line.connection.stuck == "leaves much unread for 2 s (--channels-stuck-after)"
    assert not line.connection.busy
    line.connection.write(b"an answer")
    assert line.connection.stuck
    assert not line.connection.judge(NOW + 10)
    line.drain()
    assert not line.connection.judge(NOW + 11)
    assert not line.connection.stuck


def test_far_too_much_makes_it_stuck_at_once(line: Line) -> None:
    """Memory is not given for a second's patience."""
    while line.connection.waiting <= LIMITS.max_unread:
        assert not line.connection.stuck
        line.connection.write(PIECE * 16)
    waiting = line.connection.waiting
    assert line.connection.stuck == f"leaves {waiting} bytes unread (--channels-max-unread)"
    assert not line.connection.busy
    line.connection.write(PIECE)
    assert f" {waiting} bytes" in line.connection.stuck


def test_a_small_allowance_is_one_too() -> None:
    """One that is smaller than what makes a connection busy."""
    near, far = socket.socketpair()
    with near, far:
        connection = Connection(near, lambda _: None, Channels(max_unread=EASED))
        connection.write(bytes(EASED + 1))
        assert connection.stuck
        assert not connection.busy


def test_it_knows_the_process_at_its_other_end(line: Line) -> None:
    """So that the log can tell which one is stuck."""
    assert line.connection.pid == os.getpid()
