"""Reads a connection's PROXY header before anything else sees the connection.

Theory. The header stands before TLS, and TLS is the event loop's: so it is read from the accepted
socket, and only then is the connection served. It is looked at without being taken (MSG_PEEK) until
it is whole; then exactly its bytes are taken. What follows, and what turns out to be no header,
stays where it is.

A header mostly arrives in one piece. Of one that does not, the rest is looked for from time to
time: the event loop would say that the socket is readable, because it is, again and again.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

from daphne_supervisor.worker import proxy_protocol
from daphne_supervisor.worker.proxy_protocol import Header, MalformedError, NoHeaderError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from daphne_supervisor.worker.reactor import Accepted
    from daphne_supervisor.worker.service import Service

__all__ = ["LONGEST_PAUSE", "LOOK_AGAIN", "Preamble"]

logger = logging.getLogger("daphne_supervisor.worker")

#: Seconds until the rest of a header is looked for: first, and at most, since each time is twice
#: the time before. Somebody who sends one byte on many connections is not to keep us busy.
LOOK_AGAIN, LONGEST_PAUSE = 0.02, 0.64
_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT


class Preamble:
    """Reads the headers of one listener's connections.

    `required` is the option that asks for a header of everybody, "" if none does.
    """

    def __init__(
        self,
        service: Service,
        proceed: Callable[[Accepted, Header | None], None],
        give_up: Callable[[Exception], None],
        *,
        required: str,
    ) -> None:
        """Call `proceed` with a connection and its header, `give_up` with why there is no such.

        A connection that is given up is closed.
        """
        self._trusts = service.proxies.trusts
        self._give_up = give_up
        self.patience = service.config.http.head_timeout
        self.loop = service.loop
        self.proceed = proceed
        self.required = required

    def read(self, accepted: Accepted) -> None:
        """Begin to read the header of a connection."""
        host = accepted.peer[0] if isinstance(accepted.peer, tuple) else None
        if self._trusts(host):
            _Reading(self, accepted).begin()
        elif self.required:
            self.refuse(
                accepted, f"{self.required}, and its sender is not in --forwarded-allow-ips"
            )
        else:
            self.proceed(accepted, None)

    def refuse(self, accepted: Accepted, reason: str) -> None:
        """Close a connection, and say why."""
        peer = accepted.peer
        who = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "the unix socket"
        logger.info("connection of %s closed: PROXY header: %s", who, reason)
        self.leave(accepted)

    def leave(self, accepted: Accepted) -> None:
        """Close a connection of which nothing more need be said."""
        accepted.discard()
        self._give_up(ConnectionAbortedError("no PROXY header"))


class _Reading:
    """The reading of one header."""

    def __init__(self, preamble: Preamble, accepted: Accepted) -> None:
        self._preamble = preamble
        self._loop = preamble.loop
        self._accepted = accepted
        # A view of the descriptor, which stays the property of `accepted`.
        self._socket = socket.socket(
            accepted.family, socket.SOCK_STREAM, 0, fileno=accepted.fileno()
        )
        self._deadline: asyncio.TimerHandle | None = None
        self._next: asyncio.TimerHandle | None = None
        self._pause = LOOK_AGAIN

    def begin(self) -> None:
        """Look; most headers are there already."""
        self._look()

    def _look(self) -> None:
        """Look at what is there, and decide."""
        try:
            data = self._socket.recv(proxy_protocol.LONGEST, _PEEK)
            header = proxy_protocol.read(data) if data else None
        except BlockingIOError:
            self._wait_for_data()
        except NoHeaderError as error:
            self._without(error)
        except (MalformedError, OSError) as error:
            self._end()
            self._preamble.refuse(self._accepted, str(error))
        else:
            self._found(data, header)

    def _found(self, data: bytes, header: Header | None) -> None:
        if header is not None:
            self._socket.recv(header.size)
            self._end()
            self._preamble.proceed(self._accepted, header)
        elif data:
            self._start_clock()
            self._next = self._loop.call_later(self._pause, self._look)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        else:  # a client that has left without a word, as many a health check does
            self._end()
            self._preamble.leave(self._accepted)

    def _without(self, error: NoHeaderError) -> None:
        self._end()
        required = self._preamble.required
        if required:
            self._preamble.refuse(self._accepted, f"{required}, and the connection {error}")
        else:
            self._preamble.proceed(self._accepted, None)

    def _wait_for_data(self) -> None:
        self._start_clock()
        self._loop.add_reader(self._socket.fileno(), self._wake)

    def _wake(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._look()

    def _start_clock(self) -> None:
        if self._deadline is None:
            self._deadline = self._loop.call_later(self._preamble.patience, self._late)

    def _late(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._end()
        self._preamble.refuse(self._accepted, "it is not whole within --head-timeout")

    def _end(self) -> None:
        for timer in (self._deadline, self._next):
            if timer is not None:
                timer.cancel()
        self._socket.detach()
