"""Quart: Flask's ways, asynchronous."""

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

from quart import (
    Quart,
    Response,
    abort,
    current_app,
    jsonify,
    make_response,
    request,
    send_file,
    websocket,
)

from tests.frameworks.notes import CODE, EVENTS, FILE, FOLDER, PIECES, Notes, digest

notes = Notes()
application = Quart(__name__, static_folder=str(FOLDER), static_url_path="/static")


@application.while_serving
async def lifespan() -> AsyncIterator[None]:
    """Count requests in what is left for them; say so at the end."""
    application.config["ASKED"] = []
    yield
    sys.stderr.write("lifespan ended\n")


@application.get("/hello/<path:name>")
async def hello(name: str) -> dict[str, Any]:
    """Say who is asked for what, by whom."""
    return {
        "name": name,
        "q": request.args.getlist("q"),
        "client": request.remote_addr,
        "url": f"{request.host_url}hello/",
    }


@application.post("/json")
async def echo_json() -> Response:
    """Echo."""
    return jsonify(await request.get_json())


@application.get("/cookies")
async def cookies() -> Response:
    """Set two, and return those that came."""
    response = await make_response(dict(request.cookies))
    response.set_cookie("one", "1")
    response.set_cookie("two", "2", httponly=True)
    return response


@application.post("/upload")
async def upload() -> dict[str, Any]:
    """Say what was in the form."""
    files = (await request.files).getlist("files")
    return {
        "title": (await request.form)["title"],
        "files": [[file.filename, digest(file.read())] for file in files],
    }


@application.post("/raw")
async def raw() -> Response:
    """Read the body as it comes."""
    return jsonify(digest(b"".join([piece async for piece in request.body])))


@application.get("/stream")
async def stream() -> AsyncIterator[bytes]:
    """Send pieces."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in PIECES:
            yield piece

    return pieces()


@application.get("/endless")
@application.get("/waiting")
async def endless() -> AsyncIterator[bytes]:
    """Send until the client leaves."""
    path = request.path

    async def pieces() -> AsyncIterator[bytes]:
        try:
            while True:
                yield PIECES[1]
                if path == "/waiting":
                    await asyncio.Event().wait()
        finally:
            notes.leave("left", path)

    return pieces()


@application.get("/left")
async def left() -> Response:
    """Say who has left."""
    return jsonify(await notes.take("left"))


@application.get("/events")
async def events() -> Any:
    """Send events."""

    async def lines() -> AsyncIterator[str]:
        for event in EVENTS:
            yield f"data: {event}\n\n"
            await notes.take("now")

    response = await make_response(lines(), {"Content-Type": "text/event-stream"})
    response.timeout = None
    return response


@application.get("/file")
async def file() -> Response:
    """Send a file."""
    return await send_file(FILE, conditional=True)


async def task() -> None:
    """Wait for the next request."""
    notes.leave("later", await notes.take("now"))


@application.post("/later")
async def later() -> tuple[str, int]:
    """Begin a task behind the response."""
    application.add_background_task(task)
    return "", 202


@application.get("/later")
async def done() -> Response:
    """Say that it is done."""
    return jsonify(await notes.take("later"))


@application.post("/now")
async def now() -> tuple[str, int]:
    """Let the task go on."""
    notes.leave("now", "done")
    return "", 204


@application.get("/state")
async def state() -> Response:
    """Count."""
    current_app.config["ASKED"].append(1)
    return jsonify(len(current_app.config["ASKED"]))


@application.get("/thread")
def thread() -> Response:
    """Name the thread of a synchronous view."""
    return jsonify(threading.current_thread().name)


@application.get("/fail")
async def fail() -> None:
    """Fail."""
    raise ValueError


@application.websocket("/ws")
async def echo() -> None:
    """Echo, or do as the message says."""
    protocol = "two" if "two" in websocket.requested_subprotocols else None
    await websocket.accept({"x-answered": "yes"}, subprotocol=protocol)
    try:
        while True:
            message = await websocket.receive()
            if message == "leaving":
                await websocket.send("leaving")
                await websocket.receive()
            elif message == "json":
                await websocket.send(json.dumps({"a": ["é", 1]}))
            elif message == "close":
                await websocket.close(4001, "enough")
                return
            else:
                await websocket.send(message)
    except asyncio.CancelledError:
        notes.leave("left", str(CODE))
        raise


@application.websocket("/ws/careless")
async def careless() -> None:
    """Read without thinking of the end."""
    while True:
        await websocket.send(await websocket.receive())


@application.websocket("/ws/denied")
async def denied() -> None:
    """Refuse."""
    abort(403)


@application.websocket("/ws/unpaid")
async def unpaid() -> tuple[str, int, dict[str, str]]:
    """Refuse with a response."""
    return "pay first", 402, {"X-Price": "5"}
