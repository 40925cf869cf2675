"""Birth, signals and burial, with real zygotes and real workers."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
from types import ModuleType
from typing import TYPE_CHECKING

import psutil
import pytest
import setproctitle

from daphne_supervisor import cgroups
from daphne_supervisor.config import App, Config
from daphne_supervisor.errors import BootError
from daphne_supervisor.hooks import Hooks
from daphne_supervisor.logs import AccessLog
from daphne_supervisor.master import processes
from daphne_supervisor.master.birth import fork
from daphne_supervisor.master.model import Exited, Reported, Spawned
from daphne_supervisor.master.processes import Processes, describe
from daphne_supervisor.messages import BootFailed
from tests.support.births import FakeSeed, Ward, ended, has_ended, heritage, line, no_room

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daphne_supervisor.messages import Assignment

PRELOADING = Config(application="shop.asgi:application", app=App(preload=True))


@pytest.fixture(autouse=True)
def same_title() -> Iterator[None]:
    """Give the test process its title back."""
    before = setproctitle.getproctitle()
    yield
    setproctitle.setproctitle(before)


@pytest.fixture
def ward() -> Iterator[Ward]:
    """Return hands whose workers say `here` and wait for a signal."""
    with Ward(heritage()) as ward:
        yield ward


def leaving(code: int) -> FakeSeed:
    """Return what workers grow from that leave at once."""
    return FakeSeed(lambda _: code)


def descriptors() -> list[str]:
    """Return what this process has open."""
    return sorted(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exit code 0"),
        (3 << 8, "exit code 3"),
        (signal.SIGKILL, "signal SIGKILL"),
        (signal.SIGABRT | 0x80, "signal SIGABRT"),
        (40, "signal 40"),
    ],
)
def test_a_wait_status_is_put_into_words(status: int, words: str) -> None:
    """An operator reads names, not numbers, wherever there are names."""
    assert describe(status) == words


def test_a_worker_is_born_lives_and_dies() -> None:
    """It is told born with its process id, and dead with its exit code."""
    with Ward(heritage(leaving(7))) as ward:
        ward.spawn(2, 3)
        pid = ward.birth(2)
        assert ward.death(2) == "exit code 7"
        assert ward.events == [Spawned(2, pid), Exited(2, "exit code 7")]


def test_workers_of_a_generation_have_one_zygote(ward: Ward) -> None:
    """Each is a child of the master, and all were forked from one process."""
    channels = [ward.spawn(slot) for slot in (1, 2, 3)]
    assert [line(channel) for channel in _born(ward, channels)] == ["here\n"] * 3
    assert len(ward.zygotes()) == 1
    assert {psutil.Process(pid).ppid() for pid in ward.pids.values()} == {os.getpid()}


def _born(ward: Ward, channels: list[socket.socket]) -> list[socket.socket]:
    """Wait for the births of workers in slots from 1 on; return their channels."""
    while len(ward.pids) < len(channels):
        ward.turn()
    return channels


def test_more_workers_than_the_kernels_queue_has_room_for_are_born(ward: Ward) -> None:
    """A unix socket queues ten packets by default; a machine may have more processors."""
    channels = [ward.spawn(slot) for slot in range(1, 25)]
    assert [line(channel) for channel in _born(ward, channels)] == ["here\n"] * 24


def test_a_worker_sees_the_master_die() -> None:
    """No zygote and no sibling holds the master's end of anybody's channel."""

    def until_the_end(assignment: Assignment) -> int:
        assignment.channel.sendall(b"here\n")
        return len(assignment.channel.recv(10))

    with Ward(heritage(FakeSeed(until_the_end))) as ward:
        channels = _born(ward, [ward.spawn(1), ward.spawn(2)])
        assert [line(channel) for channel in channels] == ["here\n"] * 2
        pids = [*ward.pids.values(), *ward.zygotes()]
        ward.hands._close_channels()  # what the kernel does for a master that dies
        assert [has_ended(pid) for pid in pids] == [True] * 3


def test_the_master_sees_a_worker_die(ward: Ward) -> None:
    """No zygote and no sibling holds a worker's end of its channel."""
    channels = _born(ward, [ward.spawn(1), ward.spawn(2)])
    assert [line(channel) for channel in channels] == ["here\n"] * 2
    for slot, channel in enumerate(channels, 1):
        ward.hands.signal(slot, signal.SIGKILL)
        assert line(channel) == ""
    assert ward.death(1) == "signal SIGKILL"


def test_processes_inherit_what_they_need_only(ward: Ward) -> None:
    """One channel: a worker holds nothing of the master's, of its zygote's and of its siblings'."""
    before = {os.readlink(f"/proc/self/fd/{one}") for one in descriptors()[:-1] if _open(one)}
    channels = _born(ward, [ward.spawn(1), ward.spawn(2)])
    assert [line(channel) for channel in channels] == ["here\n"] * 2
    for pid in ward.pids.values():
        names = [os.readlink(f"/proc/{pid}/fd/{one}") for one in os.listdir(f"/proc/{pid}/fd")]
        own = [name for name in names if name not in before]
        assert [name.partition(":")[0] for name in own] == ["socket"]


def _open(descriptor: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{descriptor}")


# Signals


def test_a_signal_reaches_the_worker(ward: Ward) -> None:
    """It is named by its slot."""
    (channel,) = _born(ward, [ward.spawn(1)])
    assert line(channel) == "here\n"
    ward.hands.signal(1, signal.SIGTERM)
    assert ward.death(1) == "signal SIGTERM"


def test_an_unborn_worker_is_cancelled(ward: Ward) -> None:
    """It is told dead without ever having lived, and its channel ends."""
    channel = ward.spawn(1)
    ward.hands.signal(1, signal.SIGTERM)
    assert ward.hands.news() == [Exited(1, "was not born yet")]
    channel.setblocking(True)
    assert line(channel) == ""
    ward.forget(1)


def test_a_zygote_that_hangs_is_aborted_in_the_place_of_its_workers() -> None:
    """That is where the import hangs; each worker is told dead, and why."""
    ours, theirs = socket.socketpair()

    def hang() -> None:
        theirs.sendall(b"hanging\n")
        signal.pause()

    given = heritage(FakeSeed(import_application=hang), config=PRELOADING)
    with ours, theirs, Ward(given) as ward:
        ward.spawn(1)
        ward.spawn(2)
        assert line(ours) == "hanging\n"
        ward.hands.signal(1, signal.SIGABRT)
        ward.hands.signal(2, signal.SIGABRT)
        assert ward.death(1) == "its zygote died: signal SIGABRT"
        assert Exited(2, "its zygote died: signal SIGABRT") in ward.events


def test_an_application_that_cannot_be_imported_is_told_for_each_worker() -> None:
    """What the supervisor hears is what each worker would have said."""

    def fail() -> None:
        message = "cannot be imported"
        raise BootError(message)

    with Ward(heritage(FakeSeed(import_application=fail), config=PRELOADING)) as ward:
        ward.spawn(1)
        ward.spawn(2)
        ward.death(1)
        died = "its zygote died: exit code 3"
        failed = BootFailed("cannot be imported")
        assert ward.events == [
            event for slot in (1, 2) for event in (Reported(slot, failed), Exited(slot, died))
        ]


# Deaths


def test_strangers_are_reaped_and_told_once(ward: Ward, caplog: pytest.LogCaptureFixture) -> None:
    """As process 1 the master inherits orphans; whatever code they exit with means nothing."""
    stranger = fork(lambda: 3)
    assert has_ended(stranger)
    with caplog.at_level(logging.DEBUG):
        assert ward.hands.news() == []
    assert f"reaped process {stranger}, no worker: exit code 3" in caplog.text
    assert ward.hands.strangers() == {stranger: "exit code 3"}
    assert ward.hands.strangers() == {}


def test_another_child_is_a_stranger_that_inherits_nothing(ward: Ward) -> None:
    """Whoever started it recognises its pid; a worker's channel is closed in it."""
    (near,) = _born(ward, [ward.spawn(1)])
    own = os.readlink(f"/proc/self/fd/{near.fileno()}")
    child = ward.hands.start(lambda: int(own in {_target(one) for one in descriptors()}))
    assert has_ended(child)
    ward.hands.news()
    assert ward.hands.strangers() == {child: "exit code 0"}


def test_a_child_that_was_started_can_be_ended(ward: Ward) -> None:
    """It is killed and reaped, and nobody hears of it."""
    child = ward.hands.start(lambda: signal.pause() or 0)
    ward.hands.end(child)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert ward.hands.strangers() == {}


def _target(descriptor: str) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}") if _open(descriptor) else ""


def test_an_orphan_of_a_worker_is_reaped(ward: Ward) -> None:
    """A subprocess that outlives its worker becomes the master's child, and no zombie."""
    ours, theirs = socket.socketpair()

    def be(_: Assignment) -> int:
        theirs.sendall(f"{fork(lambda: signal.pause() or 0)}\n".encode())
        return 0

    ward.hands.renew(heritage(FakeSeed(be)))
    with ours, theirs:
        ward.spawn(1)
        assert ward.death(1) == "exit code 0"
        orphan = int(line(ours))
    assert psutil.Process(orphan).ppid() == os.getpid()
    os.kill(orphan, signal.SIGKILL)
    assert has_ended(orphan)
    assert ward.hands.news() == []
    assert ward.hands.strangers() == {orphan: "signal SIGKILL"}


def test_a_worker_that_is_reaped_before_its_birth_is_read_is_no_stranger() -> None:
    """Its death is found first, and told right after its birth; nobody else is signalled for it."""
    ours, theirs = socket.socketpair()
    module = ModuleType("hooks")
    vars(module)["before_fork"] = lambda **_: theirs.recv(1)
    given = heritage(leaving(3), hooks=Hooks(module))
    with ours, theirs, Ward(given) as ward:
        ward.spawn(1)
        while not ward.hands._nursery.expecting():
            ward.turn()
        (mother,) = ward.hands._nursery._everyone()
        # Nothing is read from the zygote, as if its words came a moment later.
        mother.open = False
        ours.send(b"!")
        while not (told := ward.hands.strangers()):
            assert ward.hands.news() == []
        (pid,) = told
        assert ward.hands.strangers() == {}  # each is told once, and remembered all the same
        ward.hands.signal(1, signal.SIGTERM)
        mother.open = True
        assert ward.hands.news() == [Spawned(1, pid), Exited(1, "exit code 3")]
        ward.forget(1)
        assert ward.hands._strangers == {}


def test_the_living_are_not_reaped(ward: Ward) -> None:
    """Looking for the dead does not wait for them."""
    (channel,) = _born(ward, [ward.spawn(1)])
    assert line(channel) == "here\n"
    assert ward.hands.news() == []


def test_no_children_is_no_news(ward: Ward) -> None:
    """Before the first birth there is nobody to wait for."""
    assert ward.hands.news() == []


def test_a_dead_zygote_is_replaced_and_its_workers_live(ward: Ward) -> None:
    """They are the master's children, and a new one comes from a new zygote."""
    (channel,) = _born(ward, [ward.spawn(1)])
    assert line(channel) == "here\n"
    (before,) = ward.zygotes()
    os.kill(before, signal.SIGKILL)
    while ward.zygotes() == [before]:
        ward.turn()
    assert not has_ended(ward.pids[1], 0)
    second = ward.spawn(2)
    ward.birth(2)
    assert line(second) == "here\n"


def test_a_zygote_is_replaced_with_what_its_generation_was_born_with(ward: Ward) -> None:
    """What was read for a later generation does not reach an earlier one."""
    (channel,) = _born(ward, [ward.spawn(1)])
    assert line(channel) == "here\n"
    ward.hands.renew(heritage(leaving(5)))
    (before,) = ward.zygotes()
    os.kill(before, signal.SIGKILL)
    while ward.zygotes() == [before]:
        ward.turn()
    second = ward.spawn(2)
    ward.birth(2)
    assert line(second) == "here\n"
    ward.spawn(3, 2)
    assert ward.death(3) == "exit code 5"


def test_generations_that_are_given_up_have_no_zygote(ward: Ward) -> None:
    """It leaves, its workers live, and it is not replaced."""
    (channel,) = _born(ward, [ward.spawn(1)])
    assert line(channel) == "here\n"
    (before,) = ward.zygotes()
    ward.hands.keep(frozenset({2}))
    while before in ward.zygotes():
        ward.turn()
    assert not has_ended(ward.pids[1], 0)
    assert ward.zygotes() == []
    assert ward.hands._heritages == {}


def test_a_fork_that_fails_leaves_nothing_open(ward: Ward) -> None:
    """When the system has no room for a process, the error is the caller's and nothing leaks."""
    before = descriptors()
    with no_room(), pytest.raises(OSError, match="unavailable"):
        ward.spawn(1)
    assert descriptors() == before
    ward.spawn(1)
    ward.birth(1)


def test_nothing_is_left_of_many_workers(ward: Ward) -> None:
    """Births, deaths and zygotes later there are as many descriptors as before."""
    before = descriptors()
    ward.hands.renew(heritage(leaving(0)))
    for generation in range(1, 6):
        for slot in (1, 2):
            ward.spawn(slot, generation)
        while len([one for one in ward.events if isinstance(one, Exited)]) < 2 * generation:
            ward.turn()
        ward.hands.keep(frozenset())
    while ward.zygotes():
        ward.turn()
    assert descriptors() == before
    assert psutil.Process().children() == []


def test_the_place_of_a_dead_worker_is_not_counted(ward: Ward) -> None:
    """Its connections are no part of the pool's mean."""
    (channel,) = _born(ward, [ward.spawn(1)])
    assert line(channel) == "here\n"
    ward.heritage.scoreboard.post(1, 5)
    ward.hands.signal(1, signal.SIGKILL)
    ward.death(1)
    assert list(ward.heritage.scoreboard.counts()) == [-1]


def test_logs_are_reopened_by_the_zygotes(tmp_path: Path) -> None:
    """A worker that is born after a rotation writes to the new file."""
    path = tmp_path / "access.log"

    def be(assignment: Assignment) -> int:
        assert assignment.access_log is not None
        assignment.access_log.http("127.0.0.1", "GET", f"/{assignment.slot}", 200, 1)
        return 0

    with Ward(heritage(FakeSeed(be), access_log=AccessLog.open(str(path)))) as ward:
        ward.spawn(1)
        ward.death(1)
        path.rename(tmp_path / "old")
        ward.hands.reopen()
        ward.spawn(2)
        ward.death(2)
    assert "GET /1" in (tmp_path / "old").read_text()
    assert "GET /2" in path.read_text()


# Out of memory


def _killed(ward: Ward, slot: int, oom_kills: int | None, *, by_us: bool = False) -> str:
    """Kill the worker in `slot` when the kernel's counter was `oom_kills`; return how it ended."""
    channel = ward.spawn(slot)
    pid = ward.birth(slot)
    assert line(channel) == "here\n"
    ward.hands._oom_kills = oom_kills
    if by_us:
        ward.hands.signal(slot, signal.SIGKILL)
    else:
        os.kill(pid, signal.SIGKILL)
    return ward.death(slot)


def test_a_kill_for_want_of_memory_is_told_from_others(ward: Ward) -> None:
    """It is one if the kernel's counter has risen and the signal was not ours."""
    present = cgroups.oom_kills()
    if present is None:
        pytest.skip("this system does not count its kills for want of memory")
    rose = f", out of memory: the cgroup's oom_kill rose from {present - 1} to {present}"
    assert _killed(ward, 1, present - 1) == f"signal SIGKILL{rose}"
    assert _killed(ward, 2, present) == "signal SIGKILL"
    assert _killed(ward, 3, None) == "signal SIGKILL"
    assert _killed(ward, 4, present - 1, by_us=True) == "signal SIGKILL"
    assert ward.hands._oom_kills == present  # what was seen once is not told of another


def test_another_death_is_not_looked_up(ward: Ward) -> None:
    """Only SIGKILL is what the kernel sends."""
    (channel,) = _born(ward, [ward.spawn(1)])
    assert line(channel) == "here\n"
    ward.hands._oom_kills = -1
    ward.hands.signal(1, signal.SIGTERM)
    assert ward.death(1) == "signal SIGTERM"
    assert ward.hands._oom_kills == -1


# The end


def test_the_end_leaves_nobody(ward: Ward) -> None:
    """Zygotes that serve, that grow and that are on their way out are ended and reaped."""
    (channel,) = _born(ward, [ward.spawn(1)])
    assert line(channel) == "here\n"
    ward.spawn(2, 2)
    zygotes = ward.zygotes()
    ward.hands.keep(frozenset({2}))
    worker = ward.pids.pop(1)
    os.kill(worker, signal.SIGKILL)
    assert ended(worker) == "signal SIGKILL"
    ward.hands.close()
    assert [has_ended(pid, 0) for pid in zygotes] == [True, True]
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, 0)


def test_a_system_without_subreapers_is_refused() -> None:
    """One line says what is missing, instead of workers that nobody can wait for."""
    number = processes._PR_SET_CHILD_SUBREAPER
    processes._PR_SET_CHILD_SUBREAPER = -1
    try:
        with (
            selectors.DefaultSelector() as selector,
            pytest.raises(BootError, match="PR_SET_CHILD_SUBREAPER"),
        ):
            Processes(heritage(), selector, lambda: None)
    finally:
        processes._PR_SET_CHILD_SUBREAPER = number
