"""Orders to one worker: the step in its record and the action that tells it, always together.

Theory. A record that says DRAINING of a worker that was never told, or the reverse, is the kind of
mistake that no log shows. So nobody changes a record and emits the action separately; each
function here does the one and returns the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daphne_supervisor.master.model import (
    Abort,
    Cause,
    Drain,
    Dump,
    Fate,
    Kill,
    Linger,
    Order,
    Quit,
    Reopen,
    WorkerState,
)

if TYPE_CHECKING:
    from daphne_supervisor.master.model import Action, Worker

__all__ = ["abort", "addressed", "climb", "drain", "dump", "kill", "leave_now", "linger"]


def drain(worker: Worker, why: str, now: float) -> Drain:
    """Ask a booting or serving worker to leave, which makes its end a planned one."""
    worker.change(Cause.TOLD_TO_DRAIN, now)
    worker.fate, worker.why = Fate.PLANNED, why
    return Drain(worker.name, why)


def leave_now(worker: Worker, why: str, now: float) -> Quit | Kill | None:
    """Make a booting, serving or draining worker leave; None when it was told so before."""
    if worker.quit_at is not None:
        return None
    if worker.fate is None:
        worker.fate, worker.why = Fate.PLANNED, why
    if worker.ready_at is None:
        # It serves nobody, and may be too early in its life to understand SIGQUIT.
        return kill(worker, why, now)
    worker.change(Cause.TOLD_TO_QUIT, now)
    worker.quit_at = now
    return Quit(worker.name, why)


def linger(worker: Worker, why: str) -> Linger:
    """Tell a serving worker that the end is near; it goes on serving, so its state is the same."""
    worker.lingering = True
    return Linger(worker.name, why)


def climb(worker: Worker, why: str, now: float) -> Dump | Abort | Kill:
    """Use the next stronger means against a worker whose patience has ended.

    Only a worker that has served has requests to name. One that was told to leave now has had its
    chance, and nobody waits for its stacks.
    """
    if worker.state is WorkerState.ABORTING or worker.quit_at is not None:
        return kill(worker, why, now)
    if worker.state is WorkerState.DUMPING or worker.ready_at is None:
        return abort(worker, why, now)
    return dump(worker, why, now)


def dump(worker: Worker, why: str, now: float) -> Dump:
    """Have a worker say what it is busy with, and abort itself."""
    worker.change(Cause.TOLD_TO_DUMP, now)
    return Dump(worker.name, why)


def abort(worker: Worker, why: str, now: float) -> Abort:
    """Have a worker dump its stacks and die."""
    worker.change(Cause.TOLD_TO_ABORT, now)
    return Abort(worker.name, why)


def kill(worker: Worker, why: str, now: float) -> Kill:
    """End a worker."""
    worker.change(Cause.TOLD_TO_DIE, now)
    return Kill(worker.name, why)


def addressed(action: Action, worker: Worker) -> bool:
    """Whether `action` needs `worker` alive."""
    return isinstance(action, Order | Reopen) and action.name == worker.name
