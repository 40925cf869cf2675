"""The application of the tests of upgrades: it says who serves, and starts when it may."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import daphne_supervisor

__all__ = ["application"]

Scope = dict[str, Any]


async def _startup() -> None:
    """Wait at the gate, a unix socket, for as long as there is one and it keeps us."""
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_unix_connection(os.environ["GATE"])
        try:
            await reader.read()
        finally:
            writer.close()


async def application(scope: Scope, receive: Any, send: Any) -> None:
    """Say which version serves, from which master and which worker; echo on a WebSocket."""
    if scope["type"] == "lifespan":
        await receive()
        await _startup()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})
    else:
        body = f"{daphne_supervisor.__version__} {os.getppid()} {os.getpid()}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
