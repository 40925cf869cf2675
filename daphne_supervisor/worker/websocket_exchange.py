"""One WebSocket against one application call (ASGI WebSocket specification 2.5).

Which messages may be sent in which state is a table: the state *is* its row.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from daphne_supervisor.worker.exchange import ClientDisconnected, Exchange, as_bytes, unexpected
from daphne_supervisor.worker.framing import CODES
from daphne_supervisor.worker.scope import subprotocols, websocket_scope

if TYPE_CHECKING:
    from collections.abc import Callable

    from daphne_supervisor.logs import Action
    from daphne_supervisor.worker.head import Head, Headers
    from daphne_supervisor.worker.waist import Message, Throttled
    from daphne_supervisor.worker.websocket import WebSocket

__all__ = ["WebSocketExchange"]

logger = logging.getLogger("daphne_supervisor.worker")

#: Bytes of messages that may wait for the application before reading from the client pauses.
HIGH_WATER = 1_048_576
#: Messages of a worker behind which who sends lets others have their turn.
_TURN = 256
_ABNORMAL, _INTERNAL_ERROR = 1006, 1011
_FORBIDDEN = 403


class WebSocketExchange(Exchange):
    """The exchange of one WebSocket."""

    def __init__(self, connection: Throttled, codec: WebSocket, head: Head) -> None:
        """Exchange the messages of `codec`, whose handshake was `head`."""
        super().__init__(connection.service)
        self._connection = connection
        self._codec = codec
        self._head = head
        self._messages: deque[Message] = deque()
        self._queued = 0
        self._most = self._service.config.websocket.max_queue
        self.paused = False  # too much waits for the application
        self._breathing = False  # others have their turn
        self._connected = False  # the application has had websocket.connect
        self._answered = False  # it has accepted: its call is in flight no more
        self._close_code = 0
        self._close_reason = ""
        self._denial: tuple[int, Headers] = (_FORBIDDEN, [])
        self._state = _CONNECTING

    # -- from the codec --

    def start(self) -> None:
        """Call the application."""
        self._service.handshakes += 1
        self._service.websockets += 1
        self._log("WSCONNECTING")
        super().start()

    def receive_message(self, message: Message) -> None:
        """Take a message from the client; stop reading when too much waits."""
        self._service.messages += 1
        messages = self._messages
        messages.append(message)
        self._queued += len(message)
        if (len(messages) >= self._most or self._queued >= HIGH_WATER) and not self.paused:
            self.paused = True
            self._connection.pause_reading()
        if self._waiters:
            self.wake()

    def breathe(self) -> None:
        """Read no more of this client until the loop has looked at everyone else."""
        if not self._breathing:
            self._breathing = True
            self._connection.pause_reading()
            self._connection.soon(self._breathed)

    def _breathed(self) -> None:
        """Let messages flow again: first what the codec has held back, which may be enough."""
        self._breathing = False
        if not self.paused:
            self._codec.resume()
        if not (self.paused or self._breathing):
            self._connection.resume_reading()

    def turn_away(self) -> None:
        """Answer 503; the connection has looked before, so this is for a limit met since."""
        self._service.handshakes -= 1
        self._service.websockets -= 1
        self._deny_plainly(503)

    def closed(self, code: int, reason: str) -> None:
        """Note that the WebSocket is over."""
        self._close_code = code
        self._close_reason = reason
        if self._state is _OPEN:
            self._log("WSDISCONNECT")
        self._state = _CLOSED
        if self.paused:
            self.paused = False
            if not self._breathing:
                self._connection.resume_reading()
        self.leave()

    def expire(self) -> None:
        """Deny for an application that has taken too long."""
        logger.warning("%s: no answer within --websocket_connect_timeout", self.describe())
        self._deny_plainly(_FORBIDDEN)

    # -- for the application --

    def scope(self) -> dict[str, Any]:
        """Return the `websocket` scope."""
        service = self._service
        scope = websocket_scope(
            self._head, self._connection.peer, service.proxies, service.root_path
        )
        if service.state is not None:
            scope["state"] = service.state.copy()
        return scope

    async def receive(self) -> dict[str, Any]:
        """Return `websocket.connect`, then the messages, then `websocket.disconnect`."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        messages = self._messages
        while not messages:
            if self.gone:
                # Asked again and again, it must not keep the loop from everyone else.
                await asyncio.sleep(0)
                return {
                    "type": "websocket.disconnect",
                    "code": self._close_code or _ABNORMAL,
                    "reason": self._close_reason,
                }
            await self.wait()
        message = messages.popleft()
        self._queued -= len(message)
        if self.paused:
            self._make_room()
        if isinstance(message, str):
            return {"type": "websocket.receive", "text": message}
        return {"type": "websocket.receive", "bytes": message}

    def _make_room(self) -> None:
        """Go on reading at half, for a client that sends more than we take.

        Not at once, for the others.
        """
        if len(self._messages) * 2 < self._most and self._queued * 2 < HIGH_WATER:
            self.paused = False
            self.breathe()

    async def send(self, message: dict[str, Any]) -> None:
        """Do what the application says; wait while the client reads slower than we send.

        Raises `ClientDisconnected` when the client has left, `ValueError` for a message out of
        order or one that cannot be sent.
        """
        kind = message["type"]
        step = self._state.get(kind)
        if step is None:
            if self.gone:
                raise ClientDisconnected
            raise unexpected(kind, _EXPECTED[id(self._state)])
        connection = self._connection
        is_closing = connection.is_closing  # a step of its own: `WebSocket.receive` says why
        if is_closing():
            await self.refuse()
        if step(self, message):
            await asyncio.sleep(0)
        if connection.congested:
            await connection.drained()
            if self.gone:
                raise ClientDisconnected

    def _accept(self, message: dict[str, Any]) -> None:
        subprotocol = message.get("subprotocol")
        if subprotocol is not None and subprotocol not in subprotocols(self._head):
            error = f"subprotocol {subprotocol!r} was not offered by the client"
            raise ValueError(error)
        self._codec.accept(subprotocol, list(message.get("headers", ())))
        self._state = _OPEN
        self._answered = True
        self._service.in_flight -= 1
        self._log("WSCONNECT")
        self._codec.catch_up()

    def _reject(self, message: dict[str, Any]) -> None:  # noqa: ARG002 - code and reason have no place
        self._deny_plainly(_FORBIDDEN)

    def _deny_plainly(self, status: int) -> None:
        self._state = _CLOSED
        self._log("WSREJECT")
        self._codec.deny(status, [], b"", more=False)
        self.closed(_ABNORMAL, "")

    def _start_denial(self, message: dict[str, Any]) -> None:
        if "status" not in message:
            error = "websocket.http.response.start without status"
            raise ValueError(error)
        self._denial = (message["status"], list(message.get("headers", ())))
        self._state = _DENIAL_STARTED

    def _send_denial(self, message: dict[str, Any]) -> None:
        more = message.get("more_body", False)
        status, headers = self._denial
        self._codec.deny(status, headers, as_bytes(message.get("body", b"")), more=more)
        self._state = _DENYING
        self._log("WSREJECT")
        if not more:
            self.closed(_ABNORMAL, "")

    def _send_more_denial(self, message: dict[str, Any]) -> None:
        more = message.get("more_body", False)
        self._codec.deny_further(as_bytes(message.get("body", b"")), more=more)
        if not more:
            self.closed(_ABNORMAL, "")

    def _send_message(self, message: dict[str, Any]) -> bool:
        """Send a message; say whether it is time for others to have their turn.

        An application that waits for nothing would keep the event loop, for as long as its client
        reads as fast as it writes.
        """
        text, data = message.get("text"), message.get("bytes")
        if (text is None) == (data is None):
            error = "websocket.send needs either text or bytes"
            raise ValueError(error)
        self._service.messages += 1
        if text is not None:
            self._codec.send(text.encode("utf-8"), text=True)
        else:
            self._codec.send(as_bytes(data), text=False)
        return self._service.messages % _TURN == 0

    def _close(self, message: dict[str, Any]) -> None:
        code, reason = message.get("code", 1000), message.get("reason") or ""
        if code is None:
            code = 1000
        if code not in CODES:
            error = f"close code {code!r} may not be sent (RFC 6455 section 7.4)"
            raise ValueError(error)
        self._codec.close(code, reason)

    # -- the end --

    def failed(self, error: BaseException) -> None:  # noqa: ARG002 - it is logged already
        """Answer 500 to a handshake, close 1011 what is open."""
        self._end(500, _INTERNAL_ERROR)

    def returned(self) -> None:
        """An application that returns has closed its WebSocket."""
        self._end(500, 1000)

    def _end(self, status: int, code: int) -> None:
        self._service.websockets -= 1
        if not self._answered:
            self._service.in_flight -= 1
        if self._state is _OPEN:
            self._codec.close(code, "")
        elif self._state is _DENYING:
            self._codec.abort()
        elif not self.gone:
            self._deny_plainly(status)

    def describe(self) -> str:
        """Return what kind it is, and the path."""
        return f"WebSocket {self._head.target}"

    def _log(self, action: Action) -> None:
        log = self._service.access_log
        if log is not None:
            log.websocket(action, self._connection.client_text(self._head), self._head.path)


if TYPE_CHECKING:
    _Row = dict[str, Callable[[WebSocketExchange, dict[str, Any]], bool | None]]

_CONNECTING: _Row = {
    "websocket.accept": WebSocketExchange._accept,  # noqa: SLF001
    "websocket.close": WebSocketExchange._reject,  # noqa: SLF001
    "websocket.http.response.start": WebSocketExchange._start_denial,  # noqa: SLF001
}
_DENIAL_STARTED: _Row = {"websocket.http.response.body": WebSocketExchange._send_denial}  # noqa: SLF001
_DENYING: _Row = {"websocket.http.response.body": WebSocketExchange._send_more_denial}  # noqa: SLF001
_OPEN: _Row = {
    "websocket.send": WebSocketExchange._send_message,  # noqa: SLF001
    "websocket.close": WebSocketExchange._close,  # noqa: SLF001
}
_CLOSED: _Row = {}

_EXPECTED = {
    id(_CONNECTING): "the handshake has not been answered",
    id(_DENIAL_STARTED): "the denial waits for its body",
    id(_DENYING): "the handshake is being denied",
    id(_OPEN): "the WebSocket is open",
    id(_CLOSED): "the WebSocket is closed",
}
