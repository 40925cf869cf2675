"""The grammar of PROXY headers, by section of HAProxy's proxy-protocol.txt."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from daphne_supervisor.worker.proxy_protocol import (
    LONGEST,
    Header,
    MalformedError,
    NoHeaderError,
    read,
)

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
INET = bytes((192, 0, 2, 7, 198, 51, 100, 9)) + struct.pack("!HH", 4711, 443)
MAPPED = str(ipaddress.ip_address("::ffff:192.0.2.7"))  # by Python's version
CLIENT, SERVER = ("192.0.2.7", 4711), ("198.51.100.9", 443)


def v2(block: bytes = INET, command: int = 0x21, family: int = 0x11) -> bytes:
    """Return a header of version 2, written down from section 2.2."""
    return SIGNATURE + bytes((command, family)) + len(block).to_bytes(2) + block


def field(kind: int, value: bytes) -> bytes:
    """Return a TLV."""
    return bytes((kind,)) + len(value).to_bytes(2) + value


def crc32c(data: bytes) -> bytes:
    """Return the checksum of RFC 3309 by long division, bit by bit, most significant first."""
    flipped = [int(f"{byte:08b}"[::-1], 2) for byte in data]
    number = 0xFFFFFFFF
    for byte in flipped:
        number ^= byte << 24
        for _ in range(8):
            number = (number << 1 ^ (0x1EDC6F41 if number >> 31 else 0)) & 0xFFFFFFFF
    return int(f"{number ^ 0xFFFFFFFF:032b}"[::-1], 2).to_bytes(4)


def summed() -> bytes:
    """Return a header with a checksum that is right."""
    blank = v2(INET + field(3, bytes(4)) + field(4, b"pad"))
    at = len(v2()) + 3
    return blank[:at] + crc32c(blank) + blank[at + 4 :]


GOOD = [
    (b"PROXY TCP4 192.0.2.7 198.51.100.9 4711 443\r\n", CLIENT, SERVER),
    (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", ("0.0.0.0", 0), ("255.255.255.255", 65535)),
    (b"PROXY TCP6 2001:DB8::1 ::1 1 2\r\n", ("2001:db8::1", 1, 0, 0), ("::1", 2, 0, 0)),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n", (MAPPED, 1, 0, 0), ("::1", 2, 0, 0)),
    (v2(), CLIENT, SERVER),
    (v2(family=0x12), CLIENT, SERVER),
    (v2(INET + field(0xE0, b"x" * 300) + field(0x20, b"")), CLIENT, SERVER),
    (
        v2(
            ipaddress.ip_address("2001:db8::1").packed + bytes(15) + b"\x01\x00\x01\x00\x02",
            family=0x21,
        ),
        ("2001:db8::1", 1, 0, 0),
        ("::1", 2, 0, 0),
    ),
    (v2(b"/a".ljust(108, b"\0") + b"/b".ljust(108, b"\0"), family=0x31), "/a", "/b"),
    (summed(), CLIENT, SERVER),
]


@pytest.mark.parametrize(("data", "client", "server"), GOOD)
def test_a_header_says_whose_connection_it_is(data: bytes, client: object, server: object) -> None:
    """Both ends as a socket says them, and how long it is; what follows is not looked at."""
    assert read(data + b"GET / HTTP/1.1\r\n") == Header(len(data), client, server)
    assert read(data) == Header(len(data), client, server)
    assert Header(0, client, server).known is isinstance(client, tuple)


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN whatever it says\r\n",
        b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n",
        v2(b"", family=0x00),
        v2(INET, family=0x00),
    ],
)
def test_a_proxy_may_not_know(data: bytes) -> None:
    """Then the connection's own ends hold, and nobody vouches for the client."""
    assert read(data) == Header(len(data))
    assert not Header(len(data)).known


def test_a_proxy_may_speak_for_itself() -> None:
    """Of the command LOCAL nothing else is looked at (section 2.2)."""
    for data in (v2(b"", 0x20, 0x00), v2(b"anything", 0x20, 0x99)):
        header = read(data)
        assert header == Header(len(data), local=True)
        assert header.known


@pytest.mark.parametrize(("flags", "secure"), [(0x01, True), (0x07, True), (0x06, False)])
def test_a_proxy_says_that_its_client_speaks_tls(flags: int, secure: bool) -> None:  # noqa: FBT001
    """By the bit PP2_CLIENT_SSL of the field PP2_TYPE_SSL (section 2.2.6)."""
    header = read(v2(INET + field(0x20, bytes((flags, 0, 0, 0, 0)) + field(0x21, b"TLSv1.3"))))
    assert header is not None
    assert header.secure is secure


BAD = [
    (b"PROXY TCP4 192.0.2.7 198.51.100.9 4711 443\n", "grammar"),
    (b"PROXY \r\n", "grammar"),
    (b"PROXY TCP5 192.0.2.7 198.51.100.9 4711 443\r\n", "grammar"),
    (b"PROXY TCP4  192.0.2.7 198.51.100.9 4711 443\r\n", "grammar"),
    (b"PROXY TCP4 192.0.2.7 198.51.100.9 4711 443 \r\n", "grammar"),
    (b"PROXY TCP4 192.0.2.7 198.51.100.9 4711\r\n", "grammar"),
    (b"PROXY TCP4 192.0.2.7 198.51.100.9 -1 443\r\n", "grammar"),
    (b"PROXY UNKNOWNS\r\n", "grammar"),
    (b"PROXY TCP4 192.0.2.007 198.51.100.9 1 2\r\n", "no address"),
    (b"PROXY TCP4 ::1 198.51.100.9 1 2\r\n", "no address"),
    (b"PROXY TCP6 192.0.2.7 ::1 1 2\r\n", "no address"),
    (b"PROXY TCP4 192.0.2.7 198.51.100.9 65536 2\r\n", "no port"),
    (b"PROXY TCP4 192.0.2.7 198.51.100.9 1 02\r\n", "no port"),
    (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", "longer than 107"),
    (b"PROXY " + b"x" * 200, "longer than 107"),
    (v2(command=0x11), "no version and command"),
    (v2(command=0x22), "no version and command"),
    (v2(family=0x10), "no family"),
    (v2(family=0x41), "no family"),
    (v2(INET[:-1]), "too few"),
    (v2(INET, family=0x21), "too few"),
    (v2(INET + b"\x04\x00"), "cut off"),
    (v2(INET + b"\x04\x00\x02x"), "cut off"),
    (v2(INET + field(3, b"four")), "checksum"),
    (v2(INET + field(3, b"")), "checksum"),
    (v2(bytes(LONGEST)), f"more than {LONGEST}"),
]


@pytest.mark.parametrize(("data", "complaint"), BAD)
def test_what_is_wrong_is_named(data: bytes, complaint: str) -> None:
    """Nothing is guessed: a receiver must not go on with a connection of nobody's (section 2)."""
    with pytest.raises(MalformedError, match=complaint):
        read(data)


def test_a_header_that_is_too_long_is_refused_before_it_has_come() -> None:
    """Its length is known from the first 16 bytes."""
    with pytest.raises(MalformedError, match="more than"):
        read(v2(bytes(LONGEST))[:16])


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"PROXYTCP4", b"\r\n\r\nG", b"\x16\x03"]
)
def test_anything_else_is_no_header(data: bytes) -> None:
    """Said as soon as the first byte that tells."""
    with pytest.raises(NoHeaderError):
        read(data)


@pytest.mark.parametrize("data", [each[0] for each in GOOD])
def test_the_rest_is_waited_for(data: bytes) -> None:
    """Every beginning of a header is one."""
    assert {read(data[:size]) for size in range(len(data))} == {None}
