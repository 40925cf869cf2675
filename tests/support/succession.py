"""An upgrade, as a test drives it: the harness knows the old master, a pid file the new one."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

import psutil

from tests.support.daphne import PATIENCE, survivors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.daphne import Daphne

__all__ = ["upgraded"]


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
