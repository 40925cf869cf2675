"""The connection of one event loop to the broker: questions, answers, and what comes unasked.

Theory. There is one for each event loop that uses the layer, since a future belongs to a loop. It
is a plain descriptor that the loop watches, no transport of the loop's: what is written is with the
kernel when `write` returns, even if the loop is closed the next moment, as that of `async_to_sync`
is; and a loop that is closed needs no farewell.

When the broker ends, the link connects again at once: the socket that it connects to is the
master's, and outlives the broker. A question that may be asked twice is asked again. A message that
was on its way may have arrived or not, and is not sent again: at most once is what a channel layer
promises.

News are handled a few at a time, and then it is everybody else's turn: a flood of messages would
otherwise fill the queues of receivers that have had no chance to take one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import weakref
from collections import deque
from typing import TYPE_CHECKING, Protocol

from daphne_supervisor.broker import address, frames
from daphne_supervisor.broker.frames import Splitter, frame, named

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Sequence

__all__ = ["PATIENCE", "Link", "Owner"]

_log = logging.getLogger("daphne_supervisor.channels")

PATIENCE = 5.0
"""Seconds that a question waits for a broker: a new one is there within milliseconds, one that
dies again and again within 30 seconds, which is too long for a view."""

_RETRY = 0.25
"""Seconds between attempts to connect when nobody listens, as when the master has been killed."""

_READ = 256 * 1024
"""Bytes that are read at once."""

_SLICE = 16
"""News that are handled before others have a turn: far fewer than a channel's capacity, 100."""

_UNASKED = frozenset({frames.GROUP, frames.DELIVER, frames.FLUSHED})

Answer = tuple[int, bytes]
"""The kind of the answer's frame, and its payload."""


class Owner(Protocol):
    """The layer that a link belongs to."""

    client: str

    def is_home(self, link: Link) -> bool:
        """Say whether what is for the client is to come over this link."""
        ...

    def subscriptions(self) -> list[bytes]:
        """Return the frames that tell the broker of the client's groups."""
        ...

    def hear(self, link: Link, kind: int, payloads: Sequence[bytes]) -> None:
        """Take what has come unasked: news of one kind, which have come one behind the other."""
        ...

    def greeted(self, link: Link) -> None:
        """Take note that the broker has heard the last greeting of `link`."""
        ...


class _Lost(Exception):
    """The broker has ended before it has answered."""


class Link:
    """Connects to the broker, and again when that has ended."""

    def __init__(
        self, loop: AbstractEventLoop, where: str, owner: Owner, patience: float = PATIENCE
    ) -> None:
        """Be ready to connect to `where`; all is to be called in `loop`. Patience: in seconds."""
        self.loop = loop
        self._where = where
        self._owner = owner
        self.patience = patience
        self._descriptor = -1
        self._begun = False
        self._finalizer: weakref.finalize[..., Link]
        self._splitter = Splitter()
        self._news: deque[tuple[int, int, bytes]] = deque()
        self._out = b""
        self._asked: dict[int, Future[Answer]] = {}
        self._number = 0
        self._up = False  # whether the broker has answered the greeting
        self._ready: Future[None] = loop.create_future()
        self._greeting: Future[Answer]

    def __repr__(self) -> str:
        """Tell how it goes."""
        return f"<Link {self._where} {'up' if self._up else 'down'}, {len(self._asked)} asked>"

    @property
    def gone(self) -> bool:
        """Whether its loop does not run, so that nothing arrives here."""
        return self.loop.is_closed() or not self.loop.is_running()

    async def ask(self, kind: int, payload: bytes, *, again: bool) -> Answer | None:
        """Ask the broker; None means that it has ended meanwhile, and that it may have heard.

        With `again` it is asked once more instead. Raises `ConnectionError` if there is no broker.
        """
        while True:
            await self.connected()
            number, answer = self._ask(kind, payload)
            try:
                return await answer
            except _Lost:
                if not again:
                    return None
            except asyncio.CancelledError:
                self._let_go(kind, number, answer)
                raise

    async def connected(self) -> None:
        """Wait until the broker has answered the greeting. Raises `ConnectionError`."""
        while not self._up:
            try:
                await asyncio.wait_for(asyncio.shield(self._ready), self.patience)
            except TimeoutError:
                message = (
                    f"LocalChannelLayer: no broker at {self._where} within {self.patience:g} s"
                )
                raise ConnectionError(message) from None

    def tell(self, kind: int, payload: bytes) -> None:
        """Tell the broker something that it does not answer; not if there is none."""
        if self._descriptor >= 0:
            self._write(frame(kind, 0, payload))

    def greet(self) -> None:
        """Connect if that was not done yet, and say who we are."""
        if self._descriptor >= 0:
            self._greet()
        elif not self._begun:
            self._begun = True
            self.retry()

    def salvage(self) -> None:
        """Take the news that have come while the loop did not run; for who is in another loop."""
        with contextlib.suppress(OSError):
            while data := os.read(self._descriptor, _READ):
                self._news.extend(self._splitter.feed(data))
        while self._news:
            kind, _, payload = self._news.popleft()
            if kind in _UNASKED:
                self._owner.hear(self, kind, [payload])

    def close(self) -> None:
        """Disconnect, and stay so."""
        self._begun = self._up = False
        if self._descriptor >= 0:
            self._disconnect()
        if not self.loop.is_closed():
            self._lose()

    # --- questions --------------------------------------------------------------------------

    def _ask(self, kind: int, payload: bytes) -> tuple[int, Future[Answer]]:
        number = self._number = self._number % 0xFFFFFFFF + 1
        answer = self._asked[number] = self.loop.create_future()
        self._write(frame(kind, number, payload))
        return number, answer

    def _let_go(self, kind: int, number: int, answer: Future[Answer]) -> None:
        """Want no answer any more; a message that has come already goes back."""
        if self._asked.pop(number, None) is not None:
            if kind == frames.RECEIVE and self._descriptor >= 0:
                self._write(frame(frames.CANCEL, number))
        elif not answer.cancelled() and answer.exception() is None:
            self._return(*answer.result())

    def _return(self, kind: int, payload: bytes) -> None:
        if kind == frames.MESSAGE:
            self.tell(frames.GIVE_BACK, payload)

    # --- the connection ---------------------------------------------------------------------

    def retry(self) -> None:
        """Connect, now or a little later; not if it was closed."""
        if not self._begun or self._descriptor >= 0 or self.loop.is_closed():
            return
        try:
            sock = address.connect(self._where)
        except OSError as error:
            _log.debug("no broker at %s: %s", self._where, error)
            self.loop.call_later(_RETRY, self.retry)
            return
        self._descriptor = sock.detach()
        self._finalizer = weakref.finalize(self, os.close, self._descriptor)
        self.loop.add_reader(self._descriptor, self.read)
        self._greet()

    def _greet(self) -> None:
        if self._up:
            self._up, self._ready = False, self.loop.create_future()
        home = self._owner.is_home(self)
        _, self._greeting = self._ask(
            frames.HELLO, named(self._owner.client) + (b"\1" if home else b"\0")
        )
        self._greeting.add_done_callback(self._greeted)
        for one in self._owner.subscriptions() if home else []:
            self._write(one)

    def _greeted(self, answer: Future[Answer]) -> None:
        if answer is self._greeting and not answer.cancelled() and answer.exception() is None:
            self._up = True
            self._ready.set_result(None)
            self._owner.greeted(self)

    def _disconnect(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if not self.loop.is_closed():
            self.loop.remove_reader(descriptor)
            self.loop.remove_writer(descriptor)
        self._finalizer()  # closes it

    def end(self) -> None:
        """Take note that the broker has ended: connect again, and tell who has asked something."""
        self._disconnect()
        self._splitter, self._out = Splitter(), b""
        self._news.clear()
        if self._up:
            self._up, self._ready = False, self.loop.create_future()
        self._lose()
        _log.warning("the channel layer's broker has ended: connecting again")
        self.loop.call_soon(self.retry)

    def _lose(self) -> None:
        """Tell everybody who has asked something that there is no answer."""
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            if not answer.done():
                answer.set_exception(_Lost())
                answer.exception()  # or one that nobody waits for is reported as never retrieved

    def _write(self, data: bytes) -> None:
        if self._out:
            self._out += data
            return
        try:
            sent = os.write(self._descriptor, data)
        except BlockingIOError:
            sent = 0
        except OSError:  # it is read that it has ended, soon
            return
        if sent < len(data):
            self._out = data[sent:]
            self.loop.add_writer(self._descriptor, self.write_on)

    def write_on(self) -> None:
        """Write what the kernel did not take."""
        data, self._out = self._out, b""
        self.loop.remove_writer(self._descriptor)
        self._write(data)

    def read(self) -> None:
        """Take what has come."""
        try:
            data = os.read(self._descriptor, _READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.end()
            return
        self._news.extend(self._splitter.feed(data))
        self._handle()

    def _handle(self) -> None:
        """Handle some news, and then let others have a turn; nothing is read until then."""
        news, left = self._news, _SLICE
        while news and left:
            kind, number, payload = news.popleft()
            if kind in _UNASKED:
                payloads = [payload]
                while news and news[0][0] == kind and len(payloads) < left:
                    payloads.append(news.popleft()[2])
                left -= len(payloads)
                self._owner.hear(self, kind, payloads)
                continue
            answer = self._asked.pop(number, None)
            if answer is None or answer.done():
                self._return(kind, payload)
            else:
                answer.set_result((kind, payload))
        if news:
            self._pause()

    def _pause(self) -> None:
        self.loop.remove_reader(self._descriptor)
        self.loop.call_soon(self._resume, self._descriptor)

    def _resume(self, descriptor: int) -> None:
        if descriptor != self._descriptor:  # it has ended meanwhile
            return
        self._handle()
        if not self._news:
            self.loop.add_reader(descriptor, self.read)
