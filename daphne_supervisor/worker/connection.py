"""One client connection: a Twisted protocol that owns the transport and lends it to a codec.

Most begin as HTTP/1.1 and may become a WebSocket, or HTTP/2, whose streams are clients of their
own: see `streams`. Whatever speaks on it writes, pauses
and closes through here, so that back-pressure, time and the end of the connection have one owner.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IProtocol, IPushProducer
from twisted.internet.protocol import connectionDone
from zope.interface import implementer

from daphne_supervisor.worker.head import Refused
from daphne_supervisor.worker.http1 import Http1
from daphne_supervisor.worker.http2 import Http2
from daphne_supervisor.worker.http_exchange import HttpExchange
from daphne_supervisor.worker.response import RETRY_AFTER, UPGRADE_H2C
from daphne_supervisor.worker.scope import Peer, address_text
from daphne_supervisor.worker.streams import Streams
from daphne_supervisor.worker.tls_scope import describe
from daphne_supervisor.worker.websocket import WebSocket
from daphne_supervisor.worker.websocket_exchange import WebSocketExchange

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.python.failure import Failure

    from daphne_supervisor.worker.head import Head
    from daphne_supervisor.worker.http2_tunnel import Tunnel
    from daphne_supervisor.worker.service import Service
    from daphne_supervisor.worker.waist import Codec

__all__ = ["Connection", "host_and_port"]

logger = logging.getLogger("daphne_supervisor.worker")


def host_and_port(name: Any) -> tuple[str, int] | None:
    """Return host and port of what a socket says of one end, `None` for a unix socket."""
    return name[:2] if isinstance(name, tuple) else None


@implementer(IProtocol, IPushProducer)
class Connection:
    """What a client is connected to.

    `congested` says that the client reads slower than we write. `deadline` is the monotonic time in
    seconds at which `expire` wants to be called. `forwards` is false where the proxy before us does
    not know whose connection it passes on: then nobody can say whose forwarding headers these are.

    It inherits nothing: an attribute that a class has too, as Twisted's has `transport`, is slow.
    """

    forwards = True
    transport: Any
    dataReceived: Callable[[bytes], None]
    write: Callable[[bytes], None]
    write_all: Callable[[Sequence[bytes]], None]
    peer: Peer
    _codec: Codec

    def __init__(self, service: Service, scheme: str) -> None:
        """Serve `service`, over TLS if `scheme` is `https`."""
        self.service = self.worker = service
        self.congested = False
        self.now = service.now
        self._scheme = scheme
        self._secure = scheme == "https"
        self._drained: asyncio.Event | None = None
        self._stalled_at = math.inf
        self._unsent = 0  # bytes in the write buffer when it was looked at last
        self._written = 0  # bytes that have been added since
        self._codec = codec = self._http1()
        self.dataReceived = codec.receive  # the transport calls it without a step between

    def _http1(self) -> Codec:
        return Http1(self, self, self.service.config.http, self.service.heads)

    def _change(self, codec: Codec) -> None:
        """Let `codec` read what arrives from now on."""
        self._codec = codec
        self.dataReceived = codec.receive
        self.transport.deliver(codec.receive)

    # -- from the transport --

    def makeConnection(self, transport: Any) -> None:
        """Learn who is there and begin to listen."""
        self.transport = transport
        service = self.service
        client = host_and_port(transport.peername)
        server = client and host_and_port(transport.sockname)
        peer = self.peer = Peer(client, server, self._scheme)
        if self.forwards:
            peer.trusted = service.proxies.trusts(client[0] if client else None)
        transport.registerProducer(self, True)
        self.write = transport.write
        self.write_all = transport.writeSequence
        self.is_closing = transport.is_closing
        if self._secure:
            self._learn_of_tls()
        service.connections.add(self)
        if service.draining:
            self._codec.drain()

    def connectionMade(self) -> None:
        """Nothing to do: `makeConnection` has done it."""

    def _learn_of_tls(self) -> None:
        """Learn what was agreed upon, and do not go on with who is not to be believed any more."""
        spoken = self.transport.get_extra_info("ssl_object")
        # The client has chosen in the handshake (RFC 7301), whose time is not that of its head.
        http2 = spoken is not None and spoken.selected_alpn_protocol() == "h2"
        self._codec.lost()
        self._change(Streams(self).codec if http2 else self._http1())
        if spoken is None:  # it was a proxy that spoke TLS
            return
        self.peer.tls = tls = describe(spoken, time.time())
        if tls["client_cert_error"]:
            logger.info(
                "%s: the certificate of its resumed session is refused: %s",
                self.peer.text,
                tls["client_cert_error"],
            )
            self.transport.abortConnection()

    def broken(self, error: Exception) -> None:
        """An error of ours costs this connection, not the worker."""
        logger.error("connection of %s: internal error", self.peer.text, exc_info=error)
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002 - Twisted's
        """Tell everyone who waits for this client."""
        self.service.connections.discard(self)
        self.service.share.exit()
        self._codec.lost()
        self._stalled_at = math.inf
        if self.congested:
            self._be_relieved()

    # -- as the producer of what the transport sends --

    def pauseProducing(self) -> None:
        """The write buffer is above its high-water mark."""
        self.congested = True
        self._drained = asyncio.Event()
        self.write, self.write_all = self._write_more, self._write_all_more
        self._watch_unsent()

    def resumeProducing(self) -> None:
        """The write buffer is below its low-water mark."""
        self._be_relieved()
        if not self.transport.disconnecting:
            self._stalled_at = math.inf
        self._contain(self._codec.relieved)

    def _be_relieved(self) -> None:
        """Write straight to the transport again, and let go on who has waited."""
        self.congested = False
        self.write, self.write_all = self.transport.write, self.transport.writeSequence
        if self._drained is not None:
            self._drained.set()
            self._drained = None

    def stopProducing(self) -> None:
        """Nothing to do: `connectionLost` follows."""

    async def drained(self) -> None:
        """Wait until the client has caught up or left."""
        if self._drained is not None:
            await self._drained.wait()

    def note_progress(self) -> None:
        """The client has taken some of a file, which waits nowhere: it gets its time anew."""
        self._watch_unsent()

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
    def sends_files(self) -> bool:
        """Say whether the kernel can send files: it is its socket that we write to."""
        return not self._secure and hasattr(self.transport, "limit_unsent")

    @property
    def websockets(self) -> list[Connection | Tunnel]:
        """Return who is to be told when WebSockets are to leave: this, or streams of it."""
        codec = self._codec
        if isinstance(codec, Http2):
            return list(codec.tunnels.values())
        return [self] if isinstance(codec, WebSocket) else []

    @property
    def is_websocket(self) -> bool:
        """Say whether a WebSocket runs here."""
        return isinstance(self._codec, WebSocket)

    def begin(self, head: Head, stream: int) -> HttpExchange:
        """Return the exchange for a request that has arrived."""
        if not self.peer.trusted:
            self.check_forwarding(head)
        return HttpExchange(self, self._codec, head, stream)  # type: ignore[arg-type]

    def overload(self) -> Refused | None:
        """Return the answer to a handshake while too many requests run; it counts as given."""
        service = self.service
        if service.in_flight < service.most_in_flight:
            return None
        return Refused(503, service.shed(), [RETRY_AFTER])

    def upgrade(self, head: Head, rest: bytes) -> None:
        """Go on as a WebSocket; `rest` was received behind the handshake."""
        if not self.peer.trusted:
            self.check_forwarding(head)
        codec = WebSocket(self, head, rest, self.service.config.websocket)
        exchange = WebSocketExchange(self, codec, head)
        codec.attach(exchange)
        self._change(codec)
        exchange.start()

    def _takes_h2c(self) -> bool:
        """Say whether HTTP/2 without TLS is spoken with this client."""
        config = self.service.config.http2
        if self._secure or not config.enabled:
            return False
        return config.h2c == "any" or (config.h2c == "trusted" and self.peer.trusted)

    def speak_http2(self, data: bytes) -> bool:
        """Go on as HTTP/2 with `data`, which begins with its preface; return whether we do."""
        if not self._takes_h2c():
            return False
        self._become_http2().receive(data)
        return True

    def upgrade_http2(self, head: Head, values: list[tuple[int, int]], rest: bytes) -> bool:
        """Go on as HTTP/2, with `head` as the first request; return whether we do."""
        if not self._takes_h2c():
            return False
        self.write(UPGRADE_H2C)
        codec = self._become_http2()
        codec.answer_upgrade(head, values)
        if rest:
            codec.receive(rest)
        return True

    def _become_http2(self) -> Http2:
        codec = Streams(self).codec
        self._change(codec)
        if self.service.draining:
            codec.drain()
        return codec

    def refused(self, reason: Refused) -> None:
        """Log that a request was refused."""
        logger.info("%s: refused %d, %s", self.peer.text, reason.status, reason.rule)

    def check_forwarding(self, head: Head) -> None:
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
