"""What a forked child does, in order, until it leaves.

Handlers, stack dumps, title; the reactor is installed; the application is imported, unless the
zygote has done so; the reactor runs; lifespan; the listeners are adopted; `Ready`. From then on the
reactor itself speaks to the master: a heartbeat that comes from anywhere else would go on beating
while the loop hangs.

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
import time
from typing import TYPE_CHECKING, Any

import psutil
import setproctitle
from twisted.python import log

from daphne_supervisor.errors import BootError, ExitCode
from daphne_supervisor.messages import (
    LINGER,
    BootFailed,
    Draining,
    Due,
    Heartbeat,
    Ready,
    encode,
)
from daphne_supervisor.worker import reactor, witness
from daphne_supervisor.worker.acceptor import Acceptor
from daphne_supervisor.worker.application import load, put_first_on_path
from daphne_supervisor.worker.drain import Departure
from daphne_supervisor.worker.lifespan import Lifespan
from daphne_supervisor.worker.recycling import Work, for_process
from daphne_supervisor.worker.service import Service
from daphne_supervisor.worker.thread_waits import Waits
from daphne_supervisor.worker.tls_handshake import contain_names
from daphne_supervisor.worker.tls_watch import Watch

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from daphne_supervisor.config import Log
    from daphne_supervisor.messages import Assignment, Report
    from daphne_supervisor.worker.entrance import Entrance
    from daphne_supervisor.worker.reactor import LoopReactor
    from daphne_supervisor.worker.tls_credentials import Credentials

__all__ = ["run"]

logger = logging.getLogger("daphne_supervisor.worker")

#: Seconds between two looks at every connection's deadline: the precision of all timeouts.
SWEEP = 0.5
#: Seconds between heartbeats, unless --worker-timeout asks for more of them. Eight workers that
#: are fine should not keep their master awake.
HEARTBEAT = 5.0
#: Seconds for the lifespan's shutdown. What `drain` takes after its deadline and this are together
#: less than the master's own margin before it steps in.
SHUTDOWN = 2.0
#: Hundredths of a second for threads that are still in synchronous code then; nobody waits for it.
FAREWELL = 50
#: Signals that mean something to the master only, sent to the whole process group by a terminal or
#: by a careless `pkill`; and SIGUSR2, which the witness waits for.
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


def run(
    assignment: Assignment,
    credentials: tuple[Credentials | None, ...],
    application: Any = None,
) -> int:
    """Be a worker until the end; return the exit code.

    There is one of the `credentials` for TLS, or None, for each listener. `application` is what a
    zygote has imported; without one it is imported here.
    """
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    witness.hold_back()
    contain_names()
    faulthandler.enable(2, all_threads=True)  # SIGABRT, the master's way to ask what hangs
    _listen_to_twisted(assignment.config.log)
    random.seed()
    _show(assignment, "booting")
    try:
        installed = reactor.install()
        loaded = _load(assignment) if application is None else application
        worker = Worker(assignment, credentials, installed, loaded)
        witness.call(assignment.slot, worker.service)
        return worker.run()
    except BootError as error:
        _report(assignment.channel, BootFailed(str(error), getattr(error, "traceback", "")))
        return ExitCode.BOOT_FAILED


def _listen_to_twisted(log_options: Log) -> None:
    """Let what Twisted logs go where everything else goes; its errors always.

    With --log-config its level is the user's to choose.
    """
    if log_options.log_config is None:
        quiet = log_options.verbosity < _TWISTED_LOG
        logging.getLogger("twisted").setLevel(logging.WARNING if quiet else logging.DEBUG)
    log.PythonLoggingObserver().start()


def _load(assignment: Assignment) -> Any:
    config = assignment.config
    put_first_on_path(os.path.abspath(config.app.app_dir))
    return load(config.application, config.app)


def _show(assignment: Assignment, state: str) -> None:
    """Show `state` in the process list."""
    setproctitle.setproctitle(
        f"daphne-supervisor: worker {assignment.slot} gen {assignment.generation} {state}"
        f" [{assignment.config.application}]"
    )


def _report(channel: socket.socket, report: Report) -> None:
    """Tell the master; one that is gone, or very far behind, misses it."""
    with contextlib.suppress(OSError):
        channel.send(encode(report))


def _entrances(
    assignment: Assignment, service: Service, reactor: LoopReactor
) -> Sequence[Entrance | None]:
    """Return what plug-ins put around connections. Raises `BootError`."""
    if not any(listener.endpoint.plugin for listener in assignment.listeners):
        return [None] * len(assignment.listeners)
    from daphne_supervisor.worker import entrance  # noqa: PLC0415 - 2 MB, and few need it

    return entrance.entrances(assignment.listeners, service, reactor)


class Worker:
    """One worker's life, from the moment that its application is imported."""

    def __init__(
        self,
        assignment: Assignment,
        credentials: tuple[Credentials | None, ...],
        reactor: LoopReactor,
        application: Any,
    ) -> None:
        """Live as `assignment` says, on `reactor`, and serve `application`."""
        self._assignment = assignment
        self._config = config = assignment.config
        self._reactor = reactor
        self._loop = reactor.loop
        self._loop.set_debug(config.log.verbosity >= _ASYNCIO_DEBUG)
        self._channel = assignment.channel
        self._channel.setblocking(False)
        self._unheard = b""
        self.service = Service(
            config,
            application,
            assignment.access_log,
            self._loop,
            scoreboard=assignment.scoreboard,
            slot=assignment.slot,
        )
        entrances = _entrances(assignment, self.service, reactor)
        self._acceptors = [
            Acceptor(listener, each, self.service, reactor, entrance)
            for listener, each, entrance in zip(
                assignment.listeners, credentials, entrances, strict=True
            )
        ]
        spoken = [each for each in credentials if each is not None]
        self._watch = Watch(spoken, assignment.scoreboard, assignment.slot, self._loop)
        self._lifespan = Lifespan(application)
        self._failure: BootError | None = None
        self._process = psutil.Process()
        self._recycler = for_process(config, self._process)
        self._lag = 0.0
        self._waits = Waits(assignment.slot, self.service)
        self._leaving = False

    # -- boot --

    def run(self) -> int:
        """Start, serve, drain. Raises `BootError` when the worker cannot serve."""
        # In the loop's first turn, not before it: who had a handler and no loop yet would not wake
        # up for SIGTERM, but for the next signal.
        self._loop.call_soon(self._start)
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
        threads = self.service.threads
        threads.serve(loop)
        if threads.count:
            self._reactor.suggestThreadPoolSize(threads.count)
        self._boot = loop.create_task(self._serve())

    async def _serve(self) -> None:
        """Start the lifespan, then accept."""
        try:
            # The lifespan is an application call as others are; its threads are of the same N.
            context = self.service.threads.begin().context
            if await self._loop.create_task(self._lifespan.startup(), context=context):
                self.service.state = self._lifespan.state
        except BootError as error:
            self._failure = error
            self._stop()
            return
        if self._leaving:
            return
        self._watch.begin()
        for acceptor in self._acceptors:
            acceptor.open()
        now = self._loop.time()
        self._recycler.begin(now)
        self._sweep(now)
        _show(self._assignment, "lingering" if self.service.lingering else "ready")
        _report(self._channel, Ready())
        self._beat()

    # -- while it serves --

    def _beat(self) -> None:
        """Report that the loop turns, and how late it was at worst since the last time."""
        service = self.service
        load = service.threads.load(time.monotonic())
        beat = Heartbeat(
            requests=service.requests,
            messages=service.messages,
            connections=len(service.connections),
            websockets=service.websockets,
            in_flight=service.in_flight,
            busy_threads=load.busy,
            queued_calls=load.queued,
            oldest_wait=load.oldest_wait,
            loop_lag=self._lag,
            rss=self._process.memory_info().rss,
        )
        _report(self._channel, beat)
        self._lag = 0.0
        self._loop.call_later(min(HEARTBEAT, self._config.process.worker_timeout / 4), self._beat)

    def _sweep(self, due: float) -> None:
        """Look at every connection's deadline, and at this worker's: one timer for all of them."""
        now = self._loop.time()
        self._lag = max(self._lag, now - due)
        for connection in list(self.service.connections):
            if connection.deadline <= now:
                connection.expire(now)
        self._waits.look(now)
        why = self._recycler.due(now, self._work())
        if why:
            _report(self._channel, Due(why))
        self._loop.call_at(now + SWEEP, self._sweep, now + SWEEP)

    def _work(self) -> Work:
        service = self.service
        return Work(service.requests - service.handshakes, service.handshakes, service.messages)

    def _hear_channel(self) -> None:
        """Hear what the master says, or of its end."""
        try:
            data = self._channel.recv(1024)
        except BlockingIOError:
            return
        except OSError:  # it has died without reading what we last said
            data = b""
        if not data:
            self._loop.remove_reader(self._channel)
            self.drain("the master is gone", last_call=True)
        self._unheard += data
        if LINGER in self._unheard:
            self._unheard = b""
            self._linger()

    def _linger(self) -> None:
        """The end is near: go on accepting, but let every answer be its connection's last."""
        self.service.lingering = True
        if not self._leaving:
            _show(self._assignment, "lingering")

    def _reopen(self) -> None:
        if self._assignment.access_log is not None:
            self._assignment.access_log.reopen()

    def _quit(self) -> None:
        """Leave now: connections are cut."""
        logging.shutdown()
        os._exit(ExitCode.STOPPED)

    # -- the end --

    def drain(self, why: str, *, last_call: bool = False) -> None:
        """Accept no more, finish what was begun, then leave.

        At the `last_call` nobody comes after us. If it is the master who says so, it is written on
        the scoreboard.
        """
        if self._leaving:
            return
        self._leaving = True
        _report(self._channel, Draining(why))
        _show(self._assignment, "draining")
        departure = Departure(self._assignment.slot, self.service, self._acceptors)
        departure.begin(last_call=last_call or self._assignment.scoreboard.closed)
        self._departure = self._loop.create_task(self._depart(departure))

    async def _depart(self, departure: Departure) -> None:
        await departure.finish()
        if self.service.state is not None:
            logger.info(
                "worker %d: shutdown of the lifespan, at most %g s", self._assignment.slot, SHUTDOWN
            )
        await self._lifespan.shutdown(SHUTDOWN)
        await self._dismiss_threads()
        self._stop()

    async def _dismiss_threads(self) -> None:
        """Let each thread close its connections to databases; without those it takes no time."""
        threads = self.service.threads
        threads.shutdown()
        for _ in range(FAREWELL):
            if not threads.left():
                return
            await asyncio.sleep(0.01)
        logger.warning(
            "worker %d: threads in synchronous code that are cut off: %d",
            self._assignment.slot,
            threads.left(),
        )

    def _stop(self) -> None:
        self.service.threads.shutdown()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        self._reactor.stop()  # type: ignore[no-untyped-call]
