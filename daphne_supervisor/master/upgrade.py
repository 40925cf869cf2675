"""Two masters on the same listeners: how an upgrade is handed over, and taken back.

Theory. The old master starts the command line that it was started with once more, so a new version
of Python, of this package or of the command's own files takes effect; the listening descriptors are
inherited, and a channel connects the two. What is said on it are single words:

    new -> old   ready   all my workers are ready
    old -> new   go      be the main process: pid file, socket files, service manager
    old -> new   back    not any more: I am, and SIGTERM follows

Until `go` the new master owns nothing, so that one that fails leaves no trace. If the old one dies
before, the new one goes on by itself. Once it has said `go` the old master drains its workers, and
leaves; until then it can be told to take everything back.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daphne_supervisor import listeners as listening
from daphne_supervisor.errors import BootError
from daphne_supervisor.master.birth import fork
from daphne_supervisor.master.model import (
    Dismiss,
    HandOver,
    Launch,
    SuccessorExited,
    SuccessorReady,
    TakeBack,
)
from daphne_supervisor.master.nursery import receive

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, MutableMapping

    from daphne_supervisor.listeners import Listener
    from daphne_supervisor.master.model import Event
    from daphne_supervisor.master.office import Office

__all__ = ["VARIABLE", "Inheritance", "Successor", "Upgrade", "Word", "command", "inheritance"]

_log = logging.getLogger("daphne_supervisor.master")

VARIABLE = "DAPHNE_SUPERVISOR_INHERITANCE"
"""The variable that tells the new master what it was handed."""

_NOT_FOUND = 127


class Word:
    """What the masters say to each other."""

    READY = b"ready\n"
    GO = b"go\n"
    BACK = b"back\n"


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a new master was handed: the channel to the old one, and its listeners in text."""

    channel: socket.socket
    listeners: str


def inheritance(environ: MutableMapping[str, str]) -> Inheritance | None:
    """Take what the old master has left out of `environ`; None when there was none.

    The variable names the process it is meant for: one that has leaked elsewhere means nothing.
    """
    text = environ.pop(VARIABLE, "")
    if not text:
        return None
    left = json.loads(text)
    if left["pid"] != os.getpid():
        return None
    channel = socket.socket(fileno=left["channel"])
    channel.set_inheritable(False)
    return Inheritance(channel, left["listeners"])


def command() -> tuple[str, list[str]]:
    """Return the program that runs this process, and its whole command line."""
    return sys.executable, [sys.executable, *sys.orig_argv[1:]]


def _addressed(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which a service manager speaks to one process, addressed to us."""
    parent = str(os.getppid())
    names = ("LISTEN_PID", "WATCHDOG_PID")  # sd_listen_fds(3), sd_watchdog_enabled(3)
    return {name: str(os.getpid()) for name in names if environ.get(name) == parent}


class Successor:
    """The new master, as the old one knows it."""

    def __init__(
        self,
        listeners: str,
        descriptors: Iterable[int],
        environ: Mapping[str, str],
        directory: str,
    ) -> None:
        """Start it in `directory`, with `descriptors` open; `listeners` describes them.

        Raises `OSError` when it cannot be forked.
        """
        self.channel, far = socket.socketpair()
        self.channel.setblocking(False)
        program, arguments = command()
        inherited = [*descriptors, far.fileno()]

        def become() -> int:
            for descriptor in inherited:
                os.set_inheritable(descriptor, True)
            left = {"pid": os.getpid(), "channel": far.fileno(), "listeners": listeners}
            changed = {VARIABLE: json.dumps(left), **_addressed(environ)}
            os.chdir(directory or ".")
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
                signal.signal(number, signal.SIG_DFL)
            try:
                os.execve(program, arguments, {**environ, **changed})  # noqa: S606
            except OSError as error:
                os.write(2, f"{program}: {error.strerror}\n".encode())
            return _NOT_FOUND

        with far:
            try:
                self.pid = fork(become)  # what is not inheritable is closed by exec
            except OSError:
                self.channel.close()
                raise

    def say(self, word: bytes) -> None:
        """Say `word`; one that is gone does not listen."""
        with contextlib.suppress(OSError):
            self.channel.send(word)

    def dismiss(self) -> None:
        """Ask it to drain and leave; it is not reaped, so the pid is its own."""
        os.kill(self.pid, signal.SIGTERM)


class Upgrade:
    """Both ends of the relation: this master may have had a predecessor, and may get a successor.

    The office is taken at once, unless there is a predecessor who holds it.
    """

    def __init__(
        self,
        predecessor: Inheritance | None,
        office: Office,
        listeners: tuple[Listener, ...],
        directory: str,
        environ: Mapping[str, str],
    ) -> None:
        """Be ready; a successor is started in `directory` with `environ`."""
        self._predecessor = None if predecessor is None else predecessor.channel
        self._successor: Successor | None = None
        self._office = office
        self._listeners = listeners
        self._directory = directory
        self._environ = environ
        self._selector: selectors.BaseSelector

    def begin(self, selector: selectors.BaseSelector) -> None:
        """Take office, or listen to the one who has it. Raises `BootError`."""
        self._selector = selector
        if self._predecessor is None:
            self._office.take()
            return
        self._predecessor.setblocking(False)
        selector.register(self._predecessor, selectors.EVENT_READ, self._hear_predecessor)

    def ready(self) -> None:
        """Every worker of ours is ready: tell a predecessor who waits for that."""
        if self._predecessor is not None and not self._office.held:
            with contextlib.suppress(OSError):
                self._predecessor.send(Word.READY)

    def recognise(self, dead: Mapping[int, str]) -> list[Event]:
        """Return the end of the successor if it is among the `dead`."""
        successor = self._successor
        if successor is None or successor.pid not in dead:
            return []
        self._successor = None
        self._hang_up(successor.channel)
        return [SuccessorExited(dead[successor.pid])]

    def perform(self, action: Launch | HandOver | TakeBack | Dismiss) -> list[Event]:
        """Do what the supervisor has decided; return what comes of it at once."""
        _log.info("upgrade: %s: %s", _DEEDS[type(action)], action.why)
        match action:
            case Launch():
                return self._launch()
            case HandOver():
                self._hand_over()
            case TakeBack():
                if self._successor is not None:
                    self._successor.say(Word.BACK)
                self._office.take_back()
            case Dismiss():  # pragma: no branch - the last kind there is
                if self._successor is not None:
                    self._successor.dismiss()
        return []

    def abandon(self) -> None:
        """Close the channels, in a forked child or at the end."""
        if self._successor is not None:
            self._successor.channel.close()
        if self._predecessor is not None:
            self._predecessor.close()

    def _launch(self) -> list[Event]:
        try:
            self._successor = Successor(
                listening.export(self._listeners),
                listening.descriptors(self._listeners),
                self._environ,
                self._directory,
            )
        except OSError as error:
            return [SuccessorExited(f"could not be forked: {error.strerror}")]
        _log.info("upgrade: the new master is process %d", self._successor.pid)
        self._selector.register(
            self._successor.channel, selectors.EVENT_READ, self._hear_successor
        )
        return []

    def _hand_over(self) -> None:
        if self._successor is not None:
            self._office.hand_over(self._successor.pid)
            self._successor.say(Word.GO)

    def _hear_successor(self) -> list[Event]:
        assert self._successor is not None  # noqa: S101 - it is unregistered with its end
        channel = self._successor.channel
        events: list[Event] = []
        while (data := receive(channel)) is not None:
            if not data:
                self._selector.unregister(channel)
                break
            events += [SuccessorReady()] * data.count(Word.READY)
        return events

    def _hear_predecessor(self) -> list[Event]:
        assert self._predecessor is not None  # noqa: S101 - it is unregistered with its end
        while (data := receive(self._predecessor)) is not None:
            if not self._office.held and (not data or Word.GO in data):
                self._succeed()
            if Word.BACK in data:
                self._office.resign()
            if not data or Word.BACK in data:
                self._hang_up(self._predecessor)
                self._predecessor = None
                break
        return []

    def _succeed(self) -> None:
        """Take office; also when the predecessor has died before it could say so."""
        try:
            self._office.take()
        except BootError as error:
            _log.error("upgrade: %s", error)

    def _hang_up(self, channel: socket.socket) -> None:
        if channel in self._selector.get_map():
            self._selector.unregister(channel)
        channel.close()


_DEEDS = {
    Launch: "a new master is started",
    HandOver: "the new master takes over",
    TakeBack: "this master takes back",
    Dismiss: "the new master is told to leave",
}
"""What each action is called in the log."""
