"""The memory of a server: of an idle WebSocket, of the worker, of everything it runs."""

from __future__ import annotations

import contextlib
import resource
import tempfile
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks.checks import WrongAnswer, hello
from benchmarks.client import open_websocket
from benchmarks.loads import H2load, LoadError, Target, perform
from benchmarks.processes import reserved_port, running
from benchmarks.results import Memory
from benchmarks.servers import Mode, make_certificate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.processes import Cores, Running
    from benchmarks.servers import Server

__all__ = ["IDLE_REACH", "SOCKETS", "allow_descriptors", "weigh"]

SOCKETS = 3000
"""Idle WebSockets that are opened to find what one takes."""
IDLE_REACH = 12.0
"""KiB that one of them may take."""
_BEFORE = 50
"""Opened first, so that what is imported or allocated once is not counted."""
_REQUESTS = 5000
_PATIENCE = 60.0
_SPARE = 100


def allow_descriptors(sockets: int) -> None:
    """Let this process, and the servers it starts, open `sockets` and some more.

    Raises `ValueError` when the hard limit is lower.
    """
    wanted = sockets + _BEFORE + _SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def weigh(name: str, server: Server, cores: Cores, sockets: int = SOCKETS) -> Memory:
    """Return what `server` takes, with `sockets` idle WebSockets and after some requests.

    It is started anew for each: what one leaves free in the heap would hide what the other takes.
    """
    try:
        with _alone(name, server, cores) as target:
            websocket = _idle(*target, sockets)
        with _alone(name, server, cores) as target:
            worker, total = _after_requests(*target, cores.load)
    except (LoadError, WrongAnswer, RuntimeError, OSError, HTTPException) as reason:
        return Memory(failure=f"{type(reason).__name__}: {reason}")
    return Memory(websocket / 1024, worker / 1e6, total / 1e6)


@contextlib.contextmanager
def _alone(name: str, server: Server, cores: Cores) -> Iterator[tuple[Running, Target]]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        port = stack.enter_context(reserved_port())
        command = server.command(Mode.PLAIN, port, folder / "access", make_certificate(folder))
        one = stack.enter_context(
            running(
                name,
                command,
                port=port,
                core=cores.server,
                folder=folder,
                environment=server.environment(),
            )
        )
        one.await_listening()
        hello(port)
        yield one, Target(port, folder)


def _idle(one: Running, target: Target, sockets: int) -> float:
    """Return the bytes that an idle WebSocket takes."""
    with contextlib.ExitStack() as held:
        for _ in range(_BEFORE):
            held.enter_context(open_websocket(target.port))
        before = _own(one)
        for _ in range(sockets):
            held.enter_context(open_websocket(target.port))
        return (_own(one) - before) / sockets


def _after_requests(one: Running, target: Target, core: int) -> tuple[int, int]:
    """Return the bytes of the worker that are its own, and those of all processes."""
    perform(H2load(), target, _REQUESTS, core=core, patience=_PATIENCE)
    one.settled_cpu()
    everybody = [psutil.Process(pid).memory_full_info().pss for pid in one.pids()]
    return psutil.Process(one.busiest()).memory_full_info().uss, sum(everybody)


def _own(one: Running) -> int:
    """Return the bytes that are the processes' own (USS), when they have nothing left to do."""
    one.settled_cpu()
    return sum(psutil.Process(pid).memory_full_info().uss for pid in one.pids())
