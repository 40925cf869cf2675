"""USR2: another master takes over on the same sockets, or comes to nothing without a trace."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from websockets.sync.client import connect

import daphne_supervisor
from tests.support.client import Client, get
from tests.support.daphne import PATIENCE, ROOT, Daphne, survivors
from tests.support.load import Load
from tests.support.project import Project
from tests.support.tools import tool, unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from websockets.sync.connection import Connection

pytestmark = pytest.mark.timeout(120)

APPLICATION = "tests.integration.upgrade_app:application"
OPTIONS = ("--workers", "2", "--access-log", "/dev/null")
PACKAGE = Path(daphne_supervisor.__file__).parent


class Gate:
    """Where workers wait before they are ready, while it is closed."""

    def __init__(self, folder: Path) -> None:
        """Stand open."""
        self.env = {"GATE": str(folder / "gate")}

    @contextlib.contextmanager
    def closed(self) -> Iterator[socket.socket]:
        """Keep whoever comes until the end of the block; yield where they come."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as gate:
            gate.bind(self.env["GATE"])
            gate.listen()
            gate.settimeout(PATIENCE)
            try:
                yield gate
            finally:
                os.unlink(self.env["GATE"])


@contextlib.contextmanager
def booting(server: Daphne, gate: Gate) -> Iterator[psutil.Process]:
    """Upgrade; yield the new master while a worker of it is about to start, and must wait."""
    with gate.closed() as closed:
        new = server.upgrade()
        waiting, _ = closed.accept()
        with waiting:
            yield new


@contextlib.contextmanager
def held(server: Daphne) -> Iterator[Connection]:
    """Keep a worker of the present master from leaving; `server` waits for WebSockets."""
    with connect(f"ws://127.0.0.1:{server.port}/", open_timeout=PATIENCE) as websocket:
        websocket.send("here")
        assert websocket.recv(PATIENCE) == "here"
        yield websocket


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Return a gate that is open."""
    return Gate(tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the pid file is."""
    return tmp_path / "pid"


@pytest.fixture
def server(gate: Gate, path: Path, tmp_path: Path) -> Iterator[Daphne]:
    """Return a master with two workers, a pid file, a port and a unix socket."""
    options = (*OPTIONS, "--pid-file", str(path), "-p", "0", "-u", str(tmp_path / "x.sock"))
    with Daphne(APPLICATION, *options, "--ws-drain", "wait", env=gate.env) as server:
        yield server
    print(server.final_log)  # noqa: T201 - pytest shows it when the test has failed
    assert not path.exists()
    assert not (tmp_path / "x.sock").exists()


def masters(target: int | str) -> set[int]:
    """Return the process ids of the masters whose workers answer at `target`."""
    with Load(target, 8) as load:
        load.turn()
    assert load.losses == []
    return {int(answer.split()[1]) for answer in load.latest}


def is_open(port: int) -> bool:
    """Whether somebody listens at `port`."""
    with contextlib.suppress(ConnectionRefusedError):
        Client(port).close()
        return True
    return False


def title(process: psutil.Process) -> str:
    """Return how `ps` shows a master, without its application."""
    return " ".join(process.cmdline()).partition(" [")[0]


def is_ready(said: str) -> bool:
    """Whether READY=1 is among what is said."""
    return "READY=1" in said.splitlines()


def is_calm(said: str) -> bool:
    """Whether the status is that of a master that is as it was."""
    return said.endswith("STATUS=2/2 workers ready, generation 1")


@contextlib.contextmanager
def listening(way: str, folder: Path) -> Iterator[tuple[Daphne, int | str]]:
    """Return a master that listens in that way, not started yet, and where clients find it."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as sock:
        env = Gate(folder).env
        number, handed = sock.fileno(), sock.getsockname()[1]
        unix = str(folder / "x.sock")
        places: dict[str, int | str] = {"tcp": 0, "unix": unix}
        arguments: dict[str, tuple[str, ...]] = {
            "tcp": (),
            "unix": ("-u", unix),
            "fd": ("--fd", str(number)),
            "systemd": (),
        }
        given = [number] if way == "systemd" else []
        passed = [number] if way == "fd" else []
        server = Daphne(
            APPLICATION, *OPTIONS, *arguments[way], env=env, pass_fds=passed, activated=given
        )
        yield server, places.get(way, handed)


@pytest.mark.parametrize("way", ["tcp", "unix", "fd", "systemd"])
def test_an_upgrade_under_load_loses_no_request(way: str, tmp_path: Path) -> None:
    """Of all requests that are sent meanwhile each is answered, however it listens."""
    with listening(way, tmp_path) as (server, place), server:
        with Load(place or server.port) as load:
            new = server.upgrade()
            server.wait(is_ready)
            assert server.wait_exit() == 0
            load.turn()
            assert {int(answer.split()[1]) for answer in load.latest} == {new.pid}
        assert load.losses == []
        assert load.answered == load.sent > 100
        assert len(server.workers()) == 2


def test_an_upgrade_is_visible_to_everybody(server: Daphne, path: Path) -> None:
    """In the process list, the pid files, and to the service manager, in the right order."""
    old, aside = psutil.Process(server.pid), Path(f"{path}.old")
    with held(server) as websocket:
        new = server.upgrade()
        assert path.read_text() == f"{old.pid}\n"
        said = server.wait(lambda said: "MAINPID" in said)
        assert said == f"MAINPID={new.pid}"
        assert "told to drain" not in server.log().partition("the new master takes over")[0]
        assert server.wait(is_ready).endswith("STATUS=2/2 workers ready, generation 1")
        assert title(old) == "daphne-supervisor: master (old)"
        assert title(new) == "daphne-supervisor: master"
        assert path.read_text() == f"{new.pid}\n"
        assert aside.read_text() == f"{old.pid}\n"
        websocket.send("still there")
        assert websocket.recv(PATIENCE) == "still there"
    assert server.wait_exit() == 0
    assert path.read_text() == f"{new.pid}\n"
    assert not aside.exists()


def test_a_new_master_that_boots_is_called_new(server: Daphne, gate: Gate) -> None:
    """Nobody takes it for the one that serves, and it owns nothing."""
    with booting(server, gate) as new:
        assert title(new) == "daphne-supervisor: master (new)"
        assert title(psutil.Process(server.pid)) == "daphne-supervisor: master"
    server.wait(is_ready)


def test_an_upgrade_runs_a_new_version_of_the_package(tmp_path: Path) -> None:
    """What the command line names is what is started: here a link that leads elsewhere by now."""
    current = tmp_path / "current"
    for number in ("1", "2"):
        copy = tmp_path / number / PACKAGE.name
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        (copy / "__init__.py").write_text(f'"""A version."""\n\n__version__ = "{number}.0"\n')
    current.symlink_to("1")
    env = {"PYTHONPATH": f"{current}:{ROOT}", **Gate(tmp_path).env}
    with Daphne(APPLICATION, *OPTIONS, env=env, cwd=tmp_path) as server:
        assert get(server.port, "/").text.startswith("1.0 ")
        current.unlink()
        current.symlink_to("2")
        with Load(server.port) as load:
            new = server.upgrade()
            server.wait(is_ready)
            assert server.wait_exit() == 0
            load.turn()
        assert {tuple(answer.split()[:2]) for answer in load.latest} == {("2.0", str(new.pid))}
        assert load.losses == []


def _break_half(package: Path) -> None:
    shutil.rmtree(package / "master")


def _break_syntax(package: Path) -> None:
    (package / "cli.py").write_text("def main(:\n")


def _break_worker(package: Path) -> None:
    (package / "worker" / "seed.py").write_text("raise RuntimeError('no such worker')\n")


@pytest.mark.parametrize("spoil", [_break_half, _break_syntax, _break_worker])
def test_a_broken_package_changes_nothing(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """The old master says that the upgrade has failed, keeps its workers, and can try again."""
    package, kept = tmp_path / "lib" / PACKAGE.name, tmp_path / "kept"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(package, kept)
    path = tmp_path / "pid"
    env = {"PYTHONPATH": f"{tmp_path / 'lib'}:{ROOT}", **Gate(tmp_path).env}
    options = (*OPTIONS, "--pid-file", str(path))
    with Daphne(APPLICATION, *options, env=env, cwd=tmp_path) as server:
        before = server.worker_pids()
        with Load(server.port) as load:
            spoil(package)
            server.signal(signal.SIGUSR2)
            server.wait_status("; upgrading")
            server.wait(is_calm)
            load.turn()
        assert load.losses == []
        assert re.search(r"ERROR +upgrade failed: exit code \d+", server.log())
        assert server.worker_pids() == before
        assert path.read_text() == f"{server.pid}\n"
        shutil.rmtree(package)
        shutil.copytree(kept, package)
        new = server.upgrade()
        server.wait(is_ready)
        assert masters(server.port) == {new.pid}


def test_a_broken_application_changes_nothing(tmp_path: Path) -> None:
    """As a reload that fails, it costs a few lines in the log and nothing else."""
    project = Project(tmp_path)
    project.release("v0")
    path = tmp_path / "x.sock"
    options = (*OPTIONS, *project.arguments, "-p", "0", "-u", str(path))
    with Daphne(project.application, *options) as server:
        before, inode = server.worker_pids(), path.stat().st_ino
        project.release_failing()
        server.signal(signal.SIGUSR2)
        server.wait_status("; upgrading")
        server.wait(is_calm)
        assert "upgrade failed: exit code 3" in server.log()
        assert "ZeroDivisionError" in server.log()
        assert server.worker_pids() == before
        assert path.stat().st_ino == inode
        for target in (server.port, str(path)):
            assert get(target, "/").text.startswith("v0 ")


def test_hup_while_the_new_master_boots_rolls_back(
    server: Daphne, gate: Gate, path: Path, tmp_path: Path
) -> None:
    """It leaves, and the old one goes on with the workers that it has."""
    old, before = server.pid, server.worker_pids()
    with booting(server, gate) as new:
        server.signal(signal.SIGHUP)
        server.wait_status("upgrade rolled back")
        assert survivors([new], PATIENCE) == []
        server.wait(is_calm)
    assert server.pid == old
    assert server.worker_pids() == before
    assert path.read_text() == f"{old}\n"
    for target in (server.port, str(tmp_path / "x.sock")):
        assert masters(target) == {old}


def test_hup_after_the_hand_over_rolls_back(server: Daphne, path: Path, tmp_path: Path) -> None:
    """The old master gets workers again; when they are ready it is the main process, as before."""
    old = server.pid
    with Load(server.port) as load, held(server) as websocket:
        new = server.upgrade()
        server.wait(lambda said: said == f"MAINPID={new.pid}")
        os.kill(old, signal.SIGHUP)
        server.wait(lambda said: said == f"MAINPID={old}")
        server.wait(is_ready)
        assert survivors([new], PATIENCE) == []
        load.turn()
        assert {int(answer.split()[1]) for answer in load.latest} == {old}
        websocket.send("still there")
        assert websocket.recv(PATIENCE) == "still there"
    assert load.losses == []
    server.settle(2)
    assert path.read_text() == f"{old}\n"
    assert not Path(f"{path}.old").exists()
    assert title(psutil.Process(old)) == "daphne-supervisor: master"
    for target in (server.port, str(tmp_path / "x.sock")):
        assert masters(target) == {old}
    again = server.upgrade()
    server.wait(lambda said: said == f"MAINPID={again.pid}")
    server.wait(is_ready)
    assert masters(server.port) == {again.pid}


def test_the_old_master_takes_back_when_the_new_one_is_killed(
    server: Daphne, path: Path, tmp_path: Path
) -> None:
    """As long as it still drains, there is somebody to serve."""
    old = server.pid
    with held(server):
        new = server.upgrade()
        server.wait(lambda said: said == f"MAINPID={new.pid}")
        server.wait(is_ready)
        orphans = server.workers()
        new.kill()
        server.wait(lambda said: said == f"MAINPID={old}")
        server.wait_status("2/2 workers ready")
        assert survivors(orphans, PATIENCE) == []
        for target in (server.port, str(tmp_path / "x.sock")):
            assert masters(target) == {old}
    assert path.read_text() == f"{old}\n"
    assert "this one serves again: signal SIGKILL" in server.log()


def test_the_new_master_takes_over_when_the_old_one_is_killed(
    server: Daphne, gate: Gate, path: Path, tmp_path: Path
) -> None:
    """Also if it has not come to that yet: its workers are ready later, the sockets stay."""
    with booting(server, gate) as new:
        workers = server.workers()
        server.process.kill()
        server.process.wait()
        server.follow(new)
        assert survivors(workers, PATIENCE) == []
    server.wait(is_ready)
    for target in (server.port, str(tmp_path / "x.sock")):
        assert masters(target) == {new.pid}
    assert path.read_text() == f"{new.pid}\n"
    assert title(new) == "daphne-supervisor: master"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_while_the_new_master_boots_stops_both(
    server: Daphne, gate: Gate, number: signal.Signals
) -> None:
    """Nobody is left behind whom the operator does not know."""
    with booting(server, gate) as new:
        server.signal(number)
        assert server.wait_exit() == 0
        assert survivors([new], PATIENCE) == []


def test_a_stop_of_the_new_master_is_the_end_of_the_service(server: Daphne, path: Path) -> None:
    """The old one, which still drains, does not come back: whoever stops that process means it."""
    old = psutil.Process(server.pid)
    with held(server) as websocket:
        new = server.upgrade()
        server.wait(lambda said: said == f"MAINPID={new.pid}")
        server.wait(is_ready)
        new.terminate()
        assert survivors([new], PATIENCE) == []
        while is_open(server.port):
            assert survivors([old], PATIENCE / 100) == [old]
        websocket.send("still there")
        assert websocket.recv(PATIENCE) == "still there"
    assert server.wait_exit() == 0
    assert not path.exists()


def test_a_second_upgrade_at_the_same_time_is_refused(server: Daphne, gate: Gate) -> None:
    """One line says so, to the old master and, until the old one has left, to the new one."""
    with booting(server, gate) as new:
        server.signal(signal.SIGUSR2)
        server.signal(signal.SIGTTIN)  # which is heard after it
        server.wait_status("/3 workers ready")
        refusal = "an upgrade is under way, so nothing comes of: upgrade the master"
        assert server.log().count(refusal) == 1
        server.signal(signal.SIGTTOU)
    with held(server):
        server.wait(lambda said: said == f"MAINPID={new.pid}")
        server.wait(is_ready)
        server.signal(signal.SIGUSR2)
        server.wait_status("; upgrading")
        server.wait(is_calm)
        refusal = "upgrade failed: the old master of the last upgrade has not left yet"
        assert server.log().count(refusal) == 1
    assert server.log().count("the new master is process") == 1


def descriptors(server: Daphne) -> tuple[int, list[int]]:
    """Return how many descriptors the master has, and each of its workers."""
    server.settle(2)
    workers = sorted(worker.num_fds() for worker in server.workers())
    return psutil.Process(server.pid).num_fds(), workers


def test_upgrade_after_upgrade_leaks_nothing(server: Daphne) -> None:
    """The third new master and its workers have as many descriptors as the first ones had."""
    first = descriptors(server)
    for _ in range(3):
        old = psutil.Process(server.pid)
        new = server.upgrade()
        server.wait(is_ready)
        assert survivors([old], PATIENCE) == []
        assert masters(server.port) == {new.pid}
        server.replace_all()  # a generation that has served nobody
        for _ in range(100):  # what belonged to the one before is let go of with its zygote
            if descriptors(server) == first:
                break
            survivors([new], PATIENCE / 100)
        assert descriptors(server) == first


def test_process_1_is_not_upgraded(tmp_path: Path) -> None:
    """A container would end with it: one line says so, and it serves on."""
    unshare = tool("unshare", "util-linux")
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nexec {unshare} --pid --mount-proc --fork --kill-child {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    if os.geteuid() != 0:
        unavailable("a process id namespace is made by root only")
    env = Gate(tmp_path).env
    with Daphne(APPLICATION, *OPTIONS, env=env, python=str(python)) as server:
        [master] = psutil.Process(server.pid).children()
        before = master.children()
        master.send_signal(signal.SIGUSR2)
        server.wait_status("; upgrading")
        server.wait(is_calm)
        assert server.log().count("upgrade") == 1
        assert "ERROR    upgrade failed: this master is process 1" in server.log()
        assert master.children() == before
        assert get(server.port, "/").text.split()[1] == "1"
        master.terminate()
        assert server.wait_exit() == 0
