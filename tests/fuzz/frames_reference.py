"""Another reading of a stream of WebSocket frames, written down from RFC 6455 and RFC 7692.

It has the whole stream before it, so it is short where the server's cannot be. It knows no limits.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

__all__ = ["Broken", "Inflater", "Reading", "read"]

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
#: RFC 6455 section 7.4 and the IANA registry of close codes.
CODES = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}


class Broken(Exception):
    """A rule is broken."""


class Unsure(Exception):
    """What this means, this reader does not say."""


@dataclass
class Inflater:
    """RFC 7692 section 7.2.2, for a window of 2 to the power of `bits`."""

    bits: int
    forgets: bool
    stream: zlib._Decompress | None = None

    def inflate(self, payload: bytes) -> bytes:
        """Return what `payload` was before it was compressed."""
        if self.stream is None or self.forgets:
            self.stream = zlib.decompressobj(-self.bits)
        if not payload:  # what is left out of an empty message is more than section 7.2.1 says
            return b""
        stream = self.stream
        try:
            data = stream.decompress(payload, 1 << 22)
            if stream.eof or stream.unconsumed_tail:  # section 7.2.3.4; a bomb
                raise Unsure
            behind = stream.decompress(b"\0\0\xff\xff")
            probe = stream.copy()
            behind += probe.decompress(b"\3\0")  # a final block: only where one may begin
        except zlib.error as error:
            raise Broken from error
        if behind or not probe.eof:
            raise Broken  # it breaks off
        return data


@dataclass
class Reading:
    """What a stream says, up to the first rule that it breaks.

    `unfinished` says that it ends in the middle of a message or a frame: more of it may be wrong.
    """

    messages: list[str | bytes] = field(default_factory=list)
    pings: list[bytes] = field(default_factory=list)
    pongs: list[bytes] = field(default_factory=list)
    close: tuple[int, str] | None = None
    broken = unfinished = unsure = False
    behind = b""
    """What follows a close frame."""

    inflater: Inflater | None = None
    _kind = 0
    _compressed = False
    _parts: list[bytes] = field(default_factory=list)

    def frame(self, first: int, payload: bytes) -> None:
        """Take a frame whose first byte is `first`."""
        opcode, last, reserved = first & 15, first & 128, first & 0x70
        if opcode >= CLOSE:
            if reserved or not last or len(payload) > 125:
                raise Broken
            self._control(opcode, payload)
            return
        if opcode > BINARY or bool(opcode) == bool(self._kind):
            raise Broken
        if reserved and (reserved != 0x40 or not opcode or self.inflater is None):
            raise Broken
        if opcode:
            self._kind, self._compressed, self._parts = opcode, bool(reserved), []
        self._parts.append(payload)
        if last:
            self._message(b"".join(self._parts))
            self._kind = 0

    def _message(self, payload: bytes) -> None:
        if self._compressed:
            assert self.inflater is not None
            payload = self.inflater.inflate(payload)
        self.messages.append(_text(payload) if self._kind == TEXT else payload)

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.pings.append(payload)
        elif opcode == PONG:
            self.pongs.append(payload)
        elif opcode != CLOSE or len(payload) == 1:
            raise Broken
        elif payload:
            code = int.from_bytes(payload[:2])
            if code not in CODES:
                raise Broken
            self.close = (code, _text(payload[2:]))
        else:
            self.close = (1005, "")

    @property
    def within(self) -> bool:
        """Say whether a message has begun and not ended."""
        return bool(self._kind)


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise Broken from error


def read(stream: bytes, *, masked: bool, inflater: Inflater | None = None) -> Reading:
    """Read frames, which have to be `masked` or must not be."""
    reading = Reading(inflater=inflater)
    at = 0
    try:
        while at < len(stream) and reading.close is None:
            end, mask = _extent(stream, at, masked=masked)
            if end > len(stream):
                break
            payload = stream[mask:end]
            if masked:
                payload = _unmask(stream[mask - 4 : mask], payload)
            reading.frame(stream[at], payload)
            at = end
    except Broken:
        reading.broken = True
    except Unsure:
        reading.unsure = True
    reading.unfinished = reading.within or at < len(stream)
    if reading.close is not None:
        reading.behind = stream[at:]
    return reading


def _extent(stream: bytes, at: int, *, masked: bool) -> tuple[int, int]:
    """Return where the frame at `at` ends, and where its payload begins."""
    length = stream[at + 1] if at + 1 < len(stream) else 128 * masked
    if (length >= 128) != masked and at + 1 < len(stream):
        raise Broken
    length &= 127
    wide = {126: 2, 127: 8}.get(length, 0)
    begin = at + 2 + wide + 4 * masked
    if begin <= len(stream) and wide:
        length = int.from_bytes(stream[at + 2 : at + 2 + wide])
        if length < (126 if wide == 2 else 65_536) or length >> 63:
            raise Broken
    return begin + length, begin


def _unmask(mask: bytes, payload: bytes) -> bytes:
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(len(payload))
