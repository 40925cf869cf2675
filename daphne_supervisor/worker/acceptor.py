"""Takes connections from a listener that every worker shares.

One connection at each wake-up, and only while it is this worker's turn: a worker that took all that
wait would leave nothing to its siblings, and long-lived connections would stay where a single burst
has put them. Who has to wait, waits in the listener's queue, where every sibling can take it. Only
who has no siblings takes several at once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from daphne_supervisor.worker.connection import Connection
from daphne_supervisor.worker.fairness import Turns

if TYPE_CHECKING:
    import ssl

    from daphne_supervisor.listeners import Listener
    from daphne_supervisor.worker.reactor import LoopReactor
    from daphne_supervisor.worker.service import Service

__all__ = ["Acceptor"]

logger = logging.getLogger("daphne_supervisor.worker")

#: Seconds to leave a listener alone that cannot accept, mostly because the process has no file
#: descriptor left for a connection.
PAUSE = 1.0
#: Connections that a worker without siblings takes at a wake-up: so many that the wake-up costs
#: next to nothing, and so few that those who are connected need not wait for it.
BURST = 16


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
        self._family = int(listener.socket.family)  # a socket looks it up each time
        self._description = listener.description
        self._context = context
        self._service = service
        self._reactor = reactor
        self._share = service.share
        self._turns = Turns(service.share)
        self._handshake_timeout = service.config.http.head_timeout
        self._open = False
        self.opening = 0
        """Connections that are accepted but not open: mostly TLS handshakes."""

    def open(self) -> None:
        """Begin to accept."""
        self._open = True
        self._share.join()
        self._watch()

    def _watch(self) -> None:
        """Be woken for a connection, unless the listener was closed meanwhile."""
        if self._open:
            self._reactor.loop.add_reader(self._socket, self._wake)

    def _wake(self) -> None:
        """Take what waits, or leave it to the siblings."""
        if self._share.full:
            self._reactor.loop.remove_reader(self._socket)
            self._share.when_there_is_room(self._watch)
            self._service.note_full()
        elif self._share.alone:
            self._take_burst()
        elif self._turns.ours():
            self.accept()
        else:
            self._reactor.loop.remove_reader(self._socket)
            self._reactor.loop.call_later(self._turns.patience, self._look_again)

    def _take_burst(self) -> None:
        """Take what waits, within bounds."""
        for _ in range(BURST):
            if not self.accept() or self._share.full:
                break

    def _look_again(self) -> None:
        """See what has become of a connection that was left to the siblings."""
        if not self._open:
            return
        if self._reactor.readable(self._socket) and not self._turns.ours(again=True):
            self._reactor.loop.call_later(self._turns.patience, self._look_again)
        else:
            self._watch()

    def accept(self) -> bool:
        """Accept one connection; return whether there was one."""
        try:
            accepted = self._reactor.accept(self._socket, self._family)
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            self._pause(error)
            return False
        self._share.enter()
        self.opening += 1
        self._reactor.serve(
            accepted, self._build, self._context, self._handshake_timeout, self._opened
        )
        return True

    def _build(self) -> Connection:
        return Connection(self._service, secure=self._context is not None)

    def _opened(self, error: Exception | None) -> None:
        """Count a connection that is open, or has not come about."""
        self.opening -= 1
        if error is not None:
            self._share.exit()
            level = logging.DEBUG if isinstance(error, OSError) else logging.ERROR
            logger.log(level, "%s: connection did not come about: %s", self._description, error)

    def _pause(self, error: OSError) -> None:
        """Leave the connections in the queue until there are resources again."""
        logger.error("%s: cannot accept: %s", self._description, error.strerror)
        self._share.leave()
        loop = self._reactor.loop
        loop.remove_reader(self._socket)
        loop.call_later(PAUSE, self._resume)

    def _resume(self) -> None:
        if self._open:
            self.open()

    def close(self, *, last_call: bool) -> None:
        """Close this worker's copy of the listener; at `last_call` accept first who waits there.

        While the service goes on others accept. At its end nobody else would, and who waits in the
        queue of a socket that its last owner closes is reset. A worker that has never accepted
        leaves them to the others: its application may not have started. --max-connections does not
        hold here: nobody could be told when there is room.
        """
        if self._open:
            self._open = False
            self._share.leave()
            self._reactor.loop.remove_reader(self._socket)
            while last_call and self.accept():
                pass
        self._socket.close()
