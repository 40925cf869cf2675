"""What one HTTP/2 connection may cost: counters that fill and leak. Pure.

HTTP/2 lets a client ask for work with a few bytes and take the request back at once (Rapid Reset,
CVE-2023-44487), make the server take it back (MadeYouReset, CVE-2025-8671), or send frames that
have to be answered (CVE-2019-9512, -9515, -9518). Nobody needs much of that; so each kind is
counted, and who goes above its limit is told to calm down.
"""

from __future__ import annotations

from daphne_supervisor.worker.http2_frames import Code, ConnectionFault

__all__ = ["WINDOW", "Bucket"]

#: Seconds in which a full bucket is empty again.
WINDOW = 10.0


class Bucket:
    """A count that goes down with time: `most` in `WINDOW` seconds, from the fullest to nothing."""

    __slots__ = ("_at", "_level", "_most", "_option", "_what")

    def __init__(self, most: int, what: str, option: str) -> None:
        """Let `most` of `what` through, which `option` sets; 0 is no limit."""
        self._most = most
        self._what = what
        self._option = option
        self._level = 0.0
        self._at = 0.0

    def add(self, now: float) -> None:
        """Count one more at `now`. Raises `ConnectionFault` when it is one too many."""
        if not self._most:
            return
        leaked = (now - self._at) * self._most / WINDOW
        self._at = now
        self._level = max(0.0, self._level - leaked) + 1.0
        if self._level > self._most:
            raise ConnectionFault(
                Code.ENHANCE_YOUR_CALM, f"{self._what}: more than {self._option} in {WINDOW:g} s"
            )

    def give_back(self, count: int) -> None:
        """Forget `count` of them: they had a reason."""
        self._level = max(0.0, self._level - count)
