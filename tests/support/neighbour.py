"""A well-behaved client in a process of its own, so that only the server can keep it waiting.

In the process of a test that floods the server it would wait for the interpreter's lock, and that
would be measured. It asks on a connection that is kept, and now and then on a new one, since a
server that serves whom it knows and accepts nobody has failed as well.

Time in which the worker or the neighbour was ready to run and had no processor is not counted: what
else the machine is busy with, the swarm itself among it, is not the server's doing. If both waited
at once, as on a busy machine, it is taken off twice: in doubt for the server.

Run as a program it takes, one a line, for how many seconds to ask, and answers each line with one
of JSON.
"""

from __future__ import annotations

import json
import math
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self

from tests.support.client import PATIENCE, Client, Response, get
from tests.support.daphne import ROOT, environment

__all__ = ["Neighbour", "Visit"]

_GAP = 0.001
"""Seconds between an answer and the next request: a visitor, not another flood."""
_NEW = 25
"""Every so many requests one has a connection of its own."""


@dataclass(frozen=True)
class Visit:
    """What a neighbour has met with."""

    times: list[float]
    """Seconds that each request took that was answered 200, the shortest first."""
    failures: list[str]
    """What became of the others."""

    @property
    def p99(self) -> float:
        """The time in seconds that 99 of 100 requests did not exceed; endless if there is none."""
        return math.inf if not self.times else self.times[math.ceil(len(self.times) * 0.99) - 1]

    def __str__(self) -> str:
        """Tell it in milliseconds."""
        longest = self.times[-1] if self.times else math.inf
        return (
            f"{len(self.times)} answered, p99 {1000 * self.p99:.2f} ms,"
            f" longest {1000 * longest:.2f} ms, failures: {self.failures}"
        )


class Neighbour:
    """A process that visits the server when it is told to, as a context manager."""

    def __init__(self, port: int, worker: int) -> None:
        """Be a client of `port`, where the process `worker` answers."""
        self._command = [sys.executable, "-m", __name__, str(port), str(worker)]

    def __enter__(self) -> Self:
        """Start, and pay the first visit: what is slow once is not measured."""
        self._process = subprocess.Popen(
            self._command,
            env=environment(),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.visit(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        """Send it home."""
        try:
            self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def begin(self, seconds: float) -> None:
        """Let it ask for so many seconds; `done` says when it has an account of them."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()

    @property
    def done(self) -> bool:
        """Whether the visit is over."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def account(self) -> Visit:
        """Return what has come of the visit, when it is over."""
        assert self._process.stdout is not None
        return Visit(**json.loads(self._process.stdout.readline()))

    def visit(self, seconds: float) -> Visit:
        """Let it ask for so many seconds, and wait for its account."""
        self.begin(seconds)
        return self.account()


# -- the program --


class _Delays:
    """How long processes were ready to run and did not, by the kernel's account."""

    def __init__(self, *pids: int | str) -> None:
        self._files = [os.open(f"/proc/{pid}/schedstat", os.O_RDONLY) for pid in pids]

    def total(self) -> float:
        """Return the seconds until now of all of them."""
        return sum(int(os.pread(file, 100, 0).split()[1]) for file in self._files) / 1e9


class _Visitor:
    """Who asks."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._kept: Client | None = None

    def ask(self, number: int) -> Response:
        """Send request `number` and return the answer; the connection is kept if it can be."""
        if number % _NEW == _NEW - 1:
            return get(self._port, "/", "Connection: close")
        if self._kept is None:
            self._kept = Client(self._port)
        return self._kept.get("/")

    def leave(self) -> None:
        """Close the connection that was kept."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None


def _visit(port: int, delays: _Delays, seconds: float) -> Visit:
    times: list[float] = []
    failures: list[str] = []
    visitor = _Visitor(port)
    deadline = time.monotonic() + seconds
    while (begun := time.monotonic()) < deadline:
        delayed = delays.total()
        try:
            response = visitor.ask(len(times) + len(failures))
        except OSError as error:
            failures.append(repr(error))
            visitor.leave()
        else:
            if response.status == HTTPStatus.OK:
                passed = time.monotonic() - begun
                times.append(max(passed - (delays.total() - delayed), 0.0))
            else:
                failures.append(f"status {response.status}")
        select.select([], [], [], _GAP)
    visitor.leave()
    return Visit(sorted(times), failures)


def _main() -> None:
    delays = _Delays("self", int(sys.argv[2]))
    for line in sys.stdin:
        visit = _visit(int(sys.argv[1]), delays, float(line))
        sys.stdout.write(json.dumps({"times": visit.times, "failures": visit.failures}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
