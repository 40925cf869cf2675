"""The records of the living workers, and what their slots remember of the dead.

Theory. A slot is a place with a number. It outlives its workers, so it is where failures are
counted: a worker that crashes again and again is started again and again in the same slot, with
growing pauses, while the other slots keep their own pace.
"""

from __future__ import annotations

import itertools

from daphne_supervisor.master.model import Fate, Worker, WorkerState
from daphne_supervisor.master.policy import STABLE_LIFE, Restarts, charge

__all__ = ["Roster"]


class Roster:
    """Who there is, who there should be, and when a slot may be filled again."""

    def __init__(self, target: int) -> None:
        """Start empty, with `target` places of generation 1."""
        self.target = target
        self.generation = self.newest = 1
        self.workers: dict[int, Worker] = {}
        self._memories: dict[int, Restarts] = {}

    def who(self, *states: WorkerState) -> list[Worker]:
        """Return the workers in these states."""
        return [worker for worker in self.workers.values() if worker.state in states]

    def stale(self, worker: Worker) -> bool:
        """Whether `worker` belongs to another generation than the present one."""
        return worker.generation != self.generation

    def stale_ready(self) -> int:
        """Return how many of another generation are ready."""
        return sum(map(self.stale, self.who(WorkerState.READY)))

    def vacant(self, wanted: int) -> list[int]:
        """Return the lowest free slots, as many as `wanted` workers leave places to fill."""
        held = sum(worker.holds_place for worker in self.workers.values())
        free = (slot for slot in itertools.count(1) if slot not in self.workers)
        return list(itertools.islice(free, max(0, wanted - held)))

    def superfluous(self, wanted: int) -> list[Worker]:
        """Return the workers that boot for nothing: first the stale, then the youngest."""
        booting = self.who(WorkerState.STARTING)
        stale = [worker for worker in booting if self.stale(worker)]
        useful = [worker for worker in booting if not self.stale(worker)]
        useful.sort(key=_age, reverse=True)
        spare = len(useful) + len(self.who(WorkerState.READY)) - wanted
        return stale + useful[: max(0, spare)]

    def surplus(self, recycled: Worker | None = None) -> list[Worker]:
        """Return who is ready beyond the target: first the stale, then `recycled`, then the oldest.

        Of the stale the oldest generation goes first.
        """
        ready = self.who(WorkerState.READY)
        ready.sort(
            key=lambda one: (not self.stale(one), one is not recycled, one.generation, _age(one))
        )
        return ready[: max(0, len(ready) - self.target)]

    def ripe(self, min_lifetime: float, now: float) -> Worker | None:
        """Return the worker that is due to be recycled next, if its turn has come.

        One at a time: as long as another one that was due is on its way out, and while workers of
        another generation wait to be replaced, nobody is.
        """
        due = [worker for worker in self.workers.values() if worker.due]
        if self.stale_ready() or any(worker.state is not WorkerState.READY for worker in due):
            return None
        old = [worker for worker in due if worker.ready_since + min_lifetime <= now]
        return min(old, key=_age, default=None)

    def ripens(self, min_lifetime: float, now: float) -> list[float]:
        """Return when workers that are due will have lived long enough to be recycled."""
        ready = self.who(WorkerState.READY)
        times = [worker.ready_since + min_lifetime for worker in ready if worker.due]
        return [time for time in times if time > now]

    @property
    def enough(self) -> bool:
        """Whether the target is met."""
        return len(self.who(WorkerState.READY)) >= self.target

    def settled(self) -> bool:
        """Whether the target is met by workers of the present generation alone."""
        return self.enough and not self.stale_ready()

    def admit(self, slot: int, now: float) -> Worker:
        """Open the record of a new worker of the present generation."""
        worker = Worker(slot, self.generation, born=now, entered=now, heard=now)
        self.workers[slot] = worker
        return worker

    def strike(self, worker: Worker, now: float) -> None:
        """Close the record of a dead worker; one that lived well clears its slot's failures."""
        del self.workers[worker.slot]
        if worker.fate is Fate.PLANNED and worker.lived(now) >= STABLE_LIFE:
            self._memories.pop(worker.slot, None)

    def blame(self, worker: Worker, why: str, now: float) -> None:
        """Count the end of this worker, near or past, as a failure of its slot."""
        worker.fate, worker.why = Fate.CRASHED, why
        memory = self.memory(worker.slot)
        self._memories[worker.slot] = charge(memory, lived=worker.lived(now), now=now)

    def memory(self, slot: int) -> Restarts:
        """Return what the slot remembers."""
        return self._memories.get(slot, Restarts())

    def begin_generation(self) -> None:
        """Make everybody stale; the number is new, whatever has become of those before."""
        self.newest += 1
        self.return_to(self.newest)

    def return_to(self, generation: int) -> None:
        """Make this the present one; what failed was other code, so every slot starts afresh."""
        self.generation = generation
        self._memories.clear()


def _age(worker: Worker) -> tuple[float, int]:
    """Return what sorts workers, the oldest first."""
    return worker.born, worker.slot
