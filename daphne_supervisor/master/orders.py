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
    Fate,
    Kill,
    Order,
    Quit,
    Reopen,
)

if TYPE_CHECKING:
    from daphne_supervisor.master.model import Action, Worker

__all__ = ["abort", "addressed", "drain", "kill", "leave_now"]


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
