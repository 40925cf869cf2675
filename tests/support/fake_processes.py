"""Hands that fork nobody, for tests of the master's loop: with a clock and a selector that obey.

The channels are real sockets, because reading them is what is tested. Time is not: whoever would
block lets the next act of the test happen or, when there is none, moves the clock.
"""

from __future__ import annotations

import selectors
import socket
from typing import TYPE_CHECKING

from daphne_supervisor.master.model import Exited, Spawned
from daphne_supervisor.messages import encode

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

    from daphne_supervisor.master.model import Event
    from daphne_supervisor.master.zygote import Heritage
    from daphne_supervisor.messages import Report

__all__ = ["Clock", "FakeHands", "FakeSelector"]


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        """Begin at an arbitrary time."""
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time, in seconds."""
        return self.now


class FakeHands:
    """Has the methods of `Hands`, remembers the signals, and lets the test play the workers."""

    def __init__(self) -> None:
        """Begin with nobody; the first pid will be 101, that of slot 1 unless it was refused."""
        self.signals: list[tuple[int, signal.Signals]] = []
        self.forked: list[tuple[int, int]] = []
        self.kept: list[frozenset[int]] = []
        self.heritages: list[Heritage] = []
        self.started: list[Callable[[], int]] = []
        self.ended: list[int] = []
        self.reopened = 0
        self.closed = False
        self.refusal: OSError | None = None
        self._near: dict[int, socket.socket] = {}  # by slot
        self._far: dict[int, socket.socket] = {}
        self._news: list[Event] = []
        self._strangers: dict[int, str] = {}

    def __repr__(self) -> str:
        """Tell who lives."""
        return f"<FakeHands {sorted(self._near)}>"

    def spawn(self, slot: int, generation: int) -> socket.socket:
        """Pretend to fork; raises `refusal` when that is set."""
        if self.refusal is not None:
            raise self.refusal
        self.forked.append((slot, generation))
        self._near[slot], self._far[slot] = socket.socketpair()
        self._near[slot].setblocking(False)
        self._news.append(Spawned(slot, 100 + len(self.forked)))
        return self._near[slot]

    def start(self, child: Callable[[], int]) -> int:
        """Remember the child, which never runs; pids begin at 901. Raises `refusal`, if any."""
        if self.refusal is not None:
            raise self.refusal
        self.started.append(child)
        return 900 + len(self.started)

    def end(self, pid: int) -> None:
        """Remember who was ended."""
        self.ended.append(pid)

    def signal(self, slot: int, number: signal.Signals) -> None:
        """Remember the signal."""
        self.signals.append((slot, number))

    def news(self) -> list[Event]:
        """Return who was born, and who was made to die."""
        news, self._news = self._news, []
        return news

    def strangers(self) -> dict[int, str]:
        """Return which other processes were made to die."""
        strangers, self._strangers = self._strangers, {}
        return strangers

    def forget(self, slot: int) -> None:
        """Close the master's end."""
        self._near.pop(slot).close()

    def keep(self, generations: frozenset[int]) -> None:
        """Remember which zygotes are kept."""
        self.kept.append(generations)

    def renew(self, heritage: Heritage) -> None:
        """Remember what later generations are born with."""
        self.heritages.append(heritage)

    def reopen(self) -> None:
        """Count how often the zygotes were told."""
        self.reopened += 1

    def close(self) -> None:
        """Close what is left."""
        self.closed = True
        for end in (*self._near.values(), *self._far.values()):
            end.close()

    # -- what the test lets the workers do --

    def says(self, slot: int, report: Report | bytes) -> None:
        """Let a worker send a report, or any bytes."""
        self._far[slot].sendall(report if isinstance(report, bytes) else encode(report))

    def hears(self, slot: int) -> bytes:
        """Return what a worker was told over its channel."""
        return self._far[slot].recv(4096)

    def hangs_up(self, slot: int) -> None:
        """Close a worker's end of its channel."""
        self._far.pop(slot).close()

    def dies(self, slot: int, how: str, *, hang_up: bool = True) -> None:
        """Let a worker die; without `hang_up` a grandchild holds its end of the channel."""
        if hang_up and slot in self._far:
            self.hangs_up(slot)
        self._news.append(Exited(slot, how))

    def stranger_dies(self, pid: int, how: str) -> None:
        """Let a process die that was no worker."""
        self._strangers[pid] = how


class FakeSelector(selectors.DefaultSelector):
    """Never blocks: instead it lets the next act happen, or moves the clock to the timeout."""

    def __init__(self, clock: Clock, acts: list[Callable[[], None]]) -> None:
        """Move `clock`; take `acts` from the front, one for each time the master would wait."""
        super().__init__()
        self._clock = clock
        self._acts = acts

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready, after something has happened."""
        found = super().select(0)
        if not found and timeout != 0:
            if self._acts:
                self._acts.pop(0)()
            else:
                assert timeout is not None, "the master would wait for ever"
                self._clock.now += timeout
            found = super().select(0)
        return found
