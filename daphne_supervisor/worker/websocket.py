"""WebSocket on the wire (RFC 6455): the handshake's answer, messages out, the end.

What comes in is read by `Inbound`. A connection that we close waits for the peer's close frame
among what it still sends. One that we *fail*, because the peer broke a rule, has a close frame from
us and the end of our side; what the peer still sends means nothing any more and is thrown away.

This module knows neither sockets nor ASGI.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import math
import struct
from typing import TYPE_CHECKING, Any

from daphne_supervisor.worker.compression import Deflate, agree
from daphne_supervisor.worker.framing import (
    ABNORMAL,
    BINARY,
    CLOSE,
    COMPRESSED,
    NO_STATUS,
    SERVICE_RESTART,
    SHORT,
    SHORT_HEADERS,
    TEXT,
    header,
)
from daphne_supervisor.worker.inbound import Inbound
from daphne_supervisor.worker.pulse import CLOSE_TIMEOUT, Phase
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
#: A close reason has to fit into a control frame beside its code (RFC 6455 section 5.5).
_LONGEST_REASON = 123
#: Above this many bytes header and payload are written apart: a copy would cost more.
_COPY = 16_384


class WebSocket(Inbound):
    """The codec of one WebSocket connection, from the handshake's answer on."""

    __slots__ = ("_head", "_response")

    def __init__(self, port: Port, head: Head, early: bytes, limits: Limits) -> None:
        """Answer the handshake `head` through `port`; `early` was received behind it."""
        super().__init__(port, early, limits)
        self._head = head
        self._response: Response  # that denies the handshake

    def attach(self, exchange: Messages) -> None:
        """Report to `exchange`."""
        self._exchange = exchange

    # -- the end, as autobahn's machine says --

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
        lines = self._proof()
        if subprotocol is not None:
            lines.append((b"Sec-WebSocket-Protocol", subprotocol.encode("ascii")))
        agreement = self._agreement()
        if agreement is not None:
            lines.append((b"Sec-WebSocket-Extensions", agreement.answer))
        self._switch(lines, headers)
        if agreement is not None:
            self.compress(Deflate(agreement, self._limits))
        self.phase = Phase.OPEN
        self._watch(self._port.now())

    def _proof(self) -> Headers:
        """Return the lines that show that we know what is asked (RFC 6455 section 4.2.2)."""
        key = self._head.values(b"sec-websocket-key")[0]
        digest = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        return [
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Accept", digest),
        ]

    def _switch(self, lines: Headers, headers: Headers) -> None:
        """Send the head that accepts: our `lines`, then the application's `headers`."""
        self._port.write(encode_switch(lines, headers, self._port.worker.identity))

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
        self._start_denial(status, headers, body, more=more)

    def _start_denial(self, status: int, headers: Headers, body: bytes, *, more: bool) -> None:
        response = Response()
        head = response.start(
            self._head,
            status,
            headers,
            None if more else len(body),
            self._port.worker.identity,
            close=True,
        )
        piece = response.body(body, more=more)
        self._response = response
        self._denying(more=True)
        self._send_denial(head + piece, more=more)

    def _denying(self, *, more: bool) -> None:
        """Expect nothing of the client, with a denial that is sent or, with `more`, being sent."""
        self.phase = Phase.DENYING
        self.deadline = math.inf
        self._rest = b""
        if not more:
            self._over()

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
        size = len(payload)
        head = SHORT_HEADERS[opcode][size] if size < SHORT else header(opcode, size)
        write = self._port.write  # as in `receive`
        if size > _COPY:
            write(head)
            write(payload)
        else:
            write(head + payload)

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
        self.left()
        self.part()

    def part(self) -> None:
        """Have to do with nobody any more, so that all is freed at once."""
        nobody: Any = None
        self._port = self._exchange = nobody

    def left(self) -> None:
        """Tell that the client has left."""
        told = self.phase >= Phase.CLOSING
        self._over()
        if not told:
            self._exchange.closed(ABNORMAL, "")

    def drain(self) -> None:
        """The worker is leaving: say so, and that it comes back."""
        self.close(SERVICE_RESTART, "service restart")
