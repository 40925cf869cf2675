"""The outside of frames: headers out, the ends of frames in."""

from __future__ import annotations

import pytest

from daphne_supervisor.worker.framing import (
    BINARY,
    CODES,
    PING,
    PONG,
    SHORT_HEADERS,
    TEXT,
    Violation,
    header,
    lane_end,
)
from tests.support.transports import frame

LANE = frozenset({TEXT, BINARY, PING, PONG})


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_a_header_has_its_shortest_form(size: int, expected: bytes) -> None:
    """RFC 6455 section 5.2 has no other."""
    assert header(TEXT, size) == expected


def test_the_headers_of_short_messages_are_made_beforehand() -> None:
    """Of both kinds, compressed and not: they are the ones that would be made."""
    assert set(SHORT_HEADERS) == {0x81, 0x82, 0xC1, 0xC2}
    for opcode, headers in SHORT_HEADERS.items():
        assert list(headers) == [header(opcode, size) for size in range(126)]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 1000])
def test_the_end_of_a_frame_is_behind_its_payload(size: int) -> None:
    """And beyond the data, while the frame is not whole, wherever it is cut."""
    data = b"ab" + frame(2, bytes(size)) + b"cd"
    assert lane_end(data, 2, 1000, LANE) == len(data) - 2
    for cut in range(2, len(data) - 2):
        assert lane_end(data[:cut], 2, 1000, LANE) > cut


@pytest.mark.parametrize(
    "data",
    [
        frame(2, bytes(1001)),
        frame(2, bytes(65_536)),
        frame(2, mask=None),
        frame(2, last=False),
        frame(0),
        frame(8),
        frame(2, reserved=4),
        frame(9, bytes(126)),
        frame(10, bytes(126)),
        b"\x89\xfe",
        b"\x89\xfe\x60",
        b"\x82\xfe\x00\x7d" + bytes(129),
    ],
    ids=lambda data: data[:4].hex(),
)
def test_the_lane_is_not_for_every_frame(data: bytes) -> None:
    """Not for large ones, fragments, control frames but pings, nor for violations."""
    assert lane_end(data, 0, 1000, LANE) == -1


def test_the_codes_of_a_close_frame_are_those_of_the_registry() -> None:
    """Neither those that stand for the lack of one, nor what nobody has defined."""
    assert not CODES & {0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000}
    assert {1000, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 4999} <= CODES


def test_a_violation_says_what_was_violated() -> None:
    """The code is for the client, the reason for both, the option for whoever reads the log."""
    violation = Violation(1008, "too much", "--option")
    assert (violation.code, violation.option, str(violation)) == (1008, "--option", "too much")
