"""Sends the file that $TEST_FILE names, in each of the ways that there are."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from tests.support.apps import respond

Scope = dict[str, Any]

PIECE = 65_536


async def application(scope: Scope, _: Any, send: Any) -> None:
    """Do what the path says; the query is the size of the file to be announced, if it is given."""
    if scope["type"] != "http":
        raise ValueError(scope["type"])
    path = os.environ["TEST_FILE"]
    way = scope["path"].strip("/")
    if way == "time":
        await respond(send, json.dumps(time.process_time()).encode())
        return
    length = scope["query_string"] or b"%d" % os.stat(path).st_size
    headers = [] if way == "chunks" else [(b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if way == "path":
        await send({"type": "http.response.pathsend", "path": path})
    elif way == "missing":
        await send({"type": "http.response.pathsend", "path": f"{path}.missing"})
    else:
        await {"file": _zero_copy, "chunks": _in_chunks, "stream": _stream}[way](path, send)


async def _zero_copy(path: str, send: Any) -> None:
    with open(path, "rb") as file:  # noqa: ASYNC230 - it is here
        await send({"type": "http.response.zerocopysend", "file": file})


async def _in_chunks(path: str, send: Any) -> None:
    """Send the two halves, with something between them that is not of the file."""
    half = os.stat(path).st_size // 2
    with open(path, "rb") as file:  # noqa: ASYNC230 - it is here
        message = {"type": "http.response.zerocopysend", "file": file}
        await send(message | {"count": half, "more_body": True})
        await send({"type": "http.response.body", "body": b"between", "more_body": True})
        await send(message)


async def _stream(path: str, send: Any) -> None:
    """Read the file and send it, which is what the other ways save."""
    with open(path, "rb") as file:  # noqa: ASYNC230 - it is here
        while data := file.read(PIECE):
            await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body"})
