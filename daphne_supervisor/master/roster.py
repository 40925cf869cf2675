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
        self.generation = 1
        self.workers: dict[int, Worker] = {}
        self._memories: dict[int, Restarts] = {}

    def who(self, *states: WorkerState) -> list[Worker]:
        """Return the workers in these states."""
        return [worker for worker in self.workers.values() if worker.state in states]

    def stale(self, worker: Worker) -> bool:
        """Whether `worker` belongs to an older generation."""
        return worker.generation != self.generation

    def wanted(self, surge: int) -> int:
        """Return how many should serve or boot, with up to `surge` above the target."""
        return self.target + min(surge, sum(map(self.stale, self.who(WorkerState.READY))))

    def vacant(self, surge: int) -> list[int]:
        """Return the lowest free slots, as many as there are places to fill."""
        held = sum(worker.holds_place for worker in self.workers.values())
        free = (slot for slot in itertools.count(1) if slot not in self.workers)
        return list(itertools.islice(free, max(0, self.wanted(surge) - held)))

    def superfluous(self, surge: int) -> list[Worker]:
        """Return the workers that boot for nothing: first the stale, then the youngest."""
        booting = self.who(WorkerState.STARTING)
        stale = [worker for worker in booting if self.stale(worker)]
        useful = [worker for worker in booting if not self.stale(worker)]
        useful.sort(key=lambda worker: (worker.born, worker.slot), reverse=True)
        spare = len(useful) + len(self.who(WorkerState.READY)) - self.wanted(surge)
        return stale + useful[: max(0, spare)]

    def surplus(self) -> list[Worker]:
        """Return who is ready beyond the target: first the stalest, then the oldest."""
        ready = self.who(WorkerState.READY)
        ready.sort(key=lambda worker: (worker.generation, worker.born, worker.slot))
        return ready[: max(0, len(ready) - self.target)]

    def settled(self) -> bool:
        """Whether the target is met by workers of the present generation alone."""
        ready = self.who(WorkerState.READY)
        return len(ready) >= self.target and not any(map(self.stale, ready))

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
        """Make everybody stale; what failed was other code, so every slot has a clean record."""
        self.generation += 1
        self._memories.clear()
