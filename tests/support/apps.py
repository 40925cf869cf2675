"""The applications that tests serve: plain ASGI, each small enough to be read at a glance."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
import time
from collections import defaultdict
from typing import Any

from asgiref.sync import sync_to_async

__all__ = ["echo", "hello", "legacy", "not_callable", "probe"]

Scope = dict[str, Any]

not_callable = 42


async def respond(send: Any, body: bytes, status: int = 200, **headers: str) -> None:
    """Send a whole response."""
    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


async def read(receive: Any) -> bytes:
    """Return the whole body of a request."""
    body: bytes = b""
    while True:
        event = await receive()
        body += event.get("body", b"")
        if not event.get("more_body"):
            return body


async def hello(scope: Scope, receive: Any, send: Any) -> None:
    """Answer every request with the worker's process id."""
    if scope["type"] != "http":
        raise ValueError(scope["type"])
    await read(receive)
    await respond(send, str(os.getpid()).encode(), content_type="text/plain")


async def _websocket(scope: Scope, receive: Any, send: Any) -> None:
    await receive()
    if scope["path"] == "/refuse":
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept"})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        kept = {key: event[key] for key in ("text", "bytes") if event.get(key) is not None}
        await send({"type": "websocket.send", **kept})


async def echo(scope: Scope, receive: Any, send: Any) -> None:
    """Echo bodies and messages."""
    if scope["type"] == "websocket":
        await _websocket(scope, receive, send)
    elif scope["type"] == "http":
        await respond(send, await read(receive))
    else:
        raise ValueError(scope["type"])


def legacy(scope: Scope) -> Any:
    """Be an application of ASGI 2: two calls."""

    async def answer(receive: Any, send: Any) -> None:
        await read(receive)
        await respond(send, scope["type"].encode())

    return answer


def _work(seconds: float) -> int:
    """Take a while, as synchronous code of Django's does, and return the thread."""
    time.sleep(seconds)
    return threading.get_native_id()


class Probe:
    """An application with a path for each question a test asks. It has a lifespan with state."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self.events: defaultdict[bytes, list[str]] = defaultdict(list)
        self.streamed = 0

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Go to the method that the path names."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "websocket":
            await _websocket(scope, receive, send)
        else:
            name = scope["path"].strip("/").partition("/")[0] or "hello"
            await getattr(self, f"path_{name}")(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        scope["state"]["started"] = "yes"
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def path_hello(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer with the process id."""
        await hello(scope, receive, send)

    async def path_scope(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer with the scope, as JSON."""
        await read(receive)
        await respond(
            send, json.dumps(scope, default=repr).encode(), content_type="application/json"
        )

    async def path_echo(self, scope: Scope, receive: Any, send: Any) -> None:
        """Echo the body."""
        await echo(scope, receive, send)

    async def path_digest(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer with the SHA-256 of the body, reading it piece by piece."""
        del scope
        digest = hashlib.sha256()
        while True:
            event = await receive()
            digest.update(event.get("body", b""))
            if not event.get("more_body"):
                break
        await respond(send, digest.hexdigest().encode())

    async def path_stream(self, scope: Scope, receive: Any, send: Any) -> None:
        """Send as many KiB as the query says, in pieces of 64 KiB."""
        del receive
        self.streamed = 0
        left = int(scope["query_string"]) * 1024
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while left > 0:
            size = min(left, 65536)
            left -= size
            await send({"type": "http.response.body", "body": b"x" * size, "more_body": True})
            self.streamed += size
        await send({"type": "http.response.body", "body": b""})

    async def path_streamed(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer with the number of bytes that the last stream was able to send."""
        del scope, receive
        await respond(send, str(self.streamed).encode())

    async def path_halves(self, scope: Scope, receive: Any, send: Any) -> None:
        """Send one half of a response, and the other after as many seconds as the query says."""
        del receive
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one ", "more_body": True})
        await asyncio.sleep(float(scope["query_string"]))
        await send({"type": "http.response.body", "body": b"two"})

    async def path_deaf(self, scope: Scope, receive: Any, send: Any) -> None:
        """Never read the body and never answer."""
        del scope, receive, send
        await asyncio.Event().wait()

    async def path_wait(self, scope: Scope, receive: Any, send: Any) -> None:
        """Wait until the client leaves; remember, under the query, what was heard."""
        del send
        while True:
            event = await receive()
            self.events[scope["query_string"]].append(event["type"])
            if event["type"] == "http.disconnect":
                return

    async def path_insist(self, scope: Scope, receive: Any, send: Any) -> None:
        """Wait until the client leaves, send all the same; remember, under the query, the error."""
        while (await receive())["type"] != "http.disconnect":
            pass
        try:
            await hello(scope, receive, send)
        except OSError as error:
            self.events[scope["query_string"]].append(type(error).__name__)
            raise

    async def path_events(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer with what is remembered under the query."""
        del receive
        await respond(send, json.dumps(self.events[scope["query_string"]]).encode())

    async def path_status(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer, without a look at the body, with the status and the text that the query says."""
        del receive
        status, _, text = scope["query_string"].partition(b"-")
        await respond(send, text, int(status))

    async def path_blob(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer with as many KiB as the query says, in one piece."""
        del receive
        await respond(send, bytes(1024 * int(scope["query_string"])))

    async def path_threads(self, scope: Scope, receive: Any, send: Any) -> None:
        """Run synchronous code twice for as many seconds as the query says; say on which thread."""
        del receive
        used = [
            await sync_to_async(_work)(float(scope["query_string"] or 0.0)) for _ in ("one", "two")
        ]
        await respond(send, json.dumps(used).encode())

    async def path_slow(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer after as many seconds as the query says."""
        await asyncio.sleep(float(scope["query_string"] or 1))
        await hello(scope, receive, send)

    async def path_block(self, scope: Scope, receive: Any, send: Any) -> None:
        """Block the event loop for as many seconds as the query says."""
        time.sleep(float(scope["query_string"] or 3600))  # noqa: ASYNC251 - the fault to be found
        await hello(scope, receive, send)

    async def path_raise(self, scope: Scope, receive: Any, send: Any) -> None:
        """Fail before the response."""
        del scope, receive, send
        message = "deliberate"
        raise RuntimeError(message)

    async def path_break(self, scope: Scope, receive: Any, send: Any) -> None:
        """Fail in the middle of the response."""
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        message = "deliberate"
        raise RuntimeError(message)

    async def path_silent(self, scope: Scope, receive: Any, send: Any) -> None:
        """Return without a response."""


probe = Probe()
