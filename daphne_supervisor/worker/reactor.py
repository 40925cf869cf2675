"""A Twisted reactor whose stream connections are the event loop's own transports.

Twisted's transport registers a writer and comes back a turn later to send; its TLS goes through a
memory BIO in Python. The event loop below it (uvloop) does both in C. So this reactor *is*
Twisted's asyncio reactor, timers, readers and all, but a connection accepted through `serve` runs
on a transport of the loop that is presented as Twisted's: `LoopTransport` is an asyncio protocol
on one side and an `ITCPTransport` on the other. Every Twisted protocol runs above it unchanged.

This is the only module that knows uvloop.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any, cast

import uvloop
from twisted.internet import address, error, main
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport
from twisted.python.failure import Failure
from zope.interface import implementer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from twisted.internet.protocol import Protocol

__all__ = ["LoopReactor", "LoopTransport", "install"]

logger = logging.getLogger("daphne_supervisor.worker")

_DONE = Failure(error.ConnectionDone())


def _address(sockname: Any, family: int) -> Any:
    """Return Twisted's address for what `getsockname` or `getpeername` said."""
    if family == socket.AF_INET:
        return address.IPv4Address("TCP", *sockname[:2])
    if family == socket.AF_INET6:
        return address.IPv6Address("TCP", *sockname)
    return address.UNIXAddress(sockname or None)


@implementer(ITCPTransport, IConsumer, IPushProducer)
class LoopTransport(asyncio.Protocol):
    """One connection: an asyncio protocol below, a Twisted transport above.

    The producer registered here hears `pauseProducing` when the loop's write buffer is above its
    high-water mark (64 KiB) and `resumeProducing` when it has drained.
    """

    __slots__ = (
        "_host",
        "_peer",
        "_producer",
        "_protocol",
        "_transport",
        "data_received",
        "disconnecting",
        "is_closing",
        "write",
    )

    def __init__(self, protocol: Protocol, host: Any, peer: Any) -> None:
        """Carry `protocol` between the addresses `host`, which is our end, and `peer`."""
        self._protocol = protocol
        self._host = host
        self._peer = peer
        self._producer: Any = None
        self.disconnecting = False
        # The loop looks this up once: Twisted's bound method is what it calls.
        self.data_received = protocol.dataReceived  # type: ignore[method-assign]

    # -- asyncio's side --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce the two sides to each other."""
        self._transport = cast("asyncio.Transport", transport)
        self.write = self._transport.write
        self.is_closing = self._transport.is_closing
        self._protocol.makeConnection(self)

    def eof_received(self) -> None:
        """Let the loop close: a peer that has stopped sending has left."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the protocol, once, that nothing will come any more."""
        self.disconnecting = True
        self._producer = None
        reason = _DONE if exc is None else Failure(error.ConnectionLost(str(exc)))
        self._protocol.connectionLost(reason)

    def pause_writing(self) -> None:
        """Pass the loop's high-water mark on to the producer."""
        if self._producer is not None:
            self._producer.pauseProducing()

    def resume_writing(self) -> None:
        """Pass the loop's low-water mark on to the producer."""
        if self._producer is not None:
            self._producer.resumeProducing()

    # -- Twisted's side --

    def deliver(self, receive: Callable[[bytes], None]) -> None:
        """Call `receive` for what arrives, in place of the protocol's `dataReceived`."""
        self.data_received = receive  # type: ignore[method-assign,assignment]
        self._transport.set_protocol(self)

    def writeSequence(self, data: Any) -> None:
        """Write several byte strings as one."""
        self._transport.writelines(data)

    def loseConnection(self) -> None:
        """Close once everything written has been sent."""
        self.disconnecting = True
        self._transport.close()

    def abortConnection(self) -> None:
        """Close now; what was not sent is lost."""
        self.disconnecting = True
        self._transport.abort()

    def resetConnection(self) -> None:
        """Close now with RST: a FIN would wait, in the kernel, behind what the peer leaves."""
        sock = self._transport.get_extra_info("socket")
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abortConnection()

    def loseWriteConnection(self) -> None:
        """Send FIN once everything written has been sent; keep reading. TLS closes instead."""
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: FBT001 - Twisted's
        """Tell `producer` (push producers only) when to pause."""
        if self._producer is not None or not streaming:
            message = "one push producer at a time"
            raise RuntimeError(message)
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        self._producer = None

    def pauseProducing(self) -> None:
        """Stop reading from the peer."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resumeProducing(self) -> None:
        """Read from the peer again."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def stopProducing(self) -> None:
        """Close the connection."""
        self.loseConnection()

    def getPeer(self) -> Any:
        """Return the address of the other end."""
        return self._peer

    def getHost(self) -> Any:
        """Return the address of our end."""
        return self._host

    def unsent(self) -> int:
        """Return the bytes that wait in the write buffer."""
        return self._transport.get_write_buffer_size()

    def get_extra_info(self, name: str) -> Any:
        """Return what the loop's transport knows under `name`, such as `ssl_object`."""
        return self._transport.get_extra_info(name)

    def getTcpNoDelay(self) -> bool:
        """Say whether Nagle's algorithm is off, as it is from the beginning."""
        sock = self._transport.get_extra_info("socket")
        return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: FBT001 - Twisted's
        """Switch Nagle's algorithm off, or on again."""
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)

    def getTcpKeepAlive(self) -> bool:
        """Say whether the kernel probes an idle peer."""
        sock = self._transport.get_extra_info("socket")
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:  # noqa: FBT001 - Twisted's
        """Let the kernel probe an idle peer."""
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)


class LoopReactor(AsyncioSelectorReactor):
    """Twisted's asyncio reactor on uvloop, with `serve` beside its own listeners."""

    def __init__(self) -> None:
        """Make a fresh event loop and be its reactor."""
        self.loop = uvloop.new_event_loop()
        asyncio.set_event_loop(self.loop)
        super().__init__(self.loop)

    @staticmethod
    def readable(listener: socket.socket) -> bool:
        """Say whether somebody waits at `listener` at this moment."""
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        return bool(poll.poll(0))

    async def serve(
        self,
        connection: socket.socket,
        build: Callable[[], Protocol],
        context: ssl.SSLContext | None,
        handshake_timeout: float,
    ) -> None:
        """Run the protocol that `build` makes over the accepted `connection`.

        With a `context` the TLS handshake comes first and must be done within
        `handshake_timeout` seconds. Raises `OSError` (`ssl.SSLError` among them) when the
        connection does not come about.
        """
        # Asked at once: of a client that has reset the connection, the loop knows no address later.
        peer = _address(connection.getpeername(), connection.family)
        host = _address(connection.getsockname(), connection.family)
        await self.loop.connect_accepted_socket(
            lambda: LoopTransport(build(), host, peer),
            connection,
            ssl=context,
            ssl_handshake_timeout=handshake_timeout if context else None,
        )


def install() -> LoopReactor:
    """Make a `LoopReactor` and install it as the reactor of this process.

    One that is installed already can only come from an application that was imported by a zygote.
    """
    present = sys.modules.pop("twisted.internet.reactor", None)
    if present is not None:
        logger.warning(
            "the application has installed a reactor, %s, which does not run here: it should be"
            " imported where it is used",
            type(present).__name__,
        )
    reactor = LoopReactor()
    main.installReactor(reactor)
    return reactor
