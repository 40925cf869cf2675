"""Takes connections from a listener that every worker shares.

One connection at each wake-up: a worker that took all that wait would leave nothing to its
siblings, and long-lived connections would stay where a single burst has put them.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from daphne_supervisor.worker.connection import Connection

if TYPE_CHECKING:
    import asyncio
    import socket
    import ssl

    from daphne_supervisor.listeners import Listener
    from daphne_supervisor.worker.reactor import LoopReactor
    from daphne_supervisor.worker.service import Service

__all__ = ["Acceptor"]

logger = logging.getLogger("daphne_supervisor.worker")

#: Seconds to leave a listener alone that cannot accept, mostly because the process has no file
#: descriptor left for a connection.
PAUSE = 1.0


class Acceptor:
    """Accepts on one listener, and serves what it accepts."""

    def __init__(
        self,
        listener: Listener,
        context: ssl.SSLContext | None,
        service: Service,
        reactor: LoopReactor,
    ) -> None:
        """Accept on `listener`, with TLS if there is a `context`."""
        self._socket = listener.socket
        self._description = listener.description
        self._context = context
        self._service = service
        self._reactor = reactor
        self._open = False
        self._opening: set[asyncio.Task[None]] = set()

    @property
    def opening(self) -> int:
        """Return how many connections are accepted but not open: mostly TLS handshakes."""
        return len(self._opening)

    def open(self) -> None:
        """Begin to accept."""
        self._open = True
        self._reactor.loop.add_reader(self._socket, self.accept)

    def accept(self) -> bool:
        """Accept one connection; return whether there was one."""
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            self._pause(error)
            return False
        connection.setblocking(False)
        task = self._reactor.loop.create_task(self._serve(connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return True

    def _pause(self, error: OSError) -> None:
        """Leave the connections in the queue until there are resources again."""
        logger.error("%s: cannot accept: %s", self._description, error.strerror)
        loop = self._reactor.loop
        loop.remove_reader(self._socket)
        loop.call_later(PAUSE, self._resume)

    def _resume(self) -> None:
        if self._open:
            self.open()

    async def _serve(self, connection: socket.socket) -> None:
        service = self._service
        secure = self._context is not None
        try:
            await self._reactor.serve(
                connection,
                lambda: Connection(service, secure=secure),
                self._context,
                service.config.http.head_timeout,
            )
        except OSError as error:
            logger.debug("%s: connection did not come about: %s", self._description, error)
            connection.close()

    def close(self) -> None:
        """Accept what already waits, then close this worker's copy of the listener.

        Siblings go on accepting; but at the final stop nobody else would, and who waits in the
        queue of a socket that its last owner closes is reset. A worker that has never accepted
        leaves them to the others: its application may not have started.
        """
        if self._open:
            self._open = False
            self._reactor.loop.remove_reader(self._socket)
            while self.accept():
                pass
        self._socket.close()
