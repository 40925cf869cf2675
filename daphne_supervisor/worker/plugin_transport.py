"""Any Twisted transport, in the terms in which a `Connection` knows `LoopTransport`.

What a plug-in puts around a connection (TLS through pyOpenSSL, a protocol of its own) is a protocol
below and a transport above. The plug-in gives us that transport; at the bottom of it there is the
event loop's, which alone knows what waits to be sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import ISSLTransport, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from zope.interface import implementer

from daphne_supervisor.worker.connection import Connection

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from twisted.python.failure import Failure

    from daphne_supervisor.worker.entrance import Threshold

__all__ = ["CLOSING", "PluginTransport", "below"]

#: Seconds that a wrapper may take to close once everything is sent: TLS waits for the other side's
#: last word, and not every client says it.
CLOSING = 10.0
#: Wrappers of a connection; more than anybody stacks.
_DEEPEST = 16


def below(transport: Any) -> Any:
    """Return the transport at the bottom of `transport`, `None` where it cannot be seen.

    Wrappers keep it as their `transport`, because they are protocols.
    """
    for _ in range(_DEEPEST):
        if hasattr(type(transport), "resetConnection"):
            return transport
        transport = getattr(transport, "transport", None)
    return None


@implementer(ITransport)
class PluginTransport(Protocol):
    """A connection through a plug-in: to it a protocol, to our `Connection` a transport."""

    transport: Any

    def __init__(self, find: Callable[[Any], Threshold]) -> None:
        """Be connected later; `find` returns the threshold that a bottom transport belongs to."""
        self._find = find
        self._connection: Connection | None = None
        self._closing: asyncio.TimerHandle | None = None
        self.disconnecting = False

    # -- the plug-in's side --

    def connectionMade(self) -> None:
        """Learn what is below, and let a `Connection` begin."""
        transport = self.transport
        self._below = below(transport)
        if self._below is None:
            message = "the plug-in's transport does not show the connection below it"
            raise TypeError(message)
        threshold = self._find(self._below)
        self._later = threshold.later
        self._encrypted = ISSLTransport.providedBy(transport) or hasattr(
            transport, "getPeerCertificate"
        )
        self.peername, self.sockname = _name(transport.getPeer()), _name(transport.getHost())
        scheme = "https" if self._encrypted or threshold.secure else "http"
        self._connection = Connection(threshold.service, scheme)
        self._connection.forwards = threshold.forwards
        self.deliver(self._connection.dataReceived)
        threshold.begin(self)
        self._connection.makeConnection(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Pass on that nothing will come any more; a plug-in may say so twice."""
        self.disconnecting = True
        connection, self._connection = self._connection, None
        self.dataReceived = _ignore  # type: ignore[method-assign]
        if self._closing is not None:
            self._closing.cancel()
        if connection is not None:
            connection.connectionLost(reason)

    # -- our side --

    def deliver(self, receive: Callable[[bytes], None]) -> None:
        """Call `receive` for what arrives; a connection says so as soon as it is made."""
        self.dataReceived = receive  # type: ignore[method-assign,assignment]

    def write(self, data: bytes) -> None:
        """Send `data`; wrappers expect bytes, and no view of some."""
        self.transport.write(bytes(data))

    def writeSequence(self, data: Sequence[bytes]) -> None:
        """Send several byte strings as one."""
        self.transport.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close once everything written has been sent.

        Twisted's own rule is that a producer comes first; ours has nothing to say any more.
        """
        if not self.disconnecting:
            self.disconnecting = True
            self.transport.unregisterProducer()
            self.transport.loseConnection()
            self._closing = self._later(CLOSING, self._insist)

    def _insist(self) -> None:
        """Close at last, unless the client still takes something."""
        if self._below.unsent():
            self._closing = self._later(CLOSING, self._insist)
        else:
            self._below.abortConnection()

    def abortConnection(self) -> None:
        """Close now; what was not sent is lost."""
        self.disconnecting = True
        self.transport.abortConnection()

    def resetConnection(self) -> None:
        """Close now with RST."""
        self.disconnecting = True
        self._below.resetConnection()

    def loseWriteConnection(self) -> None:
        """Send FIN once everything written has been sent; TLS closes instead."""
        half_close = getattr(self.transport, "loseWriteConnection", None)
        if half_close is None or self._encrypted:
            self.loseConnection()
        else:
            half_close()

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: FBT001 - Twisted's
        """Tell `producer` when to pause."""
        self.transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        self.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        """Stop reading from the peer."""
        self._below.pauseProducing()

    def resumeProducing(self) -> None:
        """Read from the peer again."""
        self._below.resumeProducing()

    def is_closing(self) -> bool:
        """Say whether what is written goes nowhere."""
        return bool(self.disconnecting or self._below.is_closing())

    def unsent(self) -> int:
        """Return the bytes that wait to be sent, as the client will see them."""
        return int(self._below.unsent())

    def getPeer(self) -> Any:
        """Return the address of the other end."""
        return self.transport.getPeer()

    def getHost(self) -> Any:
        """Return the address of our end."""
        return self.transport.getHost()

    def get_extra_info(self, name: str) -> Any:
        """Return what the event loop's transport knows; of the plug-in's TLS it knows nothing."""
        return self._below.get_extra_info(name)


def _ignore(data: bytes) -> None:
    """Drop what a plug-in delivers behind the end."""


def _name(address: Any) -> Any:
    """Return a Twisted address as a socket says it: host and port, or the path of a unix socket."""
    host = getattr(address, "host", None)
    return "" if host is None else (host, address.port)
