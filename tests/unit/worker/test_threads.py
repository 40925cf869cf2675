"""The threads behind `--threads`, seen through asgiref as applications see them."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from daphne_supervisor.config import Process
from daphne_supervisor.worker import threads as threads_module
from daphne_supervisor.worker.threads import Lease, Threads
from tests.support.transports import Line, on_loop, service, turn

if TYPE_CHECKING:
    from daphne_supervisor.worker.service import Service

PATIENCE = 10.0

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


class Gate:
    """A function that blocks its thread until it is opened."""

    def __init__(self) -> None:
        """Be closed."""
        self._open = threading.Event()
        self.entered = threading.Event()
        self.thread = 0

    def __call__(self) -> int:
        """Block."""
        self.thread = threading.get_ident()
        self.entered.set()
        assert self._open.wait(PATIENCE)
        return self.thread

    def open(self) -> None:
        """Let who waits go on."""
        self._open.set()


@pytest.fixture
def threads() -> Any:
    """Two threads."""
    two = Threads(2)
    yield two
    two.shutdown()


def test_a_lease_stays_on_its_thread(threads: Threads) -> None:
    """Database connections and their like are bound to threads."""
    lease = Lease(threads)
    assert not lease.used
    seen = {lease.submit(threading.get_ident).result(PATIENCE) for _ in range(20)}
    assert len(seen) == 1
    assert lease.used


def test_calls_at_once_are_spread(threads: Threads) -> None:
    """A new lease takes the thread with the least to do; there are never more than were allowed."""
    gates = [Gate() for _ in range(3)]
    leases = [Lease(threads) for _ in gates]
    futures = [lease.submit(gate) for lease, gate in zip(leases, gates, strict=True)]
    assert all(gate.entered.wait(PATIENCE) for gate in gates[:2])
    assert threads.busy == 2
    assert not gates[2].entered.is_set()
    for gate in gates:
        gate.open()
    assert len({future.result(PATIENCE) for future in futures}) == 2


def test_what_is_cancelled_is_not_counted(threads: Threads) -> None:
    """A call that was withdrawn before its turn leaves its thread idle."""
    lease, gate = Lease(threads), Gate()
    running = lease.submit(gate)
    assert gate.entered.wait(PATIENCE)
    withdrawn = lease.submit(threading.get_ident)
    assert withdrawn.cancel()
    gate.open()
    running.result(PATIENCE)
    assert lease.submit(threading.get_ident).result(PATIENCE) == gate.thread
    other = Lease(threads)
    assert other.submit(threading.get_ident).result(PATIENCE)


def test_a_failure_is_not_counted(threads: Threads) -> None:
    """A thread whose work has raised is idle again."""
    lease = Lease(threads)
    with pytest.raises(ZeroDivisionError):
        lease.submit(divmod, 1, 0).result(PATIENCE)
    assert lease.submit(threading.get_ident).result(PATIENCE)


def test_behind_the_end_nothing_starts(threads: Threads) -> None:
    """What runs is left to itself, what waits is cancelled."""
    lease, gate = Lease(threads), Gate()
    running = lease.submit(gate)
    assert gate.entered.wait(PATIENCE)
    waiting = lease.submit(threading.get_ident)
    threads.shutdown()
    assert waiting.cancelled()
    gate.open()
    assert running.result(PATIENCE)
    with pytest.raises(RuntimeError):
        lease.submit(threading.get_ident)


# -- as an application meets them --


class Sync:
    """An application that notes the threads of its synchronous code."""

    def __init__(self, count: int) -> None:
        """Be served with `count` threads."""
        self.service: Service = service(self, process=Process(threads=count))
        self.seen: list[set[int]] = []
        self.background: list[asyncio.Task[int]] = []
        self.release = asyncio.Event()
        self.variables: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer, after some synchronous code."""
        del receive
        self.variables.append(variable.get())
        variable.set(scope["path"])
        own = {await sync_to_async(threading.get_ident)() for _ in range(3)}
        own.add(await sync_to_async(self.nested)())
        self.seen.append(own)
        self.background.append(asyncio.ensure_future(self.later()))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def nested(self) -> int:
        """Go to the loop and back again, as middleware does."""
        back: int = async_to_sync(sync_to_async(threading.get_ident))()
        return back

    async def later(self) -> int:
        """Go on after the call has ended."""
        await self.release.wait()
        return await sync_to_async(threading.get_ident)()

    async def done(self) -> None:
        """Wait for every call that runs."""
        await asyncio.gather(*(exchange._task for exchange in self.service.exchanges))  # type: ignore[arg-type]


@on_loop
async def test_a_call_s_synchronous_code_runs_on_one_thread() -> None:
    """All of it, whatever else is going on; and never on the event loop's."""
    application = Sync(2)
    lines = [Line(application.service) for _ in range(6)]
    for line in lines:
        await line.ask()
    await application.done()
    assert [len(own) for own in application.seen] == [1] * 6
    assert len(set().union(*application.seen)) <= 2
    assert threading.get_ident() not in set().union(*application.seen)
    application.release.set()
    await asyncio.gather(*application.background)
    application.service.threads.shutdown()


@on_loop
async def test_a_task_that_outlives_its_call_keeps_its_thread() -> None:
    """Also when the connection has begun another call, and when it is gone."""
    application = Sync(4)
    line = Line(application.service)
    for _ in range(2):
        await line.ask()
        await application.done()
    await line.leave()
    application.release.set()
    later = await asyncio.gather(*application.background)
    assert [{thread} for thread in later] == application.seen
    application.service.threads.shutdown()


@on_loop
async def test_a_call_that_has_used_its_lease_leaves_a_fresh_one() -> None:
    """The next call goes where there is least to do, not behind the first."""
    threads = Threads(2)
    gate = Gate()

    async def run(function: Any) -> Any:
        return await sync_to_async(function)()

    loop = asyncio.get_running_loop()
    call = threads.begin()
    first = loop.create_task(run(gate), context=call.context.copy())
    await turn()
    threads.end(call)
    other = threads.begin()
    assert other is not call
    thread = await loop.create_task(run(threading.get_ident), context=other.context.copy())
    gate.open()
    assert await first != thread
    threads.shutdown()


def test_a_call_without_synchronous_code_costs_no_lease(threads: Threads) -> None:
    """What it has not used, the next call has; two at the same time have one each."""
    one, two = threads.begin(), threads.begin()
    assert one.lease is not two.lease
    threads.end(one)
    assert threads.begin() is one
    assert threads.begin() not in {one, two}


def test_a_lease_used_behind_the_end_of_its_call_is_not_given_again(threads: Threads) -> None:
    """What a call has left in the background may find its thread only then."""
    calls = [threads.begin() for _ in range(2)]
    for call in calls:
        threads.end(call)
    calls[1].lease.submit(threading.get_ident).result(PATIENCE)
    assert threads.begin() is calls[0]
    assert threads.begin() not in calls


def test_what_was_used_takes_no_place(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is kept for later calls, which is bounded."""
    monkeypatch.setattr(threads_module, "_SPARE", 1)
    used, unused = (threads.begin() for _ in range(2))
    used.lease.submit(threading.get_ident).result(PATIENCE)
    threads.end(used)
    threads.end(unused)
    assert threads.begin() is unused


def test_what_is_kept_for_later_calls_is_bounded(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that had thousands of calls once does not keep a context for each."""
    monkeypatch.setattr(threads_module, "_SPARE", 2)
    calls = [threads.begin() for _ in range(3)]
    for call in calls:
        threads.end(call)
    assert [threads.begin() for _ in range(2)] == calls[1::-1]
    assert threads.begin() not in calls


@on_loop
async def test_pipelined_requests_do_not_see_each_other_s_variables() -> None:
    """The second begins within the task of the first: its context must be as fresh."""
    application = Sync(2)
    line = Line(application.service)
    request = b"GET /%d HTTP/1.1\r\nHost: test\r\n\r\n"
    await line.send(request % 1 + request % 2 + request % 3)
    while application.service.exchanges:
        await application.done()
    assert application.variables == ["none"] * 3
    application.release.set()
    await asyncio.gather(*application.background)
    application.service.threads.shutdown()
