"""What an operator does with signals, and sees: the target, the logs, titles, the pid file."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

import psutil

from tests.support.client import Client
from tests.support.daphne import APPS, Daphne

if TYPE_CHECKING:
    from pathlib import Path


def test_ttin_and_ttou_change_the_number_of_workers() -> None:
    """One more, one fewer, never below one; the status says how many there should be."""
    with Daphne(f"{APPS}:hello", "--workers", "1") as server:
        server.signal(signal.SIGTTIN)
        server.wait_status("1/2 workers ready")
        server.wait_status("2/2 workers ready")
        server.settle(2)
        server.signal(signal.SIGTTOU)
        server.wait_status("1/1 workers ready")
        server.settle(1)
        server.signal(signal.SIGTTOU)
        server.reload()  # two signals that wait are delivered in the order of their numbers
        server.signal(signal.SIGTTIN)
        server.wait_status("2/2 workers ready")
    assert server.final_log.count("the target is 1") == 3  # the start and two TTOU
    assert "the target is 0" not in server.final_log


def test_a_reload_keeps_the_number_of_workers() -> None:
    """What TTIN has added is there after a HUP."""
    with Daphne(f"{APPS}:hello", "--workers", "1") as server:
        server.signal(signal.SIGTTIN)
        server.wait_status("2/2 workers ready")
        assert "2/2 workers ready, generation 2; reload done" in server.reload()


def test_usr1_reopens_the_access_log_in_every_process(tmp_path: Path) -> None:
    """After a rename, both workers write to the new file, and every request is in one of the two.

    A worker that is born later writes to the new file too.
    """
    log, rotated = tmp_path / "access.log", tmp_path / "access.log.1"
    with Daphne(f"{APPS}:probe", "--workers", "2", "--access-log", str(log)) as server:
        asked = _ask_every_worker(server, log, 0)
        log.rename(rotated)
        server.signal(signal.SIGUSR1)
        asked = _ask_every_worker(server, log, asked)
        server.replace_all()
        asked = _ask_every_worker(server, log, asked)
    lines = (rotated.read_text() + log.read_text()).splitlines()
    assert len(lines) == asked
    for number in range(asked):
        assert sum(f'"GET /hello?{number}"' in line for line in lines) == 1


def _ask_every_worker(server: Daphne, log: Path, asked: int) -> int:
    """Ask each worker until it has written to `log`; return how many requests there were.

    The connections stay open meanwhile: of those that end at once one worker may take every one.
    """
    wanted = set(server.worker_pids())
    with ExitStack() as stack:
        for _ in range(100):
            if not wanted:
                return asked
            client = stack.enter_context(Client(server.port))
            pid = int(client.get(f"/hello?{asked}").text)
            if log.exists() and f"/hello?{asked}" in log.read_text():
                wanted.discard(pid)
            elif pid in wanted:  # it has not heard of the signal yet
                server.listen(0.1)
            asked += 1
    message = f"not seen in {log}: {wanted}"
    raise AssertionError(message)


def test_titles_say_what_each_process_is() -> None:
    """`ps` shows the master with its application, each worker with slot, generation and state."""
    name = f"{APPS}:hello"
    with Daphne(name, "--workers", "2") as server:
        for _ in range(2):
            server.replace_all()
        titles = {_title(worker) for worker in server.workers()}
        assert _title(psutil.Process(server.pid)) == f"daphne-supervisor: master [{name}]"
        assert len(titles) == 2
        for title in titles:
            slot = title.removeprefix("daphne-supervisor: worker ").partition(" ")[0]
            assert slot.isdigit()
            assert title == f"daphne-supervisor: worker {slot} gen 3 ready [{name}]"


def _title(process: psutil.Process) -> str:
    return " ".join(process.cmdline()).strip()


def test_a_draining_worker_says_so_in_its_title() -> None:
    """Who looks why an old process is still there finds the word."""
    with Daphne(f"{APPS}:probe", "--workers", "1") as server, Client(server.port) as client:
        client.ask("/halves?60")  # longer than any reload takes
        client.head()
        client.piece()
        (old,) = server.workers()
        server.reload()
        wanted = f"daphne-supervisor: worker 1 gen 1 draining [{APPS}:probe]"
        assert any(_title(old) == wanted for _ in iter(old.is_running, False))


def test_the_pid_file_holds_the_master_while_it_runs(tmp_path: Path) -> None:
    """It is there when the service is ready, and gone when the master is."""
    pid_file = tmp_path / "pid"
    with Daphne(f"{APPS}:hello", "--pid-file", str(pid_file)) as server:
        assert pid_file.read_text() == f"{server.pid}\n"
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        assert not pid_file.exists()


def test_the_signals_of_the_master_do_nothing_to_a_worker() -> None:
    """`pkill -HUP` and a terminal's Ctrl-C hit workers too: those are the master's to judge."""
    with Daphne(f"{APPS}:hello", "--workers", "1") as server, Client(server.port) as client:
        (worker,) = server.workers()
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
            worker.send_signal(number)
        assert client.get("/").text == str(worker.pid)
        assert server.workers() == [worker]
