"""Everything at once: whatever happens to workers and releases, only their own clients notice.

For a while, a seeded mix of reloads with good, broken and hanging code, of more and fewer workers,
of workers that are killed and workers that are stopped, under HTTP clients and WebSockets. Before a
worker is killed it is stopped, and while it stands still its connections are noted: so each loss
can be matched with one of them. `CHAOS_SEED` repeats a run's choices.

What is promised is a minute of that, and a hundred reloads: `make conformance` runs both. A third
of the minute and a quarter of the reloads, which `make test` runs, fail of the same, but for what
is seldom.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import secrets
import signal
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.support.crowd import ABNORMAL, Crowd
from tests.support.daphne import APPS, Daphne
from tests.support.load import Load
from tests.support.project import Project
from tests.support.resources import at_rest, counted, holdings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.support.crowd import Ending, Failure
    from tests.support.load import Loss
    from tests.support.resources import Holding

WORKERS = 4
MEBIBYTE = 1024 * 1024
SERVICE_RESTART = 1012

_READY = re.compile(r"(\d+)/(\d+) workers ready")
_RELEASE = "# version {}\nfrom tests.support.present_app import application\n"
_OPTIONS = [
    *("--workers", str(WORKERS), "--access-log", os.devnull),
    *("--worker-timeout", "4", "--ready-timeout", "10", "--ws-drain-time", "1"),
]
"""A stopped worker is found in time for its clients, who wait for 10 s."""


@dataclass(frozen=True)
class Victim:
    """A worker that stands still, and is going to be killed by us or by the master."""

    process: psutil.Process
    stopped_at: float
    ports: frozenset[int]
    """The other ends of all its connections."""

    def had(self, connection: Loss | Ending | Failure) -> bool:
        """Whether `connection` was one of its own; later its port may be somebody else's."""
        return connection.port in self.ports and connection.begun <= self.stopped_at


def _stop(process: psutil.Process) -> Victim:
    """Stop a worker, wait until it stands still, and note what it has."""
    process.send_signal(signal.SIGSTOP)
    for _ in range(100_000):
        if process.status() == psutil.STATUS_STOPPED:
            break
    else:
        message = f"{process} goes on: {process.status()}"
        raise AssertionError(message)
    ports = frozenset(one.raddr.port for one in _connections(process))
    return Victim(process, time.monotonic(), ports)


def _connections(process: psutil.Process) -> list[Any]:
    """Return the clients' connections that `process` has."""
    return [one for one in process.net_connections("tcp4") if one.status != psutil.CONN_LISTEN]


class Chaos:
    """One thing after the other, as the dice want it."""

    def __init__(self, server: Daphne, project: Project, dice: random.Random) -> None:
        """Begin with a server that is well, and serves `project`."""
        self._server = server
        self._project = project
        self._dice = dice
        self._releases = 0
        self._ready = self._target = WORKERS
        self.victims: list[Victim] = []
        self.tally: Counter[str] = Counter()

    def run(self, seconds: float) -> None:
        """Do so for so long."""
        end = time.monotonic() + seconds
        acts: list[Callable[[], str]] = [
            *(self._good_release, self._good_release, self._broken_release, self._hanging_release),
            *(self._more, self._fewer, self._kill, self._kill, self._freeze, self._kill_zygote),
        ]
        while time.monotonic() < end:
            self.tally[self._dice.choice(acts)()] += 1
            self._pass(self._dice.uniform(0.1, 2.0))

    def end(self) -> None:
        """Reload good code, with as many workers as at first, and wait until all are there."""
        self._pass(0.1)
        while self._target != WORKERS:
            self._server.signal(signal.SIGTTIN if self._target < WORKERS else signal.SIGTTOU)
            self._pass(0.5)
        self._release()
        said = self._server.reload()
        assert "reload done" in said
        if not said.startswith(f"{WORKERS}/{WORKERS} workers ready"):
            self._server.wait_status(f"{WORKERS}/{WORKERS} workers ready")
        self._server.settle(WORKERS)

    def _pass(self, seconds: float) -> list[str]:
        """Let time pass, and keep an eye on how the pool is."""
        heard = self._server.listen(seconds)
        for ready, target in _READY.findall("\n".join(heard)):
            self._ready, self._target = int(ready), int(target)
        return heard

    # -- releases --

    def _release(self) -> None:
        self._releases += 1
        self._project.module.write_text(_RELEASE.format(self._releases))

    def _good_release(self) -> str:
        self._release()
        self._server.signal(signal.SIGHUP)
        return "HUP, good"

    def _broken_release(self) -> str:
        project = self._project
        kinds = [project.release_no_python, project.release_failing, project.release_refusing]
        return self._bad_release(self._dice.choice(kinds), "HUP, broken")

    def _hanging_release(self) -> str:
        return self._bad_release(self._project.release_hanging, "HUP, hanging")

    def _bad_release(self, release: Callable[[], None], name: str) -> str:
        """Reload code that is no good, mostly wait for the result, and put good code in place."""
        release()
        self._server.signal(signal.SIGHUP)
        if self._dice.random() < 0.3:
            self._pass(self._dice.uniform(0.0, 1.0))
            self.tally[self._kill()] += 1
        for _ in range(self._dice.randint(1, 20)):
            if "READY=1" in "\n".join(self._pass(0.5)).splitlines():
                break
        self._release()
        return name

    # -- workers --

    def _more(self) -> str:
        if self._target >= WORKERS + 2:
            return self._fewer()
        self._server.signal(signal.SIGTTIN)
        return "TTIN"

    def _fewer(self) -> str:
        if self._target <= WORKERS - 2:
            return self._more()
        self._server.signal(signal.SIGTTOU)
        return "TTOU"

    def _kill(self) -> str:
        victim = self._choose()
        if victim is None:
            return "nobody to be spared"
        victim.process.kill()
        return "kill -9"

    def _freeze(self) -> str:
        return "SIGSTOP" if self._choose() else "nobody to be spared"

    def _kill_zygote(self) -> str:
        zygotes = self._server.zygotes()
        if zygotes:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._dice.choice(zygotes).kill()
        return "kill -9 of the zygote"

    def _choose(self) -> Victim | None:
        """Stop one of the workers, in whatever state it is, unless hardly anybody would be left."""
        standing = {victim.process for victim in self.victims}
        choice = [worker for worker in self._server.workers() if worker not in standing]
        still = sum(1 for victim in self.victims if victim.process.is_running())
        if not choice or min(self._ready, len(choice)) - still < 2:
            return None
        try:
            victim = _stop(self._dice.choice(choice))
        except psutil.NoSuchProcess:  # it was about to leave
            return None
        self.victims.append(victim)
        return victim


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project whose first release is on the disk."""
    project = Project(tmp_path)
    project.module.write_text(_RELEASE.format(0))
    return project


@pytest.fixture
def server(project: Project) -> Iterator[Daphne]:
    """Return workers that serve the project."""
    with Daphne(project.application, *_OPTIONS, *project.arguments) as server:
        yield server


@contextlib.contextmanager
def _clients(server: Daphne) -> Iterator[tuple[Load, Crowd]]:
    """Serve 64 HTTP clients and 200 WebSockets."""
    with Load(server.port, 64) as load, Crowd(server.port, 200) as crowd:
        yield load, crowd


def _without_clients(server: Daphne) -> list[Holding]:
    """Return what the master and each worker hold as soon as no client is connected any more."""
    for _ in range(100):
        everybody = [psutil.Process(server.pid), *server.workers()]
        if not any(_connections(process) for process in everybody):
            break
        server.listen(0.1)
    return holdings(server)


def _wait_for(server: Daphne, wanted: Sequence[Holding]) -> list[Holding]:
    """Return what everybody holds, as soon as that is as many of each thing as `wanted`."""
    for _ in range(100):
        now = holdings(server)
        if counted(now) == counted(wanted):
            break
        server.listen(0.1)
    return now


def _assert_same(first: Sequence[Holding], last: Sequence[Holding], growth: float) -> None:
    """Assert that nothing was leaked, and no more than so many bytes by each process."""
    print(f"first {first}\nlast  {last}")  # noqa: T201 - the figures
    assert counted(last) == counted(first)
    for before, after in zip(first, last, strict=True):
        assert after.rss - before.rss < growth


def _others(
    found: Sequence[Loss | Ending | Failure], victims: list[Victim]
) -> list[Loss | Ending | Failure]:
    """Return those of `found` that were on nobody's connection of the `victims`."""
    return [one for one in found if not any(victim.had(one) for victim in victims)]


def _assert_only_victims(chaos: Chaos, load: Load, crowd: Crowd) -> None:
    """Print the tally, and assert that whatever was lost was a victim's."""
    codes = Counter(ending.code for ending in crowd.endings)
    print(  # noqa: T201 - the tally
        f"{dict(chaos.tally)}, {len(chaos.victims)} workers killed or stopped;"
        f" requests: {load.sent}, answered {load.answered}, lost {len(load.losses)};"
        f" WebSockets ended: {dict(codes)}, failed handshakes: {len(crowd.failures)}"
    )
    assert _others(load.losses, chaos.victims) == []
    assert load.sent - load.answered == len(load.losses)
    abnormal = [ending for ending in crowd.endings if ending.code == ABNORMAL]
    assert _others(abnormal, chaos.victims) == []
    assert _others(crowd.failures, chaos.victims) == []
    assert set(codes) <= {SERVICE_RESTART, ABNORMAL}


@pytest.mark.parametrize("seconds", [20.0, pytest.param(60.0, marks=pytest.mark.long)])
@pytest.mark.timeout(300)
def test_chaos_costs_only_those_whose_worker_was_killed(
    server: Daphne, project: Project, seconds: float
) -> None:
    """Each loss is matched with a worker that the test has killed or stopped, and nothing leaks.

    A WebSocket ends with 1012 or, on such a connection, without a word. Afterwards the next reload
    works, the pool is at its target, and master and workers hold what they held at first.
    """
    seed = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(10**6))
    print(f"seed {seed}")  # noqa: T201 - what repeats it
    with _clients(server):
        pass
    first = _without_clients(server)
    chaos = Chaos(server, project, random.Random(seed))  # noqa: S311 - dice
    with _clients(server) as (load, crowd):
        chaos.run(seconds)
        chaos.end()
        load.turn()
        crowd.wait_seated(server.worker_pids())
    _assert_only_victims(chaos, load, crowd)
    _assert_same(first, _wait_for(server, first), 4 * MEBIBYTE)


@pytest.mark.parametrize("reloads", [25, pytest.param(100, marks=pytest.mark.long)])
@pytest.mark.timeout(600)
def test_reloads_leak_nothing(reloads: int) -> None:
    """After so many HUPs in a row everybody holds what was held after five, and is as many.

    The memory allowed is for what Python keeps of freed objects until its next full collection:
    some 3 KiB a reload, and 10 are allowed.
    """
    with Daphne(f"{APPS}:hello", "--workers", "2", "--access-log", os.devnull) as server:
        for number in range(1, reloads + 1):
            assert "reload done" in server.reload()
            if number == 5:
                server.settle(2)
                first = at_rest(server)
        server.settle(2)
        _assert_same(first, _wait_for(server, first), reloads * 10 * 1024)
    assert f"reload to generation {reloads + 1} done" in server.final_log
