"""Accepting from a listener that several workers share, over real sockets."""

from __future__ import annotations

import asyncio
import errno
import inspect
import socket
import ssl
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from daphne_supervisor.config import Config, Http, Proxy
from daphne_supervisor.endpoints import Endpoint, parse
from daphne_supervisor.listeners import Listener
from daphne_supervisor.scoreboard import IDLE, Scoreboard
from daphne_supervisor.worker.acceptor import BURST, PAUSE, Acceptor
from daphne_supervisor.worker.fairness import STEP_BACK
from daphne_supervisor.worker.reactor import Accepted, LoopReactor
from daphne_supervisor.worker.service import Service
from daphne_supervisor.worker.tls_alert import descriptor
from tests.support.transports import Stage, on_loop, service

if TYPE_CHECKING:
    from collections.abc import Callable


V2_OF_TLS = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x14" + bytes(
    (192, 0, 2, 7, 192, 0, 2, 8, 0, 1, 0, 2, 0x20, 0, 5, 1, 0, 0, 0, 0)
)
"""A PROXY header whose client has spoken TLS."""


class Queue:
    """A listening socket whose queue is written down."""

    family = socket.AF_INET

    def __init__(self, *waiting: int | OSError, name: Any = ("127.0.0.1", 8000)) -> None:
        """Have these in the queue: connections, by number, and errors; be bound to `name`."""
        self._name = name
        self.waiting = list(waiting)
        self.closed = False
        self.given: list[Connected] = []

    def getsockname(self) -> Any:
        """Return what it is bound to."""
        return self._name

    def take(self) -> Connected:
        """Return the next connection, or raise the next error."""
        if not self.waiting:
            raise BlockingIOError
        first = self.waiting.pop(0)
        if isinstance(first, OSError):
            raise first
        self.given.append(Connected(first))
        return self.given[-1]

    def close(self) -> None:
        """Be closed."""
        self.closed = True


class Connected:
    """A connection that was accepted."""

    def __init__(self, number: int) -> None:
        """Be the connection `number`."""
        self.number = number
        self.peer = ("127.0.0.1", number)

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self.number


class Reactor:
    """A reactor whose event loop is the acceptor's fake too, and which serves nothing itself."""

    def __init__(self) -> None:
        """Watch nothing."""
        self.descriptors: list[int] = []
        self.loop = self
        self.readers: dict[object, Callable[[], object]] = {}
        self.later: list[tuple[float, Callable[[], object]]] = []
        self.served: list[tuple[Connected, Any, float]] = []
        self.names: list[Any] = []
        """What our ends of the accepted connections are said to be called."""
        self.error: Exception | None = None
        self.waiting = True
        """Whether somebody is seen to wait at the listener."""
        self.handshakes: list[Callable[[], None]] | None = None
        """What ends those that have begun, if they take time."""

    def add_reader(self, queue: object, callback: Callable[[], object]) -> None:
        """Watch."""
        self.readers[queue] = callback

    def remove_reader(self, queue: object) -> None:
        """Watch no more."""
        self.readers.pop(queue, None)

    def call_later(self, delay: float, callback: Callable[[], object]) -> None:
        """Note what is to be done later."""
        self.later.append((delay, callback))

    def readable(self, queue: object) -> bool:
        """Say what the test says."""
        assert queue not in self.readers, "who is woken need not look"
        return self.waiting

    def pass_time(self) -> float:
        """Do what is to be done next; return after how many seconds."""
        delay, callback = self.later.pop(0)
        callback()
        return delay

    def accept(self, queue: Queue, family: int, name: Any) -> Connected:
        """Take who waits first."""
        assert family == socket.AF_INET
        self.names.append(name)
        return queue.take()

    def serve(
        self,
        connection: Connected,
        build: Callable[[], Any],
        context: Any,
        patience: float,
        opened: Callable[[Exception | None], None],
    ) -> None:
        """Note what is to be served, when its handshake is done."""
        self.descriptors.append(descriptor.get())

        def finish() -> None:
            if self.error is None:
                build()
                self.served.append((connection, context, patience))
            opened(self.error)

        if self.handshakes is None:
            finish()
        else:
            self.handshakes.append(finish)

    def shake_hands(self) -> None:
        """End the handshakes that have begun."""
        assert self.handshakes
        for finish in self.handshakes:
            finish()
        self.handshakes = None


def acceptor(queue: Queue, served: Service | None = None) -> tuple[Acceptor, Reactor]:
    """Return an acceptor on `queue`."""
    reactor = Reactor()
    endpoint = Endpoint(kind="tcp", text="tcp:0", origin="--endpoint")
    listener = Listener(queue, endpoint, "TCP address x")  # type: ignore[arg-type]
    return Acceptor(listener, None, served or service(Stage()), reactor), reactor  # type: ignore[arg-type]


def secure_acceptor(queue: Queue, served: Service) -> tuple[Acceptor, Reactor, SimpleNamespace]:
    """Return an acceptor that speaks TLS, and its credentials."""
    reactor = Reactor()
    endpoint = Endpoint(kind="tcp", text="tcp:0", origin="--endpoint")
    listener = Listener(queue, endpoint, "TCP address x")  # type: ignore[arg-type]
    credentials = SimpleNamespace(context=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    return Acceptor(listener, credentials, served, reactor), reactor, credentials  # type: ignore[arg-type]


@on_loop
async def test_who_waits_is_served() -> None:
    """At once; there is no handshake before."""
    queue = Queue(1)
    accepting, reactor = acceptor(queue)
    reactor.handshakes = []
    accepting.open()
    reactor.readers[queue]()
    assert accepting.opening == 1
    reactor.shake_hands()
    ((connection, context, patience),) = reactor.served
    assert (connection.number, context, patience) == (1, None, 0.0)
    assert accepting.opening == 0


@on_loop
async def test_who_has_no_siblings_takes_several_at_a_wake_up() -> None:
    """So many that those who are connected need not wait for it."""
    queue = Queue(*range(BURST + 2))
    accepting, reactor = acceptor(queue)
    accepting.open()
    reactor.readers[queue]()
    assert queue.waiting == [BURST, BURST + 1]
    reactor.readers[queue]()
    assert queue.waiting == []
    assert len(reactor.served) == BURST + 2


@on_loop
async def test_who_takes_several_stops_where_it_cannot() -> None:
    """It is left alone for a moment, and goes on with the next."""
    queue = Queue(1, OSError(errno.EMFILE, "no more"), 2)
    accepting, reactor = acceptor(queue)
    accepting.open()
    reactor.readers[queue]()
    assert (queue.waiting, reactor.readers) == ([2], {})


@on_loop
async def test_who_takes_several_stops_where_it_is_full(caplog: pytest.LogCaptureFixture) -> None:
    """At --max-connections, as one by one."""
    pool = Pool(max_connections=2)
    pool.wake()
    assert (pool.taken, caplog.text) == (2, "")
    pool.wake()
    assert (pool.taken, pool.watches) == (2, False)
    assert "--max-connections 2" in caplog.text


@on_loop
async def test_one_connection_is_taken_at_each_wake_up() -> None:
    """The rest is left for the siblings; for those that accept, to be exact."""
    pool = Pool(5)
    pool.wake()
    assert pool.taken == 1
    pool.board.post(2, IDLE)
    pool.wake()
    assert pool.taken == 9


@pytest.mark.parametrize(
    "error", [BlockingIOError(), InterruptedError(), ConnectionAbortedError()], ids=repr
)
@on_loop
async def test_a_connection_that_a_sibling_took_is_no_error(error: OSError) -> None:
    """All workers are woken for it, one gets it."""
    queue = Queue(error)
    accepting, reactor = acceptor(queue)
    accepting.open()
    assert not accepting.accept()
    assert queue in reactor.readers
    assert reactor.later == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EPERM])
@on_loop
async def test_a_listener_that_cannot_accept_is_left_alone(
    number: int, caplog: pytest.LogCaptureFixture
) -> None:
    """For a moment, rather than to be woken for it without end; then it goes on."""
    queue = Queue(OSError(number, "no more"), 1)
    accepting, reactor = acceptor(queue)
    accepting.open()
    assert not accepting.accept()
    assert "TCP address x: cannot accept: no more" in caplog.text
    assert reactor.readers == {}
    ((delay, resume),) = reactor.later
    assert delay == PAUSE
    resume()
    assert queue in reactor.readers


@on_loop
async def test_a_listener_that_was_closed_meanwhile_stays_closed() -> None:
    """The worker may begin to leave in that moment."""
    queue = Queue(OSError(errno.EMFILE, "no more"))
    accepting, reactor = acceptor(queue)
    accepting.open()
    accepting.accept()
    accepting.close(last_call=True)
    reactor.later[0][1]()
    assert reactor.readers == {}


@on_loop
async def test_who_waits_at_the_end_is_still_served() -> None:
    """The queue of a socket that its last owner closes would be reset."""
    queue = Queue(1, 2, 3)
    accepting, reactor = acceptor(queue)
    accepting.open()
    accepting.close(last_call=True)
    assert [entry[0].number for entry in reactor.served] == [1, 2, 3]
    assert queue.closed
    assert reactor.readers == {}


@on_loop
async def test_who_waits_is_left_to_the_siblings_while_the_service_goes_on() -> None:
    """A WebSocket that a leaving worker took would be refused."""
    queue = Queue(1, 2, 3)
    accepting, reactor = acceptor(queue)
    accepting.open()
    accepting.close(last_call=False)
    assert reactor.served == []
    assert (queue.waiting, queue.closed) == ([1, 2, 3], True)


@on_loop
async def test_an_error_at_the_end_does_not_keep_the_worker() -> None:
    """It closes, whatever the system says."""
    queue = Queue(OSError(errno.EMFILE, "no more"), 1)
    accepting, _ = acceptor(queue)
    accepting.open()
    accepting.close(last_call=True)
    assert queue.closed


@on_loop
async def test_a_worker_that_never_accepted_takes_nothing_with_it() -> None:
    """Its application may not have started: its siblings serve who waits."""
    queue = Queue(1)
    accepting, _ = acceptor(queue)
    accepting.close(last_call=True)
    assert (queue.waiting, queue.closed) == ([1], True)


# -- the siblings --


class Pool:
    """The worker in slot 1 of several, its acceptor and what the test says of the others."""

    def __init__(self, *others: int, waiting: int = 9, **http: Any) -> None:
        """Have siblings with so many connections each, and `waiting` in the queue."""
        self.board = Scoreboard()
        for slot, connections in enumerate(others, start=2):
            self.board.post(slot, connections)
        config = Config(application="tests:application", http=Http(**http))
        loop = asyncio.get_running_loop()
        self.service = Service(config, Stage(), None, loop, scoreboard=self.board, slot=1)
        self.queue = Queue(*range(waiting))
        self.acceptor, self.reactor = acceptor(self.queue, self.service)
        self.acceptor.open()

    def wake(self, times: int = 1) -> None:
        """Say that a connection waits."""
        for _ in range(times):
            self.reactor.readers[self.queue]()

    @property
    def taken(self) -> int:
        """How many connections were taken."""
        return len(self.queue.given)

    @property
    def watches(self) -> bool:
        """Whether it is woken for connections."""
        return self.queue in self.reactor.readers

    @property
    def posted(self) -> int:
        """What the siblings see of it."""
        return self.board.counts()[0]


@on_loop
async def test_the_siblings_see_what_is_taken() -> None:
    """From the beginning, with the handshakes, until the worker leaves."""
    pool = Pool(5)
    assert pool.posted == 0
    pool.reactor.handshakes = []
    pool.wake()
    assert pool.posted == 1
    pool.reactor.shake_hands()
    assert pool.posted == 1
    pool.acceptor.close(last_call=True)
    assert pool.posted == IDLE


@on_loop
async def test_a_connection_that_does_not_come_about_is_no_load() -> None:
    """The siblings see it go."""
    pool = Pool(5)
    pool.reactor.error = OSError("gone")
    pool.wake()
    assert pool.posted == 0


@on_loop
async def test_who_has_more_than_its_share_leaves_it_to_the_others() -> None:
    """For a moment; when nothing waits after it, they have taken it."""
    pool = Pool(0, 0)
    pool.wake(3)
    assert (pool.taken, pool.watches) == (2, False)
    pool.reactor.waiting = False
    assert pool.reactor.pass_time() == STEP_BACK
    assert (pool.taken, pool.watches) == (2, True)


@on_loop
async def test_what_is_left_and_not_taken_is_taken_after_all() -> None:
    """The siblings hang: one step back more for each doubling of what we have ahead of them."""
    pool = Pool(0, 0, 0)
    pool.wake(3)
    assert pool.reactor.pass_time() == STEP_BACK
    assert pool.watches
    pool.wake()
    assert pool.taken == 3


@on_loop
async def test_who_stepped_back_looks_again_while_the_others_move() -> None:
    """And is not woken meanwhile."""
    pool = Pool(0, 0, 0)
    pool.wake(3)
    for connections in range(1, 4):
        pool.board.post(2, connections % 2)
        assert pool.reactor.pass_time() == STEP_BACK
        assert (pool.taken, pool.watches) == (2, False)
    assert pool.reactor.pass_time() == STEP_BACK
    assert pool.watches


@on_loop
async def test_who_leaves_while_it_steps_back_does_not_look_again() -> None:
    """Its listener is closed; what waits was taken before that."""
    pool = Pool(0, 0, 0)
    pool.wake(3)
    pool.acceptor.close(last_call=True)
    assert pool.taken == 9
    pool.reactor.pass_time()
    assert not pool.watches
    assert pool.reactor.later == []


@on_loop
async def test_who_cannot_accept_is_no_measure_for_the_others() -> None:
    """Until there are resources again."""
    pool = Pool(5, waiting=0)
    pool.queue.waiting = [OSError(errno.EMFILE, "no more")]
    pool.wake()
    assert pool.posted == IDLE
    assert pool.reactor.pass_time() == PAUSE
    assert pool.posted == 0
    assert pool.watches


@on_loop
async def test_a_full_worker_accepts_no_more(caplog: pytest.LogCaptureFixture) -> None:
    """At --max-connections the others wait in the queue, until one of them ends."""
    pool = Pool(9, 9, max_connections=2)
    pool.wake(3)
    assert (pool.taken, pool.watches, pool.posted) == (2, False, IDLE)
    assert "worker 1: --max-connections 2: no more are accepted" in caplog.text
    pool.service.share.exit()
    assert (pool.taken, pool.watches, pool.posted) == (2, True, 1)
    pool.wake(2)
    assert (pool.taken, pool.watches) == (3, False)
    assert caplog.text.count("--max-connections") == 1


@on_loop
async def test_a_full_worker_that_leaves_takes_who_waits_all_the_same() -> None:
    """Nobody could be told when there is room."""
    pool = Pool(9, 9, max_connections=2)
    pool.wake(3)
    pool.acceptor.close(last_call=True)
    assert pool.taken == 9
    pool.service.share.exit()
    assert not pool.watches


# -- what becomes of a connection --


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (OSError("gone"), "DEBUG"),
        (ssl.SSLError("no cipher"), "DEBUG"),
        (ZeroDivisionError(), "ERROR"),
    ],
    ids=repr,
)
@on_loop
async def test_a_connection_that_does_not_come_about_is_named(
    error: Exception, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Mostly it is the client's affair: a line for those who look for it; ours is an error."""
    caplog.set_level("DEBUG")
    queue = Queue(1)
    served = service(Stage())
    accepting, reactor = acceptor(queue, served)
    reactor.error = error
    assert accepting.accept()
    assert (accepting.opening, served.share.connections) == (0, 0)
    lines = [record.levelname for record in caplog.records if "come about" in record.message]
    assert lines == [level]


@on_loop
async def test_a_handshake_that_is_not_done_is_counted() -> None:
    """A worker that leaves waits for it."""
    accepting, reactor = acceptor(Queue(1))
    reactor.handshakes = []
    accepting.accept()
    assert accepting.opening == 1
    reactor.shake_hands()
    assert accepting.opening == 0


@on_loop
async def test_credentials_make_connections_secure() -> None:
    """What is served over TLS has the context that is in force when it begins, and its time."""
    accepting, reactor, credentials = secure_acceptor(Queue(1, 2), service(Stage()))
    accepting.accept()
    first = credentials.context
    credentials.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.accept()
    assert [context for _, context, _ in reactor.served] == [first, credentials.context]
    assert [patience for _, _, patience in reactor.served] == [10.0, 10.0]
    assert reactor.descriptors == [1, 2]
    assert descriptor.get() == -1
    assert accepting.opening == 0


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (None, None),
        (ConnectionResetError(), None),
        (
            ConnectionAbortedError("SSL handshake is taking longer than 10 seconds"),
            (
                "TCP address x: TLS handshake with 127.0.0.1:1 failed: not done within"
                " --tls-handshake-timeout"
            ),
        ),
    ],
)
@on_loop
async def test_a_handshake_that_fails_is_explained(
    error: Exception | None, line: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """In one line, with the client; who has left is not worth one."""
    caplog.set_level("INFO")
    served = service(Stage())
    accepting, reactor, _ = secure_acceptor(Queue(1), served)
    reactor.error = error
    accepting.accept()
    said = [each.getMessage() for each in caplog.records]
    assert said == ([] if line is None else [line])
    assert (accepting.opening, served.share.connections) == (0, 0 if error else 1)


@pytest.mark.parametrize(
    ("bound", "known"),
    [
        (("127.0.0.1", 80), ("127.0.0.1", 80)),
        (("fd00::1", 80, 0, 0), ("fd00::1", 80, 0, 0)),
        (("0.0.0.0", 80), None),
        (("::", 80, 0, 0), None),
        ("/run/x.socket", None),
    ],
)
@on_loop
async def test_our_end_s_name_is_known_where_all_share_it(bound: Any, known: Any) -> None:
    """A listener on every interface does not know by which one a client will come."""
    queue = Queue(1, name=bound)
    accepting, reactor = acceptor(queue)
    accepting.open()
    reactor.readers[queue]()
    assert reactor.names[0] == known


class Proxied:
    """Connections that a proxy passes on, and what is built for them."""

    def __init__(self, text: str = "tcp:0", **proxy: Any) -> None:
        """Listen as the endpoint says."""
        self.client, self._ours = socket.socketpair()
        self.accepted = Accepted(self._ours.fileno(), socket.AF_UNIX, ("127.0.0.1", 5))
        self.served = service(Stage(), proxy=Proxy(**proxy))
        listener = Listener(Queue(), parse(text, "--endpoint"), "TCP address x")  # type: ignore[arg-type]
        self.built: Any = None
        self.entrance = Entrance()
        plugged = self.entrance if text == "haproxy:fd:3" else None
        self.acceptor = Acceptor(listener, None, self.served, self, plugged)  # type: ignore[arg-type]

    def accept(self, *_: object) -> Accepted:
        """Take who waits."""
        return self.accepted

    def serve(self, accepted: Accepted, build: Any, *rest: Any) -> None:
        """Build what serves, and open it."""
        assert accepted is self.accepted
        self.built = build()
        rest[-1](None)

    def take(self, data: bytes) -> None:
        """Send `data`, and be accepted."""
        self.client.send(data)
        assert self.acceptor.accept()

    def close(self) -> None:
        """Be gone."""
        self.client.close()
        self._ours.close()


class Entrance:
    """A plug-in's, which builds what it was told."""

    opened = 0

    def open(self) -> None:
        """Begin."""
        self.opened += 1

    def close(self) -> None:
        """End."""
        self.opened -= 1

    def build(self, peer: Any, opening: Callable[[int], None], **how: bool) -> Any:
        """Return what it was given."""
        opening(3)
        return peer, how


@pytest.mark.parametrize(
    ("data", "peer", "forwards", "secure"),
    [
        (b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n", ("192.0.2.7", 1), True, False),
        (b"PROXY UNKNOWN\r\n", ("127.0.0.1", 5), False, False),
        (V2_OF_TLS, ("192.0.2.7", 1), True, True),
    ],
)
@on_loop
async def test_a_proxy_says_whose_connection_it_is(
    data: bytes,
    peer: Any,
    forwards: bool,  # noqa: FBT001
    secure: bool,  # noqa: FBT001
) -> None:
    """And whether there was TLS; to a plug-in as to a connection of our own."""
    own = Proxied("haproxy:tcp:0")
    own.take(data)
    assert (own.accepted.peer, own.built.forwards, own.acceptor.opening) == (peer, forwards, 0)
    assert own.built._secure is secure
    other = Proxied("haproxy:fd:3")
    other.take(data)
    assert other.built == (peer, {"forwards": forwards, "secure": secure})
    assert other.acceptor.opening == 3
    own.close()
    other.close()


@on_loop
async def test_a_header_is_asked_for_by_the_option_too() -> None:
    """Optional, it may be missing; required, the connection is counted out, and closed."""
    optional = Proxied(proxy_protocol="optional")
    optional.take(b"GET / HTTP/1.1\r\n")
    assert optional.built.forwards
    optional.close()
    required = Proxied(proxy_protocol="required")
    required.take(b"GET / HTTP/1.1\r\n")
    assert required.built is None
    assert (required.acceptor.opening, required.served.share.connections) == (0, 0)
    required._ours.detach()
    required.close()


@on_loop
async def test_a_plug_in_begins_and_ends_with_its_listener() -> None:
    """When the worker accepts, and when it leaves."""
    reactor, entrance = Reactor(), Entrance()
    endpoint = Endpoint(kind="tcp", text="box:0", origin="--endpoint", plugin="box:0")
    listener = Listener(Queue(), endpoint, "TCP address x")  # type: ignore[arg-type]
    accepting = Acceptor(listener, None, service(Stage()), reactor, entrance)  # type: ignore[arg-type]
    accepting.open()
    assert entrance.opened == 1
    accepting.close(last_call=False)
    assert entrance.opened == 0


def test_the_real_reactor_has_what_the_fake_has() -> None:
    """With the same parameters, by position."""
    for name in ("accept", "serve", "readable"):
        fake, real = (
            list(inspect.signature(getattr(kind, name)).parameters.values())
            for kind in (Reactor, LoopReactor)
        )
        if not isinstance(inspect.getattr_static(LoopReactor, name), staticmethod):
            real = real[1:]
        assert len(fake[1:]) == len(real)
