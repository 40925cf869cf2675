"""Other people's programs, run by a test: started, listened to, ended."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Program", "reserved_port"]

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0
"""Seconds that a program gets to say something, or to end. Far more than any of them needs."""


@contextmanager
def reserved_port() -> Iterator[int]:
    """Yield a TCP port of 127.0.0.1 that stays free for whoever is told to listen there.

    For programs that cannot take port 0. The port is bound here but not listened on: so nobody who
    asks for any port is given it, and a listener that names it, with SO_REUSEADDR as all servers
    do, gets it.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


class Program:
    """A running program whose output, both streams in one, is read line by line.

    Leaving the `with` block sends it `stop` and waits for its end; a program that does not end is
    killed with all its children, and the test fails.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        stop: signal.Signals = signal.SIGTERM,
    ) -> None:
        """Remember what to run; `environment` is added to the present one."""
        self._command = command
        self._environment = {**os.environ, **(environment or {})}
        self._pass_fds = pass_fds
        self._stop = stop
        self._output = b""
        self._read = 0

    def __enter__(self) -> Self:
        """Start the program."""
        self._process = subprocess.Popen(  # the tests' own commands
            self._command,
            cwd=ROOT,
            env=self._environment,
            pass_fds=self._pass_fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the program and wait for it."""
        if self._process.poll() is None:
            self._process.send_signal(self._stop)
        try:
            rest = self._process.communicate(timeout=PATIENCE)[0]
            self._output += rest
        except subprocess.TimeoutExpired:
            self._kill()
            raise

    @property
    def pid(self) -> int:
        """The process id of the program."""
        return self._process.pid

    def log(self) -> str:
        """Return what the program has said as far as it was read; all of it after the end."""
        return self._output.decode(errors="replace")

    def line(self, text: str) -> str:
        """Wait for the next line that contains `text`, and return it.

        Raises `AssertionError` with all output so far when the program ends or says nothing.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            line = self._next_line(deadline)
            if text in line:
                return line

    def _next_line(self, deadline: float) -> str:
        pipe = self._process.stdout
        assert pipe is not None
        while (end := self._output.find(b"\n", self._read)) < 0:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(pipe.fileno(), 65536) if ready else b""
            assert data, f"{self._command[0]} said only:\n{self.log()}"
            self._output += data
        line = self._output[self._read : end]
        self._read = end + 1
        return line.decode(errors="replace")

    def _kill(self) -> None:
        for child in psutil.Process(self.pid).children(recursive=True):
            child.kill()
        self._process.kill()
        self._process.communicate()
