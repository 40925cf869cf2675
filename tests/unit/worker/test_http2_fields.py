"""Field blocks: what is kept of them, and what leaves a trace."""

from __future__ import annotations

import pytest
from hpack import Decoder, Encoder

from daphne_supervisor.worker.http2_fields import FieldReader, FieldWriter, literal
from daphne_supervisor.worker.http2_frames import Code, ConnectionFault

FIELDS = [(b":method", b"GET"), (b"x-own", b"value")]


def test_blocks_are_read_in_order() -> None:
    """The second one means the same by numbers."""
    encoder, reader = Encoder(), FieldReader(1000)
    for _ in range(2):
        assert reader.read(encoder.encode(FIELDS)) == FIELDS


def test_what_means_the_same_again_is_kept() -> None:
    """Only a block that has left the table as it was, and only until another one changes it."""
    encoder, reader = Encoder(), FieldReader(1000)
    first = encoder.encode(FIELDS)
    reader.read(first)
    reader.keep(first, end=True, meaning="first")
    assert reader.known == {}
    second = encoder.encode(FIELDS)
    reader.read(second)
    reader.keep(second, end=True, meaning="second")
    assert reader.known == {(second, True): "second"}
    reader.read(second)
    assert reader.known
    reader.read(encoder.encode([(b"x-other", b"value")]))
    assert reader.known == {}


def test_what_is_kept_is_bounded() -> None:
    """Neither many blocks nor a long one stay for ever."""
    reader = FieldReader(10_000)
    for number in range(100):
        block = literal(b"x", b"%d" % number)
        reader.read(block)
        reader.keep(block, end=False, meaning=number)
        assert 0 < len(reader.known) <= 32
    long = literal(b"x", bytes(600))
    reader.read(long)
    reader.keep(long, end=False, meaning=0)
    assert (long, False) not in reader.known


@pytest.mark.parametrize("block", [b"\x80", b"\xff", b"\xff\xff\xff\xff\x0f", b"\x40\x05ab"])
def test_what_cannot_be_unpacked_ends_the_connection(block: bytes) -> None:
    """What comes behind it would mean something else."""
    with pytest.raises(ConnectionFault) as caught:
        FieldReader(1000).read(block)
    assert caught.value.code is Code.COMPRESSION_ERROR


def test_a_bomb_is_not_unpacked() -> None:
    """A few bytes that say one long field again and again."""
    reader = FieldReader(100_000)
    reader.read(b"\x40\x01x\x7f\xa1\x1e" + bytes(4000))
    with pytest.raises(ConnectionFault, match="--max-header-size") as caught:
        reader.read(b"\xbe" * 1000)
    assert caught.value.code is Code.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    "field",
    [
        (b"date", b"Thu, 01 Jan 1970 00:00:00 GMT"),
        (b"x-own", b""),
        (b"content-length", b"1"),
        (b"x" * 200, b"y" * 20_000),
        (b":status", b"200"),
    ],
)
@pytest.mark.parametrize("never", [False, True])
def test_a_literal_leaves_no_trace(field: tuple[bytes, bytes], *, never: bool) -> None:
    """It is read as it was, and no table is changed; a secret one says so."""
    decoder = Decoder(100_000)
    (read,) = decoder.decode(literal(*field, never=never), raw=True)
    assert tuple(read) == field
    assert read.indexable is not never
    assert not decoder.header_table.dynamic_entries


def test_what_is_said_again_gets_short() -> None:
    """The version tells whether a block may be sent again."""
    writer, decoder = FieldWriter(), Decoder()
    before = writer.version
    first = writer.write(FIELDS)
    assert writer.version != before
    before = writer.version
    second = writer.write(FIELDS)
    assert writer.version == before
    assert len(second) == 2
    for block in (first, second, second):
        assert decoder.decode(block, raw=True) == FIELDS


def test_what_passes_is_not_remembered() -> None:
    """Lengths and tags do not push out what comes again; cookies never enter a table."""
    fields = [(b"etag", b"1"), (b"content-length", b"5"), (b"set-cookie", b"secret")]
    writer, decoder = FieldWriter(), Decoder()
    before = writer.version
    read = decoder.decode(writer.write(fields), raw=True)
    assert [tuple(field) for field in read] == fields
    assert [field.indexable for field in read] == [True, True, False]
    assert writer.version == before
    assert not decoder.header_table.dynamic_entries


@pytest.mark.parametrize(("asked", "used"), [(0, 0), (100, 100), (10**6, 4096)])
def test_the_client_says_how_long_the_table_is(asked: int, used: int) -> None:
    """It is told in the next block; more than the usual is not used."""
    writer, decoder = FieldWriter(), Decoder()
    decoder.max_allowed_table_size = max(asked, 4096)
    decoder.decode(writer.write(FIELDS))
    before = writer.version
    writer.resize(asked)
    assert writer.version != before
    for _ in range(2):
        assert decoder.decode(writer.write(FIELDS), raw=True) == FIELDS
    assert decoder.header_table.maxsize == used


@pytest.mark.parametrize("update", [b"\x20", b"\x3f\xe1\x1f"])
def test_a_block_changes_the_table_twice_at_most(update: bytes) -> None:
    """As RFC 7541 section 4.2 has it: there is room for thousands."""
    reader = FieldReader(1000)
    assert reader.read(update * 2 + b"\x82") == [(b":method", b"GET")]
    with pytest.raises(ConnectionFault) as caught:
        reader.read(update * 3 + b"\x82")
    assert caught.value.code is Code.COMPRESSION_ERROR
