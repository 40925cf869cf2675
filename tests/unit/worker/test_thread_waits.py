"""What the log hears of synchronous code that waits: who, for whom, and where both stand."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async

from daphne_supervisor.config import Process
from daphne_supervisor.worker import thread_waits
from daphne_supervisor.worker.thread_waits import INTERVAL, Waits
from tests.support.gate import Gate
from tests.support.transports import Line, on_loop, service, turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import pytest

THRESHOLD = 2.0


class Blocking:
    """An application whose requests block their thread, and do not get it."""

    def __init__(self, threads: int = 1, threshold: float = THRESHOLD) -> None:
        """Be served with `threads`."""
        process = Process(threads=threads, thread_wait_warning=threshold)
        self.service = service(self, process=process)
        self.waits = Waits(4, self.service)
        self.gates: list[Gate] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Block."""
        del scope, receive, send
        await self.needs_the_database()

    async def needs_the_database(self) -> None:
        """Be a line in a stack."""
        await self.through_a_generator()

    async def through_a_generator(self) -> None:
        """Be another."""
        gate = Gate()
        self.gates.append(gate)
        await sync_to_async(gate)()

    async def ask(self, *targets: bytes) -> None:
        """Send requests, each on a connection of its own."""
        for target in targets:
            await Line(self.service).ask(target)

    def look(self, seconds: float) -> None:
        """Look when what waits longest has waited so many seconds."""
        self.waits.look(self.service.threads.queued()[0][0].since + seconds)

    async def end(self) -> None:
        """Let everything end."""
        for gate in self.gates:
            gate.open()
        tasks = [exchange._task for exchange in list(self.service.exchanges)]
        await asyncio.gather(*(task for task in tasks if task))
        self.service.threads.leased.shutdown()
        self.service.threads.any.shutdown()


@on_loop
async def test_both_stacks_are_shown(caplog: pytest.LogCaptureFixture) -> None:
    """Whose call waits for which thread, who has the thread, and the lines where both stand."""
    application = Blocking()
    await application.ask(b"/has", b"/wants")
    application.gates[0].wait()
    application.look(3)
    (text,) = caplog.messages
    head, *rest = text.splitlines()
    assert head.startswith("worker 4: synchronous code has waited 3.0 s for a thread")
    assert head.endswith(
        " s for a thread (--thread-wait-warning 2): GET /wants waits for a free one; threads busy:"
        " 1 of 1 (--threads), calls that wait: 1. If these do not move on, it is a deadlock:"
    )
    assert rest[0] == "  GET /wants waits here:"
    body = "\n".join(rest)
    waits, holds = body.split("  daphne-supervisor-sync-1 has run ")
    assert "in needs_the_database\n" in waits
    assert waits.index("needs_the_database") < waits.index("in through_a_generator")
    assert holds.partition(" s ")[2].startswith("for GET /has, here:\n")
    assert "in __call__\n      assert self._open.wait(PATIENCE)" in holds
    assert "thread_pool.py" not in text
    assert all(line.startswith("  ") for line in rest)
    await application.end()


@on_loop
async def test_a_wait_that_is_short_is_nothing_to_talk_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nor are threads with nothing to do, nor any wait at all with --thread-wait-warning 0."""
    application, silent = Blocking(), Blocking(threshold=0.0)
    application.waits.look(time.monotonic() + 3)
    for each in (application, silent):
        await each.ask(b"/has")
        each.gates[0].wait()
        each.waits.look(time.monotonic() + 3)
        await each.ask(b"/wants")
    application.look(1.99)
    silent.look(1e6)
    assert caplog.messages == []
    for each in (application, silent):
        await each.end()


@on_loop
async def test_it_is_said_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """The stacks are long."""
    application = Blocking()
    await application.ask(b"/has", b"/wants")
    application.gates[0].wait()
    now = time.monotonic()
    for later in (3, 4, 2 + INTERVAL, 4 + INTERVAL):
        application.waits.look(now + later)
    assert len(caplog.messages) == 2
    await application.end()


@on_loop
async def test_who_waits_for_its_own_thread_hears_of_that_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And of no other one that is busy."""
    application = Blocking(threads=2)
    await application.ask(b"/one", b"/two")
    for gate in application.gates:
        gate.wait()
    lease = next(
        exchange._call.lease
        for exchange in application.service.exchanges
        if exchange.describe().endswith("/two")
    )
    lease.submit(int)
    application.look(3)
    (text,) = caplog.messages
    assert "GET /two waits for daphne-supervisor-sync-2;" in text
    assert "  daphne-supervisor-sync-2 has run " in text
    assert "daphne-supervisor-sync-1" not in text
    await application.end()


@on_loop
async def test_of_many_threads_some_are_shown(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are counted."""
    monkeypatch.setattr(thread_waits, "MOST", 2)
    application = Blocking(threads=3)
    await application.ask(b"/1", b"/2", b"/3", b"/" + b"x" * 300)
    for gate in application.gates[:3]:
        gate.wait()
    application.look(3)
    (text,) = caplog.messages
    assert text.count(" has run ") == 2
    assert text.endswith("\n  and 1 more threads")
    assert "xxx... waits for a free one" in text
    await application.end()


@on_loop
async def test_work_of_nobody_is_named_by_its_task(caplog: pytest.LogCaptureFixture) -> None:
    """Or by having none: a task may outlive its request, a thread may ask for another one."""
    application = Blocking()
    gate = Gate()
    pool = application.service.threads.any
    pool.submit(gate)
    gate.wait()

    async def generated() -> AsyncIterator[int]:
        yield await asyncio.wrap_future(pool.submit(int))

    async def ask() -> None:
        async for _ in generated():
            pass

    task = asyncio.create_task(ask(), name="clock")
    await turn()
    application.look(3)
    assert "'clock' waits for a free one" in caplog.messages[0]
    assert "in ask\n" in caplog.messages[0]
    gate.open()
    await task
    await application.end()


@on_loop
async def test_code_outside_of_any_task_has_no_stack_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A thread of the application's that asks for one of ours."""
    application = Blocking()
    pool = application.service.threads.any
    gate = Gate()
    for what in (gate, int):
        _on_another_thread(pool.submit, what)
    gate.wait()
    application.look(3)
    assert "code outside of any task waits for a free one" in caplog.messages[0]
    gate.open()
    await application.end()


def _on_another_thread(function: Callable[..., Any], *args: Any) -> None:
    thread = threading.Thread(target=function, args=args)
    thread.start()
    thread.join()


@on_loop
async def test_a_thread_that_is_done_meanwhile_is_not_shown() -> None:
    """The look takes no lock: it must bear whatever happens at the same time."""
    application = Blocking()
    (thread,) = application.service.threads.leased.threads
    assert list(application.waits._holder(thread, 0.0)) == []
    assert list(thread_waits._frames_of_thread(None)) == []
