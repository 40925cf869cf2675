"""HTTP/2 from the client, cut into frames: which are well-formed, and what each says.

Every frame is checked here as far as that can be done without knowing its stream: its length, its
padding, whether it belongs to a stream or to the connection, and that a field block is not
interrupted (RFC 9113 sections 4 and 6). Faults raise `ConnectionFault` or `StreamFault`; after the
latter, reading goes on. Pure: bytes in, calls out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, Protocol

from daphne_supervisor.worker.http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    LONGEST,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PRIORITY_UPDATE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    Code,
    ConnectionFault,
    StreamFault,
    read_settings,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BUDGET", "REQUEST", "Reader", "Sink"]

#: Frames that are read before everybody else has a turn: a read can hold twenty thousand.
BUDGET = 256
#: How many of them a request counts for, and one that fails: sixteen are less than a millisecond.
REQUEST = 16
#: DATA can carry a message of a WebSocket, or a ping, which takes as long as some other frames.
_COSTS = {HEADERS: REQUEST, DATA: 8}
#: Bytes of a frame that count for one more: to unpack a head of 16 KiB takes a turn of its own.
#: DATA is not: its bytes are only handed on.
_WORK = 64
_HEAD = 9
_MASK = 0x7FFFFFFF  # of a stream's number: the first bit is reserved, and ignored
_integer = int.from_bytes


class Sink(Protocol):
    """What a reader tells of."""

    def receive_headers(self, stream: int, block: bytes, *, end: bool) -> None:
        """Take a whole field block; `end` says that nothing follows on the stream."""

    def receive_data(self, stream: int, data: bytes, size: int, *, end: bool) -> None:
        """Take a piece of a body; `size` is what it takes of the windows, with its padding."""

    def receive_reset(self, stream: int, code: int) -> None:
        """The client has reset a stream."""

    def receive_settings(self, values: list[tuple[int, int]]) -> None:
        """Take the client's settings."""

    def receive_ping(self, payload: bytes) -> None:
        """Take a ping."""

    def receive_pong(self, payload: bytes) -> None:
        """Take the answer to a ping."""

    def receive_goaway(self, last: int, code: int) -> None:
        """The client will begin no more streams."""

    def receive_window(self, stream: int, increment: int) -> None:
        """Take an increment of a window, of the connection's if `stream` is 0; it may be 0."""

    def receive_priority(self, stream: int, value: bytes) -> None:
        """Take the priority of a stream, as RFC 9218 writes it."""

    def receive_other(self) -> None:
        """Count a frame that means nothing here."""


class Reader:
    """Reads the frames of one connection. `rest` is what waits to be read, or for its own rest.

    `in_block` says that a field block has begun and not ended, `hasty` that the `budget`, which is
    set anew for each turn, was spent before the bytes were.
    """

    __slots__ = (
        "_block",
        "_continuations",
        "_ended",
        "_most_block",
        "_most_continuations",
        "_preface",
        "_settled",
        "_sink",
        "_size",
        "_stream",
        "budget",
        "hasty",
        "in_block",
        "rest",
    )

    def __init__(self, sink: Sink, *, most_block: int, most_continuations: int) -> None:
        """Tell `sink`; a field block has at most so many bytes and so many CONTINUATIONs."""
        self._sink = sink
        self._most_block = most_block
        self._most_continuations = most_continuations
        self._preface = PREFACE  # what is to come of it
        self._settled = False  # the first frame was the client's SETTINGS, as it has to be
        self._block: list[bytes] = []
        self._stream = 0  # of the block
        self._ended = False  # nothing follows it
        self._continuations = self._size = 0
        self.in_block = self.hasty = False
        self.budget = BUDGET
        self.rest = b""

    def part(self) -> None:
        """Tell nobody any more: nothing will be fed."""
        del self._sink

    @property
    def started(self) -> bool:
        """Say whether the client has introduced itself: with the preface and its settings."""
        return self._settled

    def feed(self, data: bytes) -> None:
        """Read what was kept, and `data`. Raises a fault for the first that is met; call again."""
        if self.rest:
            data = self.rest + data
            self.rest = b""
        at = 0
        if self._preface:
            at = self._read_preface(data)
        end = len(data)
        self.hasty = False
        try:
            while end - at >= _HEAD:
                if self.budget <= 0:
                    self.hasty = True
                    break
                size = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
                if size > LONGEST:
                    raise ConnectionFault(
                        Code.FRAME_SIZE_ERROR, "frame above 16384 bytes (RFC 9113 section 4.2)"
                    )
                stop = at + _HEAD + size
                if stop > end:
                    break
                kind = data[at + 3]
                self.budget -= _COSTS.get(kind, 1)
                if kind != DATA:
                    self.budget -= size // _WORK
                start, at = at, stop
                stream = _integer(data[start + 5 : start + _HEAD]) & _MASK
                self._read(kind, data[start + 4], stream, data[start + _HEAD : stop])
        finally:
            self.rest = data[at:]

    def _read_preface(self, data: bytes) -> int:
        expected = self._preface
        size = min(len(expected), len(data))
        if data[:size] != expected[:size]:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "no preface (RFC 9113 section 3.4)")
        self._preface = expected[size:]
        return size

    def _read(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Read one frame."""
        if self.in_block:
            if kind != CONTINUATION or stream != self._stream:
                raise ConnectionFault(
                    Code.PROTOCOL_ERROR, "a field block is interrupted (RFC 9113 section 4.3)"
                )
        elif not self._settled:
            if kind != SETTINGS or flags & ACK:
                raise ConnectionFault(
                    Code.PROTOCOL_ERROR, "the first frame is not SETTINGS (RFC 9113 section 3.4)"
                )
            self._settled = True
        read = _READERS.get(kind)
        if read is None:
            self._sink.receive_other()
        else:
            read(self, flags, stream, payload)

    # -- on a stream --

    def _unpad(self, payload: bytes) -> bytes:
        if not payload or payload[0] >= len(payload):
            raise ConnectionFault(
                Code.PROTOCOL_ERROR, "padding longer than its frame (RFC 9113 section 6.1)"
            )
        return payload[1 : len(payload) - payload[0]]

    def _read_data(self, flags: int, stream: int, payload: bytes) -> None:
        if not stream:
            _misplaced("DATA", "without")
        data = self._unpad(payload) if flags & PADDED else payload
        self._sink.receive_data(stream, data, len(payload), end=bool(flags & END_STREAM))

    def _read_headers(self, flags: int, stream: int, payload: bytes) -> None:
        if not stream:
            _misplaced("HEADERS", "without")
        if flags & PADDED:
            payload = self._unpad(payload)
        if flags & WITH_PRIORITY:  # RFC 7540's, deprecated: four bytes and a weight
            if len(payload) < 5:  # noqa: PLR2004
                _missized("HEADERS")
            payload = payload[5:]
        if flags & END_HEADERS:
            self._sink.receive_headers(stream, payload, end=bool(flags & END_STREAM))
            return
        self.in_block = True
        self._stream, self._ended = stream, bool(flags & END_STREAM)
        self._block = [payload]
        self._size = len(payload)
        self._continuations = 0

    def _read_continuation(self, flags: int, stream: int, payload: bytes) -> None:
        if not self.in_block:
            raise ConnectionFault(
                Code.PROTOCOL_ERROR, "CONTINUATION of nothing (RFC 9113 section 6.10)"
            )
        self._continuations += 1
        self._size += len(payload)
        self._block.append(payload)
        if self._continuations > self._most_continuations:
            raise ConnectionFault(
                Code.ENHANCE_YOUR_CALM, "more CONTINUATION frames than --http2-max-continuations"
            )
        if self._size > self._most_block:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "field block exceeds --max-header-size")
        if flags & END_HEADERS:
            block, self._block = b"".join(self._block), []
            self.in_block = False
            self._sink.receive_headers(stream, block, end=self._ended)

    def _read_priority(self, flags: int, stream: int, payload: bytes) -> None:  # noqa: ARG002
        """RFC 7540's priorities are deprecated (RFC 9113 section 5.3.2)."""
        if not stream:
            _misplaced("PRIORITY", "without")
        self._sink.receive_other()
        if len(payload) != 5:  # noqa: PLR2004
            raise StreamFault(
                stream, Code.FRAME_SIZE_ERROR, "PRIORITY of a wrong length (RFC 9113 section 6.3)"
            )

    def _read_reset(self, flags: int, stream: int, payload: bytes) -> None:  # noqa: ARG002
        if not stream:
            _misplaced("RST_STREAM", "without")
        if len(payload) != 4:  # noqa: PLR2004
            _missized("RST_STREAM")
        self._sink.receive_reset(stream, _integer(payload))

    def _read_push(self, flags: int, stream: int, payload: bytes) -> None:  # noqa: ARG002
        raise ConnectionFault(
            Code.PROTOCOL_ERROR, "PUSH_PROMISE of a client (RFC 9113 section 8.4)"
        )

    # -- on the connection --

    def _read_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            _misplaced("SETTINGS", "on")
        if len(payload) % 6 or (flags & ACK and payload):
            _missized("SETTINGS")
        if flags & ACK:
            self._sink.receive_other()
        else:
            self._sink.receive_settings(read_settings(payload))

    def _read_ping(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            _misplaced("PING", "on")
        if len(payload) != 8:  # noqa: PLR2004
            _missized("PING")
        if flags & ACK:
            self._sink.receive_pong(payload)
        else:
            self._sink.receive_ping(payload)

    def _read_goaway(self, flags: int, stream: int, payload: bytes) -> None:  # noqa: ARG002
        if stream:
            _misplaced("GOAWAY", "on")
        if len(payload) < 8:  # noqa: PLR2004
            _missized("GOAWAY")
        self._sink.receive_goaway(_integer(payload[:4]) & _MASK, _integer(payload[4:8]))

    def _read_window(self, flags: int, stream: int, payload: bytes) -> None:  # noqa: ARG002
        if len(payload) != 4:  # noqa: PLR2004
            _missized("WINDOW_UPDATE")
        self._sink.receive_window(stream, _integer(payload) & _MASK)

    def _read_priority_update(self, flags: int, stream: int, payload: bytes) -> None:  # noqa: ARG002
        if stream:
            _misplaced("PRIORITY_UPDATE", "on")
        if len(payload) < 4:  # noqa: PLR2004
            _missized("PRIORITY_UPDATE")
        self._sink.receive_other()
        subject = _integer(payload[:4]) & _MASK
        if not subject & 1:
            raise ConnectionFault(
                Code.PROTOCOL_ERROR, "PRIORITY_UPDATE for no request (RFC 9218 section 7.1)"
            )
        self._sink.receive_priority(subject, payload[4:])


def _misplaced(name: str, where: str) -> NoReturn:
    raise ConnectionFault(Code.PROTOCOL_ERROR, f"{name} {where} a stream (RFC 9113 section 6)")


def _missized(name: str) -> NoReturn:
    raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"{name} of a wrong length (RFC 9113 section 4.2)")


#: Who reads which type of frame. Types that are not known are ignored (RFC 9113 section 5.5).
_READERS: dict[int, Callable[[Reader, int, int, bytes], None]] = {
    DATA: Reader._read_data,  # noqa: SLF001
    HEADERS: Reader._read_headers,  # noqa: SLF001
    PRIORITY: Reader._read_priority,  # noqa: SLF001
    RST_STREAM: Reader._read_reset,  # noqa: SLF001
    SETTINGS: Reader._read_settings,  # noqa: SLF001
    PUSH_PROMISE: Reader._read_push,  # noqa: SLF001
    PING: Reader._read_ping,  # noqa: SLF001
    GOAWAY: Reader._read_goaway,  # noqa: SLF001
    WINDOW_UPDATE: Reader._read_window,  # noqa: SLF001
    CONTINUATION: Reader._read_continuation,  # noqa: SLF001
    PRIORITY_UPDATE: Reader._read_priority_update,  # noqa: SLF001
}
