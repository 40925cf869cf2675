"""What the log hears of synchronous code that waits long for a thread.

Theory. A bound on threads makes waiting possible, and with it two things that look alike from
outside. A queue that is too long moves on: it needs more threads, or less work. A deadlock does
not: the code that has the thread waits, in `async_to_sync` or at a lock, for what waits for the
thread. Which of them it is, the stacks show: that of the thread, and that of the task which waits.

The look is one of the worker's sweeps, twice a second; nothing is asked of a call itself.
"""

from __future__ import annotations

import logging
import math
import sys
import traceback
from typing import TYPE_CHECKING, Any

from daphne_supervisor.worker import thread_pool

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator
    from types import FrameType

    from daphne_supervisor.worker.service import Service
    from daphne_supervisor.worker.thread_pool import Pool, Thread, Work

__all__ = ["Waits"]

logger = logging.getLogger("daphne_supervisor.worker")

#: Seconds between two reports: the stacks are long, and the first one is to be read.
INTERVAL = 60.0
#: Threads whose stacks are shown when whichever is free first is waited for.
MOST = 4
#: Characters of what names a request.
_LONGEST = 200


class Waits:
    """Looks, for the worker in `slot`, how long synchronous code waits for its threads."""

    def __init__(self, slot: int, service: Service) -> None:
        """Look at the threads of `service`."""
        self._slot = slot
        self._service = service
        self._threshold = service.config.process.thread_wait_warning or math.inf
        self._quiet_until = -math.inf

    def look(self, now: float) -> None:
        """Say, at the monotonic time `now`, who has waited too long; at most once in `INTERVAL`."""
        threads = self._service.threads
        if now < self._quiet_until or not threads.busy:
            return
        waiting = threads.queued()
        if waiting and now - waiting[0][0].since >= self._threshold:
            self._quiet_until = now + INTERVAL
            work, thread, pool = waiting[0]
            logger.warning("%s", self._report(work, thread, pool, len(waiting), now))

    def _report(self, work: Work, thread: Thread | None, pool: Pool, count: int, now: float) -> str:
        busy = [one for one in ([thread] if thread else pool.threads) if one.work is not None]
        where = thread.name if thread else "a free one"
        whose = self._whose(work)
        summary = (
            f"worker {self._slot}: synchronous code has waited {now - work.since:.1f} s for a"
            f" thread (--thread-wait-warning {self._threshold:g}): {whose} waits for {where};"
            f" threads busy: {pool.busy} of {len(pool.threads)} (--threads), calls that wait:"
            f" {count}. If these do not move on, it is a deadlock:\n"
        )
        lines = [
            summary,
            f"  {whose} waits here:\n",
            *_stack(_waiting_frames(work.task)),
        ]
        for each in busy[:MOST]:
            lines += self._holder(each, now)
        if len(busy) > MOST:
            lines.append(f"  and {len(busy) - MOST} more threads\n")
        return "".join(lines).rstrip()

    def _holder(self, thread: Thread, now: float) -> Iterator[str]:
        work = thread.work
        if work is None:  # it has done it while we looked
            return
        yield f"  {thread.name} has run {now - thread.begun:.1f} s for {self._whose(work)}, here:\n"
        frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - there is no other way
        yield from _stack(reversed([*_frames_of_thread(frame)]))

    def _whose(self, work: Work) -> str:
        """Return the request or WebSocket that `work` is for, or the task that wants it done."""
        for exchange in list(self._service.exchanges):
            if exchange.asks(work):
                text = exchange.describe().encode("unicode_escape").decode("ascii")
                return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
        return f"task {work.task.get_name()!r}" if work.task else "code outside of any task"


def _frames_of_thread(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield the frames of the application on a thread's stack, the innermost first."""
    while frame is not None and frame.f_code.co_filename != thread_pool.__file__:
        yield frame
        frame = frame.f_back


def _waiting_frames(task: asyncio.Task[Any] | None) -> Iterator[FrameType]:
    """Yield the frames of a task that waits, the outermost first."""
    awaited: Any = task and task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)


def _stack(frames: Iterator[FrameType]) -> Iterator[str]:
    """Yield the lines that show `frames`, indented."""
    for text in traceback.StackSummary.extract((each, each.f_lineno) for each in frames).format():
        yield from (f"  {line}\n" for line in text.splitlines())
