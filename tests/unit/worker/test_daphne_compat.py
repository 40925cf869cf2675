"""The scopes of Daphne, key by key."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from daphne_supervisor.config import Config
from daphne_supervisor.scoreboard import Scoreboard
from daphne_supervisor.worker.daphne_compat import DaphneScopes
from daphne_supervisor.worker.service import Service
from tests.support.transports import HANDSHAKE, Line, Stage, on_loop, turn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

#: What Daphne 4.2's own tests allow in a scope.
COMMON = {
    *("type", "asgi", "path", "raw_path", "query_string", "root_path"),
    *("headers", "client", "server"),
}
HTTP = COMMON | {"http_version", "method", "scheme"}
WEBSOCKET = COMMON | {"subprotocols"}


def line(application: Callable[..., Awaitable[None]]) -> Line:
    """Return a connection to `application`, which has a lifespan with state."""
    loop = asyncio.get_running_loop()
    config = Config(application="a:b")
    served = Service(config, application, None, loop, scoreboard=Scoreboard(), slot=1)
    served.state = {"left": "by the lifespan"}
    return Line(served)


@on_loop
async def test_an_http_scope_has_daphnes_keys_and_no_other() -> None:
    """Neither `extensions` nor `state`, and no version of the specification of HTTP."""
    stage = Stage()
    await line(DaphneScopes(stage)).ask()
    assert stage.call.scope.keys() == HTTP
    assert stage.call.scope["asgi"] == {"version": "3.0"}
    await stage.call.start()
    await stage.call.body(b"x")
    await stage.call.returns()


@on_loop
async def test_a_websocket_scope_has_daphnes_keys_and_no_other() -> None:
    """Daphne gives it no scheme and no version of HTTP."""
    stage = Stage()
    one = line(DaphneScopes(stage))
    await one.send(HANDSHAKE)
    assert stage.call.scope.keys() == WEBSOCKET
    assert stage.call.scope["asgi"] == {"version": "3.0"}
    assert await stage.call.receive() == {"type": "websocket.connect"}
    await one.leave()
    await stage.call.returns()
    await turn()


@pytest.mark.parametrize("kind", ["lifespan", "other"])
def test_any_other_scope_stays_as_it_is(kind: str) -> None:
    """Daphne has no lifespan at all, so nobody asserts on its keys."""
    scopes: list[dict[str, Any]] = []

    async def application(scope: dict[str, Any], *_: Any) -> None:
        scopes.append(scope)

    whole = {"type": kind, "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    asyncio.run(DaphneScopes(application)(whole.copy(), None, None))  # type: ignore[arg-type]
    assert scopes == [whole]
