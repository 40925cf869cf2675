"""A chunked body, in whatever slicing."""

from __future__ import annotations

import pytest

from daphne_supervisor.config import Http
from daphne_supervisor.worker.chunks import MOST, Chunks
from daphne_supervisor.worker.head import Refused
from tests.support.wire import bytewise, cut


class Reader:
    """Gives a body to `Chunks` in pieces, and what was not read again with the next one."""

    def __init__(self, **limits: int) -> None:
        """Begin a body with `limits`."""
        self.chunks = Chunks(Http(**limits))  # type: ignore[arg-type]
        self.body = b""
        self.rest = b""

    def read(self, *pieces: bytes) -> Reader:
        """Read as long as something comes of it; raise what is refused."""
        for piece in pieces:
            self.rest += piece
            again = True
            while again and not self.chunks.done:
                again = self.once()
        return self

    def once(self) -> bool:
        """Read in one go; say whether anything was read."""
        body, at = self.chunks.read(self.rest, 0)
        assert body == b"" or at
        self.body += body
        self.rest = self.rest[at:]
        return at > 0


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"1\r\n0\r\nA;x\r\n0123456789\r\n00\r\n\r\n", b"00123456789"),
        (b'1;a=b;c="\\""\r\n\r\r\n1\r\n\n\r\n0;d\r\n\r\n', b"\r\n"),
        (b"2\r\nab\r\n0\r\nX: y\r\nHost: z\r\n\r\n", b"ab"),
        (b"0\r\nX:\r\n\r\n", b""),
    ],
)
def test_chunks_are_joined(data: bytes, body: bytes) -> None:
    """Whole, byte by byte, cut in two: the body, the end, and what is behind it is left."""
    data += b"GET"
    slicings = [[data], bytewise(data), *(cut(data, [place]) for place in range(1, len(data)))]
    for pieces in slicings:
        reader = Reader().read(*pieces)
        assert (reader.body, reader.rest, reader.chunks.done) == (body, b"GET", True)


def test_a_place_in_the_middle_is_a_place() -> None:
    """What is before it is somebody else's."""
    chunks = Chunks(Http())
    assert chunks.read(b"zzz1\r\nx\r\n0\r\n\r\nzzz", 3) == (b"x", 14)
    assert chunks.done


def test_a_chunk_is_not_waited_for() -> None:
    """What has come of it is told, and a body that has not ended is not done."""
    reader = Reader().read(b"a\r\n0123")
    assert (reader.body, reader.rest, reader.chunks.done) == (b"0123", b"", False)
    reader.read(b"456789\r\n0\r\n")
    assert (reader.body, reader.chunks.done) == (b"0123456789", False)
    reader.read(b"\r")
    assert not reader.chunks.done
    reader.read(b"\n")
    assert reader.chunks.done


def test_chunks_are_read_in_goes() -> None:
    """So many at once; that there are more is told, and that there are not."""
    reader = Reader()
    reader.rest = b"1\r\nx\r\n" * 2 * MOST + b"1"
    assert reader.once()
    assert (len(reader.body), reader.chunks.hasty) == (MOST, True)
    assert reader.once()
    assert len(reader.body) == 2 * MOST
    assert not reader.once()
    assert not reader.chunks.hasty
    reader = Reader()
    reader.rest = b"1\r\nx\r\n" * MOST
    assert reader.once()
    assert (len(reader.body), reader.rest, reader.chunks.hasty) == (MOST, b"", False)


def refusal(data: bytes, **limits: int) -> tuple[int, str, bytes]:
    """Return status, rule and the body before it, which no slicing may change."""
    found = set()
    for pieces in ([data], bytewise(data), cut(data, range(0, len(data), 7))):
        reader = Reader(**limits)
        with pytest.raises(Refused) as caught:
            reader.read(*pieces)
        assert not reader.chunks.done
        found.add((caught.value.status, caught.value.rule, reader.body))
    assert len(found) == 1
    return found.pop()


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"x\r\n", "size or extension"),
        (b"\r\n", "size or extension"),
        (b"1 \r\nx\r\n0\r\n\r\n", "size or extension"),
        (b"fffffffffffffffff\r\n", "size or extension"),
        (b"1\nx", "malformed chunk: CR or LF alone"),
        (b"1;a\rb", "malformed chunk: CR or LF alone"),
        (b"0\r\n\n", "malformed trailer: CR or LF alone"),
        (b"0\r\n\rX", "malformed trailer: CR or LF alone"),
        (b"0\r\nX: y\nZ: z\r\n\r\n", "malformed trailer: CR or LF alone"),
        (b"0\r\nX : y\r\n\r\n", "blank before the colon"),
        (b"0\r\n X: y\r\n\r\n", "folded"),
        (b"0\r\nX: a\0\r\n\r\n", "control byte"),
        (b"0\r\nContent-Length: 5\r\n\r\n", "content-length among the trailers"),
        (b"0\r\nX: y\r\nTRANSFER-encoding: x\r\n\r\n", "transfer-encoding among the trailers"),
    ],
)
@pytest.mark.parametrize("before", [b"", b"3\r\nabc\r\n", b"1\r\nx\r\n" * 2 * MOST])
def test_what_is_malformed_is_refused(before: bytes, data: bytes, rule: str) -> None:
    """With the same rule in any slicing, and not before the body in front of it was told."""
    status, found, body = refusal(before + data)
    assert status == 400
    assert rule in found
    assert body == Reader().read(before).body


@pytest.mark.parametrize("behind", [b"x", b"\n", b"\rx", b"x\r\n", b"\r\r\n"])
def test_data_ends_where_it_was_said(behind: bytes) -> None:
    """Behind it is CR LF, or a size was wrong, and where the body ends is anybody's guess."""
    assert refusal(b"1\r\nx" + behind) == (
        400,
        "malformed chunk: no CR LF behind it (RFC 9112 section 7.1)",
        b"x",
    )


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"1;" + b"a" * 20 + b"\r\n", "chunk extensions"),
        (b"1;aaaaa\r\nx\r\n" * 4, "chunk extensions"),
        (b"1;" + b"a" * 40, "chunk extensions"),
        (b"1" * 40, "chunk extensions"),
        (b"0\r\nX: " + b"y" * 16 + b"\r\n\r\n", "trailers"),
        (b"0\r\nX: " + b"y" * 30, "trailers"),
        (b"0\r\n" + b"X: y\r\n" * 4, "trailers"),
        (b"0;aaaaaaaaa\r\nX: yyyyyy\r\n\r\n", "trailers"),
    ],
)
def test_extensions_and_trailers_are_bounded_together(data: bytes, what: str) -> None:
    """By --max-header-size, in any slicing, complete or not."""
    status, rule, _ = refusal(data, max_header_size=20)
    assert (status, rule) == (431, f"{what} exceed --max-header-size")


@pytest.mark.parametrize(
    "data",
    [
        b"1;" + b"a" * 19 + b"\r\nx\r\n0\r\n\r\n",
        b"1;aaaa\r\nx\r\n" * 4 + b"0\r\n\r\n",
        b"0\r\nX: " + b"y" * 15 + b"\r\n\r\n",
        b"0;aaaaaaaaa\r\nX: yyyyy\r\n\r\n",
        b"1\r\nx\r\n" * 100 + b"0\r\n\r\n",
    ],
)
def test_what_just_fits_is_taken(data: bytes) -> None:
    """The limit is what is allowed, in any slicing; plain chunks are not counted."""
    for pieces in ([data], bytewise(data)):
        assert Reader(max_header_size=20).read(*pieces).chunks.done


def test_trailers_are_counted() -> None:
    """--max-header-count of them pass, one more is 431."""
    trailers = b"0\r\n" + b"X: y\r\n" * 3
    assert Reader(max_header_count=3).read(trailers + b"\r\n").chunks.done
    status, rule, _ = refusal(trailers + b"Z: z\r\n\r\n", max_header_count=3)
    assert (status, rule) == (431, "trailers exceed --max-header-count")
    status, rule, _ = refusal(trailers + b"Z: z\nz\r\n\r\n", max_header_count=3)
    assert (status, rule) == (400, "malformed trailer: CR or LF alone (RFC 9112 section 2.2)")
