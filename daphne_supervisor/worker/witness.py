"""A thread that says what the worker is busy with, when its event loop cannot.

Theory. A master that has not heard from a worker asks, before it kills, what hangs. The loop cannot
answer: it is what hangs. So a thread waits for SIGUSR2, with `sigwaitinfo`, which needs no handler
and so no turn of the main thread. It writes the exchanges in progress straight to the standard
error, since the loop may hang inside `logging`, and then aborts the process: at that `faulthandler`
writes the stacks of all threads. Code that never lets go of the interpreter's lock keeps the
witness silent too; then the master sends SIGABRT itself.

A signal that is waited for has to be blocked in every thread, and so it is before any is started.
Programs that the application starts inherit that, as they inherit the signals that workers ignore.

SIGUSR2 means "upgrade" to the master, and is easily sent to all processes of a service at once. So
it is an order only when it comes from the master, or from what the master runs under.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Collection

    from daphne_supervisor.worker.exchange import Exchange
    from daphne_supervisor.worker.service import Service

__all__ = ["call", "hold_back", "statement"]

#: Exchanges that are named, and characters of each: a log line is read by people.
_MOST, _LONGEST = 20, 200
_STANDARD_ERROR = 2


def hold_back() -> None:
    """Let SIGUSR2 wait until it is asked for; to be called before any thread is started."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})


def call(slot: int, service: Service) -> None:
    """Start the witness for the worker in `slot`, whose work is `service`."""
    threading.Thread(
        target=_wait, args=(slot, service), name="daphne-supervisor-witness", daemon=True
    ).start()


def _wait(slot: int, service: Service) -> None:
    while not _is_above(signal.sigwaitinfo({signal.SIGUSR2}).si_pid):
        pass
    exchanges = list(service.exchanges)  # one step of the interpreter: the loop cannot interfere
    line = statement(slot, exchanges, service.threads.busy, time.monotonic())
    os.write(_STANDARD_ERROR, line.encode())
    os.kill(os.getpid(), signal.SIGABRT)


def _is_above(pid: int) -> bool:
    """Say whether `pid` is the parent of this process, or one of its parents."""
    above = [os.getppid()]
    with contextlib.suppress(psutil.Error):  # one of them has ended at this moment
        above += [parent.pid for parent in psutil.Process().parents()]
    return pid in above


def statement(slot: int, exchanges: Collection[Exchange], threads: int, now: float) -> str:
    """Return the line that names the exchanges in progress, those that take longest first.

    `threads` are busy with synchronous code, and `now` is the monotonic time in seconds.
    """
    oldest = sorted(exchanges, key=lambda exchange: exchange.begun)
    named = [f"{_cut(one.describe())} {now - one.begun:.1f} s" for one in oldest[:_MOST]]
    if len(oldest) > _MOST:
        named.append(f"and {len(oldest) - _MOST} more")
    return (
        f"worker {slot}: busy with: {', '.join(named) or 'no request and no WebSocket'};"
        f" threads in synchronous code: {threads}\n"
    )


def _cut(text: str) -> str:
    """Return `text` on one line, and not the whole of a long one."""
    plain = text.encode("unicode_escape").decode("ascii")
    return plain if len(plain) <= _LONGEST else plain[:_LONGEST] + "..."
