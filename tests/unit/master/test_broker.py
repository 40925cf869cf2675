"""The master's side of the broker: real sockets, and a process that only waits."""

from __future__ import annotations

import errno
import logging
import os
import selectors
import signal
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import pytest
import setproctitle

from daphne_supervisor.broker.address import connect, listen, text_of
from daphne_supervisor.broker.frames import ACK, HELLO, frame, named
from daphne_supervisor.endpoints import parse
from daphne_supervisor.listeners import Listener
from daphne_supervisor.master.birth import fork
from daphne_supervisor.master.broker import BrokerHandle, BrokerState, live
from daphne_supervisor.master.policy import STABLE_LIFE
from tests.support.births import ended, heritage
from tests.support.fake_processes import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator


class Desk:
    """A handle whose brokers are processes that wait for the end of their lifeline."""

    def __init__(self) -> None:
        """Begin with no broker."""
        self.clock = Clock()
        self.listener = listen()
        self.selector = selectors.DefaultSelector()
        self.handle = BrokerHandle(self.listener, self._start, self._end, self.clock)
        self.pids: list[int] = []
        self.refusal: OSError | None = None
        self._clients: list[socket.socket] = []

    def __enter__(self) -> Self:
        """Be ready."""
        self.handle.begin(self.selector)
        return self

    def __exit__(self, *_: object) -> None:
        """End who is left."""
        self.handle.close()
        self.selector.close()
        for one in self._clients:
            one.close()

    def _start(self, lifeline: socket.socket) -> int:
        if self.refusal is not None:
            raise self.refusal

        def wait() -> int:
            self.handle.leave_alone()
            lifeline.recv(1)
            return 0

        self.pids.append(fork(wait))
        return self.pids[-1]

    def _end(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        assert ended(pid) == "signal SIGKILL"

    def connects(self) -> None:
        """Let somebody connect, and the master look."""
        self._clients.append(connect(text_of(self.listener)))
        self.look()

    def look(self) -> int:
        """Do what is due; return for how many sockets."""
        self.handle.wake()
        ready = self.selector.select(0)
        for key, _ in ready:
            assert key.data() == []
        return len(ready)

    def dies(self) -> None:
        """Let the broker die, and the master hear of it."""
        os.kill(self.pids[-1], signal.SIGKILL)
        how = ended(self.pids[-1])
        self.handle.recognise({self.pids[-1]: how})

    @property
    def state(self) -> str:
        """The handle's state."""
        return repr(self.handle).split()[1]


@pytest.fixture
def desk() -> Iterator[Desk]:
    """Yield a desk."""
    with Desk() as found:
        yield found


def test_the_broker_is_started_when_somebody_connects(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """Not before, and once; the log says at which address, for processes beside the service."""
    caplog.set_level(logging.INFO)
    assert desk.look() == 0
    assert desk.state == "DORMANT"
    desk.connects()
    desk.connects()
    assert len(desk.pids) == 1
    assert desk.state == "RUNNING"
    assert desk.handle.deadline() is None
    assert f"broker pid {desk.pids[0]}: started, at {text_of(desk.listener)}" in caplog.text


def test_a_dead_broker_is_replaced_when_somebody_connects(desk: Desk) -> None:
    """At once the first time, since whoever was connected connects again at once."""
    desk.connects()
    desk.handle.recognise({1: "exit code 0"})
    assert desk.state == "RUNNING"
    desk.dies()
    assert desk.state == "DORMANT"
    desk.handle.recognise({desk.pids[0]: "a second time"})
    desk.look()
    assert len(desk.pids) == 2


def test_one_that_dies_again_and_again_is_waited_with(desk: Desk) -> None:
    """As a worker is; those who connect meanwhile wait, and one stable life clears the count."""
    desk.connects()
    desk.dies()
    desk.look()
    desk.dies()
    assert desk.state == "RESTING"
    assert desk.handle.deadline() == desk.clock.now + 0.5
    desk.connects()
    assert len(desk.pids) == 2
    desk.clock.now += 0.5
    desk.look()
    assert len(desk.pids) == 3
    desk.clock.now += STABLE_LIFE
    desk.dies()
    assert desk.state == "DORMANT"


def test_a_broker_that_cannot_be_forked_is_tried_again(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """The master goes on, and the log has the reason."""
    desk.refusal = OSError(errno.EAGAIN, "no room")
    desk.connects()
    assert "broker: could not be forked: no room" in caplog.text
    desk.look()
    assert desk.state == "RESTING"
    desk.refusal = None
    desk.clock.now += 0.5
    desk.look()
    assert desk.state == "RUNNING"


def test_the_broker_ends_with_the_master(desk: Desk) -> None:
    """It is killed and reaped; the address is nobody's any more."""
    desk.connects()
    address = text_of(desk.listener)
    desk.handle.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(desk.pids[0], 0)
    with pytest.raises(ConnectionRefusedError):
        connect(address)
    desk.handle.close()


def test_a_child_lets_go_of_the_lifeline(desk: Desk) -> None:
    """Held open elsewhere, it would hide the death of the master from the broker."""
    desk.connects()
    desk.handle.leave_alone()
    assert ended(desk.pids[0]) == "exit code 0"
    desk.handle.recognise({desk.pids[0]: "exit code 0"})


def test_without_a_socket_there_is_no_broker() -> None:
    """Nothing is watched, and nothing is due."""
    handle = BrokerHandle(None, lambda _: 0, lambda _: None, Clock())
    with selectors.DefaultSelector() as selector:
        handle.begin(selector)
        assert not selector.get_map()
        handle.wake()
        assert handle.deadline() is None
    handle.close()


def test_a_move_that_is_not_in_the_table_is_a_bug() -> None:
    """It raises."""
    handle = BrokerHandle(None, lambda _: 0, lambda _: None, Clock())
    with pytest.raises(LookupError, match="OVER pid 0> cannot be RUNNING"):
        handle._move(BrokerState.RUNNING)


@pytest.fixture
def same_title() -> Iterator[None]:
    """Give the test process its title back."""
    before = setproctitle.getproctitle()
    yield
    setproctitle.setproctitle(before)


@pytest.mark.usefixtures("same_title")
def test_the_broker_s_process_serves_and_survives_signals_to_the_whole_service() -> None:
    """It has none of the service's listeners, and leaves when master and clients are gone."""
    with listen() as meeting, socket.create_server(("127.0.0.1", 0)) as web:
        listener = Listener(web, parse("tcp:0", "--port"), "TCP address")
        near, far = socket.socketpair()
        with near, far:
            born_with = replace(heritage(listeners=(listener,)), broker=meeting)
            pid = fork(lambda: live(born_with, far), abandon=near.close)
        with connect(text_of(meeting)) as client:
            client.setblocking(True)
            client.settimeout(10)
            for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
                client.send(frame(HELLO, int(number), named("anna") + b"\1"))
                assert client.recv(100) == frame(ACK, int(number))
                os.kill(pid, number)
            files = {os.readlink(f"/proc/{pid}/fd/{one}") for one in os.listdir(f"/proc/{pid}/fd")}
            assert os.readlink(f"/proc/self/fd/{web.fileno()}") not in files
            client.send(frame(HELLO, 99, named("anna") + b"\1"))
            assert client.recv(100) == frame(ACK, 99)
    assert ended(pid) == "exit code 0"
