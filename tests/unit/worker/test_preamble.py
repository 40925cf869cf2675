"""Reading PROXY headers from sockets, on an event loop whose time is the test's."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from daphne_supervisor.config import Http, Proxy
from daphne_supervisor.worker.preamble import LONGEST_PAUSE, LOOK_AGAIN, Preamble
from daphne_supervisor.worker.proxy_protocol import Header
from daphne_supervisor.worker.reactor import Accepted
from tests.support.transports import Stage, on_loop, service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

V1 = b"PROXY TCP4 192.0.2.7 198.51.100.9 4711 443\r\n"
HEADER = Header(len(V1), ("192.0.2.7", 4711), ("198.51.100.9", 443))
REQUEST = b"GET / HTTP/1.1\r\n\r\n"


class Timer:
    """Something to be done later."""

    def __init__(self, delay: float, call: Callable[[], object]) -> None:
        """Do `call`, unless it is cancelled."""
        self.delay, self.call, self.cancelled = delay, call, False

    def cancel(self) -> None:
        """Do not do it."""
        self.cancelled = True


class Loop:
    """An event loop that does what the test says."""

    def __init__(self) -> None:
        """Watch nothing."""
        self.readers: dict[int, Callable[[], object]] = {}
        self.timers: list[Timer] = []

    def add_reader(self, number: int, call: Callable[[], object]) -> None:
        """Watch a descriptor."""
        self.readers[number] = call

    def remove_reader(self, number: int) -> None:
        """Watch it no more."""
        self.readers.pop(number, None)

    def call_later(self, delay: float, call: Callable[[], object]) -> Timer:
        """Note what is to be done."""
        self.timers.append(Timer(delay, call))
        return self.timers[-1]

    def wake(self) -> None:
        """Find the one descriptor readable."""
        (call,) = self.readers.values()
        call()

    def due(self, delay: float) -> None:
        """Let the one timer of so many seconds be due."""
        (timer,) = [one for one in self.timers if one.delay == delay and not one.cancelled]
        timer.cancel()
        timer.call()


class Wire:
    """A connection of a trusted peer, and what becomes of it."""

    def __init__(self, required: str = "", peer: Any = ("127.0.0.1", 5), **proxy: Any) -> None:
        """Be accepted."""
        self.client, self.ours = socket.socketpair()
        self.accepted = Accepted(self.ours.fileno(), socket.AF_UNIX, peer)
        self.outcome: list[Any] = []
        self.loop = Loop()
        served = service(Stage(), http=Http(head_timeout=7.0), proxy=Proxy(**proxy))
        served.loop = self.loop  # type: ignore[assignment]
        self.preamble = Preamble(
            served,
            lambda _, header: self.outcome.append(header),
            self.outcome.append,
            required=required,
        )

    def read(self, data: bytes = b"") -> None:
        """Let `data` be there, and begin."""
        self.client.send(data)
        self.preamble.read(self.accepted)

    @property
    def left(self) -> bytes:
        """What is there for whoever comes next."""
        return os.read(self.ours.fileno(), 65536)

    @property
    def settled(self) -> bool:
        """Whether nothing is watched and nothing will happen."""
        return not self.loop.readers and all(one.cancelled for one in self.loop.timers)

    def given_up(self) -> bool:
        """Whether the connection was closed, and so it was said; forget it then."""
        (error,) = self.outcome
        self.ours.detach()
        try:
            gone = self.client.recv(1) == b""
        except ConnectionResetError:  # there was something that nobody has read
            gone = True
        return gone and isinstance(error, ConnectionAbortedError)


@pytest.fixture
def wire() -> Iterator[Callable[..., Wire]]:
    """Return what makes wires; they are closed at the end."""
    made: list[Wire] = []

    def make(*args: Any, **kwargs: Any) -> Wire:
        made.append(Wire(*args, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.client.close()
        one.ours.close()


@on_loop
async def test_a_header_that_is_there_is_taken_and_nothing_else(wire: Callable[..., Wire]) -> None:
    """At once, without a look at the time."""
    one = wire()
    one.read(V1 + REQUEST)
    assert one.outcome == [HEADER]
    assert one.left == REQUEST
    assert one.settled
    assert one.loop.timers == []


@on_loop
async def test_a_header_in_pieces_is_looked_for_again(wire: Callable[..., Wire]) -> None:
    """First by the event loop, and by time when a part is there: less and less often."""
    one = wire()
    one.read()
    one.client.send(V1[:9])
    one.loop.wake()
    assert one.loop.readers == {}
    for pause in (1, 2, 4, 8, 16):
        one.loop.due(pause * LOOK_AGAIN)
    one.loop.due(LONGEST_PAUSE)
    assert one.outcome == []
    one.client.send(V1[9:])
    one.loop.due(LONGEST_PAUSE)
    assert one.outcome == [HEADER]
    assert one.settled


@on_loop
async def test_without_a_header_the_connection_is_as_it_was(wire: Callable[..., Wire]) -> None:
    """Where none is required."""
    one = wire()
    one.read(REQUEST)
    assert one.outcome == [None]
    assert one.left == REQUEST


@on_loop
async def test_whoever_must_send_one_and_does_not_is_closed(
    wire: Callable[..., Wire], caplog: pytest.LogCaptureFixture
) -> None:
    """With one line that names who, why and the option."""
    caplog.set_level("INFO")
    one = wire("--proxy-protocol required")
    one.read(REQUEST)
    assert one.given_up()
    (line,) = caplog.messages
    assert line.startswith("connection of 127.0.0.1:5 closed: PROXY header: --proxy-protocol")
    assert line.endswith("required, and the connection does not begin with a PROXY header")


@on_loop
async def test_a_header_that_is_wrong_is_the_end(
    wire: Callable[..., Wire], caplog: pytest.LogCaptureFixture
) -> None:
    """Required or not: it is no request either."""
    caplog.set_level("INFO")
    one = wire(peer="")
    one.read(b"PROXY nonsense\r\n")
    assert one.given_up()
    assert "connection of the unix socket closed: PROXY header: version 1:" in caplog.text


@on_loop
async def test_who_says_nothing_for_too_long_is_closed(
    wire: Callable[..., Wire], caplog: pytest.LogCaptureFixture
) -> None:
    """After --head-timeout, whether a part is there or not."""
    caplog.set_level("INFO")
    for beginning in (b"", b"PROX"):
        one = wire()
        one.read(beginning)
        one.loop.due(7.0)
        assert one.given_up()
        assert one.settled
    assert caplog.text.count("it is not whole within --head-timeout") == 2


@on_loop
async def test_who_leaves_without_a_word_is_let_go(
    wire: Callable[..., Wire], caplog: pytest.LogCaptureFixture
) -> None:
    """As a health check of a load balancer does, which is no news."""
    caplog.set_level("INFO")
    one = wire("--proxy-protocol required")
    one.read()
    one.client.shutdown(socket.SHUT_WR)
    one.loop.wake()
    assert one.given_up()
    assert one.settled
    assert caplog.messages == []


@on_loop
async def test_an_error_of_the_socket_is_the_end(wire: Callable[..., Wire]) -> None:
    """A client that has reset its connection, for example."""
    one = wire()
    with socket.socket() as never_connected:
        one.accepted = Accepted(never_connected.detach(), socket.AF_INET, ("127.0.0.1", 5))
        one.preamble.read(one.accepted)
    (error,) = one.outcome
    assert isinstance(error, ConnectionAbortedError)


@on_loop
async def test_nobody_else_is_asked(
    wire: Callable[..., Wire], caplog: pytest.LogCaptureFixture
) -> None:
    """An untrusted peer's bytes are not looked at, and where they must be there, it must leave."""
    caplog.set_level("INFO")
    allowed = {"forwarded_allow_ips": ("192.0.2.1",)}
    one = wire(**allowed)
    one.read(V1)
    assert (one.outcome, one.left) == ([None], V1)
    other = wire("--proxy-protocol required", **allowed)
    other.preamble.read(other.accepted)
    assert other.given_up()
    assert "its sender is not in --forwarded-allow-ips" in caplog.text
