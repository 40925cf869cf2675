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

from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Lease", "Threads"]


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
    """The executor of one application call; it takes a thread at its first use."""

    __slots__ = ("_thread", "_threads")

    def __init__(self, threads: Threads) -> None:
        """Lease from `threads`."""
        self._threads = threads
        self._thread: _Thread | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run `fn` on this call's thread."""
        if self._thread is None:
            self._thread = self._threads.least_busy()
        return self._thread.submit(fn, *args, **kwargs)


class Threads:
    """The threads of one worker."""

    def __init__(self, count: int) -> None:
        """Hold up to `count` threads; each is started when it is first needed."""
        self._threads = [_Thread(f"daphne-supervisor-{number + 1}") for number in range(count)]

    @property
    def busy(self) -> int:
        """Return how many threads have something to do."""
        return sum(1 for thread in self._threads if thread.pending)

    def lease(self) -> Lease:
        """Return the executor for one application call."""
        return Lease(self)

    def least_busy(self) -> _Thread:
        """Return the thread with the least to do."""
        return min(self._threads, key=lambda thread: thread.pending)

    def shutdown(self) -> None:
        """Start nothing more; what runs is left to itself."""
        for thread in self._threads:
            thread.shutdown()
