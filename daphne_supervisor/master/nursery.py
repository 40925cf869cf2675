"""The master's side of the zygotes: one for each generation that may still have to bear workers.

A zygote is forked when the first worker of its generation is wanted, and what is wanted before it
has grown waits here. One that dies although it had grown is replaced at once, without touching its
workers: they are the master's own children. One that dies while it grows takes with it the workers
that wait for it, and the supervisor's back-off decides when there is another attempt.
"""

from __future__ import annotations

import functools
import logging
import os
import selectors
import signal
import socket
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from daphne_supervisor.master.model import Exited, Reported, Spawned
from daphne_supervisor.master.zygote import request
from daphne_supervisor.messages import (
    ZYGOTE_REPORTS,
    BootFailed,
    Born,
    Decoder,
    Grown,
    Stillborn,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from daphne_supervisor.master.model import Event
    from daphne_supervisor.messages import ZygoteReport

__all__ = ["Nursery", "receive"]

_log = logging.getLogger("daphne_supervisor.master")

_FOR_THE_ZYGOTE = (signal.SIGABRT, signal.SIGKILL)
"""What an unborn worker is sent when it takes too long: then it is the zygote that hangs."""


@dataclass(slots=True)
class _Mother:
    """A zygote as the master knows it.

    `waiting` holds the far ends of the channels of workers that were not asked for yet, `asked` the
    slots that were, and `owed` the signals to be sent to a worker as soon as it has a process id.
    """

    generation: int
    pid: int
    channel: socket.socket
    decoder: Decoder[ZygoteReport] = field(default_factory=lambda: Decoder(ZYGOTE_REPORTS))
    grown: bool = False
    retired: bool = False
    failure: BootFailed | None = None
    waiting: dict[int, socket.socket] = field(default_factory=dict)
    asked: set[int] = field(default_factory=set)
    owed: defaultdict[int, list[signal.Signals]] = field(default_factory=lambda: defaultdict(list))

    def __str__(self) -> str:
        """Return how log lines call it."""
        return f"zygote gen {self.generation} pid {self.pid}"


class Nursery:
    """Bears workers."""

    def __init__(
        self,
        fork: Callable[[int, socket.socket], int],
        born: Callable[[int, int], list[Event]],
        selector: selectors.BaseSelector,
    ) -> None:
        """Begin with no zygote.

        `fork` forks the zygote of a generation with its end of the channel, and returns the pid;
        `born` is told each worker's slot and pid, and returns what else has become of it.
        """
        self._fork = fork
        self._born = born
        self._selector = selector
        self._mothers: dict[int, _Mother] = {}  # by generation
        self._old: list[_Mother] = []  # retired, but not reaped yet
        self._news: list[Event] = []

    def expecting(self) -> bool:
        """Say whether a process may have been born of which we do not know yet."""
        return any(mother.asked for mother in self._everyone())

    def order(self, slot: int, generation: int, far: socket.socket) -> None:
        """Let a worker be born, whose end of the channel is `far`. Raises `OSError`."""
        mother = self._mothers.get(generation)
        if mother is None:
            mother = self._conceive(generation)
        mother.waiting[slot] = far
        if mother.grown:
            self._ask(mother)

    def signal(self, slot: int, number: signal.Signals) -> None:
        """Send a signal to a worker that is not born yet."""
        for mother in self._everyone():
            if number in _FOR_THE_ZYGOTE and slot in {*mother.waiting, *mother.asked}:
                _signal(mother, number)
            elif slot in mother.waiting:
                self._cancel(mother, slot)
            elif slot in mother.asked:
                mother.owed[slot].append(number)

    def reopen(self) -> None:
        """Let the zygotes open the logs anew, for the workers to come."""
        for mother in self._mothers.values():
            _signal(mother, signal.SIGUSR1)

    def keep(self, generations: frozenset[int]) -> None:
        """Give up the zygotes of all generations but these."""
        for generation in self._mothers.keys() - generations:
            mother = self._mothers.pop(generation)
            mother.retired = True
            self._old.append(mother)
            for slot in list(mother.waiting):
                self._cancel(mother, slot)
            _signal(mother, signal.SIGKILL)  # it has nothing to lose

    def news(self) -> list[Event]:
        """Return what has happened without being read from a channel."""
        news, self._news = self._news, []
        return news

    def bury(self, pid: int, how: str) -> list[Event] | None:
        """Note that a process is dead; return what comes of it, None if it was no zygote."""
        mother = next((one for one in self._everyone() if one.pid == pid), None)
        if mother is None:
            return None
        events = self._hear(mother)  # its last words come before its end
        level = logging.DEBUG if mother.retired or mother.failure else logging.WARNING
        _log.log(level, "%s: gone, %s", mother, how)
        self._forget(mother)
        for slot in [*mother.asked, *mother.waiting]:
            if mother.failure is not None:
                events.append(Reported(slot, mother.failure))
            events.append(Exited(slot, f"its zygote died: {how}"))
        if mother.grown and not mother.retired:
            self._replace(mother.generation)
        return events

    def close(self) -> None:
        """Close every descriptor; what a forked child has to do, and the master at its end."""
        for mother in self._everyone():
            mother.channel.close()
            for far in mother.waiting.values():
                far.close()

    def pids(self) -> list[int]:
        """Return the process ids of the zygotes that were not reaped yet."""
        return [mother.pid for mother in self._everyone()]

    def _everyone(self) -> list[_Mother]:
        return [*self._mothers.values(), *self._old]

    def _conceive(self, generation: int) -> _Mother:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near.setblocking(False)
        try:
            with far:
                pid = self._fork(generation, far)
        except OSError:
            near.close()
            raise
        mother = self._mothers[generation] = _Mother(generation, pid, near)
        self._selector.register(
            near, selectors.EVENT_READ, functools.partial(self._hear, mother)
        )
        _log.debug("%s: started", mother)
        return mother

    def _replace(self, generation: int) -> None:
        try:
            self._conceive(generation)
        except OSError as error:
            _log.warning("zygote gen %d: could not be forked: %s", generation, error.strerror)

    def _forget(self, mother: _Mother) -> None:
        self._hang_up(mother)
        mother.channel.close()
        for far in mother.waiting.values():
            far.close()
        if mother.retired:
            self._old.remove(mother)
        else:
            del self._mothers[mother.generation]

    def _hang_up(self, mother: _Mother) -> None:
        """Listen no more: a channel at its end is readable for ever."""
        if mother.channel in self._selector.get_map():
            self._selector.unregister(mother.channel)

    def _cancel(self, mother: _Mother, slot: int) -> None:
        mother.waiting.pop(slot).close()
        self._news.append(Exited(slot, "was not born yet"))

    def _ask(self, mother: _Mother) -> None:
        """Ask for every worker that waits; a full channel means hundreds of requests, so none."""
        for slot, far in list(mother.waiting.items()):
            with far:
                try:
                    socket.send_fds(mother.channel, [request(slot)], [far.fileno()])
                except OSError:  # it is dead, and its burial will say so
                    mother.asked.add(slot)
                else:
                    mother.asked.add(slot)
            del mother.waiting[slot]

    def _hear(self, mother: _Mother) -> list[Event]:
        events: list[Event] = []
        while (data := receive(mother.channel)) is not None:
            if not data:
                self._hang_up(mother)
                break
            for report in mother.decoder.feed(data):
                events += self._note(mother, report)
        return events

    def _note(self, mother: _Mother, report: ZygoteReport) -> list[Event]:
        match report:
            case Grown():
                mother.grown = True
                _log.debug("%s: has grown", mother)
                self._ask(mother)
            case BootFailed():
                mother.failure = report
            case Stillborn():
                mother.asked.discard(report.slot)
                return [Exited(report.slot, f"could not be forked: {report.why}")]
            case Born():  # pragma: no branch - the last kind there is
                mother.asked.discard(report.slot)
                events = [Spawned(report.slot, report.pid), *self._born(report.slot, report.pid)]
                for number in mother.owed.pop(report.slot, []):
                    os.kill(report.pid, number)
                return events
        return []


def _signal(mother: _Mother, number: signal.Signals) -> None:
    # It may be dead, but it is not reaped, so the pid is its own.
    os.kill(mother.pid, number)


def receive(channel: socket.socket) -> bytes | None:
    """Return what can be read now, nothing at the end, None when there is nothing yet."""
    try:
        return channel.recv(65536)
    except BlockingIOError:
        return None
    except OSError:  # the far end is gone, which is an end as good as any
        return b""
