"""Runs a scenario: all servers started, then measured in turn, round after round.

Interleaving is what makes a ratio hold where a figure does not: whatever else the machine does in a
minute, it does to all of them. The order turns by one place each round: nobody is always first.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.checks import WrongAnswer
from benchmarks.loads import LoadError, Target, perform
from benchmarks.processes import reserved_port, running
from benchmarks.results import Result, Round
from benchmarks.servers import Mode, make_certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.loads import Outcome
    from benchmarks.processes import Cores, Running
    from benchmarks.scenarios import Scenario
    from benchmarks.servers import Server

__all__ = ["Pace", "measure"]

_EACH = 20
"""Requests that a round makes at least over each connection, or opening them would be what counts.
The first warm-up makes as many, and gives the size of the second."""


@dataclass(frozen=True)
class Pace:
    """How often a server is measured, and for how long each time (seconds)."""

    rounds: int = 7
    seconds: float = 1.5

    @property
    def patience(self) -> float:
        """Seconds after which a single run has failed."""
        return 20 * self.seconds + 40


class _Contestant:
    """One server in one scenario."""

    def __init__(
        self, running: Running, scenario: Scenario, cores: Cores, pace: Pace, folder: Path
    ) -> None:
        self.running = running
        self.result = Result()
        self._scenario = scenario
        self._cores = cores
        self._pace = pace
        self._target = Target(running.port, folder)
        self._count = 0
        self._asked = 0

    def attempt(self, step: Callable[[], None]) -> None:
        """Take `step`; if it fails, the server is out and the result says why."""
        if self.result.failure:
            return
        try:
            step()
        except (LoadError, WrongAnswer, RuntimeError, OSError, HTTPException) as reason:
            self.result.failure = f"{type(reason).__name__}: {reason}\n{self.running.last_words()}"

    def prepare(self) -> None:
        """Wait for the server, check an answer, warm up, find how many requests fill a round."""
        self.running.await_listening()
        self.result.remarks += self._scenario.check(self.running.port)
        least = _EACH * self._scenario.load.connections
        first = self._load(least)
        warm = self._load(max(least, int(first.done / first.seconds * self._pace.seconds / 2)))
        self._count = max(least, int(warm.done / warm.seconds * self._pace.seconds))

    def round(self) -> None:
        """Measure once."""
        before = self.running.settled_cpu()
        outcome = self._load(self._count)
        spent = self.running.settled_cpu() - before
        rate = outcome.done / outcome.seconds
        self.result.rounds.append(Round(spent / outcome.done * 1e6, rate))

    def check_log(self, log: Path) -> None:
        """Raise `WrongAnswer` unless the access log has a line for each request that was made."""
        places = (log, self.running.log)
        lines = sum(file.read_bytes().count(b"\n") for file in places if file.exists())
        if lines < self._asked:
            message = f"the access log has {lines} lines for {self._asked} requests"
            raise WrongAnswer(message)

    def _load(self, count: int) -> Outcome:
        self._asked += count
        core, patience = self._cores.load, self._pace.patience
        return perform(self._scenario.load, self._target, count, core=core, patience=patience)


def measure(
    scenario: Scenario, servers: Mapping[str, Server], cores: Cores, pace: Pace
) -> dict[str, Result]:
    """Return what each of `servers` did in `scenario`, by name."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        contest = {
            name: _Contestant(one, scenario, cores, pace, folder)
            for name, one in _started(scenario, servers, cores.server, folder, stack).items()
        }
        for one in contest.values():
            one.attempt(one.prepare)
        order = list(contest.values())
        for number in range(pace.rounds):
            turn = number % max(1, len(order))
            for one in order[turn:] + order[:turn]:
                one.attempt(one.round)
        if scenario.mode is Mode.ACCESS_LOG:
            for name, one in contest.items():
                one.running.end()  # which writes what it still holds back
                one.attempt(partial(one.check_log, folder / f"{name}.access"))
        left_out = {name: Result(failure=reason) for name, reason in scenario.without.items()}
        return left_out | {name: one.result for name, one in contest.items()}


def _started(
    scenario: Scenario,
    servers: Mapping[str, Server],
    core: int,
    folder: Path,
    stack: contextlib.ExitStack,
) -> dict[str, Running]:
    certificate = make_certificate(folder)
    found = {}
    for name, server in servers.items():
        if name in scenario.without:
            continue
        port = stack.enter_context(reserved_port())
        log = folder / f"{name}.access"
        command = server.command(scenario.mode, port, log, certificate, scenario.application)
        found[name] = stack.enter_context(
            running(
                name,
                command,
                port=port,
                core=core,
                folder=folder,
                environment=server.environment(),
            )
        )
    return found
