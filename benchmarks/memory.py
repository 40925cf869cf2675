"""What a worker costs in memory, beside the workers of other servers: `make memory`.

Each server runs the same application with the same number of workers, answers some hundred
requests, and is measured: PSS, the proportional set size of smaps_rollup in proc(5), counts a page
that N processes share as an Nth of it for each. So the sum over all processes is what they take
from the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SERVERS", "Footprint", "Subject", "measure", "subjects"]

ROOT = Path(__file__).parents[1]
LIVE = ROOT / "examples" / "live"
PATIENCE = 60.0
"""Seconds that a server gets to answer for the first time."""
REQUESTS = 200

_MODULE = "{python} -m {module}"
_OURS = f"{_MODULE} -v 0 --workers {{workers}} --port {{port}}"
_UVICORN = f"{_MODULE} --workers {{workers}} --port {{port}} --log-level warning --no-access-log"
_GUNICORN = f"{_MODULE} --workers {{workers}} --bind 127.0.0.1:{{port}} --worker-class asgi"

SERVERS = {
    "daphne-supervisor": ("daphne_supervisor", _OURS),
    "daphne-supervisor --preload": ("daphne_supervisor", f"{_OURS} --preload"),
    "uvicorn": ("uvicorn", _UVICORN),
    "gunicorn": ("gunicorn", _GUNICORN),
}
"""By name: the module that runs it, and its command line."""

HELLO = """
async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    headers = [(b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})
"""


@dataclass(frozen=True)
class Footprint:
    """Memory of one server in bytes: the median PSS of its workers, and the sum over all."""

    worker: float
    total: float


@dataclass(frozen=True)
class Subject:
    """What is served: an application in a folder, with additions to the environment."""

    name: str
    application: str
    folder: Path
    environment: dict[str, str]


@contextlib.contextmanager
def subjects() -> Iterator[tuple[Subject, Subject]]:
    """Yield the smallest application, and the example project with a database of its own."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "hello.py").write_text(HELLO)
        database = {"LIVE_DATABASE": str(folder / "db.sqlite3")}
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "--verbosity", "0"],
            cwd=LIVE,
            env=os.environ | database,
            check=True,
        )
        yield (
            Subject("hello", "hello:application", folder, {}),
            Subject("examples/live", "live.asgi:application", LIVE, database),
        )


def measure(server: str, subject: Subject, workers: int = 4) -> Footprint:
    """Run a server, ask it for its first page, and return what it takes.

    Raises `RuntimeError` when it does not answer.
    """
    module, line = SERVERS[server]
    with _reserved_port() as port:
        command = line.format(python=sys.executable, module=module, workers=workers, port=port)
        process = subprocess.Popen(
            [*command.split(), subject.application],
            cwd=subject.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | subject.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            return _weigh(process, f"http://127.0.0.1:{port}/", workers)
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _weigh(process: subprocess.Popen[bytes], url: str, workers: int) -> Footprint:
    deadline = time.monotonic() + PATIENCE
    answered = 0
    # Until everybody is there, since the last worker may still be importing.
    while answered < REQUESTS or len(_workers(process.pid)) < workers:
        if time.monotonic() > deadline or process.poll() is not None:
            message = f"no answer: {process.args!r}"
            raise RuntimeError(message)
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            answer.read()
            answered += 1
    master = psutil.Process(process.pid)
    everybody = [master, *master.children(recursive=True)]
    total = sum(one.memory_full_info().pss for one in everybody)
    serving = [one.memory_full_info().pss for one in _workers(process.pid)]
    return Footprint(statistics.median(serving), total)


def _workers(pid: int) -> list[psutil.Process]:
    """Return the children that serve: neither our zygote nor the helper of multiprocessing."""
    children = psutil.Process(pid).children()
    strangers = ("zygote gen", "resource_tracker")
    lines = [(one, " ".join(one.cmdline())) for one in children]
    return [one for one, line in lines if not any(word in line for word in strangers)]


@contextlib.contextmanager
def _reserved_port() -> Iterator[int]:
    """Yield a port that nobody else is given: bound here, but not listened on."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def main() -> None:
    """Print a table for the smallest application and one for the example project."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=4)
    workers = parser.parse_args().workers
    with subjects() as found:
        for subject in found:
            print(f"| {subject.name}, {workers} workers | MB per worker | MB in all |")
            print("|---|---|---|")
            for server in SERVERS:
                taken = measure(server, subject, workers)
                figures = f"{taken.worker / 1e6:.1f} | {taken.total / 1e6:.1f}"
                print(f"| {server} | {figures} |", flush=True)
            print()


if __name__ == "__main__":
    main()
