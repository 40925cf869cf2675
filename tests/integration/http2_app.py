"""What HTTP/2 clients are tried with: a page, streams, hints, trailers, a WebSocket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.support.apps import Probe, read, respond

Scope = dict[str, Any]

_PAGE = b"""<!doctype html>
<meta charset="utf-8">
<title>HTTP/2</title>
<link rel="icon" href="data:,">
<p id="state">ready</p>
"""


class Application(Probe):
    """The probe, and what only HTTP/2 has, or has in another way."""

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Go to the method that the path names; a WebSocket is told how it has come."""
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] == "/style.css":
            self.events[b"style"].append("asked for")
            await respond(send, b"p { color: green }", content_type="text/css")
        else:
            await super().__call__(scope, receive, send)

    @staticmethod
    async def _websocket(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        told = {"version": scope["http_version"], "scheme": scope["scheme"]}
        await send({"type": "websocket.send", "text": json.dumps(told)})
        while (message := await receive())["type"] == "websocket.receive":
            if message.get("text") == "close":
                await send({"type": "websocket.close", "code": 4001, "reason": "as you like"})
                return
            kept = {key: message[key] for key in ("text", "bytes") if message.get(key) is not None}
            await send({"type": "websocket.send", **kept})

    async def path_page(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer with a page that does nothing by itself."""
        await read(receive)
        del scope
        await respond(send, _PAGE, content_type="text/html")

    async def path_hint(self, scope: Scope, receive: Any, send: Any) -> None:
        """Send an early hint and then the page."""
        links = [b"</style.css>; rel=preload; as=style"]
        await send({"type": "http.response.early_hint", "links": links})
        await self.path_page(scope, receive, send)

    async def path_trailers(self, scope: Scope, receive: Any, send: Any) -> None:
        """Send a body, and its size behind it."""
        await read(receive)
        del scope
        headers = [(b"trailer", b"x-size")]
        start = {"type": "http.response.start", "status": 200, "headers": headers}
        await send({**start, "trailers": True})
        await send({"type": "http.response.body", "body": b"12345"})
        await send({"type": "http.response.trailers", "headers": [(b"x-size", b"5")]})

    async def path_ticks(self, scope: Scope, receive: Any, send: Any) -> None:
        """Send so many numbers, one a line, each in a DATA frame of its own."""
        await read(receive)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(int(scope["query_string"])):
            line = b"%d\n" % number
            await send({"type": "http.response.body", "body": line, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})


application = Application()
