"""The application behind a real systemd: it says which release it is, and waits at a gate.

The gate is a file. While a test holds the lock on it, whoever wants to pass waits, and says so in
the log: so the test knows when it is time to look, and decides how long a moment lasts.
"""

from __future__ import annotations

import asyncio
import fcntl
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Receive = Callable[[], Awaitable[dict[str, Any]]]
    Send = Callable[[dict[str, Any]], Awaitable[None]]
    Application = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

GATE = "/srv/project/gate"


def release(number: int) -> Application:
    """Return an application whose startup passes the gate, as `/gate` does, and `/slow` takes 3 s."""

    async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        if scope["path"] == "/gate":
            await pass_gate("a request")
        elif scope["path"] == "/slow":
            await asyncio.sleep(3)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": f"release {number}".encode()})

    return application


async def lifespan(receive: Receive, send: Send) -> None:
    """Start behind the gate, and stop without more ado."""
    await receive()
    await pass_gate("startup")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def pass_gate(who: str) -> None:
    """Wait until nobody holds the lock."""
    print(f"{who} is at the gate", flush=True)  # noqa: T201 - to the journal, by the shortest way
    await asyncio.to_thread(_pass_gate)


def _pass_gate() -> None:
    with Path(GATE).open("rb") as gate:
        fcntl.flock(gate, fcntl.LOCK_SH)
