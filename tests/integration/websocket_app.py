"""The application of `test_websocket`: a path for each way to treat a WebSocket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

__all__ = ["application"]

Scope = dict[str, Any]


class Application:
    """It remembers how each WebSocket has ended, and answers `/ended` with the next end."""

    def __init__(self) -> None:
        """Nothing has ended yet."""
        self._ends: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._release = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Go to the method that the path names."""
        if scope["type"] == "lifespan":
            raise ValueError(scope["type"])
        kind = scope["type"]
        await getattr(self, f"{kind}_{scope['path'][1:]}")(scope, receive, send)

    # -- HTTP --

    async def http_ended(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer with the end of the WebSocket that ended first, as soon as one has."""
        del scope, receive
        body = json.dumps(await self._ends.get()).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def http_release(self, scope: Scope, receive: Any, send: Any) -> None:
        """Let those go on who do not read."""
        del scope, receive
        self._release.set()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    # -- WebSocket --

    async def _echo(self, receive: Any, send: Any) -> None:
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                self._ends.put_nowait(event)
                return
            kept = {key: event[key] for key in ("text", "bytes") if event.get(key) is not None}
            await send({"type": "websocket.send", **kept})

    async def websocket_echo(self, scope: Scope, receive: Any, send: Any) -> None:
        """Echo messages."""
        del scope
        await receive()
        await send({"type": "websocket.accept"})
        await self._echo(receive, send)

    async def websocket_greet(self, scope: Scope, receive: Any, send: Any) -> None:
        """Accept the last subprotocol, with headers."""
        await receive()
        headers = [(b"x-one", b"1"), (b"set-cookie", b"a=b"), (b"set-cookie", b"c=d")]
        chosen = scope["subprotocols"][-1]
        await send({"type": "websocket.accept", "subprotocol": chosen, "headers": headers})
        await self._echo(receive, send)

    async def websocket_forge(self, scope: Scope, receive: Any, send: Any) -> None:
        """Accept with a header that would be two."""
        del scope
        await receive()
        await send({"type": "websocket.accept", "headers": [(b"x-one", b"1\r\nx-two: 2")]})

    async def websocket_refuse(self, scope: Scope, receive: Any, send: Any) -> None:
        """Refuse."""
        del scope
        await receive()
        await send({"type": "websocket.close"})

    async def websocket_deny(self, scope: Scope, receive: Any, send: Any) -> None:
        """Refuse with a response."""
        assert "websocket.http.response" in scope["extensions"]
        await receive()
        headers = [(b"www-authenticate", b"Basic")]
        await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
        body = {"type": "websocket.http.response.body"}
        await send(body | {"body": b"who ", "more_body": True})
        await send(body | {"body": b"are you?"})

    async def websocket_close(self, scope: Scope, receive: Any, send: Any) -> None:
        """Close at the first message."""
        del scope
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.close", "code": 4001, "reason": "enough"})
        self._ends.put_nowait(await receive())

    async def websocket_return(self, scope: Scope, receive: Any, send: Any) -> None:
        """Return."""
        del scope
        await receive()
        await send({"type": "websocket.accept"})

    async def websocket_raise(self, scope: Scope, receive: Any, send: Any) -> None:
        """Raise."""
        del scope
        await receive()
        await send({"type": "websocket.accept"})
        message = "deliberate"
        raise RuntimeError(message)

    async def websocket_exit(self, scope: Scope, receive: Any, send: Any) -> None:
        """Raise what would end a process."""
        del scope
        await receive()
        await send({"type": "websocket.accept"})
        raise SystemExit(1)

    async def websocket_silent(self, scope: Scope, receive: Any, send: Any) -> None:
        """Never answer the handshake, and note the end."""
        del scope, send
        await receive()
        self._ends.put_nowait(await receive())

    async def websocket_deaf(self, scope: Scope, receive: Any, send: Any) -> None:
        """Read nothing until it is released, then count the bytes until an empty message."""
        del scope
        await receive()
        await send({"type": "websocket.accept"})
        await self._release.wait()
        count = 0
        while data := (await receive()).get("bytes"):
            count += len(data)
        await send({"type": "websocket.send", "text": str(count)})

    async def websocket_flood(self, scope: Scope, receive: Any, send: Any) -> None:
        """Send without end, and note what stops it."""
        del scope
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(65536)})
        except OSError as error:
            self._ends.put_nowait({"raised": type(error).__name__} | await receive())


application = Application()
