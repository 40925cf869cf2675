"""The streams of an HTTP/2 connection: each is a client, and speaks for its connection.

What HTTP/2's codec tells is heard here, and not by the connection: its requests and WebSockets
belong to streams, which have the connection's service, peer and name in the access log.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from daphne_supervisor.worker.http2 import Http2
from daphne_supervisor.worker.http2_tunnel import StreamWebSocket
from daphne_supervisor.worker.http_exchange import HttpExchange
from daphne_supervisor.worker.websocket_exchange import WebSocketExchange

if TYPE_CHECKING:
    from daphne_supervisor.worker.connection import Connection
    from daphne_supervisor.worker.head import Head, Refused
    from daphne_supervisor.worker.http2_frames import ConnectionFault
    from daphne_supervisor.worker.http2_stream import Stream
    from daphne_supervisor.worker.http2_tunnel import Tunnel

__all__ = ["Streams"]

logger = logging.getLogger("daphne_supervisor.worker")


class Streams:
    """What is to be done with the streams of a connection; `codec` speaks on it."""

    def __init__(self, connection: Connection) -> None:
        """Let the streams of `connection` be clients."""
        self._connection = connection
        self._crowded = False  # it was logged
        config = connection.service.config
        self.codec = Http2(connection, self, config.http, config.http2)

    def begin_stream(self, head: Head, stream: Stream) -> HttpExchange:
        """Return the exchange for a request that has arrived on `stream`."""
        self._lend(head, stream)
        return HttpExchange(stream, self.codec, head, stream.id)

    def _lend(self, head: Head, stream: Stream) -> None:
        """Let a stream speak for this connection."""
        connection = self._connection
        if not connection.peer.trusted:
            connection.check_forwarding(head)
        stream.service = connection.service
        stream.peer = connection.peer
        stream.client_text = connection.client_text

    def open_tunnel(self, head: Head, tunnel: Tunnel) -> None:
        """Run a WebSocket on a stream."""
        self._lend(head, tunnel)
        codec = tunnel.socket = StreamWebSocket(tunnel, head, tunnel.service.config.websocket)
        exchange = tunnel.call = WebSocketExchange(tunnel, codec, head)
        codec.attach(exchange)
        exchange.start()

    def crowded(self) -> None:
        """Log, once, that a stream was turned away: too many are open, or run."""
        if not self._crowded:
            self._crowded = True
            logger.info(
                "%s: streams turned away (--http2-max-streams, --http2-max-running)",
                self._connection.peer.text,
            )

    def broke(self, fault: ConnectionFault) -> None:
        """Log that the client has broken a rule that ends its connection."""
        logger.info(
            "%s: connection ended, %s: %s", self._connection.peer.text, fault.code.name, fault.rule
        )

    def forget(self) -> None:
        """Close at once with RST: behind a FIN the kernel would keep what the client leaves."""
        self._connection.transport.resetConnection()

    def overload(self) -> Refused | None:
        """Return the answer to a handshake while too many requests run; it counts as given."""
        return self._connection.overload()

    def refused(self, reason: Refused) -> None:
        """Log that a request was refused."""
        self._connection.refused(reason)
