"""One worker's life: in this process what it does, in a process of its own how it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from daphne_supervisor.config import App, Config, Http, Process
from daphne_supervisor.endpoints import Endpoint
from daphne_supervisor.errors import BootError
from daphne_supervisor.listeners import Listener
from daphne_supervisor.messages import (
    Assignment,
    BootFailed,
    Decoder,
    Draining,
    Heartbeat,
    Ready,
    Report,
)
from daphne_supervisor.worker.main import Worker
from daphne_supervisor.worker.reactor import LoopReactor
from tests.support.client import Client, get
from tests.support.transports import HANDSHAKE, frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[3]
PATIENCE = 10.0
PROBE = "tests.support.apps:probe"


class Master:
    """The master's end of the channel."""

    def __init__(self, channel: socket.socket) -> None:
        """Listen to `channel`."""
        self.channel = channel
        self.channel.settimeout(PATIENCE)
        self._decoder = Decoder()
        self.heard: list[Report] = []

    def hear(self, wanted: Callable[[Report], bool]) -> Report:
        """Wait for a report that is `wanted`; everything before it is kept in `heard`."""
        while True:
            data = self.channel.recv(65536)
            assert data, f"the worker has gone after {self.heard}"
            reports = self._decoder.feed(data)
            self.heard += reports
            for report in reports:
                if wanted(report):
                    return report

    def hear_a(self, kind: type[Report]) -> Report:
        """Wait for a report of this kind."""
        return self.hear(lambda report: isinstance(report, kind))


class Running:
    """A worker on this process's main thread; another thread plays the master and the clients."""

    def __init__(self, application: str = PROBE, **sections: Any) -> None:
        """Prepare the worker."""
        self.ours, theirs = socket.socketpair()
        self.master = Master(self.ours)
        self.queue = socket.create_server(("127.0.0.1", 0))
        self.queue.setblocking(False)
        self._shared = self.queue.dup()
        self.port: int = self.queue.getsockname()[1]
        sections.setdefault("process", Process(graceful_timeout=0.2, worker_timeout=0.4))
        sections.setdefault("app", App(app_dir=str(ROOT)))
        self.endpoint = Endpoint(kind="tcp", text="tcp:0", origin="--endpoint")
        self.log = _Log()
        assignment = Assignment(
            slot=1,
            generation=1,
            config=Config(application=application, **sections),
            listeners=(Listener(self._shared, self.endpoint, "TCP address x"),),
            channel=theirs,
            access_log=self.log,  # type: ignore[arg-type]
        )
        self.reactor = LoopReactor()
        self._theirs = theirs
        self.worker = Worker(assignment, self.reactor)

    def __enter__(self) -> Self:
        """Nothing runs yet."""
        self._path = list(sys.path)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind."""
        sys.path[:] = self._path
        for one in (self.ours, self._theirs, self.queue, self._shared):
            one.close()
        loop = self.reactor.loop
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(loop.shutdown_asyncgens())
        self.reactor.disconnectAll()
        loop.close()
        asyncio.set_event_loop(None)

    def tell(self, what: Callable[..., object], *args: object) -> None:
        """Have the worker's loop call `what`."""
        self.reactor.loop.call_soon_threadsafe(what, *args)

    def play(self, script: Callable[[Running], None]) -> int:
        """Run the worker while `script` plays, which has to end it; return its exit code."""
        errors: list[BaseException] = []

        def played() -> None:
            try:
                script(self)
            except BaseException as error:  # noqa: BLE001 - raised again below
                errors.append(error)
                with contextlib.suppress(RuntimeError):
                    self.tell(self.reactor.stop)

        thread = threading.Thread(target=played)
        thread.start()
        try:
            return self.worker.run()
        finally:
            thread.join(PATIENCE)
            if errors:
                raise errors[0]

    def drain(self) -> None:
        """Tell it to leave."""
        self.tell(self.worker.drain, "told to")


class _Log:
    """The access log: it counts how often it was opened anew."""

    def __init__(self) -> None:
        self.reopened = 0

    def http(self, *_: object) -> None:
        """Keep nothing."""

    def websocket(self, *_: object) -> None:
        """Keep nothing."""

    def reopen(self) -> None:
        """Count."""
        self.reopened += 1


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Let what a test has left in cycles complain in that test."""
    yield
    gc.collect()


def test_a_worker_serves_and_leaves() -> None:
    """It says that it is ready, that it lives, that it leaves, and what it has done."""

    def script(it: Running) -> None:
        it.master.hear_a(Ready)
        assert get(it.port, "/").status == 200
        beat = it.master.hear(lambda report: isinstance(report, Heartbeat) and report.requests == 1)
        assert isinstance(beat, Heartbeat)
        assert beat.rss > 1_000_000
        it.drain()
        it.drain()
        assert it.master.hear_a(Draining) == Draining("told to")

    with Running() as it:
        assert it.play(script) == 0
        assert [type(report) for report in it.master.heard].count(Draining) == 1
        assert it.worker._service.state == {"started": "yes"}


def test_it_beats_as_often_as_its_master_needs() -> None:
    """A quarter of --worker-timeout, and never less than once a second."""

    def script(it: Running) -> None:
        it.master.hear_a(Ready)
        before = time.monotonic()
        for _ in range(3):
            it.master.hear_a(Heartbeat)
        assert time.monotonic() - before < 2.5
        it.drain()

    with Running() as it:
        assert it.play(script) == 0


def test_the_end_of_the_master_is_the_end_of_the_worker() -> None:
    """End-of-file on the channel; what it would still report is nobody's."""

    def script(it: Running) -> None:
        it.master.hear_a(Ready)
        it.ours.close()

    with Running() as it:
        assert it.play(script) == 0


def test_it_waits_for_what_was_begun() -> None:
    """A request that runs is answered while the worker leaves; an idle connection is closed."""

    def script(it: Running) -> None:
        it.master.hear_a(Ready)
        with Client(it.port) as client, Client(it.port) as socket_client:
            socket_client.send(HANDSHAKE)
            assert socket_client.head().status == 101
            client.ask("/slow?0.3")
            it.master.hear(lambda report: isinstance(report, Heartbeat) and report.in_flight == 1)
            it.drain()
            assert client.response().status == 200
            assert client.rest() == b""
            socket_client.send(frame(8, b"\x03\xf4"))
            assert socket_client.rest() == b"\x88\x11\x03\xf4service restart"

    with Running(process=Process(graceful_timeout=10, worker_timeout=0.4)) as it:
        assert it.play(script) == 0


def test_it_does_not_wait_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    """At --graceful-timeout an application is told, then cancelled, then left; the log has it."""

    def script(it: Running) -> None:
        it.master.hear_a(Ready)
        clients = [Client(it.port) for _ in range(7)]
        for number, client in enumerate(clients):
            client.ask("/wait" if number else "/insist")
        it.master.hear(lambda report: isinstance(report, Heartbeat) and report.in_flight == 7)
        it.drain()
        for client in clients:
            with contextlib.suppress(ConnectionResetError):
                client.rest()
            client.close()

    with Running() as it:
        assert it.play(script) == 0
    assert "--graceful-timeout of 0.2 s is over; cut off: 7 connections" in caplog.text
    assert ", ...)" in caplog.text


def test_time_passes_for_its_connections() -> None:
    """A connection whose time is over is closed without anybody's doing."""

    def script(it: Running) -> None:
        it.master.hear_a(Ready)
        with Client(it.port) as client:
            assert client.get("/").status == 200
            assert client.rest() == b""
        it.drain()

    with Running(http=Http(keep_alive=0.1)) as it:
        assert it.play(script) == 0


def test_the_access_log_is_opened_anew() -> None:
    """When the master passes the wish on."""

    def script(it: Running) -> None:
        it.master.hear_a(Ready)
        it.tell(it.worker._reopen)
        it.drain()

    with Running() as it:
        assert it.play(script) == 0
        assert it.log.reopened == 1


LIFESPANS = """
import asyncio

async def failing(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})

async def hanging(scope, receive, send):
    await receive()
    await asyncio.Event().wait()

async def plain(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": repr("state" in scope).encode()})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder with a module of applications."""
    (tmp_path / "lifespans.py").write_text(LIFESPANS)
    yield tmp_path
    sys.modules.pop("lifespans", None)


def test_a_lifespan_that_fails_fails_the_boot(folder: Path) -> None:
    """Nothing was accepted."""

    def script(it: Running) -> None:
        del it

    with Running("lifespans:failing", app=App(app_dir=str(folder))) as it:
        with pytest.raises(BootError, match="no database"):
            it.play(script)
        assert it.master.heard == []


def test_a_worker_that_leaves_while_it_boots_accepts_nothing(folder: Path) -> None:
    """Who waits in the queue is left to the siblings; and it does not take its time."""

    def script(it: Running) -> None:
        with Client(it.port) as client:
            client.ask("/")
            it.drain()
            it.master.hear_a(Draining)
            assert select.select([it.queue], [], [], PATIENCE)[0] == [it.queue]

    with Running("lifespans:hanging", app=App(app_dir=str(folder))) as it:
        begin = time.monotonic()
        assert it.play(script) == 0
        assert time.monotonic() - begin < 2
        taken, _ = it.queue.accept()
        taken.close()


def test_an_application_without_lifespan_is_served(folder: Path) -> None:
    """And has no state."""

    def script(it: Running) -> None:
        it.master.hear_a(Ready)
        assert get(it.port, "/").body == b"False"
        it.drain()

    with Running("lifespans:plain", app=App(app_dir=str(folder), chdir=str(folder))) as it:
        here = os.getcwd()
        try:
            assert it.play(script) == 0
            assert os.getcwd() == str(folder)
        finally:
            os.chdir(here)


def test_a_folder_that_is_gone_fails_the_boot() -> None:
    """The line names the option."""
    with (
        Running(app=App(app_dir=str(ROOT), chdir="/nowhere/at/all")) as it,
        pytest.raises(BootError, match="--chdir /nowhere/at/all: cannot be entered"),
    ):
        it.worker.run()


# -- in a process of its own --

_CHILD = f"""
import signal, socket, sys
from daphne_supervisor.config import App, Config, Log
from daphne_supervisor.messages import Assignment
from daphne_supervisor.worker.main import run
channel = socket.socket(fileno=int(sys.argv[1]))
config = Config(
    application=sys.argv[2], app=App(app_dir={str(ROOT)!r}), log=Log(verbosity=int(sys.argv[3]))
)
sys.exit(run(Assignment(1, 1, config, (), channel, None)))
"""


class Child:
    """A worker in a process of its own."""

    def __init__(self, application: str = PROBE, verbosity: int = 1) -> None:
        """Remember what to serve."""
        self._arguments = [application, str(verbosity)]

    def __enter__(self) -> Self:
        """Start it."""
        ours, theirs = socket.socketpair()
        self.master = Master(ours)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _CHILD, str(theirs.fileno()), *self._arguments],
                pass_fds=[theirs.fileno()],
                stderr=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.master.channel.close()

    def end(self) -> tuple[int, str]:
        """Wait for its end; return its exit code and what it has printed."""
        _, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, said


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGQUIT, 0), (signal.SIGKILL, -9)]
)
def test_a_process_leaves_by_signal(number: signal.Signals, code: int) -> None:
    """TERM in order, QUIT now."""
    with Child() as child:
        child.master.hear_a(Ready)
        child.process.send_signal(number)
        if number is signal.SIGTERM:
            child.master.hear_a(Draining)
        assert child.end()[0] == code


def test_a_process_is_deaf_to_what_the_terminal_sends() -> None:
    """Signals for the master reach its whole group."""
    with Child() as child:
        child.master.hear_a(Ready)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            child.process.send_signal(number)
        child.master.hear_a(Heartbeat)
        child.process.send_signal(signal.SIGTERM)
        assert child.end()[0] == 0


def test_a_process_that_is_asked_what_hangs_shows_its_stacks() -> None:
    """SIGABRT dumps every thread."""
    with Child() as child:
        child.master.hear_a(Ready)
        child.process.send_signal(signal.SIGABRT)
        code, said = child.end()
        assert code == -signal.SIGABRT
        assert "most recent call first" in said


def test_a_process_that_cannot_boot_says_why() -> None:
    """To its master, in one report; the exit code says that it was foreseen."""
    with Child("tests.support.apps:missing") as child:
        report = child.master.hear_a(BootFailed)
        assert isinstance(report, BootFailed)
        assert "no attribute 'missing'" in report.reason
        assert report.traceback == ""
        assert child.end() == (3, "")


def test_a_process_shows_what_twisted_logs() -> None:
    """With -v 3 also asyncio's debug mode is on."""
    with Child(verbosity=3) as child:
        child.master.hear_a(Ready)
        child.process.send_signal(signal.SIGTERM)
        assert child.end()[0] == 0
