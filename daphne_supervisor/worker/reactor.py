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
import os
import select
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any

import uvloop
from twisted.internet import address, error, main
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport
from twisted.python.failure import Failure
from zope.interface import implementer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine

__all__ = ["Accepted", "LoopReactor", "LoopTransport", "address_of", "install"]

logger = logging.getLogger("daphne_supervisor.worker")

_DONE = Failure(error.ConnectionDone())
#: Items of what `getsockname` says of an IPv6 socket; of a unix socket it says a path.
_IPV6 = 4


def address_of(sockname: Any) -> Any:
    """Return Twisted's address for what `getsockname` or `getpeername` said."""
    if isinstance(sockname, tuple):
        if len(sockname) == _IPV6:
            return address.IPv6Address("TCP", *sockname)
        return address.IPv4Address("TCP", *sockname)
    return address.UNIXAddress(sockname or None)


class Accepted:
    """A connection that was accepted: what the loop asks of a socket, and no more.

    A socket object asks the kernel what is known, and makes enumerations of it each time that it is
    looked at. `peer` is what `getpeername` would say, even if the client has left meanwhile, `name`
    what `getsockname` says, if that is known without asking.
    """

    type = int(socket.SOCK_STREAM)

    def __init__(self, number: int, family: int, peer: Any, name: Any = None) -> None:
        """Stand for the file descriptor `number`."""
        self._number = number
        self.family = family
        self.peer = peer
        self.name = name

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._number

    def close(self) -> None:
        """Note, from the loop, that it has closed the descriptor."""

    def discard(self) -> None:
        """Close what the loop did not take."""
        os.close(self._number)


@implementer(ITCPTransport, IConsumer, IPushProducer)
class LoopTransport:
    """One connection: an asyncio protocol below, a Twisted transport above.

    It inherits neither: an attribute that a class has too, as `asyncio.Protocol` has
    `data_received`, is slow.

    The producer registered here hears `pauseProducing` when the loop's write buffer is above its
    high-water mark (64 KiB) and `resumeProducing` when it has drained.
    """

    _transport: asyncio.Transport

    def __init__(
        self,
        protocol: Any,
        peername: Any,
        sockname: Any,
        opened: Callable[[None], None] | None,
    ) -> None:
        """Carry `protocol`; the other end is `peername`, as a socket says it.

        Our own is `sockname`; without it the socket is asked when somebody wants to know. `opened`
        is called once the connection is open.
        """
        self._protocol = protocol
        self._opened = opened
        self.opening: Coroutine[Any, Any, Any] | None = None
        self.peername = peername
        self._name = sockname
        self._producer: Any = None
        self.disconnecting = False
        # The loop looks this up once: Twisted's bound method is what it calls.
        self.data_received: Callable[[bytes], None] | None = protocol.dataReceived

    # -- asyncio's side --

    def connection_made(self, transport: Any) -> None:
        """Introduce the two sides to each other."""
        self._transport = transport
        self.write = transport.write
        self.is_closing = transport.is_closing
        if self._opened is not None:
            self._opened(None)
        self._protocol.makeConnection(self)

    def eof_received(self) -> None:
        """Let the loop close: a peer that has stopped sending has left."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the protocol, once, that nothing will come any more."""
        self.disconnecting = True
        self._producer = None
        reason = _DONE if exc is None else Failure(error.ConnectionLost(str(exc)))
        self._protocol.connectionLost(reason)
        # Whoever holds one side from now on does not hold the other: what is no cycle is freed at
        # once, and not when the collector comes by.
        self._protocol = self.data_received = self._opened = None
        if self.opening is not None:
            opening, self.opening = self.opening, None
            # It has waited for the connection to be open. `suppress` would cost as much as this.
            try:  # noqa: SIM105
                opening.send(None)
            except StopIteration:
                pass

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
        self.data_received = receive
        self._transport.set_protocol(self)  # type: ignore[arg-type]

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
        return address_of(self.peername)

    def getHost(self) -> Any:
        """Return the address of our end."""
        return address_of(self.sockname)

    @property
    def sockname(self) -> Any:
        """Return the address of our end as a socket says it."""
        return self._name or self._transport.get_extra_info("sockname")

    def unsent(self) -> int:
        """Return the bytes that wait in the write buffer."""
        return self._transport.get_write_buffer_size()

    def limit_unsent(self, most: int | None) -> None:
        """Let the producer pause when more than `most` bytes wait; `None` is the usual number."""
        self._transport.set_write_buffer_limits(most)

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
        self._opening: set[Coroutine[Any, Any, Any]] = set()

    @staticmethod
    def readable(listener: socket.socket) -> bool:
        """Say whether somebody waits at `listener` at this moment."""
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        return bool(poll.poll(0))

    @staticmethod
    def accept(listener: socket.socket, family: int, name: Any = None) -> Accepted:
        """Accept a connection at `listener`, of `family`. Raises `OSError` as a socket does.

        `name` is what our end of it is called, if all that are accepted there share one.
        """
        # `accept` is this, and a socket object around it.
        number, peer = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        return Accepted(number, family, peer, name)

    def serve(
        self,
        accepted: Accepted,
        build: Callable[[], Any],
        context: ssl.SSLContext | None,
        handshake_timeout: float,
        opened: Callable[[Exception | None], None],
    ) -> None:
        """Run the protocol that `build` makes over the `accepted` connection.

        With a `context` the TLS handshake comes first and must be done within
        `handshake_timeout` seconds. `opened` is called once: when the connection is open, or with
        the error, mostly an `OSError` (`ssl.SSLError` among them), when it has not come about.
        """
        if context is not None:
            self._shake(accepted, build, context, handshake_timeout, opened)
            return
        # It waits once, for its transport. A task for that would cost as much as all the rest; and
        # so does what would hear the end of the wait, which the transport hears anyway.
        try:
            transport = LoopTransport(build(), accepted.peer, accepted.name, opened)
            opening = self.loop.connect_accepted_socket(  # type: ignore[type-var]
                lambda: transport,
                accepted,  # type: ignore[arg-type]
            )
            transport.opening = opening
            opening.send(None)
        except Exception as reason:  # noqa: BLE001
            accepted.discard()
            opened(reason)

    def _shake(
        self,
        accepted: Accepted,
        build: Callable[[], Any],
        context: ssl.SSLContext,
        timeout: float,
        opened: Callable[[Exception | None], None],
    ) -> None:
        """Do what `serve` does with a `context`."""
        opening = self.loop.connect_accepted_socket(  # type: ignore[type-var]
            lambda: LoopTransport(build(), accepted.peer, accepted.name, None),
            accepted,  # type: ignore[arg-type]
            ssl=context,
            ssl_handshake_timeout=timeout,
        )
        try:
            waiter = opening.send(None)
        except Exception as reason:  # noqa: BLE001
            accepted.discard()
            opened(reason)
            return
        self._opening.add(opening)  # nobody else holds it while it waits

        def finish(waited: object) -> None:
            del waited  # it has the error, which will hold this frame
            self._opening.discard(opening)
            try:
                opening.send(None)
            except StopIteration:
                opened(None)
            except Exception as reason:  # noqa: BLE001
                opened(reason)

        waiter.add_done_callback(finish)


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
