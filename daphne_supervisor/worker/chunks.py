"""A chunked body (RFC 9112 section 7.1): bytes to pieces, whatever the slicing. Pure.

Extensions and trailers mean nothing to anybody here. They are read, since they may hide the end of
the body from a lax reader, bounded together by --max-header-size, and thrown away.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from daphne_supervisor.worker.head import Refused
from daphne_supervisor.worker.http1_lines import chunk_line, header_lines, refuse, stray

if TYPE_CHECKING:
    from daphne_supervisor.config import Http

__all__ = ["Chunks"]

#: Chunks that are read in one go. A client may send them with a byte each: they take as long as
#: requests, and the others have to have their turn.
MOST = 64
#: Digits of a size: 64 bits.
_DIGITS = 16
#: Trailers that would say how the body ends, behind its end.
_FRAMING = {b"content-length", b"transfer-encoding"}


class _Due(enum.IntEnum):
    """What comes next."""

    SIZE = 0
    DATA = 1
    END = 2  # the CR LF behind the data
    TRAILERS = 3


_SIZE, _DATA, _END, _TRAILERS = _Due


class Chunks:
    """Reads one chunked body.

    `done` says that its end was read, `hasty` that more was to read than is read in one go.
    """

    __slots__ = ("_due", "_left", "_limits", "_scanned", "_spare", "done", "hasty")

    def __init__(self, limits: Http) -> None:
        """Keep to `limits`."""
        self._limits = limits
        self._spare = limits.max_header_size  # bytes that extensions and trailers may still have
        self._due = _SIZE
        self._left = 0  # bytes of the present chunk
        self._scanned = 0  # bytes of the trailers that were searched for their end
        self.done = self.hasty = False

    def read(self, data: bytes, at: int) -> tuple[bytes, int]:
        """Return the body's bytes in `data` from `at` on, and the place up to which it was read.

        What lies behind that place is to be given again, with more. Raises `Refused`, but only when
        the bytes before what is wrong have been returned, as they are when they come alone.
        """
        pieces: list[bytes] = []
        self.hasty = False
        try:
            for _ in range(MOST):
                before = at
                if self._due is _SIZE:
                    at = self._read_size(data, at)
                if self._due is _DATA:
                    at = self._read_data(data, at, pieces)
                if self._due is _END:
                    at = self._read_end(data, at)
                if self._due is _TRAILERS:
                    at = self._read_trailers(data, at)
                if self.done or at == before or at == len(data):
                    break
            else:
                self.hasty = True
        except Refused:
            if not pieces:
                raise
        return b"".join(pieces), at

    def _read_size(self, data: bytes, at: int) -> int:
        end = data.find(b"\r\n", at)
        longest = _DIGITS + self._spare
        read = len(data) - 1 if end < 0 else end  # a CR may be the last byte
        if read - at > longest:
            raise stray("chunk", data, at, at + longest + 1) or Refused(
                431, "chunk extensions exceed --max-header-size"
            )
        if end < 0:
            refuse(stray("chunk", data, at, len(data)))
            return at
        size, extension = chunk_line(data, at, end)
        if extension > self._spare:
            raise Refused(431, "chunk extensions exceed --max-header-size")
        self._left = size
        self._spare -= extension
        self._due = _DATA if self._left else _TRAILERS
        return end + 2

    def _read_data(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        piece = data[at : at + self._left]
        if piece:
            pieces.append(piece)
        self._left -= len(piece)
        if not self._left:
            self._due = _END
        return at + len(piece)

    def _read_end(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            self._due = _SIZE
            return at + 2
        if at < len(data) and data[at:] != b"\r":
            raise Refused(400, "malformed chunk: no CR LF behind it (RFC 9112 section 7.1)")
        return at

    def _read_trailers(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            self.done = True
            return at + 2
        end = data.find(b"\r\n\r\n", at + self._scanned)
        size = (len(data) - 3 if end < 0 else end + 2) - at
        if size > self._spare:
            raise stray("trailer", data, at, at + self._spare + 3) or Refused(
                431, "trailers exceed --max-header-size"
            )
        if end < 0:
            refuse(stray("trailer", data, at + self._scanned, len(data)))
            self._scanned = max(size, 0)
            return at
        block = data[at:end]
        if block.count(b"\r\n") >= self._limits.max_header_count:
            raise stray("trailer", block, 0, len(block)) or Refused(
                431, "trailers exceed --max-header-count"
            )
        for name, _ in header_lines("trailer", block.split(b"\r\n")):
            if name in _FRAMING:
                field = name.decode("ascii")
                raise Refused(400, f"{field} among the trailers (RFC 9110 section 6.5.1)")
        self.done = True
        return end + 4
