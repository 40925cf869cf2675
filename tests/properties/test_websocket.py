"""A WebSocket's bytes in any slicing, and bytes that mean nothing."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from daphne_supervisor.config import WebSocket as Limits
from daphne_supervisor.worker.websocket import Phase
from tests.support.transports import deflated, frame, opened

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

LIMITS = Limits(
    websocket_timeout=-1,
    ping_interval=0,
    max_frame_size=200_000,
    max_message_size=300_000,
    compression=True,
)
OFFER = b"permessage-deflate"
#: What a client sends with RSV1 set (RFC 7692 section 6).
DEFLATED = 4

masks = st.binary(min_size=4, max_size=4)
controls = st.lists(
    st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125), masks), max_size=2
)
payloads = st.one_of(
    st.text(max_size=300),
    st.binary(max_size=300),
    st.sampled_from([0, 125, 126, 65_535, 65_536, 65_537, 199_999]).map(bytes),
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[str | bytes], bytes]:
    """Draw valid frames, the messages they carry, and the pongs they ask for."""
    data, messages, pongs = b"", [], b""
    for payload in draw(st.lists(payloads, max_size=5)):
        messages.append(payload)
        raw = payload.encode() if isinstance(payload, str) else payload
        compressed = draw(st.booleans())
        raw = deflated(raw) if compressed else raw
        cuts = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=3)))
        pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
        for at, piece in enumerate(pieces):
            for opcode, said, mask in draw(controls):
                data += frame(opcode, said, mask=mask)
                pongs += bytes([0x8A, len(said)]) + said if opcode == PING else b""
            kind = (TEXT if isinstance(payload, str) else BINARY) if at == 0 else 0
            reserved = DEFLATED if compressed and at == 0 else 0
            last = at == len(pieces) - 1
            data += frame(kind, piece, last=last, mask=draw(masks), reserved=reserved)
    return data, messages, pongs


def sliced(data: bytes, cuts: list[int]) -> list[bytes]:
    """Return `data` in pieces, cut at `cuts`, wherever they lie."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


@given(streams(), st.lists(st.integers(0, 1 << 20), max_size=12))
def test_any_slicing_yields_the_same_messages(
    stream: tuple[bytes, list[str | bytes], bytes], cuts: list[int]
) -> None:
    """Plain, fragmented, empty and large messages, with pings and pongs in between."""
    data, messages, pongs = stream
    websocket, port, listener = opened(replace(LIMITS, compression_max_ratio=0), OFFER)
    for piece in sliced(data, cuts):
        websocket.receive(piece)
    assert listener.messages == messages
    assert port.sent == pongs
    assert (websocket.phase, listener.ends) == (Phase.OPEN, [])


@given(st.lists(st.tuples(st.text(max_size=20), st.booleans(), masks), max_size=4), st.data())
def test_byte_by_byte_is_a_slicing_too(
    parts: list[tuple[str, bool, bytes]], data: st.DataObject
) -> None:
    """And the close at the end is heard as it was said."""
    raw = b""
    for text, fragmented, mask in parts:
        payload = text.encode()
        at = data.draw(st.integers(0, len(payload))) if fragmented else 0
        if fragmented:
            raw += frame(TEXT, payload[:at], last=False, mask=mask)
        raw += frame(0 if fragmented else TEXT, payload[at:], mask=mask)
    raw += frame(CLOSE, struct.pack("!H", 4321) + b"bye")
    websocket, port, listener = opened(LIMITS, OFFER)
    for byte in raw:
        websocket.receive(bytes([byte]))
    assert listener.messages == [text for text, _, _ in parts]
    assert (listener.ends, port.end) == ([(4321, "bye")], "close")


def _noise(number: int) -> bytes:
    return zlib.crc32(b"%d" % number).to_bytes(4)


@st.composite
def dense(draw: st.DrawFn) -> bytes:
    """Draw one compressed message of which anything may be wrong, in one frame or in two."""
    text = draw(st.binary(max_size=200)) + bytes(draw(st.sampled_from([0, 5000, 90_000, 900_000])))
    noise = draw(st.randoms(use_true_random=False)).randbytes(
        draw(st.sampled_from([0, 3000, 9000]))
    )
    payload = deflated(draw(st.permutations([text, noise, text])).pop() + noise + text)
    payload = payload[: len(payload) - draw(st.sampled_from([0, 0, 0, 1, 40]))]
    at = draw(st.integers(0, len(payload)))
    kind = draw(st.sampled_from([TEXT, BINARY]))
    if draw(st.booleans()):
        return frame(kind, payload, reserved=DEFLATED)
    first = frame(kind, payload[:at], last=False, reserved=DEFLATED)
    return first + frame(PING, b"?") + frame(0, payload[at:])


@given(st.lists(dense(), min_size=1, max_size=3), st.lists(st.integers(0, 1 << 15), max_size=8))
def test_what_is_compressed_does_not_depend_on_its_slicing(
    parts: list[bytes], cuts: list[int]
) -> None:
    """Neither the messages nor the first rule that is broken, of all that are."""
    data = b"".join(parts)
    whole, port, listener = opened(LIMITS, OFFER)
    whole.receive(data)
    cut, other_port, other = opened(LIMITS, OFFER)
    for piece in sliced(data, cuts):
        cut.receive(piece)
    assert (other.messages, other.ends) == (listener.messages, listener.ends)
    assert (other_port.sent, other_port.end) == (port.sent, port.end)


@st.composite
def almost(draw: st.DrawFn) -> bytes:
    """Draw frames of which anything may be wrong."""
    data = b""
    for _ in range(draw(st.integers(1, 6))):
        data += frame(
            draw(st.integers(0, 15)),
            draw(st.one_of(st.binary(max_size=140), st.binary(max_size=140).map(deflated))),
            last=draw(st.booleans()),
            mask=draw(st.one_of(st.none(), masks)),
            reserved=draw(st.sampled_from([0, 0, 0, DEFLATED, DEFLATED, 1, 7])),
        )
    return data


@given(
    st.one_of(st.binary(max_size=400), almost()),
    st.lists(st.integers(0, 500), max_size=6),
    st.sampled_from(["", "close", "drain"]),
)
def test_garbage_never_raises(data: bytes, cuts: list[int], first: str) -> None:
    """It is failed with a code that may be sent, or waits for more; the end is told once."""
    websocket, port, listener = opened(LIMITS, OFFER)
    if first == "close":
        websocket.close(1000, "")
    elif first == "drain":
        websocket.drain()
    for piece in sliced(data, cuts):
        websocket.receive(piece)
    websocket.lost()
    assert len(listener.ends) == 1
    assert websocket.phase is Phase.CLOSED
    assert port.end in {"", "close", "shut"}


@given(st.one_of(st.binary(max_size=300), almost()), st.lists(st.integers(0, 500), max_size=6))
def test_what_garbage_means_does_not_depend_on_its_slicing(data: bytes, cuts: list[int]) -> None:
    """Messages, answers and end are the same in one piece and in many."""
    whole, port, listener = opened(LIMITS, OFFER)
    whole.receive(data)
    cut, other_port, other = opened(LIMITS, OFFER)
    for piece in sliced(data, cuts):
        cut.receive(piece)
    assert (other.messages, other.ends) == (listener.messages, listener.ends)
    assert (other_port.sent, other_port.end) == (port.sent, port.end)
