"""The application of the tests of draining and recycling: who serves, streams, and memory."""

from __future__ import annotations

import asyncio
import os
from typing import Any

__all__ = ["application"]

Scope = dict[str, Any]

_MEBIBYTE = 1024 * 1024


class Application:
    """It says which process serves, and has a lifespan that ends."""

    def __init__(self) -> None:
        """Hold no memory yet."""
        self._held: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Go to the method that the path names."""
        if scope["type"] == "http":
            await getattr(self, f"path_{scope['path'][1:] or 'pid'}")(scope, receive, send)
        else:
            await getattr(self, scope["type"])(receive, send)

    async def lifespan(self, receive: Any, send: Any) -> None:
        """Say that everything went well."""
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})

    async def websocket(self, receive: Any, send: Any) -> None:
        """Say which process serves, then listen, and echo, until the end."""
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": str(os.getpid())})
        while (event := await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": event["text"]})

    async def path_pid(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer with the process id."""
        del scope, receive
        await _respond(send, str(os.getpid()).encode())

    async def path_hold(self, scope: Scope, receive: Any, send: Any) -> None:
        """Hold as many MiB more as the query says; answer with the process id."""
        self._held.append(b"x" * (int(scope["query_string"]) * _MEBIBYTE))
        await self.path_pid(scope, receive, send)

    async def path_stream(self, scope: Scope, receive: Any, send: Any) -> None:
        """Send a piece, and another every moment, until the client has left; then say goodbye."""
        del scope
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()
        left = asyncio.ensure_future(receive())
        while not left.done():
            await send({"type": "http.response.body", "body": b"more", "more_body": True})
            await asyncio.wait({left}, timeout=0.1)
        await send({"type": "http.response.body", "body": left.result()["type"].encode()})


async def _respond(send: Any, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


application = Application()
