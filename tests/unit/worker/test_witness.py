"""What a worker is busy with: the line itself, and that it is written whatever the loop does."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from daphne_supervisor.worker.witness import statement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daphne_supervisor.worker.exchange import Exchange

PATIENCE = 20.0


@dataclass
class Begun:
    """An exchange in progress."""

    name: str
    begun: float = 0.0

    def describe(self) -> str:
        """Return what it is called."""
        return self.name


def told(exchanges: Sequence[Begun], threads: int = 0) -> str:
    """Return the statement about `exchanges` at the time 100."""
    ones: Sequence[Exchange] = exchanges  # type: ignore[assignment]
    return statement(3, ones, threads, 100.0)


def test_the_longest_come_first() -> None:
    """Each with the seconds since its beginning."""
    line = told([Begun("GET /b", 99.25), Begun("WebSocket /ws", 10.0), Begun("GET /a", 87.66)], 2)
    assert line == (
        "worker 3: busy with: WebSocket /ws 90.0 s, GET /a 12.3 s, GET /b 0.8 s;"
        " threads in synchronous code: 2\n"
    )


def test_there_may_be_nothing_to_name() -> None:
    """What blocks is then nobody's request."""
    assert told([]) == (
        "worker 3: busy with: no request and no WebSocket; threads in synchronous code: 0\n"
    )


def test_a_line_stays_one_that_people_can_read() -> None:
    """Twenty exchanges, a long path in part, and nothing that ends the line."""
    line = told([Begun("GET /x\ny" + "z" * 1000), *[Begun(f"GET /{n}", 50.0) for n in range(30)]])
    assert "GET /x\\nyzzz" in line
    assert "zzz... 100.0 s" in line
    assert "GET /18 50.0 s, and 11 more;" in line
    assert "GET /19" not in line
    assert (line.count("\n"), line[-1]) == (1, "\n")
    assert len(line) < 1000


_WORKER = """
import faulthandler, os, subprocess, sys, threading, time
from types import SimpleNamespace
from daphne_supervisor.worker import witness

witness.hold_back()
faulthandler.enable(all_threads=True)
exchange = SimpleNamespace(begun=time.monotonic() - 5, describe=lambda: "GET /hangs")
service = SimpleNamespace(exchanges=[exchange], threads=SimpleNamespace(busy=1))
threading.Thread(target=threading.Event().wait, daemon=True).start()
witness.call(7, service)
if sys.argv[2]:
    subprocess.run(["kill", "-USR2", str(os.getpid())], check=True)
def hang():
    print("hangs", flush=True)
    exec(sys.argv[1])
hang()
"""


@pytest.mark.parametrize(
    "hang",
    [
        "time.sleep(60)",
        "while True: pass",
        "lock = threading.Lock(); lock.acquire(); lock.acquire()",
        "os.read(os.pipe()[0], 1)",
    ],
    ids=["sleep", "python", "lock", "system call"],
)
def test_it_speaks_whatever_hangs(hang: str) -> None:
    """SIGUSR2 from the parent: one line on the standard error, then every thread's stack."""
    said, code = _hang(hang)
    line, _, stacks = said.partition("\n")
    assert line.startswith("worker 7: busy with: GET /hangs 5.")
    assert line.endswith("; threads in synchronous code: 1")
    assert "in hang" in stacks
    assert "in wait" in stacks
    assert code == -signal.SIGABRT


def test_a_stranger_is_not_answered() -> None:
    """SIGUSR2 means something else to the master, and is easily sent to everybody."""
    said, code = _hang("time.sleep(60)", stranger="yes", number=signal.SIGKILL)
    assert (said, code) == ("", -signal.SIGKILL)


def _hang(
    code: str, *, stranger: str = "", number: signal.Signals = signal.SIGUSR2
) -> tuple[str, int]:
    """Let a process hang in `code`, send it `number`; return what it has said, and its end."""
    with subprocess.Popen(
        [sys.executable, "-c", _WORKER, code, stranger],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "hangs\n"
            process.send_signal(number)
            _, said = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    return said, process.returncode
