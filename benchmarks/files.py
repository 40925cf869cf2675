"""What it costs to send a large file, by the ways that an application has.

Run `python -m benchmarks.files`. One worker sends a sparse file of 1 GiB over plain HTTP/1.1; what
is printed is the worker's seconds of CPU for it, the median of some rounds, and how that compares
with the file being read off the event loop and sent piece by piece, as frameworks do.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.processes import choose_cores, reserved_port, running

GIBIBYTE = 1024**3
ROUNDS = 7
WAYS = {
    "pathsend": "http.response.pathsend",
    "zerocopysend": "http.response.zerocopysend",
    "stream-blocking": "read in the event loop, 64 KiB at a time",
    "stream": "read off the event loop, 64 KiB at a time",
}
_PIECE = 65_536


async def application(scope: dict[str, Any], _: Any, send: Any) -> None:
    """Send the file that $BENCHMARK_FILE names in the way that the path names."""
    way, path = scope["path"].strip("/"), os.environ["BENCHMARK_FILE"]
    if way not in WAYS:
        body = json.dumps(time.process_time()).encode()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body})
        return
    headers = [(b"content-length", b"%d" % GIBIBYTE)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if way == "pathsend":
        await send({"type": "http.response.pathsend", "path": path})
        return
    loop = asyncio.get_running_loop()
    with open(path, "rb", buffering=0) as file:  # noqa: ASYNC230 - it is not the point
        if way == "zerocopysend":
            await send({"type": "http.response.zerocopysend", "file": file})
            return
        threaded = way == "stream"
        while data := (
            await loop.run_in_executor(None, file.read, _PIECE) if threaded else file.read(_PIECE)
        ):
            await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body"})


def _ask(port: int, path: str) -> bytes:
    """Return the first bytes of the answer, and throw the rest away."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(f"GET /{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        first, buffer = client.recv(_PIECE), bytearray(1024 * 1024)
        while client.recv_into(buffer):
            pass
    return first


def _spent(port: int) -> float:
    return float(_ask(port, "time").rpartition(b"\r\n")[2])


def _cost(port: int, way: str) -> float:
    before = _spent(port)
    _ask(port, way)
    return _spent(port) - before


def main() -> None:
    """Measure, and print."""
    cores = choose_cores()
    with tempfile.TemporaryDirectory() as folder, reserved_port() as port:
        path = Path(folder, "file")
        path.touch()
        os.truncate(path, GIBIBYTE)
        environment = {"BENCHMARK_FILE": str(path), "PYTHONPATH": str(Path(__file__).parents[1])}
        quiet = ["--access-log", "/dev/null", "-v", "0", "--port", str(port), "--workers", "1"]
        command = [sys.executable, "-m", "daphne_supervisor", *quiet]
        with running(
            "daphne-supervisor",
            [*command, "benchmarks.files:application"],
            port=port,
            core=cores.server,
            folder=Path(folder),
            environment=environment,
        ) as server:
            server.await_listening()
            os.sched_setaffinity(0, {cores.load})
            _ask(port, "pathsend")  # which brings the file into memory
            costs = {way: [_cost(port, way) for _ in range(ROUNDS)] for way in WAYS}
    usual = statistics.median(costs["stream"])
    for way, what in WAYS.items():
        spent = statistics.median(costs[way])
        print(f"{spent:6.3f} s/GiB  {spent / usual:4.2f}  {what}")


if __name__ == "__main__":
    main()
