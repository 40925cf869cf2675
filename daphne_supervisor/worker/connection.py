"""One client connection: a Twisted protocol that owns the transport and lends it to a codec.

Every connection begins as HTTP/1.1 and may become a WebSocket. Whatever speaks on it writes, pauses
and closes through here, so that back-pressure, time and the end of the connection have one owner.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from zope.interface import implementer

from daphne_supervisor.worker.head import Refused
from daphne_supervisor.worker.http1 import Http1
from daphne_supervisor.worker.http_exchange import HttpExchange
from daphne_supervisor.worker.response import RETRY_AFTER
from daphne_supervisor.worker.scope import Peer, address_text
from daphne_supervisor.worker.websocket import WebSocket
from daphne_supervisor.worker.websocket_exchange import WebSocketExchange

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.python.failure import Failure

    from daphne_supervisor.worker.head import Head
    from daphne_supervisor.worker.service import Service
    from daphne_supervisor.worker.waist import Codec

__all__ = ["Connection"]

logger = logging.getLogger("daphne_supervisor.worker")


def _host_and_port(name: Any) -> tuple[str, int] | None:
    """Return host and port of what a socket says of one end, `None` for a unix socket."""
    return name[:2] if isinstance(name, tuple) else None


@implementer(IPushProducer)
class Connection(Protocol):
    """What a client is connected to.

    `congested` says that the client reads slower than we write. `deadline` is the monotonic time in
    seconds at which `expire` wants to be called.
    """

    transport: Any
    begin: Callable[[Head, int], HttpExchange]
    write: Callable[[bytes], None]
    write_all: Callable[[Sequence[bytes]], None]
    peer: Peer
    _codec: Codec
    _http: Http1

    def __init__(self, service: Service, *, secure: bool) -> None:
        """Serve `service`, over TLS if `secure`."""
        self.service = self.worker = service
        self.congested = False
        self._secure = secure
        self._drained: asyncio.Event | None = None
        self._stalled_at = math.inf
        self._unsent = 0  # bytes in the write buffer when it was looked at last
        self._written = 0  # bytes that have been added since

    # -- from the transport --

    def connectionMade(self) -> None:
        """Learn who is there and begin to listen."""
        client = _host_and_port(self.transport.peername)
        self.peer = Peer(
            client,
            client and _host_and_port(self.transport.sockname),
            secure=self._secure,
            trusted=self.service.proxies.trusts(client[0] if client else None),
        )
        self.transport.registerProducer(self, True)
        self.write = self.transport.write
        self.write_all = self.transport.writeSequence
        self.is_closing = self.transport.is_closing
        self.now = self.service.now
        self.identity = self.service.identity
        self._http = self._codec = Http1(self, self, self.service.config.http)
        self.begin = self._begin_warily
        if self.peer.trusted:
            self.begin = functools.partial(HttpExchange, self, self._http)
        self.transport.deliver(self._codec.receive)
        self.service.connections.add(self)
        if self.service.draining:
            self._codec.drain()

    def dataReceived(self, data: bytes) -> None:
        """Let the codec read. `LoopTransport` does without this step."""
        self._codec.receive(data)

    def broken(self, error: Exception) -> None:
        """An error of ours costs this connection, not the worker."""
        logger.error("connection of %s: internal error", self.peer.text, exc_info=error)
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002 - Twisted's
        """Tell everyone who waits for this client."""
        self.service.connections.discard(self)
        self.service.share.exit()
        self._codec.lost()
        self.congested = False
        self._stalled_at = math.inf
        if self._drained is not None:
            self._drained.set()
        del self.begin  # which holds us, as we hold it: see `Http1.lost`

    # -- as the producer of what the transport sends --

    def pauseProducing(self) -> None:
        """The write buffer is above its high-water mark."""
        self.congested = True
        self._drained = asyncio.Event()
        self.write, self.write_all = self._write_more, self._write_all_more
        self._watch_unsent()

    def resumeProducing(self) -> None:
        """The write buffer is below its low-water mark."""
        self.congested = False
        self.write, self.write_all = self.transport.write, self.transport.writeSequence
        if not self.transport.disconnecting:
            self._stalled_at = math.inf
        if self._drained is not None:
            self._drained.set()
            self._drained = None
        self._contain(self._codec.relieved)

    def stopProducing(self) -> None:
        """Nothing to do: `connectionLost` follows."""

    async def drained(self) -> None:
        """Wait until the client has caught up or left."""
        if self._drained is not None:
            await self._drained.wait()

    def _write_more(self, data: bytes) -> None:
        """Send `data` behind what waits already, and do not mistake it for what the client left."""
        self._written += len(data)
        self.transport.write(data)

    def _write_all_more(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            self._write_more(piece)

    def _watch_unsent(self) -> None:
        """Drop the client unless it takes some of what waits, each --write-timeout seconds."""
        timeout = self.service.config.http.write_timeout
        self._unsent, self._written = self.transport.unsent(), 0
        self._stalled_at = self.now() + timeout if timeout else math.inf

    # -- from the codec --

    def pause_reading(self) -> None:
        """Stop the flow of received bytes."""
        self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """Let received bytes flow again."""
        self.transport.resumeProducing()

    def shut(self) -> None:
        """Send FIN once everything written is sent; go on reading."""
        self.transport.loseWriteConnection()

    def abort(self) -> None:
        """Close at once."""
        self.transport.abortConnection()

    def close(self) -> None:
        """Close once everything written is sent, which takes a client that reads."""
        self.transport.loseConnection()
        if self.transport.unsent():
            self._watch_unsent()

    @property
    def is_websocket(self) -> bool:
        """Say whether a WebSocket runs here."""
        return isinstance(self._codec, WebSocket)

    def _begin_warily(self, head: Head, stream: int) -> HttpExchange:
        """Return the exchange for a request that has arrived from who is not trusted."""
        self._check_forwarding(head)
        return HttpExchange(self, self._http, head, stream)

    def overload(self) -> Refused | None:
        """Return the answer to a handshake while too many requests run; it counts as given."""
        service = self.service
        if service.in_flight < service.most_in_flight:
            return None
        return Refused(503, service.shed(), [RETRY_AFTER])

    def upgrade(self, head: Head, rest: bytes) -> None:
        """Go on as a WebSocket; `rest` was received behind the handshake."""
        if not self.peer.trusted:
            self._check_forwarding(head)
        codec = WebSocket(self, head, rest, self.service.config.websocket)
        exchange = WebSocketExchange(self, codec, head)
        codec.attach(exchange)
        self._codec = codec
        self.transport.deliver(codec.receive)
        exchange.start()

    def refused(self, reason: Refused) -> None:
        """Log that a request was refused."""
        logger.info("%s: refused %d, %s", self.peer.text, reason.status, reason.rule)

    def _check_forwarding(self, head: Head) -> None:
        """Say once that somebody is not believed: mostly a proxy that was not declared."""
        name = self.service.proxies.ignored(head)
        if name is not None:
            self.service.warn_once(
                "forwarded",
                "%s is ignored: its sender %s is not in --forwarded-allow-ips",
                name,
                self.peer.client[0] if self.peer.client else "on the unix socket",
            )

    def client_text(self, head: Head) -> str:
        """Return the client as the access log writes it, behind a trusted proxy the proxy's."""
        proxies = self.service.proxies
        if proxies.enabled and self.peer.trusted:
            client = proxies.client(head)
            if client is not None:
                return address_text(client)
        return self.peer.text

    # -- time --

    @property
    def deadline(self) -> float:
        """Return when `expire` wants to be called."""
        return min(self._codec.deadline, self._stalled_at)

    def expire(self, now: float) -> None:
        """Act on the deadlines that have passed. An error of ours costs this connection only."""
        self._contain(self._expire, now)

    def _expire(self, now: float) -> None:
        if self._stalled_at <= now:
            if self.transport.unsent() >= self._unsent + self._written:
                logger.info("%s: dropped, it reads nothing (--write-timeout)", self.peer.text)
                self.transport.resetConnection()
                return
            self._watch_unsent()
        if self._codec.deadline <= now:
            self._codec.expire(now)

    def drain(self) -> None:
        """The worker is leaving. An error of ours costs this connection, not all behind it."""
        self._contain(self._codec.drain)

    def soon(self, call: Callable[[], None]) -> None:
        """Do `call` when everybody else has had a turn."""
        self.service.loop.call_soon(self._contain, call)

    def _contain(self, call: Callable[..., None], *args: Any) -> None:
        """Do `call`. An error of ours costs this connection only."""
        try:
            call(*args)
        except Exception as error:  # noqa: BLE001
            self.broken(error)
