"""python-socketio in front of another ASGI application."""

import sys
from typing import Any

import socketio

server = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins=[])


@server.event
async def connect(sid: str, environ: dict[str, Any], auth: Any) -> None:
    """Let in who says the word."""
    if auth != {"word": "sesame"}:
        message = "say the word"
        raise ConnectionRefusedError(message)
    await server.save_session(sid, {"agent": environ["HTTP_USER_AGENT"]})
    await server.emit("welcome", {"sid": sid}, to=sid)


@server.event
async def echo(sid: str, data: Any) -> Any:
    """Return what was sent, as the acknowledgement."""
    del sid
    return data


@server.event
async def enter(sid: str, room: str) -> None:
    """Go into a room."""
    await server.enter_room(sid, room)


@server.event
async def say(sid: str, room: str, text: str) -> None:
    """Tell everybody else in a room."""
    await server.emit("said", text, room=room, skip_sid=sid)


@server.on("count", namespace="/other")
async def count(sid: str, data: bytes) -> int:
    """Count bytes, in another namespace."""
    del sid
    return len(data)


@server.on("connect", namespace="/other")
async def other(sid: str, environ: dict[str, Any], auth: Any) -> None:
    """Let everybody in."""
    del sid, environ, auth


async def start() -> None:
    """Begin with the worker."""
    sys.stderr.write("lifespan begun\n")


async def stop() -> None:
    """End with the worker."""
    sys.stderr.write("lifespan ended\n")


application = socketio.ASGIApp(server, on_startup=start, on_shutdown=stop)
