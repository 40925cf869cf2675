"""FastAPI: declared parameters, dependencies, models."""

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterable, AsyncIterator
from typing import Annotated, Any

from fastapi import (
    BackgroundTasks,
    Cookie,
    Depends,
    FastAPI,
    File,
    Form,
    HTTPException,
    Query,
    Request,
    Response,
    UploadFile,
    WebSocket,
    WebSocketDisconnect,
)
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, StreamingResponse
from fastapi.sse import EventSourceResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from tests.frameworks.notes import CODE, EVENTS, FILE, FOLDER, PIECES, Notes, digest

notes = Notes()


@contextlib.asynccontextmanager
async def lifespan(application: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Count requests in what is left for them; say so at the end."""
    del application
    yield {"asked": []}
    sys.stderr.write("lifespan ended\n")


application = FastAPI(lifespan=lifespan)
application.add_middleware(CORSMiddleware, allow_origins=["https://elsewhere.example"])
application.mount("/static", StaticFiles(directory=FOLDER))


@application.get("/hello/{name:path}")
async def hello(name: str, request: Request, q: Annotated[list[str], Query()]) -> dict[str, Any]:
    """Say who is asked for what, by whom."""
    client = request.client.host if request.client else None
    return {"name": name, "q": q, "client": client, "url": str(request.url_for("hello", name=""))}


@application.post("/json")
async def echo_json(request: Request) -> Any:
    """Echo."""
    return await request.json()


class Item(BaseModel):
    """What is looked at before it is taken."""

    name: str
    price: float


@application.post("/item")
async def item(sent: Item) -> Item:
    """Return what has been understood."""
    return sent


@application.get("/cookies")
async def cookies(
    response: Response,
    one: Annotated[str | None, Cookie()] = None,
    two: Annotated[str | None, Cookie()] = None,
) -> dict[str, str | None]:
    """Set two, and return those that came."""
    response.set_cookie("one", "1")
    response.set_cookie("two", "2", httponly=True)
    return {"one": one, "two": two}


@application.post("/upload")
async def upload(
    title: Annotated[str, Form()], files: Annotated[list[UploadFile], File()]
) -> dict[str, Any]:
    """Say what was in the form."""
    return {
        "title": title,
        "files": [[file.filename, digest(await file.read())] for file in files],
    }


@application.post("/raw")
async def raw(request: Request) -> str:
    """Read the body as it comes."""
    return digest(b"".join([piece async for piece in request.stream()]))


@application.get("/stream")
async def stream() -> StreamingResponse:
    """Send pieces, from a generator that is not asynchronous."""
    return StreamingResponse(iter(PIECES))


async def resource() -> AsyncIterator[str]:
    """Be open for as long as a response is sent."""
    notes.leave("resource", "opened")
    yield "resource"
    notes.leave("resource", "closed")


@application.get("/resource")
async def with_resource(opened: Annotated[str, Depends(resource)]) -> StreamingResponse:
    """Stream with something open."""

    async def pieces() -> AsyncIterator[str]:
        notes.leave("resource", "streamed")
        yield opened

    return StreamingResponse(pieces())


@application.get("/resources")
async def resources() -> list[str]:
    """Say what became of it, in order."""
    return [await notes.take("resource") for _ in range(3)]


@application.get("/endless")
@application.get("/waiting")
async def endless(request: Request) -> StreamingResponse:
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


@application.get("/left")
async def left() -> str:
    """Say who has left."""
    return await notes.take("left")


@application.get("/events", response_class=EventSourceResponse)
async def events() -> AsyncIterable[int]:
    """Send events."""
    for event in EVENTS:
        yield int(event)
        await notes.take("now")


@application.api_route("/file", methods=["GET", "HEAD"])
async def file() -> FileResponse:
    """Send a file."""
    return FileResponse(FILE)


async def task() -> None:
    """Wait for the next request."""
    notes.leave("later", await notes.take("now"))


@application.post("/later", status_code=202)
async def later(tasks: BackgroundTasks) -> None:
    """Begin a task behind the response."""
    tasks.add_task(task)


@application.get("/later")
async def done() -> str:
    """Say that it is done."""
    return await notes.take("later")


@application.post("/now", status_code=204)
async def now() -> None:
    """Let the task go on."""
    notes.leave("now", "done")


@application.get("/state")
async def state(request: Request) -> int:
    """Count."""
    request.state.asked.append(1)
    return len(request.state.asked)


@application.get("/thread")
def thread() -> str:
    """Name the thread of a synchronous view."""
    return threading.current_thread().name


@application.get("/fail")
async def fail() -> None:
    """Fail."""
    raise ValueError


@application.websocket("/ws")
async def websocket(socket: WebSocket) -> None:
    """Echo, or do as the message says."""
    protocol = "two" if "two" in socket.scope["subprotocols"] else None
    await socket.accept(protocol, [(b"x-answered", b"yes")])
    try:
        while True:
            message = await socket.receive()
            socket._raise_on_disconnect(message)
            if message.get("text") == "json":
                await socket.send_json({"a": ["é", 1]})
            elif message.get("text") == "close":
                await socket.close(4001, "enough")
                return
            elif message.get("bytes") is not None:
                await socket.send_bytes(message["bytes"])
            else:
                await socket.send_text(message["text"])
    except WebSocketDisconnect as end:
        if end.code == CODE:
            notes.leave("left", str(CODE))


@application.websocket("/ws/careless")
async def careless(socket: WebSocket) -> None:
    """Read without thinking of the end, as many do."""
    await socket.accept()
    while True:
        await socket.send_text(await socket.receive_text())


async def forbid() -> None:
    """Refuse whoever depends on it."""
    raise HTTPException(403)


@application.websocket("/ws/denied")
async def denied(socket: WebSocket, _: Annotated[None, Depends(forbid)]) -> None:
    """Be refused by a dependency."""
    await socket.accept()


@application.websocket("/ws/unpaid")
async def unpaid(socket: WebSocket) -> None:
    """Refuse with a response."""
    await socket.send_denial_response(Response("pay first", 402, {"X-Price": "5"}))
