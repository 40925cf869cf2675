"""HTTP/1.1 on the wire: bytes in, requests out; responses in, bytes out.

Theory of operation. One request at a time: it gets its exchange as soon as its head is admitted,
and what the client sends behind it waits, as bytes, until its response is complete and the client
has taken most of it; so responses leave in order, and what a client can pile up is what fits in two
reads. Reading goes on for that little, because the end of the connection, of which the application
wants to hear, stands behind what the client has sent.

A connection ends in one of three ways: `close` after the last byte, `abort` at once, or `linger`:
our side is closed, and what the client still sends is thrown away for a moment, because closing a
socket with unread bytes resets it and could take the response along.

This module knows neither sockets nor ASGI.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Any

from daphne_supervisor.worker.h2c import for_http2, upgrade_settings
from daphne_supervisor.worker.head import Head, Refused
from daphne_supervisor.worker.http1_parser import Parser
from daphne_supervisor.worker.pace import Pace
from daphne_supervisor.worker.response import CONTINUE, Response, error_page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from daphne_supervisor.config import Http
    from daphne_supervisor.worker.head import Headers
    from daphne_supervisor.worker.waist import Handler, Port, Request

__all__ = ["Http1", "Phase"]

#: A body the application did not read is swallowed up to this many bytes, so that the connection
#: can be kept; a longer one costs the client its connection. One read of the event loop.
SWALLOW = 262_144
#: Bytes that may wait behind the request that is being answered; then reading pauses.
AHEAD = 16_384
#: A read of more bytes says that more wait. The loop would read dozens of times as much before it
#: looks at anybody else.
GULP = 65_536
#: Seconds that a closing connection goes on reading. gunicorn settled on the same two.
LINGER = 2.0
#: Seconds that a kept-alive connection gets, while the worker drains, to send one more request and
#: be told `Connection: close`, rather than to run into a closed door.
DRAIN_IDLE = 3.0
#: Above this many bytes, head and body are written apart: a copy would cost more than it saves.
_COPY = 16_384
#: Pieces of a streamed response that are as large leave together, so many bytes at a time, at the
#: latest when everyone else has had a turn: the kernel takes 256 KiB in two thirds of the time that
#: it needs for four times 64, and 512 in a little less than twice 256. A client that stops reading
#: makes us keep as many, an eighth of what the kernel keeps for it. Smaller pieces leave at once:
#: they may be news.
_BATCH = 524_288


class Phase(enum.IntEnum):
    """Where the connection is."""

    IDLE = 0  # between requests: the keep-alive time runs
    HEAD = 1  # a head has begun to arrive: the head time runs
    BUSY = 2  # a request is being answered
    SWALLOWING = 3  # answered, but its body still comes: the head time runs
    LINGERING = 4  # our side is closed, the rest of the client's is thrown away
    OVER = 5  # closed, or handed over to another codec


_IDLE, _HEAD, _BUSY, _SWALLOWING, _LINGERING, _OVER = Phase


def _unanswered(stream: int) -> RuntimeError:
    return RuntimeError(f"stream {stream} is not being answered")


class Http1:
    """The codec of one HTTP/1.x connection."""

    _pace: Pace
    """That of the body of the request being answered, if it comes in pieces."""

    def __init__(
        self,
        port: Port,
        handler: Handler,
        limits: Http,
        heads: dict[bytes, Head] | None = None,
    ) -> None:
        """Speak through `port`, report to `handler`, keep to `limits`; `Parser` has the `heads`."""
        self._port = port
        self._handler = handler
        self._limits = limits
        self._parser = Parser(self, limits, heads)
        self._stream = 0
        self._begun: Request | None = None  # that is to be started
        self._current: Request | None = None  # whose response is due
        self._incoming: Request | None = None  # the same, while its body is being read
        self._answered_at = 0  # bytes of a body that had come when its request was answered
        self._paused = False
        self._breathing = False  # nothing is read until we go on
        self._goes_on = False  # it was said that we go on behind everyone else
        self._answer_by = math.inf  # the application
        self._held: list[bytes] = []  # of a streamed response: what leaves with what follows
        self._held_size = 0
        self._held_until_soon = False  # `_release_late` is going to be called
        self.response = Response()
        self.phase = _HEAD
        self.deadline = port.now() + limits.head_timeout

    # -- bytes in --

    def receive(self, data: bytes) -> None:
        """Take what the client sent, in any slicing."""
        if len(data) > GULP:
            self._breathe()
        if self.phase >= _LINGERING:
            return
        busy = self._current is not None or (self._port.congested and self._parser.ready)
        if busy and self._incoming is None:
            # It is to take what it has asked for before it is asked for more.
            self._parser.keep(data)
            self._throttle()
            return
        try:
            try:
                self._parser.feed(data)
            except Refused as reason:
                self._refuse(reason)
            begun, self._begun = self._begun, None
            if begun is not None:
                begun.start()
            if self._parser.rest or self._incoming or self._paused or self.phase is _SWALLOWING:
                self._settle()
        except Exception as error:  # noqa: BLE001
            self._port.broken(error)

    def _breathe(self) -> None:
        """Read no more of this client until everyone else has had a turn: more of it waits."""
        self._breathing = True
        if not self._paused:
            self._paused = True
            self._port.pause_reading()
        self._later()

    def _later(self) -> None:
        """Go on behind everyone else."""
        if not self._goes_on:
            self._goes_on = True
            self._port.soon(self._go_on)

    def _go_on(self) -> None:
        """Read what was kept, and what comes."""
        self._goes_on = self._breathing = False
        if self.phase is _OVER:  # there may be no port any more
            return
        if self.phase is _LINGERING:
            self._resume()
        elif self._parser.rest:
            self.receive(b"")
        else:
            self._throttle()

    def _settle(self) -> None:
        """See where the connection stands, after something was read."""
        if self._current is None:
            if self.phase is _SWALLOWING:
                if self._parser.received - self._answered_at > SWALLOW:
                    self._linger()
            elif self.phase is _IDLE:
                if self._parser.begun:
                    self.phase = _HEAD
                    self.deadline = self._port.now() + self._limits.head_timeout
                elif self._parser.rest:
                    self._later()
        if self._incoming is not None and self._pace.due == math.inf:
            self._watch_body()
        self._throttle()

    # -- what the parser says --

    def begin_request(self, head: Head, body: bytes = b"") -> None:
        """Make the exchange; it is started when all that was received is read."""
        self._stream += 1
        exchange = self._begun = self._current = self._handler.begin(head, self._stream)
        self.phase = _BUSY
        self.response.begun = False
        timeout = self._limits.http_timeout
        self.deadline = self._answer_by = self._port.now() + timeout if timeout else math.inf
        if body:
            exchange.receive_whole(body)
        elif head.length != 0:
            self._incoming = exchange
            self._pace = Pace(self._limits.body_min_rate)

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

    # -- what happens next --

    def _idle(self) -> None:
        self.phase = _IDLE
        port = self._port
        patience = DRAIN_IDLE if port.worker.draining else self._limits.keep_alive
        self.deadline = port.now() + patience

    def relieved(self) -> None:
        """The client has taken most of what was written."""
        if self.phase is _IDLE:
            self._idle()
            self._go_on()

    def begin_handshake(self, head: Head, rest: bytes) -> None:
        """Go on as a WebSocket."""
        # Who has just connected could not know better, and a browser would take a refusal for a
        # failure: so the WebSocket is opened, and hears 1012 like all the others.
        if self._port.worker.draining and self._stream:
            reason = Refused(503, "the worker is leaving: no new WebSocket")
            self._handler.refused(reason)
            self._answer_refusal(reason)
            return
        overload = self._handler.overload()
        if overload is not None:
            self._answer_refusal(overload)
            return
        self._resume()
        self._end()
        self._handler.upgrade(head, rest)
        self._part()

    def begin_http2(self, data: bytes) -> bool:
        """Go on as HTTP/2, which a client has begun with, if it is spoken with it."""
        return not self._stream and self._hand_over(self._handler.speak_http2, data)

    def begin_upgrade(self, head: Head, rest: bytes) -> bool:
        """Go on as HTTP/2, if it is spoken with this client; stay with HTTP/1.1 otherwise."""
        values = upgrade_settings(head)
        if values is None:
            return False
        return self._hand_over(self._handler.upgrade_http2, for_http2(head), values, rest)

    def _hand_over(self, take: Callable[..., bool], *what: Any) -> bool:
        """Let another codec take the connection over, if it does."""
        paused, phase, deadline = self._paused, self.phase, self.deadline
        self._resume()
        self._end()
        if take(*what):
            self._part()
            return True
        self.phase, self.deadline = phase, deadline
        if paused:
            self._paused = True
            self._port.pause_reading()
        return False

    def _throttle(self) -> None:
        """Read only while there is somewhere to put what comes."""
        parser, incoming = self._parser, self._incoming
        full = incoming is not None and incoming.full
        if parser.hasty and not full:
            self._later()
        # What belongs to a head or a line that is not whole is no such place: it needs its rest.
        ahead = len(parser.rest) > AHEAD and (parser.ready or parser.hasty)
        if ahead or self._breathing:
            full = True
        if full != self._paused and self.phase < _LINGERING:
            self._paused = full
            if full:
                self._port.pause_reading()
            else:
                self._port.resume_reading()
                self._watch_body()

    def _resume(self) -> None:
        """Read, whatever there is no place for any more."""
        if self._paused:
            self._paused = False
            self._port.resume_reading()

    # -- what the exchange asks for --

    def _watch_body(self) -> None:
        """Look at what comes of the body of the request being answered, from now on."""
        if self._incoming is self._current is not None:
            self._pace.watch(self._parser.received, self._port.now())
            self.deadline = min(self.deadline, self._pace.due)

    def taken(self, stream: int) -> None:  # noqa: ARG002 - one stream at a time here
        """The application has read what was received for `stream`."""
        if self._paused:
            self._throttle()

    def proceed(self, stream: int) -> None:
        """The application waits for the body: tell a client that waits for us (100 Continue)."""
        if self._current is not None and stream == self._current.stream and not self.response.begun:
            self._port.write(CONTINUE)
            self._watch_body()

    def respond(
        self, stream: int, status: int, headers: Headers, body: bytes, *, more: bool
    ) -> None:
        """Send the head and the first piece of the body. Raises `ValueError` if they are wrong."""
        exchange = self._current
        if exchange is None or exchange.stream != stream:
            raise _unanswered(stream)
        response, port = self.response, self._port
        close = port.worker.lingering or (exchange is self._incoming and self._forsaken(exchange))
        size = None if more else len(body)
        head = response.start(
            exchange.head, status, headers, size, port.worker.identity, close=close
        )
        if size is not None and size == response.left and size <= _COPY:
            port.write(head + body)
        else:
            try:
                port.write_all((head, *response.pieces(body, more=more)))
            except ValueError:
                response.begun = False
                raise
        if not more:
            self._finish()

    def send(self, stream: int, body: bytes, *, more: bool) -> None:
        """Send a further piece of the body. Raises `ValueError` if it is more than announced."""
        if self._current is None or self._current.stream != stream:
            raise _unanswered(stream)
        if len(body) > _COPY:
            self._hold(self.response.pieces(body, more=more), len(body))
        elif piece := self.response.body(body, more=more):
            if self._held:
                self._held.append(piece)
            else:
                self._port.write(piece)
        if not more:
            self._release()
            self._finish()

    def _hold(self, pieces: Sequence[bytes], size: int) -> None:
        """Send `pieces` together with what the application sends next, if it does so at once."""
        if not self._held_until_soon:
            self._held_until_soon = True
            self._port.soon(self._release_late)
        self._held += pieces
        self._held_size += size
        if self._held_size >= _BATCH:
            self._release()

    def _release_late(self) -> None:
        """Send what was held: nothing has followed it at once."""
        self._held_until_soon = False
        self._release()

    def _release(self) -> None:
        """Send what was held."""
        if self._held:
            held, self._held, self._held_size = self._held, [], 0
            self._port.write_all(held)

    def trailers(self, stream: int, headers: Headers) -> None:
        """End the response, with trailers if it is chunked. Raises `ValueError` if one is wrong."""
        self._check(stream)
        piece = self.response.trailers(headers)
        self._release()
        if piece:
            self._port.write(piece)
        self._finish()

    async def send_file(self, stream: int, size: int, send: Callable[[], Awaitable[None]]) -> None:
        """Send a piece of the body, of `size` bytes, of which `send` sees to. More follows.

        Raises `ValueError` if it is more than announced, and what `send` raises.
        """
        self._check(stream)
        before, behind = self.response.around(size)
        self._release()
        if before:
            self._port.write(before)
        await send()
        self._check(stream)
        if behind:
            self._port.write(behind)

    def give_up(self, stream: int) -> None:
        """End a response in the middle: the only honest way to say so is to cut the connection."""
        self._check(stream)
        self._release()
        self._current = None
        self._end()
        self._port.abort()

    def _check(self, stream: int) -> None:
        """See to it that it is `stream` whose response is due. `send` does without this step."""
        if self._current is None or self._current.stream != stream:
            raise _unanswered(stream)

    def _forsaken(self, exchange: Request) -> bool:
        """Say whether the rest of the request's body is too much to swallow."""
        length = exchange.head.length
        return exchange.waits_for_continue or (
            length is not None and length - self._parser.received > SWALLOW
        )

    def _finish(self) -> None:
        """The response is complete: close, or be ready for the next request."""
        exchange, self._current = self._current, None
        unread = exchange is self._incoming
        if self.response.close:
            if unread or self._parser.rest or self._parser.surplus:
                self._linger()
            else:
                self._close()
        elif unread:
            self._incoming = None
            self._answered_at = self._parser.received
            self.phase = _SWALLOWING
            self.deadline = self._port.now() + self._limits.head_timeout
            self._settle()
        else:
            self._idle()
            if self._parser.rest:
                self._later()

    # -- refusals and ends --

    def _refuse(self, reason: Refused) -> None:
        """Read no further, and answer with the error."""
        self._handler.refused(reason)
        broken, self._current, self._incoming = self._current, None, None
        self._begun = None
        if self.phase is _SWALLOWING:
            # It is answered: the client would take a second answer for that to its next request.
            self._linger()
        elif broken is None:
            self._answer_refusal(reason)
        else:
            # The request itself is broken in its body: it has no other answer.
            broken.lost()
            if self.response.begun:
                self._release()
                self._end()
                self._port.abort()
            else:
                self._answer_refusal(reason)

    def _answer_refusal(self, reason: Refused) -> None:
        headers, page = error_page(reason.status, reason.rule)
        headers += reason.headers
        head = Head("HEAD" if self._parser.method == "HEAD" else "GET", "1.1")
        response = self.response
        data = response.start(
            head,
            reason.status,
            headers,
            len(page),
            self._port.worker.identity,
            close=True,
        )
        self._port.write(data + response.body(page, more=False))
        self._linger()

    def _linger(self) -> None:
        """Close our side, and throw away for a moment what still comes.

        Closing a socket with unread bytes resets it, and the reset may overtake the response.
        """
        self._end()
        self.phase = _LINGERING
        self.deadline = self._port.now() + LINGER
        self._resume()
        self._port.shut()

    def _close(self) -> None:
        self._end()
        self._port.close()

    def _end(self) -> None:
        """Answer nothing more."""
        self.phase = _OVER
        self.deadline = math.inf

    def lost(self) -> None:
        """The connection is gone: tell everyone who waits."""
        current, self._current = self._current, None
        self._incoming = None
        self._end()
        self._held.clear()
        if current is not None:
            current.lost()
        self._part()

    def _part(self) -> None:
        """Have to do with nobody any more.

        The connection and the parser hold this codec. What is no cycle is freed at once, and not
        when the collector comes by: where each request has its connection, that is all the time,
        and what a client sends may be large.
        """
        self._parser.part()
        nobody: Any = None  # to delete an attribute takes Python far longer
        self._port = self._handler = nobody

    # -- time --

    def expire(self, now: float) -> None:
        """Act on the deadline, which has passed."""
        if self._current is not None:
            self._expire_request(self._current, now)
        elif self.phase is _HEAD and self._parser.begun:
            self._refuse(Refused(408, "head took longer than --head-timeout"))
        elif self._port.congested and self.phase in {_IDLE, _LINGERING}:
            # The response is still being taken: --write-timeout watches.
            self.deadline = now + LINGER
        elif self.phase is _IDLE or self.phase is _HEAD:
            self._close()
        else:
            self._end()
            self._port.abort()

    def _expire_request(self, exchange: Request, now: float) -> None:
        """Judge a request that is being answered: its body's pace, and its application's."""
        if self._incoming is exchange and self._pace.due <= now:
            slow = self._pace.slow(self._parser.received, now)
            if slow and not (self._paused or exchange.waits_for_continue):
                self._refuse(Refused(408, "body slower than --body-min-rate"))
                return
        late = self._answer_by <= now
        if late:
            self._answer_by = math.inf
        self.deadline = self._answer_by
        self._watch_body()
        if late:
            exchange.expire()

    def drain(self) -> None:
        """The worker is leaving: give an idle client one more chance, then close."""
        if self.phase is _IDLE or (self.phase is _HEAD and not self._parser.begun):
            self.deadline = min(self.deadline, self._port.now() + DRAIN_IDLE)
