"""The queues of channels that belong to nobody: any process may send to them, and receive.

Pure: time is an argument. What is waiting to be received is bounded by each channel's capacity, and
by a number of bytes for all channels together (--channels-max-queue).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from daphne_supervisor.broker import frames
from daphne_supervisor.broker.frames import MOMENT, frame, named

if TYPE_CHECKING:
    from collections.abc import Callable

    from daphne_supervisor.broker.peers import Peer

__all__ = ["Queues"]


@dataclass(slots=True, eq=False)
class _Queue:
    """A channel: messages with their moments, and who waits for one."""

    messages: deque[tuple[float, bytes]] = field(default_factory=deque)
    waiting: deque[tuple[Peer, int]] = field(default_factory=deque)


class Queues:
    """Every channel in which something waits: messages, or somebody for a message."""

    def __init__(self, most: int, remark: Callable[[str], None]) -> None:
        """Begin with none; at most so many bytes will wait, and `remark` is told when they do."""
        self._queues: dict[str, _Queue] = {}
        self._most = most
        self._remark = remark
        self._queued = 0  # bytes
        self._refused = 0  # messages, since the last sweep

    def __len__(self) -> int:
        """Return the number of channels."""
        return len(self._queues)

    def put(self, channel: str, until: float, capacity: int, body: bytes, now: float) -> bool:
        """Give a message to who waits for it, or keep it; say whether there was room."""
        queue = self._queues.setdefault(channel, _Queue())
        self._expire(queue, now)
        if queue.waiting:
            self._hand(channel, queue, until, body)
        elif len(queue.messages) >= capacity or not self._has_room(len(body)):
            self._tidy(channel, queue)
            return False
        else:
            self._queued += len(body)
            queue.messages.append((until, body))
        return True

    def _has_room(self, size: int) -> bool:
        """Say whether so many bytes may wait, too; the first that may not are remarked upon."""
        if self._queued + size <= self._most:
            return True
        if not self._refused:
            self._remark(
                f"channel layer: {self._queued} bytes wait in channels that belong to no worker,"
                f" and {self._most} may (--channels-max-queue): messages are refused"
            )
        self._refused += 1
        return False

    def ask(self, channel: str, peer: Peer, number: int, now: float) -> None:
        """Let `peer` have the next message, as the answer to its request `number`."""
        queue = self._queues.setdefault(channel, _Queue())
        self._expire(queue, now)
        peer.asking[number] = channel
        queue.waiting.append((peer, number))
        if queue.messages:
            until, body = queue.messages.popleft()
            self._queued -= len(body)
            self._hand(channel, queue, until, body)

    def cancel(self, peer: Peer, number: int) -> None:
        """Let a request go; its answer may be on its way."""
        channel = peer.asking.pop(number, None)
        if channel is not None:
            queue = self._queues[channel]
            queue.waiting.remove((peer, number))
            self._tidy(channel, queue)

    def put_back(self, channel: str, until: float, body: bytes, now: float) -> None:
        """Take back, to the front, a message that was taken out for somebody who has left."""
        queue = self._queues.setdefault(channel, _Queue())
        if queue.waiting:
            self._hand(channel, queue, until, body)
            return
        self._queued += len(body)
        queue.messages.appendleft((until, body))
        self._expire(queue, now)
        self._tidy(channel, queue)

    def clear(self, space: str) -> None:
        """Forget all messages of a space; who waits for one goes on waiting."""
        for channel, queue in list(self._queues.items()):
            if channel.startswith(space):
                self._queued -= sum(len(body) for _, body in queue.messages)
                queue.messages.clear()
                self._tidy(channel, queue)

    def sweep(self, now: float) -> None:
        """Forget what has expired; say how many were refused since the last time."""
        refused, self._refused = self._refused, 0
        if refused:
            self._remark(f"channel layer: {refused} messages were refused (--channels-max-queue)")
        for channel, queue in list(self._queues.items()):
            self._expire(queue, now)
            self._tidy(channel, queue)

    def _hand(self, channel: str, queue: _Queue, until: float, body: bytes) -> None:
        """Give a message to the one who waits longest."""
        peer, number = queue.waiting.popleft()
        del peer.asking[number]
        peer.port.write(frame(frames.MESSAGE, number, named(channel) + MOMENT.pack(until) + body))
        self._tidy(channel, queue)

    def _expire(self, queue: _Queue, now: float) -> None:
        while queue.messages and queue.messages[0][0] <= now:
            self._queued -= len(queue.messages.popleft()[1])

    def _tidy(self, channel: str, queue: _Queue) -> None:
        if not queue.messages and not queue.waiting:
            self._queues.pop(channel, None)
