"""Clients that mean harm over WebSocket cost themselves something, not their neighbours."""

from __future__ import annotations

import zlib

import pytest

from tests.support.siege import MEBIBYTE, Siege
from tests.support.swarm import Manner
from tests.support.transports import frame

_HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_TEXT, _CONTINUATION, _BINARY, _PING = 1, 0, 2, 9
_COMPRESSING = _HANDSHAKE.replace(
    b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)
_POLICY, _TOO_BIG = (1008).to_bytes(2, "big"), (1009).to_bytes(2, "big")


@pytest.mark.parametrize(
    ("size", "option"),
    [(2**62, "--websocket-max-message-size"), (100_000, "--websocket-max-frame-size")],
    ids=["message", "frame"],
)
def test_giant_announced_frames(size: int, option: str) -> None:
    """A frame that is announced to be too large is refused by its header, and names the option."""
    with Siege("--websocket-max-frame-size", "65536") as siege:
        header = b"\x82\xff" + size.to_bytes(8, "big") + b"mask"
        manner = Manner(opening=_HANDSHAKE, waits=True, flood=header + bytes(65_536), returns=True)
        endings = siege.bear(4, manner, memory=16 * MEBIBYTE)
        assert [ending for ending in endings if _TOO_BIG not in ending.last] == []
        assert option in siege.log


def test_empty_fragment_flood() -> None:
    """A message of fragments without end is refused, though it has no size."""
    with Siege() as siege:
        fragments = frame(_TEXT, last=False) + frame(_CONTINUATION, last=False) * 10_000
        manner = Manner(opening=_HANDSHAKE, waits=True, flood=fragments, returns=True)
        endings = siege.bear(2, manner, memory=16 * MEBIBYTE)
        assert [ending for ending in endings if _POLICY not in ending.last] == []
        assert "--websocket-max-fragments" in siege.log


@pytest.mark.parametrize(
    ("ratio", "code", "option"),
    [
        ("100", _POLICY, "--websocket-compression-max-ratio"),
        ("0", _TOO_BIG, "--websocket-max-message-size"),
    ],
    ids=["ratio", "size"],
)
def test_compression_bombs(ratio: str, code: bytes, option: str) -> None:
    """Zeros are inflated no further than a limit allows, and the refusal names the option."""
    with Siege("--websocket-compression", "--websocket-compression-max-ratio", ratio) as siege:
        deflate = zlib.compressobj(wbits=-15)
        bomb = deflate.compress(bytes(64 * MEBIBYTE)) + deflate.flush(zlib.Z_SYNC_FLUSH)
        message = frame(_BINARY, bomb[:-4], reserved=4)  # RFC 7692 section 7.2.1
        manner = Manner(opening=_COMPRESSING, waits=True, flood=message, returns=True)
        # Of 128 MiB that they would be, again and again. It is 2 or 3.
        endings = siege.bear(2, manner, memory=16 * MEBIBYTE)
        assert [ending for ending in endings if code not in ending.last] == []
        assert option in siege.log


def test_ping_flood() -> None:
    """Each ping may be answered, but no faster than others are served."""
    with Siege() as siege:
        flood = frame(_PING, bytes(125)) * 500
        manner = Manner(opening=_HANDSHAKE, waits=True, flood=flood)
        siege.bear(2, manner, memory=16 * MEBIBYTE)


def test_unread_ping_flood() -> None:
    """Who reads no pong is not listened to any more, and dropped after --write-timeout."""
    with Siege("--write-timeout", "1") as siege:
        flood = frame(_PING, bytes(125)) * 500
        manner = Manner(opening=_HANDSHAKE, waits=True, flood=flood, reads=False)
        siege.bear(2, manner, memory=16 * MEBIBYTE, thrown_out=True)
        assert "dropped, it reads nothing (--write-timeout)" in siege.log


def test_message_flood() -> None:
    """Small messages without a pause keep nobody waiting."""
    with Siege() as siege:
        flood = frame(_BINARY, b"a") * 5000
        siege.bear(4, Manner(opening=_HANDSHAKE, waits=True, flood=flood), memory=16 * MEBIBYTE)
