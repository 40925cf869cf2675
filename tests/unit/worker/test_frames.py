"""What autobahn's frame machine says, set up as behind a handshake of ours."""

from __future__ import annotations

import pytest

from daphne_supervisor.config import WebSocket as Limits
from daphne_supervisor.worker.frames import Machine, unmask
from tests.support.transports import frame

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Records:
    """An owner that keeps what it is told."""

    def __init__(self) -> None:
        """Have heard nothing."""
        self.heard: list[tuple[object, ...]] = []

    def message(self, payload: bytes, *, binary: bool) -> None:
        """Keep a message."""
        self.heard.append((payload, binary))

    def write(self, data: bytes) -> None:
        """Keep a frame."""
        self.heard.append(("write", data))

    def failed(self, code: int, reason: str) -> None:
        """Keep a failure."""
        assert reason
        self.heard.append(("failed", code))

    def ended(self, code: int | None, reason: str | None) -> None:
        """Keep the end."""
        self.heard.append(("ended", code, reason))


def fed(data: bytes, limits: Limits | None = None) -> list[tuple[object, ...]]:
    """Return what a fresh machine says about `data`."""
    owner = Records()
    Machine(owner, limits or Limits()).feed(data)
    return owner.heard


@pytest.mark.parametrize("payload", [b"", b"a", b"abcd" * 5 + b"e"])
def test_a_mask_comes_off(payload: bytes) -> None:
    """The payload of a client's frame is what it was before it was masked."""
    mask = b"\x0a\xff\x00\x13"
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    assert unmask(masked, mask) == payload


def test_fragments_become_one_message_around_a_ping() -> None:
    """A control frame may stand between fragments; it is answered, the message stays whole."""
    data = frame(TEXT, b"he", last=False) + frame(PING, b"?") + frame(0, b"llo")
    assert fed(data) == [("write", b"\x8a\x01?"), (b"hello", False)]


def test_it_says_when_it_stands_inside_a_message() -> None:
    """Between two messages it holds nothing back, so it can be left alone again."""
    machine = Machine(Records(), Limits())
    assert not machine.occupied
    machine.feed(frame(BINARY, b"a", last=False))
    assert machine.occupied
    machine.feed(frame(0, b"bc")[:-1])
    assert machine.occupied
    machine.feed(frame(0, b"bc")[-1:])
    assert not machine.occupied


def test_a_pong_is_swallowed() -> None:
    """A pong that nobody asked for is allowed and means nothing (RFC 6455 section 5.5.3)."""
    assert fed(frame(PONG, b"x")) == []


@pytest.mark.parametrize(
    ("payload", "end"),
    [
        (b"\x03\xe9away", (1001, "away")),
        (b"\x03\xe8", (1000, None)),
        (b"", (None, None)),
    ],
)
def test_a_close_frame_is_answered_in_kind(payload: bytes, end: tuple[object, ...]) -> None:
    """The peer's code and reason are reported, and echoed (RFC 6455 section 5.5.1)."""
    written, ended = fed(frame(CLOSE, payload))
    assert written == ("write", bytes([0x88, len(payload)]) + payload)
    assert ended == ("ended", *end)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"a", mask=None), 1002),
        (frame(TEXT, b"a", reserved=4), 1002),
        (frame(3, b"a"), 1002),
        (frame(11, b"a"), 1002),
        (frame(0, b"a"), 1002),
        (frame(TEXT, b"a", last=False) + frame(TEXT, b"b"), 1002),
        (frame(PING, b"a", last=False), 1002),
        (frame(PING, b"a" * 126), 1002),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, b"\x03\xed"), 1002),
        (frame(CLOSE, b"\x13\x88"), 1002),
        (b"\x81\xfe\x00\x01\0\0\0\0a", 1002),
        (b"\x82\xff" + bytes(7) + b"\x01\0\0\0\0a", 1002),
        (b"\x82\xff" + b"\xff" * 8 + bytes(4), 1002),
        (frame(CLOSE, b"\x03\xe8\xff"), 1007),
        (frame(TEXT, b"\xff", last=False), 1007),
        (frame(TEXT, b"\xc3", last=False) + frame(0, b""), 1007),
    ],
)
def test_a_violation_fails_the_connection_once(data: bytes, code: int) -> None:
    """The first violation is reported with its code; what stands behind it is not looked at."""
    assert fed(data + frame(PING, b"?") + frame(TEXT, b"a", mask=None)) == [("failed", code)]


def test_a_frame_too_large_is_refused_by_its_header() -> None:
    """No payload is waited for; the code is that of RFC 6455 section 7.4.1."""
    limits = Limits(max_frame_size=10, max_message_size=0)
    assert fed(frame(BINARY, b"x" * 11)[:7], limits) == [("failed", 1009)]
    assert fed(frame(BINARY, b"x" * 10), limits) == [(b"x" * 10, True)]


def test_a_message_too_large_is_refused_at_the_fragment_that_exceeds() -> None:
    """Fragments count together; the messages before it have been delivered."""
    limits = Limits(max_frame_size=0, max_message_size=10)
    data = frame(BINARY, b"ok") + frame(BINARY, b"x" * 6, last=False) + frame(0, b"x" * 5)
    assert fed(data, limits) == [(b"ok", True), ("failed", 1009)]


def test_a_frame_that_is_sent_by_the_machine_reaches_the_wire_whole() -> None:
    """Our close frame goes out unmasked, and the peer's answer ends the connection."""
    owner = Records()
    machine = Machine(owner, Limits())
    machine.sendCloseFrame(1012, b"back soon")
    machine.feed(frame(PING, b"?") + frame(TEXT, b"late") + frame(CLOSE, b"\x03\xf4back soon"))
    assert owner.heard == [
        ("write", b"\x88\x0b\x03\xf4back soon"),
        (b"late", False),
        ("ended", 1012, "back soon"),
    ]


def test_nothing_is_logged_by_autobahn(caplog: pytest.LogCaptureFixture) -> None:
    """What is worth a line is logged by us, once."""
    caplog.set_level(0)
    assert fed(frame(TEXT, b"a", mask=None)) == [("failed", 1002)]
    assert caplog.records == []
