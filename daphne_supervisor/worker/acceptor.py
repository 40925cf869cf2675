"""Takes connections from a listener that every worker shares.

One connection at each wake-up, and only while it is this worker's turn: a worker that took all that
wait would leave nothing to its siblings, and long-lived connections would stay where a single burst
has put them. Who has to wait, waits in the listener's queue, where every sibling can take it. Only
who has no siblings takes several at once.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from daphne_supervisor.worker.connection import Connection, host_and_port
from daphne_supervisor.worker.fairness import Turns
from daphne_supervisor.worker.preamble import Preamble
from daphne_supervisor.worker.proxy_protocol import Header
from daphne_supervisor.worker.scope import address_text
from daphne_supervisor.worker.tls_alert import descriptor
from daphne_supervisor.worker.tls_handshake import failure

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from daphne_supervisor.listeners import Listener
    from daphne_supervisor.worker.entrance import Entrance
    from daphne_supervisor.worker.reactor import Accepted, LoopReactor
    from daphne_supervisor.worker.service import Service
    from daphne_supervisor.worker.tls_credentials import Credentials

__all__ = ["Acceptor"]

logger = logging.getLogger("daphne_supervisor.worker")

#: Seconds to leave a listener alone that cannot accept, mostly because the process has no file
#: descriptor left for a connection.
PAUSE = 1.0
#: Connections that a worker without siblings takes at a wake-up: so many that the wake-up costs
#: next to nothing, and so few that those who are connected need not wait for it.
BURST = 16
_NONE = Header(0, local=True)
"""The header of a connection that has none: it is its client's own."""


def _shared_name(listener: socket.socket) -> Any:
    """Return what every connection accepted at `listener` calls its own end, `None` if they differ.

    They do where it listens on every interface. A unix socket's own end is nobody's concern.
    """
    name = listener.getsockname()
    specific = isinstance(name, tuple) and name[0] not in {"0.0.0.0", "::"}  # noqa: S104
    return name if specific else None


def _requires(listener: Listener, service: Service) -> str | None:
    """Return the option that requires PROXY headers, "" if they are optional, `None` if unread."""
    if listener.endpoint.proxied:
        return f"{listener.endpoint.label} requires one"
    wanted = service.config.proxy.proxy_protocol
    required = {"off": None, "optional": "", "required": "--proxy-protocol required"}
    return required[wanted]


class Acceptor:
    """Accepts on one listener, and serves what it accepts."""

    def __init__(
        self,
        listener: Listener,
        credentials: Credentials | None,
        service: Service,
        reactor: LoopReactor,
        entrance: Entrance | None = None,
    ) -> None:
        """Accept on `listener`, with TLS if there are `credentials`, through the `entrance`."""
        self._socket = listener.socket
        self._family = int(listener.socket.family)  # a socket looks it up each time
        self._name = _shared_name(listener.socket)
        self._description = listener.description
        self._credentials = credentials
        self._scheme = "http" if credentials is None else "https"
        self._service = service
        self._reactor = reactor
        self._share = service.share
        self._turns = Turns(service.share)
        self._handshake_timeout = service.config.tls.handshake_timeout
        self._entrance = entrance
        self._begin: Callable[[Accepted], None] = self._serve
        required = _requires(listener, service)
        if required is not None:
            preamble = Preamble(service, self._serve, self._opened, required=required)
            self._begin = preamble.read
        self._open = False
        self.opening = 0
        """Connections that are accepted but not open: mostly TLS handshakes."""

    def open(self) -> None:
        """Begin to accept."""
        self._open = True
        if self._entrance is not None:
            self._entrance.open()
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
            accepted = self._reactor.accept(self._socket, self._family, self._name)
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            self._pause(error)
            return False
        self._share.enter()
        self.opening += 1
        self._begin(accepted)
        return True

    def _serve(self, accepted: Accepted, header: Header | None = None) -> None:
        """Serve a connection, before which there may have been the `header` of a proxy."""
        build: Callable[[], Any] = self._build
        if header is not None or self._entrance is not None:
            build = partial(self._build_otherwise, accepted, header or _NONE)
            if header is not None and header.client is not None:
                accepted.peer, accepted.name = header.client, header.server
        if self._credentials is None:
            self._reactor.serve(accepted, build, None, 0.0, self._opened)
        else:
            self._serve_securely(accepted, build, self._credentials.context)

    def _serve_securely(
        self, accepted: Accepted, build: Callable[[], Any], context: ssl.SSLContext
    ) -> None:
        """Let a TLS handshake come first. If it fails its client is told why, and so is the log."""
        token = descriptor.set(accepted.fileno())
        opened = partial(self._shaken, accepted.peer)
        self._reactor.serve(accepted, build, context, self._handshake_timeout, opened)
        descriptor.reset(token)

    def _build(self) -> Connection:
        return Connection(self._service, self._scheme)

    def _shaken(self, peer: Any, error: Exception | None) -> None:
        """Say why a TLS handshake has failed; most are those of strangers."""
        reason = None if error is None else failure(error)
        if reason is None:
            self._opened(error)
            return
        client = address_text(host_and_port(peer))
        logger.info("%s: TLS handshake with %s failed: %s", self._description, client, reason)
        self.opening -= 1
        self._share.exit()

    def _build_otherwise(self, accepted: Accepted, header: Header) -> Any:
        """Return what speaks on a connection that is a plug-in's, or passed on by a proxy."""
        secure = header.secure or self._credentials is not None
        if self._entrance is not None:
            return self._entrance.build(
                accepted.peer, self._count_opening, forwards=header.known, secure=secure
            )
        connection = Connection(self._service, "https" if secure else "http")
        connection.forwards = header.known
        return connection

    def _count_opening(self, change: int) -> None:
        self.opening += change

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
        if self._entrance is not None:
            self._entrance.close()
        self._socket.close()
