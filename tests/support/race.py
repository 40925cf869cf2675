"""Several masters that start at one moment and all want what only one can have."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, NamedTuple

from tests.support.daphne import ROOT, command, environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Outcome", "race"]

PATIENCE = 40.0
"""Seconds that a master gets to start, or to fail."""


class Outcome(NamedTuple):
    """What the losers have said, by exit code, and how the winner has ended."""

    losers: list[tuple[int, str]]
    winner: int


def race(
    count: int, *arguments: str, directory: Path, meanwhile: Callable[[int], object]
) -> Outcome:
    """Start `count` masters; call `meanwhile` with the pid of the one that is left, and stop it."""
    with contextlib.ExitStack() as stack:
        notify = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notify.bind(str(directory / "notify"))
        notify.settimeout(PATIENCE)
        env = environment({"NOTIFY_SOCKET": str(directory / "notify")})
        masters = [
            subprocess.Popen(
                command("-v", "0", *arguments),
                env=env,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        pool = stack.enter_context(ThreadPoolExecutor(count))
        ends = {pool.submit(master.communicate): master for master in masters}
        try:
            left = set(ends)
            while len(left) > 1:
                done, left = wait(left, PATIENCE, return_when=FIRST_COMPLETED)
                assert done, "more than one of them has won"
            assert left, "nobody has won"
            [winner] = left
            while "READY=1" not in notify.recv(65536).decode().splitlines():
                pass
            meanwhile(ends[winner].pid)
            ends[winner].send_signal(signal.SIGTERM)
            losers = [
                (master.wait(), end.result()[1]) for end, master in ends.items() if end != winner
            ]
            return Outcome(losers, ends[winner].wait(PATIENCE))
        finally:
            for master in masters:
                master.kill()
