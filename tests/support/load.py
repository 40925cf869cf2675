"""Clients that send requests without pause, never retry, and count.

Each connection is a thread of its own that sends, waits for the whole response, and sends again. It
opens another connection when it was told `Connection: close`, as any client must, and when it has
lost a request; what was lost is not sent again. So the number of requests sent minus the number of
responses received whole is the number of users who have seen an error.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Self

from tests.support.client import PATIENCE, Client

if TYPE_CHECKING:
    import ssl

__all__ = ["Load", "Loss"]

_ENOUGH = 100
"""Losses after which a connection gives up: what they show is shown."""


@dataclass(frozen=True)
class Loss:
    """A request without a whole response."""

    why: str
    server: str
    """The last response on the same connection, empty if this was its first request."""
    port: int
    """The client's end of the connection, 0 if there was none."""
    begun: float
    """When the connection was begun (monotonic seconds): another one may have the port later."""


@dataclass
class _Lane:
    """What one connection has done."""

    sent: int = 0
    answered: int = 0
    latest: str = ""
    losses: list[Loss] = field(default_factory=list)
    answer: threading.Event = field(default_factory=threading.Event)


class Load:
    """Requests without pause while the `with` block runs; afterwards, what became of them."""

    def __init__(
        self,
        port: int | str,
        connections: int = 32,
        target: str = "/",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Ask for `target` on so many connections to `port`, or to a unix socket's path."""
        self._port = port
        self._tls = tls
        self._target = target
        self._lanes = [_Lane() for _ in range(connections)]
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._drive, args=[lane], daemon=True) for lane in self._lanes
        ]

    def __enter__(self) -> Self:
        """Start, and wait until every connection has been answered."""
        for thread in self._threads:
            thread.start()
        try:
            self.turn()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop when every request under way is answered or lost."""
        self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)

    def turn(self) -> None:
        """Wait until every connection has sent a request after this call, and was answered."""
        for _ in range(2):  # the first answer may be to a request from before
            for lane in self._lanes:
                lane.answer.clear()
            for number, lane in enumerate(self._lanes):
                assert lane.answer.wait(PATIENCE), f"connection {number} is not answered: {lane}"

    @property
    def sent(self) -> int:
        """How many requests were sent, or could not be."""
        return sum(lane.sent for lane in self._lanes)

    @property
    def answered(self) -> int:
        """How many responses were received to the last byte."""
        return sum(lane.answered for lane in self._lanes)

    @property
    def losses(self) -> list[Loss]:
        """What has become of the others."""
        return [loss for lane in self._lanes for loss in lane.losses]

    @property
    def latest(self) -> Counter[str]:
        """The last response of every connection: how many have had which."""
        return Counter(lane.latest for lane in self._lanes)

    def _drive(self, lane: _Lane) -> None:
        while not self._stopping.is_set() and len(lane.losses) < _ENOUGH:
            self._converse(lane)

    def _converse(self, lane: _Lane) -> None:
        """Open a connection, and use it until it ends."""
        server, port, begun = "", 0, time.monotonic()
        lane.sent += 1  # a request that finds no connection is lost as well
        try:
            with Client(self._port, tls=self._tls) as client:
                port = client.port
                while True:
                    response = client.get(self._target)
                    if response.status != HTTPStatus.OK:
                        why = f"status {response.status}"
                        lane.losses.append(Loss(why, server, port, begun))
                        return
                    lane.answered += 1
                    lane.latest = server = response.text
                    lane.answer.set()
                    if response.closes or self._stopping.is_set():
                        return
                    lane.sent += 1
        except OSError as error:
            lane.losses.append(Loss(repr(error), server, port, begun))
