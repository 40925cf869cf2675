"""What a WebSocket's client sends, read (RFC 6455).

Theory of operation. Almost every frame of almost every connection is a whole, unfragmented message,
a ping, or the pong to ours. Those take the *lane*: a few lines here. Everything else (fragments,
large frames, frames that come in many pieces, close frames, every violation) goes through
autobahn's state machine, which is made when it is needed and let go when it stands between two
messages again; so an idle connection costs no state machine.

Nobody is read for long at once. Once so much waits for the application that reading pauses, or a
client has sent `BUDGET` frames that are no plain messages, the rest of what was received waits as
it is: above all, compressed messages wait compressed.

This module knows neither sockets nor ASGI.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from daphne_supervisor.worker.compression import STEP
from daphne_supervisor.worker.frames import BUDGET, NOT_TEXT, Machine, is_hopeless, unmask
from daphne_supervisor.worker.framing import (
    BINARY,
    CLOSE,
    COMPRESSED,
    INVALID_PAYLOAD,
    MASKED,
    PING,
    PONG,
    SHORT,
    TEXT,
    TWO_BYTES,
    Violation,
    lane_end,
)
from daphne_supervisor.worker.pulse import Phase, Pulse

if TYPE_CHECKING:
    from daphne_supervisor.config import WebSocket as Limits
    from daphne_supervisor.worker.compression import Deflate
    from daphne_supervisor.worker.waist import Port

__all__ = ["Inbound"]

#: A frame up to this many bytes is collected in the lane; a larger one is autobahn's to collect.
_LANE = 65_536
_PLAIN = frozenset({TEXT, BINARY, PING, PONG})
_INFLATABLE = _PLAIN | {TEXT | COMPRESSED, BINARY | COMPRESSED}
#: What a client may send before it has our answer to its handshake. None should send anything.
_EARLY = 65_536

# What each message needs has a name here: Python takes longer to look into a class.
_OPEN = Phase.OPEN
_integer = int.from_bytes
#: The header of a short frame: two bytes, and the mask.
_SHORT_HEADER = 6
#: So many masks cover any short payload.
_MASKS = SHORT // 4 + 1


class Inbound(Pulse):
    """The inbound half of a WebSocket: bytes in, messages out, and what autobahn's machine says."""

    __slots__ = ("_deflate", "_longest", "_machine", "_opcodes", "_rest", "_short")

    def __init__(self, port: Port, early: bytes, limits: Limits) -> None:
        """Read what comes through `port`, behind what came `early`, as far as `limits` allow."""
        super().__init__(port, limits)
        self._deflate: Deflate | None = None
        self._machine: Machine | None = None
        self._rest = early
        sizes = (_LANE, limits.max_frame_size, limits.max_message_size)
        self._longest = min(size for size in sizes if size)
        self._short = min(self._longest, SHORT - 1)
        self._opcodes = _PLAIN

    @abstractmethod
    def failed(self, code: int, reason: str, option: str = "") -> None:
        """Fail the connection with `code`, for `reason`. `option` names the limit."""

    @abstractmethod
    def ended(self, code: int | None, reason: str | None) -> None:
        """Note that the closing handshake is complete; the peer gave `code` and `reason`."""

    def compress(self, deflate: Deflate) -> None:
        """Take compressed messages, too: `deflate` is what was agreed on."""
        self._deflate = deflate
        self._opcodes = _INFLATABLE

    def receive(self, data: bytes) -> None:
        """Take what the client sent, in any slicing."""
        now = self._port.now  # looked up apart: Python is slow to call what an instance has bound
        self._heard = now()
        self._pinged = 0.0
        try:
            if self._rest or self._machine is not None or self.phase is not _OPEN:
                self._receive_more(data)
            # Mostly a read brings one short message: the lane in as few steps as there can be.
            elif (
                0 <= (size := len(data) - _SHORT_HEADER) <= self._short
                and data[1] == MASKED + size
                and TEXT <= data[0] <= BINARY
            ):
                mask = _integer((data[2:_SHORT_HEADER] * _MASKS)[:size])
                payload = (_integer(data[_SHORT_HEADER:]) ^ mask).to_bytes(size)
                self._deliver(payload, text=data[0] == TEXT)
            elif data := self._run_lane(data):
                self._leave_lane(data)
        except Exception as error:  # noqa: BLE001
            self._port.broken(error)

    def _receive_more(self, data: bytes) -> None:
        """Take what comes behind something that waits, or while no messages are expected."""
        held = False
        if self._rest:
            held, data, self._rest = True, self._rest + data, b""
        if self.phase is _OPEN:
            if self._machine is None:
                data = self._run_lane(data, held=held)
            self._leave_lane(data)
        elif self.phase is Phase.CLOSING:
            self._await_close(data)
        elif self.phase is Phase.CONNECTING:
            self._rest = data
            if len(data) > _EARLY:
                self._drop("frames before the handshake was answered")

    def _read(self, data: bytes) -> None:
        """Read what has waited."""
        if self.phase is Phase.CLOSING:
            self._await_close(data)
        elif self._machine is None:
            self._leave_lane(self._run_lane(data))
        else:
            self._leave_lane(data)

    def resume(self) -> None:
        """Go on with what has waited: for the application to have room, or for others' turn."""
        if self.phase is Phase.OPEN or self.phase is Phase.CLOSING:
            data, self._rest = self._rest, b""
            self._read(data)

    def _leave_lane(self, data: bytes) -> None:
        """Read what begins with something for the machine, by whichever of the two it is for."""
        while data:
            data = self._run_machine(data)
            if data:
                data = self._run_lane(data)

    def _run_lane(self, data: bytes, *, held: bool = False) -> bytes:
        """Read what is for the lane; return what the machine is to read, if anything is.

        `held` says that `data` begins with what was not enough before.
        """
        used, size, longest, opcodes = 0, len(data), self._longest, self._opcodes
        budget = BUDGET
        while used < size:
            end = lane_end(data, used, longest, opcodes)
            if end < 0:
                return data[used:]
            if end > size:
                return self._hold(data[used:], again=held and not used)
            opcode = data[used]
            start = used + (8 if data[used + 1] == TWO_BYTES else 6)
            if opcode < CLOSE:
                payload = unmask(data[start:end], data[start - 4 : start])
                goes_on = self._deliver(payload, text=opcode == TEXT)
            elif opcode > PONG and end - start >= STEP:
                return data[used:]
            else:
                budget -= 1
                payload = unmask(data[start:end], data[start - 4 : start])
                goes_on = self._receive_rarer(opcode, payload) and self._may_go_on(budget)
            if not goes_on:
                self._rest = data[end:] if self.phase is Phase.OPEN else b""
                return b""
            used = end
        return b""

    def _may_go_on(self, budget: int) -> bool:
        """Say whether to read on; if the `budget` is spent, not before others had their turn."""
        if not budget:
            self._exchange.breathe()
        return budget > 0

    def _hold(self, data: bytes, *, again: bool) -> bytes:
        """Keep the beginning of a frame, or return it for the machine.

        The lane reads a frame from its beginning every time: the machine, which does not, gets one
        that is not whole `again`.
        """
        if again:
            return data
        if is_hopeless(data, 0):
            self.failed(INVALID_PAYLOAD, NOT_TEXT)
        else:
            self._rest = data
        return b""

    def _receive_rarer(self, opcode: int, payload: bytes) -> bool:
        """Take a ping, a pong, or a compressed message; return whether to read on."""
        if opcode == PING:
            self.pinged(payload)
        elif opcode != PONG:
            assert self._deflate is not None  # noqa: S101 - for the type checker
            try:
                message = self._deflate.inflate(payload)
            except Violation as violation:
                self.failed(violation.code, violation.reason, violation.option)
                return False
            return self._deliver(message, text=opcode == TEXT | COMPRESSED)
        return True

    def _deliver(self, payload: bytes, *, text: bool) -> bool:
        """Hand a message on; return whether to read on, or no more than that."""
        exchange = self._exchange
        if not text:
            exchange.receive_message(payload)
            return not exchange.paused
        try:
            message = payload.decode("utf-8")
        except UnicodeDecodeError:
            self.failed(INVALID_PAYLOAD, NOT_TEXT)
            return False
        exchange.receive_message(message)
        return not exchange.paused

    def _run_machine(self, data: bytes) -> bytes:
        """Let autobahn read `data`; return what it leaves once it is between two messages."""
        machine = self._the_machine()
        rest = machine.feed(data)
        if self.phase is not Phase.OPEN:
            return b""
        if machine.exhausted:
            self._exchange.breathe()
        elif not machine.occupied:
            self._machine = None
            if len(rest) < len(data) and not self._exchange.paused:
                return rest
        self._rest = rest
        return b""

    def _await_close(self, data: bytes) -> None:
        """Look for the peer's close frame, unless we have failed the connection."""
        machine, budget = self._machine, BUDGET
        while data and machine is not None and self.phase is Phase.CLOSING:
            rest = machine.feed(data)
            budget -= 1
            if machine.exhausted or not budget:
                self._exchange.breathe()
            elif len(rest) < len(data):
                data = rest
                continue
            self._rest = rest
            return

    def _the_machine(self) -> Machine:
        if self._machine is None:
            self._machine = Machine(self, self._limits, self._deflate)
        return self._machine

    def message(self, payload: bytes, *, binary: bool) -> None:
        """Take a message that was not for the lane."""
        if self.phase is Phase.OPEN:
            self._deliver(payload, text=not binary)

    def write(self, data: bytes) -> None:
        """Send a frame of the machine's."""
        self._port.write(data)
