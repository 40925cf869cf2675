"""What a plug-in of Twisted's puts around the connections of its endpoint.

Theory. The master has opened the listeners that the plug-in asked for (`survey`). In each worker
the plug-in is asked again, on a view of the reactor: its `listenTCP` and the like open nothing, and
keep the factory, which is the plug-in's wrapping around ours. From then on the worker's acceptor
does the accepting, as it does everywhere; only that a connection is what that factory builds.

A connection counts from its acceptance to its end, whether the plug-in has let our `Connection`
begin or not: that is what the `Threshold` is for, the outermost protocol. What a plug-in raises
costs the one connection.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import directlyProvides, implementer, providedBy

from daphne_supervisor.errors import BootError, UsageError
from daphne_supervisor.worker import survey
from daphne_supervisor.worker.plugin_transport import PluginTransport
from daphne_supervisor.worker.reactor import address_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Sequence

    from twisted.internet.interfaces import IProtocol, IProtocolFactory
    from twisted.python.failure import Failure

    from daphne_supervisor.listeners import Listener
    from daphne_supervisor.worker.reactor import LoopReactor
    from daphne_supervisor.worker.service import Service

__all__ = ["Entrance", "Threshold", "entrances"]

logger = logging.getLogger("daphne_supervisor.worker")


def entrances(
    listeners: Sequence[Listener], service: Service, reactor: LoopReactor
) -> list[Entrance | None]:
    """Return for each of the `listeners` what its plug-in makes of it, `None` where there is none.

    Raises `BootError` when a plug-in does not do what it has done for the master.
    """
    found: list[Entrance | None] = []
    for index, listener in enumerate(listeners):
        if not listener.endpoint.plugin:
            found.append(None)
        elif listener.endpoint.place == 0:
            found += _ask(_group(listeners[index:]), service, reactor)
    return found


def _group(listeners: Sequence[Listener]) -> list[Listener]:
    """Return those of the `listeners` that belong to the endpoint of the first one."""
    size = 1
    while size < len(listeners) and listeners[size].endpoint.place == size:
        size += 1
    return list(listeners[:size])


def _ask(group: list[Listener], service: Service, reactor: LoopReactor) -> list[Entrance]:
    """Let one endpoint listen on the listeners that are there for it."""
    view = _View(reactor, group)
    thresholds: dict[Any, Threshold] = {}
    endpoint = group[0].endpoint
    try:
        with _kept(group):
            survey.listen(endpoint.plugin, view, _Inside(thresholds))
        if len(view.factories) < len(group):
            raise BootError(_ELSEWHERE)  # noqa: TRY301 - as if the view had said so
    except (BootError, UsageError) as error:
        message = f"{endpoint.label}: {error}"
        raise BootError(message) from None
    return [Entrance(factory, service, thresholds) for factory in view.factories]


@contextlib.contextmanager
def _kept(group: list[Listener]) -> Iterator[None]:
    """Keep the descriptors of the listeners what they are, even if an endpoint closes them.

    Twisted's endpoints close a descriptor that they have adopted, since its port has a copy.
    """
    copies = [listener.socket.dup() for listener in group]
    try:
        yield
    finally:
        for listener, copy in zip(group, copies, strict=True):
            with copy:
                os.dup2(copy.fileno(), listener.socket.fileno(), inheritable=False)


_ELSEWHERE = (
    "its plug-in does not listen where it did when the master started, which takes a restart"
)


class _View:
    """The reactor as an endpoint sees it: all of it, but for what listens."""

    def __init__(self, reactor: LoopReactor, group: list[Listener]) -> None:
        """Hand out the listeners of `group`, in the order in which they were asked for."""
        self._reactor = reactor
        self._group = group
        self.factories: list[Any] = []
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def _take(self, factory: Any, **where: Any) -> survey.Listening:
        place = len(self.factories)
        if place >= len(self._group):
            raise BootError(_ELSEWHERE)
        listener = self._group[place]
        endpoint = listener.endpoint
        if any(getattr(endpoint, name) != value for name, value in where.items()):
            raise BootError(_ELSEWHERE)
        self.factories.append(factory)
        return survey.Listening(address_of(listener.socket.getsockname()))

    def listenTCP(
        self, port: int, factory: Any, backlog: int = 50, interface: str = ""
    ) -> survey.Listening:
        """Listen on the TCP port that was opened for that."""
        del backlog
        return self._take(factory, host=interface, port=int(port))

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> survey.Listening:
        """Listen on a TCP port and speak TLS over it, as Twisted's reactors do it."""
        wrapped = TLSMemoryBIOFactory(contextFactory, isClient=False, wrappedFactory=factory)
        return self.listenTCP(port, wrapped, backlog, interface)

    def listenUNIX(
        self,
        address: str | bytes,
        factory: Any,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,  # noqa: FBT001, FBT002 - Twisted's
    ) -> survey.Listening:
        """Listen on the unix socket that was made for that."""
        del backlog, mode, wantPID
        return self._take(factory, path=survey.path_of(address))

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: Any
    ) -> survey.Listening:
        """Listen on a socket that was handed over."""
        del addressFamily
        return self._take(factory, fileno=fileDescriptor)


@implementer(IProtocolNegotiationFactory)
class _Inside(Factory):
    """What the plug-in wraps: builds what stands between its transport and our `Connection`."""

    noisy = False

    def __init__(self, thresholds: dict[Any, Threshold]) -> None:
        """Let what is built find its threshold."""
        self._thresholds = thresholds

    def acceptableProtocols(self) -> list[bytes]:
        """Return what we speak over a plug-in's TLS, in the names of ALPN (RFC 7301).

        Twisted's TLS ends the handshake with who offers protocols and finds no answer.
        """
        return [b"http/1.1"]

    def buildProtocol(self, addr: Any) -> Protocol:
        """Build the end of a connection, whoever it comes from."""
        del addr
        return PluginTransport(self._thresholds.__getitem__)


class Entrance:
    """The way in at one listener."""

    def __init__(
        self, factory: IProtocolFactory, service: Service, thresholds: dict[Any, Threshold]
    ) -> None:
        """Build connections with the plug-in's `factory`."""
        self._factory: Any = factory
        self._service = service
        self._thresholds = thresholds
        self._begun = False

    def open(self) -> None:
        """Let the factory begin, as a port of Twisted's does it."""
        if not self._begun:
            self._begun = True
            self._factory.doStart()

    def close(self) -> None:
        """Let the factory end: nobody will be accepted any more."""
        if self._begun:
            self._begun = False
            self._factory.doStop()

    def build(
        self, peer: Any, opening: Callable[[int], None], *, forwards: bool, secure: bool
    ) -> Protocol:
        """Return the protocol for a connection of `peer`, which is as a socket says it.

        `opening` counts connections that have not begun. `forwards` says whether forwarding headers
        may be believed there, `secure` whether it comes from TLS already. Raises
        `ConnectionAbortedError` when the plug-in does not want it, or whatever the plug-in raises.
        """
        protocol = self._factory.buildProtocol(address_of(peer))
        if protocol is None:
            message = "its plug-in does not want it"
            raise ConnectionAbortedError(message)
        threshold = Threshold(protocol, self._service, self._thresholds, opening)
        threshold.forwards, threshold.secure = forwards, secure
        return threshold


class Threshold(Protocol):
    """The outermost protocol of a connection through a plug-in."""

    def __init__(
        self,
        wrapping: IProtocol,
        service: Service,
        thresholds: dict[Any, Threshold],
        opening: Callable[[int], None],
    ) -> None:
        """Hand everything to the plug-in's `wrapping`."""
        self.service = service
        self.forwards = True
        self.secure = False
        self.later: Callable[..., asyncio.TimerHandle] = service.loop.call_later
        self.transport: Any = None
        self._wrapping: Any = wrapping
        self._thresholds = thresholds
        self._opening = opening
        self._inside: PluginTransport | None = None
        self._waiting: asyncio.TimerHandle | None = None

    def makeConnection(self, transport: Any) -> None:
        """Connect the plug-in; it has --head-timeout seconds to let our `Connection` begin."""
        self.transport = transport
        self._thresholds[transport] = self
        self._contain(self._wrapping.makeConnection, transport)
        if self._inside is None:
            self._opening(1)
            patience = self.service.config.http.head_timeout
            self._waiting = self.service.loop.call_later(patience, self._late)

    def begin(self, inside: PluginTransport) -> None:
        """Hear that there is a `Connection` now, which counts for itself."""
        self._inside = inside
        self._stop_waiting()

    def dataReceived(self, data: bytes) -> None:
        """Let the plug-in have what arrived."""
        self._contain(self._wrapping.dataReceived, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Let the plug-in know that it is over."""
        self._contain(self._wrapping.connectionLost, reason)
        self._thresholds.pop(self.transport, None)
        self._stop_waiting()
        if self._inside is None:
            self.service.share.exit()
        else:
            self._inside.connectionLost(reason)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
            self._opening(-1)

    def _late(self) -> None:
        logger.info("connection dropped: its endpoint's plug-in does not begin (--head-timeout)")
        self.transport.abortConnection()

    def _contain(self, call: Callable[..., Any], *args: Any) -> None:
        """Do `call`, which is the plug-in's; an error there costs this connection."""
        try:
            call(*args)
        except Exception:
            logger.exception("an endpoint's plug-in fails; its connection is dropped")
            self.transport.abortConnection()
