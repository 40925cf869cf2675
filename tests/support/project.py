"""A project whose code changes while it is served: one module, released again and again."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.daphne import Daphne

__all__ = ["Patience", "Project"]

_GOOD = '''
import os

async def application(scope, receive, send):
    """Answer with the version of this code and the process id."""
    if scope["type"] != "http":
        raise ValueError(scope["type"])
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    body = f"{version} {{os.getpid()}}".encode()
    await send({{"type": "http.response.body", "body": body}})
'''
_NO_PYTHON = "def application(:\n"
_FAILING = "def prepare():\n    return 1 // 0\n\nprepare()\n"
_HANGING = """
import asyncio

async def application(scope, receive, send):
    await asyncio.Event().wait()
"""
_REFUSING = """
async def application(scope, receive, send):
    await receive()
    message = "the database is on fire"
    await send({"type": "lifespan.startup.failed", "message": message})
"""


class Project:
    """A folder with `project.py` in it, to be served as `project:application`."""

    def __init__(self, folder: Path) -> None:
        """Live in `folder`, with nothing released."""
        self.module = folder / "project.py"
        self.arguments = ("--app-dir", str(folder))

    application = "project:application"

    def release(self, version: str) -> None:
        """Put code on the disk that answers with `version` and the process id."""
        self.module.write_text(_GOOD.format(version=version))

    def release_no_python(self) -> None:
        """Put code on the disk that is a syntax error in line 1."""
        self.module.write_text(_NO_PYTHON)

    def release_failing(self) -> None:
        """Put code on the disk that divides by zero while it is imported."""
        self.module.write_text(_FAILING)

    def release_hanging(self) -> None:
        """Put code on the disk that never ends its lifespan startup."""
        self.module.write_text(_HANGING)

    def release_refusing(self) -> None:
        """Put code on the disk that says that its startup has failed, with a message."""
        self.module.write_text(_REFUSING)


class Patience:
    """A configuration file with --ready-timeout: long for sound code, shorter for what hangs.

    How long code takes to come to where it hangs is the machine's affair. So it is measured.
    """

    def __init__(self, path: Path) -> None:
        """Live at `path`, and be long."""
        self._path = path
        self.arguments = ("--config", str(path))
        self.lengthen()

    def lengthen(self) -> None:
        """Be far more than anything needs, from the next reload on."""
        self._path.write_text("ready-timeout = 60\n")

    def shorten(self, server: Daphne) -> int:
        """Reload sound code; be no more than twice the time of that, from the next reload on.

        Returns the seconds.
        """
        begun = time.monotonic()
        server.replace_all()
        seconds = math.ceil(1 + 2 * (time.monotonic() - begun))
        self._path.write_text(f"ready-timeout = {seconds}\n")
        return seconds
