"""A plug-in of Twisted's with endpoints of every sort; `installed` puts it where Twisted looks.

`box:PORT` and `vault:PATH` wrap connections and change nothing, `pyssl:PORT:PEM` wraps them in TLS
through pyOpenSSL, `two:` listens twice, `bare:PORT:PEM` calls `listenSSL`, `taken:FD` adopts a
descriptor, and `bad:WHAT` does what cannot be shared.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

from twisted.internet import ssl
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    TCP4ServerEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.interfaces import IStreamServerEndpoint, IStreamServerEndpointStringParser
from twisted.internet.protocol import DatagramProtocol
from twisted.plugin import IPlugin
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

__all__ = ["bad", "bare", "box", "installed", "pyssl", "taken", "two", "vault"]

ROOT = Path(__file__).parents[2]


def installed(directory: Path) -> dict[str, str]:
    """Install this file as a plug-in below `directory`; return the environment that finds it."""
    place = directory / "twisted" / "plugins"
    place.mkdir(parents=True)
    shutil.copy(__file__, place / "sorts_of_endpoints.py")
    return {"PYTHONPATH": f"{ROOT}{os.pathsep}{directory}"}


def pair(pem: str) -> Any:
    """Return the context factory for a file with key and certificate."""
    return ssl.PrivateCertificate.loadPEM(Path(pem).read_bytes()).options()


@implementer(IStreamServerEndpoint)
class Wrapped:
    """An endpoint whose connections go through a factory around the server's."""

    def __init__(self, endpoint: Any, wrap: Any) -> None:
        """Wrap what `endpoint` accepts by what `wrap` makes of a factory."""
        self._endpoint = endpoint
        self._wrap = wrap

    def listen(self, factory: Any) -> Any:
        """Listen with the wrapped factory."""
        return self._endpoint.listen(self._wrap(factory))


class Layer(WrappingFactory):
    """Puts a protocol around each connection that passes everything on."""

    protocol = ProtocolWrapper
    noisy = False


@implementer(IStreamServerEndpoint)
class Pair:
    """An endpoint that listens twice."""

    def __init__(self, reactor: Any) -> None:
        """Listen on `reactor`."""
        self._reactor = reactor

    def listen(self, factory: Any) -> Any:
        """Listen on two ports of the same interface."""
        for _ in range(2):
            port = self._reactor.listenTCP(0, factory, interface="127.0.0.1")
        return succeed(port)


@implementer(IStreamServerEndpoint)
class Bare:
    """An endpoint that leaves TLS to the reactor, as Twisted's `ssl:` does."""

    def __init__(self, reactor: Any, port: int, pem: str) -> None:
        """Listen on `port` of `reactor`."""
        self._reactor, self._port, self._pem = reactor, port, pem

    def listen(self, factory: Any) -> Any:
        """Listen with TLS."""
        options = pair(self._pem)
        return succeed(self._reactor.listenSSL(self._port, factory, options, interface="127.0.0.1"))


@implementer(IStreamServerEndpoint)
class Bad:
    """An endpoint that does what cannot be done for all workers."""

    def __init__(self, reactor: Any, what: str) -> None:
        """Do `what`."""
        self._reactor, self._what = reactor, what

    def listen(self, factory: Any) -> Any:
        """Do it."""
        found = getattr(self, f"_{self._what}")(factory)
        return succeed(self._reactor) if found is None else found

    def _udp(self, factory: Any) -> None:
        del factory
        self._reactor.listenUDP(0, DatagramProtocol())

    def _client(self, factory: Any) -> None:
        self._reactor.connectTCP("127.0.0.1", 1, factory)

    def _nothing(self, factory: Any) -> None:
        del factory

    def _late(self, factory: Any) -> Deferred[None]:
        later: Deferred[None] = Deferred()
        self._reactor.callLater(1, later.callback, factory)
        return later

    def _own(self, factory: Any) -> None:
        socket.create_server(("127.0.0.1", 0)).detach()
        self._reactor.listenTCP(0, factory)

    def _adopted(self, factory: Any) -> None:
        number = socket.create_server(("127.0.0.1", 0)).detach()
        self._reactor.adoptStreamPort(number, socket.AF_INET, factory)

    def _everywhere(self, factory: Any) -> None:
        from twisted.internet import reactor  # noqa: PLC0415 - the fault to be found

        everybody_s: Any = reactor
        everybody_s.listenTCP(0, factory)

    def _unknown(self, factory: Any) -> None:
        self._reactor.teleport(factory)

    def _broken(self, factory: Any) -> None:
        del factory
        message = "two\nlines"
        raise ZeroDivisionError(message)

    def _failed(self, factory: Any) -> Deferred[None]:
        del factory
        return fail(OSError("no luck"))

    def _port(self, factory: Any) -> None:
        self._reactor.listenTCP(99999, factory)

    def _exit(self, factory: Any) -> None:
        del factory
        os._exit(1)

    def _hang(self, factory: Any) -> None:
        del factory
        signal.pause()


@implementer(IPlugin, IStreamServerEndpointStringParser)
class Parser:
    """One kind of endpoint."""

    def __init__(self, prefix: str, make: Any) -> None:
        """Let `make` make an endpoint of the reactor and the parameters."""
        self.prefix = prefix
        self._make = make

    def parseStreamServer(self, reactor: Any, *args: str, **kwargs: str) -> Any:  # noqa: N802
        """Return the endpoint."""
        return self._make(reactor, *args, **kwargs)


def _tcp(reactor: Any, port: str) -> Any:
    return TCP4ServerEndpoint(reactor, int(port), interface="127.0.0.1")


def _with_tls(pem: str) -> Any:
    return lambda factory: TLSMemoryBIOFactory(pair(pem), isClient=False, wrappedFactory=factory)


def _bad(reactor: Any, what: str) -> Any:
    if what == "files":
        message = "no such key"
        raise FileNotFoundError(message)
    return object() if what == "object" else Bad(reactor, what)


box = Parser("box", lambda reactor, port: Wrapped(_tcp(reactor, port), Layer))
vault = Parser("vault", lambda reactor, path: Wrapped(UNIXServerEndpoint(reactor, path), Layer))
pyssl = Parser("pyssl", lambda reactor, port, pem: Wrapped(_tcp(reactor, port), _with_tls(pem)))
two = Parser("two", lambda reactor, _: Pair(reactor))
bare = Parser("bare", lambda reactor, port, pem: Bare(reactor, int(port), pem))
taken = Parser(
    "taken",
    lambda reactor, number: AdoptedStreamServerEndpoint(reactor, int(number), socket.AF_INET),
)
bad = Parser("bad", _bad)
