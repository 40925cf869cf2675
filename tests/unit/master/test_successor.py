"""Starting a new master, as a real process, and what it is handed."""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from daphne_supervisor.errors import BootError
from daphne_supervisor.master.successor import (
    VARIABLE,
    Start,
    Successor,
    inheritance,
    own_command,
)
from tests.support.births import ended, line, no_room
from tests.support.succession import UNTIL_TOLD, program

if TYPE_CHECKING:
    from pathlib import Path


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
        facts = {"pid": os.getpid(), "old": 4711, "channel": ours.detach(), "listeners": "[...]"}
        environ = left_behind(**facts)
        found = inheritance(environ)
        assert found is not None
        with found.channel:
            assert (found.process, found.listeners) == (4711, "[...]")
            assert not found.channel.get_inheritable()
            theirs.send(b"go\n")
            assert found.channel.recv(9) == b"go\n"
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize(
    "text",
    ["nonsense", "5", "{}", '{"pid": OURS}', '{"pid": OURS, "channel": -1}'],
)
def test_what_cannot_be_understood_is_one_line(text: str) -> None:
    """Who leaves such things is no master of this version, and nothing can be taken over."""
    with pytest.raises(BootError, match=f"{VARIABLE}: not what a master leaves"):
        inheritance({VARIABLE: text.replace("OURS", str(os.getpid()))})


# Starting one


def test_the_command_line_is_the_present_one() -> None:
    """With the interpreter by its whole path, whatever it was called by."""
    assert own_command() == (sys.executable, *sys.orig_argv[1:])


def test_variables_for_the_old_master_are_addressed_to_the_new_one() -> None:
    """What a service manager has said to one process is meant for whoever follows it."""
    environ = {"LISTEN_PID": "4711", "WATCHDOG_PID": "42", "LISTEN_FDS": "1"}
    changed = Start((), "", environ).changed(4711, 7, "[]")
    assert json.loads(changed.pop(VARIABLE)) == {
        "pid": os.getpid(),
        "old": 4711,
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


@pytest.mark.parametrize(("serves", "expected"), [(False, "SIGTERM"), (True, "SIGINT")])
def test_a_successor_is_dismissed(tmp_path: Path, serves: bool, expected: str) -> None:  # noqa: FBT001 - a row of a table
    """With the signal that stops without delay once others serve in its place."""
    successor = Successor(Start(UNTIL_TOLD, str(tmp_path), {}), "[]", [])
    with successor.channel:
        assert line(successor.channel) == "ready\n"
        successor.serves = serves
        successor.dismiss()
        assert line(successor.channel) == f"{expected}\n"
        assert ended(successor.pid) == "exit code 0"
        successor.say(b"go\n")  # nobody hears it any more
