"""Whether something that arrives in pieces arrives fast enough. Pure."""

from __future__ import annotations

import math

__all__ = ["GRACE", "Pace"]

#: Seconds over which the pace is measured, so that a pause in a network is none in a body. Kestrel
#: gives as many.
GRACE = 5.0


class Pace:
    """The pace of one body.

    `due` is the monotonic time in seconds at which `slow` has something to say.
    """

    def __init__(self, rate: float) -> None:
        """Ask for `rate` bytes a second, for nothing if it is 0."""
        self._rate = rate
        self._seen = 0
        self._since = 0.0
        self.due = math.inf

    def watch(self, received: int, now: float) -> None:
        """Measure anew from here: `received` bytes have come so far."""
        if self._rate:
            self._seen, self._since = received, now
            self.due = now + GRACE

    def slow(self, received: int, now: float) -> bool:
        """Say whether less has come since `watch` than should have."""
        return received - self._seen < self._rate * (now - self._since)
