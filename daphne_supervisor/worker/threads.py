"""The thread pool behind `--threads`.

Synchronous code in an ASGI application is mostly *thread-sensitive*: all of it that belongs to one
request must run on one thread, since database connections and the like are bound to threads. So
asgiref opens a fresh one-thread executor for every request, hundreds under load, and a database
connection with each. Here an application call gets a `Lease` instead: an executor that, at its
first use, binds itself to the least busy of N long-lived threads and stays there. Threads are
bounded and kept; nobody waits for a lease, and a stream that is open for hours holds none up, since
threads are shared by whoever is bound to them.
"""

from __future__ import annotations

import contextlib
import contextvars
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from asgiref.sync import ThreadSensitiveContext

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Call", "Lease", "Threads"]

#: Contexts that wait for a call: what a busy worker has in flight, at 1 KiB each.
_SPARE = 256


class _Thread:
    """One long-lived thread and what it has to do.

    Calls are submitted by the event loop and end on the thread, or on the loop when they are
    cancelled before their turn. A set bears that without a lock; a counter would not.
    """

    __slots__ = ("_calls", "_executor")

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._calls: set[Future[Any]] = set()

    @property
    def pending(self) -> int:
        return len(self._calls)

    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        future = self._executor.submit(function, *args, **kwargs)
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        return future

    def shutdown(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


class Lease(Executor):
    """The executor of one application call; it takes a thread at its first use.

    `used` says that it has one.
    """

    __slots__ = ("_thread", "_threads", "used")

    def __init__(self, threads: Threads) -> None:
        """Lease from `threads`."""
        self._threads = threads
        self._thread: _Thread
        self.used = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run `fn` on this call's thread."""
        if not self.used:
            self.used = True
            self._thread = self._threads.least_busy()
        return self._thread.submit(fn, *args, **kwargs)


class Call:
    """The context variables that one application call begins with; in them asgiref finds `lease`.

    To enter asgiref's context costs as much as all the rest of a small request. So a call that has
    not used its lease leaves it to a later one. The context is never left: what an application has
    started in the background may go on using the thread after its call has ended.
    """

    __slots__ = ("context", "lease")

    def __init__(self, base: contextvars.Context, lease: Lease) -> None:
        """Begin with the variables of `base`, and with `lease`."""
        self.lease = lease
        self.context = base.copy()
        self.context.run(self._enter)

    def _enter(self) -> None:
        # A coroutine that awaits nothing: one step is all of it.
        with contextlib.suppress(StopIteration):
            ThreadSensitiveContext(executor=self.lease).__aenter__().send(None)


class Threads:
    """The threads of one worker."""

    def __init__(self, count: int) -> None:
        """Hold up to `count` threads; each is started when it is first needed."""
        self._threads = [_Thread(f"daphne-supervisor-{number + 1}") for number in range(count)]
        # Not the context of the moment when a call begins: a pipelined request begins within the
        # task of the one before, and must not see that one's variables.
        self._base = contextvars.copy_context()
        self._spare: list[Call] = []

    @property
    def busy(self) -> int:
        """Return how many threads have something to do."""
        return sum(1 for thread in self._threads if thread.pending)

    def begin(self) -> Call:
        """Return what one application call begins with; a copy of its context is the call's."""
        while self._spare:
            call = self._spare.pop()
            if not call.lease.used:  # what outlived another call may have used it meanwhile
                return call
        return Call(self._base, Lease(self))

    def end(self, call: Call) -> None:
        """Keep what the application call, which has ended, did not use."""
        if not call.lease.used and len(self._spare) < _SPARE:
            self._spare.append(call)

    def least_busy(self) -> _Thread:
        """Return the thread with the least to do."""
        return min(self._threads, key=lambda thread: thread.pending)

    def shutdown(self) -> None:
        """Start nothing more; what runs is left to itself."""
        for thread in self._threads:
            thread.shutdown()
