"""The master's side of the zygotes: one for each generation that may still have to bear workers.

A zygote is forked when the first worker of its generation is wanted, and what is wanted waits here
until it has grown, and then for its turn: a zygote is asked for one worker at a time, since the
kernel's queue has room for ten requests only (net.unix.max_dgram_qlen).

One that dies although it had grown is replaced at once, without touching its workers: they are the
master's own children. Was it of no use yet, it is replaced when it is wanted again, for else one
that always dies would be forked in a circle. One that dies while it grows takes with it the workers
that wait for it, and the supervisor's back-off decides when there is another attempt.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import selectors
import signal
import socket
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


@dataclass(slots=True, eq=False)
class _Mother:
    """A zygote as the master knows it.

    `waiting` holds the far ends of the channels of workers that were not asked for yet, `asked` is
    the slot that was, and `owed` are the signals for that worker as soon as it has a process id.
    `sent` are the signals that were sent to the zygote itself: a second SIGABRT would end it while
    it writes its stacks. `useful` says that it has borne a worker, and `open` that there may be
    something to read.
    """

    generation: int
    channel: socket.socket
    waiting: dict[int, socket.socket]
    pid: int = 0
    decoder: Decoder[ZygoteReport] = field(default_factory=lambda: Decoder(ZYGOTE_REPORTS))
    grown: bool = False
    useful: bool = False
    retired: bool = False
    reaped: bool = False
    open: bool = True
    failure: BootFailed | None = None
    asked: int | None = None
    owed: list[signal.Signals] = field(default_factory=list)
    sent: set[signal.Signals] = field(default_factory=set)

    def __str__(self) -> str:
        """Return how log lines call it."""
        return f"zygote gen {self.generation} pid {self.pid}"

    def tell(self, number: signal.Signals) -> None:
        """Send a signal to the zygote; until it is reaped the pid is its own, dead or not."""
        if not self.reaped:
            self.sent.add(number)
            os.kill(self.pid, number)


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
        return any(mother.asked is not None for mother in self._everyone())

    def order(self, slot: int, generation: int, far: socket.socket) -> None:
        """Let a worker be born, whose end of the channel is `far`. Raises `OSError`."""
        mother = self._mothers.get(generation)
        if mother is None:
            self._conceive(generation, {slot: far})
            return
        mother.waiting[slot] = far
        self._ask(mother)

    def signal(self, slot: int, number: signal.Signals) -> None:
        """Send a signal to a worker that is not born yet."""
        for mother in self._everyone():
            if slot != mother.asked and slot not in mother.waiting:
                continue
            if number in _FOR_THE_ZYGOTE:
                if number not in mother.sent:
                    mother.tell(number)
            elif slot == mother.asked:
                mother.owed.append(number)
            else:
                self._cancel(mother, slot)

    def reopen(self) -> None:
        """Let the zygotes open the logs anew, for the workers to come."""
        for mother in self._mothers.values():
            mother.tell(signal.SIGUSR1)

    def keep(self, generations: frozenset[int]) -> None:
        """Give up the zygotes of all generations but these; whom they bear just now is born."""
        for generation in self._mothers.keys() - generations:
            mother = self._mothers.pop(generation)
            mother.retired = True
            self._old.append(mother)
            if signal.SIGABRT not in mother.sent:  # or else it is writing its stacks
                self._dismiss(mother)

    def news(self) -> list[Event]:
        """Return what has happened until now."""
        news, self._news = self._news, []
        for mother in self._everyone():
            news += self._hear(mother)
        return news

    def bury(self, pid: int, how: str) -> list[Event] | None:
        """Note that a process is dead; return what comes of it, None if it was no zygote."""
        mother = next((one for one in self._everyone() if one.pid == pid), None)
        if mother is None:
            return None
        mother.reaped = True
        events = self._hear(mother)  # its last words come before its end
        level = logging.DEBUG if mother.retired or mother.failure else logging.WARNING
        _log.log(level, "%s: gone, %s", mother, how)
        self._forget(mother)
        asked = [] if mother.asked is None else [mother.asked]
        for slot in [*asked, *mother.waiting]:
            if mother.failure is not None:
                events.append(Reported(slot, mother.failure))
            events.append(Exited(slot, f"its zygote died: {how}"))
        if mother.useful and not mother.retired:
            self._replace(mother.generation)
        return events

    def end(self) -> None:
        """Kill the zygotes that are left, and wait for their ends."""
        for mother in self._everyone():
            mother.tell(signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(mother.pid, 0)
            mother.reaped = True

    def close(self) -> None:
        """Close every descriptor; what a forked child has to do, and the master at its end."""
        for mother in self._everyone():
            mother.channel.close()
            for far in mother.waiting.values():
                far.close()

    def _everyone(self) -> list[_Mother]:
        return [*self._mothers.values(), *self._old]

    def _conceive(self, generation: int, waiting: dict[int, socket.socket]) -> None:
        """Fork a zygote, for the workers that are `waiting`. Raises `OSError`."""
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near.setblocking(False)
        # It is known before the fork, so that the child closes our ends of its own channel and of
        # its first worker's: held open there, they would hide the death of the master.
        mother = self._mothers[generation] = _Mother(generation, near, waiting)
        try:
            with far:
                mother.pid = self._fork(generation, far)
        except OSError:
            del self._mothers[generation]
            near.close()
            raise
        self._selector.register(near, selectors.EVENT_READ, functools.partial(self._hear, mother))
        _log.debug("%s: started", mother)

    def _replace(self, generation: int) -> None:
        try:
            self._conceive(generation, {})
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
        if mother.open:
            mother.open = False
            self._selector.unregister(mother.channel)

    def _dismiss(self, mother: _Mother) -> None:
        for slot in list(mother.waiting):
            self._cancel(mother, slot)
        if mother.grown:
            with contextlib.suppress(OSError):  # it is dead
                mother.channel.shutdown(socket.SHUT_WR)
        else:
            mother.tell(signal.SIGKILL)  # it has nothing to lose, and may hang

    def _cancel(self, mother: _Mother, slot: int) -> None:
        mother.waiting.pop(slot).close()
        self._news.append(Exited(slot, "was not born yet"))

    def _ask(self, mother: _Mother) -> None:
        """Ask for the worker that waits longest, if it is its turn."""
        if not mother.grown or mother.asked is not None or not mother.waiting:
            return
        slot = mother.asked = next(iter(mother.waiting))
        # If it is dead, its burial will say so.
        with mother.waiting.pop(slot) as far, contextlib.suppress(OSError):
            socket.send_fds(mother.channel, [request(slot)], [far.fileno()])

    def _hear(self, mother: _Mother) -> list[Event]:
        events: list[Event] = []
        while mother.open and (data := receive(mother.channel)) is not None:
            if not data:
                self._hang_up(mother)
                break
            try:
                reports = mother.decoder.feed(data)
            except ValueError as error:  # a preloaded application can write anywhere
                _log.warning("%s: sent what is no report: %s", mother, error)
                self._hang_up(mother)
                mother.tell(signal.SIGKILL)
                break
            for report in reports:
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
                self._end_turn(mother)
                return [Exited(report.slot, f"could not be forked: {report.why}")]
            case Born():  # pragma: no branch - the last kind there is
                mother.useful = True
                owed, fate = mother.owed, self._born(report.slot, report.pid)
                self._end_turn(mother)
                for number in [] if fate else owed:  # who is dead is reaped, and its pid is free
                    os.kill(report.pid, number)
                return [Spawned(report.slot, report.pid), *fate]
        return []

    def _end_turn(self, mother: _Mother) -> None:
        """Go on to the next worker."""
        mother.owed, mother.asked = [], None
        self._ask(mother)


def receive(channel: socket.socket) -> bytes | None:
    """Return what can be read now, nothing at the end, None when there is nothing yet."""
    try:
        return channel.recv(65536)
    except BlockingIOError:
        return None
    except OSError:  # the far end is gone, which is an end as good as any
        return b""
