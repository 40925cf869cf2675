"""Real births: what workers are born with, and hands that are driven as the master drives them.

Children run what the test gives them; they talk over their channels, and are waited for by process
descriptors, with a bound.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import selectors
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from daphne_supervisor.config import Config
from daphne_supervisor.errors import ExitCode
from daphne_supervisor.hooks import Hooks
from daphne_supervisor.master.model import Exited, Spawned
from daphne_supervisor.master.processes import (
    _PR_SET_CHILD_SUBREAPER,
    Processes,
    describe,
)
from daphne_supervisor.master.signals import Mailbox
from daphne_supervisor.master.zygote import Heritage
from daphne_supervisor.privileges import Privileges
from daphne_supervisor.scoreboard import Scoreboard

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from daphne_supervisor.listeners import Listener
    from daphne_supervisor.logs import AccessLog
    from daphne_supervisor.master.model import Event
    from daphne_supervisor.messages import Assignment

__all__ = [
    "CONFIG",
    "PATIENCE",
    "FakeSeed",
    "Ward",
    "ended",
    "has_ended",
    "heritage",
    "leave_orphans_alone",
    "line",
]

PATIENCE = 20.0
"""Seconds that anything may take. Far more than any of it needs."""

CONFIG = Config(application="shop.asgi:application")


def leave_orphans_alone() -> None:
    """Give orphans to process 1 again, as it was before this process had `Processes`.

    Tests that follow would else be left with zombies of masters that they have killed.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _until_terminated(assignment: Assignment) -> int:
    """Be a worker that says that it is there, and waits for a signal."""
    assignment.channel.sendall(b"here\n")
    signal.pause()
    return ExitCode.STOPPED


def _nothing() -> None:
    """Import no application."""


@dataclass
class FakeSeed:
    """What workers grow from: functions of the test's."""

    be: Callable[[Assignment], int] = _until_terminated
    import_application: Callable[[], None] = _nothing

    def preload(self) -> None:
        """Import the application."""
        self.import_application()

    def run(self, assignment: Assignment) -> int:
        """Be a worker."""
        return self.be(assignment)


def heritage(
    seed: FakeSeed | None = None,
    *,
    config: Config = CONFIG,
    listeners: tuple[Listener, ...] = (),
    access_log: AccessLog | None = None,
    hooks: Hooks | None = None,
    privileges: Privileges | None = None,
) -> Heritage:
    """Return what workers are born with; without a `seed` they say `here` and wait for a signal."""
    grown = seed or FakeSeed()
    return Heritage(
        config=config,
        listeners=listeners,
        access_log=access_log,
        scoreboard=Scoreboard(),
        privileges=privileges or Privileges(),
        hooks=hooks or Hooks(),
        grow=lambda _config, _listeners: grown,
    )


def has_ended(pid: int, patience: float = PATIENCE) -> bool:
    """Wait for the end of a process, anybody's child, and do not reap it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], patience)[0])
    finally:
        os.close(descriptor)


def ended(pid: int) -> str:
    """Wait for the end of a child and reap it; return how it ended."""
    assert has_ended(pid), f"process {pid} does not end"
    return describe(os.waitpid(pid, 0)[1])


def line(channel: socket.socket) -> str:
    """Return the next line that comes over a channel, "" at its end."""
    text = b""
    while not text.endswith(b"\n"):
        assert select.select([channel], [], [], PATIENCE)[0], f"only {text!r} was said"
        piece = channel.recv(1)
        if not piece:
            break
        text += piece
    return text.decode()


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """Let the system refuse every fork."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    user = os.geteuid()
    resource.setrlimit(resource.RLIMIT_NPROC, (0, hard))
    try:
        if user == 0:  # root is not limited
            os.setresuid(65534, 65534, 0)
        yield
    finally:
        if user == 0:
            os.setresuid(0, 0, 0)
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))


@dataclass
class Ward:
    """Real hands in a `with` block; whoever is left at its end is killed and reaped."""

    heritage: Heritage
    events: list[Event] = field(default_factory=list)
    untaken: list[Event] = field(default_factory=list)
    pids: dict[int, int] = field(default_factory=dict)

    def __enter__(self) -> Self:
        """Begin with nobody."""
        self.selector = selectors.DefaultSelector()
        self.mailbox = Mailbox()
        self.mailbox.__enter__()
        self.selector.register(self.mailbox, selectors.EVENT_READ, self._read_mail)
        self.hands = Processes(self.heritage, self.selector, self._leave)
        return self

    def __exit__(self, *_: object) -> None:
        """End everybody."""
        self.hands.close()
        self.selector.close()
        self.mailbox.__exit__(None)
        for pid in self.pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            assert has_ended(pid)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        leave_orphans_alone()

    def spawn(self, slot: int, generation: int = 1) -> socket.socket:
        """Have a worker born, and return our end of its channel, once it says something."""
        return self.hands.spawn(slot, generation)

    def forget(self, slot: int) -> None:
        """Do what the master does at a burial."""
        self.hands.forget(slot)
        self.pids.pop(slot, None)

    def turn(self, timeout: float = PATIENCE) -> list[Event]:
        """Wait for something to happen, as the master does, and return it."""
        events = self.hands.news()
        if not events:
            for key, _ in self.selector.select(timeout):
                events += key.data()
            events += self.hands.news()
        for event in events:
            if isinstance(event, Spawned):
                self.pids[event.slot] = event.pid
            elif isinstance(event, Exited):
                self.forget(event.slot)
        self.events += events
        self.untaken += events
        return events

    def until(self, wanted: Callable[[Event], bool]) -> Event:
        """Wait for an event that is `wanted`, and return it; each is returned once."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for event in self.untaken:
                if wanted(event):
                    self.untaken.remove(event)
                    return event
            self.turn(deadline - time.monotonic())
        message = f"it has not come; what came: {self.events}"
        raise AssertionError(message)

    def birth(self, slot: int) -> int:
        """Wait until the worker in `slot` is born; return its process id."""
        event = self.until(lambda event: isinstance(event, Spawned) and event.slot == slot)
        assert isinstance(event, Spawned)
        return event.pid

    def death(self, slot: int) -> str:
        """Wait until the worker in `slot` is dead; return how it ended."""
        event = self.until(lambda event: isinstance(event, Exited) and event.slot == slot)
        assert isinstance(event, Exited)
        return event.how

    def zygotes(self) -> list[int]:
        """Return the process ids of the zygotes."""
        return [mother.pid for mother in self.hands._nursery._everyone()]

    def _read_mail(self) -> list[Event]:
        self.mailbox.read()
        return []

    def _leave(self) -> None:
        self.mailbox.close()
        self.selector.close()
