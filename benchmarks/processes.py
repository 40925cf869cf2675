"""Server processes: started on a core of their own, ended for certain, and their CPU time read.

The CPU time is that of the whole tree: user and system time of every process in the session that
the server was started in, and of the children they have waited for (utime, stime, cutime, cstime of
/proc/PID/stat, proc(5)). The kernel tells it in ticks of 10 ms, so a round must spend many of them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Cores", "Running", "choose_cores", "reserved_port", "running"]

PATIENCE = 60.0
"""Seconds that a server gets to answer for the first time, with its peers starting beside it."""
FAREWELL = 10.0
"""Seconds that a server gets to leave after SIGTERM."""
_TICK = 1 / os.sysconf("SC_CLK_TCK")
_QUIET = 0.05
"""Seconds in which a server that has nothing left to do spends no tick."""
_LONGEST_SETTLING = 1.0


class Cores(NamedTuple):
    """Where the server's processes run, and where the load comes from."""

    server: int
    load: int


def choose_cores() -> Cores:
    """Return the first and the last core that we may use; they are one where there is but one."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(allowed[0], allowed[-1])


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """Yield a port that nobody else is given: bound here, but not listened on."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


class Running:
    """A server that was started, as the leader of a session of its own."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        """`process` leads the session, listens on `port` and prints into `log`."""
        self.name = name
        self.port = port
        self._process = process
        self.log = log

    def pids(self) -> list[int]:
        """Return the processes of the server that live now."""
        return [pid for pid, _ in self._members()]

    def cpu(self) -> float:
        """Return the seconds of CPU that the server has spent since it was started."""
        return sum(spent for _, spent in self._members())

    def busiest(self) -> int:
        """Return the process that has spent most: the worker, once there has been some load."""
        return max(self._members(), key=lambda one: one[1])[0]

    def settled_cpu(self) -> float:
        """Return `cpu()` when it no longer grows: what the load has left to do is done."""
        deadline = time.monotonic() + _LONGEST_SETTLING
        before = self.cpu()
        while time.monotonic() < deadline:
            time.sleep(_QUIET)
            after = self.cpu()
            if after == before:
                break
            before = after
        return before

    def await_listening(self) -> None:
        """Return when the server accepts connections. Raises `RuntimeError` if it never does."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            time.sleep(0.05)
        message = f"{self.name} does not listen:\n{self.last_words()}"
        raise RuntimeError(message)

    def last_words(self) -> str:
        """Return the end of what the server has printed."""
        return self.log.read_text(errors="replace")[-2000:]

    def end(self) -> None:
        """Stop the server, and kill what is left of it after `FAREWELL` seconds."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(FAREWELL)
        for pid in self.pids():  # pidfds would be exact, but nobody reuses a pid this fast
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(FAREWELL)
        deadline = time.monotonic() + FAREWELL
        while self.pids() and time.monotonic() < deadline:  # a signal takes a moment to arrive
            time.sleep(0.01)

    def _members(self) -> Iterator[tuple[int, float]]:
        for entry in os.scandir("/proc"):
            if not entry.name.isdecimal():
                continue
            try:
                text = Path(entry.path, "stat").read_text()
            except OSError:  # it has just left
                continue
            # The name, field 2, may hold anything, so fields are counted from behind it.
            fields = text.rpartition(")")[2].split()
            state, session = fields[0], int(fields[3])
            if session == self._process.pid and state != "Z":
                yield int(entry.name), sum(map(int, fields[11:15])) * _TICK


@contextlib.contextmanager
def running(
    name: str,
    command: Sequence[str],
    *,
    port: int,
    core: int,
    folder: Path,
    environment: dict[str, str],
) -> Iterator[Running]:
    """Run `command` on `core` with its output in a file of `folder`, and end it afterwards."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", str(core), *command],
            cwd=folder,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Running(name, process, port, log)
    try:
        yield server
    finally:
        server.end()
