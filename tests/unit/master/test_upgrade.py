"""Both ends of an upgrade: with real processes where one is started, with a channel elsewhere."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import selectors
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest
import setproctitle

from daphne_supervisor import listeners as listening
from daphne_supervisor.config import Bind
from daphne_supervisor.endpoints import parse
from daphne_supervisor.errors import BootError
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
from daphne_supervisor.master.upgrade import (
    VARIABLE,
    Inheritance,
    Start,
    Successor,
    Upgrade,
    Word,
    command,
    inheritance,
    obstacle,
)
from tests.support.births import PATIENCE, ended, line, no_room

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daphne_supervisor.listeners import Listener

_NEW_MASTER = """
import json, os, signal, socket, sys
left = json.loads(os.environ.pop("{variable}"))
channel = socket.socket(fileno=left["channel"])
channel.settimeout({patience})
def leave(number, frame):
    channel.sendall(signal.Signals(number).name.encode() + b"\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
signal.signal(signal.SIGINT, leave)
{body}
"""


def program(body: str) -> tuple[str, ...]:
    """Return the command line of a new master that does what `body` says."""
    text = _NEW_MASTER.format(variable=VARIABLE, patience=PATIENCE, body=body)
    return sys.executable, "-c", text


UNTIL_TOLD = program('channel.sendall(b"ready\\n")\nwhile True: signal.pause()')
"""A new master that is ready, and says which signal makes it leave."""


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
    ) -> Upgrade:
        """Begin as a master whose successor is started by `command`."""
        left = None if predecessor is None else Inheritance(predecessor, "[]")
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


# What a new master is handed


def left_behind(**facts: object) -> dict[str, str]:
    """Return an environment in which an old master has left these facts."""
    return {VARIABLE: json.dumps(facts), "HOME": "/"}


def test_most_masters_have_no_predecessor() -> None:
    """Without the variable there is nothing to inherit."""
    assert inheritance({"HOME": "/"}) is None


def test_what_was_left_for_another_process_means_nothing() -> None:
    """A variable is inherited further than was meant; nobody else sees it after that."""
    environ = left_behind(pid=os.getppid(), channel=0, listeners="[]")
    assert inheritance(environ) is None
    assert environ == {"HOME": "/"}


def test_what_was_left_for_us_is_taken() -> None:
    """The channel is ours alone: what we start does not get it."""
    theirs, ours = socket.socketpair()
    with theirs:
        os.set_inheritable(ours.fileno(), True)
        environ = left_behind(pid=os.getpid(), channel=ours.detach(), listeners="[...]")
        found = inheritance(environ)
        assert found is not None
        with found.channel:
            assert found.listeners == "[...]"
            assert not found.channel.get_inheritable()
            theirs.send(b"go\n")
            assert found.channel.recv(9) == b"go\n"
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "5",
        "{}",
        f'{{"pid": {os.getpid()}}}',
        f'{{"pid": {os.getpid()}, "channel": -1}}',
    ],
)
def test_what_cannot_be_understood_is_one_line(text: str) -> None:
    """Who leaves such things is no master of this version, and nothing can be taken over."""
    with pytest.raises(BootError, match=f"{VARIABLE}: not what a master leaves"):
        inheritance({VARIABLE: text})


# Starting one


def test_the_command_line_is_the_present_one() -> None:
    """With the interpreter by its whole path, whatever it was called by."""
    assert command() == (sys.executable, *sys.orig_argv[1:])


def test_process_1_cannot_be_upgraded() -> None:
    """When it leaves, everything in its container ends."""
    assert "process 1" in obstacle(1, young=False)


def test_a_new_master_is_not_upgraded_before_the_old_one_has_left() -> None:
    """There are never three masters."""
    assert "has not left yet" in obstacle(2, young=True)
    assert obstacle(2, young=False) == ""


def test_variables_for_the_old_master_are_addressed_to_the_new_one() -> None:
    """What a service manager has said to one process is meant for whoever follows it."""
    environ = {"LISTEN_PID": "4711", "WATCHDOG_PID": "42", "LISTEN_FDS": "1"}
    changed = Start((), "", environ).changed(4711, 7, "[]")
    assert json.loads(changed.pop(VARIABLE)) == {
        "pid": os.getpid(),
        "channel": 7,
        "listeners": "[]",
    }
    assert changed == {"LISTEN_PID": str(os.getpid())}


@pytest.mark.parametrize(
    ("start", "descriptor", "line"),
    [
        (Start(("/no/python",), "", {}), 0, "upgrade: /no/python: No such file or directory"),
        (Start(("/", "-c"), "/no/where", {}), 0, "upgrade: /no/where: No such file or directory"),
        (Start(("/bin/true",), "", {}), 9999, "upgrade: /bin/true: Bad file descriptor"),
    ],
)
def test_a_command_that_cannot_be_run_is_one_line(
    capfd: pytest.CaptureFixture[str], start: Start, descriptor: int, line: str
) -> None:
    """It names what is missing, and the child leaves with the exit code of a shell's."""
    inheritable = os.get_inheritable(0)
    assert start.run({}, [descriptor]) == 127
    os.set_inheritable(0, inheritable)
    assert capfd.readouterr().err == f"{line}\n"


def test_a_successor_gets_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    """Directory, variables and descriptors; signals for masters are ignored until it has a say."""
    body = """
def is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
ignored = [each.name for each in signal.Signals if signal.getsignal(each) is signal.SIG_IGN]
facts = [os.getcwd(), left["pid"] == os.getpid(), left["listeners"], dict(os.environ), ignored]
facts += [is_open(int(number)) for number in sys.argv[1:]]
channel.sendall(json.dumps(facts).encode() + b"\\n")
"""
    kept, other = os.pipe()
    try:
        numbers = (str(kept), str(other))
        environ = {"LC_CTYPE": "C.UTF-8", "WATCHDOG_PID": str(os.getpid())}
        start = Start((*program(body), *numbers), str(tmp_path), environ)
        successor = Successor(start, "[...]", [kept])
        with successor.channel:
            facts = json.loads(line(successor.channel))
        assert ended(successor.pid) == "exit code 0"
        assert not os.get_inheritable(kept)
    finally:
        os.close(kept)
        os.close(other)
    assert facts[:3] == [str(tmp_path), True, "[...]"]
    assert facts[3] == environ | {"WATCHDOG_PID": str(successor.pid)}
    assert {"SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU"} < set(facts[4])
    assert {"SIGTERM", "SIGQUIT", "SIGCHLD"}.isdisjoint(facts[4])
    assert facts[5:] == [True, False]


def test_a_successor_that_cannot_be_forked_leaves_nothing_open(tmp_path: Path) -> None:
    """Neither end of its channel."""
    before = os.listdir("/proc/self/fd")
    with no_room(), pytest.raises(OSError, match="unavailable"):
        Successor(Start(UNTIL_TOLD, str(tmp_path), {}), "[]", [])
    assert os.listdir("/proc/self/fd") == before


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
channel.sendall(b"will go\\n")
signal.pause()
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
    upgrade = stage.upgrade(predecessor=ours)
    theirs.close()
    upgrade.ready()  # which nobody hears
    stage.turn()
    assert stage.office.held
    assert not stage.selector.get_map()
    upgrade.ready()
    assert stage.manager.hears() == ["READY=1"]


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
    assert stage.manager.hears() == ["READY=1", f"MAINPID={os.getppid()}"]
    assert theirs.recv(9) == b""
    assert not stage.selector.get_map()


def test_a_forked_child_leaves_the_channels_alone(
    stage: Stage, old: tuple[socket.socket, socket.socket]
) -> None:
    """One that it kept would hide the end of a master."""
    theirs, ours = old
    upgrade = stage.upgrade(predecessor=ours)
    upgrade.abandon()
    assert theirs.recv(9) == b""
    upgrade.abandon()
