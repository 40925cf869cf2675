"""The application behind a real systemd: it says which release it is, and waits at gates.

A gate is a file. While a test holds the lock on it, whoever wants to pass waits, and says so in the
log: so the test knows when it is time to look, and decides how long a moment lasts.
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

GATES = Path("/srv/project/gates")


def release(number: int) -> Application:
    """Return an application with gates at its startup and at `/gate`; `/slow` takes 3 s."""

    async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(number, receive, send)
            return
        if scope["path"] == "/gate":
            await pass_gate(number, "request")
        elif scope["path"] == "/slow":
            await asyncio.sleep(3)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": f"release {number}".encode()})

    return application


async def lifespan(number: int, receive: Receive, send: Send) -> None:
    """Start behind the gate, and stop without more ado."""
    await receive()
    await pass_gate(number, "startup")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def pass_gate(number: int, name: str) -> None:
    """Wait until nobody holds the lock."""
    print(f"release {number} at the gate: {name}", flush=True)  # noqa: T201 - the shortest way to the journal
    await asyncio.to_thread(_pass_gate, GATES / name)


def _pass_gate(path: Path) -> None:
    with path.open("rb") as gate:
        fcntl.flock(gate, fcntl.LOCK_SH)
