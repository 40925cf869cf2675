"""What all connections of a worker share."""

from __future__ import annotations

import asyncio
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import pytest

from daphne_supervisor.config import App, Http
from daphne_supervisor.worker.service import FULL_EPISODE, SHED_INTERVAL
from tests.support.transports import HANDSHAKE, Line, Stage, on_loop, service, turn

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from daphne_supervisor.worker.response import Identity


@pytest.mark.parametrize(
    ("name", "line"),
    [("daphne", b"Server: daphne\r\n"), ("ünï", b"Server: \xfcn\xef\r\n"), ("", b"")],
)
@on_loop
async def test_it_names_itself(name: str, line: bytes) -> None:
    """As --server-name says, or not at all."""
    date, server, both = service(Stage(), http=Http(server_name=name)).identity
    assert (server, both) == (line, line + date + b"\r\n")


@on_loop
async def test_the_date_is_made_once_a_second() -> None:
    """It is HTTP's format; the next second has another one, and nobody has to ask for it."""
    served = service(Stage())
    before = served.identity
    first = _date(before)
    assert before[0].startswith(b"Date: ")
    while served.identity is before or _date(served.identity) == first:
        await turn()
    assert (_date(served.identity) - first).total_seconds() in {1.0, 2.0}


def _date(identity: Identity) -> datetime:
    return parsedate_to_datetime(identity[0][6:-2].decode())


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
    before = served.loop.time()
    assert before <= served.now() <= served.loop.time()


@on_loop
async def test_an_application_of_any_kind_is_called() -> None:
    """Whatever returns an awaitable is an application."""
    heard: list[Any] = []

    class Application:
        def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
            heard.append((scope["type"], callable(receive), callable(send)))
            done = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done

    await Line(service(Application())).ask()
    assert heard == [("http", True, True)]


@on_loop
async def test_every_scope_has_the_root_path() -> None:
    """Of --root-path."""
    stage = Stage()
    line = Line(service(stage, app=App(root_path="/prefix")))
    await line.ask()
    await line.leave()
    await Line(service(stage, app=App(root_path="/prefix"))).send(HANDSHAKE)
    assert [call.scope["root_path"] for call in stage.calls] == ["/prefix"] * 2


# -- limits --


@on_loop
async def test_by_default_there_is_no_limit_to_requests() -> None:
    """None that anybody reaches."""
    served = service(Stage())
    served.in_flight = 1_000_000
    assert served.in_flight < served.most_in_flight


def _lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines since the last call."""
    lines = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return lines


@on_loop
async def test_what_is_turned_away_is_logged_once_a_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first one at once, the others with their number; each line names the option."""
    served = service(Stage(), http=Http(max_inflight=7))
    loop = Later()
    served.loop = loop  # type: ignore[assignment]
    assert "--max-inflight" in served.shed()
    assert _lines(caplog) == ["worker 1: --max-inflight 7: turned away with 503: 1"]
    for _ in range(3):
        served.shed()
    assert _lines(caplog) == []
    assert loop.pass_time() == SHED_INTERVAL
    assert _lines(caplog) == ["worker 1: --max-inflight 7: turned away with 503: 3"]
    loop.pass_time()
    assert _lines(caplog) == []
    assert loop.later == []
    served.shed()
    assert _lines(caplog) == ["worker 1: --max-inflight 7: turned away with 503: 1"]


@on_loop
async def test_a_full_worker_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    """Not with every connection that ends and the next one that comes; but when it is news."""
    served = service(Stage(), http=Http(max_connections=5))
    loop = Later()
    served.now = loop.time
    for _ in range(3):
        served.note_full()
        loop.now += FULL_EPISODE - 1
    (line,) = _lines(caplog)
    assert line.startswith("worker 1: --max-connections 5: ")
    loop.now += 1
    served.note_full()
    assert len(_lines(caplog)) == 1


class Later:
    """An event loop whose time the test passes."""

    def __init__(self) -> None:
        """Have nothing to do later."""
        self.now = 0.0
        self.later: list[tuple[float, Callable[[], object]]] = []

    def time(self) -> float:
        """Return the time that was set."""
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object]) -> object:
        """Note what is to be done."""
        self.later.append((delay, callback))
        return self

    def pass_time(self) -> float:
        """Do what is to be done next; return after how many seconds."""
        delay, callback = self.later.pop(0)
        callback()
        return delay
