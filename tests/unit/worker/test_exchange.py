"""The life of one application call, whatever becomes of it and of its client."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from daphne_supervisor.config import Http
from daphne_supervisor.worker.exchange import ClientDisconnected, Exchange, as_bytes, unexpected
from daphne_supervisor.worker.thread_pool import Work
from tests.support.transports import Stage, on_loop, service, turn

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from daphne_supervisor.worker.service import Service

#: A task may run up to its first wait at once.
EAGER = sys.version_info >= (3, 12)

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


class Plain(Exchange):
    """An exchange that notes its end."""

    def __init__(self, served: Service) -> None:
        """Have no end yet."""
        super().__init__(served)
        self.end: list[Any] = []

    def turn_away(self) -> None:
        """Note it."""
        self.end.append("turned away")

    def scope(self) -> dict[str, Any]:
        """Be of some type."""
        return {"type": "plain"}

    async def receive(self) -> dict[str, Any]:
        """Wait for the client to leave."""
        while not self.gone:
            await self.wait()
        return {"type": "gone"}

    async def send(self, message: dict[str, Any]) -> None:
        """Refuse everything once the client has left."""
        if self.gone:
            raise ClientDisconnected
        raise unexpected(message["type"], "it is a test")

    def failed(self, error: BaseException) -> None:
        """Note it."""
        self.end.append(error)

    def returned(self) -> None:
        """Note it."""
        self.end.append("returned")

    def describe(self) -> str:
        """Be called so."""
        return "PLAIN /"


async def started(**http: Any) -> tuple[Plain, Stage, Service]:
    """Return an exchange whose application runs."""
    stage = Stage()
    served = service(stage, http=Http(**http))
    exchange = Plain(served)
    exchange.start()
    await turn()
    return exchange, stage, served


@on_loop
async def test_a_call_returns() -> None:
    """While it runs it can be found; afterwards nothing of it is left."""
    exchange, stage, served = await started()
    assert served.exchanges == {exchange}
    assert (served.requests, served.in_flight) == (1, 1)
    assert stage.call.scope == {"type": "plain"}
    await stage.call.returns()
    assert (exchange.end, served.exchanges) == (["returned"], set())


@on_loop
async def test_it_knows_the_synchronous_code_that_it_asks_for() -> None:
    """Whichever task of it asks, and whatever thread it is to run on."""
    exchange, _, served = await started()
    other = Work(served.threads.begin().lease, int, (), {})
    own = Work(exchange._call.lease, int, (), {})
    free = Work(None, int, (), {})
    assert [exchange.asks(work) for work in (other, own, free)] == [False, True, False]
    free.asker = exchange._call.lease
    assert exchange.asks(free)


@on_loop
async def test_beyond_max_inflight_nothing_is_called() -> None:
    """The kind of exchange answers instead; what was turned away is no request, and has no end."""
    stage = Stage()
    served = service(stage, http=Http(max_inflight=2))
    one, two, three = (Plain(served) for _ in range(3))
    for exchange in (one, two, three):
        exchange.start()
    await turn()
    assert [exchange.end for exchange in (one, two, three)] == [[], [], ["turned away"]]
    assert (len(stage.calls), served.requests, served.in_flight) == (2, 2, 2)
    assert served.exchanges == {one, two}
    three.leave()
    three.cancel()
    assert three._timer is None


@pytest.mark.parametrize("error", [RuntimeError("x"), SystemExit(3), KeyboardInterrupt()])
@on_loop
async def test_a_call_fails(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """Its traceback is logged, its exchange told; even `SystemExit` does not end the worker."""
    exchange, stage, served = await started()
    await stage.call.raises(error)
    assert (exchange.end, served.exchanges) == ([error], set())
    assert "Exception inside application: PLAIN /" in caplog.text


@on_loop
async def test_a_call_that_lets_the_disconnect_pass_has_returned(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`send` told it that its client has left: there is nothing to log."""
    exchange, stage, _ = await started()
    exchange.leave()
    with pytest.raises(ClientDisconnected):
        await stage.call.send({"type": "x"})
    await stage.call.raises(ClientDisconnected())
    assert (exchange.end, caplog.records) == (["returned"], [])


class StreamDisconnect(Exception):
    """What a framework makes of it that its client has left."""


def chained(error: BaseException, *causes: BaseException) -> BaseException:
    """Return `error`, raised from `causes`, the latest first."""
    latest = error
    for cause in causes:
        latest.__cause__ = cause
        latest = cause
    return error


def caused_by_itself() -> BaseException:
    """Return an exception whose chain has no end."""
    error = RuntimeError("mine")
    error.__cause__ = error
    return error


@pytest.mark.parametrize(
    "error",
    [
        StreamDisconnect(),
        ExceptionGroup("tasks", [chained(OSError(), ValueError(), ClientDisconnected())]),
        ExceptionGroup("tasks", [StreamDisconnect(), ClientDisconnected()]),
        ExceptionGroup("tasks", [chained(OSError(), ExceptionGroup("", [StreamDisconnect()]))]),
    ],
    ids=["by name", "by its cause", "all of a group", "a group as cause"],
)
@on_loop
async def test_a_framework_s_own_word_for_the_disconnect_is_a_line_in_the_log(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """No client that leaves makes a traceback, whatever its framework raises then."""
    caplog.set_level("INFO")
    exchange, stage, _ = await started()
    exchange.leave()
    await stage.call.raises(error)
    assert exchange.end == ["returned"]
    (record,) = caplog.records
    assert record.message == f"PLAIN /: the client has left, the application ended: {error!r}"
    assert record.exc_info is None


@pytest.mark.parametrize(
    "error",
    [
        ValueError("mine"),
        ExceptionGroup("tasks", [chained(ValueError("mine"), KeyError()), caused_by_itself()]),
        ExceptionGroup("tasks", [StreamDisconnect(), ValueError("mine")]),
    ],
    ids=["plain", "with other causes", "one of a group"],
)
@on_loop
async def test_a_mistake_is_one_without_a_client_too(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """What has nothing to do with the departure is logged in full."""
    exchange, stage, _ = await started()
    exchange.leave()
    await stage.call.raises(error)
    assert exchange.end == [error]
    assert "Exception inside application: PLAIN /" in caplog.text


@on_loop
async def test_a_disconnect_of_something_else_is_a_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While the client is there, an exception of that name is like any other."""
    exchange, stage, _ = await started()
    error = StreamDisconnect("the database's")
    await stage.call.raises(error)
    assert exchange.end == [error]
    assert "Exception inside application: PLAIN /" in caplog.text


def test_the_disconnect_is_an_os_error() -> None:
    """Applications catch what ASGI 2.4 names."""
    assert issubclass(ClientDisconnected, OSError)


@on_loop
async def test_a_call_that_is_cancelled_has_failed() -> None:
    """Unless its client has left: then it has ended as it should."""
    exchange, _, _ = await started()
    exchange.cancel()
    await turn()
    assert isinstance(exchange.end[0], asyncio.CancelledError)
    exchange, _, _ = await started()
    exchange.leave()
    exchange.cancel()
    await turn()
    assert exchange.end == ["returned"]


@on_loop
async def test_a_call_whose_event_loop_has_ended_is_nobody_s_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At the end of the worker there is nothing to answer, and nothing to log."""
    served = service(Stage())
    exchange = Plain(served)
    exchange._call = served.threads.begin()
    served.exchanges.add(exchange)
    call = exchange._run()
    call.send(None)
    call.close()
    assert (exchange.end, caplog.records, served.exchanges) == ([], [], set())


@pytest.mark.parametrize("waits", [False, True])
@on_loop
async def test_a_client_may_leave_while_the_call_takes_its_first_steps(*, waits: bool) -> None:
    """Where Python runs them at once there is no task yet; the call has its time all the same."""
    release = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        del scope, send
        exchange.leave()
        assert await receive() == {"type": "gone"}
        if waits:
            await release.wait()

    exchange = Plain(service(application, http=Http(application_close_timeout=60)))
    exchange.start()
    await turn()
    timer = exchange._timer
    assert (timer is not None) is (waits or not EAGER)
    assert exchange.end == ([] if waits else ["returned"])
    release.set()
    await turn()
    assert exchange.end == ["returned"]
    assert timer is None or timer.cancelled()


@on_loop
async def test_a_call_that_begins_without_its_client_has_its_time_too() -> None:
    """It is called, hears that there is nobody, and is watched from then on."""
    stage = Stage()
    exchange = Plain(service(stage))
    exchange.leave()
    exchange.start()
    assert exchange._timer is not None
    await turn()
    assert await stage.call.receive() == {"type": "gone"}
    await stage.call.returns()
    assert exchange._timer.cancelled()


@pytest.mark.skipif(not EAGER, reason="from Python 3.12 on")
@on_loop
async def test_a_call_that_waits_for_nothing_costs_no_turn_of_the_loop() -> None:
    """It has ended when it has started."""
    called: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        del receive, send
        called.append(scope["type"])

    served = service(application)
    exchange = Plain(served)
    exchange.start()
    assert (called, exchange.end, served.exchanges) == (["plain"], ["returned"], set())


@on_loop
async def test_nothing_to_cancel_is_nothing_to_do() -> None:
    """A request may lose its client before its turn comes."""
    exchange = Plain(service(Stage()))
    exchange.cancel()
    exchange.leave()
    assert exchange.gone
    assert exchange._timer is None


@on_loop
async def test_who_writes_to_a_closing_transport_lets_the_loop_turn() -> None:
    """Otherwise nobody would ever say that the connection is lost."""
    exchange, _, _ = await started()
    asyncio.get_running_loop().call_soon(exchange.leave)
    with pytest.raises(ClientDisconnected):
        await exchange.refuse()
    assert exchange.gone


@on_loop
async def test_everybody_who_receives_hears_that_the_client_has_left() -> None:
    """Each of several waiting `receive` calls is woken, and the next one does not wait."""
    exchange, stage, _ = await started()
    waiting = [asyncio.ensure_future(stage.call.receive()) for _ in range(3)]
    await turn()
    exchange.wake()
    await turn()
    assert not any(task.done() for task in waiting)
    exchange.leave()
    assert await asyncio.gather(*waiting, stage.call.receive()) == [{"type": "gone"}] * 4


@on_loop
async def test_a_receive_that_is_cancelled_leaves_no_more_than_itself() -> None:
    """An application may look again and again whether its client is still there."""
    exchange, stage, _ = await started()
    for _ in range(5):
        looking = asyncio.ensure_future(stage.call.receive())
        await turn()
        assert len(exchange._waiters) == 1
        looking.cancel()
        await turn()
    exchange.wake()
    assert exchange._waiters == ()


@on_loop
async def test_a_receive_that_is_cancelled_leaves_the_others_waiting() -> None:
    """Each of several has its own place, also when one of them goes and another comes."""
    exchange, stage, _ = await started()
    first, second, third = (asyncio.ensure_future(stage.call.receive()) for _ in range(3))
    await turn()
    second.cancel()
    await turn()
    fourth = asyncio.ensure_future(stage.call.receive())
    await turn()
    assert len(exchange._waiters) == 3
    exchange.leave()
    assert await asyncio.gather(first, third, fourth) == [{"type": "gone"}] * 3


@on_loop
async def test_a_call_is_a_task_of_the_loop_s() -> None:
    """Under its name; one whose factory is the application's own is made by that."""
    exchange, _, _ = await started()
    assert exchange._task is not None
    assert exchange._task.get_name() == "application"
    made: list[asyncio.Task[Any]] = []

    def factory(
        loop: asyncio.AbstractEventLoop, call: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        made.append(asyncio.Task(call, loop=loop, **options))
        return made[-1]

    asyncio.get_running_loop().set_task_factory(factory)  # type: ignore[arg-type]
    own, _, _ = await started()
    assert made == [own._task]
    for task in (exchange._task, *made):
        task.cancel()


@pytest.mark.parametrize("own_factory", [False, True])
@on_loop
async def test_a_call_has_variables_of_its_own(*, own_factory: bool) -> None:
    """None of what begins it, and nothing of it stays for the next, which has the same lease."""
    seen: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive, send
        seen.append(variable.get())
        variable.set("the call before")

    loop = asyncio.get_running_loop()
    if own_factory:
        loop.set_task_factory(
            lambda loop, call, **options: asyncio.Task(call, loop=loop, **options)
        )
    served = service(application)
    variable.set("whoever begins it")
    leases = []
    for _ in range(2):
        exchange = Plain(served)
        exchange.start()
        leases.append(exchange._call.lease)
        await turn()
    assert seen == ["none", "none"]
    assert leases[0] is leases[1]


@on_loop
async def test_a_receive_cancelled_as_it_is_woken_is_no_error() -> None:
    """Both may happen before the task goes on."""
    exchange, stage, _ = await started()
    looking = asyncio.ensure_future(stage.call.receive())
    await turn()
    looking.cancel()
    exchange.wake()
    exchange.wake()
    await turn()
    assert looking.cancelled()


@on_loop
async def test_a_call_begins_at_some_time_and_has_its_own_end() -> None:
    """The log says how long it has been running; a kind that is no stream is not dismissed."""
    before = time.monotonic()
    exchange, _, _ = await started()
    assert before <= exchange.begun <= time.monotonic()
    assert not exchange.dismiss()
    assert not exchange.gone


@on_loop
async def test_a_call_that_overstays_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """After --application-close-timeout seconds without a client; the log names the option."""
    exchange, _, served = await started(application_close_timeout=0)
    exchange.leave()
    exchange.leave()
    await turn()
    assert (exchange.end, served.exchanges) == (["returned"], set())
    assert "--application-close-timeout" in caplog.text


@on_loop
async def test_a_call_that_ends_in_time_is_not_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its timer goes with it."""
    exchange, stage, _ = await started(application_close_timeout=60)
    exchange.leave()
    timer = exchange._timer
    assert timer is not None
    await stage.call.returns()
    assert (timer.cancelled(), exchange.end, caplog.records) == (True, ["returned"], [])


@on_loop
async def test_a_client_that_leaves_after_the_call_changes_nothing() -> None:
    """No timer is started for what has ended."""
    exchange, stage, _ = await started()
    await stage.call.returns()
    exchange.leave()
    assert exchange._timer is None


def test_bytes_are_bytes() -> None:
    """What is like bytes is taken, and copied if it may change; text is refused."""
    buffer = bytearray(b"abc")
    taken = as_bytes(buffer)
    buffer[0] = 0
    whole = b"x"
    assert taken == b"abc"
    assert as_bytes(memoryview(b"abc")) == b"abc"
    assert as_bytes(whole) is whole
    for wrong in ("text", None, 3):
        with pytest.raises(TypeError):
            as_bytes(wrong)


def test_an_unexpected_message_is_named() -> None:
    """With the state in which it may not be sent."""
    assert str(unexpected("x.y", "it is late")) == "unexpected ASGI message 'x.y': it is late"
