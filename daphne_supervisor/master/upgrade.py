"""Two masters on the same listeners: how an upgrade is handed over, and taken back.

Theory. The old master starts the command line that it was started with once more, so a new version
of Python, of this package or of the command's own files takes effect; the listening descriptors are
inherited, and a channel connects the two. What is said on it are single words:

    new -> old   ready   all my workers are ready
    old -> new   go      be the main process: pid file, socket files, service manager
    old -> new   back    not any more: I am, and SIGTERM follows

Until `go` the new master owns nothing, so that one that fails leaves no trace. If the old one dies
before, the new one goes on by itself. Once it has said `go` the old master drains its workers, and
leaves; until then it can be told to take everything back. A new master that leaves without having
failed was told to, by somebody who takes it for the service: then the old one does not come back.

Two masters are enough. The new one is not upgraded before the old one has left, because nobody
could tell then who takes back from whom.
"""

from __future__ import annotations

import contextlib
import functools
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
from daphne_supervisor.master.processes import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, MutableMapping

    from daphne_supervisor.listeners import Listener
    from daphne_supervisor.master.model import Event
    from daphne_supervisor.master.office import Office

__all__ = [
    "VARIABLE",
    "Inheritance",
    "Start",
    "Successor",
    "Upgrade",
    "Word",
    "command",
    "inheritance",
    "obstacle",
]

_log = logging.getLogger("daphne_supervisor.master")

VARIABLE = "DAPHNE_SUPERVISOR_INHERITANCE"
"""The variable that tells the new master what it was handed."""

_NOT_FOUND = 127
_IN_ORDER = describe(0)
_FIRST = 1
"""The process with this id is the one that a container, or the machine, ends with."""


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
    Raises `BootError` when it cannot be understood.
    """
    text = environ.pop(VARIABLE, "")
    if not text:
        return None
    try:
        left = json.loads(text)
        if left["pid"] != os.getpid():
            return None
        channel = socket.socket(fileno=left["channel"])
        channel.set_inheritable(False)
        return Inheritance(channel, left["listeners"])
    except (KeyError, OSError, TypeError, ValueError) as error:
        message = f"{VARIABLE}: not what a master leaves to the next one: {error!r}"
        raise BootError(message) from None


def command() -> tuple[str, ...]:
    """Return the whole command line of this process, from the path of the interpreter on."""
    return sys.executable, *sys.orig_argv[1:]


def obstacle(process: int, *, young: bool) -> str:
    """Return why the master with this process id cannot be upgraded, "" if it can.

    `young` says that the master that it came from has not left yet.
    """
    if process == _FIRST:
        return "this master is process 1, and with it would end its container, the new one included"
    if young:
        return "the old master of the last upgrade has not left yet"
    return ""


@dataclass(frozen=True, slots=True)
class Start:
    """How a master is started: the command line, in which directory, with which variables."""

    command: tuple[str, ...]
    directory: str
    environ: Mapping[str, str]

    def run(self, changed: Mapping[str, str], descriptors: Iterable[int]) -> int:
        """Become that master, with `descriptors` open; return only if that cannot be done.

        Signals that a master acts upon stay ignored until the new one is there to take them.
        """
        program, environ = self.command[0], {**self.environ, **changed}
        try:
            for descriptor in descriptors:
                os.set_inheritable(descriptor, True)
            os.chdir(self.directory or ".")
            os.execve(program, self.command, environ)  # noqa: S606
        except OSError as error:
            os.write(2, f"upgrade: {error.filename or program}: {error.strerror}\n".encode())
        return _NOT_FOUND

    def changed(self, old: int, channel: int, listeners: str) -> dict[str, str]:
        """Return what this process, a child of `old`, needs in its environment to take over."""
        left = {"pid": os.getpid(), "channel": channel, "listeners": listeners}
        names = ("LISTEN_PID", "WATCHDOG_PID")  # sd_listen_fds(3), sd_watchdog_enabled(3)
        ours = {name: str(os.getpid()) for name in names if self.environ.get(name) == str(old)}
        return {VARIABLE: json.dumps(left), **ours}


class Successor:
    """The new master, as the old one knows it."""

    def __init__(self, start: Start, listeners: str, descriptors: Iterable[int]) -> None:
        """Start it with `descriptors` open, which `listeners` describes.

        Raises `OSError` when it cannot be forked.
        """
        self.channel, far = socket.socketpair()
        self.serves = False
        old, number = os.getpid(), far.fileno()
        inherited = [*descriptors, number]  # exec closes what is not inheritable
        with far:
            try:
                self.pid = fork(lambda: start.run(start.changed(old, number, listeners), inherited))
            except OSError:
                self.channel.close()
                raise

    def say(self, word: bytes) -> None:
        """Say `word`; one that is gone does not listen."""
        with contextlib.suppress(OSError):
            self.channel.send(word)

    def dismiss(self) -> None:
        """Ask it to drain and leave; it is not reaped, so the pid is its own.

        One that serves need not wait for anybody to notice (--shutdown-delay): others serve, too.
        """
        os.kill(self.pid, signal.SIGINT if self.serves else signal.SIGTERM)


class Upgrade:
    """Both ends of the relation: this master may have had a predecessor, and may get a successor.

    The office is taken at once, unless there is a predecessor who holds it.
    """

    def __init__(
        self,
        predecessor: Inheritance | None,
        office: Office,
        listeners: tuple[Listener, ...],
        start: Start,
    ) -> None:
        """Be ready; `start` is how a successor is started."""
        self._predecessor = None if predecessor is None else predecessor.channel
        self._successor: Successor | None = None
        self._unheard = False
        self._office = office
        self._listeners = listeners
        self._start = start
        self._selector: selectors.BaseSelector

    def begin(self, selector: selectors.BaseSelector) -> None:
        """Take office, or listen to the one who has it. Raises `BootError`."""
        self._selector = selector
        if self._predecessor is None:
            self._office.take()
            return
        self._office.wait()
        self._listen(self._predecessor, self._hear_predecessor)

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
        self._part_from(successor)
        self._successor = None
        how = dead[successor.pid]
        return [SuccessorExited(how, asked=how == _IN_ORDER)]

    def perform(self, action: Launch | HandOver | TakeBack | Dismiss) -> list[Event]:
        """Do what the supervisor has decided; return what comes of it at once."""
        if isinstance(action, Launch):
            return self._launch(action.why)
        _log.info("upgrade: %s: %s", _DEEDS[type(action)], action.why)
        successor = self._successor
        match action:
            case HandOver() if successor is not None:
                self._office.hand_over(successor.pid)
                successor.serves = True
                successor.say(Word.GO)
            case TakeBack():
                self._take_back(successor)
            case Dismiss() if successor is not None:
                successor.dismiss()
        return []

    def abandon(self) -> None:
        """Close the channels, in a forked child or at the end."""
        if self._successor is not None:
            self._successor.channel.close()
        if self._predecessor is not None:
            self._predecessor.close()

    def _launch(self, why: str) -> list[Event]:
        if reason := obstacle(os.getpid(), young=self._predecessor is not None):
            return [SuccessorExited(reason)]
        try:
            successor = self._successor = Successor(
                self._start,
                listening.export(self._listeners),
                listening.descriptors(self._listeners),
            )
        except OSError as error:
            return [SuccessorExited(f"the new master could not be forked: {error.strerror}")]
        _log.info("upgrade: the new master is process %d: %s", successor.pid, why)
        self._listen(successor.channel, functools.partial(self._hear_successor, successor))
        return []

    def _take_back(self, successor: Successor | None) -> None:
        self._office.take_back()
        if successor is not None:
            successor.say(Word.BACK)
            self._unheard = True

    def _hear_successor(self, successor: Successor) -> list[Event]:
        events: list[Event] = []
        while (data := receive(successor.channel)) is not None:
            if not data:
                self._part_from(successor)
                break
            events += [SuccessorReady()] * data.count(Word.READY)
        return events

    def _part_from(self, successor: Successor) -> None:
        """Listen no more: it has nothing to say, and nobody listens to it either."""
        self._hang_up(successor.channel)
        if self._unheard:
            self._unheard = False
            self._office.repeat()

    def _hear_predecessor(self) -> list[Event]:
        assert self._predecessor is not None  # noqa: S101 - it is unregistered with its end
        while (data := receive(self._predecessor)) is not None:
            if Word.GO in data or not data:
                self._succeed()
            if Word.BACK in data:
                self._office.resign(os.getppid())
            if Word.BACK in data or not data:
                self._hang_up(self._predecessor)
                self._predecessor = None
                break
        return []

    def _succeed(self) -> None:
        """Take office; also when the predecessor has died before it could say so.

        A pid file that it cannot let go of is no reason not to; when it has left, there is another
        attempt.
        """
        try:
            self._office.take()
        except BootError as error:
            _log.error("upgrade: %s", error)
            self._office.hold()

    def _listen(self, channel: socket.socket, hear: Callable[[], list[Event]]) -> None:
        channel.setblocking(False)
        self._selector.register(channel, selectors.EVENT_READ, hear)

    def _hang_up(self, channel: socket.socket) -> None:
        if channel.fileno() >= 0:
            self._selector.unregister(channel)
            channel.close()


_DEEDS = {
    HandOver: "the new master takes over",
    TakeBack: "this master takes back",
    Dismiss: "the new master is told to leave",
}
"""What each action is called in the log."""
