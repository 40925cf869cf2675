"""Long-lived threads, and which call of synchronous code runs on which of them.

Theory. A call comes from the event loop as `Work`. Work in the name of a *lease* runs on the thread
that the lease is bound to; the first one binds it. Work without a lease runs on any thread. Who has
no thread yet gets an idle one, that to which the fewest leases are bound; when none is idle, it
waits in the pool's queue, which nobody's thread owns. A thread that has done its work takes what
has waited longest: of what is bound to it, and of the pool's queue. So no thread is idle while
somebody waits who could use it, and a lease has a thread to itself while there are enough of them.

The loop hands work over, the threads take it: both under one lock, for a few steps of the
interpreter. An idle thread sleeps at its inbox, in which there is never more than one thing.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import setproctitle
from asgiref.sync import SyncToAsync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Lease", "Pool", "Thread", "Work"]

_PREFIX = "daphne-supervisor-"


class Work:
    """One call of synchronous code: when it came (monotonic, s), from which task, for whom.

    `lease` says where it runs, `asker` is the executor of the application call that it is for.
    """

    __slots__ = (
        "_args",
        "_error",
        "_function",
        "_kwargs",
        "_result",
        "asker",
        "future",
        "lease",
        "since",
        "task",
    )

    def __init__(
        self,
        lease: Lease | None,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Stand for `function(*args, **kwargs)`, in the name of `lease`."""
        self.lease = lease
        self.asker: Executor | None = lease
        self.future: Future[Any] = Future()
        self.since = time.monotonic()
        self.task: asyncio.Task[Any] | None
        try:
            self.task = asyncio.current_task()
        except RuntimeError:  # whoever submits from elsewhere than a loop
            self.task = None
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Do it, unless it was cancelled meanwhile."""
        if self.future.set_running_or_notify_cancel():
            try:
                self._result = self._function(*self._args, **self._kwargs)
            except BaseException as error:  # noqa: BLE001 - it is the caller's, whatever it is
                self._error = error

    def tell(self) -> None:
        """Tell who asked what has come of it."""
        if self._error is not None:
            self.future.set_exception(self._error)
            self._error = None  # its frames may hold all this
        elif not self.future.cancelled():
            self.future.set_result(self._result)


class Thread:
    """One thread of a pool. It is started when it is first needed.

    `work` is what it does now, `begun` since when; `waiting` is bound to it, in the order of
    coming; `leases` counts the application calls that are bound to it and have not ended; `over` is
    set when it has ended.
    """

    __slots__ = (
        "_inbox",
        "_pool",
        "begun",
        "ident",
        "idle",
        "leases",
        "name",
        "over",
        "waiting",
        "work",
    )

    def __init__(self, pool: Pool, name: str) -> None:
        """Belong to `pool`."""
        self.name = name
        self.ident: int | None = None
        self.idle = True
        self.leases = 0
        self.work: Work | None = None
        self.begun = 0.0
        self.waiting: deque[Work] = deque()
        self.over = threading.Event()
        self._pool = pool
        self._inbox: SimpleQueue[Work | None] = SimpleQueue()

    def hand(self, work: Work | None) -> None:
        """Let it do `work`, or, for None, its farewell.

        Raises `RuntimeError` if it cannot be started.
        """
        if self.ident is None:
            # If it were no daemon, the end of the process would wait for it, however long it hangs.
            thread = threading.Thread(target=self._serve, name=self.name, daemon=True)
            thread.start()
            self.ident = thread.ident
        self._inbox.put(work)

    def _serve(self) -> None:
        # The kernel keeps 15 bytes (prctl(2), PR_SET_NAME), which `ps -L` and `top -H` show.
        setproctitle.setthreadtitle(self.name.removeprefix(_PREFIX))
        while (work := self._inbox.get()) is not None:
            while work is not None:
                self.begun = time.monotonic()
                self.work = work
                work.run()
                self.work = None
                # Before anybody hears of it: who asks next should find the thread idle.
                done, work = work, self._pool.next(self)
                done.tell()
                del done
        self._pool.leave(self)


class Pool(Executor):
    """At most `count` threads; as an executor it runs what has no lease."""

    def __init__(self, name: str, count: int, farewell: Callable[[], None]) -> None:
        """Call the threads daphne-supervisor-`name`-1 and so on; each ends with `farewell`."""
        self.threads = [Thread(self, f"{_PREFIX}{name}-{number + 1}") for number in range(count)]
        self._farewell = farewell
        self._lock = threading.Lock()
        self._idle = count
        self._waiting: deque[Work] = deque()
        self._closed = False

    # -- as who has work sees it --

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run `fn` on any thread."""
        work = Work(None, fn, args, kwargs)
        context = SyncToAsync.thread_sensitive_context.get(None)
        if context is not None:
            work.asker = SyncToAsync.context_to_thread_executor.get(context)
        return self.enter(work)

    def enter(self, work: Work) -> Future[Any]:
        """Let `work` be done. Raises `RuntimeError` behind the end."""
        lease = work.lease
        with self._lock:
            if self._closed:
                message = "the worker leaves: no synchronous code is started any more"
                raise RuntimeError(message)
            thread = None if lease is None else lease.thread
            if thread is None:
                thread = self._free() if self._idle else None
                if thread is None:
                    self._waiting.append(work)
                    return work.future
                if lease is not None:
                    self._bind(lease, thread)
            elif not thread.idle:
                thread.waiting.append(work)
                return work.future
            self._set_idle(thread, idle=False)
        try:
            thread.hand(work)
        except RuntimeError:  # no more threads are to be had from the system
            with self._lock:
                self._set_idle(thread, idle=True)
            raise
        return work.future

    def end(self, lease: Lease) -> None:
        """The call that `lease` is for has ended; what it has started may go on using it."""
        with self._lock:
            if not lease.ended and lease.thread is not None:
                lease.thread.leases -= 1
            lease.ended = True

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002, ARG002 - Executor's
        """Start nothing more, cancel what waits, let each thread say its farewell when it can.

        With `wait` the return is that of the last one. What waits is always cancelled.
        """
        with self._lock:
            again, self._closed = self._closed, True
            waiting = [*self._waiting, *(work for each in self.threads for work in each.waiting)]
            self._waiting.clear()
            started = [thread for thread in self.threads if thread.ident is not None]
            idle = [thread for thread in started if thread.idle and not again]
            for thread in self.threads:
                thread.waiting.clear()
        for work in waiting:
            work.future.cancel()
        for thread in idle:
            thread.hand(None)
        for thread in started if wait else ():
            thread.over.wait()

    def left(self) -> int:
        """Return how many threads were started and have not ended."""
        return sum(thread.ident is not None and not thread.over.is_set() for thread in self.threads)

    # -- as its threads see it --

    def next(self, thread: Thread) -> Work | None:
        """Return what `thread` does next, or None: then it is idle."""
        with self._lock:
            while queue := self._longest(thread):
                work = queue.popleft()
                if work.future.cancelled():
                    continue
                lease = work.lease
                if lease is not None and lease.thread is None:
                    self._bind(lease, thread)
                    self._gather(lease, thread)
                return work
            self._set_idle(thread, idle=True)
            if self._closed:
                thread.hand(None)
            return None

    def leave(self, thread: Thread) -> None:
        """`thread` ends."""
        try:
            self._farewell()
        finally:
            thread.over.set()

    # -- as who watches sees it --

    @property
    def busy(self) -> int:
        """Return how many threads have something to do."""
        return len(self.threads) - self._idle

    def queued(self) -> Iterator[tuple[Work, Thread | None]]:
        """Yield what waits, and the thread that it is bound to; in no order."""
        with self._lock:
            waiting: list[tuple[Work, Thread | None]] = [(work, None) for work in self._waiting]
            waiting += [(work, thread) for thread in self.threads for work in thread.waiting]
        for work, thread in waiting:
            if not work.future.cancelled():
                yield work, thread

    # -- under the lock --

    def _free(self) -> Thread | None:
        best = None
        for thread in self.threads:
            if thread.idle:
                if not thread.leases:
                    return thread
                if best is None or thread.leases < best.leases:
                    best = thread
        return best

    def _set_idle(self, thread: Thread, *, idle: bool) -> None:
        thread.idle = idle
        self._idle += 1 if idle else -1

    @staticmethod
    def _bind(lease: Lease, thread: Thread) -> None:
        lease.thread = thread
        if not lease.ended:
            thread.leases += 1

    def _longest(self, thread: Thread) -> deque[Work] | None:
        """Return the queue whose head has waited longest, of those `thread` may take from."""
        own, all_ = thread.waiting, self._waiting
        if own and all_:
            return own if own[0].since <= all_[0].since else all_
        return own or all_ or None

    def _gather(self, lease: Lease, thread: Thread) -> None:
        """Let all that waits in the name of `lease` wait for `thread`, in the order of coming."""
        if lease.calls > 1:
            of_others: deque[Work] = deque()
            for work in self._waiting:
                (thread.waiting if work.lease is lease else of_others).append(work)
            self._waiting = of_others


class Lease(Executor):
    """The executor of one application call; at its first use it is bound to a thread.

    `calls` counts what was submitted; with `ended` the application call has ended.
    """

    __slots__ = ("_pool", "calls", "ended", "thread")

    def __init__(self, pool: Pool) -> None:
        """Lease from `pool`."""
        self._pool = pool
        self.thread: Thread | None = None
        self.calls = 0
        self.ended = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run `fn` on this call's thread."""
        self.calls += 1
        return self._pool.enter(Work(self, fn, args, kwargs))

    def end(self) -> None:
        """The application call has ended."""
        self._pool.end(self)
