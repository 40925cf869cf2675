"""What the service manager hears, and when.

Theory. A service manager waits for milestones: READY ends the start, RELOADING begins a reload and
READY ends it, STOPPING begins the end. A reload that fails is over as well, and must be announced
as such, or the manager would wait until its own timeout. So the `Herald` keeps what is still owed,
and tells each milestone once. Beside the milestones it tells the status line whenever that changes.

The `Watchdog` is the other way round: it says at regular times that all is well, and when it falls
silent the manager starts the service anew. It speaks for the pool, so it is silent when nobody
serves, but not when nobody should.
"""

from __future__ import annotations

import math

from daphne_supervisor.master.model import Announce, Milestone, Reassure

__all__ = ["Herald", "Watchdog"]


class Herald:
    """Remembers what the service manager was told, and what it still has to hear."""

    def __init__(self) -> None:
        """Owe the first READY."""
        self._owed = {Milestone.READY}
        self._told: set[Milestone] = set()
        self._status = ""
        self._judged = False

    def owe_reload(self, *, judged: bool = True) -> None:
        """Owe RELOADING, unless the service is not even up, and READY at its end.

        `judged` means that there is a reload that can fail, and not only somebody who waits.
        """
        self._owed.add(Milestone.READY)
        if self.was_ready:
            self._owed.add(Milestone.RELOADING)
            self._judged |= judged

    def owe_stop(self) -> None:
        """Owe STOPPING, and nothing else any more."""
        self._owed = {Milestone.STOPPING}

    def resume(self) -> None:
        """Owe the whole state of things, after somebody else has spoken in our place."""
        self._status = ""
        if Milestone.STOPPING not in self._owed | self._told:
            self._owed.add(Milestone.READY)

    @property
    def was_ready(self) -> bool:
        """Whether READY was ever announced."""
        return Milestone.READY in self._told

    def announce(
        self, status: str, *, ready: bool, failed: bool = False, extend: float = 0.0
    ) -> list[Announce]:
        """Return what there is to tell; `ready` allows the milestone READY.

        `failed` is what READY shall say of the reload that it ends, if it ends one.
        """
        milestones = self._due(ready=ready)
        changed = status != self._status
        self._status = status
        if not milestones and changed:
            return [Announce(None, status, "the status has changed", extend=extend)]
        return [self._tell(each, status, failed=failed, extend=extend) for each in milestones]

    def _tell(self, milestone: Milestone, status: str, *, failed: bool, extend: float) -> Announce:
        why = f"the master is {milestone.value}"
        if milestone is not Milestone.READY:
            return Announce(milestone, status, why, extend=extend)
        failed, self._judged = failed and self._judged, False
        return Announce(milestone, status, why, failed=failed, extend=extend)

    def _due(self, *, ready: bool) -> list[Milestone]:
        """Return the milestones that are due, and strike them off."""
        order = (Milestone.STOPPING, Milestone.RELOADING, Milestone.READY)
        due = [each for each in order if each in self._owed]
        if not ready:
            due = [each for each in due if each is not Milestone.READY]
        self._owed.difference_update(due)
        self._told.update(due)
        return due


class Watchdog:
    """Tells the service manager every so often that all is well; without an interval, never."""

    def __init__(self, interval: float | None) -> None:
        """Speak every `interval` seconds."""
        self._interval = interval
        self._next = -math.inf
        self._healthy = False

    @property
    def due(self) -> float:
        """When it speaks next if nothing changes (monotonic seconds); infinity for never."""
        return self._next if self._healthy else math.inf

    def watch(self, now: float, *, healthy: bool) -> list[Reassure]:
        """Take note of how things stand, and return what there is to say."""
        self._healthy = healthy and self._interval is not None
        if self._interval is None or not healthy or now < self._next:
            return []
        self._next = now + self._interval
        return [Reassure("the watchdog is due")]
