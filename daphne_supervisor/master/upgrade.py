"""Two masters on the same listeners: how an upgrade is handed over, and taken back.

Theory. The old master starts a new one on the same listeners (`successor`), and a channel connects
the two. What is said on it are single words:

    new -> old   ready   all my workers are ready
    old -> new   go      be the main process: pid file, socket files, service manager
    old -> new   back    not any more: I am, and a signal to leave follows

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
import logging
import os
import select
import selectors
from typing import TYPE_CHECKING

from daphne_supervisor import listeners as listening
from daphne_supervisor.errors import BootError
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
from daphne_supervisor.master.successor import Successor

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from daphne_supervisor.listeners import Listener
    from daphne_supervisor.master.model import Event
    from daphne_supervisor.master.office import Office
    from daphne_supervisor.master.successor import Inheritance, Start

__all__ = ["Upgrade", "Word", "obstacle"]

_log = logging.getLogger("daphne_supervisor.master")

_IN_ORDER = describe(0)
_LAST_MOMENT = 1.0
"""Seconds that a process may take from closing its channel to its end: it takes microseconds."""
_FIRST = 1
"""The process with this id is the one that a container, or the machine, ends with."""


class Word:
    """What the masters say to each other."""

    READY = b"ready\n"
    GO = b"go\n"
    BACK = b"back\n"


def obstacle(process: int, *, young: bool) -> str:
    """Return why the master with this process id cannot be upgraded, "" if it can.

    `young` says that the master that it came from has not left yet.
    """
    if process == _FIRST:
        return "this master is process 1, and with it would end its container, the new one included"
    if young:
        return "the old master of the last upgrade has not left yet"
    return ""


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
        self._predecessor = predecessor
        self._successor: Successor | None = None
        self._unheard = False
        self._end = -1  # a descriptor that is readable when the predecessor has ended
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
        hear = functools.partial(self._hear_predecessor, self._predecessor)
        self._listen(self._predecessor.channel, hear)

    def ready(self) -> None:
        """Every worker of ours is ready: tell a predecessor who waits for that."""
        if self._predecessor is not None and not self._office.held:
            with contextlib.suppress(OSError):
                self._predecessor.channel.send(Word.READY)

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
            self._predecessor.channel.close()
        self._close_end()

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

    def _hear_predecessor(self, predecessor: Inheritance) -> list[Event]:
        while (data := receive(predecessor.channel)) is not None:
            if not data and not self._office.held:
                _outlast(predecessor.process)
            if Word.GO in data or not data:
                self._succeed()
            if Word.BACK in data:
                self._office.resign(predecessor.process)
            if Word.BACK in data or not data:
                self._hang_up(predecessor.channel)
                self._predecessor = None
                if not data:
                    self._await_end(predecessor.process)
                break
        return []

    def _await_end(self, process: int) -> None:
        """Have the service manager look again when the predecessor has ended, and not before."""
        try:
            self._end = os.pidfd_open(process)
        except OSError:  # it is gone, or the kernel is too old to tell
            self._office.confirm()
        else:
            self._selector.register(self._end, selectors.EVENT_READ, self._outlive)

    def _outlive(self) -> list[Event]:
        self._selector.unregister(self._end)
        self._close_end()
        self._office.confirm()
        return []

    def _close_end(self) -> None:
        if self._end >= 0:
            os.close(self._end)
            self._end = -1

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


def _outlast(process: int) -> None:
    """Wait for the end of `process`, which was killed, as far as we can see.

    The kernel closes its channel a moment before it gives its lock on the pid file free.
    """
    with contextlib.suppress(OSError):  # it is gone, or the kernel is too old to tell
        descriptor = os.pidfd_open(process)
        try:
            select.select([descriptor], [], [], _LAST_MOMENT)
        finally:
            os.close(descriptor)


_DEEDS = {
    HandOver: "the new master takes over",
    TakeBack: "this master takes back",
    Dismiss: "the new master is told to leave",
}
"""What each action is called in the log."""
