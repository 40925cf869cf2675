"""The application behind the files of `deploy/`: it shows what it was told, and streams."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Receive = Callable[[], Awaitable[dict[str, Any]]]
    Send = Callable[[dict[str, Any]], Awaitable[None]]

NOTHING: dict[str, Any] = {"type": "http.response.body"}


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answer `/events` with a stream, a WebSocket with an echo, all else with the scope."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await echo(receive, send)
    elif scope["path"] == "/events":
        await events(receive, send)
    else:
        await show(scope, receive, send)


async def lifespan(receive: Receive, send: Send) -> None:
    """Start and stop without more ado."""
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})


async def echo(receive: Receive, send: Send) -> None:
    """Send back every text."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def events(receive: Receive, send: Send) -> None:
    """Send one event, and no more until the client goes."""
    await start(send, "text/event-stream")
    await send({**NOTHING, "body": b"data: first\n\n", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass


async def show(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Send what the server says of the request, and how long its body was."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    seen = {
        "pid": os.getpid(),
        "master": os.getppid(),
        "client": scope["client"],
        "scheme": scope["scheme"],
        "root_path": scope.get("root_path"),
        "headers": {name.decode(): value.decode() for name, value in scope["headers"]},
        "size": size,
    }
    await start(send, "application/json")
    await send({**NOTHING, "body": json.dumps(seen).encode()})


async def start(send: Send, content_type: str) -> None:
    """Begin a response with status 200."""
    headers = [(b"content-type", content_type.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
