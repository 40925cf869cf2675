"""Plug-ins that are asked again by a worker, and connections through them, in memory."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from twisted import plugins
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from daphne_supervisor.endpoints import Endpoint
from daphne_supervisor.errors import BootError
from daphne_supervisor.listeners import Listener
from daphne_supervisor.worker.entrance import Entrance, Threshold, entrances
from daphne_supervisor.worker.plugin_transport import PluginTransport
from tests.support.endpoint_plugin import installed
from tests.support.transports import Stage, Transport, on_loop, service, turn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DONE = Failure(ConnectionDone())
PEER = ("192.168.1.1", 54321)


class Sockets:
    """The listeners of a master."""

    def __init__(self) -> None:
        """Have none."""
        self.listeners: list[Listener] = []

    def add(self, plugin: str, **where: Any) -> Listener:
        """Open one for `plugin`."""
        sock = socket.create_server(("127.0.0.1", 0))
        if where.get("kind") == "fd":
            where["fileno"] = sock.fileno()
            plugin = f"{plugin}{sock.fileno()}"
        defaults = {"kind": "tcp", "host": "127.0.0.1", "text": plugin, "origin": "--endpoint"}
        endpoint = Endpoint(**{**defaults, **where}, plugin=plugin)  # type: ignore[arg-type]
        self.listeners.append(Listener(sock, endpoint, "TCP address x"))
        return self.listeners[-1]


@pytest.fixture
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sockets]:
    """Return listeners that are closed at the end.

    Twisted finds the test's plug-ins, and its TLS a reactor for its timers.
    """
    installed(tmp_path)
    monkeypatch.setitem(sys.modules, "twisted.internet.reactor", Clock())
    place = str(tmp_path / "twisted" / "plugins")
    monkeypatch.setattr(plugins, "__path__", [*plugins.__path__, place])
    opened = Sockets()
    yield opened
    for listener in opened.listeners:
        listener.socket.close()


class Reactor:
    """A reactor of which a view is given."""

    running = True


def found(sockets: Sockets) -> list[Any]:
    """Return the entrances of the listeners."""
    return entrances(sockets.listeners, service(Stage()), Reactor())  # type: ignore[arg-type]


@on_loop
async def test_each_listener_has_its_entrance(sockets: Sockets) -> None:
    """In order; who has no plug-in has none, and one endpoint may have two."""
    sockets.add("")
    sockets.add("two:")
    sockets.add("two:", place=1)
    sockets.add("two:")
    sockets.add("two:", place=1)
    sockets.add("box:0")
    sockets.add("vault:/x", kind="unix", path="/x")
    assert [entrance is not None for entrance in found(sockets)] == [False] + [True] * 6


@on_loop
async def test_a_descriptor_outlives_its_adoption(sockets: Sockets) -> None:
    """Twisted's endpoint closes it; it is the same socket under the same number afterwards."""
    listener = sockets.add("taken:", kind="fd")
    before = listener.socket.getsockname()
    (entrance,) = found(sockets)
    assert entrance is not None
    assert listener.socket.getsockname() == before
    assert not os.get_inheritable(listener.socket.fileno())


@on_loop
async def test_tls_that_is_left_to_the_reactor_is_twisted_s(
    sockets: Sockets, tmp_path: Path
) -> None:
    """The one that its own reactors use; protocols that we speak are offered to the client."""
    pem = tmp_path / "pair.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(pem))
    sockets.add(f"bare:0:{pem}")
    (entrance,) = found(sockets)
    factory = entrance._factory
    assert isinstance(factory, TLSMemoryBIOFactory)
    assert factory.wrappedFactory.acceptableProtocols() == [b"http/1.1"]


@pytest.mark.parametrize(
    ("plugin", "where"),
    [
        ("box:0", {"port": 1}),
        ("box:0", {"host": "::1"}),
        ("two:", {}),
        ("bad:nothing", {}),
        ("vault:/x", {"kind": "unix", "path": "/y"}),
    ],
)
@on_loop
async def test_a_plug_in_that_has_changed_its_mind(
    plugin: str, where: dict[str, Any], sockets: Sockets
) -> None:
    """At a reload it listens elsewhere; the listeners are the master's, and cannot follow."""
    sockets.add(plugin, **where)
    with pytest.raises(BootError, match=f"--endpoint {plugin}: its plug-in does not listen where"):
        found(sockets)


@on_loop
async def test_a_plug_in_that_fails_in_a_worker_is_one_line(sockets: Sockets) -> None:
    """As it would be in the master."""
    sockets.add("bad:broken")
    with pytest.raises(BootError, match="--endpoint bad:broken: its plug-in fails: ZeroDivision"):
        found(sockets)


@on_loop
async def test_the_rest_of_the_reactor_is_as_it_is(sockets: Sockets) -> None:
    """An endpoint may ask it anything."""
    sockets.add("bad:late")
    with pytest.raises(BootError, match="AttributeError: 'Reactor' object has no attribute"):
        found(sockets)


# Connections


class Inner(Factory):
    """A plug-in's factory."""

    noisy = False

    def __init__(self, protocol: Any) -> None:
        """Build `protocol`."""
        self.built = protocol
        self.started = 0

    def startFactory(self) -> None:  # noqa: N802
        """Count."""
        self.started += 1

    def stopFactory(self) -> None:  # noqa: N802
        """Count back."""
        self.started -= 1

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802
        """Build it for who comes from the address."""
        self.came_from = addr
        return self.built


class Slow(Protocol):
    """A wrapping that lets us begin when a byte has come, and has mistakes."""

    def __init__(self, thresholds: dict[Any, Threshold]) -> None:
        """Know where the thresholds are."""
        self._ours = PluginTransport(thresholds.__getitem__)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Begin, or fail."""
        if data == b"!":
            raise ZeroDivisionError
        self._ours.makeConnection(self.transport)  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Any = None) -> None:  # noqa: N802
        """Forget to say so."""


class Way:
    """A connection through such a wrapping."""

    def __init__(self) -> None:
        """Be connected."""
        self.served = service(Stage())
        self.thresholds: dict[Any, Threshold] = {}
        factory = Inner(Slow(self.thresholds))
        self.entrance = Entrance(factory, self.served, self.thresholds)
        self.opening = 0
        self.served.share.enter()
        self.outer: Any = self.entrance.build(PEER, self.count, forwards=True, secure=False)
        assert factory.came_from.host == PEER[0]
        self.bottom = Transport()
        self.outer.makeConnection(self.bottom)

    def count(self, change: int) -> None:
        """Count what has not begun."""
        self.opening += change


@on_loop
async def test_a_connection_counts_before_it_has_begun() -> None:
    """It is opening until our own connection is there, which then counts for itself."""
    way = Way()
    assert (way.opening, len(way.served.connections)) == (1, 0)
    way.outer.dataReceived(b"x")
    assert (way.opening, len(way.served.connections)) == (0, 1)
    way.outer.connectionLost(DONE)
    await turn()
    assert len(way.served.connections) == 0
    assert way.served.share.connections == 0
    assert way.thresholds == {}


@on_loop
async def test_a_connection_that_never_begins_is_counted_out() -> None:
    """When it ends; and after --head-timeout it is ended."""
    way = Way()
    way.outer._late()
    assert way.bottom.disconnected
    way.outer.connectionLost(DONE)
    assert (way.opening, way.served.share.connections) == (0, 0)


@on_loop
async def test_an_error_of_the_plug_in_costs_its_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And is logged with its traceback, for it is a bug."""
    way = Way()
    way.outer.dataReceived(b"!")
    assert way.bottom.disconnected
    assert "an endpoint's plug-in fails" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    way.outer.connectionLost(DONE)


@on_loop
async def test_a_plug_in_may_not_want_a_connection() -> None:
    """Which is no error of anybody's."""
    entrance = Entrance(Inner(None), service(Stage()), {})
    with pytest.raises(ConnectionAbortedError, match="does not want it"):
        entrance.build("", print, forwards=True, secure=False)


@on_loop
async def test_a_factory_begins_and_ends_with_the_listener() -> None:
    """Once, as often as the listener is opened again after a pause."""
    factory = Inner(None)
    entrance = Entrance(factory, service(Stage()), {})
    entrance.open()
    entrance.open()
    assert factory.started == 1
    entrance.close()
    entrance.close()
    assert factory.started == 0


@on_loop
async def test_most_plug_ins_begin_at_once(sockets: Sockets) -> None:
    """Then the connection counts for itself from the beginning."""
    sockets.add("box:0")
    (entrance,) = found(sockets)
    counted: list[int] = []
    outer = entrance.build(PEER, counted.append, forwards=True, secure=False)
    outer.service.share.enter()
    outer.makeConnection(Transport())
    assert counted == []
    assert len(outer.service.connections) == 1
    outer.connectionLost(DONE)
    assert outer.service.share.connections == 0
