"""The application of `test_channel_layer`: what a project with channels does, without Django.

A WebSocket at `/ROOM` is in the group of that name, and passes on what the others say. It says
first which process it is in, and then it is a member.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

from channels.exceptions import ChannelFull

from daphne_supervisor.channels import LocalChannelLayer

__all__ = ["application"]

LAYER = LocalChannelLayer()


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Serve a WebSocket, or answer a request with a number: mostly the process id."""
    if scope["type"] == "websocket":
        await _chat(scope["path"][1:], receive, send)
    elif scope["type"] == "http":
        if scope["path"] == "/layer":
            await LAYER.group_send("nobody", {})
        body = str(await _fill() if scope["path"] == "/fill" else os.getpid()).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
    else:
        raise ValueError(scope["type"])


async def _fill() -> int:
    """Send to a channel that nobody receives from until it is full; return how often it was not."""
    sent = 0
    with contextlib.suppress(ChannelFull):
        while sent < LAYER.capacity:
            await LAYER.send("jobs", {"text": "x" * 1000})
            sent += 1
    return sent


async def _chat(room: str, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    channel = await LAYER.new_channel()
    await LAYER.group_add(room, channel)
    await send({"type": "websocket.send", "text": str(os.getpid())})
    told = asyncio.create_task(_tell(channel, send))
    while (event := await receive())["type"] == "websocket.receive":
        await LAYER.group_send(room, {"type": "said", "text": event["text"]})
    told.cancel()
    await LAYER.group_discard(room, channel)


async def _tell(channel: str, send: Any) -> None:
    while True:
        message = await LAYER.receive(channel)
        await send({"type": "websocket.send", "text": message["text"]})
