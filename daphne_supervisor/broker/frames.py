"""What the broker and a channel layer say to each other: the frames, and how they are cut.

A frame is a head and a payload. The head is the payload's length, the kind and a number: the answer
to a request has the number of the request, anything else has 0. A payload begins with one or two
names, each behind its length in one byte, since the names of channels and groups are ASCII and
shorter than 100 (the specification of channel layers in the documentation of Channels). In front of
them stands their space, which ends with a colon: layers in different spaces know nothing of each
other. What follows a name is a moment and a message: a message is opaque here, and never read.

Moments are seconds of the system's monotonic clock, which is the same for all processes.
"""

from __future__ import annotations

from struct import Struct

__all__ = [
    "ACK",
    "CANCEL",
    "DELIVER",
    "FLUSH",
    "FLUSHED",
    "FULL",
    "GIVE_BACK",
    "GROUP",
    "HELLO",
    "JOIN",
    "LARGEST",
    "LEAVE",
    "LIMITS",
    "MEMBERSHIP",
    "MESSAGE",
    "MOMENT",
    "OPEN",
    "PUBLISH",
    "RECEIVE",
    "REFUSED",
    "SEND",
    "SUBSCRIBE",
    "TURN",
    "UNSUBSCRIBE",
    "Splitter",
    "frame",
    "name_in",
    "named",
    "owner_of",
]

# From a layer to the broker; ? is answered by ACK.
HELLO = 1  # ? name of the client, b"\1" from the connection that gets what is for the client
SUBSCRIBE = 2  # ? group, turn: this client has members in it
UNSUBSCRIBE = 3  # group, turn: it has no more
JOIN = 4  # ? group, channel, membership: a channel that is not this client's own
LEAVE = 5  # ? group, channel
PUBLISH = 6  # ? group, moment of expiry, message
SEND = 7  # ? channel, limits, message; or REFUSED
RECEIVE = 8  # channel; answered by MESSAGE when there is one
CANCEL = 9  # nothing; the number is that of RECEIVE
GIVE_BACK = 10  # channel, moment of expiry, message: nobody waits for it any more
FULL = 11  # channel of this client's: it can take no more
OPEN = 12  # channel of this client's: it can take some again
FLUSH = 13  # ? space: forget all messages and groups in it

# From the broker to a layer.
ACK = 21  # nothing
REFUSED = 22  # nothing: the channel is full
MESSAGE = 23  # as GIVE_BACK
GROUP = 24  # as PUBLISH
DELIVER = 25  # channel, moment of expiry, message
FLUSHED = 26  # as FLUSH

MOMENT = Struct("<d")
"""When a message expires."""
LIMITS = Struct("<dI")
"""When a message expires, and the capacity of its channel."""
MEMBERSHIP = Struct("<dId")
"""When a membership ends, the capacity of the channel, and after how long its messages expire."""
TURN = Struct("<Q")
"""A number that grows: of two that arrive in the wrong order, the higher one counts."""

LARGEST = 16 * 1024 * 1024
"""Bytes of the largest payload: a message is a notice, no file. Redis' own limit is 512 MB."""

_HEAD = Struct("<IBI")
_MARK = "ds-"
_TAG = 19
"""Characters of a client's name: the mark, and 64 bits in hexadecimal."""


def frame(kind: int, number: int = 0, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return _HEAD.pack(len(payload), kind, number) + payload


def named(name: str) -> bytes:
    """Return how `name` stands in a payload."""
    encoded = name.encode("ascii")
    return len(encoded).to_bytes(1, "little") + encoded


def name_in(payload: bytes, start: int = 0) -> tuple[str, int]:
    """Return the name that begins at `start`, and where it ends. Raises `ValueError`."""
    if start >= len(payload):
        message = "a payload without the name that belongs there"
        raise ValueError(message)
    end = start + 1 + payload[start]
    if end > len(payload):
        message = "a payload that ends within a name"
        raise ValueError(message)
    return payload[start + 1 : end].decode("ascii"), end


def owner_of(channel: str) -> str:
    """Return the client whose own `channel` is, by its name: `prefix.client!rest`; else ""."""
    before, mark, _ = channel.partition("!")
    tag = before.rpartition(".")[2]
    return tag if mark and len(tag) == _TAG and tag.startswith(_MARK) else ""


class Splitter:
    """Cuts what arrives into frames."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        """Begin with nothing."""
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Return kind, number and payload of each frame that is complete now.

        Raises `ValueError` when a frame is larger than any may be.
        """
        if self._rest:
            data = self._rest + data
        found = []
        start, size, head = 0, len(data), _HEAD.size
        while size - start >= head:
            length, kind, number = _HEAD.unpack_from(data, start)
            if length > LARGEST:
                message = f"a frame of {length} bytes"
                raise ValueError(message)
            begin = start + head
            if size - begin < length:
                break
            start = begin + length
            found.append((kind, number, data[begin:start]))
        self._rest = data[start:] if start else data
        return found
