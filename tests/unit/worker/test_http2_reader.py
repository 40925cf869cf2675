"""Frames read: which are well-formed, and what each says."""

from __future__ import annotations

from typing import Any

import pytest

from daphne_supervisor.worker.http2_frames import Code, ConnectionFault, StreamFault
from daphne_supervisor.worker.http2_reader import BUDGET, REQUEST, Reader
from tests.support.streams import PREFACE, raw
from tests.support.wire import bytewise

SETTINGS = raw(4, 0)


class Sink:
    """Remembers what it is told."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.told: list[tuple[Any, ...]] = []

    def receive_headers(self, stream: int, block: bytes, *, end: bool) -> None:
        """Take a block."""
        self.told.append(("headers", stream, block, end))

    def receive_data(self, stream: int, data: bytes, size: int, *, end: bool) -> None:
        """Take data."""
        self.told.append(("data", stream, data, size, end))

    def receive_reset(self, stream: int, code: int) -> None:
        """Take a reset."""
        self.told.append(("reset", stream, code))

    def receive_settings(self, values: list[tuple[int, int]]) -> None:
        """Take settings."""
        self.told.append(("settings", values))

    def receive_ping(self, payload: bytes) -> None:
        """Take a ping."""
        self.told.append(("ping", payload))

    def receive_pong(self, payload: bytes) -> None:
        """Take a pong."""
        self.told.append(("pong", payload))

    def receive_goaway(self, last: int, code: int) -> None:
        """Take a goodbye."""
        self.told.append(("goaway", last, code))

    def receive_window(self, stream: int, increment: int) -> None:
        """Take an increment."""
        self.told.append(("window", stream, increment))

    def receive_priority(self, stream: int, value: bytes) -> None:
        """Take a priority."""
        self.told.append(("priority", stream, value))

    def receive_other(self) -> None:
        """Take something."""
        self.told.append(("other",))


def reader(most_block: int = 100, most_continuations: int = 3) -> tuple[Reader, Sink]:
    """Return a reader whose client has introduced itself, and its sink."""
    sink = Sink()
    made = Reader(sink, most_block=most_block, most_continuations=most_continuations)
    assert not made.started
    made.feed(PREFACE + SETTINGS)
    assert made.started
    assert sink.told.pop() == ("settings", [])
    return made, sink


def feed(made: Reader, pieces: list[bytes]) -> None:
    """Let pieces arrive."""
    for piece in pieces:
        made.feed(piece)


GOOD = [
    (raw(0, 1, b"abc"), ("data", 1, b"abc", 3, False)),
    (raw(0, 1, b"", 1), ("data", 1, b"", 0, True)),
    (raw(0, 1, b"\x02abc\0\0", 9), ("data", 1, b"abc", 6, True)),
    (raw(0, 1, b"\x00", 8), ("data", 1, b"", 1, False)),
    (raw(0, 2**31 + 1, b"a"), ("data", 1, b"a", 1, False)),
    (raw(1, 3, b"block", 4), ("headers", 3, b"block", False)),
    (raw(1, 3, b"block", 5), ("headers", 3, b"block", True)),
    (raw(1, 3, b"\x01\0\0\0\0\x07block\0", 0x2D), ("headers", 3, b"block", True)),
    (raw(1, 3, b"\0\0\0\0\x07block", 0x24), ("headers", 3, b"block", False)),
    (raw(1, 3, b"a", 1) + raw(9, 3, b"b") + raw(9, 3, b"c", 4), ("headers", 3, b"abc", True)),
    (raw(2, 3, bytes(5)), ("other",)),
    (raw(3, 3, b"\0\0\0\x08"), ("reset", 3, 8)),
    (raw(4, 0, b"\0\x03\0\0\0\x09"), ("settings", [(3, 9)])),
    (raw(4, 0, b"", 1), ("other",)),
    (raw(6, 0, b"12345678"), ("ping", b"12345678")),
    (raw(6, 0, b"12345678", 1), ("pong", b"12345678")),
    (raw(7, 0, b"\x80\0\0\x05\0\0\0\x02why"), ("goaway", 5, 2)),
    (raw(8, 0, b"\0\0\0\x05"), ("window", 0, 5)),
    (raw(8, 7, b"\x80\0\0\0"), ("window", 7, 0)),
    (raw(16, 0, b"\0\0\0\x03u=1"), ("priority", 3, b"u=1")),
    (raw(99, 3, b"what", 255), ("other",)),
]


@pytest.mark.parametrize(("data", "told"), GOOD)
def test_frames_are_read_in_any_slicing(data: bytes, told: tuple[Any, ...]) -> None:
    """Whole, byte by byte, or with others around it, a frame says the same."""
    for pieces in ([data], bytewise(data), [data + raw(99, 0)]):
        made, sink = reader()
        for piece in pieces:
            made.feed(piece)
        assert [each for each in sink.told if each != ("other",)][:1] == [told][
            : told != ("other",)
        ]
        assert not made.rest
        assert not made.in_block


BAD = [
    (raw(0, 0), Code.PROTOCOL_ERROR),
    (raw(0, 1, b"", 8), Code.PROTOCOL_ERROR),
    (raw(0, 1, b"\x01", 8), Code.PROTOCOL_ERROR),
    (raw(1, 0, b"", 4), Code.PROTOCOL_ERROR),
    (raw(1, 1, bytes(4), 0x24), Code.FRAME_SIZE_ERROR),
    (raw(1, 1, b"\x05abc", 0x0C), Code.PROTOCOL_ERROR),
    (raw(2, 0, bytes(5)), Code.PROTOCOL_ERROR),
    (raw(3, 0, bytes(4)), Code.PROTOCOL_ERROR),
    (raw(3, 1, bytes(5)), Code.FRAME_SIZE_ERROR),
    (raw(4, 1), Code.PROTOCOL_ERROR),
    (raw(4, 0, bytes(5)), Code.FRAME_SIZE_ERROR),
    (raw(4, 0, bytes(6), 1), Code.FRAME_SIZE_ERROR),
    (raw(5, 1, bytes(4), 4), Code.PROTOCOL_ERROR),
    (raw(6, 1, bytes(8)), Code.PROTOCOL_ERROR),
    (raw(6, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
    (raw(7, 1, bytes(8)), Code.PROTOCOL_ERROR),
    (raw(7, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
    (raw(8, 0, bytes(3)), Code.FRAME_SIZE_ERROR),
    (raw(9, 1, b"", 4), Code.PROTOCOL_ERROR),
    (raw(16, 1, bytes(4)), Code.PROTOCOL_ERROR),
    (raw(16, 0, bytes(3)), Code.FRAME_SIZE_ERROR),
    (raw(16, 0, bytes(4)), Code.PROTOCOL_ERROR),
    (raw(0, 1, bytes(16_385)), Code.FRAME_SIZE_ERROR),
    (raw(1, 1) + raw(0, 1), Code.PROTOCOL_ERROR),
    (raw(1, 1) + raw(9, 3), Code.PROTOCOL_ERROR),
    (raw(1, 1) + raw(99, 1), Code.PROTOCOL_ERROR),
    (raw(1, 1) + raw(9, 1) * 4, Code.ENHANCE_YOUR_CALM),
    (raw(1, 1, bytes(99)) + raw(9, 1, bytes(2)), Code.ENHANCE_YOUR_CALM),
]


@pytest.mark.parametrize(("data", "code"), BAD)
def test_faults_of_a_connection(data: bytes, code: Code) -> None:
    """Each is found in any slicing, with the same code; what stands before it is told."""
    for pieces in ([raw(6, 0, bytes(8)) + data], [*bytewise(raw(6, 0, bytes(8)) + data)]):
        made, sink = reader()
        with pytest.raises(ConnectionFault) as caught:
            feed(made, pieces)
        assert caught.value.code is code
        assert sink.told[0] == ("ping", bytes(8))


def test_a_stream_fault_lets_the_rest_be_read() -> None:
    """PRIORITY of a wrong length concerns its stream alone."""
    made, sink = reader()
    with pytest.raises(StreamFault) as caught:
        made.feed(raw(2, 3, bytes(4)) + raw(6, 0, bytes(8)))
    assert (caught.value.stream, caught.value.code) == (3, Code.FRAME_SIZE_ERROR)
    made.feed(b"")
    assert sink.told == [("other",), ("ping", bytes(8))]


def test_a_block_is_known_to_be_open() -> None:
    """Time runs for it."""
    made, _ = reader()
    made.feed(raw(1, 1, b"a"))
    assert made.in_block
    made.feed(raw(9, 1, b"a", 4))
    assert not made.in_block


def test_a_flood_is_read_in_turns() -> None:
    """So many frames, then it says that there are more."""
    made, sink = reader()
    made.budget = BUDGET
    made.feed(raw(99, 0) * (BUDGET + 1))
    assert (made.hasty, len(sink.told)) == (True, BUDGET)
    made.budget = BUDGET
    made.feed(b"")
    assert (made.hasty, len(sink.told)) == (False, BUDGET + 1)


def test_a_request_counts_for_many_frames() -> None:
    """What begins an application costs more than what is only counted."""
    made, sink = reader()
    made.budget = BUDGET
    made.feed(raw(1, 1, b"a", 4) * (BUDGET // REQUEST + 1))
    assert (made.hasty, len(sink.told)) == (True, BUDGET // REQUEST)


@pytest.mark.parametrize("frame", [raw(4, 0, b"", 1), raw(1, 1, b"", 4)])
def test_the_first_frame_is_settings(frame: bytes) -> None:
    """An acknowledgement is none."""
    made = Reader(Sink(), most_block=1, most_continuations=1)
    with pytest.raises(ConnectionFault, match="not SETTINGS"):
        made.feed(PREFACE + frame)


def test_the_preface_comes_first() -> None:
    """A wrong byte in it is found when it comes."""
    made = Reader(Sink(), most_block=1, most_continuations=1)
    made.feed(PREFACE[:5])
    with pytest.raises(ConnectionFault, match="no preface"):
        made.feed(b"x")


def test_it_can_be_let_go() -> None:
    """It holds its sink no longer than that lives."""
    made, _ = reader()
    made.part()
    assert not hasattr(made, "_sink")


def test_data_counts_for_several_frames() -> None:
    """Each can be a message that somebody has to work for."""
    made, sink = reader()
    made.budget = BUDGET
    made.feed(raw(0, 1, b"a") * (BUDGET // 8 + 1))
    assert (made.hasty, len(sink.told)) == (True, BUDGET // 8)


def test_a_large_head_takes_a_turn_of_its_own() -> None:
    """To unpack it takes the time of many frames; what is only handed on does not."""
    reader = Reader(Sink(), most_block=100_000, most_continuations=9)
    reader.feed(PREFACE + SETTINGS)
    reader.budget = BUDGET
    reader.feed(raw(0, 1, bytes(16_384)) * 2 + raw(1, 1, bytes(16_384), 4) * 2)
    assert reader.hasty
    assert len(reader.rest) == 9 + 16_384
