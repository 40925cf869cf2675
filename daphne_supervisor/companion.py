"""A server beside another program, which it does not outlive: in development and in tests.

The program holds one end of a pipe, the master the other. However the program ends, the kernel
closes its end, and the kernel tells the master, by a signal: no thread watches, nothing is polled,
and a program that is killed leaves no server behind (fcntl(2), F_SETSIG and O_ASYNC).

`python -m daphne_supervisor.companion DESCRIPTOR ARGUMENTS` is the ordinary command, with that end
of the pipe.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from daphne_supervisor import cli, command_line, cpus, sources
from daphne_supervisor.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from daphne_supervisor.config import Config

__all__ = ["BRIEF", "Companion", "configuration", "hush_drain", "leave_with", "main"]

BRIEF = (
    "--graceful-timeout=0.2",  # nobody waits for the end of a page that is being tried
    "--worker-timeout=86400",  # a breakpoint blocks the event loop for as long as it is looked at
    "--ready-timeout=86400",
)
"""What differs from production: the server ends quickly, and is never taken for one that hangs."""


def configuration(arguments: Sequence[str], environ: Mapping[str, str]) -> Config:
    """Return what the command `arguments` and variables ask for. Raises `UsageError`."""
    flags = command_line.parse(arguments).flags
    return sources.Recipe(flags, environ, lambda: cpus.count(cpus.affinity())).read()


def hush_drain() -> None:
    """In a worker: do not name those who are cut off at the end, which is meant to be quick."""
    logging.getLogger("daphne_supervisor.worker").addFilter(_is_not_of_drain)


def _is_not_of_drain(record: logging.LogRecord) -> bool:
    return record.module != "drain"


def leave_with(descriptor: int) -> bool:
    """Be sent SIGTERM when the far end of the pipe `descriptor` is closed.

    Return whether it is still open.
    """
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGTERM)
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return not poll.poll(0)


def main(arguments: Sequence[str]) -> int:
    """Be the server; the first of the `arguments` is the end of the pipe."""
    descriptor, *rest = arguments
    if not leave_with(int(descriptor)):
        return ExitCode.STOPPED
    return cli.main(rest)


class Companion:
    """The server, as the program beside it knows it."""

    def __init__(
        self, arguments: Iterable[str], environ: Mapping[str, str], descriptors: Iterable[int] = ()
    ) -> None:
        """Start the command with `arguments`; it inherits the `descriptors`."""
        near, self._line = os.pipe()
        command = [sys.executable, "-m", "daphne_supervisor.companion", str(near), *arguments]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - it is our own
                command, env=environ, pass_fds=(near, *descriptors)
            )
        finally:
            os.close(near)

    def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        code = self._process.wait()
        os.close(self._line)
        return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
