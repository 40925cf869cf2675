"""The one lifespan call of a worker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from daphne_supervisor.errors import BootError
from daphne_supervisor.worker.lifespan import Lifespan
from tests.support.transports import on_loop, turn


class Application:
    """An application that answers each event as it was told to."""

    def __init__(self, *answers: dict[str, Any] | BaseException | None) -> None:
        """Answer so: a message, an error to raise, or `None` for silence."""
        self.answers = list(answers)
        self.heard: list[str] = []
        self.scope: dict[str, Any] = {}
        self.ended = ""

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Live."""
        self.scope = scope
        try:
            while self.answers:
                self.heard.append((await receive())["type"])
                answer = self.answers.pop(0)
                if isinstance(answer, BaseException):
                    raise answer  # noqa: TRY301 - that is what it was told to do
                if answer is None:
                    await asyncio.Event().wait()
                else:
                    await send(answer)
            self.ended = "returned"
        except BaseException as error:
            self.ended = type(error).__name__
            raise


STARTED = {"type": "lifespan.startup.complete"}
STOPPED = {"type": "lifespan.shutdown.complete"}


@on_loop
async def test_an_application_starts_and_stops() -> None:
    """It hears of both once, and what it leaves in the state is there for its requests."""
    application = Application(STARTED, STOPPED)
    lifespan = Lifespan(application)
    assert await lifespan.startup()
    assert application.scope["type"] == "lifespan"
    assert application.scope["state"] is lifespan.state
    await lifespan.shutdown(5)
    await turn()
    assert application.heard == ["lifespan.startup", "lifespan.shutdown"]
    assert application.ended == "returned"


@pytest.mark.parametrize("error", [ValueError("lifespan?"), SystemExit(1), None])
@on_loop
async def test_an_application_without_lifespan_is_served_without(
    error: BaseException | None,
) -> None:
    """One that raises or returns before it has started gets no further event."""
    application = Application(*([error] if error else []))
    lifespan = Lifespan(application)
    assert not await lifespan.startup()
    await lifespan.shutdown(5)
    assert "lifespan.shutdown" not in application.heard


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"message": "no database"}, "lifespan startup failed: no database"),
        ({}, "the application says so, without a message"),
    ],
)
@on_loop
async def test_an_application_that_cannot_start_is_not_served(
    answer: dict[str, str], text: str
) -> None:
    """Its own words reach the user."""
    application = Application({"type": "lifespan.startup.failed", **answer})
    with pytest.raises(BootError, match=text):
        await Lifespan(application).startup()


@on_loop
async def test_a_shutdown_that_takes_too_long_is_left_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The worker leaves all the same, and the log says why."""
    application = Application(STARTED, None)
    lifespan = Lifespan(application)
    await lifespan.startup()
    await lifespan.shutdown(0)
    await turn()
    assert "lifespan shutdown took longer than 0 s" in caplog.text
    assert application.ended == "CancelledError"


@on_loop
async def test_a_shutdown_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With the application's words."""
    lifespan = Lifespan(
        Application(STARTED, {"type": "lifespan.shutdown.failed", "message": "disk full"})
    )
    await lifespan.startup()
    await lifespan.shutdown(5)
    assert "lifespan shutdown failed: disk full" in caplog.text


@on_loop
async def test_an_application_that_ended_early_is_not_asked_to_stop() -> None:
    """It may return once it has started; nobody waits for it."""
    application = Application(STARTED)
    lifespan = Lifespan(application)
    assert await lifespan.startup()
    await turn()
    await lifespan.shutdown(5)
    assert application.heard == ["lifespan.startup"]


@on_loop
async def test_an_application_that_raises_as_it_stops_has_stopped() -> None:
    """There is nobody left to tell."""
    application = Application(STARTED, RuntimeError("x"))
    lifespan = Lifespan(application)
    await lifespan.startup()
    await lifespan.shutdown(5)
    assert application.ended == "RuntimeError"


@on_loop
async def test_a_worker_that_leaves_while_it_starts_does_not_wait(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An application that has not started is cancelled, not asked to stop."""
    application = Application(None)
    lifespan = Lifespan(application)
    starting = asyncio.ensure_future(lifespan.startup())
    await turn()
    await lifespan.shutdown(5)
    assert not await starting
    assert caplog.records == []
    assert (application.heard, application.ended) == (["lifespan.startup"], "CancelledError")


@on_loop
async def test_what_is_said_unasked_is_not_heard() -> None:
    """A second answer to the same event changes nothing."""
    application = Application(STARTED, STOPPED)

    async def twice(scope: Any, receive: Any, send: Any) -> None:
        async def doubled(message: Any) -> None:
            await send(message)
            await send({"type": "lifespan.startup.failed"})

        await application(scope, receive, doubled)

    assert await Lifespan(twice).startup()


@on_loop
async def test_nothing_that_started_is_nothing_to_stop() -> None:
    """A worker may leave before it has begun."""
    application = Application(STARTED)
    await Lifespan(application).shutdown(5)
    assert application.heard == []
