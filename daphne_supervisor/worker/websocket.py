"""WebSocket on the wire (RFC 6455).

Theory of operation. Almost every frame of almost every connection is a whole, unfragmented,
uncompressed message, or the pong to our ping. Those take the *lane*: a few lines here, in both
directions. Everything else (fragments, large frames, control frames, every violation) goes through
autobahn's state machine, which is made the first time it is needed and holds the connection until
it stands between two messages again; so an idle connection costs no state machine.

A connection that we close waits for the peer's close frame among what it still sends. One that we
*fail*, because the peer broke a rule, has a close frame from us and the end of our side; what the
peer still sends means nothing any more and is thrown away.

This module knows neither sockets nor ASGI.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import logging
import math
import struct
from typing import TYPE_CHECKING

from daphne_supervisor.worker.frames import Machine, unmask
from daphne_supervisor.worker.response import Response, encode_switch

if TYPE_CHECKING:
    from daphne_supervisor.config import WebSocket as Limits
    from daphne_supervisor.worker.head import Head, Headers
    from daphne_supervisor.worker.waist import Messages, Port

__all__ = ["Phase", "WebSocket"]

logger = logging.getLogger("daphne_supervisor.worker")

#: RFC 6455 section 1.3.
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#: Seconds for the peer's half of the closing handshake before the connection is cut.
CLOSE_TIMEOUT = 5.0
#: A frame up to this many bytes is collected in the lane; a larger one is autobahn's to collect.
_LANE = 65_536
#: What a client may send before it has our answer to its handshake. None should send anything.
_EARLY = 65_536
#: A close reason has to fit into a control frame beside its code (RFC 6455 section 5.5).
_LONGEST_REASON = 123

#: Above this many bytes header and payload are written apart: a copy would cost more.
_COPY = 16_384

# RFC 6455 section 5.2: first bytes of final frames, and values of the second one.
_TEXT, _BINARY, _CLOSE, _PONG = 0x81, 0x82, 0x88, 0x8A
_PLAIN = frozenset({_TEXT, _BINARY, _PONG})
_PING = b"\x89\x00"
_SHORTEST_HEADER = 2
_MASKED = 128
_TWO_BYTES = _MASKED + 126
_EIGHT_BYTES = _MASKED + 127

# RFC 6455 section 7.4.1 and the IANA registry of close codes.
NORMAL, NO_STATUS, ABNORMAL = 1000, 1005, 1006
INVALID_PAYLOAD, TOO_BIG, SERVICE_RESTART = 1007, 1009, 1012


class Phase(enum.IntEnum):
    """Where the connection is."""

    CONNECTING = 0  # the application has not answered the handshake
    DENYING = 1  # it answers with an HTTP response
    OPEN = 2
    CLOSING = 3  # our close frame is sent, the peer's is awaited
    CLOSED = 4


def _header(opcode: int, size: int) -> bytes:
    """Return the header of an unmasked frame (RFC 6455 section 5.2)."""
    if size < _TWO_BYTES - _MASKED:
        return bytes((opcode, size))
    if size < 65_536:  # noqa: PLR2004 - what two bytes hold
        return struct.pack("!BBH", opcode, 126, size)
    return struct.pack("!BBQ", opcode, 127, size)


class WebSocket:
    """The codec of one WebSocket connection, from the handshake's answer on.

    `limits` are those of the configuration. Every phase change stops or starts what `deadline`
    watches: the application's answer, the ping, its pong, the connection's age, the closing.
    """

    __slots__ = (
        "_born",
        "_exchange",
        "_head",
        "_heard",
        "_limits",
        "_longest",
        "_machine",
        "_pinged",
        "_port",
        "_response",
        "_rest",
        "deadline",
        "phase",
    )

    def __init__(self, port: Port, head: Head, early: bytes, limits: Limits) -> None:
        """Answer the handshake `head` through `port`; `early` was received behind it."""
        self._port = port
        self._head = head
        self._limits = limits
        self._exchange: Messages
        self._machine: Machine | None = None
        self._response: Response  # that denies the handshake
        self._rest = early
        sizes = (_LANE, limits.max_frame_size, limits.max_message_size)
        self._longest = min(size for size in sizes if size)
        self._pinged = 0.0  # when a ping was sent that has not been answered
        self._born = self._heard = port.now()
        self.phase = Phase.CONNECTING
        patience = limits.connect_timeout
        self.deadline = self._born + patience if patience > 0 else math.inf

    def attach(self, exchange: Messages) -> None:
        """Report to `exchange`."""
        self._exchange = exchange

    # -- bytes in --

    def receive(self, data: bytes) -> None:
        """Take what the client sent, in any slicing."""
        self._heard = self._port.now()
        self._pinged = 0.0
        if self._rest:
            data, self._rest = self._rest + data, b""
        if self.phase is Phase.OPEN:
            self._receive_frames(data)
        elif self.phase is Phase.CONNECTING:
            self._rest = data
            if len(data) > _EARLY:
                self._drop("frames before the handshake was answered")
        elif self.phase is Phase.CLOSING and self._machine is not None:
            self._run_machine(data)

    def _receive_frames(self, data: bytes) -> None:
        if self._machine is not None and self._machine.occupied:
            self._run_machine(data)
            return
        used, size, longest = 0, len(data), self._longest
        while used < size:
            end = _lane_end(data, used, longest)
            if end < 0:
                self._run_machine(data[used:])
                return
            if end > size:
                self._rest = data[used:]
                return
            opcode = data[used]
            start = used + (4 if data[used + 1] == _TWO_BYTES else 2)
            if opcode != _PONG:
                payload = unmask(data[start + 4 : end], data[start : start + 4])
                if not self._deliver(payload, text=opcode == _TEXT):
                    return
            used = end

    def _deliver(self, payload: bytes, *, text: bool) -> bool:
        """Hand a message on; return whether the connection goes on."""
        if not text:
            self._exchange.receive_message(payload)
            return True
        try:
            message = payload.decode("utf-8")
        except UnicodeDecodeError:
            self.failed(INVALID_PAYLOAD, "text message is not UTF-8")
            return False
        self._exchange.receive_message(message)
        return True

    def _run_machine(self, data: bytes) -> None:
        """Let autobahn read `data`, and take back what it leaves once it is between messages."""
        machine = self._the_machine()
        machine.feed(data)
        if self.phase is Phase.OPEN and not machine.occupied:
            self._rest, machine.data = machine.data, b""

    def _the_machine(self) -> Machine:
        if self._machine is None:
            self._machine = Machine(self, self._limits)
        return self._machine

    # -- what autobahn's machine says --

    def message(self, payload: bytes, *, binary: bool) -> None:
        """Take a message that was not for the lane."""
        if self.phase is Phase.OPEN:
            self._deliver(payload, text=not binary)

    def write(self, data: bytes) -> None:
        """Send a frame of the machine's."""
        self._port.write(data)

    def failed(self, code: int, reason: str) -> None:
        """Fail the connection: a close frame, the end of our side, and deaf ears."""
        if self.phase is not Phase.OPEN:  # it is being closed: this is the end of that
            self._over()
            self._port.close()
            return
        option = ""
        if code == TOO_BIG:
            option = " (--websocket-max-message-size, --websocket-max-frame-size)"
        logger.info("WebSocket %s: closed %d, %s%s", self._head.target, code, reason, option)
        text = reason.encode("utf-8")[:_LONGEST_REASON]
        self._port.write(_header(_CLOSE, len(text) + 2) + struct.pack("!H", code) + text)
        self._machine = None
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
        self._port.write(encode_switch(lines, headers, self._port.identity()))
        self.phase = Phase.OPEN
        self._watch(self._port.now())

    def catch_up(self) -> None:
        """See to what has waited for the answer: that we are leaving, or what came early."""
        if self._port.closing_websockets:
            self.drain()
        elif self._rest:
            early, self._rest = self._rest, b""
            self._receive_frames(early)

    def deny(self, status: int, headers: Headers, body: bytes, *, more: bool) -> None:
        """Answer the handshake with an HTTP response.

        Raises `ValueError`, with nothing sent, if it is wrong.
        """
        response = Response()
        head = response.start(
            self._head,
            status,
            headers,
            size=None if more else len(body),
            identity=self._port.identity(),
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
        header = _header(_TEXT if text else _BINARY, len(payload))
        if len(payload) > _COPY:
            self._port.write(header)
            self._port.write(payload)
        else:
            self._port.write(header + payload)

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake, if none has begun."""
        if self.phase is not Phase.OPEN:
            return
        cut = reason.encode("utf-8")[:_LONGEST_REASON].decode("utf-8", "ignore")
        self._the_machine().sendCloseFrame(code, cut.encode("utf-8"))
        self._begin_closing(code, reason)

    def abort(self) -> None:
        """Cut the connection."""
        self._over()
        self._port.abort()

    def _begin_closing(self, code: int, reason: str) -> None:
        self.phase = Phase.CLOSING
        self.deadline = self._port.now() + CLOSE_TIMEOUT
        self._rest = b""
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

    # -- time --

    def expire(self, now: float) -> None:
        """Act on the deadline, which has passed."""
        if self.phase is Phase.CONNECTING:
            self.deadline = math.inf
            self._exchange.expire()
        elif self.phase is Phase.OPEN:
            self._expire_open(now)
        elif self.phase is Phase.CLOSING and self._port.congested:
            # Our close frame waits behind messages that are being taken: --write-timeout watches.
            self.deadline = now + CLOSE_TIMEOUT
        else:
            self.abort()

    def _expire_open(self, now: float) -> None:
        limits = self._limits
        if 0 <= limits.websocket_timeout <= now - self._born:
            self.close(NORMAL, "")
            return
        if self._exchange.paused or self._port.congested:
            # Its pong would wait behind unread messages, or our ping behind unsent ones: silence
            # says nothing about the peer.
            self._heard, self._pinged = now, 0.0
        if self._pinged and 0 < limits.ping_timeout <= now - self._pinged:
            self._drop("ping timeout (--ping-timeout)")
            return
        if not self._pinged and 0 < limits.ping_interval <= now - self._heard:
            self._pinged = now
            self._port.write(_PING)
        self._watch(now)

    def _watch(self, now: float) -> None:
        """Set the deadline of an open connection."""
        limits = self._limits
        due = [math.inf]
        if limits.websocket_timeout >= 0:
            due.append(self._born + limits.websocket_timeout)
        if self._pinged:
            if limits.ping_timeout > 0:
                due.append(self._pinged + limits.ping_timeout)
        elif limits.ping_interval > 0:
            due.append(max(self._heard + limits.ping_interval, now))
        self.deadline = min(due)

    def drain(self) -> None:
        """The worker is leaving: say so, and that it comes back."""
        self.close(SERVICE_RESTART, "service restart")


def _lane_end(data: bytes, at: int, longest: int) -> int:
    """Return where the frame that begins at `at` ends, -1 if it is not for the lane.

    The end lies beyond `data` while the frame is not whole; so it does while its header is not.
    """
    size = len(data)
    if size - at < _SHORTEST_HEADER:
        return size + 1
    opcode, length = data[at], data[at + 1] - _MASKED
    if opcode not in _PLAIN or length < 0 or length == _EIGHT_BYTES - _MASKED:
        return -1
    start = at + 6
    if length == _TWO_BYTES - _MASKED:
        if size - at < 4:  # noqa: PLR2004 - the two bytes of the length
            return size + 1
        length = (data[at + 2] << 8) | data[at + 3]
        start = at + 8
        # Not the shortest form, or a control frame too large: a violation.
        if length < _TWO_BYTES - _MASKED or opcode == _PONG:
            return -1
    return start + length if length <= longest else -1
