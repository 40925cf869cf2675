"""How a worker leaves: everybody gets time, everybody is told, and it does not take for ever.

The phases of a drain, all of them within --graceful-timeout, and over as soon as nobody is left:

1. The listeners are closed. If that is the end of the service, who waits there is accepted first.
2. HTTP: requests go on, every answer says `Connection: close`, and an idle connection may send one
   more for a moment.
3. WebSockets are closed with 1012, not all at once, since all of them will come back; with
   `--ws-drain wait` only when the end is near.
4. From --disconnect-delay on, applications that stream a response hear `http.disconnect`, and may
   still send.
5. At the deadline whoever is left is named in the log, told, then cancelled and cut off.

Each phase that has something to do writes one line.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daphne_supervisor.config import Drain
    from daphne_supervisor.worker.acceptor import Acceptor
    from daphne_supervisor.worker.connection import Connection
    from daphne_supervisor.worker.http2_tunnel import Tunnel
    from daphne_supervisor.worker.service import Service

__all__ = ["Departure", "spread", "websocket_time"]

logger = logging.getLogger("daphne_supervisor.worker")

#: Seconds between two looks at whether anybody is left.
CHECK = 0.05
#: Fewer WebSockets than would fill --ws-drain-time at this many a second are closed faster.
WEBSOCKET_RATE = 10.0
#: Seconds kept free between the last close frame and the deadline, for the client's half of the
#: closing handshake; a tenth of a --graceful-timeout that is shorter than ten of them.
ANSWER = 1.0
#: After the deadline: seconds to notice the disconnect, and to notice the cancellation. With the
#: lifespan's shutdown they must be less than the master's own margin before it steps in.
NOTICE, CANCEL = 1.0, 0.5
#: Application calls that are named when they are cut off.
NAMED = 5


def websocket_time(count: int, limits: Drain) -> float:
    """Return the seconds over which `count` WebSockets are closed."""
    return min(limits.websocket_time, count / WEBSOCKET_RATE, _last_close(limits))


def _last_close(limits: Drain) -> float:
    """Return when, in seconds from the beginning of the drain, the last close frame is due."""
    return limits.graceful_timeout - min(ANSWER, limits.graceful_timeout / 10)


def spread(count: int, seconds: float) -> list[float]:
    """Return `count` moments within `seconds`, in order.

    Each has its own part of the time and is at random within it: nobody can be bunched, and
    several workers that leave together do not beat in time.
    """
    return [
        (place + random.random()) * seconds / count  # noqa: S311 - jitter
        for place in range(count)
    ]


class Departure:
    """The drain of one worker."""

    def __init__(self, slot: int, service: Service, acceptors: Sequence[Acceptor]) -> None:
        """Let the worker in `slot`, which serves `service`, leave."""
        self._slot = slot
        self._service = service
        self._acceptors = acceptors
        self._limits = service.config.drain
        self._begun = math.inf

    def begin(self, *, last_call: bool) -> None:
        """Accept no more, after those who wait at the `last_call`, and tell everybody on HTTP."""
        self._begun = self._service.now()
        self._service.draining = self._service.lingering = True
        waited = self._opening
        for acceptor in self._acceptors:
            acceptor.close(last_call=last_call)
        waited = self._opening - waited
        if waited:
            logger.info(
                "worker %d: listeners closed; connections that waited there and were accepted: %d",
                self._slot,
                waited,
            )
        self._drain_http()

    def _drain_http(self) -> None:
        service = self._service
        connections = [one for one in service.connections if not one.is_websocket]
        for connection in connections:
            connection.drain()
        if connections:
            logger.info(
                "worker %d: HTTP connections: %d, with requests in progress: %d; they have %g s"
                " (--graceful-timeout)",
                self._slot,
                len(connections),
                service.in_flight,
                self._limits.graceful_timeout,
            )

    async def finish(self) -> None:
        """Wait for the end of everything, or for the deadline; after it nothing is left."""
        websockets = asyncio.ensure_future(self._drain_websockets())
        try:
            if not await self._finished(self._begun + self._limits.graceful_timeout):
                self._describe_rest()
                await self._cut_off()
        finally:
            websockets.cancel()

    # -- WebSockets --

    async def _drain_websockets(self) -> None:
        """Close them, when it is time for that."""
        if self._limits.websockets == "wait":
            await self._wait_with_websockets()
        self._service.closing_websockets = True
        websockets = self._websockets()
        if not websockets:
            return
        seconds = websocket_time(len(websockets), self._limits)
        logger.info(
            "worker %d: WebSockets that are closed with 1012: %d, over %g s (--ws-drain-time)",
            self._slot,
            len(websockets),
            seconds,
        )
        random.shuffle(websockets)
        begun = self._service.now()
        for moment, websocket in zip(spread(len(websockets), seconds), websockets, strict=True):
            await self._sleep_until(begun + moment)
            websocket.drain()

    async def _wait_with_websockets(self) -> None:
        count = len(self._websockets())
        stay = _last_close(self._limits) - websocket_time(count, self._limits)
        if count:
            logger.info(
                "worker %d: WebSockets that may stay: %d, for %g s (--ws-drain wait)",
                self._slot,
                count,
                stay,
            )
        await self._sleep_until(self._begun + stay)

    def _websockets(self) -> list[Connection | Tunnel]:
        return [each for one in self._service.connections for each in one.websockets]

    async def _sleep_until(self, moment: float) -> None:
        await asyncio.sleep(max(0.0, moment - self._service.now()))

    # -- waiting --

    @property
    def _opening(self) -> int:
        return sum(acceptor.opening for acceptor in self._acceptors)

    async def _finished(self, deadline: float) -> bool:
        """Wait until nobody is left; return whether that was before `deadline`."""
        service, delay = self._service, self._limits.disconnect_delay
        disconnect = math.inf if delay is None else self._begun + delay
        while service.connections or service.exchanges or self._opening:
            now = service.now()
            if now >= deadline:
                return False
            if now >= disconnect:
                self._disconnect()
            await asyncio.sleep(CHECK)
        return True

    def _disconnect(self) -> None:
        """Tell those that stream a response and were not told yet."""
        told = sum(1 for exchange in list(self._service.exchanges) if exchange.dismiss())
        if told:
            logger.info(
                "worker %d: responses in progress whose application hears http.disconnect: %d"
                " (--disconnect-delay %g)",
                self._slot,
                told,
                self._limits.disconnect_delay,
            )

    # -- the deadline --

    def _describe_rest(self) -> None:
        rest = [exchange.describe() for exchange in self._service.exchanges]
        shown = ", ".join(rest[:NAMED]) + (", ..." if len(rest) > NAMED else "")
        logger.warning(
            "worker %d: --graceful-timeout of %g s is over; cut off: %d connections, %d application"
            " calls %s",
            self._slot,
            self._limits.graceful_timeout,
            len(self._service.connections),
            len(rest),
            f"({shown})" if rest else "",
        )

    async def _cut_off(self) -> None:
        service = self._service
        for exchange in list(service.exchanges):
            exchange.leave()
        if not await self._gone(NOTICE):
            for exchange in list(service.exchanges):
                exchange.cancel()
            for connection in list(service.connections):
                connection.abort()
            await self._gone(CANCEL)

    async def _gone(self, seconds: float) -> bool:
        return await self._finished(self._service.now() + seconds)
