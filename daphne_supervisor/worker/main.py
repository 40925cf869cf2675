"""What a forked child does, in order, until it leaves.

Default handlers, stack dumps, title; the application is imported; the reactor runs; lifespan; the
listeners are adopted; `Ready`. From then on the reactor itself speaks to the master: a heartbeat
that comes from anywhere else would go on beating while the loop hangs.

A worker drains when it is told to (SIGTERM) or when the channel ends, which means that the master
has died. SIGQUIT is "now".
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import random
import signal
import sys
from typing import TYPE_CHECKING

import psutil
import setproctitle
from twisted.python import log

from daphne_supervisor.errors import BootError, ExitCode
from daphne_supervisor.messages import BootFailed, Draining, Heartbeat, Ready, encode
from daphne_supervisor.worker import application, reactor
from daphne_supervisor.worker.acceptor import Acceptor
from daphne_supervisor.worker.lifespan import Lifespan
from daphne_supervisor.worker.service import Service
from daphne_supervisor.worker.tls import context_for

if TYPE_CHECKING:
    from daphne_supervisor.messages import Assignment, Report
    from daphne_supervisor.worker.reactor import LoopReactor

__all__ = ["run"]

logger = logging.getLogger("daphne_supervisor.worker")

#: Seconds between two looks at every connection's deadline: the precision of all timeouts.
SWEEP = 0.5
#: Seconds between heartbeats, unless --worker-timeout asks for more of them.
HEARTBEAT = 1.0
#: Seconds between two looks at whether a draining worker is done.
DRAIN_CHECK = 0.05
#: WebSockets are told to leave over this many seconds at the most, so that they do not all come
#: back at once, and this many a second if they are few.
WEBSOCKET_DRAIN_TIME, WEBSOCKET_DRAIN_RATE = 10.0, 500
#: After the deadline of a drain: seconds to notice the disconnect, to notice the cancellation, and
#: for the lifespan's shutdown. Together less than the master's own margin before it kills.
NOTICE, CANCEL, SHUTDOWN = 1.0, 0.5, 2.0
#: Signals that mean something to the master only, sent to the whole process group by a terminal or
#: by a careless `pkill`.
_IGNORED = (
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGPIPE,
)


#: -v from which Twisted's own log is shown, and asyncio's debug mode is on.
_TWISTED_LOG, _ASYNCIO_DEBUG = 2, 3


def run(assignment: Assignment) -> int:
    """Be a worker until the end; return the exit code."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable(all_threads=True)  # SIGABRT, the master's way to ask what hangs
    _listen_to_twisted(assignment.config.log.verbosity)
    random.seed()
    worker = Worker(assignment, reactor.install())
    worker.title("booting")
    try:
        return worker.run()
    except BootError as error:
        worker.report(BootFailed(str(error), getattr(error, "traceback", "")))
        return ExitCode.BOOT_FAILED


def _listen_to_twisted(verbosity: int) -> None:
    """Let what Twisted logs go where everything else goes; its errors always."""
    logging.getLogger("twisted").setLevel(
        logging.DEBUG if verbosity >= _TWISTED_LOG else logging.WARNING
    )
    log.PythonLoggingObserver().start()


def _enter(directory: str) -> None:
    """Enter --chdir by its name once more: a link on the way may point to a new release by now."""
    if directory:
        try:
            os.chdir(directory)
        except OSError as error:
            message = f"--chdir {directory}: cannot be entered: {error.strerror}"
            raise BootError(message) from None


class Worker:
    """One worker's life."""

    def __init__(self, assignment: Assignment, reactor: LoopReactor) -> None:
        """Live as `assignment` says, on `reactor`."""
        self._assignment = assignment
        self._config = assignment.config
        self._reactor = reactor
        self._loop = reactor.loop
        self._loop.set_debug(self._config.log.verbosity >= _ASYNCIO_DEBUG)
        self._channel = assignment.channel
        self._channel.setblocking(False)
        self._acceptors: list[Acceptor] = []
        self._lifespan: Lifespan | None = None
        self._failure: BootError | None = None
        self._process = psutil.Process()
        self._leaving = False
        self._service: Service

    def title(self, state: str) -> None:
        """Show `state` in the process list."""
        slot, generation = self._assignment.slot, self._assignment.generation
        setproctitle.setproctitle(
            f"daphne-supervisor: worker {slot} gen {generation} {state}"
            f" [{self._config.application}]"
        )

    def report(self, report: Report) -> None:
        """Tell the master; one that is gone, or very far behind, misses it."""
        with contextlib.suppress(OSError):
            self._channel.send(encode(report))

    # -- boot --

    def run(self) -> int:
        """Boot, serve, drain. Raises `BootError` when the worker cannot serve."""
        _enter(self._config.app.chdir)
        application.put_first_on_path(os.path.abspath(self._config.app.app_dir))
        loaded = application.load(self._config.application)
        self._service = Service(self._config, loaded, self._assignment.access_log, self._loop)
        self._acceptors = [
            Acceptor(listener, context_for(listener), self._service, self._reactor)
            for listener in self._assignment.listeners
        ]
        self._reactor.callWhenRunning(self._start)
        self._reactor.run(installSignalHandlers=False)  # type: ignore[no-untyped-call]
        if self._failure is not None:
            raise self._failure
        return ExitCode.STOPPED

    def _start(self) -> None:
        loop = self._loop
        loop.add_signal_handler(signal.SIGTERM, self.drain, "told to")
        loop.add_signal_handler(signal.SIGQUIT, self._quit)
        loop.add_signal_handler(signal.SIGUSR1, self._reopen)
        loop.add_reader(self._channel, self._hear_channel)
        self._boot = loop.create_task(self._serve())

    async def _serve(self) -> None:
        """Start the lifespan, then accept."""
        self._lifespan = Lifespan(self._service.application)
        try:
            if await self._lifespan.startup():
                self._service.state = self._lifespan.state
        except BootError as error:
            self._failure = error
            self._stop()
            return
        if self._leaving:
            return
        for acceptor in self._acceptors:
            acceptor.open()
        self._sweep()
        self._beat(self._loop.time())
        self.title("ready")
        self.report(Ready())

    # -- while it serves --

    def _beat(self, due: float) -> None:
        """Report that the loop turns, and how late it is."""
        service, now = self._service, self._loop.time()
        self.report(
            Heartbeat(
                requests=service.requests,
                connections=len(service.connections),
                websockets=service.websockets,
                in_flight=service.in_flight,
                busy_threads=service.threads.busy,
                loop_lag=max(0.0, now - due),
                rss=self._process.memory_info().rss,
            )
        )
        following = now + min(HEARTBEAT, self._config.process.worker_timeout / 4)
        self._loop.call_at(following, self._beat, following)

    def _sweep(self) -> None:
        """Look at every connection's deadline: one timer for all of them."""
        now = self._loop.time()
        for connection in list(self._service.connections):
            if connection.deadline <= now:
                connection.expire(now)
        self._loop.call_later(SWEEP, self._sweep)

    def _hear_channel(self) -> None:
        """The master never writes: what is readable is its end."""
        self._loop.remove_reader(self._channel)
        self.drain("the master is gone")

    def _reopen(self) -> None:
        if self._assignment.access_log is not None:
            self._assignment.access_log.reopen()

    def _quit(self) -> None:
        """Leave now: connections are cut."""
        logging.shutdown()
        os._exit(ExitCode.STOPPED)

    # -- drain --

    def drain(self, why: str) -> None:
        """Accept no more, finish what was begun, then leave."""
        if self._leaving:
            return
        self._leaving = True
        self.report(Draining(why))
        self.title("draining")
        service, loop = self._service, self._loop
        service.draining = True
        for acceptor in self._acceptors:
            acceptor.close()
        connections = list(service.connections)
        websockets = [connection for connection in connections if connection.is_websocket]
        spread = min(WEBSOCKET_DRAIN_TIME, len(websockets) / WEBSOCKET_DRAIN_RATE)
        for connection in connections:
            if connection.is_websocket:
                loop.call_later(random.uniform(0, spread), connection.drain)  # noqa: S311 - jitter
            else:
                connection.drain()
        deadline = loop.time() + self._config.process.graceful_timeout
        self._departure = loop.create_task(self._depart(deadline))

    async def _depart(self, deadline: float) -> None:
        """Wait for the end of everything, or for the deadline; then stop the loop."""
        if not await self._finished(deadline):
            self._describe_rest()
            for exchange in list(self._service.exchanges):
                exchange.leave()
            if not await self._finished(self._loop.time() + NOTICE):
                for exchange in list(self._service.exchanges):
                    exchange.cancel()
                for connection in list(self._service.connections):
                    connection.abort()
                await self._finished(self._loop.time() + CANCEL)
        if self._lifespan is not None:
            await self._lifespan.shutdown(SHUTDOWN)
        self._stop()

    async def _finished(self, deadline: float) -> bool:
        """Wait until nothing is left to do; return whether that was before `deadline`."""
        service, loop = self._service, self._loop
        while service.connections or service.exchanges or any(a.opening for a in self._acceptors):
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(DRAIN_CHECK)
        return True

    def _describe_rest(self) -> None:
        rest = [exchange.describe() for exchange in self._service.exchanges]
        shown = ", ".join(rest[:5]) + (", ..." if len(rest) > 5 else "")  # noqa: PLR2004
        logger.warning(
            "worker %d: --graceful-timeout of %g s is over; cut off: %d connections, %d application"
            " calls %s",
            self._assignment.slot,
            self._config.process.graceful_timeout,
            len(self._service.connections),
            len(rest),
            f"({shown})" if rest else "",
        )

    def _stop(self) -> None:
        self._service.threads.shutdown()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        self._reactor.stop()  # type: ignore[no-untyped-call]
