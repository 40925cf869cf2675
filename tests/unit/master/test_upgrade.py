"""Both ends of an upgrade: with real processes where one is started, with a channel elsewhere."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import selectors
import signal
import socket
from typing import TYPE_CHECKING

import pytest
import setproctitle

from daphne_supervisor import listeners as listening
from daphne_supervisor.config import Bind
from daphne_supervisor.endpoints import parse
from daphne_supervisor.master.announce import Notifier
from daphne_supervisor.master.model import (
    Announce,
    Dismiss,
    Event,
    HandOver,
    Launch,
    Milestone,
    SuccessorExited,
    SuccessorReady,
    TakeBack,
)
from daphne_supervisor.master.office import Office
from daphne_supervisor.master.pid_file import PidFile
from daphne_supervisor.master.successor import Inheritance, Start, Successor
from daphne_supervisor.master.upgrade import Upgrade, Word, obstacle
from tests.support.births import PATIENCE, ended, line, no_room
from tests.support.succession import UNTIL_TOLD, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daphne_supervisor.listeners import Listener

PARENT = os.getppid()
GONE = 1 << 30
"""No process has an id like this."""


class Manager:
    """A service manager that remembers what it is told."""

    def __init__(self, folder: Path) -> None:
        """Listen in `folder`."""
        self.address = str(folder / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(self.address)

    def hears(self) -> list[str]:
        """Return the first line of everything that was said since the last call."""
        heard = []
        while True:
            try:
                heard.append(self.socket.recv(4096).decode().splitlines()[0])
            except BlockingIOError:
                return heard


class Stage:
    """A master's half of an upgrade, and what it is told and tells."""

    def __init__(self, folder: Path) -> None:
        """Set up a master that has a pid file in `folder`, and listens on nothing."""
        self.folder = folder
        self.manager = Manager(folder)
        self.selector = selectors.DefaultSelector()
        self.path = folder / "pid"
        self.office = Office(
            Notifier({"NOTIFY_SOCKET": self.manager.address}),
            PidFile(str(self.path)),
            (),
            "shop.asgi:application",
        )

    def upgrade(
        self,
        command: tuple[str, ...] = UNTIL_TOLD,
        *listeners: Listener,
        predecessor: socket.socket | None = None,
        process: int = PARENT,
    ) -> Upgrade:
        """Begin as a master whose successor is started by `command`."""
        left = None if predecessor is None else Inheritance(process, predecessor, "[]")
        start = Start(command, str(self.folder), {})
        self.present = Upgrade(left, self.office, listeners, start)
        self.present.begin(self.selector)
        self.office.announce(Announce(Milestone.READY, "1/1 workers ready", "all are ready"))
        return self.present

    def turn(self) -> list[Event]:
        """Wait until somebody says something; return what comes of it."""
        events: list[Event] = []
        found = self.selector.select(PATIENCE)
        assert found, "nothing was said"
        for key, _ in found:
            events += key.data()
        return events

    def end(self) -> None:
        """End a successor that is left, and close everything."""
        with contextlib.suppress(AttributeError):
            successor = self.present._successor
            self.present.abandon()
            if successor is not None:
                os.kill(successor.pid, signal.SIGKILL)
                ended(successor.pid)
        self.office.leave()
        self.selector.close()
        self.manager.socket.close()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Return a stage."""
    stage = Stage(tmp_path)
    yield stage
    stage.end()


@pytest.fixture
def old() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return the channel to an old master: its end, and the end of the new one."""
    theirs, ours = socket.socketpair()
    theirs.settimeout(PATIENCE)
    with theirs, ours:
        yield theirs, ours


@pytest.fixture(autouse=True)
def same_title() -> Iterator[None]:
    """Give the test process its title back."""
    before = setproctitle.getproctitle()
    yield
    setproctitle.setproctitle(before)


def test_process_1_cannot_be_upgraded() -> None:
    """When it leaves, everything in its container ends."""
    assert "process 1" in obstacle(1, young=False)


def test_a_new_master_is_not_upgraded_before_the_old_one_has_left() -> None:
    """There are never three masters."""
    assert "has not left yet" in obstacle(2, young=True)
    assert obstacle(2, young=False) == ""


# The old master's end


def test_who_has_no_predecessor_takes_office_at_once(stage: Stage) -> None:
    """As the service does at its start; there is nobody to be told of readiness."""
    upgrade = stage.upgrade()
    assert stage.office.held
    upgrade.ready()
    assert stage.manager.hears() == ["READY=1"]
    assert upgrade.recognise({1: "exit code 0"}) == []


def test_an_upgrade_is_handed_over_and_ends_with_the_old_master(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """The new master hears `go` after the service manager has heard its process id."""
    body = 'channel.sendall(b"ready\\n")\nassert channel.recv(9) == b"go\\n"\nsys.exit(5)'
    upgrade = stage.upgrade(program(body))
    with caplog.at_level(logging.INFO):
        assert upgrade.perform(Launch("asked to")) == []
        successor = upgrade._successor
        assert successor is not None
        assert stage.turn() == [SuccessorReady()]
        assert stage.office.held
        assert upgrade.perform(HandOver("it is ready")) == []
    assert not stage.office.held
    assert stage.manager.hears() == ["READY=1", f"MAINPID={successor.pid}"]
    assert stage.turn() == []  # the end of the channel
    how = ended(successor.pid)
    assert upgrade.recognise({successor.pid + 1: "exit code 0"}) == []
    assert upgrade.recognise({successor.pid: how}) == [SuccessorExited("exit code 5")]
    assert upgrade.recognise({successor.pid: how}) == []
    assert [record.getMessage() for record in caplog.records] == [
        f"upgrade: the new master is process {successor.pid}: asked to",
        "upgrade: the new master takes over: it is ready",
    ]


def test_listeners_are_handed_over(stage: Stage) -> None:
    """The new master finds them by what describes them."""
    body = """
[found] = json.loads(left["listeners"])
sock = socket.socket(fileno=found["socket"])
channel.sendall(f"{sock.getsockname()[1]}\\n".encode())
"""
    opened = listening.open_all([parse("tcp:0:interface=127.0.0.1", "--endpoint")], Bind())
    try:
        upgrade = stage.upgrade(program(body), *opened)
        upgrade.perform(Launch("asked to"))
        successor = upgrade._successor
        assert successor is not None
        port = opened[0].socket.getsockname()[1]
        assert line(successor.channel) == f"{port}\n"
    finally:
        listening.release(opened)


def test_a_new_master_that_dies_first_has_failed(stage: Stage) -> None:
    """Its death may be known before the end of its channel is."""
    upgrade = stage.upgrade(program("sys.exit(3)"))
    upgrade.perform(Launch("asked to"))
    successor = upgrade._successor
    assert successor is not None
    dead = {successor.pid: ended(successor.pid)}
    assert upgrade.recognise(dead) == [SuccessorExited("exit code 3")]
    assert not stage.selector.get_map()
    assert stage.office.held
    assert stage.manager.hears() == ["READY=1"]


def test_an_upgrade_that_cannot_be_forked_has_failed(stage: Stage) -> None:
    """The system's own words say why."""
    upgrade = stage.upgrade()
    with no_room():
        [event] = upgrade.perform(Launch("asked to"))
    assert isinstance(event, SuccessorExited)
    assert event.how.startswith("the new master could not be forked: ")
    assert not event.asked
    assert not stage.selector.get_map()


def test_a_new_master_that_boots_is_dismissed_with_sigterm(stage: Stage) -> None:
    """Its end is one that was asked for."""
    upgrade = stage.upgrade()
    upgrade.perform(Launch("asked to"))
    successor = upgrade._successor
    assert successor is not None
    assert stage.turn() == [SuccessorReady()]
    upgrade.perform(Dismiss("asked to go back"))
    assert line(successor.channel) == "SIGTERM\n"
    dead = {successor.pid: ended(successor.pid)}
    assert upgrade.recognise(dead) == [SuccessorExited("exit code 0", asked=True)]


def test_an_upgrade_is_taken_back(stage: Stage) -> None:
    """The manager may listen to the new one only, so it hears everything again after its end."""
    body = """
channel.sendall(b"ready\\n")
assert channel.recv(3) == b"go\\n"
assert channel.recv(5) == b"back\\n"
until_told(b"will go\\n")
"""
    upgrade = stage.upgrade(program(body))
    upgrade.perform(Launch("asked to"))
    successor = upgrade._successor
    assert successor is not None
    assert stage.turn() == [SuccessorReady()]
    upgrade.perform(HandOver("it is ready"))
    stage.manager.hears()
    upgrade.perform(TakeBack("asked to go back"))
    assert stage.office.held
    assert stage.manager.hears() == [f"MAINPID={os.getpid()}"]
    assert line(successor.channel) == "will go\n"
    upgrade.perform(Dismiss("asked to go back"))
    assert line(successor.channel) == "SIGINT\n"  # not to linger for --shutdown-delay
    assert stage.turn() == []
    assert stage.manager.hears() == ["READY=1"]
    upgrade.recognise({successor.pid: ended(successor.pid)})
    assert stage.manager.hears() == []


def test_who_is_gone_is_neither_told_nor_handed_over_to(stage: Stage) -> None:
    """What was decided in the same step as the end was heard of comes to nothing."""
    upgrade = stage.upgrade()
    upgrade.perform(HandOver("it was ready"))
    upgrade.perform(Dismiss("it was to go"))
    assert stage.office.held
    upgrade.perform(TakeBack("it is gone"))
    assert stage.office.held
    assert stage.manager.hears() == ["READY=1", f"MAINPID={os.getpid()}"]


def test_a_word_to_the_dead_is_no_error(stage: Stage) -> None:
    """Their end is heard of in its time."""
    upgrade = stage.upgrade(program("channel.close()"))
    upgrade.perform(Launch("asked to"))
    successor = upgrade._successor
    assert successor is not None
    dead = {successor.pid: ended(successor.pid)}
    upgrade.perform(HandOver("it was ready"))
    assert upgrade.recognise(dead) == [SuccessorExited("exit code 0", asked=True)]


# The new master's end


def test_a_new_master_waits_for_the_word(
    stage: Stage, old: tuple[socket.socket, socket.socket]
) -> None:
    """It says that it is ready, is nobody until it hears `go`, and then says so to the manager."""
    theirs, ours = old
    upgrade = stage.upgrade(predecessor=ours)
    assert not stage.office.held
    upgrade.ready()
    assert theirs.recv(99) == Word.READY
    assert stage.manager.hears() == []
    assert not stage.path.exists()
    theirs.send(Word.GO)
    assert stage.turn() == []
    assert stage.office.held
    assert stage.path.read_text() == f"{os.getpid()}\n"
    assert stage.manager.hears() == ["READY=1"]
    upgrade.ready()
    assert select.select([theirs], [], [], 0)[0] == []


def test_a_new_master_is_not_upgraded_while_the_old_one_is_there(
    stage: Stage, old: tuple[socket.socket, socket.socket]
) -> None:
    """When that has left, it can be."""
    theirs, ours = old
    upgrade = stage.upgrade(predecessor=ours)
    theirs.send(Word.GO)
    stage.turn()
    reason = "the old master of the last upgrade has not left yet"
    assert upgrade.perform(Launch("asked to")) == [SuccessorExited(reason)]
    theirs.close()
    stage.turn()
    assert upgrade.perform(Launch("asked to")) == []


def test_a_new_master_takes_over_from_a_dead_one(
    stage: Stage, old: tuple[socket.socket, socket.socket]
) -> None:
    """Whether it is ready or not: there is nobody else."""
    theirs, ours = old
    upgrade = stage.upgrade(predecessor=ours, process=GONE)
    theirs.close()
    upgrade.ready()  # which nobody hears
    stage.turn()
    assert stage.office.held
    assert not stage.selector.get_map()
    upgrade.ready()
    assert stage.manager.hears()[:1] == ["READY=1"]


def test_a_master_that_dies_is_outlasted(
    stage: Stage, old: tuple[socket.socket, socket.socket]
) -> None:
    """Its channel is closed before its lock on the pid file is gone."""
    theirs, ours = old
    hold = """
import fcntl
file = open({path!r}, "w")
fcntl.flock(file, fcntl.LOCK_EX)
channel.sendall(b"locked\\n")
signal.setitimer(signal.ITIMER_REAL, 0.3)
signal.pause()
"""
    dying = Successor(
        Start(program(hold.format(path=str(stage.path))), str(stage.folder), {}), "[]", []
    )
    with dying.channel:
        assert line(dying.channel) == "locked\n"
        stage.upgrade(predecessor=ours, process=dying.pid)
        theirs.close()
        stage.turn()
    assert stage.path.read_text() == f"{os.getpid()}\n"
    assert ended(dying.pid) == "signal SIGALRM"


def test_a_pid_file_that_the_old_one_keeps_is_had_after_its_end(
    stage: Stage, old: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    """The service goes on without it until then, and says so."""
    theirs, ours = old
    owner = PidFile(str(stage.path))
    owner.write()
    stage.upgrade(predecessor=ours)
    theirs.send(Word.GO)
    stage.turn()
    assert stage.office.held
    assert "upgrade: --pid-file" in caplog.text
    assert stage.manager.hears() == ["READY=1"]
    owner.remove()
    theirs.close()
    stage.turn()
    assert stage.path.read_text() == f"{os.getpid()}\n"
    assert stage.manager.hears() == []


@pytest.mark.parametrize("words", [[Word.GO, Word.BACK], [Word.GO + Word.BACK]])
def test_a_new_master_gives_the_office_back(
    stage: Stage, old: tuple[socket.socket, socket.socket], words: list[bytes]
) -> None:
    """It tells the manager who is next, and has no predecessor to listen to any more."""
    theirs, ours = old
    stage.upgrade(predecessor=ours)
    for word in words:
        theirs.send(word)
        stage.turn()
    assert not stage.office.held
    assert stage.manager.hears() == ["READY=1", f"MAINPID={PARENT}"]
    assert theirs.recv(9) == b""
    assert not stage.selector.get_map()


def test_the_manager_looks_again_when_the_old_master_has_ended(
    stage: Stage, old: tuple[socket.socket, socket.socket]
) -> None:
    """Not when its channel ends: it is our parent until it is gone, and systemd wants its own."""
    theirs, ours = old
    waiting = program("channel.recv(9)")
    lingering = Successor(Start(waiting, str(stage.folder), {}), "[]", [])
    stage.upgrade(predecessor=ours, process=lingering.pid)
    theirs.send(Word.GO)
    stage.turn()
    theirs.close()
    stage.turn()
    assert stage.manager.hears() == ["READY=1"]
    lingering.channel.close()
    stage.turn()
    ended(lingering.pid)
    assert stage.manager.hears()[1:] == [f"MAINPID={os.getpid()}"]
    assert not stage.selector.get_map()


def test_a_forked_child_does_not_wait_for_the_old_master(
    stage: Stage, old: tuple[socket.socket, socket.socket]
) -> None:
    """It closes what would tell of its end."""
    theirs, ours = old
    upgrade = stage.upgrade(predecessor=ours, process=os.getppid())
    theirs.close()
    stage.turn()
    (key,) = stage.selector.get_map().values()
    upgrade.abandon()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(key.fd)
    stage.selector.unregister(key.fd)


def test_a_forked_child_leaves_the_channels_alone(
    stage: Stage, old: tuple[socket.socket, socket.socket]
) -> None:
    """One that it kept would hide the end of a master."""
    theirs, ours = old
    upgrade = stage.upgrade(predecessor=ours)
    upgrade.abandon()
    assert theirs.recv(9) == b""
    upgrade.abandon()
