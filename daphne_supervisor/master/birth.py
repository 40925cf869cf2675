"""Forking: what every child of ours does first, and last.

Theory. From fork until it has handlers of its own, a child runs with its parent's: it even shares
the wake-up socket, so that a SIGTERM meant for the child would land in the master's mailbox and
stop the whole service. Hence signals are blocked across the fork, and a child unblocks them only
when it has given the handlers back.

A child never returns into its parent's stack. It leaves through `os._exit`, so that none of the
master's cleaning up (the pid file, unix sockets) runs twice.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING

from daphne_supervisor.errors import ExitCode
from daphne_supervisor.master.signals import HANDLED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

__all__ = ["fork"]

_FOR_THE_MASTER = (
    signal.SIGINT,  # a terminal sends it to the whole group: Ctrl-C is the master's to judge
    signal.SIGHUP,  # as SIGINT, when the terminal goes away; and `pkill -HUP` hits everybody
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,  # may arrive before the child can reopen anything; by default it would kill
    signal.SIGUSR2,
)


def fork(child: Callable[[], int], *, abandon: Callable[[], None] | None = None) -> int:
    """Run `child` in a new process, which leaves with what it returns; return the process id.

    `abandon` closes, in the new process, what belongs to the parent alone. Raises `OSError` when
    the system has no room for a process.
    """
    _flush()  # what is buffered now would otherwise be written by both
    with _signals_blocked():
        pid = os.fork()
        if pid == 0:
            _live(child, abandon)
    return pid


def _live(child: Callable[[], int], abandon: Callable[[], None] | None) -> NoReturn:
    code = int(ExitCode.CRASHED)
    try:
        _give_back()
        if abandon is not None:
            abandon()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        code = child()
    except BaseException:  # noqa: BLE001 - nothing may climb into the parent's stack
        traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


def _give_back() -> None:
    signal.set_wakeup_fd(-1)
    for number in HANDLED:
        ignored = number in _FOR_THE_MASTER
        signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # It may be None or closed, and whoever reads a pipe may have gone.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
