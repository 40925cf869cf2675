"""One worker's life: in this process what it does, in a process of its own how it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import gc
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

from daphne_supervisor.config import Config, Drain, Http, Process, Recycling
from daphne_supervisor.endpoints import Endpoint
from daphne_supervisor.errors import BootError
from daphne_supervisor.listeners import Listener
from daphne_supervisor.messages import (
    LINGER,
    WORKER_REPORTS,
    Assignment,
    BootFailed,
    Decoder,
    Draining,
    Due,
    Heartbeat,
    Ready,
    Report,
)
from daphne_supervisor.scoreboard import Scoreboard
from daphne_supervisor.worker.application import load
from daphne_supervisor.worker.main import Worker
from daphne_supervisor.worker.reactor import LoopReactor
from tests.support.client import Client, get
from tests.support.gate import Gate
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
        self._decoder: Decoder[Report] = Decoder(WORKER_REPORTS)
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

    def __init__(self, application: str = PROBE, plugin: str = "", **sections: Any) -> None:
        """Prepare the worker; what it listens on may be a plug-in's."""
        self.ours, theirs = socket.socketpair()
        self.master = Master(self.ours)
        self.queue = socket.create_server(("127.0.0.1", 0))
        self.queue.setblocking(False)
        self._shared = self.queue.dup()
        self.port: int = self.queue.getsockname()[1]
        sections.setdefault("process", Process(worker_timeout=0.4))
        sections.setdefault("drain", Drain(graceful_timeout=0.2))
        self.endpoint = Endpoint(kind="tcp", text="tcp:0", origin="--endpoint", plugin=plugin)
        self.log = _Log()
        assignment = Assignment(
            slot=1,
            generation=1,
            config=Config(application=application, **sections),
            listeners=(Listener(self._shared, self.endpoint, "TCP address x"),),
            channel=theirs,
            access_log=self.log,  # type: ignore[arg-type]
            scoreboard=Scoreboard(),
        )
        self.reactor = LoopReactor()
        self._theirs = theirs
        self.worker = Worker(assignment, (None,), self.reactor, load(application))

    def __enter__(self) -> Self:
        """Nothing runs yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind."""
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
        assert it.worker.service.state == {"started": "yes"}


def test_a_worker_serves_what_a_plug_in_listens_on() -> None:
    """Twisted's own `tcp:` is one to whom asks for it so."""

    def script(it: Running) -> None:
        it.master.hear_a(Ready)
        assert get(it.port, "/").status == 200
        it.drain()

    with Running(plugin="tcp6:0:interface=") as it:
        assert it.play(script) == 0


def test_it_beats_as_often_as_its_master_needs() -> None:
    """Four times within --worker-timeout."""

    def script(it: Running) -> None:
        it.master.hear_a(Ready)
        before = time.monotonic()
        for _ in range(4):
            it.master.hear_a(Heartbeat)
        assert 0.2 < time.monotonic() - before < 5
        it.drain()

    with Running() as it:
        assert it.play(script) == 0


def test_its_first_beat_comes_with_its_being_ready() -> None:
    """The next one only seconds later: a pool that is fine does not keep its master awake."""

    def script(it: Running) -> None:
        begun = time.monotonic()
        it.master.hear_a(Heartbeat)
        assert [type(report) for report in it.master.heard] == [Ready, Heartbeat]
        first = time.monotonic()
        it.master.hear_a(Heartbeat)
        assert time.monotonic() - first > 4 > first - begun
        it.drain()

    with Running(process=Process(worker_timeout=30)) as it:
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

    with Running(drain=Drain(graceful_timeout=10)) as it:
        assert it.play(script) == 0


def test_the_shutdown_of_the_lifespan_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """It comes when nobody is left, and the log says so."""

    def script(it: Running) -> None:
        it.master.hear_a(Ready)
        with Client(it.port) as client:
            client.ask("/wait")
            it.master.hear(lambda report: isinstance(report, Heartbeat) and report.in_flight == 1)
            it.drain()
            with contextlib.suppress(ConnectionResetError):
                client.rest()

    with caplog.at_level("INFO"), Running() as it:
        assert it.play(script) == 0
    cut, shutdown = (record.getMessage() for record in caplog.records[-2:])
    assert "--graceful-timeout of 0.2 s is over" in cut
    assert shutdown == "worker 1: shutdown of the lifespan, at most 2 s"


def test_near_the_end_it_keeps_no_connection() -> None:
    """Told to linger, in however many pieces, it goes on accepting."""

    def script(it: Running) -> None:
        it.master.hear_a(Ready)
        assert not get(it.port, "/").closes
        it.ours.send(LINGER[:3])
        it.ours.send(LINGER[3:])
        _wait(it, lambda: it.worker.service.lingering)
        assert get(it.port, "/").closes
        it.drain()
        it.ours.send(LINGER)

    with Running() as it:
        assert it.play(script) == 0


def _wait(it: Running, wanted: Callable[[], bool]) -> None:
    """Wait, from one heartbeat to the next, until it is as `wanted`."""
    while not wanted():
        it.master.hear_a(Heartbeat)


def test_nothing_on_the_channel_is_nothing() -> None:
    """A wake-up without a cause does not end the worker."""
    with Running() as it:
        it.worker._hear_channel()
        assert not it.worker.service.draining


def test_it_asks_to_be_replaced() -> None:
    """Once, when a limit is reached; and it goes on serving."""

    def script(it: Running) -> None:
        it.master.hear_a(Ready)
        assert get(it.port, "/").status == 200
        due = it.master.hear_a(Due)
        assert isinstance(due, Due)
        assert due.why.startswith("--max-requests 1, ")
        assert get(it.port, "/").status == 200
        it.drain()

    with Running(recycling=Recycling(max_requests=1)) as it:
        assert it.play(script) == 0


def test_the_heartbeat_tells_how_late_the_loop_was() -> None:
    """At its worst since the last one: blocked for a moment between two of them."""

    def script(it: Running) -> None:
        it.master.hear_a(Ready)
        assert get(it.port, "/block?1").status == 200
        late = it.master.hear(
            lambda report: isinstance(report, Heartbeat) and report.loop_lag > 0.3
        )
        assert isinstance(late, Heartbeat)
        assert late.loop_lag < 10
        it.drain()

    with Running() as it:
        assert it.play(script) == 0


def test_threads_are_counted_and_end_with_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    """What waits too; one that is in synchronous code for ever is cut off."""
    gates = [Gate() for _ in range(3)]

    def script(it: Running) -> None:
        it.master.hear_a(Ready)
        threads = it.worker.service.threads
        leases = [threads.begin().lease for _ in gates]
        for lease, gate in zip(leases, gates, strict=True):
            lease.submit(gate)
        it.master.hear(
            lambda report: (
                isinstance(report, Heartbeat)
                and (report.busy_threads, report.queued_calls) == (2, 1)
                and 10 > report.oldest_wait > 0
            )
        )
        assert it.reactor.getThreadPool().max == 2
        it.drain()

    with Running(process=Process(worker_timeout=0.4, threads=2)) as it:
        try:
            assert it.play(script) == 0
        finally:
            for gate in gates:
                gate.open()
    assert "worker 1: threads in synchronous code that are cut off: 2" in caplog.messages


@pytest.mark.usefixtures("folder")
def test_the_lifespan_has_a_thread_as_requests_have() -> None:
    """And no thread more than were asked for is there because of it."""

    def script(it: Running) -> None:
        it.master.hear_a(Ready)
        it.drain()

    with Running("lifespans:synchronous", process=Process(threads=2)) as it:
        assert it.play(script) == 0
        assert it.worker.service.state == {"thread": "daphne-supervisor-sync-1"}
        assert it.worker.service.threads.left() == 0


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
import threading

from asgiref.sync import sync_to_async

async def failing(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})

async def hanging(scope, receive, send):
    await receive()
    await asyncio.Event().wait()

async def synchronous(scope, receive, send):
    await receive()
    thread = await sync_to_async(threading.current_thread)()
    scope["state"]["thread"] = thread.name
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})

async def plain(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": repr("state" in scope).encode()})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder with a module of applications, where modules are found."""
    (tmp_path / "lifespans.py").write_text(LIFESPANS)
    sys.path.insert(0, str(tmp_path))
    yield tmp_path
    sys.path.remove(str(tmp_path))
    sys.modules.pop("lifespans", None)


@pytest.mark.usefixtures("folder")
def test_a_lifespan_that_fails_fails_the_boot() -> None:
    """Nothing was accepted."""

    def script(it: Running) -> None:
        del it

    with Running("lifespans:failing") as it:
        with pytest.raises(BootError, match="no database"):
            it.play(script)
        assert it.master.heard == []


@pytest.mark.usefixtures("folder")
def test_a_worker_that_leaves_while_it_boots_accepts_nothing() -> None:
    """Who waits in the queue is left to the siblings; and it does not take its time."""

    def script(it: Running) -> None:
        with Client(it.port) as client:
            client.ask("/")
            it.drain()
            it.master.hear_a(Draining)
            assert select.select([it.queue], [], [], PATIENCE)[0] == [it.queue]

    with Running("lifespans:hanging") as it:
        begin = time.monotonic()
        assert it.play(script) == 0
        assert time.monotonic() - begin < 2
        taken, _ = it.queue.accept()
        taken.close()


@pytest.mark.usefixtures("folder")
def test_an_application_without_lifespan_is_served() -> None:
    """And has no state."""

    def script(it: Running) -> None:
        it.master.hear_a(Ready)
        assert get(it.port, "/").body == b"False"
        it.drain()

    with Running("lifespans:plain") as it:
        assert it.play(script) == 0


# -- in a process of its own --

_CHILD = f"""
import signal, socket, sys
from daphne_supervisor.config import App, Config, Log, Process
from daphne_supervisor.messages import Assignment
from daphne_supervisor.scoreboard import Scoreboard
from daphne_supervisor.worker.main import run
channel = socket.socket(fileno=int(sys.argv[1]))
config = Config(
    application=sys.argv[2],
    app=App(app_dir={str(ROOT)!r}),
    log=Log(verbosity=int(sys.argv[3])),
    process=Process(worker_timeout=0.4),
)
application = None
if len(sys.argv) > 4:
    exec(sys.argv[4])
sys.exit(run(Assignment(1, 1, config, (), channel, None, Scoreboard()), (), application))
"""


class Child:
    """A worker in a process of its own."""

    def __init__(self, application: str = PROBE, verbosity: int = 1, before: str = "") -> None:
        """Remember what to serve, and the code to run `before`."""
        self._arguments = [application, str(verbosity), *([before] if before else [])]

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


_TOLD_AT_ONCE = """
import os
from daphne_supervisor.worker.threads import Threads
def serve(threads, loop, serve=Threads.serve):
    os.kill(os.getpid(), signal.{})
    serve(threads, loop)
Threads.serve = serve
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_process_that_is_told_to_leave_while_it_starts_does(number: signal.Signals) -> None:
    """From the moment at which it listens to signals none is left lying until the next one."""
    with Child(before=_TOLD_AT_ONCE.format(number.name)) as child:
        assert child.end()[0] == 0


def test_a_process_is_deaf_to_what_the_terminal_sends() -> None:
    """Signals for the master reach its whole group."""
    with Child() as child:
        child.master.hear_a(Ready)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            child.process.send_signal(number)
        # A stranger's: the witness waits for its parent's.
        subprocess.run(["kill", "-USR2", str(child.process.pid)], check=True)
        for _ in range(2):  # the first may have been on its way before
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


def test_a_process_that_is_asked_says_what_it_is_busy_with() -> None:
    """SIGUSR2 from its parent: a line of its own, then the stacks."""
    with Child() as child:
        child.master.hear_a(Ready)
        child.process.send_signal(signal.SIGUSR2)
        code, said = child.end()
        assert code == -signal.SIGABRT
        line, _, rest = said.partition("\n")
        assert line.startswith("worker 1: busy with: no request and no WebSocket; ")
        assert "most recent call first" in rest


PRELOADED = """
from twisted.internet.selectreactor import install
install()
async def application(scope, receive, send):
    raise ValueError
"""


def test_a_process_serves_what_a_zygote_has_imported() -> None:
    """It is not imported again, and a reactor that it has installed is not ours."""
    with Child("no.such:module", before=PRELOADED) as child:
        child.master.hear_a(Ready)
        child.process.send_signal(signal.SIGTERM)
        code, said = child.end()
        assert (code, said.count("\n")) == (0, 1)
        assert "has installed a reactor, SelectReactor, which does not run here" in said


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
