"""The threads behind `--threads`, seen through asgiref as applications see them."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from asgiref.sync import async_to_sync, sync_to_async

from daphne_supervisor.config import Process
from daphne_supervisor.worker import threads as threads_module
from daphne_supervisor.worker.threads import Threads, close_connections
from tests.support.gate import PATIENCE, Gate
from tests.support.transports import Line, on_loop, service, turn

if TYPE_CHECKING:
    from daphne_supervisor.worker.service import Service

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


@pytest.fixture
def threads() -> Any:
    """Two threads of each kind."""
    two = Threads(2)
    yield two
    two.shutdown()


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


@on_loop
async def test_a_call_that_has_ended_leaves_its_thread_to_others() -> None:
    """A thread to itself is what each call gets, while there are enough: so it must be returned."""
    application = Sync(2)
    for _ in range(6):
        line = Line(application.service)
        await line.ask()
        await application.done()
    assert {len(own) for own in application.seen} == {1}
    assert len(set().union(*application.seen)) == 1
    application.release.set()
    await asyncio.gather(*application.background)
    application.service.threads.shutdown()


def test_what_is_not_thread_sensitive_has_a_pool_of_the_same_bound(threads: Threads) -> None:
    """The event loop's default executor too; and no thread of it is one that is leased."""

    async def all_at_once() -> list[str]:
        loop = asyncio.get_running_loop()
        free = sync_to_async(name, thread_sensitive=False)
        works = [free() for _ in range(8)] + [loop.run_in_executor(None, name) for _ in range(8)]
        return list(await asyncio.gather(*works))

    def name() -> str:
        return threading.current_thread().name

    loop = uvloop.new_event_loop()
    threads.serve(loop)
    seen = set(loop.run_until_complete(all_at_once()))
    loop.close()
    assert seen <= {"daphne-supervisor-any-1", "daphne-supervisor-any-2"}


@on_loop
async def test_without_threads_of_ours_asgiref_does_as_it_does() -> None:
    """--threads 0: no context of asgiref's is entered, the loop's executor is its own."""
    application = Sync(0)
    line = Line(application.service)
    await line.ask()
    await application.done()
    (seen,) = application.seen
    (name,) = {one.name for one in threading.enumerate() if one.ident in seen}
    assert name.startswith("ThreadPoolExecutor-")
    call = application.service.threads.begin()
    application.service.threads.end(call)
    assert application.service.threads.begin() is call
    loop = asyncio.get_running_loop()
    application.service.threads.serve(loop)
    name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
    assert name.startswith("asyncio_")
    application.release.set()
    await asyncio.gather(*application.background)


def test_what_is_not_thread_sensitive_is_known_by_its_call(threads: Threads) -> None:
    """The log names the request; work from elsewhere is nobody's."""
    gates = [Gate() for _ in range(2)]
    for gate in gates:
        threads.any.submit(gate)
    call = threads.begin()
    call.context.run(threads.any.submit, int)
    threads.any.submit(int)
    assert [work.asker for work, _, _ in threads.queued()] == [call.lease, None]
    for gate in gates:
        gate.open()


def test_what_the_threads_have_to_do_is_counted(threads: Threads) -> None:
    """Those that are busy, what waits, and for how long the longest one."""
    assert threads.load(time.monotonic()) == (0, 0, 0.0)
    gates = [Gate() for _ in range(3)]
    for gate in gates[:2]:
        threads.begin().lease.submit(gate)
    threads.any.submit(gates[2])
    for gate in gates:
        gate.wait()
    before = time.monotonic()
    first, second = (threads.begin().lease.submit(int) for _ in range(2))
    after = time.monotonic()
    load = threads.load(after + 7)
    assert (load.busy, load.queued) == (3, 2)
    assert 7 <= load.oldest_wait <= 7 + after - before
    assert threads.load(before - 1).oldest_wait == 0
    for gate in gates:
        gate.open()
    first.result(PATIENCE)
    second.result(PATIENCE)


def test_all_threads_end(threads: Threads) -> None:
    """Of both kinds; whoever still runs is counted."""
    gate = Gate()
    threads.begin().lease.submit(int).result(PATIENCE)
    threads.any.submit(gate)
    gate.wait()
    threads.shutdown()
    assert threads.leased.threads[0].over.wait(PATIENCE)
    assert threads.left() == 1
    gate.open()
    assert threads.any.threads[0].over.wait(PATIENCE)
    assert threads.left() == 0


# -- Django's connections to databases --


class Connections:
    """What `django.db.connections` offers for the end of a thread."""

    def __init__(self, error: Exception | None = None) -> None:
        """Be open, and fail with `error` if there is one."""
        self.closed_by: list[str] = []
        self._error = error

    def close_all(self) -> None:
        """Note the thread."""
        self.closed_by.append(threading.current_thread().name)
        if self._error:
            raise self._error


def django(
    patch: pytest.MonkeyPatch, connections: Connections, *, configured: bool = True
) -> Connections:
    """Let a Django with `connections` be loaded, once the threads of other tests have ended."""
    for thread in threading.enumerate():
        if thread.name.startswith("daphne-supervisor-"):
            thread.join(PATIENCE)
            assert not thread.is_alive()
    settings = SimpleNamespace(configured=configured)
    patch.setitem(sys.modules, "django.db", SimpleNamespace(connections=connections))  # type: ignore[misc]
    patch.setitem(sys.modules, "django.conf", SimpleNamespace(settings=settings))  # type: ignore[misc]
    return connections


def test_connections_are_closed_by_the_threads_they_belong_to(
    monkeypatch: pytest.MonkeyPatch, threads: Threads
) -> None:
    """Nobody else can see them; a thread that has never run has none."""
    connections = django(monkeypatch, Connections())
    threads.begin().lease.submit(int).result(PATIENCE)
    threads.any.submit(int).result(PATIENCE)
    threads.shutdown()
    assert threads.leased.threads[0].over.wait(PATIENCE)
    assert threads.any.threads[0].over.wait(PATIENCE)
    assert sorted(connections.closed_by) == ["daphne-supervisor-any-1", "daphne-supervisor-sync-1"]


@pytest.mark.parametrize("missing", ["django.db", "django.conf", "settings"])
def test_without_a_django_that_is_set_up_nothing_is_closed(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Nothing of it is imported either: most applications have none."""
    connections = django(monkeypatch, Connections(), configured=missing != "settings")
    monkeypatch.delitem(sys.modules, missing, raising=False)
    close_connections()
    assert connections.closed_by == []
    assert (missing in sys.modules) is False


def test_a_connection_that_cannot_be_closed_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And ends nothing else."""
    django(monkeypatch, Connections(OSError("the database is gone")))
    close_connections()
    assert caplog.messages == ["a database connection could not be closed: the database is gone"]
