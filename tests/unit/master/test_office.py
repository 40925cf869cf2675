"""The office of the main process: taken, handed over, taken back, and left."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest
import setproctitle

from daphne_supervisor import listeners as listening
from daphne_supervisor.config import Bind
from daphne_supervisor.endpoints import parse
from daphne_supervisor.errors import BootError
from daphne_supervisor.master.announce import Notifier
from daphne_supervisor.master.model import Announce, Milestone
from daphne_supervisor.master.office import Office
from daphne_supervisor.master.pid_file import PidFile
from tests.support.daphne import environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daphne_supervisor.listeners import Listener

OURS = f"{os.getpid()}\n"
READY = Announce(Milestone.READY, "1/1 workers ready", "the master is ready")


class Manager:
    """A service manager, and offices that it listens to."""

    def __init__(self, folder: Path) -> None:
        """Listen in `folder`."""
        self.folder = folder
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(str(folder / "notify"))

    def office(self, *listeners: Listener, pid_file: str | None = None) -> Office:
        """Return an office that nobody holds yet."""
        notifier = Notifier({"NOTIFY_SOCKET": str(self.folder / "notify")})
        return Office(notifier, PidFile(pid_file), listeners, "shop.asgi:application")

    def hears(self) -> list[str]:
        """Return the first line of everything that was said since the last call."""
        heard = []
        while True:
            try:
                heard.append(self.socket.recv(4096).decode().splitlines()[0])
            except BlockingIOError:
                return heard


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """Return a service manager."""
    manager = Manager(tmp_path)
    yield manager
    manager.socket.close()


@pytest.fixture(autouse=True)
def same_title() -> Iterator[None]:
    """Give the test process its title back."""
    before = setproctitle.getproctitle()
    yield
    setproctitle.setproctitle(before)


def role() -> str:
    """Return what `ps` calls this process, without the application."""
    return setproctitle.getproctitle().removesuffix(" [shop.asgi:application]")


def status(text: str, milestone: Milestone | None = None) -> Announce:
    """Return an announcement of this status."""
    return Announce(milestone, text, "the status has changed")


def test_who_takes_office_owns_the_pid_file_and_is_heard(manager: Manager, tmp_path: Path) -> None:
    """From then on what is announced is said, and the title is that of the master."""
    path = tmp_path / "pid"
    office = manager.office(pid_file=str(path))
    assert not office.held
    office.take()
    office.take()
    assert office.held
    assert path.read_text() == OURS
    assert role() == "daphne-supervisor: master"
    office.announce(READY)
    office.reassure()
    assert manager.hears() == ["READY=1", "WATCHDOG=1"]
    office.leave()
    assert not path.exists()


def test_who_waits_for_the_office_owns_nothing_and_says_nothing(
    manager: Manager, tmp_path: Path
) -> None:
    """The title tells it from the master that serves."""
    office = manager.office(pid_file=str(tmp_path / "pid"))
    office.wait()
    office.announce(READY)
    office.reassure()
    office.repeat()
    assert manager.hears() == []
    assert not (tmp_path / "pid").exists()
    assert role() == "daphne-supervisor: master (new)"


@pytest.mark.parametrize(
    ("announced", "said"),
    [
        ([], []),
        ([status("starting")], ["STATUS=starting"]),
        ([status("starting"), READY], ["READY=1\nERRNO=0\nSTATUS=1/1 workers ready"]),
        ([READY, status("less")], ["READY=1\nERRNO=0\nSTATUS=less"]),
        ([READY, status("end", Milestone.STOPPING)], ["STOPPING=1\nSTATUS=end"]),
    ],
)
def test_what_was_announced_without_office_is_said_when_it_is_taken(
    manager: Manager, announced: list[Announce], said: list[str]
) -> None:
    """Only how things stand now: the latest milestone with the latest status."""
    office = manager.office()
    office.wait()
    for announcement in announced:
        office.announce(announcement)
    office.hold()
    office.hold()
    assert manager.hears() == [text.splitlines()[0] for text in said]
    assert role() == "daphne-supervisor: master"


def test_a_pid_file_that_is_owned_keeps_the_office_from_being_taken(
    manager: Manager, tmp_path: Path
) -> None:
    """It can be held without the file; when the file is free it can be had as well."""
    path = tmp_path / "pid"
    owner = PidFile(str(path))
    owner.write()
    office = manager.office(pid_file=str(path))
    with pytest.raises(BootError, match="--pid-file"):
        office.take()
    assert not office.held
    office.hold()
    owner.remove()
    office.take()
    assert path.read_text() == OURS
    office.leave()


def test_who_hands_over_is_the_old_one(manager: Manager, tmp_path: Path) -> None:
    """The file is FILE.old, the manager knows who is next, and hears nobody else from here."""
    path, aside = tmp_path / "pid", tmp_path / "pid.old"
    office = manager.office(pid_file=str(path))
    office.take()
    office.hand_over(4711)
    office.announce(READY)
    office.reassure()
    assert manager.hears() == ["MAINPID=4711"]
    assert role() == "daphne-supervisor: master (old)"
    assert not path.exists()
    assert aside.read_text() == OURS
    office.leave()
    assert not aside.exists()


def test_who_takes_back_is_the_main_process_again(manager: Manager, tmp_path: Path) -> None:
    """The file has its name back, and everything is said as before."""
    path = tmp_path / "pid"
    office = manager.office(pid_file=str(path))
    office.take()
    office.hand_over(4711)
    office.take_back()
    office.announce(READY)
    office.repeat()
    assert manager.hears() == ["MAINPID=4711", f"MAINPID={os.getpid()}", "READY=1", "READY=1"]
    assert role() == "daphne-supervisor: master"
    assert path.read_text() == OURS
    office.leave()


def test_who_resigns_says_who_is_next(manager: Manager) -> None:
    """A manager that listens to the main process alone learns it from nobody else."""
    office = manager.office()
    office.take()
    office.resign(42)
    office.announce(READY)
    assert manager.hears() == ["MAINPID=42"]
    assert not office.held
    assert role() == "daphne-supervisor: master (new)"


def test_the_manager_is_made_to_look_again(manager: Manager) -> None:
    """It does not look twice at a process that it knows, so another one is named in between."""
    office = manager.office()
    with subprocess.Popen(["sleep", "60"]) as child:
        office.confirm()
        assert manager.hears() == []  # it is somebody else's office
        office.hold()
        office.confirm()
        children = [f"MAINPID={one.pid}" for one in psutil.Process().children()]
        child.kill()
    other, ourselves = manager.hears()
    assert other in children
    assert ourselves == f"MAINPID={os.getpid()}"


def test_without_a_child_there_is_nobody_to_name(tmp_path: Path) -> None:
    """The manager is left alone, and so it is where the kernel does not tell."""
    program = """
import os, socket
from daphne_supervisor.master.announce import Notifier
from daphne_supervisor.master.office import Office
from daphne_supervisor.master.pid_file import PidFile
from tests.support.daphne import environment
office = Office(Notifier({"NOTIFY_SOCKET": "%s"}), PidFile(None), (), "shop.asgi:application")
office.hold()
office.confirm()
"""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening_manager:
        listening_manager.setblocking(False)
        listening_manager.bind(str(tmp_path / "notify"))
        code = program % (tmp_path / "notify")
        subprocess.run([sys.executable, "-c", code], check=True, env=environment(), timeout=30)
        with pytest.raises(BlockingIOError):
            listening_manager.recv(4096)


def test_who_leaves_closes_the_listeners_and_tidies_up(manager: Manager, tmp_path: Path) -> None:
    """The socket file goes with the socket, and closing them earlier does no harm."""
    endpoint = parse(f"unix:{tmp_path / 'x.sock'}", "--endpoint")
    [listener] = listening.open_all([endpoint], Bind())
    office = manager.office(listener)
    office.close_listeners()
    assert listener.socket.fileno() == -1
    assert [each.name for each in tmp_path.iterdir()] == ["notify"]
    office.leave()


def test_a_forked_child_lets_go_of_the_locks(manager: Manager, tmp_path: Path) -> None:
    """Another master can have the pid file and the socket, the listener itself stays open."""
    path = tmp_path / "pid"
    endpoint = parse(f"unix:{tmp_path / 'x.sock'}", "--endpoint")
    [listener] = listening.open_all([endpoint], Bind())
    office = manager.office(listener, pid_file=str(path))
    office.take()
    office.abandon()
    assert listener.socket.fileno() >= 0
    listener.socket.close()
    other = manager.office(*listening.open_all([endpoint], Bind()), pid_file=str(path))
    other.take()
    other.leave()
    assert [each.name for each in tmp_path.iterdir()] == ["notify"]
