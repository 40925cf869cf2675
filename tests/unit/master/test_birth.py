"""Children, really forked: what they leave behind of their parent, and how they leave."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from daphne_supervisor.master.birth import fork
from daphne_supervisor.master.signals import HANDLED, Mailbox
from tests.support.births import ended, line, no_room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return a pair of sockets: ours and the child's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_child_leaves_with_what_it_returns() -> None:
    """What the function returns is the exit code."""
    assert ended(fork(lambda: 7)) == "exit code 7"


@pytest.mark.parametrize("escape", [ValueError("spilt milk"), SystemExit(0), KeyboardInterrupt()])
def test_nothing_climbs_into_the_parents_stack(
    escape: BaseException, capfd: pytest.CaptureFixture[str]
) -> None:
    """An exception is printed and becomes exit code 70, even one that means to exit well."""

    def child() -> int:
        raise escape

    assert ended(fork(child)) == "exit code 70"
    assert type(escape).__name__ in capfd.readouterr().err


def test_handlers_mask_and_wake_up_socket_are_given_back(
    channel: tuple[socket.socket, socket.socket],
) -> None:
    """A signal to the child is not heard by the parent, and none is blocked."""
    ours, theirs = channel

    def child() -> int:
        wrong = {
            "handlers": {signal.getsignal(number) for number in HANDLED}
            - {signal.SIG_DFL, signal.SIG_IGN},
            "defaults": {each.name for each in HANDLED if signal.getsignal(each) is signal.SIG_DFL}
            ^ {"SIGTERM", "SIGQUIT", "SIGCHLD"},
            "mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(HANDLED),
            "wake-up": {signal.set_wakeup_fd(-1)} - {-1},
        }
        theirs.sendall(f"{[name for name, found in wrong.items() if found]}\n".encode())
        return 0

    with Mailbox():
        pid = fork(child)
        assert line(ours) == "[]\n"
        assert ended(pid) == "exit code 0"


def test_a_grandchild_is_as_clean_as_a_child(
    channel: tuple[socket.socket, socket.socket],
) -> None:
    """A child may have taken signals for itself; its own children do not keep them either."""
    ours, theirs = channel

    def grandchild() -> int:
        kept = {signal.getsignal(number) for number in HANDLED}
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(HANDLED)
        theirs.sendall(f"{kept <= {signal.SIG_DFL, signal.SIG_IGN}} {mask}\n".encode())
        return 0

    def child() -> int:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.waitpid(fork(grandchild), 0)
        return 0

    with Mailbox():
        pid = fork(child)
        assert line(ours) == "True set()\n"
        assert ended(pid) == "exit code 0"


def test_the_parent_keeps_what_it_had() -> None:
    """After a fork the parent's handlers are its own, and what it had blocked stays blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    try:
        with Mailbox() as mailbox:
            handlers = [signal.getsignal(number) for number in HANDLED]
            assert ended(fork(lambda: 0)) == "exit code 0"
            assert [signal.getsignal(number) for number in HANDLED] == handlers
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            assert mask & set(HANDLED) == {signal.SIGHUP} | (before & set(HANDLED))
            assert mailbox.read() == []
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGUSR2],
)
def test_signals_for_the_master_do_not_end_a_child(number: signal.Signals) -> None:
    """A terminal's Ctrl-C or an early USR1 finds a child that has no handlers yet."""

    def child() -> int:
        signal.raise_signal(number)
        return 0

    assert ended(fork(child)) == "exit code 0"


def test_a_child_can_be_terminated_at_once() -> None:
    """What is meant for the child ends it, even before it does anything."""

    def child() -> int:
        signal.pause()
        return 0

    pid = fork(child)
    os.kill(pid, signal.SIGTERM)
    assert ended(pid) == "signal SIGTERM"


def test_what_belongs_to_the_parent_is_abandoned_in_the_child_alone(
    channel: tuple[socket.socket, socket.socket],
) -> None:
    """The function that closes runs before anything else, and the parent's files stay open."""
    ours, theirs = channel
    with socket.socket() as belonging:

        def child() -> int:
            theirs.sendall(f"{belonging.fileno()}\n".encode())
            return 0

        pid = fork(child, abandon=belonging.close)
        assert line(ours) == "-1\n"
        assert ended(pid) == "exit code 0"
        assert belonging.fileno() != -1


def test_a_child_that_cannot_abandon_does_not_live(capfd: pytest.CaptureFixture[str]) -> None:
    """It would hold what others wait to see closed."""

    def abandon() -> None:
        message = "it is stuck"
        raise OSError(message)

    assert ended(fork(lambda: 0, abandon=abandon)) == "exit code 70"
    assert "it is stuck" in capfd.readouterr().err


def test_what_is_buffered_is_written_once(capfd: pytest.CaptureFixture[str]) -> None:
    """Text that waits in a buffer at the fork appears once, and what the child says appears."""

    def child() -> int:
        sys.stdout.write("child ")
        return 0

    sys.stdout.write("parent ")
    assert ended(fork(child)) == "exit code 0"
    assert capfd.readouterr().out == "parent child "


@pytest.mark.parametrize("broken", [lambda: None, lambda: open(os.devnull)])  # noqa: SIM115
def test_a_fork_needs_no_standard_streams(broken: Callable[[], object]) -> None:
    """A process may be started without them, and they may be closed."""
    stream = broken()
    if stream is not None:
        stream.close()  # type: ignore[attr-defined]
    before, sys.stdout = sys.stdout, stream  # type: ignore[assignment]
    try:
        assert ended(fork(lambda: 0)) == "exit code 0"
    finally:
        sys.stdout = before


def test_a_fork_that_fails_is_the_callers_error() -> None:
    """When the system has no room, the caller hears of it, and the mask is what it was."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with no_room(), pytest.raises(OSError, match="unavailable"):
        fork(lambda: 0)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
