"""How a scenario's load is made: by h2load, or by `benchmarks/client.py` where h2load cannot."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

__all__ = ["Client", "H2load", "Load", "LoadError", "Outcome", "Target", "perform"]

ROOT = Path(__file__).parents[1]


class LoadError(Exception):
    """A run of the load generator did not get the answers that it asked for."""


class Target(NamedTuple):
    """A server under load, and where files for the generator may be put."""

    port: int
    folder: Path


class Outcome(NamedTuple):
    """How many requests or messages were answered, and in how many seconds."""

    done: int
    seconds: float


class Load(Protocol):
    """One kind of load."""

    @property
    def connections(self) -> int:
        """How many are open at the same time."""
        ...

    def command(self, target: Target, count: int) -> list[str]:
        """Return the command line that asks for `count` answers."""
        ...

    def outcome(self, output: str) -> Outcome:
        """Return what the command's output says. Raises `LoadError` when answers are missing."""
        ...


def perform(load: Load, target: Target, count: int, *, core: int, patience: float) -> Outcome:
    """Ask for `count` answers from `core`. Raises `LoadError`, also after `patience` seconds."""
    command = ["taskset", "--cpu-list", str(core), *load.command(target, count)]
    try:
        run = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
            text=True,
            timeout=patience,
        )
    except subprocess.TimeoutExpired as reason:
        message = f"not done within {patience:g} s: {' '.join(command)}"
        raise LoadError(message) from reason
    except subprocess.CalledProcessError as reason:
        message = f"{' '.join(command)}: {reason.stderr[-1000:]}"
        raise LoadError(message) from reason
    outcome = load.outcome(run.stdout)
    if outcome.done != count:
        message = f"{outcome.done} of {count} answered: {' '.join(command)}\n{run.stdout[-1000:]}"
        raise LoadError(message)
    return outcome


@dataclass(frozen=True)
class H2load:
    """HTTP by h2load: one request at a time on each of `connections` kept alive, or more.

    With `streams` it is HTTP/2 over TLS, and so many requests at a time on each; else HTTP/1.1.
    """

    path: str = "/"
    connections: int = 64
    body: int = 0
    """Bytes of a request's body; with none the method is GET."""
    tls: bool = False
    targets: int = 1
    """How many targets a connection asks for in turn; they differ in the query."""
    streams: int = 0

    def command(self, target: Target, count: int) -> list[str]:
        """Return the command line that asks for `count` answers."""
        words = ["h2load", "--clients", str(self.connections), "--requests", str(count)]
        words += ["--max-concurrent-streams", str(self.streams)] if self.streams else ["--h1"]
        if self.body:
            file = target.folder / f"body-{self.body}"
            if not file.exists():
                file.write_bytes(b"b" * self.body)
            words += ["--data", str(file)]
        scheme = "https" if self.tls or self.streams else "http"
        url = f"{scheme}://127.0.0.1:{target.port}{self.path}"
        if self.targets == 1:
            return [*words, url]
        return words + [f"{url}?{number}" for number in range(self.targets)]

    def outcome(self, output: str) -> Outcome:
        """Return what h2load says. Raises `LoadError` for errors and for answers not of status 2xx.

        h2load 1.52 learns the status from the callback for the reason phrase, so answers without
        one, which RFC 9112 section 4 allows and hypercorn sends, count as failed of no status.
        """
        seconds = re.search(r"finished in ([\d.]+)(us|ms|s|m)\b", output)
        done = re.search(r"(\d+) done, .* 0 errored, 0 timeout", output)
        others = re.search(r"status codes: \d+ 2xx, 0 3xx, 0 4xx, 0 5xx", output)
        if seconds is None or done is None or others is None:
            message = f"h2load: {output[-1000:]}"
            raise LoadError(message)
        unit = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[seconds[2]]
        return Outcome(int(done[1]), float(seconds[1]) * unit)


@dataclass(frozen=True)
class Client:
    """A run of `benchmarks/client.py`: `reconnect`, or WebSocket messages as `text` or `binary`."""

    kind: str
    connections: int = 64
    size: int = 0
    """Bytes of a message."""

    def command(self, target: Target, count: int) -> list[str]:
        """Return the command line that asks for `count` answers."""
        words = ["--port", target.port, "--count", count, "--connections", self.connections]
        words += ["--size", self.size]
        return [sys.executable, "-m", "benchmarks.client", self.kind, *map(str, words)]

    def outcome(self, output: str) -> Outcome:
        """Return what the client says in its line of JSON."""
        said = json.loads(output)
        return Outcome(said["done"], said["seconds"])
