"""The frames of HTTP/2 (RFC 9113 sections 4 to 7): their names, and how they are written. Pure.

The registries of codes and settings are those of `h2`, of which nothing else is used.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from h2.errors import ErrorCodes as Code
from h2.settings import SettingCodes as Setting

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "LAST_STREAM",
    "LONGEST",
    "NO_RFC7540_PRIORITIES",
    "PREFACE",
    "Code",
    "ConnectionFault",
    "Setting",
    "StreamFault",
    "check_setting",
    "data_head",
    "goaway",
    "header_frames",
    "ping",
    "reset",
    "settings",
    "settings_ack",
    "window_update",
]

#: What a client sends before its first frame (RFC 9113 section 3.4).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: The longest payload that everybody has to take, and the longest that we take (section 4.2).
LONGEST = 16_384
#: The longest that anybody may take.
_LONGEST_FRAME = 2**24 - 1
#: The highest number that a stream can have: in a GOAWAY it promises nothing yet (section 6.8).
LAST_STREAM = 2**31 - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY = range(8)
WINDOW_UPDATE, CONTINUATION = 8, 9
PRIORITY_UPDATE = 16  # RFC 9218 section 7.1

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20


#: A setting that `h2` does not know (RFC 9218 section 2.1).
NO_RFC7540_PRIORITIES = 9


class ConnectionFault(Exception):
    """The client broke a rule that ends its connection (RFC 9113 section 5.4.1).

    `code` is what the GOAWAY says, `rule` what the log says: the rule, or the option.
    """

    def __init__(self, code: Code, rule: str) -> None:
        """End the connection with `code` because of `rule`."""
        super().__init__(rule)
        self.code = code
        self.rule = rule


class StreamFault(Exception):
    """The client broke a rule that ends `stream` (RFC 9113 section 5.4.2)."""

    def __init__(self, stream: int, code: Code, rule: str) -> None:
        """End `stream` with `code` because of `rule`."""
        super().__init__(rule)
        self.stream = stream
        self.code = code
        self.rule = rule


_HEAD = struct.Struct("!HBBBL")  # 16 and 8 bits of length, type, flags, stream
_SETTING = struct.Struct("!HL")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    size = len(payload)
    return _HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def data_head(stream: int, size: int, *, end: bool) -> bytes:
    """Return what stands before `size` bytes of DATA."""
    return _HEAD.pack(size >> 8, size & 0xFF, DATA, END_STREAM if end else 0, stream)


def header_frames(stream: int, block: bytes, *, end: bool) -> bytes:
    """Return a field block as HEADERS, and as many CONTINUATIONs as it takes."""
    flags = END_STREAM if end else 0
    size = len(block)
    if size <= LONGEST:
        return _HEAD.pack(size >> 8, size & 0xFF, HEADERS, flags | END_HEADERS, stream) + block
    frames = [_frame(HEADERS, flags, stream, block[:LONGEST])]
    for start in range(LONGEST, size, LONGEST):
        last = END_HEADERS if start + LONGEST >= size else 0
        frames.append(_frame(CONTINUATION, last, stream, block[start : start + LONGEST]))
    return b"".join(frames)


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """Return our SETTINGS."""
    return _frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in values))


def settings_ack() -> bytes:
    """Return the acknowledgement of the client's SETTINGS."""
    return _frame(SETTINGS, ACK, 0, b"")


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return the settings of a payload whose length is a multiple of six."""
    return list(_SETTING.iter_unpack(payload))


def ping(payload: bytes, *, ack: bool) -> bytes:
    """Return a PING, or the answer to one; `payload` has 8 bytes."""
    return _frame(PING, ACK if ack else 0, 0, payload)


def goaway(last: int, code: Code, text: str = "") -> bytes:
    """Return a GOAWAY: streams above `last` were and will not be processed."""
    return _frame(GOAWAY, 0, 0, struct.pack("!LL", last, code) + text.encode("ascii", "replace"))


def reset(stream: int, code: Code) -> bytes:
    """Return a RST_STREAM."""
    return _frame(RST_STREAM, 0, stream, struct.pack("!L", code))


def window_update(stream: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE; stream 0 is the connection."""
    return _frame(WINDOW_UPDATE, 0, stream, struct.pack("!L", increment))


_SWITCHES = frozenset({Setting.ENABLE_PUSH, Setting.ENABLE_CONNECT_PROTOCOL, NO_RFC7540_PRIORITIES})


def check_setting(setting: int, value: int) -> None:
    """Raise `ConnectionFault` for a value that a setting cannot have (RFC 9113 section 6.5.2)."""
    if setting in _SWITCHES and value > 1:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "a setting that is neither 0 nor 1")
    if setting == Setting.INITIAL_WINDOW_SIZE and value > LAST_STREAM:
        raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "window above 2^31-1")
    if setting == Setting.MAX_FRAME_SIZE and not LONGEST <= value <= _LONGEST_FRAME:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "a largest frame below 2^14 or above 2^24-1")
