"""What a client lets through (RFC 9113 section 5.2), counted without the server's help.

Of what was fed the server may not have read all, so a window is at most what is counted here.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hyperframe.frame import DataFrame

from tests.support.streams import PREFACE

__all__ = ["Windows"]

_FIRST = 65_535
_HEADERS, _SETTINGS, _WINDOW_UPDATE = 1, 4, 8
_INITIAL = 4  # the setting
_HEAD = 9


class Windows:
    """The windows of a client, for the connection (0) and each stream."""

    def __init__(self) -> None:
        """Begin as everybody does."""
        self._initial = _FIRST
        self._granted = {0: _FIRST}
        self._most = {0: _FIRST}
        self._used: Counter[int] = Counter()
        self._rest = b""
        self._preface = True

    def upgrade(self) -> None:
        """Open stream 1, as an upgrade does."""
        self._open(1)

    def granted(self, data: bytes) -> None:
        """Count what the client sends."""
        self._rest += data
        if self._preface:
            if len(self._rest) < len(PREFACE):
                return
            self._preface = False
            self._rest = self._rest[len(PREFACE) :]
        while len(self._rest) >= _HEAD:
            size = int.from_bytes(self._rest[:3])
            if len(self._rest) < _HEAD + size:
                return
            head, payload = self._rest[:_HEAD], self._rest[_HEAD : _HEAD + size]
            self._rest = self._rest[_HEAD + size :]
            self._count(head[3], int.from_bytes(head[5:]) & 0x7FFFFFFF, payload)

    def _count(self, kind: int, stream: int, payload: bytes) -> None:
        if kind == _HEADERS:
            self._open(stream)
        elif kind == _WINDOW_UPDATE:
            self._grant(stream, int.from_bytes(payload[:4]) & 0x7FFFFFFF)
        elif kind == _SETTINGS:
            for at in range(0, len(payload) - 5, 6):
                if int.from_bytes(payload[at : at + 2]) == _INITIAL:
                    self._resize(int.from_bytes(payload[at + 2 : at + 6]))

    def _open(self, stream: int) -> None:
        if stream not in self._granted:
            self._granted[stream] = self._most[stream] = self._initial

    def _resize(self, initial: int) -> None:
        change, self._initial = initial - self._initial, initial
        for stream in self._granted:
            if stream:
                self._grant(stream, change)

    def _grant(self, stream: int, size: int) -> None:
        if stream in self._granted:
            self._granted[stream] += size
            self._most[stream] = max(self._most[stream], self._granted[stream])

    def spent(self, frame: Any) -> None:
        """Take what the server sends from the windows. Raises `AssertionError` if it is too much.

        An end takes nothing.
        """
        if isinstance(frame, DataFrame):
            for stream in (0, frame.stream_id):
                self._used[stream] += frame.flow_controlled_length
                if frame.flow_controlled_length:
                    assert self._used[stream] <= self._most[stream], f"beyond a window: {frame}"
