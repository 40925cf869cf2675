"""The threads behind `--threads`.

Synchronous code in an ASGI application is mostly *thread-sensitive*: all of it that belongs to one
request must run on one thread, since database connections and the like are bound to threads. So
asgiref opens a fresh one-thread executor for every request, hundreds under load, and a database
connection with each. Here an application call gets a `Lease` instead: an executor that, at its
first use, binds itself to one of N long-lived threads and stays there. Threads are bounded and
kept; nobody waits for a lease, and a stream that is open for hours holds none up, since threads are
shared by whoever is bound to them.

What is not thread-sensitive, `run_in_executor(None, ...)` among it, runs on a second pool of N. It
is another one because code on a leased thread may wait for it.

With N = 0 nothing of this is in force: asgiref and the event loop do as they do by themselves.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import sys
from typing import TYPE_CHECKING, NamedTuple

from asgiref.sync import ThreadSensitiveContext

from daphne_supervisor.worker.thread_pool import Lease, Pool

if TYPE_CHECKING:
    import asyncio

    from daphne_supervisor.worker.thread_pool import Thread, Work

__all__ = ["Call", "Load", "Threads", "close_connections"]

logger = logging.getLogger("daphne_supervisor.worker")

#: Contexts that wait for a call: what a busy worker has in flight, at 1 KiB each.
_SPARE = 256


class Load(NamedTuple):
    """What the threads have to do: `busy` threads, calls `queued`, the longest wait in seconds."""

    busy: int
    queued: int
    oldest_wait: float


class Call:
    """The context variables that one application call begins with; in them asgiref finds `lease`.

    To enter asgiref's context costs as much as all the rest of a small request. So a call that has
    not used its lease leaves it to a later one. The context is never left: what an application has
    started in the background may go on using the thread after its call has ended.
    """

    __slots__ = ("context", "lease")

    def __init__(self, base: contextvars.Context, lease: Lease, *, leased: bool = True) -> None:
        """Begin with the variables of `base`, and with `lease`, unless nothing is leased."""
        self.lease = lease
        self.context = base.copy()
        if leased:
            self.context.run(self._enter)

    def _enter(self) -> None:
        # A coroutine that awaits nothing: one step is all of it.
        with contextlib.suppress(StopIteration):
            ThreadSensitiveContext(executor=self.lease).__aenter__().send(None)


class Threads:
    """The threads of one worker: `leased` to application calls, and `any` for all other work."""

    def __init__(self, count: int) -> None:
        """Hold up to `count` threads of each kind; each is started when it is first needed."""
        self.count = count
        self.leased = Pool("sync", count, close_connections)
        self.any = Pool("any", count, close_connections)
        # Not the context of the moment when a call begins: a pipelined request begins within the
        # task of the one before, and must not see that one's variables.
        self._base = contextvars.copy_context()
        self._spare: list[Call] = []

    def serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Be what `loop` runs in its default executor."""
        if self.count:
            loop.set_default_executor(self.any)

    # -- what watches --

    @property
    def busy(self) -> int:
        """Return how many threads have something to do."""
        return self.leased.busy + self.any.busy

    def queued(self) -> list[tuple[Work, Thread | None, Pool]]:
        """Return what waits, its thread if it is bound to one, its pool; the longest wait first."""
        waiting = [(*one, pool) for pool in (self.leased, self.any) for one in pool.queued()]
        return sorted(waiting, key=lambda one: one[0].since)

    def load(self, now: float) -> Load:
        """Return what there is to do at the monotonic time `now`."""
        queued = self.queued()
        return Load(self.busy, len(queued), max(0.0, now - queued[0][0].since) if queued else 0.0)

    # -- calls --

    def begin(self) -> Call:
        """Return what one application call begins with; a copy of its context is the call's."""
        while self._spare:
            call = self._spare.pop()
            if not call.lease.calls:  # what outlived another call may have used it meanwhile
                return call
        return Call(self._base, Lease(self.leased), leased=self.count > 0)

    def end(self, call: Call) -> None:
        """Keep what the application call, which has ended, did not use."""
        if call.lease.calls:
            call.lease.end()
        elif len(self._spare) < _SPARE:
            self._spare.append(call)

    # -- the end --

    def shutdown(self) -> None:
        """Start nothing more; what runs is left to itself, each idle thread ends."""
        for pool in (self.leased, self.any):
            pool.shutdown(wait=False)

    def left(self) -> int:
        """Return how many threads have not ended."""
        return self.leased.left() + self.any.left()


def close_connections() -> None:
    """Close the connections to databases that Django keeps for the calling thread, if it is used.

    Nobody else can: they are thread-local. A server that is not told keeps its end until it notices
    that ours is gone.
    """
    database, configuration = sys.modules.get("django.db"), sys.modules.get("django.conf")
    if database is None or configuration is None or not configuration.settings.configured:
        return
    try:
        database.connections.close_all()
    except Exception as error:  # noqa: BLE001 - a driver's, at the end: there is nothing to be done
        logger.warning("a database connection could not be closed: %s", error)
