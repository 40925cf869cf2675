"""Watches the files of TLS, and the days that certificates have left.

Each worker looks for itself, once a second: at the marks of a few files, which costs nothing, and
finds every kind of replacement, also links that are made to point elsewhere (certbot, Kubernetes)
and directories on a network, of which the kernel would not tell. One worker of the pool speaks for
all: they all see the same files.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from daphne_supervisor.scoreboard import IDLE

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from daphne_supervisor.scoreboard import Scoreboard
    from daphne_supervisor.worker.tls_credentials import Credentials, Line
    from daphne_supervisor.worker.tls_pem import Pair

__all__ = ["INTERVAL", "Watch", "validity"]

logger = logging.getLogger("daphne_supervisor.worker")

#: Seconds between two looks at the files.
INTERVAL = 1.0
_DAY = 86400.0
#: Seconds before the end of a certificate in which it is warned of: who renews at the usual third
#: of the validity has failed for two weeks by then.
_SOON = 14 * _DAY


def validity(pair: Pair, now: float) -> Line:
    """Return how long a certificate is valid, seen at `now` in seconds since 1970."""
    until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(pair.expires))
    left = pair.expires - now
    if left <= 0:
        return logging.ERROR, f"TLS: {pair.label} has expired on {until}"
    if left <= _SOON:
        return logging.WARNING, f"TLS: {pair.label} expires on {until}, in {left // _DAY:.0f} days"
    return logging.INFO, f"TLS: {pair.label} is valid until {until}"


class Watch:
    """One worker's eye on its credentials. `wall` returns the time in seconds since 1970."""

    def __init__(
        self,
        credentials: Iterable[Credentials],
        scoreboard: Scoreboard,
        slot: int,
        loop: asyncio.AbstractEventLoop,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Watch for the worker in `slot`. What the zygote has said of the files is not repeated."""
        self._credentials = tuple(dict.fromkeys(credentials))
        self._scoreboard = scoreboard
        self._slot = slot
        self._loop = loop
        self._wall = wall
        self._noticed = self._notices(wall())
        self._waiting: list[str] = []

    def begin(self) -> None:
        """Look for the first time, before anybody is accepted, and go on looking.

        A zygote's files may have been replaced long ago when a worker is born.
        """
        for each in self._credentials:
            unreadable = each.unreadable()
            if unreadable:
                each.rest()
                self._waiting.append(
                    f"TLS: {each.where}: the workers' user cannot read {', '.join(unreadable)}:"
                    " send HUP when it has been replaced"
                )
        if self._credentials:
            self._look()

    def _look(self) -> None:
        self._loop.call_later(INTERVAL, self._look_again)
        for each in self._credentials:
            for level, text in each.look():
                self._say(level, text)
        self._remind()

    def _look_again(self) -> None:
        # Not sooner: of workers that begin together none would see that another one speaks.
        for text in self._waiting:
            self._say(logging.INFO, text)
        self._waiting.clear()
        self._look()

    def _remind(self) -> None:
        """Speak of certificates that are new; of those that end soon or have ended, each day."""
        now = self._wall()
        notices = self._notices(now)
        if notices == self._noticed:
            return
        known, self._noticed = self._noticed, notices
        for pair, notice in notices.items():
            if notice != known.get(pair):
                self._say(*validity(pair, now))

    def _notices(self, now: float) -> dict[Pair, tuple[int, float]]:
        """Return for each certificate how bad it is, and for bad ones the day."""
        found = {}
        for each in self._credentials:
            for pair in each.pairs:
                level, _ = validity(pair, now)
                found[pair] = (level, now // _DAY if level > logging.INFO else 0.0)
        return found

    def _say(self, level: int, text: str) -> None:
        """Log for the whole pool, unless another worker does."""
        counts = self._scoreboard.counts()[: self._slot - 1]
        others = any(count != IDLE for count in counts)
        logger.log(logging.DEBUG if others else level, "%s", text)
