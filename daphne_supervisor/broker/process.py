"""The broker's process: accepts, reads, lets the switchboard decide, and sends.

Theory. It is the master's child, made when somebody connects for the first time, and has nothing
but its sockets: no event loop, no thread, no application. In each round it reads from whoever has
sent something, and then sends to everybody what has come of it, so that the frames of a round leave
together. The listening socket stays the master's: when the broker dies, whoever connects waits in
its queue until there is another one.

A signal to the whole service is for the master and the workers, which need the broker until they
have left. So it ignores them, and ends when the master ends it; or, when the master has died, with
the last connection.
"""

from __future__ import annotations

import logging
import selectors
import time
from typing import TYPE_CHECKING

from daphne_supervisor.broker.address import is_trusted
from daphne_supervisor.broker.connection import Connection
from daphne_supervisor.broker.peers import Peer
from daphne_supervisor.broker.queues import Queues
from daphne_supervisor.broker.switchboard import Switchboard

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from daphne_supervisor.config import Channels as Limits

__all__ = ["Broker"]

_log = logging.getLogger("daphne_supervisor.broker")

SWEEP = 10.0
"""Seconds between two searches for what has expired: it was refused to everybody meanwhile."""

Event = int
"""Which of EVENT_READ and EVENT_WRITE has come about."""


class Broker:
    """Serves everybody who connects to `listener`, until `lifeline` ends and all have left."""

    def __init__(
        self,
        listener: socket.socket,
        lifeline: socket.socket,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.monotonic,
        trusted: Callable[[socket.socket], bool] = is_trusted,
    ) -> None:
        """Prepare; both sockets stay the caller's. `clock` and `trusted` are for tests."""
        self._limits = limits
        self._trusted = trusted
        self._listener = listener
        self._lifeline = lifeline
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._switchboard = Switchboard(_log.warning, Queues(limits.max_queue, _log.warning))
        self._peers: dict[Connection, Peer] = {}
        self._wrote: list[Connection] = []
        self._slow: set[Connection] = set()
        self._sweep_at = clock() + SWEEP
        self._orphaned = False

    def serve(self) -> None:
        """Serve; return when nobody needs it any more."""
        self.open()
        try:
            while not self._orphaned or self._peers:
                self.round()
        finally:
            self.close()

    @property
    def connections(self) -> list[Connection]:
        """The connections that there are."""
        return list(self._peers)

    def open(self) -> None:
        """Be ready for the first round."""
        self._selector.register(self._listener, selectors.EVENT_READ, self.accept)
        self._selector.register(self._lifeline, selectors.EVENT_READ, self._hear_lifeline)

    def close(self) -> None:
        """Close every connection."""
        for connection in self._peers:
            connection.sock.close()
        self._selector.close()

    def round(self) -> None:
        """Wait until something happens, and do all that comes of it."""
        ready = self._selector.select(self._timeout())
        now = self._clock()
        for key, event in ready:
            key.data(event, now)
        self._send(now)
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP
            self._switchboard.sweep(now)

    def _timeout(self) -> float:
        if self._slow:
            return self._limits.stuck_after / 4
        return max(0.0, self._sweep_at - self._clock())

    def accept(self, _event: Event = selectors.EVENT_READ, _now: float = 0.0) -> None:
        """Take one of those who have connected."""
        try:
            sock, _ = self._listener.accept()
        except OSError:  # it has left again, or there is no descriptor left: it stays in the queue
            return
        if not self._trusted(sock):
            _log.warning("channel layer: another user has connected, and is refused")
            sock.close()
            return
        sock.setblocking(False)
        connection = Connection(sock, self._wrote.append, self._limits)
        self._peers[connection] = Peer(connection)
        self._watch(connection, selectors.EVENT_READ)

    def _hear_lifeline(self, _event: Event, _now: float) -> None:
        self._orphaned = True
        self._selector.unregister(self._lifeline)

    def _watch(self, connection: Connection, events: Event) -> None:
        def serve(event: Event, now: float) -> None:
            if event & selectors.EVENT_READ:
                self._read(connection, now)
            if event & selectors.EVENT_WRITE and not connection.ended:
                self._wrote.append(connection)

        self._selector.register(connection.sock, events, serve)

    def _read(self, connection: Connection, now: float) -> None:
        peer, hear = self._peers[connection], self._switchboard.hear
        try:
            for kind, number, payload in connection.read():
                hear(peer, kind, number, payload, now)
        except ValueError as error:
            _log.warning("channel layer: a process sent what is no frame: %s", error)
            connection.ended = True
        if connection.ended:
            self._wrote.append(connection)

    def _send(self, now: float) -> None:
        """Send what waits, and what comes of that."""
        self._wrote += self._slow  # to be judged anew, too
        while self._wrote:
            wrote, self._wrote[:] = dict.fromkeys(self._wrote), []
            # One that has ended meanwhile may have been written to before that was known.
            for connection in [one for one in wrote if one in self._peers]:
                connection.flush()
                self._settle(connection, now)

    def _settle(self, connection: Connection, now: float) -> None:
        """Do what comes of what was sent, or was not."""
        peer = self._peers[connection]
        if connection.ended:
            self._slow.discard(connection)
            del self._peers[connection]
            self._selector.unregister(connection.sock)
            connection.sock.close()
            self._switchboard.leave(peer)
            return
        blocked = connection.waiting > 0
        key = self._selector.get_key(connection.sock)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if blocked else 0)
        if key.events != events:
            self._selector.modify(connection.sock, events, key.data)
        if not connection.judge(now):
            self._switchboard.relieve(peer)
        if blocked:
            self._slow.add(connection)
        else:
            self._slow.discard(connection)
