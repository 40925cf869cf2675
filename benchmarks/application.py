"""The application that every server serves in the benchmarks: as little as ASGI 3 allows.

It does nothing but what each scenario is about, so that what is measured is the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Receive = Callable[[], Awaitable[dict[str, Any]]]
    Send = Callable[[dict[str, Any]], Awaitable[None]]

HELLO = b"Hello, world!"
CHUNK = b"x" * 65536
CHUNKS = 16
"""Together 1 MiB."""

_TEXT = (b"content-type", b"text/plain")
_HELLO_HEADERS = [_TEXT, (b"content-length", b"%d" % len(HELLO))]


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answer by path: `/` hello, `/echo` the body, `/stream` 1 MiB; a WebSocket its own words."""
    if scope["type"] == "http":
        path = scope["path"]
        if path == "/":
            await send({"type": "http.response.start", "status": 200, "headers": _HELLO_HEADERS})
            await send({"type": "http.response.body", "body": HELLO})
        elif path == "/echo":
            await _echo(receive, send)
        else:
            await _stream(send)
    elif scope["type"] == "websocket":
        await _talk(receive, send)
    else:
        await _live(receive, send)


async def _echo(receive: Receive, send: Send) -> None:
    parts = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"".join(parts)
    headers = [_TEXT, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _stream(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [_TEXT]})
    for _ in range(CHUNKS):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _talk(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text is not None:
            await send({"type": "websocket.send", "text": text})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


async def _live(receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
