"""Reads what a server says over HTTP/2, and fails at the first thing that it may not say.

Frames are taken apart by `http2_frames`; only the header blocks are left to hpack. What is checked
is RFC 9113: which frame may follow which, on which stream, how large, with which fields.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hpack import Decoder

from tests.support.http2_frames import Code, Flag, Frame, Setting, Type, frames

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Answer", "GoAway", "Judge"]

Headers = list[tuple[bytes, bytes]]

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
#: RFC 9113 section 8.2.2.
_OF_A_CONNECTION = {
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"transfer-encoding",
    b"upgrade",
}
_LARGEST = 16_384
#: A server speaks of the whole connection with these.
_OF_STREAM_0 = {Type.SETTINGS, Type.PING, Type.GOAWAY}
_SWITCHED = b"HTTP/1.1 101 "


@dataclass
class Answer:
    """What the server has said on a stream."""

    interim: list[tuple[int, Headers]] = field(default_factory=list)
    status: int | None = None
    headers: Headers = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    """The body as it came, unless nobody wants to keep it."""
    size: int = 0
    """How many bytes it has."""
    trailers: Headers = field(default_factory=list)
    complete: bool = False
    reset: Code | None = None

    @property
    def body(self) -> bytes:
        """The body so far."""
        return b"".join(self.pieces)

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come."""
        return self.complete or self.reset is not None

    @property
    def outcome(self) -> str:
        """What became of it: `""`, `"200"`, `"CANCEL"`, `"200 CANCEL"`, `"200 begun"`."""
        words = [] if self.status is None else [str(self.status)]
        if self.reset is not None:
            words.append(self.reset.name)
        elif words and not self.complete:
            words.append("begun")
        return " ".join(words)

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of every header called `name`."""
        return [value for key, value in self.headers if key == name]


@dataclass(frozen=True)
class GoAway:
    """A GOAWAY frame."""

    last: int
    code: Code
    debug: bytes


class Judge:
    """All that a server has said on one connection, read as it comes."""

    def __init__(self, *, upgraded: bool = False, keeps: bool = True) -> None:
        """Listen from the beginning; if `upgraded`, that is an HTTP/1.1 answer 101.

        Bodies are only counted unless it `keeps` them.
        """
        self.answers: dict[int, Answer] = {}
        self.goaways: list[GoAway] = []
        self.settings: dict[int, int] = {}
        self.acks = 0
        self.pongs: list[bytes] = []
        self.pings: list[bytes] = []
        self.updates: dict[int, int] = {}
        self.uncredited: dict[int, int] = {}
        """Bytes of each stream for which its window was not opened again."""
        self._keeps = keeps
        self.rest = b""
        self._upgraded = upgraded
        self._greeted = False
        self._decoder = Decoder()
        self._block: tuple[int, bytes, bool] | None = None  # stream, what came, END_STREAM

    def hear(self, received: bytes) -> None:
        """Read on. Raises `AssertionError` for what no server may say."""
        self.rest += received
        if self._upgraded and not self._switched():
            return
        found, self.rest = frames(self.rest)
        for one in found:
            self._frame(one)

    def _switched(self) -> bool:
        """Take the answer 101, if it is there."""
        head, end, behind = self.rest.partition(b"\r\n\r\n")
        if not end:
            return False
        assert head.startswith(_SWITCHED), head
        lines = [line.lower() for line in head.split(b"\r\n")[1:]]
        assert b"upgrade: h2c" in lines, head
        assert b"connection: upgrade" in lines, head
        self.rest = behind
        self._upgraded = False
        return True

    def answer(self, stream: int) -> Answer:
        """Return what was said on `stream`, which may be nothing yet."""
        return self.answers.setdefault(stream, Answer())

    def _frame(self, one: Frame) -> None:
        assert len(one.payload) <= _LARGEST, one
        if not self._greeted:
            assert one.type == Type.SETTINGS, f"a server begins with SETTINGS: {one}"
            assert not one.has(Flag.ACK), one
            self._greeted = True
        if self._block is not None:
            assert one.type == Type.CONTINUATION, f"a header block is interrupted: {one}"
            assert one.stream == self._block[0], one
        if one.type in _OF_STREAM_0:
            assert one.stream == 0, one
        elif one.type != Type.WINDOW_UPDATE:
            assert one.stream % 2 == 1, f"not a stream of the client: {one}"
            answer = self.answer(one.stream)
            assert answer.reset is None, f"behind RST_STREAM: {one}"
            assert not answer.complete or one.type == Type.RST_STREAM, f"behind the end: {one}"
        assert one.type in _READERS, f"of no known type: {one}"
        _READERS[one.type](self, one)

    def _data(self, one: Frame) -> None:
        answer = self.answer(one.stream)
        assert answer.status is not None, f"a body without a head: {one}"
        content = one.content
        answer.size += len(content)
        if self._keeps:
            answer.pieces.append(content)
        self.uncredited[one.stream] = self.uncredited.get(one.stream, 0) + len(one.payload)
        if one.has(Flag.END_STREAM):
            self._complete(answer)

    def _headers(self, one: Frame) -> None:
        self._more_headers(one.stream, one.content, one, ends=one.has(Flag.END_STREAM))

    def _continuation(self, one: Frame) -> None:
        assert self._block is not None, f"CONTINUATION of nothing: {one}"
        stream, begun, ends = self._block
        self._more_headers(stream, begun + one.payload, one, ends=ends)

    def _more_headers(self, stream: int, block: bytes, one: Frame, *, ends: bool) -> None:
        if not one.has(Flag.END_HEADERS):
            self._block = stream, block, ends
            return
        self._block = None
        decoded = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, True)]
        self._head(self.answer(stream), decoded, stream, ends=ends)

    def _head(self, answer: Answer, lines: Headers, stream: int, *, ends: bool) -> None:
        if answer.status is not None:
            assert ends, f"trailers that end nothing: {lines}"
            self._check_fields(lines)
            answer.trailers = lines
            self._complete(answer)
            return
        (name, status), *lines = lines
        assert name == b":status", name
        assert re.fullmatch(rb"[1-5][0-9]{2}", status), status
        self._check_fields(lines)
        if status.startswith(b"1"):
            assert not ends, f"an interim response is no end: {status!r}"
            assert status != b"101", "101 has no meaning in HTTP/2 (RFC 9113 section 8.6)"
            answer.interim.append((int(status), lines))
            return
        assert all(stream <= goaway.last for goaway in self.goaways), f"{stream} behind GOAWAY"
        answer.status, answer.headers = int(status), lines
        if ends:
            self._complete(answer)

    @staticmethod
    def _check_fields(lines: Headers) -> None:
        for name, value in lines:
            assert _NAME.fullmatch(name), name
            assert _VALUE.fullmatch(value), (name, value)
            assert value == value.strip(b" \t"), (name, value)
            assert name not in _OF_A_CONNECTION, name

    @staticmethod
    def _complete(answer: Answer) -> None:
        answer.complete = True
        lengths = answer.values(b"content-length")
        assert len(lengths) <= 1, lengths
        # The response to a HEAD has a length and no body.
        assert not lengths or not answer.size or int(lengths[0]) == answer.size, lengths

    def _rst_stream(self, one: Frame) -> None:
        assert len(one.payload) == 4, one
        self.answer(one.stream).reset = Code(int.from_bytes(one.payload))

    def _settings(self, one: Frame) -> None:
        if one.has(Flag.ACK):
            assert one.payload == b"", one
            self.acks += 1
            return
        assert len(one.payload) % 6 == 0, one
        for at in range(0, len(one.payload), 6):
            key = int.from_bytes(one.payload[at : at + 2])
            self.settings[key] = int.from_bytes(one.payload[at + 2 : at + 6])
        assert self.settings.get(Setting.ENABLE_PUSH, 0) == 0, "a server may not ask for pushes"

    def _ping(self, one: Frame) -> None:
        assert len(one.payload) == 8, one
        (self.pongs if one.has(Flag.ACK) else self.pings).append(one.payload)

    def _goaway(self, one: Frame) -> None:
        last = int.from_bytes(one.payload[:4])
        code = Code(int.from_bytes(one.payload[4:8]))
        assert all(last <= before.last for before in self.goaways), "a last stream that grows"
        self.goaways.append(GoAway(last, code, one.payload[8:]))

    def _window_update(self, one: Frame) -> None:
        increment = int.from_bytes(one.payload)
        assert 0 < increment < 2**31, one
        self.updates[one.stream] = self.updates.get(one.stream, 0) + increment

    def _never(self, one: Frame) -> None:
        message = f"not for a server to send: {one}"
        raise AssertionError(message)


_READERS: dict[int, Callable[[Judge, Frame], None]] = {
    Type.DATA: Judge._data,
    Type.HEADERS: Judge._headers,
    Type.PRIORITY: Judge._never,
    Type.RST_STREAM: Judge._rst_stream,
    Type.SETTINGS: Judge._settings,
    Type.PUSH_PROMISE: Judge._never,
    Type.PING: Judge._ping,
    Type.GOAWAY: Judge._goaway,
    Type.WINDOW_UPDATE: Judge._window_update,
    Type.CONTINUATION: Judge._continuation,
}
