"""An application that tells what the kernel knows of its worker; it imports nothing of ours."""

from __future__ import annotations

import json
import os
from typing import Any

__all__ = ["application", "orphan"]


def _status() -> dict[str, str]:
    """Return the lines of /proc/self/status."""
    with open("/proc/self/status", encoding="utf-8") as file:
        lines = dict(line.rstrip().split(":", 1) for line in file)
    return {name: " ".join(text.split()) for name, text in lines.items()}


def _touch(path: str) -> dict[str, str]:
    """Make a file at `path`."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return {}


def _leave_orphan() -> None:
    """Let a process lose its parent, and end with 3."""
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(3)
        os._exit(4)
    os.wait()


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer /status and /environ, and make the file that the query of /touch names."""
    if scope["type"] != "http":
        raise ValueError(scope["type"])
    await receive()
    answers = {
        "/status": _status,
        "/environ": lambda: dict(os.environ),
        "/touch": lambda: _touch(scope["query_string"].decode()),
    }
    body = json.dumps(answers[scope["path"]]()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def orphan(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer with the parent's process id, and leave an orphan behind that ends with 3."""
    if scope["type"] != "http":
        raise ValueError(scope["type"])
    await receive()
    _leave_orphan()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getppid()).encode()})
