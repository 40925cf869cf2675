"""The zygote's own side: a real one, and the test is the master."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import selectors
import signal
import socket
import weakref
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self

import psutil
import pytest
import setproctitle

from daphne_supervisor.broker.address import VARIABLE, listen, text_of
from daphne_supervisor.config import App, Config
from daphne_supervisor.errors import BootError
from daphne_supervisor.hooks import Hooks
from daphne_supervisor.logs import AccessLog
from daphne_supervisor.master.birth import fork
from daphne_supervisor.master.nursery import receive
from daphne_supervisor.master.processes import Processes
from daphne_supervisor.master.signals import HANDLED
from daphne_supervisor.master.zygote import Zygote, request
from daphne_supervisor.messages import (
    ZYGOTE_REPORTS,
    BootFailed,
    Born,
    Decoder,
    Grown,
    Stillborn,
)
from daphne_supervisor.privileges import Privileges
from tests.support.births import (
    CONFIG,
    PATIENCE,
    FakeSeed,
    ended,
    has_ended,
    heritage,
    leave_orphans_alone,
    line,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from daphne_supervisor.master.zygote import Heritage
    from daphne_supervisor.messages import Assignment, ZygoteReport


class Mother:
    """A zygote that the test has forked, seen from the master's end of its channel."""

    def __init__(self, generation: int, given: Heritage) -> None:
        """Fork it; whatever it is to close is closed in it."""
        self.near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.near.settimeout(PATIENCE)
        with far:
            self.pid = fork(Zygote(generation, given, far).live, abandon=self.near.close)
        self._decoder: Decoder[ZygoteReport] = Decoder(ZYGOTE_REPORTS)
        self._heard: list[ZygoteReport] = []
        self._channels: list[socket.socket] = []
        self._workers: list[int] = []
        self.reaped = False

    def __enter__(self) -> Self:
        """Be there."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nobody behind."""
        self.near.close()
        if not self.reaped and not has_ended(self.pid, 0):
            os.kill(self.pid, signal.SIGKILL)
        if not self.reaped:
            ended(self.pid)
        for channel in self._channels:
            channel.close()
        for worker in self._workers:
            if not has_ended(worker, 0):
                os.kill(worker, signal.SIGKILL)
            assert has_ended(worker)
            self.reap(worker)

    def heard(self) -> ZygoteReport:
        """Return the next report."""
        while not self._heard:
            data = self.near.recv(65536)
            assert data, "the zygote has left"
            self._heard += self._decoder.feed(data)
        return self._heard.pop(0)

    def ask(self, slot: int) -> socket.socket:
        """Ask for a worker; return the master's end of its channel."""
        near, far = socket.socketpair()
        self._channels.append(near)
        with far:
            socket.send_fds(self.near, [request(slot)], [far.fileno()])
        return near

    def bear(self, slot: int) -> tuple[int, socket.socket]:
        """Have a worker born; return its process id and the master's end of its channel."""
        channel = self.ask(slot)
        report = self.heard()
        assert isinstance(report, Born)
        assert report.slot == slot
        self._workers.append(report.pid)
        return report.pid, channel

    def dies(self) -> str:
        """Wait for its end; return how it ended."""
        self.reaped = True
        return ended(self.pid)

    @staticmethod
    def reap(worker: int) -> str | None:
        """Reap a worker if it is still to be reaped; return how it ended."""
        try:
            return ended(worker)
        except ChildProcessError:
            return None


@pytest.fixture(autouse=True)
def subreaper() -> Iterator[None]:
    """Be given the workers when their parent leaves, as a master is."""
    with selectors.DefaultSelector() as selector:
        Processes(heritage(), selector, lambda: None)
    yield
    leave_orphans_alone()


@pytest.fixture(autouse=True)
def same_title() -> Iterator[None]:
    """Give the test process its title back."""
    before = setproctitle.getproctitle()
    yield
    setproctitle.setproctitle(before)


def telling(*facts: Callable[[Assignment], object]) -> FakeSeed:
    """Return what workers grow from that tell some facts, one a line, and leave with 7."""

    def be(assignment: Assignment) -> int:
        for fact in facts:
            assignment.channel.sendall(f"{fact(assignment)}\n".encode())
        return 7

    return FakeSeed(be)


def open_files(pid: int) -> dict[int, str]:
    """Return what the descriptors of a process are, by number, the standard streams left out."""
    found = {}
    for one in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # the directory itself
            found[int(one)] = os.readlink(f"/proc/{pid}/fd/{one}")
    return {number: target for number, target in found.items() if number > 2}


# Growing


def test_a_zygote_says_when_it_has_grown_and_bears_workers() -> None:
    """A worker has its slot, its generation and the rest of what it was to be born with."""
    given = heritage(
        telling(
            lambda one: (one.slot, one.generation, one.config is CONFIG, one.listeners),
            lambda one: (one.access_log, one.scoreboard is given.scoreboard),
        )
    )
    with Mother(3, given) as mother:
        assert mother.heard() == Grown()
        worker, channel = mother.bear(2)
        assert line(channel) == "(2, 3, True, ())\n"
        assert line(channel) == "(None, True)\n"
        assert line(channel) == ""
        assert Mother.reap(worker) == "exit code 7"


def test_workers_are_children_of_the_master() -> None:
    """When the master hears of a birth, the worker is its own child to wait for and to signal."""
    with Mother(1, heritage(telling(lambda _: os.getppid()))) as mother:
        mother.heard()
        for slot in (1, 2, 3):
            worker, channel = mother.bear(slot)
            assert psutil.Process(worker).ppid() == os.getpid()
            assert line(channel) == f"{os.getpid()}\n"


def test_a_worker_does_nothing_before_the_master_can_know_it() -> None:
    """Whoever speaks to the master has been announced to it before."""
    order: list[str] = []
    with Mother(1, heritage(telling(lambda _: "here"))) as mother:
        mother.heard()
        for slot in range(1, 9):
            channel = mother.ask(slot)
            assert line(channel) == "here\n"
            # It has spoken, so its birth can be read without waiting.
            mother.near.setblocking(False)
            data = receive(mother.near)
            assert data is not None
            order += [type(one).__name__ for one in Decoder(ZYGOTE_REPORTS).feed(data)]
            (born,) = Decoder(ZYGOTE_REPORTS).feed(data)
            assert isinstance(born, Born)
            assert Mother.reap(born.pid) == "exit code 7"
    assert order == ["Born"] * 8


def test_the_application_is_imported_in_the_zygote_only_with_preload() -> None:
    """With --preload workers find it; without it they are for themselves."""
    imported: list[int] = []
    facts = telling(lambda _: imported == [os.getppid()], lambda _: len(imported))

    def preload() -> None:
        imported.append(os.getpid())

    seed = replace(facts, import_application=preload)
    for wanted in (False, True):
        config = Config(application="shop.asgi:application", app=App(preload=wanted))
        with Mother(1, heritage(seed, config=config)) as mother:
            mother.heard()
            _, channel = mother.bear(1)
            assert line(channel) == "False\n"  # it was the zygote's process, never the master's
            assert line(channel) == f"{int(wanted)}\n"
        assert imported == []


def test_an_application_that_cannot_be_imported_is_told_with_its_traceback() -> None:
    """However long the traceback is, it arrives whole, and the zygote leaves with 3."""

    def preload() -> None:
        error = BootError("application 'shop': cannot be imported")
        error.traceback = "Traceback\n" * 40_000  # type: ignore[attr-defined]
        raise error

    config = Config(application="shop.asgi:application", app=App(preload=True))
    with Mother(1, heritage(FakeSeed(import_application=preload), config=config)) as mother:
        said = mother.heard()
        assert isinstance(said, BootFailed)
        assert said.reason == "application 'shop': cannot be imported"
        assert said.traceback == "Traceback\n" * 40_000
        assert mother.dies() == "exit code 3"


def test_a_directory_that_is_gone_is_told() -> None:
    """Whatever keeps a zygote from growing is one line, without a traceback."""
    config = Config(application="shop.asgi:application", app=App(chdir="/nowhere/at/all"))
    with Mother(1, heritage(config=config)) as mother:
        said = mother.heard()
        assert isinstance(said, BootFailed)
        assert "--chdir /nowhere/at/all" in said.reason
        assert said.traceback == ""
        assert mother.dies() == "exit code 3"


def test_the_environment_is_the_applications() -> None:
    """The environment file's variables are set, and those for the master alone are not there."""
    config = Config(
        application="shop.asgi:application", app=App(environment=(("SHOP_COLOUR", "green"),))
    )
    facts = telling(
        lambda _: os.environ.get("SHOP_COLOUR"), lambda _: "WATCHDOG_USEC" in os.environ
    )
    os.environ["WATCHDOG_USEC"] = "1000000"
    try:
        with Mother(1, heritage(facts, config=config)) as mother:
            mother.heard()
            _, channel = mother.bear(1)
            assert line(channel) == "green\n"
            assert line(channel) == "False\n"
    finally:
        del os.environ["WATCHDOG_USEC"]
    assert "SHOP_COLOUR" not in os.environ


def test_workers_are_told_where_the_broker_is() -> None:
    """Where that of their own master is, or none: not that of a master that has started ours."""
    facts = telling(lambda _: os.environ.get(VARIABLE))
    os.environ[VARIABLE] = "@another"
    try:
        with listen() as meeting:
            address = text_of(meeting)
            for broker, told in ((None, "None"), (meeting, address)):
                with Mother(1, replace(heritage(facts), broker=broker)) as mother:
                    mother.heard()
                    _, channel = mother.bear(1)
                    assert line(channel) == f"{told}\n"
    finally:
        del os.environ[VARIABLE]


def test_privileges_are_dropped_before_the_application_is_imported() -> None:
    """No line of the application's code runs with rights that workers do not have."""

    def preload() -> None:
        seen.append(os.umask(0o022))

    seen: list[int] = []
    seed = replace(telling(lambda _: f"{seen[0]:o}"), import_application=preload)
    config = Config(application="shop.asgi:application", app=App(preload=True))
    with Mother(1, heritage(seed, config=config, privileges=Privileges(umask=0o027))) as mother:
        mother.heard()
        _, channel = mother.bear(1)
        assert line(channel) == "27\n"


def test_what_the_hooks_have_imported_is_forgotten_before_the_application_is_imported() -> None:
    """The zygote asks the hooks for it, and only then grows."""
    steps: list[str] = []

    class Remembered(Hooks):
        def forget(self) -> None:
            steps.append("forget")

    def grow(_: Config, __: object) -> FakeSeed:
        steps.append("grow")
        return telling(lambda _: steps)

    with Mother(1, replace(heritage(hooks=Remembered()), grow=grow)) as mother:
        mother.heard()
        _, channel = mother.bear(1)
        assert line(channel) == "['forget', 'grow']\n"


def test_the_collector_leaves_alone_what_is_shared() -> None:
    """What was imported is frozen: looking for garbage does not copy its pages; new garbage is."""
    facts = telling(lambda _: gc.get_freeze_count() > 1000, lambda _: gc.isenabled())
    with Mother(1, heritage(facts)) as mother:
        mother.heard()
        _, channel = mother.bear(1)
        assert line(channel) == "True\n"
        assert line(channel) == "True\n"


def test_what_is_thrown_away_while_growing_leaves_no_holes() -> None:
    """Workers would fill them, each in a copy of the page around it."""
    thrown_away: list[weakref.ref[object]] = []

    def preload() -> None:
        one, other = ModuleType("one"), ModuleType("other")
        vars(one)["other"], vars(other)["one"] = other, one
        thrown_away.append(weakref.ref(one))

    facts = telling(lambda _: gc.collect(), lambda _: thrown_away[0]() is not None)
    config = Config(application="shop.asgi:application", app=App(preload=True))
    with Mother(1, heritage(replace(facts, import_application=preload), config=config)) as mother:
        mother.heard()
        _, channel = mother.bear(1)
        line(channel)  # a worker that looks for garbage does not find it either
        assert line(channel) == "True\n"


def _title(pid: int) -> str:
    """Return what `ps` shows; where it ends without a null byte, psutil splits it at blanks."""
    return " ".join(psutil.Process(pid).cmdline())


def test_processes_are_called_by_what_they_are() -> None:
    """`ps` tells a zygote from a worker, from the moment at which the master knows the worker."""
    with Mother(4, heritage(FakeSeed())) as mother:
        mother.heard()
        assert _title(mother.pid).startswith("daphne-supervisor: zygote gen 4")
        worker, _ = mother.bear(2)
        assert _title(worker).startswith("daphne-supervisor: worker 2 gen 4")


# What is inherited


def test_a_worker_inherits_nothing_but_its_channel() -> None:
    """No end of anybody's channel, no pipe: what is held open would hide a death."""
    before = set(open_files(os.getpid()).items())
    with Mother(1, heritage()) as mother:
        mother.heard()
        for slot in (1, 2):
            worker, channel = mother.bear(slot)
            assert line(channel) == "here\n"
            own = set(open_files(worker).items()) - before
            assert [target.partition(":")[0] for _, target in own] == ["socket"]


def test_a_zygote_keeps_nothing_of_its_workers() -> None:
    """However many it has borne, it has its own channel and that of the one who is next."""
    before = set(open_files(os.getpid()).items())
    counts: list[int] = []
    module = ModuleType("hooks")
    vars(module)["before_fork"] = lambda **_: counts.append(
        len(set(open_files(os.getpid()).items()) - before)
    )
    with Mother(1, heritage(telling(lambda _: counts), hooks=Hooks(module))) as mother:
        mother.heard()
        for slot in (1, 2, 3):
            _, channel = mother.bear(slot)
            assert line(channel) == f"{[2] * slot}\n"


def test_programs_that_a_worker_starts_do_not_hold_its_channel() -> None:
    """The descriptor is closed when another program is run, however that is done."""
    facts = telling(lambda one: one.channel.get_inheritable())
    with Mother(1, heritage(facts)) as mother:
        mother.heard()
        _, channel = mother.bear(1)
        assert line(channel) == "False\n"


def test_signals_are_as_the_system_made_them() -> None:
    """Whatever the zygote keeps for itself, a worker starts clean, with nothing blocked."""

    def handlers(_: Assignment) -> list[str]:
        return sorted(each.name for each in HANDLED if signal.getsignal(each) is signal.SIG_DFL)

    facts = telling(handlers, lambda _: signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(HANDLED))
    with Mother(1, heritage(facts, access_log=AccessLog(1, None))) as mother:
        mother.heard()
        _, channel = mother.bear(1)
        assert line(channel) == "['SIGCHLD', 'SIGQUIT', 'SIGTERM']\n"
        assert line(channel) == "set()\n"


# Hooks


def test_hooks_are_called_where_they_should(caplog: pytest.LogCaptureFixture) -> None:
    """One in the zygote before the fork, one in the worker before anything else."""
    calls: list[tuple[str, int, dict[str, Any]]] = []
    module = ModuleType("hooks")
    for name in ("before_fork", "after_fork"):
        setattr(module, name, lambda _name=name, **facts: calls.append((_name, os.getpid(), facts)))
    with (
        caplog.at_level(logging.ERROR),
        Mother(3, heritage(telling(lambda _: calls), hooks=Hooks(module))) as mother,
    ):
        mother.heard()
        worker, channel = mother.bear(2)
        assert line(channel) == (
            f"[('before_fork', {mother.pid}, {{'slot': 2, 'generation': 3}}),"
            f" ('after_fork', {worker}, {{'slot': 2, 'generation': 3, 'pid': {worker}}})]\n"
        )


# The end


def test_the_end_of_the_channel_is_the_end_of_the_zygote() -> None:
    """It leaves well, and the workers live on."""
    with Mother(1, heritage()) as mother:
        mother.heard()
        worker, channel = mother.bear(1)
        assert line(channel) == "here\n"
        mother.near.close()
        assert mother.dies() == "exit code 0"
        assert not has_ended(worker, 0)


def test_a_master_that_dies_without_having_read_is_an_end(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What was said in vain makes the end a reset, which is no error to be shown."""
    with Mother(1, heritage(telling())) as mother:
        mother.heard()
        mother.ask(1)
        born = mother.near.recv(65536, socket.MSG_PEEK)
        mother.near.close()
        assert mother.dies() == "exit code 0"
    (report,) = Decoder(ZYGOTE_REPORTS).feed(born)
    assert isinstance(report, Born)
    assert Mother.reap(report.pid) == "exit code 7"
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_whole_service_does_not_end_it(number: signal.Signals) -> None:
    """A worker that crashes while others drain can still be replaced."""
    with Mother(1, heritage()) as mother:
        mother.heard()
        os.kill(mother.pid, number)
        _, channel = mother.bear(1)
        assert line(channel) == "here\n"


def test_while_it_grows_it_can_be_terminated() -> None:
    """An import that hangs, and has lost its master, is ended by the usual means."""
    ours, theirs = socket.socketpair()

    def preload() -> None:
        theirs.sendall(b"hanging\n")
        signal.pause()

    config = Config(application="shop.asgi:application", app=App(preload=True))
    given = heritage(FakeSeed(import_application=preload), config=config)
    with ours, theirs, Mother(1, given) as mother:
        assert line(ours) == "hanging\n"
        os.kill(mother.pid, signal.SIGTERM)
        assert mother.dies() == "signal SIGTERM"


def test_an_import_that_hangs_is_shown_when_it_is_aborted(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The stack of the hanging line is what the log needs."""
    ours, theirs = socket.socketpair()

    def preload_that_hangs() -> None:
        theirs.sendall(b"hanging\n")
        signal.pause()

    config = Config(application="shop.asgi:application", app=App(preload=True))
    given = heritage(FakeSeed(import_application=preload_that_hangs), config=config)
    with ours, theirs, Mother(1, given) as mother:
        assert line(ours) == "hanging\n"
        os.kill(mother.pid, signal.SIGABRT)
        assert mother.dies() == "signal SIGABRT"
    assert "in preload_that_hangs" in capfd.readouterr().err


# Births that fail


def test_a_worker_that_cannot_be_forked_is_told_with_the_reason() -> None:
    """When the system has no room for a process, the zygote says so and lives on."""

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        if os.geteuid() == 0:  # root is not limited
            os.setresuid(65534, 65534, 65534)

    config = Config(application="shop.asgi:application", app=App(preload=True))
    with Mother(1, heritage(FakeSeed(import_application=no_room), config=config)) as mother:
        assert mother.heard() == Grown()
        for slot in (1, 2):
            channel = mother.ask(slot)
            assert mother.heard() == Stillborn(slot, "Resource temporarily unavailable")
            assert line(channel) == ""


def test_room_for_one_process_only_is_no_room(capfd: pytest.CaptureFixture[str]) -> None:
    """The process in between says why it could not fork; it leaves no trace in the log."""
    user = 54321  # nobody has it, so all its processes are ours

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_NPROC, (2, 2))
        os.setresuid(user, user, user)

    if os.geteuid() != 0:
        pytest.skip("only root can be a user without processes")
    config = Config(application="shop.asgi:application", app=App(preload=True))
    with Mother(1, heritage(FakeSeed(import_application=little_room), config=config)) as mother:
        assert mother.heard() == Grown()
        mother.ask(1)
        assert mother.heard() == Stillborn(1, "Resource temporarily unavailable")
    assert "Traceback" not in capfd.readouterr().err


def test_a_worker_that_dies_before_it_can_say_who_it_is_was_not_born() -> None:
    """Nobody waits for it for ever."""

    class Mortal(Zygote):
        def _be_worker(self, *_: object) -> int:
            os.kill(os.getpid(), signal.SIGKILL)
            return 0

    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near:
        near.settimeout(PATIENCE)
        with far:
            pid = fork(Mortal(1, heritage(), far).live, abandon=near.close)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            socket.send_fds(near, [request(1)], [theirs.fileno()])
        decoder = Decoder(ZYGOTE_REPORTS)
        assert decoder.feed(near.recv(65536)) == [Grown()]
        assert decoder.feed(near.recv(65536)) == [Stillborn(1, "it died at once")]
    assert ended(pid) == "exit code 0"
    assert os.waitpid(-1, 0)[1] == signal.SIGKILL  # the worker


def test_a_worker_that_the_master_was_not_told_of_ends() -> None:
    """A zygote that is killed while it bears leaves nobody whom nobody supervises."""
    ours, theirs = socket.socketpair()

    class Killed(Zygote):
        def _tell(self, report: ZygoteReport) -> None:
            if isinstance(report, Born):
                theirs.sendall(f"{report.pid}\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)
            super()._tell(report)

    lived = FakeSeed(lambda _: theirs.send(b"lived\n"))
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, ours:
        with far:
            pid = fork(Killed(1, heritage(lived), far).live, abandon=near.close)
        theirs.close()
        channel, end = socket.socketpair()
        with channel, end:
            socket.send_fds(near, [request(1)], [end.fileno()])
        worker = int(line(ours))
        assert ended(pid) == "signal SIGKILL"
        assert has_ended(worker)
        assert line(ours) == ""
    assert Mother.reap(worker) == "exit code 0"


def test_a_worker_whose_zygote_has_died_before_it_could_speak_ends(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It is nobody's, so it says nothing and leaves."""

    class Late(Zygote):
        def _be_worker(self, slot: int, far: socket.socket, theirs: socket.socket) -> int:
            os.kill(zygote, signal.SIGKILL)
            assert has_ended(zygote)
            return super()._be_worker(slot, far, theirs)

        def live(self) -> int:
            nonlocal zygote
            zygote = os.getpid()
            return super().live()

    zygote = 0
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near:
        with far:
            pid = fork(Late(1, heritage(), far).live, abandon=near.close)
        channel, end = socket.socketpair()
        with channel:
            with end:
                socket.send_fds(near, [request(1)], [end.fileno()])
            assert ended(pid) == "signal SIGKILL"
            assert line(channel) == ""
    assert "Traceback" not in capfd.readouterr().err
    while psutil.Process().children():  # the worker, and the one in between if nobody has reaped it
        assert os.waitpid(-1, 0)[1] == 0


def test_an_application_that_reaps_its_children_itself_can_be_forked() -> None:
    """With SIGCHLD ignored the system does the reaping, and births are told all the same."""

    def ignore_children() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    config = Config(application="shop.asgi:application", app=App(preload=True))
    seed = FakeSeed(import_application=ignore_children)
    with Mother(1, heritage(seed, config=config)) as mother:
        assert mother.heard() == Grown()
        _, channel = mother.bear(1)
        assert line(channel) == "here\n"


# The access log


def _writing() -> FakeSeed:
    def be(assignment: Assignment) -> int:
        assert assignment.access_log is not None
        assignment.access_log.http("127.0.0.1", "GET", f"/{assignment.slot}", 200, 1)
        return 0

    return FakeSeed(be)


def test_logs_that_are_rotated_are_reopened_for_the_workers_to_come(tmp_path: Path) -> None:
    """SIGUSR1 is for whoever will inherit the descriptor."""
    path = tmp_path / "access.log"
    with Mother(1, heritage(_writing(), access_log=AccessLog.open(str(path)))) as mother:
        mother.heard()
        path.rename(tmp_path / "access.log.1")
        os.kill(mother.pid, signal.SIGUSR1)
        worker, _ = mother.bear(1)
        assert Mother.reap(worker) == "exit code 0"
    assert "GET /1" in path.read_text()
    assert (tmp_path / "access.log.1").read_text() == ""


def test_logs_that_are_rotated_while_the_zygote_is_forked_are_reopened_too(tmp_path: Path) -> None:
    """The signal may come before there is anybody to hear it."""
    path = tmp_path / "access.log"
    log = AccessLog.open(str(path))
    path.rename(tmp_path / "access.log.1")
    with Mother(1, heritage(_writing(), access_log=log)) as mother:
        mother.heard()
        worker, _ = mother.bear(1)
        assert Mother.reap(worker) == "exit code 0"
    assert "GET /1" in path.read_text()
