"""What all connections of one worker share: the application, the configuration, the counters."""

from __future__ import annotations

import logging
import math
import sys
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from daphne_supervisor.worker.fairness import Share
from daphne_supervisor.worker.scope import Proxies
from daphne_supervisor.worker.threads import Threads

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from daphne_supervisor.config import Config
    from daphne_supervisor.logs import AccessLog
    from daphne_supervisor.scoreboard import Scoreboard
    from daphne_supervisor.worker.connection import Connection
    from daphne_supervisor.worker.exchange import Exchange
    from daphne_supervisor.worker.head import Head
    from daphne_supervisor.worker.response import Identity

    Application = Callable[[dict[str, Any], Any, Any], Awaitable[None]]

__all__ = ["Service"]

logger = logging.getLogger("daphne_supervisor.worker")

#: Seconds between two lines about requests that --max-inflight turns away.
SHED_INTERVAL = 1.0
#: Seconds in which --max-connections was not met, after which meeting it is news again.
FULL_EPISODE = 10.0


class Service:
    """One worker's application and everything its connections need to serve it.

    `state` is what the application's lifespan left for its requests, each of which has a copy;
    `now` returns the monotonic time in seconds; `identity` are the `Date` and `Server` header lines
    of this second, and both with the empty line behind them.

    The counters are read by the heartbeat: `requests` since the start (requests and WebSockets
    begun; `handshakes` of them were WebSockets), `messages` of WebSockets both ways since the
    start, `in_flight` application calls of requests and handshakes that run now, `websockets` open
    now. At `most_in_flight` of them nothing is begun, but shed. `share` counts the connections,
    beside those of the siblings.

    The worker leaves in steps: while `lingering` every answer is its connection's last, while
    `draining` nothing new is begun but by who is connected, and WebSockets are told to leave from
    `closing_websockets` on.
    """

    def __init__(
        self,
        config: Config,
        application: Application,
        access_log: AccessLog | None,
        loop: asyncio.AbstractEventLoop,
        *,
        scoreboard: Scoreboard,
        slot: int,
    ) -> None:
        """Serve `application` on `loop` as `config` says, in `slot` of the `scoreboard`."""
        self.config = config
        self.application = application
        self.access_log = access_log
        self.loop = loop
        self.now = loop.time
        self.proxies = Proxies(config.proxy)
        self.root_path = config.app.root_path
        self.threads = Threads(config.process.threads or 0)
        self.state: dict[str, Any] | None = None
        self.connections: set[Connection] = set()
        self.exchanges: set[Exchange] = set()
        self.heads: dict[bytes, Head] = {}
        self.share = Share(scoreboard, slot, config.http.max_connections)
        self.lingering = False
        self.draining = False
        self.closing_websockets = False
        self.requests = 0
        self.handshakes = 0
        self.messages = 0
        self.in_flight = 0
        self.websockets = 0
        self.most_in_flight = config.http.max_inflight or sys.maxsize
        self._shed = 0
        self._shedding: asyncio.TimerHandle | None = None
        self._slot = slot
        self._full_at = -math.inf
        self._warned: set[str] = set()
        server = config.http.server_name
        self._server = f"Server: {server}\r\n".encode("latin-1") if server else b""
        self.identity: Identity
        self._begin_second()

    def _begin_second(self) -> None:
        """Make the header lines that hold until the next second begins."""
        now = time.time()
        date = f"Date: {formatdate(now, usegmt=True)}\r\n".encode("ascii")
        self.identity = (date, self._server, self._server + date + b"\r\n")
        self.loop.call_later(1.0 - now % 1.0, self._begin_second)

    def warn_once(self, key: str, message: str, *args: object) -> None:
        """Log a warning the first time that `key` is met."""
        if key not in self._warned:
            self._warned.add(key)
            logger.warning(message, *args)

    # -- limits --

    def shed(self) -> str:
        """Count a request that is turned away, and log it; return the words for its client."""
        self._shed += 1
        if self._shedding is None:
            self._report_shed()
        return "--max-inflight requests are being served"

    def _report_shed(self) -> None:
        """Log the first one at once, and those of the following seconds together."""
        if not self._shed:
            self._shedding = None
            return
        logger.warning(
            "worker %d: --max-inflight %d: turned away with 503: %d",
            self._slot,
            self.config.http.max_inflight,
            self._shed,
        )
        self._shed = 0
        self._shedding = self.loop.call_later(SHED_INTERVAL, self._report_shed)

    def note_full(self) -> None:
        """Log that no more connections are accepted, unless that was so a moment ago."""
        now = self.now()
        if now - self._full_at >= FULL_EPISODE:
            logger.warning(
                "worker %d: --max-connections %d: no more are accepted until one of them ends",
                self._slot,
                self.config.http.max_connections,
            )
        self._full_at = now
