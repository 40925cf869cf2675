"""How patient the master is, and how soon it tries again: data, and pure functions of data.

Patience. Each state a worker can hang in has a limit (`limits`), counted from facts the supervisor
keeps: nothing is scheduled, so nothing has to be cancelled. Boot and heartbeat have separate
budgets, because importing a large application blocks the very loop whose beat we listen to.

Restarts. Each slot remembers how often its workers failed in a row. The first replacement comes
at once, since most crashes are accidents; after that the wait doubles up to half a minute, so that
a broken release costs next to nothing while the rest keeps serving. A stable life clears the count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daphne_supervisor.master.model import WorkerState

if TYPE_CHECKING:
    from daphne_supervisor.master.model import Worker

__all__ = [
    "LATE",
    "Limit",
    "Patience",
    "Restarts",
    "Settings",
    "backoff",
    "charge",
    "earliest",
    "limits",
]

LATE = 3.0
"""Seconds by which the master may oversleep before it doubts its own clock, not its workers: far
above the delays of a busy machine, far below any timeout that people set."""

FIRST_WAIT = 0.5
"""Seconds before the second attempt in a row; the first comes at once."""

LONGEST_WAIT = 30.0
"""Seconds between attempts at most: after a fix, nobody waits longer than this."""

STABLE_LIFE = 30.0
"""Seconds of being ready that clear a slot's failures: as long as the longest wait, so that even
the slowest crash loop spends less time starting than serving."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the master waits for a worker, in seconds.

    `boot` is for the import of the application and the start of its lifespan, `heartbeat` is the
    longest silence of a worker that serves, `graceful` is what a draining worker is given for its
    requests, and `margin` what it is given on top, for the application's shutdown, before the
    master steps in. `dump` is the time to say which requests are in progress, `abort` the time to
    write the stacks after SIGABRT, and `quit` the time to leave after SIGQUIT.
    """

    boot: float = 60.0
    heartbeat: float = 30.0
    graceful: float = 25.0
    margin: float = 5.0
    dump: float = 1.0
    abort: float = 5.0
    quit: float = 5.0

    @property
    def leave(self) -> float:
        """The longest that a worker can take from the order to drain to SIGKILL."""
        return self.graceful + self.margin + self.dump + self.abort


@dataclass(frozen=True, slots=True)
class Settings:
    """What the supervisor goes by; a reload may bring other settings.

    `workers` is the number that should be ready, `surge` how many more a reload may run.
    `min_lifetime` is the time in seconds that a worker serves before it is recycled, and
    `shutdown_delay` the time between the request to stop and the end of accepting.
    """

    workers: int
    patience: Patience = Patience()
    surge: int = 1
    min_lifetime: float = 60.0
    shutdown_delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Limit:
    """A moment (monotonic seconds), and what is wrong once it has come."""

    due: float
    why: str


def limits(worker: Worker, patience: Patience) -> list[Limit]:
    """Return every limit that `worker` is under in its present state."""
    return _LIMITS[worker.state](worker, patience)


def earliest(worker: Worker, patience: Patience) -> Limit | None:
    """Return the limit that `worker` will meet first, None when it is under none."""
    return min(limits(worker, patience), key=lambda limit: limit.due, default=None)


def _starting(worker: Worker, patience: Patience) -> list[Limit]:
    since = max(worker.entered, worker.granted)
    why = f"was not ready within {patience.boot:g} s (--ready-timeout)"
    return [Limit(since + patience.boot, why)]


def _ready(worker: Worker, patience: Patience) -> list[Limit]:
    since = max(worker.heard, worker.granted)
    return [_silence(since, patience)]


def _draining(worker: Worker, patience: Patience) -> list[Limit]:
    if worker.quit_at is not None:
        since = max(worker.quit_at, worker.granted)
        return [
            Limit(since + patience.quit, f"did not leave within {patience.quit:g} s of SIGQUIT")
        ]
    since = max(worker.entered, worker.granted)
    if worker.ready_at is None:
        # It never served, so nobody waits for its requests, and its loop may not even run yet.
        return [Limit(since + patience.margin, f"did not leave within {patience.margin:g} s")]
    whole = patience.graceful + patience.margin
    why = f"did not leave within {whole:g} s (--graceful-timeout {patience.graceful:g})"
    # The silence counts from the order at the earliest: a worker that spoke just before it was
    # told to drain must not be found silent because of a time that was nobody's fault.
    return [Limit(since + whole, why), _silence(max(since, worker.heard), patience)]


def _dumping(worker: Worker, patience: Patience) -> list[Limit]:
    since = max(worker.entered, worker.granted)
    return [Limit(since + patience.dump, f"did not dump within {patience.dump:g} s of SIGUSR2")]


def _aborting(worker: Worker, patience: Patience) -> list[Limit]:
    since = max(worker.entered, worker.granted)
    return [Limit(since + patience.abort, f"did not die within {patience.abort:g} s of SIGABRT")]


def _nothing_more(_worker: Worker, _patience: Patience) -> list[Limit]:
    """No limit: there is nothing beyond SIGKILL."""
    return []


def _silence(since: float, patience: Patience) -> Limit:
    seconds = f"{patience.heartbeat:g} s (--worker-timeout)"
    why = f"sent no heartbeat for {seconds}: its event loop is blocked"
    return Limit(since + patience.heartbeat, why)


_LIMITS = {
    WorkerState.STARTING: _starting,
    WorkerState.READY: _ready,
    WorkerState.DRAINING: _draining,
    WorkerState.DUMPING: _dumping,
    WorkerState.ABORTING: _aborting,
    WorkerState.KILLED: _nothing_more,
    WorkerState.GONE: _nothing_more,
}


@dataclass(frozen=True, slots=True)
class Restarts:
    """What a slot remembers: failures in a row, and the earliest time of the next attempt."""

    failures: int = 0
    not_before: float = -math.inf


def backoff(failures: int) -> float:
    """Return how many seconds to wait after so many failures in a row: 0, 0.5, 1, 2 ... 30."""
    if failures <= 1:
        return 0.0
    # The exponent is capped so that a week of failures does not overflow a float.
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(failures - 2, 16))


def charge(restarts: Restarts, *, lived: float, now: float) -> Restarts:
    """Return what the slot remembers after a failure of a worker that was ready for `lived` s."""
    failures = 1 if lived >= STABLE_LIFE else restarts.failures + 1
    return Restarts(failures, now + backoff(failures))
