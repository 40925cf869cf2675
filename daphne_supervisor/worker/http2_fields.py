"""Field sections, packed and unpacked (HPACK, RFC 7541): the only place that knows `hpack`.

A client says mostly the same on a connection, and after the first time it says it by numbers; so
does an application. What a block means depends on the table that earlier blocks have filled; as
long as the table stays as it is, the same bytes mean the same, and are looked up. What changes all
the time (dates, lengths, tags) never enters our own table, and secrets least of all.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hpack import Decoder, Encoder, HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

from daphne_supervisor.worker.http2_frames import Code, ConnectionFault

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["FieldReader", "FieldWriter", "literal"]

#: Bytes of a table: what RFC 9113 section 6.5.2 begins with. We never use more than that.
TABLE = 4096
#: Blocks whose meaning is kept for a connection, and the longest of them.
_MAX_KNOWN, _LONGEST_KNOWN = 32, 512
#: What RFC 7541 section 4.1 counts for each field beside its bytes.
OVERHEAD = 32
#: Names whose values are not expected a second time: they would push out those that are.
_PASSING = frozenset(
    {b"age", b"content-length", b"content-range", b"date", b"etag", b"expires", b"last-modified"}
    | {b"location", b"retry-after", b"x-request-id"}
)
#: Names whose values should not be found out by guessing (RFC 7541 section 7.1.3).
_SECRET = frozenset({b"authorization", b"proxy-authorization", b"set-cookie"})
_NAMES = {name: entry[0] for name, entry in HeaderTable.STATIC_TABLE_MAPPING.items()}
_NEVER = 0x10
#: More changes of the table's size than RFC 7541 section 4.2 lets a block begin with: each costs
#: one byte, and hpack two microseconds.
_UPDATES = re.compile(rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]*[\x00-\x7f]){3}")


def _number(value: int, bits: int, first: int) -> bytes:
    """Return an integer with a prefix of `bits`, behind the pattern `first` (section 5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((first | value,))
    out = bytearray((first | most,))
    value -= most
    while value >= 0x80:  # noqa: PLR2004 - seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def literal(name: bytes, value: bytes, *, never: bool = False) -> bytes:
    """Return a field that leaves no trace in any table (RFC 7541 sections 6.2.2 and 6.2.3)."""
    first = _NEVER if never else 0
    number = _NAMES.get(name)
    if number is None:
        head = bytes((first,)) + _number(len(name), 7, 0) + name
    else:
        head = _number(number, 4, first)
    return head + _number(len(value), 7, 0) + value


def _state(table: Any) -> tuple[Any, int, int]:
    """Return what changes whenever `table` does."""
    entries = table.dynamic_entries
    return (entries[0] if entries else None), len(entries), table.maxsize


def _changed(table: Any, before: tuple[Any, int, int]) -> bool:
    newest, count, size = _state(table)
    return newest is not before[0] or count != before[1] or size != before[2]


class FieldReader:
    """Unpacks the blocks of one connection, which must come in order."""

    __slots__ = ("_again", "_decoder", "known")

    def __init__(self, longest: int) -> None:
        """Take lists of at most `longest` bytes, counted as RFC 9113 section 6.5.2 does."""
        self._decoder = Decoder(longest)
        self._again = False  # the block that was read last has changed nothing
        self.known: dict[tuple[bytes, bool], Any] = {}
        """What became of blocks that would mean the same again, for whoever asks to keep it."""

    def read(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """Return the fields of a block. Raises `ConnectionFault`: no later one could be read."""
        if _UPDATES.match(block):
            raise ConnectionFault(
                Code.COMPRESSION_ERROR, "too many changes of the table (RFC 7541 section 4.2)"
            )
        table = self._decoder.header_table
        before = _state(table)
        try:
            fields = self._decoder.decode(block, raw=True)
        except OversizedHeaderListError:
            raise ConnectionFault(
                Code.ENHANCE_YOUR_CALM, "field block unpacks to far more than --max-header-size"
            ) from None
        except (HPACKError, IndexError):
            raise ConnectionFault(
                Code.COMPRESSION_ERROR, "field block cannot be unpacked (RFC 7541)"
            ) from None
        self._again = not _changed(table, before)
        if not self._again:
            self.known.clear()
        return fields  # type: ignore[return-value]

    def keep(self, block: bytes, *, end: bool, meaning: object) -> None:
        """Remember what the block that was read last has meant, if it will mean the same again.

        A block that has left the table as it was does so each time, until another one changes it.
        """
        if self._again and len(block) <= _LONGEST_KNOWN:
            if len(self.known) >= _MAX_KNOWN:
                self.known.clear()
            self.known[block, end] = meaning


class FieldWriter:
    """Packs the blocks of one connection, which must be sent in order.

    `version` changes whenever a block that was packed before may not be sent again.
    """

    __slots__ = ("_encoder", "version")

    def __init__(self) -> None:
        """Begin with the table that everybody begins with."""
        self._encoder = Encoder()
        self.version = 0

    def resize(self, size: int) -> None:
        """The client keeps a table of `size` bytes (SETTINGS_HEADER_TABLE_SIZE)."""
        self._encoder.header_table_size = min(size, TABLE)
        self.version += 1

    def write(self, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Return the block for `fields`, names in lower case."""
        encoder = self._encoder
        before = _state(encoder.header_table)
        resized = encoder.header_table.resized
        steady, passing = [], []
        for name, value in fields:
            if name in _PASSING or name in _SECRET:
                passing.append(literal(name, value, never=name in _SECRET))
            else:
                steady.append((name, value))
        block = encoder.encode(steady)
        if resized or _changed(encoder.header_table, before):
            self.version += 1
        return block + b"".join(passing)
