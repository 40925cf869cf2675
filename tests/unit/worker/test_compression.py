"""permessage-deflate: what the handshake agrees on, and both directions within their bounds."""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING

import pytest

from daphne_supervisor.config import WebSocket as Limits
from daphne_supervisor.worker.compression import (
    STEP,
    Agreement,
    Deflate,
    Parameters,
    agree,
    extensions,
)
from daphne_supervisor.worker.framing import Violation
from tests.support.transports import deflated

if TYPE_CHECKING:
    from collections.abc import Iterator

FORGETFUL = Agreement(15, 12, forget_received=True, forget_sent=True, answer=b"")
MINDFUL = Agreement(15, 12, forget_received=False, forget_sent=False, answer=b"")

BOTH = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"


def inflated(payload: bytes, limits: Limits | None = None, cut: int = 1 << 20) -> bytes:
    """Return what a message becomes that is fed in pieces of `cut` bytes."""
    deflate = Deflate(FORGETFUL, limits or Limits())
    deflate.begin()
    pieces = [
        piece
        for at in range(0, len(payload), cut)
        for piece in deflate.feed(payload[at : at + cut])
    ]
    return b"".join([*pieces, deflate.finish()])


# -- the handshake --


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], []),
        ([b""], []),
        ([b"a"], [(b"a", [])]),
        ([b"a, b", b"c"], [(b"a", []), (b"b", []), (b"c", [])]),
        ([b" , a ,\t, b,"], [(b"a", []), (b"b", [])]),
        ([b"a;x;y=1"], [(b"a", [(b"x", None), (b"y", b"1")])]),
        ([b'a ; x\t=\t"1" ; y'], [(b"a", [(b"x", b"1"), (b"y", None)])]),
        ([rb'a;x="\1\0"'], [(b"a", [(b"x", b"10")])]),
    ],
)
def test_offers_are_read_in_their_order(
    lines: list[bytes], found: list[tuple[bytes, Parameters]]
) -> None:
    """Over several lines, with blanks and empty elements (RFC 6455 section 9.1, RFC 2616)."""
    assert extensions(lines) == found


@pytest.mark.parametrize(
    "line",
    [
        b";",
        b"a;",
        b"a;=1",
        b"a;x=",
        b"a b",
        b'a;x="',
        b'a;x=""',
        b'a;x="1 2"',
        b"a=1",
        b"a\x00",
        b"a;x=1 2",
        b"\xff",
        b'a;x="1',
        b"a" + b" " * 60_000 + b"b",
        b"a;x" * 20_000 + b";",
    ],
    ids=lambda line: repr(line[:8]),
)
def test_what_is_no_list_of_extensions_is_found_out(line: bytes) -> None:
    """At once, however long it is; and it agrees on nothing."""
    with pytest.raises(ValueError, match="Sec-WebSocket-Extensions"):
        extensions([b"a", line])
    assert agree([line], Limits()) is None


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        (b"permessage-deflate", BOTH),
        (b"permessage-deflate; server_no_context_takeover", BOTH),
        (b"permessage-deflate; client_no_context_takeover", BOTH),
        (b"permessage-deflate; client_max_window_bits", BOTH + b"; client_max_window_bits=12"),
        (b"permessage-deflate; client_max_window_bits=10", BOTH + b"; client_max_window_bits=10"),
        (b"permessage-deflate; client_max_window_bits=8", BOTH + b"; client_max_window_bits=8"),
        (b"permessage-deflate; client_max_window_bits=15", BOTH + b"; client_max_window_bits=12"),
        (b"permessage-deflate; server_max_window_bits=9", BOTH + b"; server_max_window_bits=9"),
        (b'permessage-deflate; server_max_window_bits="15"', BOTH + b"; server_max_window_bits=12"),
    ],
)
def test_an_offer_is_accepted_with_every_parameter(offer: bytes, answer: bytes) -> None:
    """Each as RFC 7692 section 7.1 says; by default nobody keeps anything between messages."""
    agreement = agree([offer], Limits(compression_window_bits=12))
    assert agreement is not None
    assert agreement.answer == answer
    assert agreement.forget_sent
    assert agreement.forget_received
    for name, bits in re.findall(rb"(client|server)_max_window_bits=(\d+)", answer):
        used = agreement.inflate_bits if name == b"client" else agreement.deflate_bits
        assert used == int(bits)


def test_a_client_that_was_not_asked_has_the_largest_window() -> None:
    """RFC 7692 section 7.1.2.2: what it did not offer must not be asked of it."""
    agreement = agree([b"permessage-deflate"], Limits(compression_window_bits=9))
    assert agreement is not None
    assert (agreement.inflate_bits, agreement.deflate_bits) == (15, 9)


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        (b"permessage-deflate", b"permessage-deflate"),
        (
            b"permessage-deflate; server_no_context_takeover",
            b"permessage-deflate; server_no_context_takeover",
        ),
        (
            b"permessage-deflate; client_no_context_takeover",
            b"permessage-deflate; client_no_context_takeover",
        ),
    ],
)
def test_with_takeover_only_who_is_asked_forgets(offer: bytes, answer: bytes) -> None:
    """And the answer says who does."""
    agreement = agree([offer], Limits(compression_context_takeover=True))
    assert agreement is not None
    assert agreement.answer == answer
    assert agreement.forget_sent == (b"server_no" in answer)
    assert agreement.forget_received == (b"client_no" in answer)


@pytest.mark.parametrize(
    "parameters",
    [
        b"unknown",
        b"server_no_context_takeover=1",
        b"client_no_context_takeover=true",
        b"server_max_window_bits",
        b"server_max_window_bits=8",
        b"server_max_window_bits=16",
        b"server_max_window_bits=09",
        b"server_max_window_bits=x",
        b"client_max_window_bits=7",
        b"client_max_window_bits=16",
        b"server_no_context_takeover; server_no_context_takeover",
        b"client_max_window_bits; client_max_window_bits=10",
        b"Server_no_context_takeover",
    ],
)
def test_an_offer_that_cannot_be_kept_to_is_declined(parameters: bytes) -> None:
    """The next one has its turn (RFC 7692 section 7.1): none is left, or one is taken."""
    bad = b"permessage-deflate; " + parameters
    assert agree([bad], Limits()) is None
    agreement = agree([b"x-else; y, " + bad + b", permessage-deflate", b"z"], Limits())
    assert agreement is not None
    assert agreement.answer == BOTH


def test_the_first_acceptable_offer_is_taken() -> None:
    """The client lists what it prefers first."""
    lines = [b"permessage-deflate; server_max_window_bits=10, permessage-deflate"]
    agreement = agree(lines, Limits())
    assert agreement is not None
    assert agreement.deflate_bits == 10


# -- messages in --


@pytest.mark.parametrize("cut", [1, 7, STEP - 1, STEP, STEP + 1, 1 << 20])
@pytest.mark.parametrize("size", [0, 1, 5000, 1_000_000])
def test_a_message_is_inflated_in_any_slicing(cut: int, size: int) -> None:
    """Short of a step, in several, and where nothing was gained by deflating it."""
    text = b"".join(b"%d " % number for number in range(size // 4))[:size]
    noise = b"".join(zlib.crc32(b"%d" % number).to_bytes(4) for number in range(size // 40))
    payload = deflated(text + noise)
    assert inflated(payload, Limits(max_message_size=0), cut) == text + noise


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ("f248cdc9c90700", b"Hello"),
        ("f200110000", b"Hello"),
        ("000500faff48656c6c6f00", b"Hello"),
        ("f348cdc9c9070000", b"Hello"),
        ("f24805000000ffffcac9c90700", b"Hello"),
        ("00", b""),
    ],
)
def test_the_examples_of_the_rfc(payload: str, message: bytes) -> None:
    """RFC 7692 section 7.2.3, the one with a shared window aside: it needs what came before."""
    raw = bytes.fromhex(payload)
    if payload == "f200110000":
        deflate = Deflate(MINDFUL, Limits())
        assert deflate.inflate(bytes.fromhex("f248cdc9c90700")) == message
        assert deflate.inflate(raw) == message
    else:
        assert inflated(raw) == Deflate(FORGETFUL, Limits()).inflate(raw) == message


def test_a_message_of_no_bytes_is_empty() -> None:
    """Compressors leave out even the byte of an empty block when they were just flushed."""
    deflate = Deflate(MINDFUL, Limits())
    assert deflate.inflate(b"") == b""
    assert deflate.inflate(deflated(b"on it goes")) == b"on it goes"


def test_final_blocks_end_no_message() -> None:
    """What stands behind one may refer to what stood before it (RFC 7692 section 7.2.3.4)."""
    first = zlib.compressobj(wbits=-15)
    payload = first.compress(b"nothing twice " * 400) + first.flush()
    second = zlib.compressobj(wbits=-15, zdict=b"nothing twice " * 400)
    payload += second.compress(b"nothing twice ") + second.flush(zlib.Z_SYNC_FLUSH)[:-4]
    for cut in (1, 1000):
        assert inflated(payload, cut=cut) == b"nothing twice " * 401


def test_final_blocks_have_a_limit() -> None:
    """Each costs a new inflater, and two bytes to send."""
    assert inflated(b"\x03\x00" * 64 + b"\x00") == b""
    with pytest.raises(Violation, match="final blocks") as caught:
        inflated(b"\x03\x00" * 65 + b"\x00")
    assert caught.value.code == 1008


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff",
        b"\x07",
        deflated(b"cut off, alas")[:-3],
        b"\x00\x05\x00\xfa\xffHel",
        b"\x05\xc0",
        deflated(b"x") + b"\x00\x00",
        b"\x03\x00",
        bytes.fromhex("1451bb72dc300cfc"),  # the beginning of a block's table of codes
    ],
)
@pytest.mark.parametrize("agreement", [FORGETFUL, MINDFUL])
def test_what_is_not_deflated_is_1007(payload: bytes, agreement: Agreement) -> None:
    """So is a message that ends inside of a block: half of it is none."""
    with pytest.raises(Violation, match="RFC 7692") as caught:
        Deflate(agreement, Limits()).inflate(payload)
    assert (caught.value.code, caught.value.option) == (1007, "")


def test_a_message_may_refer_to_the_one_before_only_if_it_was_agreed() -> None:
    """Otherwise nothing was kept."""
    compressor = zlib.compressobj(wbits=-15)
    first, second = (
        compressor.compress(b"the same again") + compressor.flush(zlib.Z_SYNC_FLUSH)
        for _ in range(2)
    )
    mindful, forgetful = Deflate(MINDFUL, Limits()), Deflate(FORGETFUL, Limits())
    assert mindful.inflate(first[:-4]) == forgetful.inflate(first[:-4]) == b"the same again"
    assert mindful.inflate(second[:-4]) == b"the same again"
    with pytest.raises(Violation):
        forgetful.inflate(second[:-4])


# -- bounds --


@pytest.mark.parametrize("cut", [1000, 1 << 20])
def test_a_message_has_its_size_when_inflated(cut: int) -> None:
    """The very last byte that is allowed is; and the bound acts before there is more."""
    limits = Limits(max_message_size=100_000, compression_max_ratio=0)
    assert len(inflated(deflated(bytes(100_000)), limits, cut)) == 100_000
    with pytest.raises(Violation) as caught:
        inflated(deflated(bytes(100_001)), limits, cut)
    assert (caught.value.code, caught.value.option) == (1009, "--websocket-max-message-size")


@pytest.mark.parametrize("cut", [1, 1 << 20])
def test_a_bomb_is_found_by_its_ratio(cut: int) -> None:
    """While it is small: after the first step of it."""
    bomb = deflated(bytes(50_000_000))
    deflate = Deflate(FORGETFUL, Limits(max_message_size=0))
    deflate.begin()
    fed = 0

    def feed() -> Iterator[bytes]:
        nonlocal fed
        for at in range(0, len(bomb), cut):
            fed = at + cut
            yield from deflate.feed(bomb[at : at + cut])

    with pytest.raises(Violation) as caught:
        list(feed())
    assert (caught.value.code, caught.value.option) == (1008, "--websocket-compression-max-ratio")
    assert fed <= max(cut, STEP)


def test_small_messages_have_no_ratio() -> None:
    """64 KiB are allowed to everybody, compressed or not."""
    limits = Limits(compression_max_ratio=1)
    assert len(inflated(deflated(bytes(65_536)), limits)) == 65_536
    with pytest.raises(Violation, match="more than 1 times"):
        inflated(deflated(bytes(65_537)), limits)


def test_the_ratio_counts_what_has_come_so_far() -> None:
    """What is behind does not make good for what is before it: it may never come."""
    noise = b"".join(zlib.crc32(b"%d" % number).to_bytes(4) for number in range(10_000))
    late = deflated(noise + bytes(900_000))
    assert len(inflated(late)) == 940_000
    with pytest.raises(Violation):
        inflated(deflated(bytes(900_000) + noise))


def test_without_bounds_a_message_may_become_anything() -> None:
    """0 is no limit."""
    limits = Limits(max_message_size=0, compression_max_ratio=0)
    assert len(inflated(deflated(bytes(5_000_000)), limits)) == 5_000_000


def test_every_message_has_the_bounds_for_itself() -> None:
    """What came before does not count."""
    deflate = Deflate(FORGETFUL, Limits(max_message_size=1000))
    for _ in range(3):
        assert deflate.inflate(deflated(bytes(1000))) == bytes(1000)


# -- messages out --


@pytest.mark.parametrize("agreement", [FORGETFUL, MINDFUL])
def test_what_is_deflated_becomes_what_it_was(agreement: Agreement) -> None:
    """With an inflater of the window that was agreed on, and of the same memory."""
    deflate = Deflate(agreement, Limits())
    inflater = zlib.decompressobj(-agreement.deflate_bits)
    sizes = []
    for _ in range(3):
        payload = deflate.deflate(b"a message like any other " * 300)
        assert payload is not None
        sizes.append(len(payload))
        out = inflater.decompress(payload + b"\x00\x00\xff\xff")
        assert out == b"a message like any other " * 300
        if agreement.forget_sent:
            inflater = zlib.decompressobj(-agreement.deflate_bits)
    assert (sizes[1] < sizes[0]) is not agreement.forget_sent


def test_what_would_grow_stays_as_it_is() -> None:
    """Unless the client's window has to see it."""
    noise = bytes(range(256))
    assert Deflate(FORGETFUL, Limits()).deflate(noise) is None
    assert Deflate(MINDFUL, Limits()).deflate(noise) is not None


def test_an_empty_message_stays_as_it_is() -> None:
    """There is nothing to gain."""
    assert Deflate(MINDFUL, Limits()).deflate(b"") is None
