"""`--pid-file` names the master while it runs, and nobody else's master ever."""

from __future__ import annotations

import os
import signal
import stat
from typing import TYPE_CHECKING

from tests.support.daphne import APPS, Daphne, run_command, survivors
from tests.support.race import race
from tests.support.succession import upgraded

if TYPE_CHECKING:
    from pathlib import Path

HELLO = f"{APPS}:hello"


def test_the_pid_file_names_the_master_while_it_runs(tmp_path: Path) -> None:
    """It is there when the service is ready, after a reload as well, and gone at the end."""
    path = tmp_path / "pid"
    with Daphne(HELLO, "--pid-file", str(path)) as server:
        assert path.read_text() == f"{server.pid}\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        server.replace_all()
        assert path.read_text() == f"{server.pid}\n"
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
    assert list(tmp_path.iterdir()) == []


def test_a_stale_pid_file_is_recognised_although_its_number_lives(tmp_path: Path) -> None:
    """The process that it names is this test's: not a master, and not the file's owner."""
    path = tmp_path / "pid"
    path.write_text(f"{os.getpid()}\n")
    with Daphne(HELLO, "--pid-file", str(path)) as server:
        assert path.read_text() == f"{server.pid}\n"


def test_the_pid_file_of_a_killed_master_is_stale_at_once(tmp_path: Path) -> None:
    """Also while its workers finish: they do not hold it."""
    path = tmp_path / "pid"
    with Daphne(HELLO, "--pid-file", str(path)) as first:
        workers = first.workers()
        first.signal(signal.SIGSTOP)
        first.process.kill()
        first.process.wait()
        assert path.read_text() == f"{first.pid}\n"
        with Daphne(HELLO, "--pid-file", str(path)) as second:
            assert path.read_text() == f"{second.pid}\n"
        assert survivors(workers, 10) == []
    assert not path.exists()


def test_a_second_instance_says_so_in_one_line(tmp_path: Path) -> None:
    """It ends with 3, and the file goes on naming the first."""
    path = tmp_path / "pid"
    with Daphne(HELLO, "--pid-file", str(path)) as server:
        second = run_command("-v", "0", "-p", "0", "--pid-file", str(path), HELLO)
        assert path.read_text() == f"{server.pid}\n"
        line = f"--pid-file {path}: another master has it; the file says '{server.pid}'"
    assert second.returncode == 3
    assert second.stderr == f"daphne-supervisor: {line}\n"


def test_of_three_instances_that_want_one_pid_file_one_wins(tmp_path: Path) -> None:
    """Over a stale file; the others end with 3 and one line each, and leave nothing behind."""
    path = tmp_path / "pid"
    path.write_text("1\n")

    def look(winner: int) -> None:
        assert path.read_text() == f"{winner}\n"

    options = ("-p", "0", "--pid-file", str(path))
    outcome = race(3, *options, HELLO, directory=tmp_path, meanwhile=look)
    assert [code for code, _ in outcome.losers] == [3, 3]
    for _, line in outcome.losers:
        assert line.startswith(f"daphne-supervisor: --pid-file {path}: another master has it")
        assert line.count("\n") == 1
    assert outcome.winner == 0
    assert [each.name for each in tmp_path.iterdir()] == ["notify"]


def test_an_upgrade_hands_the_pid_file_and_the_socket_file_over(tmp_path: Path) -> None:
    """The file names the new master, the socket is the same, and the last to leave tidies up."""
    path, sock = tmp_path / "pid", tmp_path / "x.sock"
    with Daphne(HELLO, "--pid-file", str(path), "-u", str(sock)) as server:
        inode = sock.stat().st_ino
        with upgraded(server, path):
            assert sock.stat().st_ino == inode
            assert {each.name for each in tmp_path.iterdir()} == {"pid", "x.sock", "x.sock.lock"}
            second = run_command("-v", "0", "-u", str(sock), HELLO)
            assert second.stderr.endswith(f"--unix-socket {sock}: is in use by another process\n")
    assert list(tmp_path.iterdir()) == []
