"""One stream of an HTTP/2 connection: what it owes, what it may send, whose turn it is.

To the exchange of its request a stream is the client: it says when to wait, and when there is
nobody to send to any more.
"""

from __future__ import annotations

import asyncio
import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from daphne_supervisor.worker.head import Head
    from daphne_supervisor.worker.pace import Pace
    from daphne_supervisor.worker.waist import Request, Running

__all__ = ["DEFAULT_PRIORITY", "Stream", "read_priority"]

#: RFC 9218 section 4: in the middle. Who has not said otherwise shares with those of its urgency,
#: or one download of a client that knows nothing of priorities would hold up all its others.
DEFAULT_PRIORITY = (3, True)
_PARAMETER = re.compile(rb"[ \t]*(?:u=([0-7])|(i)(?:=\?([01]))?)[ \t]*")


def read_priority(value: bytes) -> tuple[int, bool]:
    """Return urgency, 0 the most urgent to 7, and whether to share (RFC 9218 section 4).

    What is not understood is ignored, as the RFC asks.
    """
    urgency, shares = 3, False
    for parameter in value.split(b","):
        match = _PARAMETER.fullmatch(parameter)
        if match is None:
            continue
        if match[1]:
            urgency = int(match[1])
        else:
            shares = match[3] != b"0"
    return urgency, shares


class Stream:
    """A stream with a request, from its head to the last byte of both sides.

    `window` is what may be sent on it in bytes, `pending` what waits for that: pieces of the body.
    `room` is what the client may send, `unread` what it has sent and nobody has taken. `begun` says
    that the response's head is sent, `done` that the application's last piece is known, `ended`
    that the client's is, `over` that nothing can be sent any more.
    """

    # What most streams never change stands here, once for all of them.
    exchange: Request | None = None
    pending: deque[bytes | memoryview] | None = None
    trailers: list[tuple[bytes, bytes]] | None = None  # that end the response
    begun = done = ended = over = bodiless = queued = False
    left: int | None = None  # bytes of the response's body that are to come, if that is known
    received = 0  # bytes of the request's body
    unread = 0
    owed = 0  # of what was taken, to be given back to the window
    answer_by = math.inf  # the application
    stalled_at = math.inf  # the client, which has to let something of `pending` through
    pace: Pace | None = None
    tunnel = False  # it carries a WebSocket
    call: Running | None = None  # the application's, for a request the same as `exchange`
    _waiter: asyncio.Event | None = None

    # Whose they are, for the exchange: the connection says.
    service: Any
    peer: Any
    client_text: Callable[[Head], str]

    def __init__(self, number: int, head: Head, window: int, room: int) -> None:
        """Be the stream `number`, which began with `head`."""
        self.id = number
        self.head = head
        self.window = window
        self.room = room
        self.urgency, self.shares = head.priority or DEFAULT_PRIORITY

    @property
    def congested(self) -> bool:
        """Say whether something waits for the client to let it through."""
        return self.pending is not None

    def is_closing(self) -> bool:
        """Say whether what is sent goes nowhere."""
        return self.over

    async def drained(self) -> None:
        """Wait until nothing is left to wait for, or nobody to send to."""
        if self.pending is None:
            return
        if self._waiter is None:
            self._waiter = asyncio.Event()
        await self._waiter.wait()

    def relieve(self) -> None:
        """Nothing waits any more: go on."""
        self.pending = None
        self.stalled_at = math.inf
        if self._waiter is not None:
            self._waiter.set()
            self._waiter = None

    def lost(self) -> None:
        """The stream is gone: tell the application, unless it has said all that it had to say."""
        if self.exchange is not None and not self.done:
            self.exchange.lost()

    def finish(self) -> None:
        """Nothing can be sent any more."""
        self.over = True
        self.trailers = self.exchange = self.call = None
        self.relieve()
