"""The process that workers of one generation are forked from.

Theory. A worker needs some forty megabytes of modules, the same for every worker. Here they are
imported once, by a clean child of the master that runs no event loop and no thread, and frozen for
the garbage collector, so that the workers forked from it share those pages; with --preload it has
imported the application too. The master itself stays small and clean, and a reload gets a new
zygote: new code is always picked up, preloaded or not.

A worker is to be the master's own child, to be waited for and signalled. So the zygote forks twice
and the process in between leaves: the worker has lost its parent and is given to the nearest
subreaper above (PR_SET_CHILD_SUBREAPER of prctl(2)), which is the master.

What passes: down, one packet for each worker, its slot in JSON and its end of the channel as a
descriptor; up, the reports `Grown`, `Born`, `Stillborn` and `BootFailed` of `messages`. The end of
the channel is the end of the zygote: a signal to the whole service is for the workers and the
master, and must not keep a worker that crashes meanwhile from being replaced.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import logging
import os
import signal
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from daphne_supervisor import here, privileges
from daphne_supervisor.broker import address
from daphne_supervisor.errors import BootError, ExitCode
from daphne_supervisor.master.announce import set_title
from daphne_supervisor.master.birth import fork
from daphne_supervisor.messages import Assignment, BootFailed, Born, Grown, Stillborn, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from daphne_supervisor.config import Config
    from daphne_supervisor.hooks import Hooks
    from daphne_supervisor.listeners import Listener
    from daphne_supervisor.logs import AccessLog
    from daphne_supervisor.messages import ZygoteReport
    from daphne_supervisor.privileges import Privileges
    from daphne_supervisor.scoreboard import Scoreboard

__all__ = ["Heritage", "Seed", "Zygote", "request"]

_log = logging.getLogger("daphne_supervisor.master")

_FOR_THE_MASTER = (
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
)
"""Variables by which a service manager speaks to the master: workers must not answer for it."""

_REQUEST = 256
"""More bytes than a request has."""

_LIVE = b"!"
"""What the zygote says to a worker that the master was told of. Nobody would supervise another, so
it ends; and whoever speaks to the master is known there already."""

_PACKET = 32768
"""Bytes of a report that are sent at once: the kernel refuses a packet that is too large, and the
master reads no more than 65536. A traceback may be longer."""


class Seed(Protocol):
    """What workers grow from: the worker's half of the package, as the zygote knows it."""

    def preload(self) -> None:
        """Import the application. Raises `BootError`."""
        ...

    def run(self, assignment: Assignment) -> int:
        """Be a worker, in a process of its own, and return the exit code."""
        ...


@dataclass(frozen=True, slots=True)
class Heritage:
    """What all workers of a generation are born with.

    `grow` imports the worker's half and makes the TLS contexts; it raises `BootError`. `broker` is
    where channel layers meet.
    """

    config: Config
    listeners: tuple[Listener, ...]
    access_log: AccessLog | None
    scoreboard: Scoreboard
    privileges: Privileges
    hooks: Hooks
    grow: Callable[[Config, tuple[Listener, ...]], Seed]
    broker: socket.socket | None = None


def request(slot: int) -> bytes:
    """Return the packet that asks for a worker in `slot`."""
    return json.dumps({"slot": slot}).encode()


class Zygote:
    """The zygote's own side: grow, then fork a worker for each request until the channel ends."""

    def __init__(self, generation: int, heritage: Heritage, channel: socket.socket) -> None:
        """Be the zygote of `generation`."""
        self._generation = generation
        self._heritage = heritage
        self._channel = channel
        self._seed: Seed

    def live(self) -> int:
        """Live until the master closes the channel; return the exit code."""
        faulthandler.enable(2, all_threads=True)  # SIGABRT, the master's way to ask what hangs
        set_title(f"zygote gen {self._generation}", self._heritage.config.application)
        access_log = self._heritage.access_log
        if access_log is not None:
            signal.signal(signal.SIGUSR1, lambda *_: access_log.reopen())
            access_log.reopen()  # the signal may have come too early
        try:
            self._grow()
        except BootError as error:
            self._tell(BootFailed(str(error), getattr(error, "traceback", "")))
            return ExitCode.BOOT_FAILED
        for number in (signal.SIGTERM, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        self._tell(Grown())
        while self._serve():
            pass
        return ExitCode.STOPPED

    def _grow(self) -> None:
        """Do what needs to be done once only; the application comes last, without privileges."""
        heritage = self._heritage
        here.enter(heritage.config.app.chdir)
        for name in _FOR_THE_MASTER:
            os.environ.pop(name, None)
        os.environ.update(heritage.config.app.environment)
        os.environ.pop(address.VARIABLE, None)  # that of a master that has started ours
        if heritage.broker is not None:
            os.environ[address.VARIABLE] = address.text_of(heritage.broker)
            heritage.broker.close()
        heritage.hooks.forget()
        gc.disable()  # what is imported stays; looking for garbage would only touch pages
        self._seed = heritage.grow(heritage.config, heritage.listeners)
        privileges.drop(heritage.privileges)
        if heritage.config.app.preload:
            self._seed.preload()
        # Not collected before: garbage that is freed leaves holes in all pages, and what a worker
        # puts there makes the page its own: 1 MB more for each, 1.7 MB with a Django project.
        gc.freeze()

    def _tell(self, report: ZygoteReport) -> None:
        data = encode(report)
        with contextlib.suppress(OSError):  # the master is gone, or does not want to know
            for start in range(0, len(data), _PACKET):
                self._channel.send(data[start : start + _PACKET])

    def _serve(self) -> bool:
        """Fork one worker; return whether there may be more to do."""
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._channel, _REQUEST, 1)
        except ConnectionResetError:  # the master died without having read all that we said
            return False
        if not packet:
            return False
        slot = json.loads(packet)["slot"]
        with socket.socket(fileno=descriptors[0]) as far:
            far.set_inheritable(False)  # as it arrives, any program would inherit it
            self._heritage.hooks.before_fork(slot=slot, generation=self._generation)
            self._bear(slot, far)
        return True

    def _bear(self, slot: int, far: socket.socket) -> None:
        """Fork a worker, tell the master, and only then let the worker live."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                pid, failure = self._fork_twice(slot, far, ours, theirs)
            self._tell(Born(slot, pid) if pid else Stillborn(slot, failure))
            if pid:
                with contextlib.suppress(OSError):  # it is dead
                    ours.send(_LIVE)

    def _fork_twice(
        self, slot: int, far: socket.socket, ours: socket.socket, theirs: socket.socket
    ) -> tuple[int, str]:
        """Return the worker's process id when it is the master's child, or 0 and what failed."""
        try:
            between = fork(lambda: self._fork_worker(slot, far, theirs), abandon=ours.close)
        except OSError as error:
            return 0, _reason(error)
        theirs.close()
        with contextlib.suppress(ChildProcessError):  # a preloaded application ignores SIGCHLD
            os.waitpid(between, 0)
        said = ours.recv(_REQUEST).decode()
        return (int(said), "") if said.isdecimal() else (0, said or "it died at once")

    def _fork_worker(self, slot: int, far: socket.socket, theirs: socket.socket) -> int:
        """Be the process in between: fork the worker, and leave."""
        try:
            fork(lambda: self._be_worker(slot, far, theirs), abandon=self._channel.close)
        except OSError as error:
            theirs.send(_reason(error).encode())
        return 0

    def _be_worker(self, slot: int, far: socket.socket, theirs: socket.socket) -> int:
        heritage = self._heritage
        set_title(f"worker {slot} gen {self._generation} born", heritage.config.application)
        if not _is_wanted(theirs):
            return ExitCode.STOPPED
        gc.enable()
        heritage.hooks.after_fork(slot=slot, generation=self._generation, pid=os.getpid())
        return self._seed.run(
            Assignment(
                slot=slot,
                generation=self._generation,
                config=heritage.config,
                listeners=heritage.listeners,
                channel=far,
                access_log=heritage.access_log,
                scoreboard=heritage.scoreboard,
            )
        )


def _is_wanted(theirs: socket.socket) -> bool:
    """Tell the zygote who this worker is, and wait until the master knows it too."""
    with theirs, contextlib.suppress(OSError):  # the zygote has died
        theirs.send(str(os.getpid()).encode())
        return theirs.recv(1) == _LIVE
    return False


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
