"""What all connections of one worker share: the application, the configuration, the counters."""

from __future__ import annotations

import logging
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from daphne_supervisor.worker.scope import Proxies
from daphne_supervisor.worker.threads import Threads

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from daphne_supervisor.config import Config
    from daphne_supervisor.logs import AccessLog
    from daphne_supervisor.worker.connection import Connection
    from daphne_supervisor.worker.exchange import Exchange

    Application = Callable[[dict[str, Any], Any, Any], Awaitable[None]]

__all__ = ["Service"]

logger = logging.getLogger("daphne_supervisor.worker")


class Service:
    """One worker's application and everything its connections need to serve it.

    `state` is what the application's lifespan left for its requests. The counters are read by the
    heartbeat: `requests` since the start (requests and WebSockets begun), `in_flight` application
    calls of requests that run now, `websockets` open now.
    """

    def __init__(
        self,
        config: Config,
        application: Application,
        access_log: AccessLog | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Serve `application` on `loop` as `config` says."""
        self.config = config
        self.application = application
        self.access_log = access_log
        self.loop = loop
        self.proxies = Proxies(config.proxy)
        self.threads = Threads(config.process.threads)
        self.state: dict[str, Any] | None = None
        self.connections: set[Connection] = set()
        self.exchanges: set[Exchange] = set()
        self.draining = False
        self.requests = 0
        self.in_flight = 0
        self.websockets = 0
        self._warned: set[str] = set()
        self._second = -1
        server = config.http.server_name
        self._server = f"Server: {server}\r\n".encode("latin-1") if server else b""
        self._identity = (b"", b"")

    def now(self) -> float:
        """Return the monotonic time in seconds."""
        return self.loop.time()

    def identity(self) -> tuple[bytes, bytes]:
        """Return the `Date` and `Server` header lines, made once a second."""
        now = int(time.time())
        if now != self._second:
            self._second = now
            date = f"Date: {formatdate(now, usegmt=True)}\r\n".encode("ascii")
            self._identity = (date, self._server)
        return self._identity

    def call(self, scope: dict[str, Any], receive: Any, send: Any) -> Awaitable[None]:
        """Call the application once; each call has a copy of the lifespan's state."""
        if self.state is not None:
            scope["state"] = self.state.copy()
        return self.application(scope, receive, send)

    def warn_once(self, key: str, message: str, *args: object) -> None:
        """Log a warning the first time that `key` is met."""
        if key not in self._warned:
            self._warned.add(key)
            logger.warning(message, *args)
