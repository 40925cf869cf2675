"""permessage-deflate (RFC 7692): what the handshake agrees on, and both directions of it.

Theory of operation. A client offers, the server takes the first offer that it can keep to and says
with which parameters. Unless --websocket-compression-context-takeover is given, both sides are told
to forget after every message: nothing is kept for a connection that is idle.

A message from a client is inflated in steps of `STEP` compressed bytes, counted from its beginning
however the network has cut it, and no step may yield more than is left of the two bounds: the size
of a message, and what its compressed bytes so far allow. So a bomb is found while it is small, and
at the same byte in any slicing.

This module knows neither frames nor sockets.
"""

from __future__ import annotations

import re
import sys
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daphne_supervisor.worker.framing import INVALID_PAYLOAD, POLICY, TOO_BIG, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from daphne_supervisor.config import WebSocket as Limits

__all__ = ["STEP", "Agreement", "Deflate", "agree", "extensions"]

#: Compressed bytes that are inflated between two looks at the bounds.
STEP = 4096
#: What a message may always become, whatever its ratio: less than others may send uncompressed.
_FREE = 65_536
#: A flush may be written as a final block (RFC 7692 section 7.2.3.4); one for each piece is a lot.
_FINAL_BLOCKS = 64
#: What RFC 7692 section 7.2.1 takes off the end of a message: the empty block of a flush.
_FLUSH = b"\x00\x00\xff\xff"
#: An empty final block: it is an end only where a block may begin.
_FINAL = b"\x03\x00"

_LARGEST_WINDOW = 15
#: zlib deflates with no smaller window, though RFC 7692 section 7.1.2.1 has one of 8 bits.
_SMALLEST_WINDOW = 9
_BITS = {b"%d" % bits: bits for bits in range(8, _LARGEST_WINDOW + 1)}

# RFC 6455 section 9.1, with the blanks that RFC 2616 allows between any two words. The quantifiers
# are possessive: a header of any length is read once.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_PARAMETER = re.compile(
    rb"[ \t]*+;[ \t]*+(%b++)(?:[ \t]*+=[ \t]*+(?:(%b++)|\"((?:\\?%b)++)\"))?+"
    % (_TOKEN, _TOKEN, _TOKEN)
)
_NAME = re.compile(rb"[ \t]*+(%b++)" % _TOKEN)
_NEXT = re.compile(rb"[ \t]*+(?:,|\Z)")

Parameters = list[tuple[bytes, bytes | None]]


def extensions(lines: Iterable[bytes]) -> list[tuple[bytes, Parameters]]:
    """Return the extensions that the values of Sec-WebSocket-Extensions offer, in their order.

    Raises `ValueError` if they do not follow RFC 6455 section 9.1.
    """
    found: list[tuple[bytes, Parameters]] = []
    for line in lines:
        at = 0
        while at < len(line):
            if name := _NAME.match(line, at):
                parameters, at = _parameters(line, name.end())
                found.append((name[1], parameters))
            end = _NEXT.match(line, at)
            if end is None:
                message = "Sec-WebSocket-Extensions is not a list of extensions"
                raise ValueError(message)
            at = end.end()
    return found


def _parameters(line: bytes, at: int) -> tuple[Parameters, int]:
    """Return the parameters that stand at `at`, and where they end."""
    found: Parameters = []
    while match := _PARAMETER.match(line, at):
        name, plain, quoted = match.groups()
        found.append((name, quoted.replace(b"\\", b"") if plain is None and quoted else plain))
        at = match.end()
    return found, at


@dataclass(frozen=True, slots=True)
class Agreement:
    """What both sides keep to (RFC 7692 section 7.1).

    `inflate_bits` and `deflate_bits` are the sizes of the windows, as powers of 2; with
    `forget_received` or `forget_sent` a message does not refer to those before it. `answer` is the
    value of Sec-WebSocket-Extensions.
    """

    inflate_bits: int
    deflate_bits: int
    forget_received: bool
    forget_sent: bool
    answer: bytes


def agree(lines: Iterable[bytes], limits: Limits) -> Agreement | None:
    """Take the first offer in the values of Sec-WebSocket-Extensions that can be kept to.

    Whatever does not follow the grammar offers nothing.
    """
    try:
        offers = extensions(lines)
    except ValueError:
        return None
    taken = (_take(parameters, limits) for name, parameters in offers if name == _EXTENSION)
    return next((each for each in taken if each is not None), None)


_EXTENSION = b"permessage-deflate"
_FORGETS = {b"server_no_context_takeover", b"client_no_context_takeover"}
_WINDOWS = {b"server_max_window_bits", b"client_max_window_bits"}


def _take(parameters: Parameters, limits: Limits) -> Agreement | None:
    """Return the agreement on an offer, None for one to decline (RFC 7692 section 7.1).

    The client is not asked for a smaller window unless it has said that it can be (7.1.2.2).
    """
    asked = dict(parameters)
    if len(asked) != len(parameters) or not all(_is_valid(*each) for each in parameters):
        return None
    most = limits.compression_window_bits
    deflate_bits = min(most, _BITS[asked.get(b"server_max_window_bits") or b"15"])
    if deflate_bits < _SMALLEST_WINDOW:
        return None
    keep = limits.compression_context_takeover
    words = [_EXTENSION]
    if forget_sent := not keep or b"server_no_context_takeover" in asked:
        words.append(b"server_no_context_takeover")
    if forget_received := not keep or b"client_no_context_takeover" in asked:
        words.append(b"client_no_context_takeover")
    if b"server_max_window_bits" in asked:
        words.append(b"server_max_window_bits=%d" % deflate_bits)
    inflate_bits = _LARGEST_WINDOW
    if b"client_max_window_bits" in asked:
        inflate_bits = min(most, _BITS[asked[b"client_max_window_bits"] or b"15"])
        words.append(b"client_max_window_bits=%d" % inflate_bits)
    return Agreement(inflate_bits, deflate_bits, forget_received, forget_sent, b"; ".join(words))


def _is_valid(name: bytes, value: bytes | None) -> bool:
    """Say whether an offer may have this parameter (RFC 7692 sections 7.1.1 and 7.1.2)."""
    if name in _FORGETS:
        return value is None
    if name in _WINDOWS:
        return value in _BITS or (value is None and name == b"client_max_window_bits")
    return False


class Deflate:
    """Both directions of one connection. What is not in use takes no memory."""

    __slots__ = (
        "_agreement",
        "_deflater",
        "_finals",
        "_inflated",
        "_inflater",
        "_limits",
        "_pieces",
        "_read",
        "_waiting",
    )

    def __init__(self, agreement: Agreement, limits: Limits) -> None:
        """Keep to `agreement` and `limits`."""
        self._agreement = agreement
        self._limits = limits
        self._inflater: zlib._Decompress | None = None
        self._deflater: zlib._Compress | None = None
        self._waiting = b""  # compressed bytes, less than a step
        self._pieces: list[bytes] = []  # what the message has become, step by step
        self._read = self._inflated = self._finals = 0  # of the message

    # -- messages in --

    def begin(self) -> None:
        """Begin a message."""
        self._read = self._inflated = self._finals = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what some more of the message becomes; a part may wait for what follows it.

        Raises `Violation` if that is no deflated data, or too much. To be read to its end.
        """
        data = self._waiting + data if self._waiting else data
        whole = len(data) - len(data) % STEP
        self._waiting = data[whole:]
        for at in range(0, whole, STEP):
            yield self._step(data[at : at + STEP])

    def finish(self) -> bytes:
        """Return the rest of the message.

        Raises `Violation` as `feed` does, and when the message ends inside of a block.
        """
        rest = self._step(self._waiting) if self._waiting else b""
        # Some send nothing at all for an empty message, though one byte is left of its flush.
        if self._read:
            self._check_end()
        self._waiting = b""
        self._pieces.clear()
        return rest

    def inflate(self, payload: bytes) -> bytes:
        """Return the message that a whole frame of less than a step holds.

        Raises `Violation` as `finish` does.
        """
        self.begin()
        self._waiting = payload
        return self.finish()

    def _step(self, data: bytes) -> bytes:
        """Inflate `data` within the bounds, over the ends of final blocks."""
        self._read += len(data)
        room = self._room()
        message = b""
        while data:
            inflater = self._the_inflater()
            message += _inflated(inflater, data, room + 1 - len(message))
            if len(message) > room:
                raise self._excess()
            data = inflater.unused_data
            if inflater.eof:
                self._go_on(message)
        self._inflated += len(message)
        self._pieces.append(message)
        return message

    def _room(self) -> int:
        """Return how many bytes may still come out."""
        if self._ratio_bounds():
            most = self._allowed()
        else:
            most = self._limits.max_message_size or sys.maxsize - 1
        return most - self._inflated

    def _allowed(self) -> int:
        """Return how many bytes may come out of what was read, by its ratio."""
        return max(_FREE, self._read * self._limits.compression_max_ratio)

    def _ratio_bounds(self) -> bool:
        """Say whether it is the ratio that bounds the message, rather than its size."""
        most = self._limits.max_message_size
        return bool(self._limits.compression_max_ratio) and not 0 < most <= self._allowed()

    def _excess(self) -> Violation:
        """Return what it is if more comes out.

        Made where it is raised: one that `_step` had a name for would hold its frame, and the
        message, until the collector comes by.
        """
        if self._ratio_bounds():
            reason = (
                f"message grows more than {self._limits.compression_max_ratio} times when inflated"
            )
            return Violation(POLICY, reason, "--websocket-compression-max-ratio")
        reason = f"message of more than {self._limits.max_message_size} bytes when inflated"
        return Violation(TOO_BIG, reason, "--websocket-max-message-size")

    def _the_inflater(self) -> zlib._Decompress:
        if self._inflater is None:
            self._inflater = zlib.decompressobj(-self._agreement.inflate_bits)
        return self._inflater

    def _go_on(self, message: bytes) -> None:
        """Go on behind a final block, with the window as it is after `message`."""
        self._finals += 1
        if self._finals > _FINAL_BLOCKS:
            raise Violation(POLICY, f"more than {_FINAL_BLOCKS} final blocks in a message")
        bits = self._agreement.inflate_bits
        window = b"".join((*self._pieces, message))[-(1 << bits) :]
        self._inflater = zlib.decompressobj(-bits, zdict=window)

    def _check_end(self) -> None:
        """See that the message ends between two blocks, as after a flush."""
        inflater = self._the_inflater()
        out = _inflated(inflater, _FLUSH, 1)
        if self._agreement.forget_received:
            self._inflater = None
        else:
            inflater = inflater.copy()
        if out or _inflated(inflater, _FINAL, 1) or not inflater.eof:
            raise _corrupt()

    # -- messages out --

    def deflate(self, payload: bytes) -> bytes | None:
        """Return what `payload` becomes (RFC 7692 section 7.2.1), `None` if it better stays."""
        if not payload:
            return None  # zlib would flush nothing, not even the byte that has to be sent
        agreement = self._agreement
        deflater = self._deflater or zlib.compressobj(
            wbits=-agreement.deflate_bits, memLevel=self._limits.compression_memory_level
        )
        data = deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
        data = data.removesuffix(_FLUSH)
        if agreement.forget_sent:
            return data if len(data) < len(payload) else None
        # The client's window has to hold what ours does, so this is sent whatever its size.
        self._deflater = deflater
        return data


def _inflated(inflater: zlib._Decompress, data: bytes, most: int) -> bytes:
    """Return up to `most` bytes of what `data` becomes. Raises `Violation` if it is corrupt."""
    try:
        return inflater.decompress(data, most)
    except zlib.error:
        raise _corrupt() from None


def _corrupt() -> Violation:
    return Violation(INVALID_PAYLOAD, "compressed message is corrupt (RFC 7692 section 7.2.2)")
