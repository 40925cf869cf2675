"""The channel layer: what Channels calls (docs/channels.md).

Theory. A channel that `new_channel` returns belongs to this process: its queue is here, in
`mailboxes`, and a message from here to here never leaves. A group is known to the broker only as a
group that has members in this process; who they are is known here. All other channels, which any
process may receive from, are the broker's. Without a master the broker is a thread of this process,
so that tests and `runserver` have the same layer, in a single process.

Several event loops may use a layer, each over a link of its own (`links`). What arrives over one
may be waited for in another loop, in another thread; hence the lock, and `call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
import uuid
import weakref
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from channels.exceptions import ChannelFull, MessageTooLarge
from channels.layers import BaseChannelLayer

from daphne_supervisor.broker import frames
from daphne_supervisor.broker.frames import LIMITS, MEMBERSHIP, MOMENT, TURN, frame, name_in, named
from daphne_supervisor.channels.letters import Letter
from daphne_supervisor.channels.links import Links
from daphne_supervisor.channels.mailboxes import Mailboxes
from daphne_supervisor.channels.messages import pack, unpack

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Sequence

    from daphne_supervisor.channels.link import Link
    from daphne_supervisor.channels.mailboxes import Receiver

__all__ = ["LocalChannelLayer"]

_SWEEP = 10.0
"""Seconds between two searches for what has expired."""

_LONGEST_PREFIX = 100
_MOST_NAMES = 10_000
"""Channels whose names are kept, so that they are looked at once: two megabytes."""


@dataclass(slots=True)
class _Subscription:
    """A group that has members here; `turn` is the number of the frame that tells the broker."""

    turn: int
    confirmed: bool = False


class LocalChannelLayer(BaseChannelLayer):  # type: ignore[misc] # Channels has no types
    """A channel layer for all workers of one master, without anything to install."""

    def __init__(
        self,
        *,
        prefix: str = "",
        expiry: float = 60,
        group_expiry: float = 86400,
        capacity: int = 100,
        channel_capacity: dict[Any, int] | None = None,
        max_message_size: int = 1024 * 1024,
    ) -> None:
        """Take the CONFIG of the settings; nothing is connected before the first use.

        Layers with the same `prefix` are one. The expiries are in seconds, `max_message_size` in
        bytes, as packed. Raises `ValueError` for what makes no sense.
        """
        super().__init__(expiry=expiry, capacity=capacity)
        _check(prefix, max_message_size, expiry=expiry, group_expiry=group_expiry)
        self.channel_capacity: list[Any] = self.compile_capacities(channel_capacity or {})
        self.extensions = ["groups", "flush"]
        self.group_expiry = group_expiry
        self.max_message_size = max_message_size
        self._space = f"{prefix}:"
        self._clock = time.monotonic
        self._begin()
        _layers.add(self)

    def _begin(self) -> None:
        """Be a new client, in this process."""
        self.client = f"ds-{uuid.uuid4().hex[:16]}"
        self._own = f".{self.client}!"
        self._lock = threading.RLock()
        self._links = Links(self, self._lock)
        self._mine: dict[str, str] = {}  # our channels that were received from: the whole name
        self._turns = itertools.count(1)
        self._subscriptions: dict[str, _Subscription] = {}
        self._boxes = Mailboxes(self._capacity_of, self._hand)
        self._sweep_at = self._clock() + _SWEEP

    # --- what Channels calls ----------------------------------------------------------------

    async def new_channel(self, prefix: str = "specific") -> str:
        """Return the name of a new channel, which only this process can receive from."""
        name = f"{prefix}{self._own}{uuid.uuid4().hex[:20]}"
        self.require_valid_channel_name(name)
        await self._links.claim().connected()
        return name

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Send a message to a channel. Raises `ChannelFull` and `MessageTooLarge`."""
        self._check_channel(channel)
        body, now = self._pack(message), self._clock()
        until, name = now + self.expiry, self._space + channel
        if self._own in channel:
            with self._lock:
                self._sweep(now)
                taken = self._boxes.put(name, Letter(until, body), now)
        else:
            payload = named(name) + LIMITS.pack(until, self.get_capacity(channel)) + body
            answer = await self._links.here().ask(frames.SEND, payload, again=False)
            taken = answer is None or answer[0] != frames.REFUSED
        if not taken:
            raise ChannelFull(channel)

    async def receive(self, channel: str) -> dict[str, Any]:
        """Return the next message of a channel, when there is one."""
        name = self._mine.get(channel)
        if name is None:
            self._check_channel(channel)
            name = self._space + channel
            if self._own not in channel:
                return await self._receive_common(name)
            if len(self._mine) >= _MOST_NAMES:
                self._mine.clear()
            self._mine[channel] = name
        boxes, lock = self._boxes, self._lock
        lock.acquire()  # `with` takes three times as long: a tenth of what a reception costs
        try:
            letter = boxes.take(name, self._clock)
            if letter is None:
                waiting = self._wait(name)
            if boxes.full and boxes.emptied(name):
                self._links.here().tell(frames.OPEN, named(name))
        finally:
            lock.release()
        if letter is None:
            try:
                letter = await waiting
            except asyncio.CancelledError:
                self._give_up(name, waiting)
                raise
        return letter.read()

    async def _receive_common(self, name: str) -> dict[str, Any]:
        """Return the next message of a channel that is the broker's."""
        answer = await self._links.here().ask(frames.RECEIVE, named(name), again=True)
        assert answer is not None  # noqa: S101 - it is asked again
        message: dict[str, Any] = unpack(answer[1][1 + len(name) + MOMENT.size :])
        return message

    async def group_add(self, group: str, channel: str) -> None:
        """Put a channel into a group, for `group_expiry` seconds; again: for as long anew."""
        self._check_group(group)
        self._check_channel(channel)
        until, name, member = self._clock() + self.group_expiry, self._space + group, channel
        if self._own not in channel:
            membership = MEMBERSHIP.pack(until, self.get_capacity(channel), self.expiry)
            payload = named(name) + named(self._space + member) + membership
            await self._links.here().ask(frames.JOIN, payload, again=True)
            return
        with self._lock:
            self._boxes.join(name, self._space + member, until)
            subscription = self._subscriptions.get(name)
            if subscription is None:
                subscription = self._subscriptions[name] = _Subscription(next(self._turns))
        if not subscription.confirmed:
            payload = named(name) + TURN.pack(subscription.turn)
            await self._links.claim().ask(frames.SUBSCRIBE, payload, again=True)
            subscription.confirmed = True

    async def group_discard(self, group: str, channel: str) -> None:
        """Take a channel out of a group; one that is not in it is no error."""
        self._check_group(group)
        self._check_channel(channel)
        name, member = self._space + group, self._space + channel
        if self._own not in channel:
            await self._links.here().ask(frames.LEAVE, named(name) + named(member), again=True)
            return
        with self._lock:
            if self._boxes.part(name, member):
                self._unsubscribe(self._links.here(), name)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Send a message to each channel of a group that is not full."""
        self._check_group(group)
        moment = MOMENT.pack(self._clock() + self.expiry)
        payload = named(self._space + group) + moment + self._pack(message)
        await self._links.here().ask(frames.PUBLISH, payload, again=False)

    async def flush(self) -> None:
        """Forget all messages and groups, in all processes."""
        await self._links.here().ask(frames.FLUSH, named(self._space), again=True)
        if self._links.home is None or self._links.home.gone:  # who would have heard of it
            self._forget()

    async def close(self) -> None:
        """Disconnect all loops; the next use connects again."""
        self._links.close()

    async def close_pools(self) -> None:
        """Disconnect, under the name that channels_redis gives it."""
        await self.close()

    # --- receiving --------------------------------------------------------------------------

    def _wait(self, name: str) -> Future[Letter]:
        """Wait for the next message of a channel of ours."""
        loop, home = asyncio.get_running_loop(), self._links.home
        if home is None or home.loop is not loop:
            self._links.claim()
        waiting: Future[Letter] = loop.create_future()
        self._boxes.wait(name, waiting)
        return waiting

    def _give_up(self, name: str, waiting: Future[Letter]) -> None:
        """Wait no more; a message that has come already is somebody else's."""
        with self._lock:
            if waiting.cancelled():
                self._boxes.forsake(name, waiting)
            else:
                self._boxes.put_back(name, waiting.result())

    def _hand(self, name: str, receiver: Receiver, letter: Letter) -> bool:
        """Give a letter to a receiver in its own loop; say whether that is possible."""
        loop: Any = receiver.get_loop()
        if loop is asyncio.get_running_loop():
            receiver.set_result(letter)
            return True
        try:
            loop.call_soon_threadsafe(self._hand_here, name, receiver, letter)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def _hand_here(self, name: str, receiver: Receiver, letter: Letter) -> None:
        with self._lock:
            if receiver.done():
                self._boxes.put_back(name, letter)
            else:
                receiver.set_result(letter)

    def hear(self, link: Link, kind: int, payloads: Sequence[bytes]) -> None:
        """Take what comes from the broker unasked: news of one kind, together."""
        if kind == frames.GROUP:
            self._hear_group(link, payloads)
            return
        for payload in payloads:
            name, end = name_in(payload)
            if kind == frames.DELIVER:
                self._deliver(link, name, payload, end)
            elif name == self._space:
                self._forget()

    def _hear_group(self, link: Link, payloads: Sequence[bytes]) -> None:
        """Spread messages to groups: those to one group, as far as they follow each other."""
        now, here = self._clock(), asyncio.get_running_loop()
        with self._lock:
            self._sweep(now)
            for name, letters in itertools.groupby(map(_opened, payloads), itemgetter(0)):
                if not self._boxes.spread(name, [letter for _, letter in letters], now, here):
                    self._unsubscribe(link, name)

    def _deliver(self, link: Link, name: str, payload: bytes, end: int) -> None:
        now, letter = self._clock(), _letter(payload, end)
        with self._lock:
            self._sweep(now)
            self._boxes.put(name, letter, now)
            if self._boxes.filled(name):
                link.tell(frames.FULL, named(name))

    def _sweep(self, now: float) -> None:
        if now < self._sweep_at:
            return
        self._sweep_at = now + _SWEEP
        for channel in self._boxes.sweep(now):
            self._links.here().tell(frames.OPEN, named(channel))

    def _forget(self) -> None:
        with self._lock:
            self._boxes.clear()
            self._subscriptions.clear()

    # --- groups -----------------------------------------------------------------------------

    def subscriptions(self) -> list[bytes]:
        """Return the frames that tell the broker of our groups."""
        with self._lock:
            return [
                frame(frames.SUBSCRIBE, 0, named(name) + TURN.pack(one.turn))
                for name, one in self._subscriptions.items()
            ]

    def _unsubscribe(self, link: Link, name: str) -> None:
        self._subscriptions.pop(name, None)
        link.tell(frames.UNSUBSCRIBE, named(name) + TURN.pack(next(self._turns)))

    # --- links ------------------------------------------------------------------------------

    def is_home(self, link: Link) -> bool:
        """Say whether what is for this process is to come over `link`."""
        return self._links.home is link

    def greeted(self, link: Link) -> None:
        """Take note that the broker has heard the last greeting of `link`."""
        self._links.greeted(link)

    # --- checks -----------------------------------------------------------------------------

    def _check_channel(self, channel: str) -> None:
        self.require_valid_channel_name(channel)
        if not channel.isascii():  # the pattern of Channels lets letters of other scripts pass
            raise TypeError(self.invalid_name_error.format("Channel"))

    def _check_group(self, group: str) -> None:
        self.require_valid_group_name(group)
        if not group.isascii():
            raise TypeError(self.invalid_name_error.format("Group"))

    def _capacity_of(self, name: str) -> int:
        if not self.channel_capacity:
            return int(self.capacity)
        return int(self.get_capacity(name[len(self._space) :]))

    def _pack(self, message: Any) -> bytes:
        if not isinstance(message, dict):  # a mistake that arrives as another one, far away
            text = f"a message is a dict, not {type(message).__name__}"
            raise TypeError(text)
        body = pack(message)
        if len(body) > self.max_message_size:
            text = f"{len(body)} bytes, and max_message_size is {self.max_message_size}"
            raise MessageTooLarge(text)
        return body


def _opened(payload: bytes) -> tuple[str, Letter]:
    """Return the group that a message is for, and the message."""
    name, end = name_in(payload)
    return name, _letter(payload, end)


def _letter(payload: bytes, end: int) -> Letter:
    (until,) = MOMENT.unpack_from(payload, end)
    return Letter(until, payload[end + MOMENT.size :])


def _check(prefix: str, max_message_size: int, **expiries: float) -> None:
    if not (prefix.isascii() and len(prefix) < _LONGEST_PREFIX and ":" not in prefix):
        message = f"prefix {prefix!r}: ASCII, shorter than {_LONGEST_PREFIX} and without a colon"
        raise ValueError(message)
    if not 0 < max_message_size < frames.LARGEST:
        message = f"max_message_size {max_message_size}: from 1 to {frames.LARGEST - 1} bytes"
        raise ValueError(message)
    for name, seconds in expiries.items():
        if seconds <= 0:
            message = f"{name} {seconds}: is a time in seconds, more than 0"
            raise ValueError(message)


_layers: weakref.WeakSet[LocalChannelLayer] = weakref.WeakSet()


def _after_fork() -> None:  # pragma: no cover - runs in forked children only
    """Be another client in the child: what was connected is the parent's."""
    for layer in list(_layers):
        layer._begin()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_after_fork)
