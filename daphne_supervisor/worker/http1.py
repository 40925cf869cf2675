"""HTTP/1.1 on the wire: bytes in, requests out; responses in, bytes out.

Theory of operation. The parser runs ahead: one read may hold several requests. Each gets its
exchange as soon as its head is admitted, and waits in `_waiting`; only the first is started, and
the next one when its response is complete, so that responses leave in order. While anyone waits,
little more is read: what a client can pile up is what fits in two reads. A little has to be,
because the end of the connection, which the first one wants to hear of, stands behind what the
client has sent.

A connection ends in one of three ways: `close` after the last byte, `abort` at once, or `linger`:
our side is closed, and what the client still sends is thrown away for a moment, because closing a
socket with unread bytes resets it and could take the response along.

This module knows neither sockets nor ASGI.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from typing import TYPE_CHECKING

from daphne_supervisor.worker.head import Head, Refused
from daphne_supervisor.worker.http1_parser import Parser
from daphne_supervisor.worker.response import CONTINUE, Response, error_page

if TYPE_CHECKING:
    from daphne_supervisor.config import Http
    from daphne_supervisor.worker.head import Headers
    from daphne_supervisor.worker.waist import Handler, Port, Request

__all__ = ["Http1", "Phase"]

#: A body the application did not read is swallowed up to this many bytes, so that the connection
#: can be kept; a longer one costs the client its connection. One read of the event loop.
SWALLOW = 262_144
#: Bytes that are read on while a request waits for its turn; then reading pauses.
AHEAD = 65_536
#: Seconds that a closing connection goes on reading. gunicorn settled on the same two.
LINGER = 2.0
#: Seconds that a kept-alive connection gets, while the worker drains, to send one more request and
#: be told `Connection: close`, rather than to run into a closed door.
DRAIN_IDLE = 3.0
#: Above this many bytes, head and body are written apart: a copy would cost more than it saves.
_COPY = 16_384


class Phase(enum.IntEnum):
    """Where the connection is."""

    IDLE = 0  # between requests: the keep-alive time runs
    HEAD = 1  # a head has begun to arrive: the head time runs
    BUSY = 2  # a request is being answered
    SWALLOWING = 3  # answered, but its body still comes: the head time runs
    LINGERING = 4  # our side is closed, the rest of the client's is thrown away
    OVER = 5  # closed, or handed over to another codec


class Http1:
    """The codec of one HTTP/1.x connection."""

    __slots__ = (
        "_ahead",
        "_answered_at",
        "_current",
        "_early",
        "_handler",
        "_incoming",
        "_limits",
        "_parser",
        "_paused",
        "_port",
        "_refusal",
        "_stream",
        "_upgrade",
        "_waiting",
        "deadline",
        "phase",
        "response",
    )

    def __init__(self, port: Port, handler: Handler, limits: Http) -> None:
        """Speak through `port`, report to `handler`, keep to `limits`."""
        self._port = port
        self._handler = handler
        self._limits = limits
        self._parser = Parser(self, limits)
        self._stream = 0
        self._incoming: Request | None = None  # whose body the parser is reading
        self._answered_at = 0  # bytes of a body that had come when its request was answered
        self._waiting: deque[Request] = deque()
        self._ahead = 0  # bytes read while somebody waited
        self._current: Request | None = None  # whose response is due
        self._refusal: Refused | None = None  # the answer after the last one due
        self._upgrade: Head | None = None  # the handshake behind the last one due
        self._early = b""  # what has come behind it
        self._paused = False
        self.response = Response()
        self.phase = Phase.HEAD
        self.deadline = port.now() + limits.head_timeout

    # -- bytes in --

    def receive(self, data: bytes) -> None:
        """Take what the client sent, in any slicing."""
        if self.phase >= Phase.LINGERING or self._refusal:
            return
        if self._waiting or self._upgrade:
            self._ahead += len(data)
        try:
            self._early += self._parser.feed(data)
        except Refused as reason:
            self._refuse(reason)
        self._advance()

    # -- what the parser says --

    def begin_request(self, head: Head) -> None:
        """Queue the exchange of a request."""
        self._stream += 1
        self._incoming = self._handler.begin(head, self._stream)
        self._waiting.append(self._incoming)

    def receive_body(self, data: bytes) -> None:
        """Hand a piece of the body on, or throw it away if nobody will read it."""
        if self._incoming is not None:
            self._incoming.receive_body(data)

    def end_request(self) -> None:
        """Note the end of the body."""
        if self._incoming is not None:
            self._incoming.end_body()
            self._incoming = None
        else:  # it was answered without being read to its end
            self._idle()

    def begin_handshake(self, head: Head) -> None:
        """Keep the handshake until everything before it is answered."""
        self._upgrade = head

    # -- what happens next --

    def _advance(self) -> None:
        """Start what is due, after anything has changed."""
        if self._current is None and self.phase < Phase.LINGERING:
            if self._waiting:
                self._start(self._waiting.popleft())
            elif self._refusal is not None:
                self._answer_refusal(self._refusal)
            elif self._upgrade is not None:
                self._hand_over(self._upgrade)
            elif self.phase is Phase.SWALLOWING:
                if self._parser.received - self._answered_at > SWALLOW:
                    self._linger()
            elif self._parser.begun:
                if self.phase is not Phase.HEAD:
                    self.phase = Phase.HEAD
                    self.deadline = self._port.now() + self._limits.head_timeout
            elif self.phase is Phase.BUSY:
                self._idle()
        self._throttle()

    def _start(self, exchange: Request) -> None:
        self._current = exchange
        if not self._waiting:
            self._ahead = 0
        self.phase = Phase.BUSY
        timeout = self._limits.http_timeout
        self.deadline = self._port.now() + timeout if timeout else math.inf
        self.response.reset()
        exchange.start()

    def _idle(self) -> None:
        self.phase = Phase.IDLE
        patience = DRAIN_IDLE if self._port.draining else self._limits.keep_alive
        self.deadline = self._port.now() + patience

    def _hand_over(self, head: Head) -> None:
        # Who has just connected could not know better, and a browser would take a refusal for a
        # failure: so the WebSocket is opened, and hears 1012 like all the others.
        if self._port.draining and self._stream:
            reason = Refused(503, "the worker is leaving: no new WebSocket")
            self._handler.refused(reason)
            self._answer_refusal(reason)
            return
        overload = self._handler.overload()
        if overload is not None:
            self._answer_refusal(overload)
            return
        self._resume()
        self.phase = Phase.OVER
        self.deadline = math.inf
        self._handler.upgrade(head, self._early)

    def _throttle(self) -> None:
        """Read only while there is somewhere to put what comes."""
        full = self._ahead > AHEAD or (self._incoming is not None and self._incoming.full)
        if full != self._paused and self.phase < Phase.LINGERING:
            self._paused = full
            if full:
                self._port.pause_reading()
            else:
                self._port.resume_reading()

    def _resume(self) -> None:
        """Read, whatever there is no place for any more."""
        if self._paused:
            self._paused = False
            self._port.resume_reading()

    # -- what the exchange asks for --

    def taken(self, stream: int) -> None:  # noqa: ARG002 - one stream at a time here
        """The application has read what was received for `stream`."""
        if self._paused:
            self._throttle()

    def proceed(self, stream: int) -> None:
        """The application waits for the body: tell a client that waits for us (100 Continue)."""
        if self._current is not None and stream == self._current.stream and not self.response.begun:
            self._port.write(CONTINUE)

    def respond(
        self, stream: int, status: int, headers: Headers, body: bytes, *, more: bool
    ) -> None:
        """Send the head and the first piece of the body. Raises `ValueError` if they are wrong."""
        exchange = self._answering(stream)
        response, port = self.response, self._port
        try:
            head = response.start(
                exchange.head,
                status,
                headers,
                size=None if more else len(body),
                identity=port.identity(),
                close=port.lingering or self._forsaken(exchange),
            )
            piece = response.body(body, more=more)
        except ValueError:
            response.reset()
            raise
        if len(piece) > _COPY:
            port.write(head)
            port.write(piece)
        else:
            port.write(head + piece)
        if not more:
            self._finish()

    def send(self, stream: int, body: bytes, *, more: bool) -> None:
        """Send a further piece of the body. Raises `ValueError` if it is more than announced."""
        self._answering(stream)
        piece = self.response.body(body, more=more)
        if piece:
            self._port.write(piece)
        if not more:
            self._finish()

    def give_up(self, stream: int) -> None:
        """End a response in the middle: the only honest way to say so is to cut the connection."""
        self._answering(stream)
        self._current = None
        self._end()
        self._port.abort()

    def _answering(self, stream: int) -> Request:
        exchange = self._current
        if exchange is None or exchange.stream != stream:
            message = f"stream {stream} is not being answered"
            raise RuntimeError(message)
        return exchange

    def _forsaken(self, exchange: Request) -> bool:
        """Say whether the rest of the request's body is too much to swallow."""
        if exchange is not self._incoming:
            return False
        length = exchange.head.length
        return exchange.waits_for_continue or (
            length is not None and length - self._parser.received > SWALLOW
        )

    def _finish(self) -> None:
        """The response is complete: close, or be ready for the next request."""
        exchange, self._current = self._current, None
        unread = exchange is self._incoming
        if self.response.close:
            behind = self._waiting or self._upgrade or self._refusal
            if unread or behind:
                self._linger()
            else:
                self._close()
            return
        if unread:
            self._incoming = None
            self._answered_at = self._parser.received
            self.phase = Phase.SWALLOWING
            self.deadline = self._port.now() + self._limits.head_timeout
        self._advance()

    # -- refusals and ends --

    def _refuse(self, reason: Refused) -> None:
        """Read no further; answer with the error when everything before it is answered."""
        self._refusal = reason
        self._handler.refused(reason)
        exchange, self._incoming = self._incoming, None
        if self.phase is Phase.SWALLOWING:
            # It is answered: the client would take a second answer for that to its next request.
            self._linger()
        if exchange is None:
            return
        # The request itself is broken in its body: it has no other answer.
        exchange.lost()
        if exchange is not self._current:
            self._waiting.remove(exchange)
            return
        self._current = None
        if self.response.begun:
            self._end()
            self._port.abort()

    def _answer_refusal(self, reason: Refused) -> None:
        headers, page = error_page(reason.status, reason.rule)
        headers += reason.headers
        head = Head("HEAD" if self._parser.method == b"HEAD" else "GET", "1.1")
        response = self.response
        data = response.start(
            head,
            reason.status,
            headers,
            size=len(page),
            identity=self._port.identity(),
            close=True,
        )
        self._port.write(data + response.body(page, more=False))
        self._linger()

    def _linger(self) -> None:
        """Close our side, and throw away for a moment what still comes.

        Closing a socket with unread bytes resets it, and the reset may overtake the response.
        """
        self._end()
        self.phase = Phase.LINGERING
        self.deadline = self._port.now() + LINGER
        self._resume()
        self._port.shut()

    def _close(self) -> None:
        self._end()
        self._port.close()

    def _end(self) -> None:
        """Answer nothing more."""
        self.phase = Phase.OVER
        self.deadline = math.inf
        waiting, self._waiting = self._waiting, deque()
        for exchange in waiting:
            exchange.lost()

    def lost(self) -> None:
        """The connection is gone: tell everyone who waits."""
        current, self._current = self._current, None
        self._end()
        if current is not None:
            current.lost()

    # -- time --

    def expire(self, now: float) -> None:
        """Act on the deadline, which has passed."""
        if self._current is not None:
            self.deadline = math.inf
            self._current.expire()
        elif self.phase is Phase.HEAD and self._parser.begun:
            self._refuse(Refused(408, "head took longer than --head-timeout"))
            self._advance()
        elif self.phase is Phase.IDLE or self.phase is Phase.HEAD:
            self._close()
        elif self.phase is Phase.LINGERING and self._port.congested:
            # The response is still being taken: --write-timeout watches.
            self.deadline = now + LINGER
        else:
            self._end()
            self._port.abort()

    def drain(self) -> None:
        """The worker is leaving: give an idle client one more chance, then close."""
        if self.phase is Phase.IDLE or (self.phase is Phase.HEAD and not self._parser.begun):
            self.deadline = min(self.deadline, self._port.now() + DRAIN_IDLE)
