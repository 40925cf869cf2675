"""WebSocket on the wire (RFC 6455).

Theory of operation. Almost every frame of almost every connection is a whole, unfragmented message,
a ping, or the pong to ours. Those take the *lane*: a few lines here, in both directions. Everything
else (fragments, large frames, frames that come in many pieces, close frames, every violation) goes
through autobahn's state machine, which is made when it is needed and let go when it stands between
two messages again; so an idle connection costs no state machine.

Nobody is read for long at once. Once so much waits for the application that reading pauses, or a
client has sent `BUDGET` frames that are no plain messages, the rest of what was received waits as
it is: above all, compressed messages wait compressed.

A connection that we close waits for the peer's close frame among what it still sends. One that we
*fail*, because the peer broke a rule, has a close frame from us and the end of our side; what the
peer still sends means nothing any more and is thrown away.

This module knows neither sockets nor ASGI.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import math
import struct
from typing import TYPE_CHECKING

from daphne_supervisor.worker.compression import STEP, Deflate, agree
from daphne_supervisor.worker.frames import BUDGET, NOT_TEXT, Machine, is_hopeless, unmask
from daphne_supervisor.worker.framing import (
    ABNORMAL,
    BINARY,
    CLOSE,
    COMPRESSED,
    INVALID_PAYLOAD,
    NO_STATUS,
    PING,
    PONG,
    SERVICE_RESTART,
    TEXT,
    TWO_BYTES,
    Violation,
    header,
    lane_end,
)
from daphne_supervisor.worker.pulse import CLOSE_TIMEOUT, Phase, Pulse
from daphne_supervisor.worker.response import Response, encode_switch

if TYPE_CHECKING:
    from daphne_supervisor.config import WebSocket as Limits
    from daphne_supervisor.worker.compression import Agreement
    from daphne_supervisor.worker.head import Head, Headers
    from daphne_supervisor.worker.waist import Messages, Port

__all__ = ["CLOSE_TIMEOUT", "Phase", "WebSocket"]

logger = logging.getLogger("daphne_supervisor.worker")

#: RFC 6455 section 1.3.
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#: A frame up to this many bytes is collected in the lane; a larger one is autobahn's to collect.
_LANE = 65_536
_PLAIN = frozenset({TEXT, BINARY, PING, PONG})
_INFLATABLE = _PLAIN | {TEXT | COMPRESSED, BINARY | COMPRESSED}
#: What a client may send before it has our answer to its handshake. None should send anything.
_EARLY = 65_536
#: A close reason has to fit into a control frame beside its code (RFC 6455 section 5.5).
_LONGEST_REASON = 123
#: Above this many bytes header and payload are written apart: a copy would cost more.
_COPY = 16_384


class WebSocket(Pulse):
    """The codec of one WebSocket connection, from the handshake's answer on."""

    __slots__ = ("_deflate", "_head", "_longest", "_machine", "_opcodes", "_response", "_rest")

    def __init__(self, port: Port, head: Head, early: bytes, limits: Limits) -> None:
        """Answer the handshake `head` through `port`; `early` was received behind it."""
        super().__init__(port, limits)
        self._head = head
        self._deflate: Deflate | None = None
        self._machine: Machine | None = None
        self._response: Response  # that denies the handshake
        self._rest = early
        sizes = (_LANE, limits.max_frame_size, limits.max_message_size)
        self._longest = min(size for size in sizes if size)
        self._opcodes = _PLAIN

    def attach(self, exchange: Messages) -> None:
        """Report to `exchange`."""
        self._exchange = exchange

    # -- bytes in --

    def receive(self, data: bytes) -> None:
        """Take what the client sent, in any slicing."""
        self._heard = self._port.now()
        self._pinged = 0.0
        held = False
        if self._rest:
            held, data, self._rest = True, self._rest + data, b""
        try:
            if self.phase is Phase.OPEN:
                if self._machine is None:
                    data = self._run_lane(data, held=held)
                if data:
                    self._leave_lane(data)
            elif self.phase is Phase.CLOSING:
                self._await_close(data)
            elif self.phase is Phase.CONNECTING:
                self._rest = data
                if len(data) > _EARLY:
                    self._drop("frames before the handshake was answered")
        except Exception as error:  # noqa: BLE001
            self._port.broken(error)

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

    # -- what autobahn's machine says --

    def message(self, payload: bytes, *, binary: bool) -> None:
        """Take a message that was not for the lane."""
        if self.phase is Phase.OPEN:
            self._deliver(payload, text=not binary)

    def write(self, data: bytes) -> None:
        """Send a frame of the machine's."""
        self._port.write(data)

    def failed(self, code: int, reason: str, option: str = "") -> None:
        """Fail the connection: a close frame, the end of our side, and deaf ears.

        The log has the `reason`, and the `option` that sets the limit.
        """
        if self.phase is not Phase.OPEN:  # it is being closed: this is the end of that
            self._over()
            self._port.close()
            return
        named = f" ({option})" if option else ""
        logger.info("WebSocket %s: closed %d, %s%s", self._head.target, code, reason, named)
        text = reason.encode("utf-8")[:_LONGEST_REASON]
        self._port.write(header(CLOSE, len(text) + 2) + struct.pack("!H", code) + text)
        self._machine = None
        self._rest = b""
        self._begin_closing(code, reason)
        self._port.shut()

    def ended(self, code: int | None, reason: str | None) -> None:
        """The closing handshake is complete; the server closes first (RFC 6455 section 7.1.1)."""
        if self.phase is Phase.OPEN:
            self._exchange.closed(NO_STATUS if code is None else code, reason or "")
        self._over()
        self._port.close()

    # -- what the exchange asks for --

    def accept(self, subprotocol: str | None, headers: Headers) -> None:
        """Answer 101; `catch_up` has to follow.

        Raises `ValueError`, with nothing sent, when the application's headers cannot be sent.
        """
        key = self._head.values(b"sec-websocket-key")[0]
        digest = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        lines = [
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Accept", digest),
        ]
        if subprotocol is not None:
            lines.append((b"Sec-WebSocket-Protocol", subprotocol.encode("ascii")))
        agreement = self._agreement()
        if agreement is not None:
            lines.append((b"Sec-WebSocket-Extensions", agreement.answer))
        self._port.write(encode_switch(lines, headers, self._port.identity()))
        if agreement is not None:
            self._deflate = Deflate(agreement, self._limits)
            self._opcodes = _INFLATABLE
        self.phase = Phase.OPEN
        self._watch(self._port.now())

    def _agreement(self) -> Agreement | None:
        if not self._limits.compression:
            return None
        return agree(self._head.values(b"sec-websocket-extensions"), self._limits)

    def catch_up(self) -> None:
        """See to what has waited for the answer: that we are leaving, or what came early."""
        if self._port.worker.closing_websockets:
            self.drain()
        elif self._rest:
            early, self._rest = self._rest, b""
            self._read(early)

    def deny(self, status: int, headers: Headers, body: bytes, *, more: bool) -> None:
        """Answer the handshake with an HTTP response.

        Raises `ValueError`, with nothing sent, if it is wrong.
        """
        response = Response()
        head = response.start(
            self._head,
            status,
            headers,
            None if more else len(body),
            self._port.identity(),
            close=True,
        )
        piece = response.body(body, more=more)
        self._response = response
        self.phase = Phase.DENYING
        self.deadline = math.inf
        self._rest = b""
        self._send_denial(head + piece, more=more)

    def deny_further(self, body: bytes, *, more: bool) -> None:
        """Send a further piece of the response. Raises `ValueError` if it is too much."""
        self._send_denial(self._response.body(body, more=more), more=more)

    def _send_denial(self, data: bytes, *, more: bool) -> None:
        self._port.write(data)
        if not more:
            self._over()
            self._port.close()

    def send(self, payload: bytes, *, text: bool) -> None:
        """Send a message as one frame."""
        opcode = TEXT if text else BINARY
        if self._deflate is not None and len(payload) >= self._limits.compression_min_size:
            deflated = self._deflate.deflate(payload)
            if deflated is not None:
                opcode, payload = opcode | COMPRESSED, deflated
        head = header(opcode, len(payload))
        if len(payload) > _COPY:
            self._port.write(head)
            self._port.write(payload)
        else:
            self._port.write(head + payload)

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake, if none has begun."""
        if self.phase is not Phase.OPEN:
            return
        cut = reason.encode("utf-8")[:_LONGEST_REASON].decode("utf-8", "ignore")
        self._the_machine().sendCloseFrame(code, cut.encode("utf-8"))
        rest, self._rest = self._rest, b""
        self._begin_closing(code, reason)
        self._await_close(rest)

    def abort(self) -> None:
        """Cut the connection."""
        self._over()
        self._port.abort()

    def _begin_closing(self, code: int, reason: str) -> None:
        self.phase = Phase.CLOSING
        self.deadline = self._port.now() + CLOSE_TIMEOUT
        self._exchange.closed(code, reason)

    def _drop(self, reason: str) -> None:
        logger.info("WebSocket %s: dropped, %s", self._head.target, reason)
        self._exchange.closed(ABNORMAL, reason)
        self.abort()

    def _over(self) -> None:
        self.phase = Phase.CLOSED
        self.deadline = math.inf
        self._machine = None
        self._rest = b""

    def lost(self) -> None:
        """The connection is gone."""
        told = self.phase >= Phase.CLOSING
        self._over()
        if not told:
            self._exchange.closed(ABNORMAL, "")

    def drain(self) -> None:
        """The worker is leaving: say so, and that it comes back."""
        self.close(SERVICE_RESTART, "service restart")
