"""Upgrades as tests drive them: of a real master, and of one to a few lines of Python."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import TYPE_CHECKING

import psutil

from daphne_supervisor.master.successor import VARIABLE
from tests.support.daphne import PATIENCE, survivors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.daphne import Daphne

__all__ = ["UNTIL_TOLD", "program", "upgraded"]

_NEW_MASTER = """
import json, os, signal, socket, sys
left = json.loads(os.environ.pop("{variable}"))
channel = socket.socket(fileno=left["channel"])
channel.settimeout({patience})
def leave(number, frame):
    channel.sendall(signal.Signals(number).name.encode() + b"\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
signal.signal(signal.SIGINT, leave)
def until_told(said):
    # They are waited for: a handler is not called when one comes just before a pause.
    told = {{signal.SIGTERM, signal.SIGINT}}
    signal.pthread_sigmask(signal.SIG_BLOCK, told)
    channel.sendall(said)
    leave(signal.sigwait(told), None)
{body}
"""


def program(body: str) -> tuple[str, ...]:
    """Return the command line of a new master that does what `body` says."""
    text = _NEW_MASTER.format(variable=VARIABLE, patience=PATIENCE, body=body)
    return sys.executable, "-c", text


UNTIL_TOLD = program('until_told(b"ready\\n")')
"""A new master that is ready, and says which signal makes it leave."""


@contextlib.contextmanager
def upgraded(server: Daphne, pid_file: Path) -> Iterator[psutil.Process]:
    """Upgrade `server` and wait for its end; yield the new master, and stop it."""
    server.signal(signal.SIGUSR2)
    said = server.wait(lambda said: "MAINPID=" in said)
    lines = dict(line.split("=", 1) for line in said.splitlines())
    new = psutil.Process(int(lines["MAINPID"]))
    left = [new]
    try:
        assert server.wait_exit() == 0
        assert pid_file.read_text() == f"{new.pid}\n"
        yield new
        left += new.children(recursive=True)
        new.terminate()
        assert survivors(left, PATIENCE) == []
    finally:
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
