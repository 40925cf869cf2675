"""What all connections of a worker share."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from daphne_supervisor.config import Http
from tests.support.transports import Line, Stage, on_loop, service


@pytest.mark.parametrize(
    ("name", "line"),
    [("daphne", b"Server: daphne\r\n"), ("ünï", b"Server: \xfcn\xef\r\n"), ("", b"")],
)
@on_loop
async def test_it_names_itself(name: str, line: bytes) -> None:
    """As --server-name says, or not at all."""
    assert service(Stage(), http=Http(server_name=name)).identity()[1] == line


@on_loop
async def test_the_date_is_made_once_a_second() -> None:
    """It is HTTP's format, and the same object while the second lasts."""
    served = service(Stage())
    date = served.identity()[0]
    assert date.startswith(b"Date: ")
    assert parsedate_to_datetime(date[6:-2].decode()).utcoffset() is not None
    pairs = [served.identity() for _ in range(1000)]
    assert len({id(pair) for pair in pairs}) <= 2


@on_loop
async def test_each_call_has_its_own_copy_of_the_state() -> None:
    """What one request adds, the next does not see; what is in it, they share (ASGI lifespan)."""
    stage = Stage()
    served = service(stage)
    shared: list[int] = []
    served.state = {"shared": shared}
    await Line(served).ask()
    await Line(served).ask()
    first, second = (call.scope["state"] for call in stage.calls)
    first["own"] = 1
    assert "own" not in second
    assert first["shared"] is second["shared"] is shared


@on_loop
async def test_without_lifespan_there_is_no_state() -> None:
    """The key is missing, as the specification asks."""
    stage = Stage()
    await Line(service(stage)).ask()
    assert "state" not in stage.call.scope


@on_loop
async def test_a_warning_is_given_once(caplog: pytest.LogCaptureFixture) -> None:
    """For each of its keys."""
    served = service(Stage())
    for key in ("a", "b", "a"):
        served.warn_once(key, "about %s", key)
    assert [record.getMessage() for record in caplog.records] == ["about a", "about b"]


@on_loop
async def test_its_clock_is_the_loop_s() -> None:
    """Deadlines and timers have one time."""
    served = service(Stage())
    assert served.now() <= served.loop.time()


@on_loop
async def test_an_application_of_any_kind_is_called() -> None:
    """Whatever returns an awaitable is an application."""
    heard: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        heard.append((scope, receive, send))

    await service(application).call({"type": "x"}, 1, 2)
    assert heard == [({"type": "x"}, 1, 2)]
