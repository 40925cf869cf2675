"""kill -9 of a worker: its clients lose what it had, nobody else loses anything, and it is back."""

from __future__ import annotations

import signal
import time
from collections import Counter

import psutil

from tests.support.client import Client, get
from tests.support.daphne import APPS, Daphne
from tests.support.load import Load


def _kill(server: Daphne, pid: int) -> float:
    """Kill the worker `pid`, wait until another one is ready in its place; return the seconds."""
    killed_at = time.monotonic()
    psutil.Process(pid).kill()
    server.wait_status("1/2 workers ready")
    server.wait_status("2/2 workers ready")
    return time.monotonic() - killed_at


def _start_second(server: Daphne) -> float:
    """Ask for a second worker while the first is under load; return the seconds it takes."""
    with Load(server.port, target="/slow?0.05"):
        asked_at = time.monotonic()
        server.signal(signal.SIGTTIN)
        server.wait_status("2/2 workers ready")
        return time.monotonic() - asked_at


def test_a_killed_worker_is_back_within_a_second_and_the_other_loses_nothing() -> None:
    """Only requests in the dead worker's hands are lost, one a connection at the most.

    The first crash of each slot is replaced at once, so that all it takes is a worker's start; on
    a machine so busy that this alone takes most of a second, twice that is allowed. The better of
    two times is looked at, since the clients share the processors with the new worker. Each
    request takes 50 ms, so that there are some on the way at any time.
    """
    with Daphne(f"{APPS}:probe", "--workers", "1", "--access-log", "/dev/null") as server:
        start = _start_second(server)
        waits, at_risk = [], Counter[str]()
        with Load(server.port, target="/slow?0.05") as load:
            for pid in server.worker_pids():
                at_risk[str(pid)] = load.latest[str(pid)]
                waits.append(_kill(server, pid))
                load.turn()
                assert Counter(loss.server for loss in load.losses) <= at_risk
        assert 0 < at_risk.total() < 64, "both had connections"
        assert load.sent - load.answered == len(load.losses)
        assert min(waits) < max(1, 2 * start), (waits, start)


def test_a_connection_to_the_other_worker_lives_on() -> None:
    """The same connection that was open before the crash is answered by the same worker after."""
    with Daphne(f"{APPS}:hello", "--workers", "2") as server, Client(server.port) as client:
        survivor = int(client.get("/").text)
        (victim,) = set(server.worker_pids()) - {survivor}
        _kill(server, victim)
        assert int(client.get("/").text) == survivor


def test_the_log_says_how_a_worker_died() -> None:
    """A crash is an error in the log, with the signal in it; the service never stops answering."""
    with Daphne(f"{APPS}:hello", "--workers", "2") as server:
        pid = server.worker_pids()[0]
        _kill(server, pid)
        assert f"pid {pid}: gone, signal SIGKILL after" in server.log()
        assert int(get(server.port, "/").text) in server.worker_pids()
