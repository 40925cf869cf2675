"""What the master shows of itself to whoever asks: plain data that fits into JSON.

Theory. The supervisor's records are the only account there is: the figures of a worker are those of
its last heartbeat, and no second path collects them. Its times are monotonic, which mean nothing to
a reader, so everything here is told as seconds before now.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from daphne_supervisor.messages import Heartbeat

if TYPE_CHECKING:
    from typing import Self

    from daphne_supervisor.master.model import Worker
    from daphne_supervisor.master.rollout import Outcome

__all__ = ["Death", "of_death", "of_outcome", "of_worker"]


@dataclass(frozen=True, slots=True)
class Death:
    """The end of one worker.

    `at` is in monotonic seconds, `uptime` in seconds since its birth; `how` is `signal SIGKILL` or
    `exit code 3`, `fate` is `planned` or `crashed`.
    """

    at: float
    slot: int
    generation: int
    pid: int | None
    how: str
    why: str
    uptime: float
    fate: str

    @classmethod
    def of(cls, worker: Worker, how: str, now: float) -> Self:
        """Return the end of `worker`, which has just been buried."""
        fate = "" if worker.fate is None else worker.fate.value
        uptime = now - worker.born
        name = worker.name
        return cls(now, name.slot, name.generation, name.pid, how, worker.why, uptime, fate)


def of_worker(worker: Worker, now: float) -> dict[str, Any]:
    """Return what is known of `worker`; figures that it has not reported are 0."""
    return {
        "slot": worker.slot,
        "generation": worker.generation,
        "pid": worker.pid,
        "state": worker.state.value,
        "age": now - worker.born,
        "ready_for": worker.lived(now),
        "silent_for": now - worker.heard,
        "due": worker.due,
        **asdict(worker.figures or Heartbeat()),
    }


def of_outcome(outcome: Outcome, now: float) -> dict[str, Any]:
    """Return how a reload came out."""
    return {
        "generation": outcome.generation,
        "result": outcome.verdict.value,
        "why": outcome.why,
        "took": outcome.took,
        "age": now - outcome.at,
    }


def of_death(death: Death, now: float) -> dict[str, Any]:
    """Return how a worker came to its end."""
    facts = asdict(death)
    at = facts.pop("at")
    return {**facts, "age": now - at}
