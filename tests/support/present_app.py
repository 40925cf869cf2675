"""The application for many clients at once: whoever answers says who it is.

A request takes a moment, so that there are some on the way at any time. A WebSocket is greeted with
the process id, and every message is answered with it.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

__all__ = ["application"]

MOMENT = 0.1
"""Seconds that a request takes."""


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer with the process id."""
    if scope["type"] == "http":
        await _answer(send)
    elif scope["type"] == "websocket":
        await _converse(receive, send)
    else:
        raise ValueError(scope["type"])


async def _answer(send: Any) -> None:
    await asyncio.sleep(MOMENT)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})


async def _converse(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        await send({"type": "websocket.send", "text": str(os.getpid())})
        if (await receive())["type"] == "websocket.disconnect":
            return
