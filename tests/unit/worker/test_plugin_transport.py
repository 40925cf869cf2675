"""Connections through a plug-in's wrapping, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.address import IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure

from daphne_supervisor.worker.plugin_transport import CLOSING, PluginTransport, below
from tests.support.transports import Stage, Transport, on_loop, service, turn

if TYPE_CHECKING:
    from collections.abc import Callable

REQUEST = b"GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n"
DONE = Failure(ConnectionDone())


class Bottom(Transport):
    """The event loop's transport, with what only a plug-in's needs."""

    def __init__(self) -> None:
        """Be open."""
        super().__init__()
        self.ended = False

    def get_extra_info(self, name: str) -> str | None:
        """Say what was asked for; the event loop itself speaks no TLS here."""
        return None if name == "ssl_object" else f"the {name}"

    def abortConnection(self) -> None:  # noqa: N802
        """Note that it was cut."""
        self.ended = True
        super().abortConnection()  # type: ignore[no-untyped-call]


class Layer(ProtocolWrapper):  # type: ignore[misc]
    """A wrapper that says that it encrypts, and notes how it is closed."""

    closed = False
    peer: Any = None

    def getPeerCertificate(self) -> None:  # noqa: N802
        """Have none."""

    def getPeer(self) -> Any:  # noqa: N802
        """Return who is there."""
        return self.peer or self.transport.getPeer()

    def getHost(self) -> Any:  # noqa: N802
        """Return the same: it does not matter here."""
        return self.getPeer()

    def loseConnection(self) -> None:  # noqa: N802
        """Wait for the other side, for ever."""
        self.closed = True


class Threshold:
    """What a connection belongs to."""

    def __init__(self) -> None:
        """Serve a stage."""
        self.stage = Stage()
        self.service = service(self.stage)
        self.forwards, self.secure = True, False
        self.timers: list[tuple[float, Callable[[], object]]] = []
        self.begun: list[PluginTransport] = []
        self.begin = self.begun.append

    def later(self, delay: float, call: Callable[[], object]) -> Threshold:
        """Note what is to be done; it can be cancelled."""
        self.timers.append((delay, call))
        return self

    def cancel(self) -> None:
        """Do nothing of it."""
        self.timers.clear()

    def pass_time(self) -> float:
        """Do it; return after how many seconds."""
        delay, call = self.timers.pop(0)
        call()
        return delay


class Way:
    """A connection from the wire to us."""

    def __init__(self, layer: type[ProtocolWrapper] | None = None, peer: Any = None) -> None:
        """Connect, through a `layer` if there is one."""
        self.threshold = Threshold()
        self.bottom = Bottom()
        self.ours = PluginTransport(lambda _: self.threshold)  # type: ignore[arg-type, return-value]
        self.outer: Any = self.ours
        if layer is not None:
            self.outer = layer(WrappingFactory(Factory()), self.ours)
            self.outer.peer = peer

    def connect(self) -> None:
        """Be connected."""
        self.threshold.service.share.enter()
        self.outer.makeConnection(self.bottom)

    @property
    def scope(self) -> dict[str, Any]:
        """What the application was told last."""
        return self.threshold.stage.call.scope


def connected(layer: type[ProtocolWrapper] | None = None, peer: Any = None) -> Way:
    """Return a connection that has begun."""
    way = Way(layer, peer)
    way.connect()
    return way


@on_loop
async def test_a_connection_speaks_through_the_plug_in() -> None:
    """Both ways, and the plug-in's transport says who is there."""
    way = connected(ProtocolWrapper)
    assert way.threshold.begun == [way.ours]
    way.outer.dataReceived(REQUEST)
    await turn()
    assert way.scope["scheme"] == "http"
    assert way.scope["client"] == ["192.168.1.1", 54321]
    way.ours.write(b"a")
    way.ours.writeSequence([b"b", memoryview(b"c")])
    assert way.bottom.value() == b"abc"
    assert way.ours.getPeer() == way.bottom.getPeer()
    assert way.ours.getHost() == way.bottom.getHost()
    assert way.ours.get_extra_info("socket") == "the socket"


@on_loop
async def test_what_encrypts_is_https() -> None:
    """A transport with a certificate of the peer's, whoever's interface it provides."""
    way = connected(Layer)
    way.outer.dataReceived(REQUEST)
    await turn()
    assert way.scope["scheme"] == "https"
    way.ours.loseWriteConnection()
    assert (way.outer.closed, way.bottom.shut) == (True, False)


@on_loop
async def test_a_proxy_may_have_said_that_it_was_https() -> None:
    """And it may not know whose connection it is."""
    way = Way()
    way.threshold.secure, way.threshold.forwards = True, False
    way.connect()
    way.outer.dataReceived(REQUEST)
    await turn()
    assert way.scope["scheme"] == "https"
    (connection,) = way.threshold.service.connections
    assert not connection.peer.trusted
    way.ours.loseWriteConnection()
    assert way.bottom.shut


@on_loop
async def test_addresses_are_those_of_the_plug_in() -> None:
    """As a socket says them; a unix socket has none."""
    way = connected(Layer, IPv6Address("TCP", "2001:db8::1", 5))
    assert way.ours.peername == ("2001:db8::1", 5)
    assert connected(Layer, UNIXAddress(None)).ours.peername == ""


@on_loop
async def test_the_bottom_is_found_or_the_connection_refused() -> None:
    """What waits to be sent is to be known, or a client that reads nothing would stay for ever."""
    way = Way()
    assert below(way.bottom) is way.bottom
    assert below(None) is None
    loop: Any = type("Loop", (), {})()
    loop.transport = loop
    assert below(loop) is None
    with pytest.raises(TypeError, match="does not show the connection below it"):
        way.ours.makeConnection(loop)


@on_loop
async def test_flow_is_the_bottom_s() -> None:
    """What waits there, and whether it reads."""
    way = connected(ProtocolWrapper)
    way.bottom.waiting = 7
    assert way.ours.unsent() == 7
    way.ours.pauseProducing()
    assert way.bottom.producerState == "paused"
    way.ours.resumeProducing()
    assert way.bottom.producerState == "producing"
    way.ours.unregisterProducer()
    way.ours.registerProducer(way, True)
    assert way.bottom.producer is way


@on_loop
async def test_who_does_not_close_is_closed() -> None:
    """TLS waits for the other side's last word; but what is being taken is not cut off."""
    way = connected(Layer)
    assert not way.ours.is_closing()
    way.bottom.waiting = 7
    way.ours.loseConnection()
    way.ours.loseConnection()
    assert way.outer.closed
    assert way.ours.is_closing()
    assert way.bottom.producer is None
    assert (way.threshold.pass_time(), way.bottom.ended) == (CLOSING, False)
    way.bottom.waiting = 0
    assert (way.threshold.pass_time(), way.bottom.ended) == (CLOSING, True)
    assert way.threshold.timers == []


@on_loop
async def test_who_has_closed_is_left_alone() -> None:
    """Nothing is left to do; the end is told once, and nothing comes behind it."""
    way = connected(ProtocolWrapper)
    way.ours.loseConnection()
    way.outer.connectionLost(DONE)
    way.ours.connectionLost(DONE)
    way.ours.dataReceived(REQUEST)
    assert way.threshold.service.share.connections == 0
    assert way.threshold.timers == []


@on_loop
async def test_a_connection_can_be_cut() -> None:
    """By the plug-in's own way, and with RST at the bottom."""
    way = connected(ProtocolWrapper)
    way.ours.abortConnection()
    assert way.bottom.ended
    other = connected(ProtocolWrapper)
    other.ours.resetConnection()
    assert other.bottom.reset
    assert other.ours.is_closing()


@on_loop
async def test_data_goes_where_it_was_asked_to() -> None:
    """To the codec that has said so last."""
    way = connected()
    way.ours.dataReceived(REQUEST)
    await turn()
    assert way.scope["path"] == "/"
    received: list[bytes] = []
    way.ours.deliver(received.append)
    way.outer.dataReceived(b"x")
    assert received == [b"x"]
    idle = PluginTransport(lambda _: way.threshold)  # type: ignore[arg-type, return-value]
    idle.connectionLost(DONE)
    assert idle.disconnecting
