"""One application call, from its start to its end, whatever becomes of the client.

What the two kinds of exchange share: the task, the waiting in `receive`, and the departure of the
client, after which the application has `--application-close-timeout` seconds to notice before it is
cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from abc import abstractmethod
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextvars import Context

    from daphne_supervisor.worker.service import Service
    from daphne_supervisor.worker.thread_pool import Work

__all__ = ["ClientDisconnected", "Exchange", "as_bytes", "unexpected"]

logger = logging.getLogger("daphne_supervisor.worker")

if sys.version_info >= (3, 12):

    def _begin_task(
        call: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, context: Context
    ) -> asyncio.Task[None]:
        """Return a task that has run up to its first wait: it may cost no turn of the loop.

        It is made as `create_task` would do it. A name that has to be made for each says no more.
        """
        return asyncio.Task(call, loop=loop, name="application", context=context, eager_start=True)

else:

    def _begin_task(
        call: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, context: Context
    ) -> asyncio.Task[None]:
        """Return a task, made as `create_task` would do it, but for the name."""
        return asyncio.Task(call, loop=loop, name="application", context=context)


class ClientDisconnected(OSError):
    """Raised by `send` after the client has left (ASGI specification 2.4, "Send")."""


def unexpected(kind: object, state: str) -> ValueError:
    """Return the error for a message that the application may not send now."""
    return ValueError(f"unexpected ASGI message {kind!r}: {state}")


def as_bytes(data: Any) -> bytes:
    """Return what an application has sent as bytes. Raises `TypeError` when it is something else.

    To be asked before a byte of it is written. What is mutable is copied: it may wait in a buffer.
    """
    return data if isinstance(data, bytes) else bytes(memoryview(data))


#: How far back the causes of an exception are looked at: a bound for one that causes itself.
_CAUSES = 16


def _tells_of_departure(error: BaseException | None, causes: int = _CAUSES) -> bool:
    """Say whether `error` is how a framework passes on that the client has left.

    It was raised out of our `ClientDisconnected`, or it is what becomes of `http.disconnect` and
    `websocket.disconnect`: each framework has an exception of its own for that, which bears the
    word in its name. A task group's tells of nothing else if each of its members does.
    """
    if error is None or not causes:
        return False
    if "Disconnect" in type(error).__name__:
        return True
    if isinstance(error, BaseExceptionGroup):
        return all(_tells_of_departure(member, causes - 1) for member in error.exceptions)
    return _tells_of_departure(error.__cause__ or error.__context__, causes - 1)


class Exchange:
    """One application call. Subclasses say what is received, sent, and made of its end.

    It has no metaclass for that: with one, each call would take longer to be made.
    """

    # What most calls never change stands here, once for all of them. What they do change does not:
    # Python is slow with an attribute that its class has too.
    gone = False  # the client has left: nothing can be sent
    _task: asyncio.Task[None] | None
    _timer: asyncio.TimerHandle | None = None
    _waiters: tuple[asyncio.Future[None], ...] = ()  # in the order of coming
    begun: float

    def __init__(self, service: Service) -> None:
        """Be ready to call the application of `service`."""
        self._service = service
        self._task = None

    def start(self) -> None:
        """Call the application, unless too many of its calls run already."""
        service = self._service
        if service.in_flight >= service.most_in_flight:
            self.turn_away()
            return
        loop = service.loop
        service.requests += 1
        service.in_flight += 1
        self.begun = monotonic()
        self._call = call = service.threads.begin()
        service.exchanges.add(self)
        if loop.get_task_factory() is None:
            self._task = _begin_task(self._run(), loop, call.context.copy())
        else:
            self._task = loop.create_task(self._run(), context=call.context.copy())
        if self.gone:  # it has left while the task ran its first steps
            self._bide()

    async def _run(self) -> None:
        service = self._service
        try:
            await service.application(self.scope(), self.receive, self.send)
        except ClientDisconnected as error:
            # The frames may be part of a cycle that holds the application's generators; their
            # `finally` must run now, not when the collector comes by.
            traceback.clear_frames(error.__traceback__)
            self.returned()
        except asyncio.CancelledError as error:
            if self.gone:
                self.returned()
            else:
                self.failed(error)
        except GeneratorExit:  # the event loop has ended under it
            raise
        # SystemExit and its like must not end the worker: they are the application's failure.
        except BaseException as error:
            if self.gone and _tells_of_departure(error):
                self._passed_on(error)
                self.returned()
            else:
                logger.exception("Exception inside application: %s", self.describe())
                self.failed(error)
        else:
            self.returned()
        finally:
            service.exchanges.discard(self)
            service.threads.end(self._call)
            if self._timer is not None:
                self._timer.cancel()

    def _passed_on(self, error: BaseException) -> None:
        """Say in a line that the application ended with `error` since its client has left.

        Any client can make it happen, so there is no traceback; but a mistake in what catches a
        disconnect looks the same, so it is said.
        """
        logger.info("%s: the client has left, the application ended: %r", self.describe(), error)
        traceback.clear_frames(error.__traceback__)  # as for our own

    @property
    def running(self) -> bool:
        """Say whether the application call has begun and not ended."""
        return self._task is not None and not self._task.done()

    def asks(self, work: Work) -> bool:
        """Say whether it is this call that wants `work` done on a thread."""
        return work.asker is self._call.lease

    @abstractmethod
    def turn_away(self) -> None:
        """Answer for the application, since --max-inflight of its calls run already."""

    @abstractmethod
    def scope(self) -> dict[str, Any]:
        """Return the scope of the call."""

    @abstractmethod
    async def receive(self) -> dict[str, Any]:
        """Return the next event for the application."""

    @abstractmethod
    async def send(self, message: dict[str, Any]) -> None:
        """Do what the application says."""

    @abstractmethod
    def failed(self, error: BaseException) -> None:
        """The application has raised `error`, or was cancelled."""

    @abstractmethod
    def returned(self) -> None:
        """The application has returned."""

    @abstractmethod
    def describe(self) -> str:
        """Return what is exchanged, for the log."""

    def wait(self) -> asyncio.Future[None]:
        """Return what is done when `wake` is called next.

        No coroutine: each would be a frame more, for every message of a WebSocket. An application
        that only looks, and cancels, leaves its future here until somebody waits again.
        """
        waiter = self._service.loop.create_future()
        others = self._waiters
        if others:
            others = tuple(other for other in others if not other.done())
        self._waiters = (*others, waiter) if others else (waiter,)
        return waiter

    def wake(self) -> None:
        """Let every waiting `receive` look again."""
        waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def refuse(self) -> None:
        """Raise `ClientDisconnected`, for a transport that is closing.

        What is written to it goes nowhere and never makes anybody wait: an application that sends
        in a loop would keep the event loop from ever saying that the connection is lost.
        """
        await asyncio.sleep(0)
        raise ClientDisconnected

    def dismiss(self) -> bool:
        """The worker leaves: end what has no end of its own; return whether there is such."""
        return False

    def leave(self) -> None:
        """The client has left: tell the application, and see to it that it ends."""
        if self.gone:
            return
        self.gone = True
        self.wake()
        self._bide()

    def _bide(self) -> None:
        """Give the application time to see that its client has left."""
        if self._task is not None and not self._task.done() and self._timer is None:
            patience = self._service.config.http.application_close_timeout
            self._timer = self._service.loop.call_later(patience, self._overstay)

    def _overstay(self) -> None:
        logger.warning(
            "%s: the application still runs %g s after its client left; it is cancelled"
            " (--application-close-timeout)",
            self.describe(),
            self._service.config.http.application_close_timeout,
        )
        self.cancel()

    def cancel(self) -> None:
        """Cancel the application call."""
        if self._task is not None:
            self._task.cancel()
