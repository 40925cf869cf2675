"""Accepting from a listener that several workers share, over real sockets."""

from __future__ import annotations

import asyncio
import errno
import inspect
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from daphne_supervisor.config import Config, Http
from daphne_supervisor.endpoints import Endpoint
from daphne_supervisor.listeners import Listener
from daphne_supervisor.scoreboard import IDLE, Scoreboard
from daphne_supervisor.worker.acceptor import BURST, PAUSE, Acceptor
from daphne_supervisor.worker.fairness import STEP_BACK
from daphne_supervisor.worker.reactor import LoopReactor
from daphne_supervisor.worker.service import Service
from tests.support.transports import Stage, on_loop, service

if TYPE_CHECKING:
    from collections.abc import Callable


class Queue:
    """A listening socket whose queue is written down."""

    family = socket.AF_INET

    def __init__(self, *waiting: int | OSError) -> None:
        """Have these in the queue: connections, by number, and errors."""
        self.waiting = list(waiting)
        self.closed = False
        self.given: list[Connected] = []

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


class Reactor:
    """A reactor whose event loop is the acceptor's fake too, and which serves nothing itself."""

    def __init__(self) -> None:
        """Watch nothing."""
        self.loop = self
        self.readers: dict[object, Callable[[], object]] = {}
        self.later: list[tuple[float, Callable[[], object]]] = []
        self.served: list[tuple[Connected, Any, float]] = []
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

    def accept(self, queue: Queue, family: int) -> Connected:
        """Take who waits first."""
        assert family == socket.AF_INET
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


@on_loop
async def test_who_waits_is_served() -> None:
    """With the time for a handshake that --head-timeout gives."""
    queue = Queue(1)
    accepting, reactor = acceptor(queue)
    reactor.handshakes = []
    accepting.open()
    reactor.readers[queue]()
    assert accepting.opening == 1
    reactor.shake_hands()
    ((connection, context, patience),) = reactor.served
    assert (connection.number, context, patience) == (1, None, 30.0)
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
async def test_a_context_makes_connections_secure() -> None:
    """What is served over TLS knows it."""
    served = service(Stage())
    reactor = Reactor()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    endpoint = Endpoint(kind="tcp", text="tcp:0", origin="--endpoint")
    listener = Listener(Queue(1), endpoint, "TCP address x")  # type: ignore[arg-type]
    Acceptor(listener, context, served, reactor).accept()  # type: ignore[arg-type]
    assert reactor.served[0][1] is context


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
