"""Fork, signal and reap, with real children."""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from daphne_supervisor.config import Config
from daphne_supervisor.master.processes import Child, Death, Processes, describe
from daphne_supervisor.master.signals import HANDLED, Mailbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from daphne_supervisor.messages import Assignment

CONFIG = Config(application="shop.asgi:application")


def processes(
    run_worker: Callable[[Assignment], int], abandon: Callable[[], None] = lambda: None
) -> Processes:
    """Return hands whose children do `run_worker`."""
    return Processes(run_worker, CONFIG, (), None, abandon=abandon)


def wait(hands: Processes, *children: Child) -> list[Death]:
    """Read the children's channels to their ends, which come with their deaths; then reap."""
    for child in children:
        child.channel.setblocking(True)
        while child.channel.recv(4096):
            pass
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    deaths = hands.reap()
    for death in deaths:
        hands.forget(death.pid)
    return deaths


def line(child: Child) -> str:
    """Return the line that a child writes to its channel."""
    child.channel.setblocking(True)
    with child.channel.makefile("r") as file:
        return file.readline()


def until_terminated(assignment: Assignment) -> int:
    """Be a worker that says that it is there, and waits for a signal."""
    assignment.channel.sendall(b"here\n")
    signal.pause()
    return 0


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exit code 0"),
        (3 << 8, "exit code 3"),
        (signal.SIGKILL, "signal SIGKILL"),
        (signal.SIGABRT | 0x80, "signal SIGABRT"),
        (40, "signal 40"),
    ],
)
def test_a_wait_status_is_put_into_words(status: int, words: str) -> None:
    """An operator reads names, not numbers, wherever there are names."""
    assert describe(status) == words


def test_a_worker_is_born_with_its_assignment() -> None:
    """What it was told arrives, over its own end of the channel; its exit code comes back."""

    def run_worker(assignment: Assignment) -> int:
        facts = (assignment.slot, assignment.generation, assignment.config is CONFIG)
        assignment.channel.sendall(f"{facts} {assignment.listeners}\n".encode())
        return 7

    hands = processes(run_worker)
    child = hands.spawn(2, 3)
    assert line(child) == "(2, 3, True) ()\n"
    assert wait(hands, child) == [Death(child.pid, "exit code 7")]


def test_a_child_gives_back_what_is_the_masters() -> None:
    """Handlers, wake-up socket, mask, siblings' channels and the master's own files."""

    def run_worker(assignment: Assignment) -> int:
        handlers = {signal.getsignal(number) for number in HANDLED}
        defaults = {number.name for number in HANDLED if signal.getsignal(number) is signal.SIG_DFL}
        checks = {
            "python handlers": handlers - {signal.SIG_DFL, signal.SIG_IGN},
            "wake-up": signal.set_wakeup_fd(-1) != -1,
            "mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(HANDLED),
            "defaults": defaults ^ {"SIGTERM", "SIGQUIT", "SIGCHLD"},
            "sibling": sibling.channel.fileno() != -1,
            "mailbox": mailbox.fileno() != -1,
        }
        wrong = [name for name, found in checks.items() if found]
        assignment.channel.sendall(f"{wrong}\n".encode())
        return 0

    with Mailbox() as mailbox:
        hands = processes(until_terminated, mailbox.close)
        sibling = hands.spawn(1, 1)
        assert line(sibling) == "here\n"
        hands._run_worker = run_worker
        try:
            child = hands.spawn(2, 1)
            assert line(child) == "[]\n"
            assert sibling.channel.fileno() != -1
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(HANDLED) == set()
        finally:
            hands.signal(sibling.pid, signal.SIGTERM)
        deaths = wait(hands, sibling, child)
    assert {death.how for death in deaths} == {"signal SIGTERM", "exit code 0"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN])
def test_signals_for_the_master_do_not_kill_a_booting_worker(number: signal.Signals) -> None:
    """A terminal's Ctrl-C or an early USR1 finds a child that has no handlers yet."""

    def run_worker(_: Assignment) -> int:
        signal.raise_signal(number)
        return 0

    hands = processes(run_worker)
    child = hands.spawn(1, 1)
    assert wait(hands, child) == [Death(child.pid, "exit code 0")]


@pytest.mark.parametrize("escape", [ValueError("spilt milk"), SystemExit(0)])
def test_nothing_climbs_into_the_masters_stack(
    escape: BaseException, capfd: pytest.CaptureFixture[str]
) -> None:
    """An exception is printed and becomes exit code 70, even one that means to exit well."""

    def run_worker(_: Assignment) -> int:
        raise escape

    hands = processes(run_worker)
    child = hands.spawn(1, 1)
    assert wait(hands, child) == [Death(child.pid, "exit code 70")]
    assert type(escape).__name__ in capfd.readouterr().err


def test_a_signal_to_the_dead_is_no_error() -> None:
    """A worker may vanish between the decision and the signal."""
    hands = processes(lambda _: 0)
    child = hands.spawn(1, 1)
    wait(hands, child)
    hands.signal(child.pid, signal.SIGKILL)


def test_strangers_are_reaped_and_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    """As process 1 the master inherits orphans; whatever code they exit with means nothing."""
    hands = processes(lambda _: 0)
    stranger = os.fork()
    if stranger == 0:
        os._exit(3)
    os.waitid(os.P_PID, stranger, os.WEXITED | os.WNOWAIT)
    with caplog.at_level(logging.DEBUG):
        assert hands.reap() == []
    assert f"reaped process {stranger}, no worker: exit code 3" in caplog.text
    assert hands.reap() == []


def test_the_living_are_not_reaped() -> None:
    """Looking for the dead does not wait for them."""
    hands = processes(until_terminated)
    child = hands.spawn(1, 1)
    assert line(child) == "here\n"
    assert hands.reap() == []
    hands.signal(child.pid, signal.SIGKILL)
    assert wait(hands, child) == [Death(child.pid, "signal SIGKILL")]


def test_a_fork_that_fails_leaves_nothing_open() -> None:
    """When the system has no room for a process, the error is the caller's and nothing leaks."""
    hands = Processes(lambda _: 0, CONFIG, (), None, abandon=lambda: None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    before = sorted(os.listdir("/proc/self/fd"))
    user = os.geteuid()
    resource.setrlimit(resource.RLIMIT_NPROC, (0, hard))
    try:
        if user == 0:  # root is not limited
            os.setresuid(65534, 65534, 0)
        with pytest.raises(OSError, match="unavailable"):
            hands.spawn(1, 1)
    finally:
        if user == 0:
            os.setresuid(0, 0, 0)
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_what_is_buffered_is_not_written_twice(capfd: pytest.CaptureFixture[str]) -> None:
    """Text that waited in a buffer when the worker was forked appears once."""
    sys.stdout.write("once")
    hands = processes(lambda _: 0)
    wait(hands, hands.spawn(1, 1))
    assert capfd.readouterr().out.count("once") == 1


def test_channels_are_closed_at_burial() -> None:
    """A hundred workers later no descriptor is left."""
    hands = processes(lambda _: 0)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        wait(hands, hands.spawn(1, 1))
    assert len(os.listdir("/proc/self/fd")) == before
