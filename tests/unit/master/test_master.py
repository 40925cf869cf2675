"""The loop, with hands that fork nobody and a clock that obeys."""

from __future__ import annotations

import errno
import json
import logging
import os
import selectors
import signal
import socket
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import setproctitle

from daphne_supervisor.broker.address import connect, listen, text_of
from daphne_supervisor.config import Config, Log, Process
from daphne_supervisor.endpoints import Endpoint
from daphne_supervisor.errors import BootError, UsageError
from daphne_supervisor.hooks import Hooks
from daphne_supervisor.listeners import Listener
from daphne_supervisor.master.master import Master
from daphne_supervisor.master.pid_file import PidFile
from daphne_supervisor.master.zygote import Heritage
from daphne_supervisor.messages import LINGER, BootFailed, Draining, Heartbeat, Ready
from daphne_supervisor.privileges import Privileges
from daphne_supervisor.scoreboard import Scoreboard
from tests.support.births import leave_orphans_alone
from tests.support.fake_processes import Clock, FakeHands, FakeSelector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from daphne_supervisor.logs import AccessLog
    from daphne_supervisor.master.zygote import Seed


def no_seed(_: Config, __: tuple[Listener, ...]) -> Seed:
    """Stand for the worker's half, which these tests never fork."""
    raise AssertionError


def heritage(config: Config, access_log: AccessLog | None = None) -> Heritage:
    """Return what workers would be born with."""
    return Heritage(
        config=config,
        listeners=(),
        access_log=access_log,
        scoreboard=Scoreboard(),
        privileges=Privileges(),
        hooks=Hooks(),
        grow=no_seed,
    )


class Stage:
    """A master among fakes; each act happens when the master would otherwise wait."""

    def __init__(self, workers: int = 1, **process: Any) -> None:
        """Set up a master for so many workers."""
        self.clock = Clock()
        self.hands = FakeHands()
        self.acts: list[Callable[[], None]] = []
        self.heritage = heritage(
            Config(application="shop.asgi:application", process=Process(workers=workers, **process))
        )
        self.refusal: UsageError | None = None

    def run(self, *acts: Callable[[], None]) -> int:
        """Run the master through `acts`, and return its exit code."""
        self.acts += acts
        self.master = Master(
            self.heritage,
            self.reread,
            hands=self.hands,
            selector=FakeSelector(self.clock, self.acts),
            clock=self.clock,
        )
        return self.master.run()

    def reread(self, present: Config) -> Heritage:
        """Return the same heritage with another level of detail; raise `refusal` when it is set."""
        if self.refusal is not None:
            raise self.refusal
        return replace(self.heritage, config=replace(present, log=Log(verbosity=2)))

    def says(
        self, slot: int, report: Ready | Heartbeat | Draining | BootFailed
    ) -> Callable[[], None]:
        """Return the act of a worker's report."""
        return lambda: self.hands.says(slot, report)

    def dies(self, slot: int, how: str = "exit code 0") -> Callable[[], None]:
        """Return the act of a worker's death, which comes with a SIGCHLD."""

        def act() -> None:
            self.hands.dies(slot, how)
            signal.raise_signal(signal.SIGCHLD)

        return act


def raises(number: signal.Signals) -> Callable[[], None]:
    """Return the act of a signal to the master."""
    return lambda: signal.raise_signal(number)


@pytest.fixture(autouse=True)
def same_title() -> Iterator[None]:
    """Give the test process its title back."""
    before = setproctitle.getproctitle()
    yield
    setproctitle.setproctitle(before)


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Return a stage for one worker."""
    stage = Stage()
    yield stage
    stage.hands.close()


def test_a_whole_life(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Start, serve, stop: one line in the log for each step, and exit code 0."""
    with caplog.at_level(logging.INFO):
        code = stage.run(
            stage.says(1, Ready()),
            raises(signal.SIGTERM),
            stage.says(1, Draining("asked to")),
            stage.dies(1),
        )
    assert code == 0
    assert stage.hands.forked == [(1, 1)]
    assert stage.hands.signals == [(1, signal.SIGTERM)]
    assert [record.getMessage() for record in caplog.records] == [
        "worker 1 gen 1: to be forked: the target is 1",
        "worker 1 gen 1 pid 101: forked",
        "worker 1 gen 1 pid 101: ready",
        "generation 1 is complete",
        "listeners closed: the master was asked to stop",
        "worker 1 gen 1 pid 101: told to drain: the master was asked to stop",
        "worker 1 gen 1 pid 101: gone, exit code 0 after 0.0 s: the master was asked to stop",
        "stopped: the master was asked to stop",
    ]


def test_a_boot_failure_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """The application's traceback appears once, the reason on one line, and the code is 3."""
    stage = Stage(workers=2)
    failure = BootFailed("no module named shop", "Traceback ...\nImportError\n")

    def fail_both() -> None:
        stage.hands.says(1, failure)
        stage.hands.says(2, failure)

    with caplog.at_level(logging.INFO):
        code = stage.run(
            fail_both,
            stage.dies(1, "exit code 3"),
            stage.dies(2, "exit code 3"),
        )
    stage.hands.close()
    assert code == 3
    assert caplog.text.count("ImportError") == 1
    (line,) = [each for each in caplog.records if each.levelno == logging.CRITICAL]
    assert line.getMessage() == "no module named shop"


def test_last_words_come_before_the_end(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """A report that is found together with the death is heard: the reason is not lost."""

    def fail_and_die() -> None:
        stage.hands.dies(1, "exit code 3", hang_up=False)
        stage.hands.says(1, BootFailed("no such file"))
        stage.hands.hangs_up(1)

    stage.run(fail_and_die)
    assert "no such file" in caplog.text
    assert "died before" not in caplog.text


def test_reports_that_are_found_with_the_death_are_heard(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """The channel is read to its end at burial, even if no `select` has shown it."""

    def die_behind_the_selector() -> None:
        stage.master._selector.unregister(stage.hands._near[1])
        stage.hands.says(1, BootFailed("said in the last moment"))
        stage.master._selector.register(stage.hands._near[1], selectors.EVENT_WRITE, list)
        stage.hands.dies(1, "exit code 3", hang_up=False)

    stage.run(die_behind_the_selector)
    assert "said in the last moment" in caplog.text


def test_nonsense_kills_the_worker_and_not_the_master(stage: Stage) -> None:
    """What is no report ends the one who wrote it."""
    code = stage.run(
        stage.says(1, Ready()),
        lambda: stage.hands.says(1, b"nonsense\nmore\n"),
        stage.dies(1, "signal SIGKILL"),
        stage.says(1, Ready()),
        raises(signal.SIGTERM),
        stage.dies(1),
    )
    assert code == 0
    assert stage.hands.signals[0] == (1, signal.SIGKILL)


@pytest.mark.parametrize("words", [b"5\n", b"[]\n", b'{"kind":[]}\n', b"\xff\n", b"{}\n"])
def test_every_kind_of_nonsense_is_survived(stage: Stage, words: bytes) -> None:
    """JSON of the wrong shape is nonsense too."""
    assert stage.run(lambda: stage.hands.says(1, words), stage.dies(1)) == 3


def test_a_channel_at_its_end_is_read_no_more(stage: Stage) -> None:
    """A closed channel is readable for ever; the master must not be kept busy by it."""
    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1
        assert 1 not in [key.fd for key in stage.master._selector.get_map().values()]

    code = stage.run(
        stage.says(1, Ready()),
        lambda: stage.hands.hangs_up(1),
        count,
        raises(signal.SIGTERM),
        stage.dies(1),
    )
    assert code == 0
    assert turns == 1


def test_a_channel_held_open_by_a_grandchild_is_closed_at_burial(stage: Stage) -> None:
    """Its end never comes, so the death of the worker has to be enough."""
    far: list[socket.socket] = []

    def die() -> None:
        far.append(stage.hands._far[1])
        stage.hands.dies(1, "signal SIGKILL", hang_up=False)

    code = stage.run(
        stage.says(1, Ready()),
        die,
        stage.says(1, Ready()),
        raises(signal.SIGTERM),
        stage.dies(1),
    )
    assert code == 0
    with far[0]:
        assert far[0].recv(1) == b""  # the master's end is closed


def test_a_channel_that_breaks_is_at_its_end(stage: Stage) -> None:
    """A reset is no reason to fall over."""

    def reset() -> None:
        # Unread bytes in the far end's buffer turn its close into a reset.
        stage.hands._near[1].send(b"unread")
        stage.hands.hangs_up(1)

    code = stage.run(stage.says(1, Ready()), reset, raises(signal.SIGTERM), stage.dies(1))
    assert code == 0


def test_a_silent_worker_is_dumped_killed_and_replaced(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """The clock alone brings it about, and the log names the worker and the reason."""
    code = stage.run(
        stage.says(1, Ready()),
        lambda: setattr(stage.clock, "now", stage.clock.now + 30),
        lambda: setattr(stage.clock, "now", stage.clock.now + 1),
        lambda: setattr(stage.clock, "now", stage.clock.now + 5),
        stage.dies(1, "signal SIGKILL"),
        stage.says(1, Ready()),
        raises(signal.SIGTERM),
        stage.dies(1),
    )
    assert code == 0
    assert stage.hands.signals == [
        (1, signal.SIGUSR2),
        (1, signal.SIGABRT),
        (1, signal.SIGKILL),
        (1, signal.SIGTERM),
    ]
    assert "pid 101: told to say what it is busy with, and to abort: sent no" in caplog.text
    assert "worker 1 gen 1 pid 101: aborted, its stacks follow: did not" in caplog.text


class Sleeper(Clock):
    """A clock whose reader is stopped just before it reads, when `meanwhile` something happens."""

    meanwhile: Callable[[], None] | None = None

    def __call__(self) -> float:
        """Return the time; once, what has happened meanwhile took 31 s."""
        happen, self.meanwhile = self.meanwhile, None
        if happen is not None:
            happen()
            self.now += 31
        return self.now


def test_a_master_that_is_stopped_on_its_way_blames_nobody(stage: Stage) -> None:
    """What was reported until it reads the clock is seen, wherever it stood still."""
    stage.clock = clock = Sleeper()
    stage.run(
        stage.says(1, Ready()),
        lambda: setattr(clock, "meanwhile", stage.says(1, Heartbeat())),
        raises(signal.SIGTERM),
        stage.dies(1),
    )
    assert stage.hands.signals == [(1, signal.SIGTERM)]


def test_the_master_wakes_by_itself_when_patience_ends(stage: Stage) -> None:
    """Nothing happens, so time alone moves: to the boot timeout and no further."""
    before = stage.clock.now
    ends: list[float] = []

    def die() -> None:
        ends.append(stage.clock.now)
        stage.hands.dies(1, "signal SIGABRT")

    stage.acts.append(lambda: setattr(stage.clock, "now", before + 59))
    stage.acts.append(lambda: setattr(stage.clock, "now", before + 60))
    stage.run(die)
    assert stage.hands.signals == [(1, signal.SIGABRT)]
    assert ends == [before + 60]


def test_a_fork_that_fails_is_a_failure_to_boot(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """The system's own words say why nothing came up."""
    stage.hands.refusal = OSError(errno.EAGAIN, "Resource temporarily unavailable")
    assert stage.run() == 3
    assert "could not be forked: Resource temporarily unavailable" in caplog.text


def test_logs_are_reopened_everywhere(stage: Stage) -> None:
    """By the hands, whose descriptors are what later workers inherit, and in each worker."""
    code = stage.run(
        stage.says(1, Ready()),
        raises(signal.SIGUSR1),
        raises(signal.SIGTERM),
        stage.dies(1),
    )
    assert code == 0
    assert stage.hands.reopened == 1
    assert stage.hands.signals == [(1, signal.SIGUSR1), (1, signal.SIGTERM)]


def test_listeners_are_given_up_when_the_drain_begins(stage: Stage) -> None:
    """A socket that the master still held would go on to queue connections for nobody."""
    bound = socket.create_server(("127.0.0.1", 0))
    endpoint = Endpoint(kind="tcp", text="tcp:0", origin="--port")
    stage.heritage = replace(stage.heritage, listeners=(Listener(bound, endpoint, "TCP address"),))
    closed: list[bool] = []
    stage.run(
        stage.says(1, Ready()),
        lambda: closed.append(bound.fileno() == -1),
        raises(signal.SIGTERM),
        lambda: closed.append(bound.fileno() == -1),
        stage.dies(1),
    )
    assert closed == [False, True]


def test_the_service_manager_and_the_pid_file_hear_of_it(tmp_path: Path) -> None:
    """READY comes with the status; the pid file is there while the master runs, and not after."""
    path = tmp_path / "pid"
    stage = Stage(pid_file=str(path))
    os.environ["NOTIFY_SOCKET"] = str(tmp_path / "notify")
    written: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        code = stage.run(
            stage.says(1, Ready()),
            lambda: written.append(path.read_text()),
            raises(signal.SIGTERM),
            stage.dies(1),
        )
        heard = [manager.recv(4096).decode() for _ in range(3)]
    stage.hands.close()
    assert code == 0
    assert heard == [
        "STATUS=0/1 workers ready, generation 1",
        "READY=1\nERRNO=0\nSTATUS=1/1 workers ready, generation 1",
        "STOPPING=1\nEXTEND_TIMEOUT_USEC=36000000\nSTATUS=draining",
    ]
    assert written == [f"{os.getpid()}\n"]
    assert not path.exists()
    assert "NOTIFY_SOCKET" not in os.environ


def test_a_taken_pid_file_is_refused_before_anything_runs(tmp_path: Path) -> None:
    """Nothing is forked, and everything is closed."""
    path = tmp_path / "pid"
    owner = PidFile(str(path))
    owner.write()
    stage = Stage(pid_file=str(path))
    with pytest.raises(BootError, match="--pid-file"):
        stage.run()
    owner.remove()
    assert stage.hands.forked == []
    assert stage.hands.closed


def test_the_master_is_called_by_its_application(stage: Stage) -> None:
    """`ps` shows the application that it serves."""
    titles: list[str] = []
    stage.run(
        lambda: titles.append(setproctitle.getproctitle()),
        raises(signal.SIGQUIT),
        stage.dies(1),
    )
    assert titles == ["daphne-supervisor: master [shop.asgi:application]"]


def test_real_hands_fork_real_workers(caplog: pytest.LogCaptureFixture) -> None:
    """Without fakes the same loop runs a real zygote, whose last words are the reason."""

    def grow(_: Config, __: tuple[Listener, ...]) -> Seed:
        message = "as if it were broken"
        raise BootError(message)

    born = replace(heritage(Config(application="shop.asgi:application")), grow=grow)
    try:
        assert Master(born, lambda _: born).run() == 3
    finally:
        leave_orphans_alone()
    assert "as if it were broken" in caplog.text


def test_a_reload_reads_the_configuration_first(stage: Stage) -> None:
    """What it gives is what the next generation is born with, and the hook hears of it."""
    names: list[str] = []
    module = ModuleType("hooks")

    def on_reload(application: str) -> None:
        names.append(application)

    module.on_reload = on_reload  # type: ignore[attr-defined]
    stage.heritage = replace(stage.heritage, hooks=Hooks(module))
    stage.run(
        stage.says(1, Ready()),
        raises(signal.SIGHUP),
        raises(signal.SIGQUIT),
        lambda: (stage.hands.dies(1, "exit code 0"), stage.hands.dies(2, "exit code 0")),
    )
    assert [one.config.log.verbosity for one in stage.hands.heritages] == [2]
    assert stage.hands.forked == [(1, 1), (2, 2)]
    assert names == ["shop.asgi:application"]


def test_a_reload_is_refused_when_the_configuration_is_wrong(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """The running one stays, and the log says which line is wrong."""
    stage.refusal = UsageError("shop.toml:3: port: 'x' is not a port number (0 to 65535)")
    stage.run(
        stage.says(1, Ready()),
        raises(signal.SIGHUP),
        raises(signal.SIGTERM),
        stage.dies(1),
    )
    assert stage.hands.heritages == []
    assert stage.hands.forked == [(1, 1)]
    assert "shop.toml:3: port: 'x' is not a port number" in caplog.text


def test_workers_are_told_of_a_delayed_end(stage: Stage) -> None:
    """With --shutdown-delay they hear it over the channel, and SIGTERM comes later."""
    drain = replace(stage.heritage.config.drain, shutdown_delay=5.0)
    stage.heritage = replace(stage.heritage, config=replace(stage.heritage.config, drain=drain))
    heard: list[bytes] = []
    stage.run(
        stage.says(1, Ready()),
        raises(signal.SIGTERM),
        lambda: heard.append(stage.hands.hears(1)),
        lambda: setattr(stage.clock, "now", stage.clock.now + 5),
        stage.dies(1),
    )
    assert heard == [LINGER]
    assert stage.hands.signals == [(1, signal.SIGTERM)]


def test_a_worker_that_cannot_be_told_is_no_problem(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """Its end of the channel may be closed; its death will be noticed in its time."""
    drain = replace(stage.heritage.config.drain, shutdown_delay=5.0)
    stage.heritage = replace(stage.heritage, config=replace(stage.heritage.config, drain=drain))

    def hang_up() -> None:
        stage.hands.hangs_up(1)
        signal.raise_signal(signal.SIGTERM)

    with caplog.at_level(logging.INFO):
        stage.run(
            stage.says(1, Ready()),
            hang_up,
            lambda: setattr(stage.clock, "now", stage.clock.now + 5),
            stage.dies(1),
        )
    assert "worker 1 gen 1 pid 101: was not told: Broken pipe" in caplog.text


def test_hooks_hear_of_workers(stage: Stage) -> None:
    """They are told who is ready, who is gone and how, and with what code all ended."""
    heard: list[tuple[str, dict[str, Any]]] = []
    module = ModuleType("hooks")
    for name in ("worker_ready", "worker_exit", "on_exit"):
        setattr(module, name, lambda _name=name, **facts: heard.append((_name, facts)))
    stage.heritage = replace(stage.heritage, hooks=Hooks(module))
    stage.run(stage.says(1, Ready()), raises(signal.SIGTERM), stage.dies(1))
    worker = {"slot": 1, "generation": 1, "pid": 101}
    assert heard == [
        ("worker_ready", worker),
        ("worker_exit", worker | {"how": "exit code 0"}),
        ("on_exit", {"code": 0}),
    ]


def test_zygotes_of_the_past_are_given_up(stage: Stage) -> None:
    """A complete reload leaves the zygote of its own generation only, and the end leaves none."""
    stage.run(
        stage.says(1, Ready()),
        raises(signal.SIGHUP),
        stage.says(2, Ready()),
        stage.dies(1),
        raises(signal.SIGTERM),
        stage.dies(2),
    )
    assert stage.hands.kept == [frozenset({2}), frozenset()]


def test_the_watchdog_is_kept_quiet(tmp_path: Path) -> None:
    """With WATCHDOG_USEC there is a sign of life each half of it, as long as a worker is ready."""
    os.environ |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "8000000"}
    stage = Stage()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        stage.run(
            stage.says(1, Ready()),
            lambda: setattr(stage.clock, "now", stage.clock.now + 4),
            raises(signal.SIGTERM),
            stage.dies(1),
        )
        heard = [manager.recv(4096).decode() for _ in range(5)]
    stage.hands.close()
    assert [each for each in heard if "WATCHDOG" in each] == ["WATCHDOG=1"] * 2
    assert "WATCHDOG_USEC" not in os.environ


def test_all_is_known_from_the_status_file(tmp_path: Path) -> None:
    """It is there while the master runs, for its owner only, and says what the supervisor knows."""
    path = tmp_path / "status.json"
    stage = Stage(status_file=str(path))
    seen: list[Any] = []
    stage.run(
        stage.says(1, Ready()),
        lambda: seen.append((json.loads(path.read_text()), path.stat().st_mode & 0o777)),
        raises(signal.SIGTERM),
        stage.dies(1),
    )
    stage.hands.close()
    [(status, mode)] = seen
    assert status["workers"][0]["state"] == "ready"
    assert mode == 0o600
    assert not path.exists()


def test_a_broker_is_started_and_replaced_while_the_workers_serve(stage: Stage) -> None:
    """Whoever connects wakes the master up; a broker that dies again waits for its back-off."""
    with listen() as meeting, connect(text_of(meeting)):
        stage.heritage = replace(stage.heritage, broker=meeting)
        code = stage.run(
            stage.says(1, Ready()),
            lambda: stage.hands.stranger_dies(901, "signal SIGKILL"),
            lambda: signal.raise_signal(signal.SIGCHLD),
            lambda: stage.hands.stranger_dies(902, "signal SIGKILL"),
            lambda: signal.raise_signal(signal.SIGCHLD),
            lambda: setattr(stage.clock, "now", stage.clock.now + 0.5),
            raises(signal.SIGTERM),
            stage.says(1, Draining("asked to")),
            stage.dies(1),
        )
        assert code == 0
        assert len(stage.hands.started) == 3
        assert stage.hands.ended == [903]
        assert meeting.fileno() == -1
