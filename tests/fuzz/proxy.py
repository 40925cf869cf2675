"""PROXY protocol: a header is read the same in any slicing, or refused with one of two errors."""

from __future__ import annotations

from daphne_supervisor.worker.proxy_protocol import (
    LONGEST,
    Header,
    MalformedError,
    NoHeaderError,
    read,
)
from tests.fuzz.choices import split

__all__ = ["DICTIONARY", "check"]

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"

DICTIONARY = [
    b"PROXY TCP4 192.0.2.7 198.51.100.9 4711 443\r\n",
    b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n",
    b"PROXY UNKNOWN\r\n",
    b"PROXY UNKNOWN a b\r\n",
    b" 65536",
    b" 0",
    b"::ffff:1.2.3.4",
    b"\r\n",
    b"\n",
    SIGNATURE,
    SIGNATURE + b"\x20\0\0\0",
    SIGNATURE + b"\x21\x00\0\0",
    SIGNATURE + b"\x21\x11\0\x0c" + bytes(12),
    SIGNATURE + b"\x21\x21\0\x24" + bytes(36),
    SIGNATURE + b"\x21\x31\0\xd8" + bytes(216),
    SIGNATURE + b"\x21\x11\0\x13" + bytes(12) + b"\x03\0\x04" + bytes(4),
    b"\x03\0\x04",
    b"\x20\0\x05\x01\0\0\0\0",
    b"\x04\0\0",
]


def check(data: bytes) -> None:
    """Fail if an input breaks what this module promises."""
    wire, _ = split(data)
    found = told(wire)
    size, early = 0, told(b"")
    while early is None and size < len(wire):
        assert size < LONGEST, "waits for more than the longest header"
        size += 1
        early = told(wire[:size])
    if isinstance(found, Header):
        # No later, or an application would wait; no earlier, or some of it would pass for more.
        assert early == found
        assert size == found.size
    else:
        # The same error; its text quotes a line only as far as it has come.
        assert type(early) is type(found)


def told(data: bytes) -> object:
    """Return what is read of `data`: a header, an error, or None while more has to come."""
    try:
        return read(data)
    except (NoHeaderError, MalformedError) as error:
        return error
