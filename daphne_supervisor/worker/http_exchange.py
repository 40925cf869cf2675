"""One HTTP request against one application call (ASGI HTTP specification 2.5).

Which messages may be sent in which state is a table: the state *is* its row.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

from daphne_supervisor.worker.exchange import ClientDisconnected, Exchange, as_bytes, unexpected
from daphne_supervisor.worker.file_source import (
    PATHSEND,
    ZEROCOPYSEND,
    UnreadableError,
    announced,
    of_message,
)
from daphne_supervisor.worker.response import BODILESS, RETRY_AFTER, error_page
from daphne_supervisor.worker.scope import http_scope
from daphne_supervisor.worker.sendfile import send_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from daphne_supervisor.worker.connection import Connection
    from daphne_supervisor.worker.file_source import FileSource
    from daphne_supervisor.worker.head import Head, Headers
    from daphne_supervisor.worker.waist import Client, FileWire, InformingWire, Wire

__all__ = ["HttpExchange"]

logger = logging.getLogger("daphne_supervisor.worker")

#: Pieces of a stream behind which others have their turn: some milliseconds of an application.
_TURN = 256
#: Bytes of body that may wait for the application before reading from the client pauses.
HIGH_WATER = 65_536
_EARLY_HINTS = 103
_BODY = "http.response.body"
#: Bytes of a file that are read at a time, as many as leave together.
_PIECE = 262_144
#: A file of as many bytes leaves with its head: that is one system call, and not three.
_SMALL = 65_536
#: What an application is told that sends messages of extensions which its scope did not offer.
_UNOFFERED = {
    "http.response.push": "browsers take no pushes any more: send an early hint, or a link header",
    "http.response.debug": "servers do not implement this extension, it is for tests (ASGI, Debug)",
}


class HttpExchange(Exchange):
    """The exchange of one request."""

    # What most requests never change stands here, once for all of them.
    _body: list[bytes] | None = None  # what waits for the application
    _queued = 0  # bytes of it
    _delivered = False  # the application has had the last of the body
    _dismissed = False  # it hears that its client has left, though it has not
    _continued = True  # the client was asked for the body, if it wants to be asked
    _headers: Headers
    _trailers = False  # they end the response
    _trailing: Headers = []  # noqa: RUF012 - what is known of them; replaced, never changed
    _size = 0  # bytes of body sent, counted for the access log
    _pieces = 0  # of a stream, behind the first

    def __init__(self, connection: Client, wire: Wire, head: Head, stream: int) -> None:
        """Exchange `stream` of `wire`, whose head is `head`."""
        self._service = connection.service
        self._task = None
        self._connection = connection
        self._wire = wire
        self.stream = stream
        self.head = head
        self._body_ended = head.length == 0
        if head.expects_continue:
            self._continued = False
        self._state = _NOT_STARTED
        self._status = 0

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

    def receive_whole(self, body: bytes) -> None:
        """Take all of the request body, before the application is called."""
        self._body = [body]
        self._queued = len(body)
        self._continued = self._body_ended = True

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
        begun = any(self._state is row for row in (_STARTED, _SENDING, _TRAILING))
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
                pieces, self._body = self._body, None
                body = (pieces[0] if len(pieces) == 1 else b"".join(pieces)) if pieces else b""
                self._queued = 0
                self._delivered = self._body_ended
                self._wire.taken(self.stream)
                return {"type": "http.request", "body": body, "more_body": not self._body_ended}
            if self._dismissed:
                break
            if not self._continued:
                self._continued = True
                self._wire.proceed(self.stream)
            await self.wait()
        # An application that asks again and again must not keep the loop from everyone else.
        await asyncio.sleep(0)
        return {"type": "http.disconnect"}

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
            await self._send_otherwise(kind, message)
            return
        connection = self._connection
        if connection.is_closing():
            await self.refuse()
        if step(self, message):
            await asyncio.sleep(0)
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
        if self.head.extensions:
            self._trailers = bool(message.get("trailers"))

    def _hint(self, message: dict[str, Any]) -> None:
        """Send 103 (Early Hints, RFC 8297), where the scope has said that we can."""
        if message["type"] not in self.head.extensions:
            raise unexpected(message["type"], "the scope has no such extension")
        links = [(b"link", as_bytes(link)) for link in message.get("links", ())]
        cast("InformingWire", self._wire).inform(self.stream, _EARLY_HINTS, links)

    def _send_head(self, message: dict[str, Any]) -> None:
        body = message.get("body", b"")
        if not isinstance(body, bytes):
            body = as_bytes(body)
        more = message.get("more_body", False)
        self._state = _SENDING if more else _COMPLETE
        if self._trailers and not more:
            self._state, more = _TRAILING, True
        try:
            self._wire.respond(self.stream, self._status, self._headers, body, more=more)
        except ValueError:
            self._state = _NOT_STARTED
            raise
        if self._waiters or self._service.access_log is not None:
            self._note(body, more=more)

    def _send_body(self, message: dict[str, Any]) -> bool:
        """Send a piece of a stream; say whether it is time for others to have their turn.

        An application that waits for nothing would keep the event loop, for as long as its client
        reads as fast as it writes.
        """
        body = message.get("body", b"")
        if not isinstance(body, bytes):
            body = as_bytes(body)
        more = message.get("more_body", False)
        last = not more
        if self._trailers:
            more = True
        self._wire.send(self.stream, body, more=more)
        if last:
            self._state = _TRAILING if more else _COMPLETE
        if self._waiters or self._service.access_log is not None:
            self._note(body, more=more)
        self._pieces += 1
        return self._pieces % _TURN == 0

    def _send_trailers(self, message: dict[str, Any]) -> None:
        """Send the trailers once all of them are known."""
        self._trailing = [*self._trailing, *message.get("headers", ())]
        if not message.get("more_trailers", False):
            self._wire.trailers(self.stream, self._trailing)
            self._state = _COMPLETE
            self._note(b"", more=False)

    # -- out of files --

    async def _send_otherwise(self, kind: str, message: dict[str, Any]) -> None:
        """Send what is in a file, which takes more than a step; refuse any other message."""
        state = self._state
        path = kind == PATHSEND and state is _STARTED
        if not path and not (kind == ZEROCOPYSEND and (state is _STARTED or state is _SENDING)):
            raise unexpected(kind, _UNOFFERED.get(kind) or _EXPECTED[id(self._state)])
        more = not path and message.get("more_body", False)
        source = None
        try:
            source = await of_message(self._service.loop, message)
            if self.gone:
                raise ClientDisconnected
            if self._state is _STARTED and not (more or self._trailers):
                self._announce(source)
            await self._send_source(source, more=more)
        except UnreadableError as error:
            logger.error("%s: %s", self.describe(), error)  # noqa: TRY400 - it has no traceback
            if self._state is _STARTED:
                self._answer(500, "A file cannot be read.")
            elif self._state is _SENDING:
                self._break_off()
            self.leave()
        finally:
            if source is not None:
                source.close()

    def _announce(self, source: FileSource) -> None:
        """Say how long the body is, or send no more of the file than was said: it may grow."""
        length = announced(self._headers)
        if length is None and self._status not in BODILESS:
            self._headers = [*self._headers, (b"content-length", b"%d" % source.left)]
        elif length is not None and not self._bodiless:
            source.limit(length)

    @property
    def _bodiless(self) -> bool:
        return self.head.method == "HEAD" or self._status in BODILESS

    async def _send_source(self, source: FileSource, *, more: bool) -> None:
        """Send what `source` has: the kernel does, or it is read piece by piece off the loop."""
        connection = cast("Connection", self._connection)  # over HTTP/2 it is a stream
        if self._bodiless:
            source.left = 0
        elif source.left > _SMALL and self.head.version != "2" and connection.sends_files:
            await self._send_by_kernel(source)
        while True:
            data = await source.read(_PIECE) if source.left else b""
            last = not source.left
            await self.send({"type": _BODY, "body": data, "more_body": more or not last})
            if last:
                return

    async def _send_by_kernel(self, source: FileSource) -> None:
        """Let the kernel send what `source` has; the end of the body is left to be said."""
        if self._state is _STARTED:
            await self.send({"type": _BODY, "more_body": True})
        size, connection = source.left, cast("Connection", self._connection)
        wire = cast("FileWire", self._wire)
        try:
            await wire.send_file(self.stream, size, lambda: send_file(connection, source))
        finally:
            if self._service.access_log is not None:
                self._size += size - source.left

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
        if self._state is _SENDING or self._state is _TRAILING:
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
        if self._state is _SENDING or self._state is _TRAILING:
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
    _Row = dict[str, Callable[[HttpExchange, dict[str, Any]], bool | None]]

#: What the application may send: the response's head, its first piece of body, further pieces,
#: nothing. The state of an exchange is one of these rows.
_NOT_STARTED: _Row = {
    "http.response.start": HttpExchange._start_response,  # noqa: SLF001
    "http.response.early_hint": HttpExchange._hint,  # noqa: SLF001
}
_STARTED: _Row = {
    "http.response.body": HttpExchange._send_head,  # noqa: SLF001
    "http.response.early_hint": HttpExchange._hint,  # noqa: SLF001
}
_SENDING: _Row = {"http.response.body": HttpExchange._send_body}  # noqa: SLF001
_TRAILING: _Row = {"http.response.trailers": HttpExchange._send_trailers}  # noqa: SLF001
_COMPLETE: _Row = {}

_EXPECTED = {
    id(_NOT_STARTED): "the response has not been started",
    id(_STARTED): "the response waits for its body",
    id(_SENDING): "the response is being sent",
    id(_TRAILING): "the response waits for its trailers",
    id(_COMPLETE): "the response is complete",
}
