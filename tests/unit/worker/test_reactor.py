"""The loop's transports presented as Twisted's, over real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from twisted.internet import address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol
from zope.interface.verify import verifyObject

from daphne_supervisor.worker.reactor import Accepted, LoopReactor, LoopTransport, install

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from twisted.python.failure import Failure

PATIENCE = 10.0


class Heard(Protocol):
    """A Twisted protocol that notes everything."""

    def __init__(self) -> None:
        """Have heard nothing."""
        self.data = b""
        self.congested: list[bool] = []
        self.lost: asyncio.Future[type[BaseException]] = asyncio.get_running_loop().create_future()
        self.came = asyncio.Event()
        self.paused = asyncio.Event()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Note it."""
        self.data += data
        self.came.set()

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]  # noqa: N802
        """Note it."""
        assert reason.type is not None
        self.lost.set_result(reason.type)

    def pauseProducing(self) -> None:  # noqa: N802
        """Note it."""
        self.congested.append(True)
        self.paused.set()

    def resumeProducing(self) -> None:  # noqa: N802
        """Note it."""
        self.congested.append(False)

    async def hears(self, data: bytes) -> None:
        """Wait until `data` is all that has come."""
        while self.data != data:
            self.came.clear()
            await self.came.wait()


class Ends:
    """A connection that is served, and its client's socket."""

    def __init__(self, reactor: LoopReactor, family: int = socket.AF_INET) -> None:
        """Connect."""
        self.reactor = reactor
        self.loop = reactor.loop
        if family == socket.AF_UNIX:
            server, self.client = socket.socketpair()
            self.accepted = Accepted(server.detach(), family, "")
        else:
            host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
            with socket.create_server((host, 0), family=family) as listener:
                self.client = socket.create_connection(listener.getsockname()[:2], PATIENCE)
                self.accepted = reactor.accept(listener, family)
        self.client.setblocking(False)
        self.protocol = Heard()

    async def serve(self, context: ssl.SSLContext | None = None) -> Any:
        """Serve, and return the transport."""
        opened = self.loop.create_future()
        self.reactor.serve(
            self.accepted, lambda: self.protocol, context, PATIENCE, opened.set_result
        )
        error = await opened
        if error is not None:
            raise error
        return self.protocol.transport

    async def receive(self, size: int = 65536) -> bytes:
        """Return what the client gets."""
        return await self.loop.sock_recv(self.client, size)

    async def drain(self) -> None:
        """Let the client read to the end."""
        while await self.receive():
            pass

    async def send(self, data: bytes) -> None:
        """Send from the client."""
        await self.loop.sock_sendall(self.client, data)

    async def ended(self) -> type[BaseException]:
        """Wait until the protocol has lost its connection; return the reason."""
        return await self.protocol.lost

    def reset(self) -> None:
        """Leave as rudely as a client can."""
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.close()


@pytest.fixture
def reactor() -> Iterator[LoopReactor]:
    """Return a reactor that is not installed, with its event loop."""
    fresh = LoopReactor()
    yield fresh
    fresh.loop.run_until_complete(fresh.loop.shutdown_asyncgens())
    fresh.disconnectAll()
    fresh.loop.close()
    asyncio.set_event_loop(None)


@pytest.fixture
def played(reactor: LoopReactor) -> Callable[..., None]:
    """Return what plays a scenario with both ends of a connection."""

    def play(
        scenario: Callable[[Ends], Coroutine[Any, Any, None]], family: int = socket.AF_INET
    ) -> None:
        async def whole() -> None:
            ends = Ends(reactor, family)
            try:
                await asyncio.wait_for(scenario(ends), PATIENCE)
            finally:
                ends.client.close()
                transport: Any = ends.protocol.transport
                if transport is not None and not ends.protocol.lost.done():
                    transport.abortConnection()
                    await ends.ended()

        reactor.loop.run_until_complete(whole())

    return play


def test_it_is_a_twisted_transport(played: Callable[..., None]) -> None:
    """Every method that Twisted's interfaces promise is there, with its signature."""

    async def scenario(ends: Ends) -> None:
        transport = await ends.serve()
        assert isinstance(transport, LoopTransport)
        for interface in (ITCPTransport, IConsumer, IPushProducer):
            assert verifyObject(interface, transport)

    played(scenario)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_both_ends_are_known(played: Callable[..., None], family: int) -> None:
    """In Twisted's words."""

    async def scenario(ends: Ends) -> None:
        transport = await ends.serve()
        if family == socket.AF_UNIX:
            assert transport.getPeer() == transport.getHost() == address.UNIXAddress(None)
            return
        peer, host = transport.getPeer(), transport.getHost()
        assert (peer.host, peer.port) == ends.client.getsockname()[:2]
        assert (host.host, host.port) == ends.client.getpeername()[:2]
        assert transport.get_extra_info("socket").family == family

    played(scenario, family)


def test_bytes_go_both_ways(played: Callable[..., None]) -> None:
    """In order; `writeSequence` is one write."""

    async def scenario(ends: Ends) -> None:
        transport = await ends.serve()
        await ends.send(b"ping")
        await ends.protocol.hears(b"ping")
        transport.write(b"one ")
        transport.writeSequence([b"two ", b"three"])
        got = b""
        while len(got) < 13:
            got += await ends.receive()
        assert got == b"one two three"

    played(scenario)


def test_the_client_leaves(played: Callable[..., None]) -> None:
    """In order is `ConnectionDone`, and it closes our side too."""

    async def scenario(ends: Ends) -> None:
        transport = await ends.serve()
        ends.client.close()
        assert await ends.ended() is ConnectionDone
        assert transport.disconnecting

    played(scenario)


def test_the_client_is_cut_off(played: Callable[..., None]) -> None:
    """A reset is `ConnectionLost`."""

    async def scenario(ends: Ends) -> None:
        await ends.serve()
        ends.reset()
        assert await ends.ended() is ConnectionLost

    played(scenario)


def test_a_client_that_was_never_there_is_cut_off(played: Callable[..., None]) -> None:
    """Health checks connect and reset: that is known as soon as the connection is open."""

    async def scenario(ends: Ends) -> None:
        name = ends.client.getsockname()
        ends.reset()
        transport = await ends.serve()
        assert (transport.getPeer().host, transport.getPeer().port) == name
        assert await ends.ended() is ConnectionLost

    played(scenario)


def test_what_cannot_be_served_is_told_and_closed(played: Callable[..., None]) -> None:
    """Whoever accepts hears of a protocol that breaks before it has begun, once and at once."""

    def build() -> Protocol:
        raise ZeroDivisionError

    async def scenario(ends: Ends) -> None:
        heard: list[Exception | None] = []
        ends.reactor.serve(ends.accepted, build, None, PATIENCE, heard.append)
        assert [type(error) for error in heard] == [ZeroDivisionError]
        assert await ends.receive() == b""

    played(scenario)


def test_accepting_says_when_nobody_waits(reactor: LoopReactor) -> None:
    """As a socket does; who has come is known by descriptor, family and address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            reactor.accept(listener, socket.AF_INET)
        with socket.create_connection(listener.getsockname(), PATIENCE) as client:
            accepted = reactor.accept(listener, socket.AF_INET)
            assert (accepted.family, accepted.type) == (socket.AF_INET, socket.SOCK_STREAM)
            assert accepted.peer == client.getsockname()
            with socket.socket(fileno=os.dup(accepted.fileno())) as copy:
                assert copy.getpeername() == client.getsockname()
            accepted.close()
            os.fstat(accepted.fileno())
            accepted.discard()
            assert client.recv(1) == b""


def test_we_close_after_the_last_byte(played: Callable[..., None]) -> None:
    """However much there is; then both sides are done."""

    async def scenario(ends: Ends) -> None:
        transport = await ends.serve()
        transport.write(bytes(1_000_000))
        transport.loseConnection()
        assert transport.disconnecting
        transport.pauseProducing()
        transport.resumeProducing()
        left = 1_000_000
        while left:
            left -= len(await ends.receive())
        assert await ends.receive() == b""
        assert await ends.ended() is ConnectionDone

    played(scenario)


def test_we_cut(played: Callable[..., None]) -> None:
    """What was not sent is lost, and the protocol hears of the end."""

    async def scenario(ends: Ends) -> None:
        transport = await ends.serve()
        transport.write(bytes(20_000_000))
        transport.abortConnection()
        await ends.ended()
        assert transport.disconnecting

    played(scenario)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_we_reset(family: int, played: Callable[..., None]) -> None:
    """What the peer has not taken is not kept for it until it does."""

    async def scenario(ends: Ends) -> None:
        transport = await ends.serve()
        transport.write(bytes(20_000_000))
        transport.resetConnection()
        await ends.ended()
        assert transport.disconnecting
        with pytest.raises(ConnectionResetError):
            await ends.drain()

    played(scenario, family)


def test_on_a_unix_socket_a_reset_is_an_end(played: Callable[..., None]) -> None:
    """There is no RST, and nothing that waits in a kernel for a peer."""

    async def scenario(ends: Ends) -> None:
        transport = await ends.serve()
        transport.resetConnection()
        await ends.ended()
        assert await ends.receive() == b""

    played(scenario, socket.AF_UNIX)


def test_who_takes_the_bytes_can_change(played: Callable[..., None]) -> None:
    """A connection whose codec changes has them go to the new one; all else stays as it is."""
    pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def scenario(ends: Ends) -> None:
        transport = await ends.serve()
        await ends.send(b"one")
        await ends.protocol.hears(b"one")
        transport.deliver(pieces.put_nowait)
        await ends.send(b"two")
        assert await pieces.get() == b"two"
        assert ends.protocol.data == b"one"
        ends.client.close()
        assert await ends.ended() is ConnectionDone

    played(scenario)


def test_we_close_our_side_only(played: Callable[..., None]) -> None:
    """The client sees the end and may still speak."""

    async def scenario(ends: Ends) -> None:
        transport = await ends.serve()
        transport.write(b"bye")
        transport.loseWriteConnection()
        assert await ends.receive() == b"bye"
        assert await ends.receive() == b""
        await ends.send(b"late")
        await ends.protocol.hears(b"late")

    played(scenario)


def test_stopping_is_closing(played: Callable[..., None]) -> None:
    """As Twisted has it."""

    async def scenario(ends: Ends) -> None:
        transport = await ends.serve()
        transport.stopProducing()
        assert await ends.ended() is ConnectionDone

    played(scenario)


def test_a_full_buffer_pauses_the_producer(played: Callable[..., None]) -> None:
    """And what waits is known; when the client has read, the producer goes on."""

    async def scenario(ends: Ends) -> None:
        transport = await ends.serve()
        transport.registerProducer(ends.protocol, True)
        with pytest.raises(RuntimeError, match="one push producer"):
            transport.registerProducer(ends.protocol, True)
        transport.write(bytes(20_000_000))
        assert ends.protocol.congested == [True]
        assert transport.unsent() > 1_000_000
        while ends.protocol.congested != [True, False]:
            await ends.receive()
        transport.unregisterProducer()
        transport.write(bytes(20_000_000))
        assert ends.protocol.congested == [True, False]
        while transport.unsent():
            await ends.receive()

    played(scenario)


def test_the_buffer_can_be_called_full_earlier(played: Callable[..., None]) -> None:
    """Above none at all: the producer goes on when everything has left; and as usual again."""

    async def scenario(ends: Ends) -> None:
        transport = await ends.serve()
        transport.registerProducer(ends.protocol, True)
        transport.limit_unsent(0)
        transport.write(bytes(5_000_000))
        assert ends.protocol.congested == [True]
        while ends.protocol.congested != [True, False]:
            await ends.receive()
        assert transport.unsent() == 0
        transport.limit_unsent(None)
        transport.write(bytes(1000))
        assert ends.protocol.congested == [True, False]

    played(scenario)


def test_pull_producers_are_not_served(played: Callable[..., None]) -> None:
    """Nobody would pull."""

    async def scenario(ends: Ends) -> None:
        transport = await ends.serve()
        with pytest.raises(RuntimeError):
            transport.registerProducer(ends.protocol, False)

    played(scenario)


def test_reading_can_wait(played: Callable[..., None]) -> None:
    """What is not read stays with the client, and arrives later."""

    async def scenario(ends: Ends) -> None:
        transport = await ends.serve()
        transport.pauseProducing()
        transport.pauseProducing()
        sent = 0
        try:
            while sent < 50_000_000:
                sent += ends.client.send(bytes(65536))
        except BlockingIOError:
            pass
        assert sent < 50_000_000
        assert ends.protocol.data == b""
        transport.resumeProducing()
        transport.resumeProducing()
        await ends.protocol.hears(bytes(sent))

    played(scenario)


def test_the_socket_s_options(played: Callable[..., None]) -> None:
    """Nagle's algorithm is off; keep-alive is a switch."""

    async def scenario(ends: Ends) -> None:
        transport = await ends.serve()
        assert transport.getTcpNoDelay()
        assert not transport.getTcpKeepAlive()
        transport.setTcpKeepAlive(True)
        assert transport.getTcpKeepAlive()
        transport.setTcpNoDelay(False)
        assert not transport.getTcpNoDelay()
        transport.setTcpNoDelay(True)
        assert transport.getTcpNoDelay()

    played(scenario)


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return what a server and a client that trusts it speak TLS with."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def test_tls_comes_first(
    played: Callable[..., None], contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    """The protocol sees plain bytes; closing our side closes all of it."""
    server, client = contexts

    async def scenario(ends: Ends) -> None:
        serving = asyncio.ensure_future(ends.serve(server))
        reader, writer = await asyncio.open_connection(
            sock=ends.client, ssl=client, server_hostname="localhost"
        )
        transport = await serving
        writer.write(b"secret")
        await ends.protocol.hears(b"secret")
        assert transport.get_extra_info("ssl_object").version() == "TLSv1.3"
        transport.write(b"answer")
        transport.loseWriteConnection()
        assert await reader.read() == b"answer"
        writer.close()
        assert await ends.ended() is ConnectionDone

    played(scenario)


def test_behind_tls_who_takes_the_bytes_can_change_and_the_peer_be_reset(
    played: Callable[..., None], contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    """Both are promises to a connection, which need not know what carries it."""
    server, client = contexts
    pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def scenario(ends: Ends) -> None:
        serving = asyncio.ensure_future(ends.serve(server))
        reader, writer = await asyncio.open_connection(
            sock=ends.client, ssl=client, server_hostname="localhost"
        )
        transport = await serving
        transport.deliver(pieces.put_nowait)
        writer.write(b"secret")
        assert await pieces.get() == b"secret"
        assert ends.protocol.data == b""
        transport.write(b"answer")
        assert await reader.read(100) == b"answer"
        transport.resetConnection()
        await ends.ended()
        with pytest.raises(ConnectionResetError):
            await reader.read()

    played(scenario)


def test_what_is_no_tls_is_an_os_error(played: Callable[..., None]) -> None:
    """Whoever accepts gets an error, the protocol is never made."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    async def scenario(ends: Ends) -> None:
        await ends.send(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(OSError, match=r"."):
            await ends.serve(server)
        assert ends.protocol.transport is None
        with suppress(ConnectionResetError):  # some of what was sent may be unread
            await ends.drain()

    played(scenario)


def test_it_can_be_the_reactor_of_a_process() -> None:
    """Installed before anything else, it is what `twisted.internet.reactor` is, and it runs."""
    code = """
from daphne_supervisor.worker.reactor import install
ours = install()
from twisted.internet import reactor
assert reactor is ours
reactor.callLater(0, reactor.stop)
reactor.run(installSignalHandlers=False)
print(type(ours.loop).__module__)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "uvloop\n"
    assert callable(install)


def test_somebody_who_waits_is_seen(reactor: LoopReactor) -> None:
    """Without accepting, and without waiting for anybody."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not reactor.readable(listener)
        with socket.create_connection(listener.getsockname(), PATIENCE):
            assert reactor.readable(listener)
            listener.accept()[0].close()
            assert not reactor.readable(listener)
