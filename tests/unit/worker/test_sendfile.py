"""A file's way into a real socket: all of it, at the client's pace, and every way that it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any, Self

import pytest

from daphne_supervisor.config import Config, Http
from daphne_supervisor.scoreboard import Scoreboard
from daphne_supervisor.worker.connection import Connection
from daphne_supervisor.worker.exchange import ClientDisconnected
from daphne_supervisor.worker.file_source import PATHSEND, UnreadableError, of_message
from daphne_supervisor.worker.reactor import Accepted, LoopReactor
from daphne_supervisor.worker.sendfile import MOST, send_file
from daphne_supervisor.worker.service import Service
from tests.support.transports import Stage, turn

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from daphne_supervisor.worker.file_source import FileSource

PATIENCE = 10.0
SIZE = 3 * MOST + 5
CONTENT = b"".join(b"%07d\n" % line for line in range(SIZE // 8 + 1))[:SIZE]


class Ends:
    """A connection over a socket that holds little, and its client."""

    def __init__(self, reactor: LoopReactor) -> None:
        """Connect."""
        self.loop = reactor.loop
        config = Config(application="a:b", http=Http(write_timeout=30, head_timeout=10**6))
        self.service = Service(config, Stage(), None, self.loop, scoreboard=Scoreboard(), slot=1)
        self.service.share.enter()
        self.connection = Connection(self.service, "http")
        server, self.client = socket.socketpair()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        self.client.setblocking(False)
        self._accepted = Accepted(server.detach(), socket.AF_UNIX, "")
        self._reactor = reactor

    async def open(self) -> Self:
        """Be served."""
        opened = self.loop.create_future()
        self._reactor.serve(
            self._accepted, lambda: self.connection, None, PATIENCE, opened.set_result
        )
        assert await opened is None
        return self

    async def get(self, size: int) -> bytes:
        """Return the next `size` bytes that the client gets, fewer at the end."""
        data = bytearray()
        while len(data) < size:
            piece = await self.loop.sock_recv(self.client, size - len(data))
            if not piece:
                break
            data += piece
        return bytes(data)

    async def stalled(self) -> None:
        """Wait until the connection waits for its client."""
        while not self.connection.congested:
            await turn()


@pytest.fixture
def played() -> Iterator[Callable[[Callable[[Ends], Coroutine[Any, Any, None]]], None]]:
    """Return what plays a scenario with both ends of a connection."""
    reactor = LoopReactor()

    def play(scenario: Callable[[Ends], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            ends = await Ends(reactor).open()
            try:
                await asyncio.wait_for(scenario(ends), PATIENCE)
            finally:
                ends.client.close()
                ends.connection.transport.abortConnection()
                while ends.connection in ends.service.connections:
                    await turn()

        reactor.loop.run_until_complete(whole())

    yield play
    reactor.loop.run_until_complete(reactor.loop.shutdown_default_executor())
    reactor.disconnectAll()
    reactor.loop.close()
    asyncio.set_event_loop(None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file of some megabytes, each of its parts different."""
    found = tmp_path / "file"
    found.write_bytes(CONTENT)
    return found


async def source_of(path: Path) -> FileSource:
    """Return the whole of a file."""
    message = {"type": PATHSEND, "path": str(path)}
    return await of_message(asyncio.get_running_loop(), message)


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("head", [b"head", b"head" * 50_000])
@pytest.mark.parametrize("cached", ["always", "never", "sometimes", "quickly"])
def test_all_of_it_arrives_behind_what_was_written(
    played: Callable[..., None], path: Path, cached: str, head: bytes
) -> None:
    """Whether the loop sends it, a thread, or both in turn; and nothing is left open."""

    async def scenario(ends: Ends) -> None:
        before, connection = descriptors(), ends.connection
        source = await source_of(path)
        answers = iter(range(10**6))
        if cached == "quickly":  # by a thread that is done before this turn of the loop is

            async def use(call: Callable[..., Any], *args: Any) -> Any:
                return call(*args)

            source.use = use  # type: ignore[method-assign]
        if cached in {"never", "quickly"}:
            source.cached = lambda count: False  # type: ignore[method-assign] # noqa: ARG005
        elif cached == "sometimes":
            source.cached = lambda count: next(answers) % 3 == 0  # type: ignore[method-assign] # noqa: ARG005

        async def send() -> None:
            connection.write(head)
            await send_file(connection, source)

        sending = asyncio.ensure_future(send())
        got = await ends.get(len(head) + SIZE)
        await sending
        assert got == head + CONTENT
        source.close()
        assert not connection.congested
        assert descriptors() == before
        connection.write(b"behind")
        assert await ends.get(6) == b"behind"

    played(scenario)


def test_a_client_that_reads_nothing_is_waited_for(played: Callable[..., None], path: Path) -> None:
    """As one who reads too slowly: --write-timeout counts, from the last byte that it took."""

    async def scenario(ends: Ends) -> None:
        connection, source = ends.connection, await source_of(path)
        clock = iter(range(1000, 2000))
        connection.now = lambda: float(next(clock))
        sending = asyncio.ensure_future(send_file(connection, source))
        await ends.stalled()
        first = connection.deadline
        assert first >= 1000 + 30
        await ends.get(1_000_000)
        assert connection.deadline > first
        connection.expire(connection.deadline)
        with pytest.raises(ClientDisconnected):
            await sending
        source.close()
        assert len(await ends.get(SIZE)) < SIZE - 1_000_000

    played(scenario)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("how", ["client", "server", "before"])
def test_a_connection_that_ends_ends_it(
    played: Callable[..., None], path: Path, how: str, *, cached: bool
) -> None:
    """Whoever has ended it; and the socket is really closed, since no copy of it stays."""

    async def scenario(ends: Ends) -> None:
        connection, source = ends.connection, await source_of(path)
        source.cached = lambda count: cached  # type: ignore[method-assign] # noqa: ARG005
        if how == "before":
            connection.abort()
        sending = asyncio.ensure_future(send_file(connection, source))
        if how != "before":
            await ends.stalled()
        if how == "client":
            ends.client.close()
        elif how == "server":
            connection.abort()
        with pytest.raises(ClientDisconnected):
            await sending
        source.close()
        if how != "client":
            await ends.get(SIZE)
            assert await ends.get(1) == b""

    played(scenario)


@pytest.mark.parametrize("cached", [True, False])
def test_a_file_that_becomes_shorter(
    played: Callable[..., None], path: Path, *, cached: bool
) -> None:
    """The error says so; what was sent is sent."""

    async def scenario(ends: Ends) -> None:
        source = await source_of(path)
        source.cached = lambda count: cached  # type: ignore[method-assign] # noqa: ARG005
        sending = asyncio.ensure_future(send_file(ends.connection, source))
        await ends.stalled()
        os.truncate(path, 1)
        rest = asyncio.ensure_future(ends.get(SIZE))
        with pytest.raises(UnreadableError, match="has become shorter"):
            await sending
        source.close()
        rest.cancel()

    played(scenario)


@pytest.mark.parametrize("cached", [True, False])
def test_an_error_of_the_disk(played: Callable[..., None], path: Path, *, cached: bool) -> None:
    """Is the file's, and not the connection's."""

    async def scenario(ends: Ends) -> None:
        source = await source_of(path)
        source.cached = lambda count: cached  # type: ignore[method-assign] # noqa: ARG005
        os.dup2(os.open(path.parent, os.O_RDONLY), source.number)
        with pytest.raises(UnreadableError, match=r"Is a directory|Invalid argument"):
            await send_file(ends.connection, source)
        source.close()

    played(scenario)


def test_who_is_cancelled_leaves_nothing_behind(played: Callable[..., None], path: Path) -> None:
    """The connection is as usual again, and nobody waits for its socket any more."""

    async def scenario(ends: Ends) -> None:
        before, source = descriptors(), await source_of(path)
        sending = asyncio.ensure_future(send_file(ends.connection, source))
        await ends.stalled()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        source.close()
        assert not ends.connection.congested
        assert descriptors() == before

    played(scenario)


@pytest.mark.parametrize("cached", [True, False])
def test_a_socket_that_is_full(played: Callable[..., None], path: Path, *, cached: bool) -> None:
    """Is waited for: what fills it may be from before."""

    async def scenario(ends: Ends) -> None:
        source, before = await source_of(path), 0
        source.cached = lambda count: cached  # type: ignore[method-assign] # noqa: ARG005
        number = ends.connection.transport.get_extra_info("socket").fileno()
        with contextlib.suppress(BlockingIOError):
            while True:
                before += os.write(number, bytes(65536))
        sending = asyncio.ensure_future(send_file(ends.connection, source))
        await ends.stalled()
        assert await ends.get(before + SIZE) == bytes(before) + CONTENT
        await sending
        source.close()

    played(scenario)


def test_a_connection_that_ends_before_the_head_has_left(
    played: Callable[..., None], path: Path
) -> None:
    """Nothing of the file is sent behind half a head."""

    async def scenario(ends: Ends) -> None:
        source = await source_of(path)
        ends.connection.write(bytes(1_000_000))
        sending = asyncio.ensure_future(send_file(ends.connection, source))
        await turn()
        ends.connection.abort()
        with pytest.raises(ClientDisconnected):
            await sending
        source.close()
        assert source.left == SIZE

    played(scenario)


def test_a_connection_that_ends_while_a_thread_sends(
    played: Callable[..., None], path: Path
) -> None:
    """What it has sent counts no more."""

    async def scenario(ends: Ends) -> None:
        source = await source_of(path)
        use = source.use

        async def use_and_end(*args: Any) -> Any:
            sent = await use(*args)
            ends.connection.abort()
            return sent

        source.cached = lambda count: False  # type: ignore[method-assign] # noqa: ARG005
        source.use = use_and_end  # type: ignore[method-assign]
        with pytest.raises(ClientDisconnected):
            await send_file(ends.connection, source)
        source.close()

    played(scenario)
