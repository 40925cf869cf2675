"""Starlette, as it is used without anything on top."""

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from tests.frameworks.notes import CODE, EVENTS, FILE, FOLDER, PIECES, Notes, digest

notes = Notes()


@contextlib.asynccontextmanager
async def lifespan(application: Starlette) -> AsyncIterator[dict[str, Any]]:
    """Count requests in what is left for them; say so at the end."""
    del application
    yield {"asked": []}
    sys.stderr.write("lifespan ended\n")


async def hello(request: Request) -> Response:
    """Say who is asked for what, by whom."""
    return JSONResponse(
        {
            "name": request.path_params["name"],
            "q": request.query_params.getlist("q"),
            "client": request.client.host if request.client else None,
            "url": str(request.url_for("hello", name="")),
        }
    )


async def echo_json(request: Request) -> Response:
    """Echo."""
    return JSONResponse(await request.json())


async def cookies(request: Request) -> Response:
    """Set two, and return those that came."""
    response = JSONResponse(request.cookies)
    response.set_cookie("one", "1")
    response.set_cookie("two", "2", httponly=True)
    return response


async def upload(request: Request) -> Response:
    """Say what was in the form."""
    async with request.form() as form:
        files = [[file.filename, digest(await file.read())] for file in form.getlist("files")]
        return JSONResponse({"title": form["title"], "files": files})


async def raw(request: Request) -> Response:
    """Read the body as it comes."""
    return JSONResponse(digest(b"".join([piece async for piece in request.stream()])))


async def stream(request: Request) -> Response:
    """Send pieces."""
    del request

    async def pieces() -> AsyncIterator[bytes]:
        for piece in PIECES:
            yield piece

    return StreamingResponse(pieces())


async def endless(request: Request) -> Response:
    """Send until the client leaves."""

    async def pieces() -> AsyncIterator[bytes]:
        try:
            while True:
                yield PIECES[1]
                if request.url.path == "/waiting":
                    await asyncio.Event().wait()
        finally:
            notes.leave("left", request.url.path)

    return StreamingResponse(pieces())


async def left(request: Request) -> Response:
    """Say who has left."""
    del request
    return JSONResponse(await notes.take("left"))


async def events(request: Request) -> Response:
    """Send events."""
    del request

    async def lines() -> AsyncIterator[str]:
        for event in EVENTS:
            yield f"data: {event}\n\n"
            await notes.take("now")

    return StreamingResponse(lines(), media_type="text/event-stream")


async def file(request: Request) -> Response:
    """Send a file."""
    del request
    return FileResponse(FILE)


async def later(request: Request) -> Response:
    """Begin a task behind the response, or say that it is done."""

    async def task() -> None:
        notes.leave("later", await notes.take("now"))

    if request.method == "GET":
        return JSONResponse(await notes.take("later"))
    return Response(status_code=202, background=BackgroundTask(task))


async def now(request: Request) -> Response:
    """Let the task go on."""
    del request
    notes.leave("now", "done")
    return Response(status_code=204)


async def state(request: Request) -> Response:
    """Count."""
    request.state.asked.append(1)
    return JSONResponse(len(request.state.asked))


def thread(request: Request) -> Response:
    """Name the thread of a synchronous view."""
    del request
    return JSONResponse(threading.current_thread().name)


async def fail(request: Request) -> Response:
    """Fail."""
    raise ValueError(request.url.path)


async def websocket(socket: WebSocket) -> None:
    """Echo, or do as the message says."""
    protocol = "two" if "two" in socket.scope["subprotocols"] else None
    await socket.accept(protocol, [(b"x-answered", b"yes")])
    while (message := await socket.receive())["type"] != "websocket.disconnect":
        if message.get("text") == "json":
            await socket.send_json({"a": ["é", 1]})
        elif message.get("text") == "close":
            await socket.close(4001, "enough")
            return
        elif message.get("bytes") is not None:
            await socket.send_bytes(message["bytes"])
        else:
            await socket.send_text(message["text"])
    if message["code"] == CODE:
        notes.leave("left", str(CODE))


async def careless(socket: WebSocket) -> None:
    """Read without thinking of the end, as many do."""
    await socket.accept()
    while True:
        await socket.send_text(await socket.receive_text())


async def denied(socket: WebSocket) -> None:
    """Refuse."""
    await socket.close()


async def unpaid(socket: WebSocket) -> None:
    """Refuse with a response."""
    await socket.send_denial_response(Response("pay first", 402, {"X-Price": "5"}))


application = Starlette(
    lifespan=lifespan,
    middleware=[Middleware(GZipMiddleware)],
    routes=[
        Route("/hello/{name:path}", hello),
        Route("/json", echo_json, methods=["POST"]),
        Route("/cookies", cookies),
        Route("/upload", upload, methods=["POST"]),
        Route("/raw", raw, methods=["POST"]),
        Route("/stream", stream),
        Route("/endless", endless),
        Route("/waiting", endless),
        Route("/left", left),
        Route("/events", events),
        Route("/file", file),
        Route("/later", later, methods=["GET", "POST"]),
        Route("/now", now, methods=["POST"]),
        Route("/state", state),
        Route("/thread", thread),
        Route("/fail", fail),
        Mount("/static", StaticFiles(directory=FOLDER)),
        WebSocketRoute("/ws", websocket),
        WebSocketRoute("/ws/careless", careless),
        WebSocketRoute("/ws/denied", denied),
        WebSocketRoute("/ws/unpaid", unpaid),
    ],
)
