"""One HTTP request against one application call (ASGI HTTP specification 2.5).

Which messages may be sent in which state is a table: the state *is* its row.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from daphne_supervisor.worker.exchange import ClientDisconnected, Exchange, as_bytes, unexpected
from daphne_supervisor.worker.response import RETRY_AFTER, error_page
from daphne_supervisor.worker.scope import http_scope

if TYPE_CHECKING:
    from collections.abc import Callable

    from daphne_supervisor.worker.connection import Connection
    from daphne_supervisor.worker.head import Head, Headers
    from daphne_supervisor.worker.waist import Wire

__all__ = ["HttpExchange"]

logger = logging.getLogger("daphne_supervisor.worker")

#: Bytes of body that may wait for the application before reading from the client pauses.
HIGH_WATER = 65_536


class HttpExchange(Exchange):
    """The exchange of one request."""

    # What most requests never change stands here, once for all of them.
    _body: list[bytes] | None = None  # what waits for the application
    _queued = 0  # bytes of it
    _delivered = False  # the application has had the last of the body
    _dismissed = False  # it hears that its client has left, though it has not
    _continued = True  # the client was asked for the body, if it wants to be asked
    _status = 0
    _headers: Headers = []  # noqa: RUF012 - replaced, never changed
    _size = 0  # bytes of body sent, counted for the access log

    def __init__(self, connection: Connection, wire: Wire, head: Head, stream: int) -> None:
        """Exchange `stream` of `wire`, whose head is `head`."""
        self._service = connection.service
        self._connection = connection
        self._wire = wire
        self.stream = stream
        self.head = head
        self._body_ended = head.length == 0
        if head.expects_continue:
            self._continued = False
        self._state = _NOT_STARTED

    # -- from the codec --

    @property
    def full(self) -> bool:
        """Say whether so much of the body waits that no more should be read."""
        return self._queued > HIGH_WATER

    @property
    def waits_for_continue(self) -> bool:
        """Say whether the client wants to be asked for its body and was not."""
        return not self._continued and not self._queued

    def receive_body(self, data: bytes) -> None:
        """Take a piece of the request body."""
        if self._body is None:
            self._body = [data]
        else:
            self._body.append(data)
        self._queued += len(data)
        self._continued = True
        if self._waiters:
            self.wake()

    def end_body(self) -> None:
        """Note that the request body is complete."""
        self._body_ended = True
        if self._waiters:
            self.wake()

    def turn_away(self) -> None:
        """Answer 503."""
        self._answer(503, self._service.shed(), RETRY_AFTER)

    def lost(self) -> None:
        """The client has left."""
        if self._task is not None and self._state is not _COMPLETE:
            self._log()
        self._state = _COMPLETE
        self.leave()

    def expire(self) -> None:
        """Answer for an application that has taken too long."""
        logger.warning("%s: no response within --http-timeout", self.describe())
        if self._state is _NOT_STARTED or self._state is _STARTED:
            self._answer(503, "Application failed to respond within time limit.")
            self.leave()
        else:
            self._break_off()

    def dismiss(self) -> bool:
        """Let an application that streams its response hear `http.disconnect`, once.

        It may go on sending; what it was going to receive it still receives before.
        """
        begun = self._state is _STARTED or self._state is _SENDING
        if self._dismissed or not begun:
            return False
        self._dismissed = True
        self.wake()
        return True

    # -- for the application --

    def scope(self) -> dict[str, Any]:
        """Return the `http` scope."""
        service = self._service
        scope = http_scope(self.head, self._connection.peer, service.proxies, service.root_path)
        if service.state is not None:
            scope["state"] = service.state.copy()
        return scope

    async def receive(self) -> dict[str, Any]:
        """Return `http.request` with what has arrived of the body, then `http.disconnect`."""
        while not self.gone and self._state is not _COMPLETE:
            if self._body or (self._body_ended and not self._delivered):
                return self._take_body()
            if self._dismissed:
                break
            if not self._continued:
                self._continued = True
                self._wire.proceed(self.stream)
            await self.wait()
        # An application that asks again and again must not keep the loop from everyone else.
        await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    def _take_body(self) -> dict[str, Any]:
        body = b"".join(self._body) if self._body else b""
        self._body = None
        self._queued = 0
        self._delivered = self._body_ended
        self._wire.taken(self.stream)
        return {"type": "http.request", "body": body, "more_body": not self._body_ended}

    async def send(self, message: dict[str, Any]) -> None:
        """Send a response message; wait while the client reads slower than we send.

        Raises `ClientDisconnected` when the client has left, `ValueError` for a message out of
        order or one that cannot be sent.
        """
        if self.gone:
            raise ClientDisconnected
        kind = message["type"]
        step = self._state.get(kind)
        if step is None:
            raise unexpected(kind, _EXPECTED[id(self._state)])
        connection = self._connection
        if connection.is_closing():
            await self.refuse()
        step(self, message)
        if connection.congested:
            await connection.drained()
            if self.gone:
                raise ClientDisconnected

    def _start_response(self, message: dict[str, Any]) -> None:
        """Keep the head until the first piece of the body, as ASGI asks."""
        if "status" not in message:
            error = "http.response.start without status"
            raise ValueError(error)
        self._status = message["status"]
        self._headers = list(message.get("headers", ()))
        self._state = _STARTED

    def _send_head(self, message: dict[str, Any]) -> None:
        body = message.get("body", b"")
        if not isinstance(body, bytes):
            body = as_bytes(body)
        more = message.get("more_body", False)
        self._state = _SENDING if more else _COMPLETE
        try:
            self._wire.respond(self.stream, self._status, self._headers, body, more=more)
        except ValueError:
            self._state = _NOT_STARTED
            raise
        if self._waiters or self._service.access_log is not None:
            self._note(body, more=more)

    def _send_body(self, message: dict[str, Any]) -> None:
        body = as_bytes(message.get("body", b""))
        more = message.get("more_body", False)
        self._wire.send(self.stream, body, more=more)
        if not more:
            self._state = _COMPLETE
        self._note(body, more=more)

    def _note(self, body: bytes, *, more: bool) -> None:
        """Count what was sent for the access log, and wake who waits for the end of it."""
        if self._waiters and not more:
            self.wake()
        if self._service.access_log is not None:
            if self.head.method != "HEAD":
                self._size += len(body)
            if not more:
                self._log()

    # -- the end --

    def failed(self, error: BaseException) -> None:  # noqa: ARG002 - it is logged already
        """Answer 500, or cut a response that has begun."""
        self._service.in_flight -= 1
        if self.gone or self._state is _COMPLETE:
            return
        if self._state is _SENDING:
            self._break_off()
        else:
            self._answer(500, "Exception inside application.")

    def returned(self) -> None:
        """See to a response that the application has left unfinished."""
        self._service.in_flight -= 1
        if self.gone or self._state is _COMPLETE:
            return
        status, text = 503, "The worker is leaving."
        if not self._dismissed:
            status, text = 500, "Application returned without a response."
            logger.error(
                "%s: the application returned without a complete response", self.describe()
            )
        if self._state is _SENDING:
            self._break_off()
        else:
            self._answer(status, text)

    def _answer(self, status: int, text: str, *extra: tuple[bytes, bytes]) -> None:
        headers, page = error_page(status, text)
        self._start_response({"status": status, "headers": [*headers, *extra]})
        self._send_head({"body": page})

    def _break_off(self) -> None:
        self._log()
        self._state = _COMPLETE
        self._wire.give_up(self.stream)
        self.leave()

    def describe(self) -> str:
        """Return method and path."""
        return f"{self.head.method} {self.head.target}"

    def _log(self) -> None:
        log = self._service.access_log
        if log is not None:
            log.http(
                self._connection.client_text(self.head),
                self.head.method,
                self.head.target,
                self._status,
                self._size,
            )


if TYPE_CHECKING:
    _Row = dict[str, Callable[[HttpExchange, dict[str, Any]], None]]

#: What the application may send: the response's head, its first piece of body, further pieces,
#: nothing. The state of an exchange is one of these rows.
_NOT_STARTED: _Row = {"http.response.start": HttpExchange._start_response}  # noqa: SLF001
_STARTED: _Row = {"http.response.body": HttpExchange._send_head}  # noqa: SLF001
_SENDING: _Row = {"http.response.body": HttpExchange._send_body}  # noqa: SLF001
_COMPLETE: _Row = {}

_EXPECTED = {
    id(_NOT_STARTED): "the response has not been started",
    id(_STARTED): "the response waits for its body",
    id(_SENDING): "the response is being sent",
    id(_COMPLETE): "the response is complete",
}
