"""A server under abuse: what a neighbour notices, what it costs, and what is left of it.

The neighbour is compared with itself a moment before, on the same server without the abuse. That is
a measurement on a machine that may be busy with something else, so the best of several attempts
counts: a server that lets itself be kept from its work is so in each of them. All else has to hold
in every attempt.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

from tests.support.client import PATIENCE, Client
from tests.support.daphne import APPS, Daphne
from tests.support.neighbour import Neighbour, Visit
from tests.support.peak import Peak
from tests.support.swarm import Ending, Manner, Swarm

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["MEBIBYTE", "Siege"]

MEBIBYTE = 1024 * 1024

_SLICE = 0.8
"""Seconds of quiet, and of abuse."""
_LEAD = 0.5
"""Seconds from the first of those who always come back to the neighbour's visit."""
_ATTEMPTS = 6
_FACTOR = 3.0
"""How much longer than in quiet 99 of 100 requests may take."""
_FLOOR = 0.025
"""Seconds that they may take in any case: those who flood have a turn each before a neighbour has
one. What it must not be is the time for all that they have sent: hundreds of milliseconds."""

_STEP = 0.05
"""Seconds between two looks at what is left of a swarm."""
_UNFINISHED = {psutil.CONN_FIN_WAIT1, psutil.CONN_LAST_ACK, psutil.CONN_CLOSING}


class Siege:
    """One worker, its neighbour and whoever is let loose on it, as a context manager."""

    def __init__(self, *arguments: str, application: str = f"{APPS}:probe") -> None:
        """Serve `application` with further `arguments`."""
        self.server = Daphne(application, "-w", "1", "--access-log", os.devnull, *arguments)
        self.most = 0
        """How many connections of the last swarm the worker has had when the visit began."""

    def __enter__(self) -> Self:
        """Start, with room for thousands of connections here and there."""
        with contextlib.ExitStack() as stack:
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
            stack.enter_context(self.server)
            (self._worker,) = self.server.workers()
            self._neighbour = stack.enter_context(Neighbour(self.server.port, self._worker.pid))
            self._client = stack.enter_context(Client(self.server.port))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        frames: TracebackType | None,
    ) -> None:
        """See that the worker has come through without an error of its own; then stop."""
        with self._stack:
            if error is None:
                assert self.server.workers() == [self._worker]
                log = self.server.log()
                assert "Traceback" not in log, log[-4000:]
                assert "internal error" not in log, log[-4000:]

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        return self.server.log()

    def bear(
        self, count: int, manner: Manner, *, memory: int, thrown_out: bool = False
    ) -> list[Ending]:
        """Let `count` clients of that `manner` loose; return how the server has ended them.

        The neighbour has to be served meanwhile, as fast as in quiet, the worker may not grow by
        more than `memory` bytes, and has to forget them all. Those who are `thrown_out` have to be
        so without leaving themselves.
        """
        told = []
        for _ in range(_ATTEMPTS):
            quiet = self._neighbour.visit(_SLICE)
            held = self._held()
            peak = Peak(self._worker.pid)
            with Swarm(self.server.port, count, manner) as swarm:
                abused = self._visit_beside(swarm, held)
                if thrown_out:
                    self._wait_until_forgotten(held, swarm)
                    assert self._orphans() == 0, "closed, but their unsent bytes are kept"
            grown = peak.growth
            told.append(f"quiet: {quiet}\nabuse: {abused}, grown by {grown // 1024} KiB")
            assert quiet.failures + abused.failures == [], told
            assert grown <= memory, told
            self._wait_until_forgotten(held)
            if abused.p99 <= max(_FACTOR * quiet.p99, _FLOOR):
                return swarm.endings
        raise AssertionError("a neighbour is kept waiting\n" + "\n".join(told))

    def _visit_beside(self, swarm: Swarm, held: int) -> Visit:
        """Let the neighbour visit while the swarm presses, once all of it is there."""
        deadline = time.monotonic() + (_LEAD if swarm.returns else PATIENCE)
        self.most = 0
        while time.monotonic() < deadline and self.most < swarm.present:
            swarm.press()
            self.most = max(self.most, self._worker.num_fds() - held)
        self._neighbour.begin(_SLICE)
        while not self._neighbour.done:
            swarm.press()
        return self._neighbour.account()

    def _wait_until_forgotten(self, held: int, swarm: Swarm | None = None) -> None:
        """Wait until the worker has no more descriptors than it `held`, whatever `swarm` does.

        What the swarm has sent may still be read first. Time in which the worker was ready to do so
        and had no processor is not counted.
        """
        deadline = time.monotonic() + PATIENCE
        delayed = self._delayed()
        while (left := self._held() - held) > 0:
            late = time.monotonic() - (self._delayed() - delayed) - deadline
            assert late < 0, f"{left} connections are not forgotten"
            if swarm is not None:
                swarm.press_on(_STEP)
        if swarm is not None:
            swarm.press_on(_STEP)  # they hear of it now

    def _delayed(self) -> float:
        """Return the seconds in which the worker was ready to run and did not, until now."""
        return int(Path(f"/proc/{self._worker.pid}/schedstat").read_text().split()[1]) / 1e9

    def _held(self) -> int:
        """Return the worker's open descriptors, when it has seen to whoever has left until now."""
        for _ in range(2):
            assert self._client.get("/").status == 200
        return self._worker.num_fds()

    def _orphans(self) -> int:
        """Return how many connections the system holds for us that the worker has closed.

        They have unsent bytes, megabytes each, and nobody who takes them: memory all the same.
        """
        port = self.server.port
        unfinished = [
            one.laddr
            for one in psutil.net_connections("tcp4")
            if one.pid is None and one.status in _UNFINISHED
        ]
        return sum(address[1:] == (port,) for address in unfinished)
