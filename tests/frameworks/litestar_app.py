"""Litestar: handlers with declared data, its own responses and its WebSocket handlers."""

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator
from typing import Annotated, Any

from litestar import Litestar, Request, WebSocket, get, post, websocket
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import Cookie, State, UploadFile
from litestar.enums import RequestEncodingType
from litestar.exceptions import PermissionDeniedException
from litestar.handlers import route, websocket_listener
from litestar.params import Body
from litestar.response import File, Response, ServerSentEvent, Stream
from litestar.static_files import create_static_files_router

from tests.frameworks.notes import CODE, EVENTS, FILE, FOLDER, PIECES, Notes, digest

notes = Notes()


@contextlib.asynccontextmanager
async def lifespan(application: Litestar) -> AsyncIterator[None]:
    """Count requests in what is left for them; say so at the end."""
    application.state.asked = []
    yield
    sys.stderr.write("lifespan ended\n")


@get("/hello/{name:path}", name="hello")
async def hello(name: str, request: Request, q: list[str]) -> dict[str, Any]:
    """Say who is asked for what, by whom."""
    return {
        "name": name.removeprefix("/"),
        "q": q,
        "client": request.client.host if request.client else None,
        "url": str(request.base_url) + "hello/",
    }


@post("/json")
async def echo_json(data: Any) -> Any:
    """Echo."""
    return data


@get("/cookies", response_cookies=[Cookie("one", value="1"), Cookie("two", value="2")])
async def cookies(request: Request) -> dict[str, str]:
    """Set two, and return those that came."""
    return request.cookies


@post("/upload")
async def upload(
    data: Annotated[dict[str, Any], Body(media_type=RequestEncodingType.MULTI_PART)],
) -> dict[str, Any]:
    """Say what was in the form."""
    files: list[UploadFile] = data["files"]
    return {
        "title": data["title"],
        "files": [[file.filename, digest(await file.read())] for file in files],
    }


@post("/raw")
async def raw(request: Request) -> str:
    """Read the body as it comes."""
    return digest(b"".join([piece async for piece in request.stream()]))


@get("/stream")
async def stream() -> Stream:
    """Send pieces."""
    return Stream(iter(PIECES))


@get(["/endless", "/waiting"])
async def endless(request: Request) -> Stream:
    """Send until the client leaves."""

    async def pieces() -> AsyncIterator[bytes]:
        try:
            while True:
                yield PIECES[1]
                if request.url.path == "/waiting":
                    await asyncio.Event().wait()
        finally:
            notes.leave("left", request.url.path)

    return Stream(pieces())


@get("/left")
async def left() -> str:
    """Say who has left."""
    return await notes.take("left")


@get("/events")
async def events() -> ServerSentEvent:
    """Send events."""

    async def each() -> AsyncIterator[str]:
        for event in EVENTS:
            yield event
            await notes.take("now")

    return ServerSentEvent(each())


@route("/file", http_method=["GET", "HEAD"])
async def file() -> File:
    """Send a file."""
    return File(FILE, content_disposition_type="inline")


async def task() -> None:
    """Wait for the next request."""
    notes.leave("later", await notes.take("now"))


@post("/later")
async def later() -> Response[None]:
    """Begin a task behind the response."""
    return Response(None, status_code=202, background=BackgroundTask(task))


@get("/later")
async def done() -> str:
    """Say that it is done."""
    return await notes.take("later")


@post("/now", status_code=204)
async def now() -> None:
    """Let the task go on."""
    notes.leave("now", "done")


@get("/state")
async def counted(state: State) -> int:
    """Count."""
    state.asked.append(1)
    return len(state.asked)


@get("/thread", sync_to_thread=True)
def thread() -> str:
    """Name the thread of a synchronous view."""
    return threading.current_thread().name


@get("/fail")
async def fail() -> None:
    """Fail."""
    raise ValueError


@websocket("/ws")
async def echo(socket: WebSocket) -> None:
    """Echo, or do as the message says."""
    protocol = "two" if "two" in socket.scope["subprotocols"] else None
    await socket.accept(protocol, {"x-answered": "yes"})
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


@websocket_listener("/ws/careless")
async def careless(data: str) -> str:
    """Echo what is heard."""
    return data


@websocket("/ws/denied")
async def denied(socket: WebSocket) -> None:
    """Refuse."""
    raise PermissionDeniedException(socket.url.path)


application = Litestar(
    [
        hello,
        echo_json,
        cookies,
        upload,
        raw,
        stream,
        endless,
        left,
        events,
        file,
        later,
        done,
        now,
        counted,
        thread,
        fail,
        echo,
        careless,
        denied,
        create_static_files_router("/static", [FOLDER]),
    ],
    lifespan=[lifespan],
)
