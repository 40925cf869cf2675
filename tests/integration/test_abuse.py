"""Clients that mean harm over HTTP cost themselves something, not their neighbours."""

from __future__ import annotations

import pytest

from tests.support.siege import MEBIBYTE, Siege
from tests.support.swarm import Manner

_HEAD = b"GET / HTTP/1.1\r\nHost: test\r\n"
_REQUEST = _HEAD + b"\r\n"


def test_2000_idle_connections() -> None:
    """They cost 24 KiB each; who has never asked for anything is closed after --head-timeout."""
    with Siege("--head-timeout", "2") as siege:
        siege.bear(2000, Manner(), memory=2000 * 24 * 1024, thrown_out=True)
        siege.bear(2000, Manner(opening=_REQUEST), memory=2000 * 24 * 1024)
        assert siege.most >= 2000


def test_dribbled_heads() -> None:
    """A head that comes byte by byte is waited for --head-timeout long, not from byte to byte."""
    with Siege("--head-timeout", "1") as siege:
        manner = Manner(opening=_HEAD + b"X-Slow: ", drip=b"a", gap=0.05)
        endings = siege.bear(200, manner, memory=8 * MEBIBYTE, thrown_out=True)
        assert len(endings) == 200
        assert {ending.first[:13] for ending in endings} == {b"HTTP/1.1 408 "}
        assert max(ending.lasted for ending in endings) < 4.0
        assert "refused 408, head took longer than --head-timeout" in siege.log


def test_pipelined_flood() -> None:
    """Who asks without a pause is answered in turn, and no faster than others."""
    with Siege() as siege:
        siege.bear(4, Manner(flood=_REQUEST * 1000), memory=16 * MEBIBYTE)


def test_unread_pipelined_flood() -> None:
    """Who asks without a pause and reads no answer is not listened to any more."""
    with Siege("--write-timeout", "1") as siege:
        request = b"GET /blob?64 HTTP/1.1\r\nHost: test\r\n\r\n"
        manner = Manner(flood=request * 1000, reads=False)
        endings = siege.bear(4, manner, memory=16 * MEBIBYTE, thrown_out=True)
        assert len(endings) == 4
        assert "dropped, it reads nothing (--write-timeout)" in siege.log


@pytest.mark.parametrize(
    ("opening", "status", "option"),
    [
        (b"GET /" + b"a" * MEBIBYTE, b"414", "exceeds --max-request-line"),
        (_HEAD + b"X-Large: " + b"a" * MEBIBYTE, b"431", "exceed --max-header-size"),
        (_HEAD + b"X: y\r\n" * 200_000, b"431", "exceed --max-header-count"),
    ],
    ids=["line", "size", "count"],
)
def test_header_floods(opening: bytes, status: bytes, option: str) -> None:
    """Heads beyond a limit are refused while they arrive, and the refusal names the option."""
    with Siege() as siege:
        manner = Manner(opening=opening, returns=True)
        endings = siege.bear(4, manner, memory=48 * MEBIBYTE)
        assert {ending.first[:13] for ending in endings} == {b"HTTP/1.1 " + status + b" "}
        assert f"refused {status.decode()}, " in siege.log
        assert option in siege.log


def test_chunk_flood() -> None:
    """A body in chunks of one byte is as slow as its client wanted, and nobody else is."""
    with Siege() as siege:
        opening = b"POST /digest HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
        manner = Manner(opening=opening, flood=b"1\r\na\r\n" * 10_000)
        siege.bear(2, manner, memory=16 * MEBIBYTE)


def test_unread_responses() -> None:
    """Who reads no response is dropped after --write-timeout, and cost a buffer meanwhile.

    What the transport holds before it says so, what leaves together, and the application's piece.
    """
    with Siege("--write-timeout", "1") as siege:
        manner = Manner(opening=b"GET /stream?100000 HTTP/1.1\r\nHost: test\r\n\r\n", reads=False)
        endings = siege.bear(100, manner, memory=100 * 704 * 1024, thrown_out=True)
        assert len(endings) == 100
        assert siege.log.count("dropped, it reads nothing (--write-timeout)") >= 100


def test_dribbled_bodies() -> None:
    """A body that comes byte by byte is given up when it is below --body-min-rate."""
    with Siege() as siege:
        opening = b"POST /digest HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n"
        manner = Manner(opening=opening, drip=b"a", gap=0.05)
        endings = siege.bear(200, manner, memory=8 * MEBIBYTE, thrown_out=True)
        assert len(endings) == 200
        assert {ending.first[:13] for ending in endings} == {b"HTTP/1.1 408 "}
        assert max(ending.lasted for ending in endings) < 9.0
        assert "--body-min-rate" in siege.log


def test_giant_announced_bodies() -> None:
    """A body that is announced to be too large is refused before any of it is read."""
    with Siege("--max-body-size", "1000000") as siege:
        opening = (
            b"POST /digest HTTP/1.1\r\nHost: test\r\nContent-Length: 9000000000000000000\r\n\r\n"
        )
        manner = Manner(opening=opening, flood=bytes(65_536), stubborn=True)
        endings = siege.bear(10, manner, memory=16 * MEBIBYTE, thrown_out=True)
        assert len(endings) == 10
        assert {ending.first[:13] for ending in endings} == {b"HTTP/1.1 413 "}
        assert "refused 413, Content-Length exceeds --max-body-size" in siege.log
