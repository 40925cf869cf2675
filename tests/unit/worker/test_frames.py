"""What autobahn's frame machine says, set up as behind a handshake of ours."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import pytest

from daphne_supervisor.config import WebSocket as Limits
from daphne_supervisor.worker.compression import Deflate, agree
from daphne_supervisor.worker.frames import Machine, is_hopeless, unmask, unmask_by_autobahn
from tests.support.transports import deflated, frame

if TYPE_CHECKING:
    from collections.abc import Callable

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

    def pinged(self, payload: bytes) -> None:
        """Keep a ping."""
        self.heard.append(("pinged", payload))

    def failed(self, code: int, reason: str, option: str = "") -> None:
        """Keep a failure."""
        assert reason
        self.heard.append(("failed", code, option) if option else ("failed", code))

    def ended(self, code: int | None, reason: str | None) -> None:
        """Keep the end."""
        self.heard.append(("ended", code, reason))


def fed(data: bytes, limits: Limits | None = None) -> list[tuple[object, ...]]:
    """Return what a fresh machine says about `data`."""
    owner = Records()
    machine = Machine(owner, limits or Limits())
    while data:
        rest = machine.feed(data)
        if rest == data:
            break
        data = rest
    return owner.heard


@pytest.mark.parametrize("take_off", [unmask, unmask_by_autobahn])
@pytest.mark.parametrize("size", [0, 1, 21, 126, 128, 129, 130, 131, 143, 1025, 65_536, 70_001])
def test_a_mask_comes_off(size: int, take_off: Callable[[bytes, bytes], bytes]) -> None:
    """The payload of a client's frame is what it was before it was masked, in whichever way."""
    payload, mask = bytes(range(256)) * (size // 256) + bytes(size % 256), b"\x0a\xff\x00\x13"
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    assert take_off(masked, mask) == payload
    assert len(masked) == size


def test_fragments_become_one_message_around_a_ping() -> None:
    """A control frame may stand between fragments; it is answered, the message stays whole."""
    data = frame(TEXT, b"he", last=False) + frame(PING, b"?") + frame(0, b"llo")
    assert fed(data) == [("pinged", b"?"), (b"hello", False)]


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
        (b"\x03\xf6", (1014, "")),
        (b"\x03\xe8", (1000, "")),
        (b"", (None, "")),
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
    assert fed(frame(BINARY, b"x" * 11)[:7], limits) == [
        ("failed", 1009, "--websocket-max-frame-size")
    ]
    assert fed(frame(BINARY, b"x" * 10), limits) == [(b"x" * 10, True)]


def test_a_message_too_large_is_refused_at_the_fragment_that_exceeds() -> None:
    """Fragments count together; the messages before it have been delivered."""
    limits = Limits(max_frame_size=0, max_message_size=10)
    data = frame(BINARY, b"ok") + frame(BINARY, b"x" * 6, last=False) + frame(0, b"x" * 5)
    assert fed(data, limits) == [
        (b"ok", True),
        ("failed", 1009, "--websocket-max-message-size"),
    ]


def test_a_message_of_too_many_frames_is_refused_at_the_first_that_exceeds() -> None:
    """Empty ones count too; every message begins to count anew."""
    limits = Limits(max_fragments=2)
    good = frame(BINARY, b"a", last=False) + frame(0, b"b")
    bad = frame(BINARY, last=False) + frame(0, last=False) + frame(0)[:6]
    assert fed(good + good + bad, limits) == [
        (b"ab", True),
        (b"ab", True),
        ("failed", 1008, "--websocket-max-fragments"),
    ]


def test_a_frame_that_is_sent_by_the_machine_reaches_the_wire_whole() -> None:
    """Our close frame goes out unmasked, and the peer's answer ends the connection."""
    owner = Records()
    machine = Machine(owner, Limits())
    machine.sendCloseFrame(1012, b"back soon")
    for late in (frame(PING, b"?"), frame(TEXT, b"late"), frame(CLOSE, b"\x03\xf4back soon")):
        assert machine.feed(late) == b""
    assert owner.heard == [
        ("write", b"\x88\x0b\x03\xf4back soon"),
        ("pinged", b"?"),
        (b"late", False),
        ("ended", 1012, "back soon"),
    ]


def test_nothing_is_logged_by_autobahn(caplog: pytest.LogCaptureFixture) -> None:
    """What is worth a line is logged by us, once."""
    caplog.set_level(0)
    assert fed(frame(TEXT, b"a", mask=None)) == [("failed", 1002)]
    assert caplog.records == []


@pytest.mark.parametrize("size", [100, 400])
@pytest.mark.parametrize(
    "payload", [b"a\xff", b"\xed\xa0", b"\xf4\x90", b"\xc0", b"x" * 20 + b"\xf5"]
)
def test_text_is_hopeless_at_its_first_wrong_byte(payload: bytes, size: int) -> None:
    """Surrogates and what is beyond Unicode too; bytes have no wrong ones."""
    for opcode in (1, 2):
        data = frame(opcode, payload + bytes(size))[: (8 if size > 100 else 6) + len(payload)]
        assert is_hopeless(b"a" + data, 1) is (opcode == 1)


@pytest.mark.parametrize("payload", [b"", b"abc", b"\xc3", b"\xed", b"\xf0\x9f\x98"])
def test_half_a_character_may_become_a_whole_one(payload: bytes) -> None:
    """As long as the bytes so far are the beginning of one."""
    assert not is_hopeless(frame(1, payload + bytes(50))[: 6 + len(payload)], 0)


def test_a_header_alone_is_not_hopeless() -> None:
    """It has nothing to say yet."""
    whole = frame(1, bytes(200))
    assert not any(is_hopeless(whole[:cut], 0) for cut in range(1, 9))


def test_so_many_frames_are_read_at_once() -> None:
    """Others want their turn; what is left is returned, and can be fed again."""
    owner = Records()
    machine = Machine(owner, Limits(max_fragments=0))
    data = frame(BINARY, b"0", last=False) + frame(0, b"1", last=False) * 1000 + frame(0, b"2")
    turns = 0
    while data:
        data = machine.feed(data)
        turns += 1
        assert machine.exhausted is bool(data)
    assert owner.heard == [(b"0" + b"1" * 1000 + b"2", True)]
    assert turns == 4


# -- compressed messages --

#: What is not made smaller than a step.
NOISE = b"".join(zlib.crc32(b"%d" % number).to_bytes(4) for number in range(2000))


def inflated(data: bytes, limits: Limits, step: int) -> list[tuple[object, ...]]:
    """Return what a machine that inflates says about `data`, fed in pieces."""
    owner = Records()
    agreement = agree([b"permessage-deflate"], limits)
    assert agreement is not None
    machine = Machine(owner, limits, Deflate(agreement, limits))
    rest = b""
    for at in range(0, len(data), step):
        rest += data[at : at + step]
        while rest and (left := machine.feed(rest)) != rest:
            rest = left
    return owner.heard


@pytest.mark.parametrize("step", [1, 1000, 1 << 20])
def test_a_compressed_message_is_inflated_over_its_fragments(step: int) -> None:
    """RSV1 stands on the first of them only (RFC 7692 section 6.1), text is looked at."""
    text = "".join(f"{number:x} é" for number in range(9000))
    payload = deflated(text.encode())
    data = frame(TEXT, payload[:5000], last=False, reserved=4) + frame(0, b"", last=False)
    data += frame(PING) + frame(0, payload[5000:]) + frame(TEXT, b"plain")
    assert inflated(data, Limits(), step) == [
        ("pinged", b""),
        (text.encode(), False),
        (b"plain", False),
    ]
    assert inflated(frame(BINARY, deflated(NOISE), reserved=4), Limits(), step) == [(NOISE, True)]


@pytest.mark.parametrize("step", [1, 1000, 1 << 20])
@pytest.mark.parametrize(
    ("payload", "heard"),
    [
        (b"\xff" * 5000, ("failed", 1007)),
        (deflated(b"cut off")[:-2], ("failed", 1007)),
        (deflated(b"\xff"), ("failed", 1007)),
        (deflated(b"x" * 10_000 + b"\xc3"), ("failed", 1007)),
        (deflated(b"\xff" + NOISE) + b"no deflated data", ("failed", 1007)),
        (deflated(b"x" * 100_001), ("failed", 1009, "--websocket-max-message-size")),
        (deflated(b"\xff" + b"x" * 9_000_000), ("failed", 1009, "--websocket-max-message-size")),
    ],
)
def test_what_a_compressed_message_breaks_first_is_said_once(
    payload: bytes, heard: tuple[object, ...], step: int
) -> None:
    """The same, however the network cuts."""
    limits = Limits(max_message_size=100_000, compression_max_ratio=0)
    data = frame(TEXT, payload, reserved=4) + frame(PING)
    assert inflated(data, limits, step) == [heard]
