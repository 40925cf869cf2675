"""Hands that fork nobody, for tests of the master's loop: with a clock and a selector that obey.

The channels are real sockets, because reading them is what is tested. Time is not: whoever would
block lets the next act of the test happen or, when there is none, moves the clock.
"""

from __future__ import annotations

import selectors
import socket
from typing import TYPE_CHECKING

from daphne_supervisor.master.processes import Child, Death
from daphne_supervisor.messages import encode

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

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
        self.refusal: OSError | None = None
        self._near: dict[int, socket.socket] = {}
        self._far: dict[int, socket.socket] = {}
        self._deaths: list[Death] = []

    def __repr__(self) -> str:
        """Tell who lives."""
        return f"<FakeHands {sorted(self._near)}>"

    def spawn(self, slot: int, generation: int) -> Child:
        """Pretend to fork; raises `refusal` when that is set."""
        if self.refusal is not None:
            raise self.refusal
        self.forked.append((slot, generation))
        pid = 100 + len(self.forked)
        self._near[pid], self._far[pid] = socket.socketpair()
        self._near[pid].setblocking(False)
        return Child(pid, self._near[pid])

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Remember the signal."""
        self.signals.append((pid, number))

    def reap(self) -> list[Death]:
        """Return who was made to die."""
        deaths, self._deaths = self._deaths, []
        return deaths

    def forget(self, pid: int) -> None:
        """Close the master's end."""
        self._near.pop(pid).close()

    def says(self, pid: int, report: Report | bytes) -> None:
        """Let a worker send a report, or any bytes."""
        self._far[pid].sendall(report if isinstance(report, bytes) else encode(report))

    def hangs_up(self, pid: int) -> None:
        """Close a worker's end of its channel."""
        self._far.pop(pid).close()

    def dies(self, pid: int, how: str, *, hang_up: bool = True) -> None:
        """Let a worker die; without `hang_up` a grandchild holds its end of the channel."""
        if hang_up and pid in self._far:
            self.hangs_up(pid)
        self._deaths.append(Death(pid, how))

    def close(self) -> None:
        """Close what is left."""
        for end in (*self._near.values(), *self._far.values()):
            end.close()


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
