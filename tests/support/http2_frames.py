"""HTTP/2 frames as bytes, right or wrong, written down from RFC 9113 and RFC 7541.

Nothing here is taken from the library that the server uses, so that one misreading cannot hide the
other. Header blocks are encoded without a table, as literals that are never indexed: what a frame
says does not depend on the frames before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "PREFACE",
    "Code",
    "Flag",
    "Frame",
    "Setting",
    "Type",
    "block",
    "data",
    "frame",
    "frames",
    "get",
    "goaway",
    "headers",
    "literal",
    "ping",
    "priority",
    "priority_update",
    "reset",
    "settings",
    "window_update",
]

#: What a client sends first (RFC 9113 section 3.4).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADER = 9


class Type(IntEnum):
    """The types of frames (RFC 9113 section 6, RFC 9218 section 7)."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9
    PRIORITY_UPDATE = 0x10


class Flag(IntFlag):
    """The flags of frames; ACK and END_STREAM are one bit, for different types."""

    NONE = 0
    END_STREAM = 0x1
    ACK = 0x1
    END_HEADERS = 0x4
    PADDED = 0x8
    PRIORITY = 0x20


class Code(IntEnum):
    """The error codes (RFC 9113 section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Setting(IntEnum):
    """The settings (RFC 9113 section 6.5.2, RFC 8441 section 3, RFC 9218 section 2.1)."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    ENABLE_CONNECT_PROTOCOL = 8
    NO_RFC7540_PRIORITIES = 9


@dataclass(frozen=True)
class Frame:
    """A frame as it was received; a type that is not known is a bare number."""

    type: int
    flags: Flag
    stream: int
    payload: bytes

    def has(self, flag: Flag) -> bool:
        """Say whether `flag` is set."""
        return bool(self.flags & flag)

    @property
    def content(self) -> bytes:
        """The payload without padding and priority. Raises `ValueError` if there is too much."""
        start, end = 0, len(self.payload)
        if self.has(Flag.PADDED):
            start, end = 1, end - self.payload[0]
        if self.type == Type.HEADERS and self.has(Flag.PRIORITY):
            start += 5
        if end < start:
            message = f"padding exceeds the payload: {self}"
            raise ValueError(message)
        return self.payload[start:end]


def frame(
    kind: int,
    payload: bytes = b"",
    *,
    flags: int = 0,
    stream: int = 0,
    length: int | None = None,
) -> bytes:
    """Return a frame (RFC 9113 section 4.1); its header may lie about the `length`."""
    size = len(payload) if length is None else length
    return size.to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def frames(received: bytes) -> tuple[list[Frame], bytes]:
    """Return the whole frames in `received`, and what is left of it."""
    found, at = [], 0
    while len(received) >= at + _HEADER:
        end = at + _HEADER + int.from_bytes(received[at : at + 3])
        if len(received) < end:
            break
        stream = int.from_bytes(received[at + 5 : at + 9]) & 0x7FFF_FFFF
        payload = received[at + _HEADER : end]
        found.append(Frame(received[at + 3], Flag(received[at + 4]), stream, payload))
        at = end
    return found, received[at:]


def _padded(content: bytes, pad: int | None, flags: int) -> tuple[bytes, int]:
    if pad is None:
        return content, flags
    return bytes([pad]) + content + bytes(pad), flags | Flag.PADDED


# -- header blocks --


def _integer(value: int, bits: int, first: int) -> bytes:
    """Return an integer with a prefix of so many `bits` (RFC 7541 section 5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    encoded = [first | most]
    value -= most
    while value >= 0x80:
        encoded.append(0x80 | (value & 0x7F))
        value >>= 7
    return bytes([*encoded, value])


def literal(name: bytes, value: bytes) -> bytes:
    """Return a field that is never indexed, its name written out (RFC 7541 section 6.2.3)."""
    return b"\x10" + b"".join(_integer(len(text), 7, 0) + text for text in (name, value))


def block(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a header block of such fields."""
    return b"".join(literal(name, value) for name, value in fields)


# -- frames, each by its section of RFC 9113 --


def data(stream: int, content: bytes = b"", *, end: bool = True, pad: int | None = None) -> bytes:
    """Return a DATA frame."""
    payload, flags = _padded(content, pad, Flag.END_STREAM if end else Flag.NONE)
    return frame(Type.DATA, payload, flags=flags, stream=stream)


def headers(
    stream: int, fields: Sequence[tuple[bytes, bytes]], *, end: bool = True, last: bool = True
) -> bytes:
    """Return a HEADERS frame that ends the stream at its `end`, and is the `last` of its block."""
    flags = (Flag.END_STREAM if end else 0) | (Flag.END_HEADERS if last else 0)
    return frame(Type.HEADERS, block(fields), flags=flags, stream=stream)


def get(stream: int, path: bytes = b"/", *fields: tuple[bytes, bytes], end: bool = True) -> bytes:
    """Return a whole request: a GET, or a POST if a body follows because it is not the `end`."""
    pseudo = [
        (b":method", b"GET" if end else b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"test"),
    ]
    return headers(stream, [*pseudo, *fields], end=end)


def priority(stream: int, depends: int = 0, weight: int = 16) -> bytes:
    """Return a PRIORITY frame."""
    return frame(Type.PRIORITY, depends.to_bytes(4) + bytes([weight - 1]), stream=stream)


def reset(stream: int, code: int = Code.CANCEL) -> bytes:
    """Return a RST_STREAM frame."""
    return frame(Type.RST_STREAM, code.to_bytes(4), stream=stream)


def settings(*pairs: tuple[int, int], ack: bool = False) -> bytes:
    """Return a SETTINGS frame."""
    payload = b"".join(key.to_bytes(2) + value.to_bytes(4) for key, value in pairs)
    return frame(Type.SETTINGS, payload, flags=Flag.ACK if ack else Flag.NONE)


def ping(opaque: bytes = b"12345678", *, ack: bool = False) -> bytes:
    """Return a PING frame."""
    return frame(Type.PING, opaque, flags=Flag.ACK if ack else Flag.NONE)


def goaway(last: int = 0, code: int = Code.NO_ERROR, debug: bytes = b"") -> bytes:
    """Return a GOAWAY frame."""
    return frame(Type.GOAWAY, last.to_bytes(4) + code.to_bytes(4) + debug)


def window_update(stream: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return frame(Type.WINDOW_UPDATE, increment.to_bytes(4), stream=stream)


def priority_update(stream: int, value: bytes) -> bytes:
    """Return a PRIORITY_UPDATE frame (RFC 9218 section 7.1)."""
    return frame(Type.PRIORITY_UPDATE, stream.to_bytes(4) + value)
