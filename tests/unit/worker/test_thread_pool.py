"""Who runs on which thread, who waits for whom, and how it all ends."""

from __future__ import annotations

import os
import threading
from concurrent.futures import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from daphne_supervisor.worker.thread_pool import Lease, Pool, Work
from tests.support.gate import PATIENCE, Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future


@pytest.fixture
def pools() -> Iterator[Callable[..., Pool]]:
    """Make pools, and end them."""
    made = []

    def make(count: int, farewell: Callable[[], None] = lambda: None) -> Pool:
        made.append(Pool("test", count, farewell))
        return made[-1]

    yield make
    for pool in made:
        pool.shutdown()
        assert pool.left() == 0


def held(executor: Any) -> tuple[Gate, Future[int]]:
    """Let a thread of `executor` run and block; return what lets it go on, and its end."""
    gate = Gate()
    future = executor.submit(gate)
    gate.wait()
    return gate, future


def ident(executor: Any) -> int:
    """Return the thread on which `executor` runs something."""
    thread: int = executor.submit(threading.get_ident).result(PATIENCE)
    return thread


def test_a_lease_stays_on_its_thread(pools: Callable[..., Pool]) -> None:
    """Database connections and their like are bound to threads."""
    pool = pools(2)
    lease = Lease(pool)
    assert lease.thread is None
    seen = {ident(lease) for _ in range(20)}
    assert lease.thread is not None
    assert seen == {lease.thread.ident}
    assert lease.calls == 20


def test_a_thread_is_started_when_it_is_needed_and_has_a_name(pools: Callable[..., Pool]) -> None:
    """People see it in `ps -L` and in the stacks of a worker that hangs."""
    pool = pools(3)
    before = threading.active_count()
    name = pool.submit(lambda: threading.current_thread().name).result(PATIENCE)
    assert name == "daphne-supervisor-test-1"
    own = pool.submit(threading.get_native_id).result(PATIENCE)
    assert Path(f"/proc/{os.getpid()}/task/{own}/comm").read_text() == "test-1\n"
    assert threading.active_count() == before + 1


def test_there_are_never_more_than_were_allowed(pools: Callable[..., Pool]) -> None:
    """Each lease has a thread of its own while there are enough; the next one waits."""
    pool = pools(2)
    gates = [held(Lease(pool)) for _ in range(2)]
    late = Gate()
    future = Lease(pool).submit(late)
    assert pool.busy == 2
    assert not late.entered.is_set()
    late.open()
    for gate, _ in gates:
        gate.open()
    assert len({each.result(PATIENCE) for _, each in gates}) == 2
    assert future.result(PATIENCE) in {gate.thread for gate, _ in gates}


def test_an_idle_thread_with_fewest_leases_is_taken(pools: Callable[..., Pool]) -> None:
    """A call has a thread to itself while there are enough, and shares one with few others."""
    pool = pools(2)
    one, two, three = Lease(pool), Lease(pool), Lease(pool)
    first, second = ident(one), ident(two)
    assert first != second
    assert ident(three) == first
    one.end()
    three.end()
    four, five = Lease(pool), Lease(pool)
    assert ident(four) == first
    two.end()
    assert ident(five) == second


def test_one_that_was_ended_twice_counts_once(pools: Callable[..., Pool]) -> None:
    """And one that is bound behind its end not at all."""
    pool = pools(1)
    lease, late = Lease(pool), Lease(pool)
    ident(lease)
    lease.end()
    lease.end()
    late.end()
    ident(late)
    assert pool.threads[0].leases == 0


def test_whichever_thread_is_free_first_takes_who_has_none(pools: Callable[..., Pool]) -> None:
    """Nobody waits behind one call while another thread has nothing to do."""
    pool = pools(2)
    (slow, end), (quick, _) = held(Lease(pool)), held(Lease(pool))
    future = Lease(pool).submit(threading.get_ident)
    quick.open()
    assert future.result(PATIENCE) == quick.thread
    slow.open()
    end.result(PATIENCE)


def test_who_has_waited_longest_is_next(pools: Callable[..., Pool]) -> None:
    """Bound to the thread or not."""
    pool = pools(1)
    order: list[str] = []
    lease = Lease(pool)
    gate, _ = held(lease)
    others = [
        executor.submit(order.append, name)
        for executor, name in [(Lease(pool), "a"), (lease, "b"), (pool, "c"), (lease, "d")]
    ]
    gate.open()
    wait(others, PATIENCE)
    assert order == ["a", "b", "c", "d"]


def test_two_first_calls_at_once_share_their_thread(pools: Callable[..., Pool]) -> None:
    """`asyncio.gather` in a request, while all threads are busy: one thread, in the order asked."""
    pool = pools(2)
    gates = [held(Lease(pool)) for _ in range(2)]
    lease, order = Lease(pool), list[int]()

    def note(number: int) -> int:
        order.append(number)
        return threading.get_ident()

    futures = [lease.submit(note, number) for number in range(5)]
    other = pool.submit(threading.get_ident)
    for gate, _ in gates:
        gate.open()
    assert len({each.result(PATIENCE) for each in futures}) == 1
    assert order == [0, 1, 2, 3, 4]
    assert other.result(PATIENCE)


def test_what_is_cancelled_is_neither_done_nor_counted(pools: Callable[..., Pool]) -> None:
    """A call that was withdrawn before its turn, bound to a thread or not, or already handed on."""
    pool = pools(1)
    lease = Lease(pool)
    gate, running = held(lease)
    done: list[int] = []
    bound, free = lease.submit(done.append, 1), pool.submit(done.append, 2)
    assert [(work.lease, thread) for work, thread in pool.queued()] == [
        (None, None),
        (lease, pool.threads[0]),
    ]
    assert bound.cancel()
    assert free.cancel()
    assert list(pool.queued()) == []
    gate.open()
    running.result(PATIENCE)
    ident(lease)
    assert done == []


def test_work_that_is_cancelled_on_its_way_is_not_done() -> None:
    """Between the moment when a thread is given it and the one when it begins."""
    done: list[int] = []
    work = Work(None, done.append, (1,), {})
    work.future.cancel()
    work.run()
    work.tell()
    assert done == []


def test_a_failure_is_the_caller_s(pools: Callable[..., Pool]) -> None:
    """Whatever was raised; the thread goes on."""
    lease = Lease(pools(1))
    with pytest.raises(ZeroDivisionError):
        lease.submit(divmod, 1, 0).result(PATIENCE)
    with pytest.raises(SystemExit):
        lease.submit(exit, 3).result(PATIENCE)
    assert ident(lease)


def test_behind_the_end_nothing_starts(pools: Callable[..., Pool]) -> None:
    """What runs is left to itself, what waits is cancelled, bound to a thread or not."""
    pool = pools(1)
    lease = Lease(pool)
    gate, running = held(lease)
    waiting = [lease.submit(threading.get_ident), pool.submit(threading.get_ident)]
    pool.shutdown(wait=False)
    pool.shutdown(wait=False)
    assert all(each.cancelled() for each in waiting)
    assert pool.left() == 1
    with pytest.raises(RuntimeError, match="the worker leaves"):
        lease.submit(threading.get_ident)
    gate.open()
    assert running.result(PATIENCE) == gate.thread


def test_each_thread_says_its_farewell_itself(pools: Callable[..., Pool]) -> None:
    """The idle ones at once, one that was busy when it is done, one that never began not at all."""
    said: list[int] = []
    pool = pools(3, lambda: said.append(threading.get_ident()))
    (busy, _), idle = held(Lease(pool)), ident(Lease(pool))
    pool.shutdown(wait=False)
    assert pool.threads[1].over.wait(PATIENCE)
    assert said == [idle]
    busy.open()
    pool.shutdown()
    assert said == [idle, busy.thread]


def test_a_thread_that_cannot_be_started_is_the_caller_s_error(
    pools: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system has no more of them for now; the next call tries again."""
    pool = pools(1)
    lease = Lease(pool)

    def refuse(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            lease.submit(threading.get_ident)
    assert pool.busy == 0
    assert ident(lease)


def test_many_at_once_are_all_done(pools: Callable[..., Pool]) -> None:
    """From several threads, in leases of three calls: none is lost, none changes its thread."""
    pool = pools(4)
    leases = [Lease(pool) for _ in range(200)]

    def ask(part: list[Lease]) -> list[list[Future[int]]]:
        return [[each.submit(threading.get_ident) for _ in range(3)] for each in part]

    askers = Pool("askers", 4, lambda: None)
    parts = [askers.submit(ask, leases[number::4]) for number in range(4)]
    for part in parts:
        for futures in part.result(PATIENCE):
            assert len({each.result(PATIENCE) for each in futures}) == 1
    askers.shutdown()
    for lease in leases:
        lease.end()
    assert all(thread.leases == 0 for thread in pool.threads)
