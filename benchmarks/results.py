"""What a run has found, with all that is needed to judge it, and as the JSON that is kept."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import platform
import statistics
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.servers import Server

__all__ = ["Circumstances", "Memory", "Result", "Round", "Run", "circumstances"]


@dataclass(frozen=True)
class Round:
    """One measurement: CPU in microseconds for each request or message, and how many a second."""

    cpu: float
    rate: float


@dataclass
class Result:
    """What one server did in one scenario; `failure` says why there is nothing to compare."""

    rounds: list[Round] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    failure: str = ""

    @property
    def valid(self) -> bool:
        """Whether there are figures to compare."""
        return bool(self.rounds) and not self.failure

    @property
    def cpu(self) -> float:
        """The median CPU time of a request or message, in microseconds."""
        return statistics.median(one.cpu for one in self.rounds)

    @property
    def rate(self) -> float:
        """The median of requests or messages per second."""
        return statistics.median(one.rate for one in self.rounds)

    def ratio(self, peer: Result) -> float:
        """Return the median of this one's CPU time over `peer`'s, round by round.

        Of a pair of figures that are seconds apart, noise that lasts longer has touched both.
        """
        pairs = zip(self.rounds, peer.rounds, strict=True)
        return statistics.median(mine.cpu / theirs.cpu for mine, theirs in pairs)


@dataclass(frozen=True)
class Memory:
    """What a server takes; `failure` says why there are no figures.

    `websocket`: KiB of an idle WebSocket; `worker`: MB that are the worker's own (USS), after some
    requests; `total`: MB of all its processes together (PSS).
    """

    websocket: float = 0.0
    worker: float = 0.0
    total: float = 0.0
    failure: str = ""


@dataclass(frozen=True)
class Circumstances:
    """Where, when and with what a run was made."""

    date: str
    python: str
    cpu: str
    cores: int
    kernel: str
    h2load: str
    load: float
    """The load average of the minute before: near 0 on a machine that is fit to measure."""
    versions: dict[str, dict[str, str]]
    """By server: the releases of it and of what it is made of."""


@dataclass
class Run:
    """All figures of one run: by scenario and server, and the memory by server."""

    circumstances: Circumstances
    rounds: int
    seconds: float
    scenarios: dict[str, dict[str, Result]] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1, default=str) + "\n")

    @classmethod
    def read(cls, path: Path) -> Run:
        """Return what `write` has written. Raises `OSError`, and `TypeError` for other JSON."""
        found = json.loads(path.read_text())
        return cls(
            circumstances=Circumstances(**found["circumstances"]),
            rounds=found["rounds"],
            seconds=found["seconds"],
            scenarios={
                scenario: {name: _result(one) for name, one in results.items()}
                for scenario, results in found["scenarios"].items()
            },
            memory={name: Memory(**one) for name, one in found["memory"].items()},
        )


def _result(found: dict[str, Any]) -> Result:
    rounds = [Round(**one) for one in found["rounds"]]
    return Result(rounds, found["remarks"], found["failure"])


def circumstances(servers: Mapping[str, Server]) -> Circumstances:
    """Return those of now. Raises `OSError` when there is no h2load."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    h2load = subprocess.run(["h2load", "--version"], capture_output=True, text=True, check=True)
    return Circumstances(
        date=dt.datetime.now(dt.UTC).date().isoformat(),
        python=platform.python_version(),
        cpu=models[0] if models else platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        kernel=platform.release(),
        h2load=h2load.stdout.strip(),
        load=round(os.getloadavg()[0], 2),
        versions={name: server.versions() for name, server in servers.items()},
    )
