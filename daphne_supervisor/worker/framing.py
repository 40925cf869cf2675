"""The outside of WebSocket frames (RFC 6455 section 5.2), and the codes of their end.

Pure: numbers and bytes in, numbers and bytes out.
"""

from __future__ import annotations

import struct

__all__ = [
    "ABNORMAL",
    "BINARY",
    "CLOSE",
    "CODES",
    "COMPRESSED",
    "INVALID_PAYLOAD",
    "MASKED",
    "NORMAL",
    "NO_STATUS",
    "PING",
    "POLICY",
    "PONG",
    "PROTOCOL_ERROR",
    "SERVICE_RESTART",
    "SHORT",
    "SHORTEST_HEADER",
    "SHORT_HEADERS",
    "TEXT",
    "TOO_BIG",
    "TWO_BYTES",
    "Violation",
    "header",
    "lane_end",
]

# The first byte of a final frame; of one that RFC 7692 section 6 compresses, with RSV1 added.
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
COMPRESSED = 0x40

# RFC 6455 section 7.4.1 and the IANA registry of close codes.
NORMAL, PROTOCOL_ERROR, NO_STATUS, ABNORMAL = 1000, 1002, 1005, 1006
INVALID_PAYLOAD, POLICY, TOO_BIG, SERVICE_RESTART = 1007, 1008, 1009, 1012
CODES = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})
"""The codes that may stand in a close frame: those that are defined for it, those that libraries
have registered, and private ones."""

# The second byte of a frame is a bit that tells of a mask, and a length or what stands for one.
MASKED = 128
SHORT = 126
"""A payload of fewer bytes has its length in the second byte of the frame."""
_TWO, _EIGHT = 126, 127
TWO_BYTES = MASKED + _TWO
"""The second byte of a masked frame whose length is in the two bytes that follow."""
SHORTEST_HEADER = 2


class Violation(Exception):
    """The client broke a rule. `code` closes the WebSocket, `option` names the limit, if any."""

    def __init__(self, code: int, reason: str, option: str = "") -> None:
        """Close with `code` because of `reason`."""
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.option = option


SHORT_HEADERS = {
    opcode: tuple(bytes((opcode, size)) for size in range(SHORT))
    for opcode in (TEXT, BINARY, TEXT | COMPRESSED, BINARY | COMPRESSED)
}
"""What `header` returns for messages, by opcode and size, where it has two bytes only."""


def header(opcode: int, size: int) -> bytes:
    """Return the header of an unmasked frame of `size` bytes, in its shortest form."""
    if size < SHORT:
        return bytes((opcode, size))
    if size < 65_536:  # noqa: PLR2004 - what two bytes hold
        return struct.pack("!BBH", opcode, _TWO, size)
    return struct.pack("!BBQ", opcode, _EIGHT, size)


def lane_end(data: bytes, at: int, longest: int, opcodes: frozenset[int]) -> int:
    """Return where the frame that begins at `at` ends, -1 if it is not for the lane.

    In the lane are whole, masked frames of up to `longest` bytes whose first byte is in `opcodes`.
    The end lies beyond `data` while the frame is not whole; so it does while its header is not.
    """
    size = len(data)
    if size - at < SHORTEST_HEADER:
        return size + 1
    opcode, length = data[at], data[at + 1] - MASKED
    if opcode not in opcodes or length < 0 or length == _EIGHT:
        return -1
    start = at + 6
    if length == _TWO:
        if PING <= opcode <= PONG:  # a control frame too large, whatever its length is
            return -1
        if size - at < 4:  # noqa: PLR2004 - the two bytes of the length
            return size + 1
        length = (data[at + 2] << 8) | data[at + 3]
        start = at + 8
        if length < _TWO:  # not the shortest form
            return -1
    return start + length if length <= longest else -1
