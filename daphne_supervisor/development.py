"""What the workers of `manage.py runserver` serve: the project, and what development needs.

Each request is logged as people know it from Daphne. And two things pass between the worker and the
process that watches files, which is another one and has imported less:

* *modules*: the files of what the worker has imported, line by line through a pipe, so that they
  are watched too, those that a view imports at its first call among them;
* *notes*: files that have changed without a need for new code, templates and translations. They are
  appended to a file in memory; before it begins a request, a worker tells Django of those that it
  has not seen, and Django forgets what it had read of them.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from django.core.management.color import color_style
from django.utils.autoreload import file_changed

from daphne_supervisor import companion, django_site

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    Message = dict[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["VARIABLE", "DevelopmentSite", "Modules", "Notes", "build"]

VARIABLE = "DAPHNE_RUNSERVER"
"""The variable that tells a worker what `runserver` was asked for, in JSON."""

logger = logging.getLogger("django.channels.server")

_NOT_MODIFIED = 304
_NOT_FOUND = 404
_CHUNK = 65_536
_BODIES = {"http.response.body", "http.response.pathsend", "http.response.zerocopysend"}
"""What the body of a response is sent with; the last of them ends it."""


class Notes:
    """The names of changed files, as a reader that has read some of them sees them."""

    def __init__(self, descriptor: int) -> None:
        """Read from the beginning of `descriptor`, a file."""
        self._descriptor = descriptor
        self._read = 0

    def replay(self) -> None:
        """Tell Django of the files that were added since the last time."""
        while data := os.pread(self._descriptor, _CHUNK, self._read):
            whole = data.rpartition(b"\n")[0]
            self._read += len(whole) + 1
            for line in whole.split(b"\n"):
                file_changed.send(sender=self, file_path=Path(os.fsdecode(line)))


class Modules:
    """Reports the files of the modules that are imported."""

    def __init__(self, descriptor: int) -> None:
        """Write to `descriptor`, a pipe."""
        self._descriptor = descriptor
        self._told: set[str] = set()
        self._count = 0

    def report(self) -> None:
        """Write the names of those that have not been reported yet."""
        if len(sys.modules) == self._count:
            return
        self._count = len(sys.modules)
        found = set(_files()) - self._told
        self._told |= found
        for name in sorted(found):
            try:
                os.write(self._descriptor, os.fsencode(name) + b"\n")
            except OSError:  # nobody watches any more: the end is near
                return


def _files() -> Iterator[str]:
    modules: list[Any] = list(sys.modules.values())
    for module in modules:
        if not isinstance(module, ModuleType):
            continue  # it may do anything when it is looked at
        origin = getattr(getattr(module, "__spec__", None), "origin", None)
        if isinstance(origin, str) and os.path.isabs(origin) and "\n" not in origin:
            yield origin


class DevelopmentSite:
    """An ASGI application around the project's own."""

    def __init__(
        self,
        application: Any,
        notes: Notes,
        modules: Modules,
        style: Any,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Serve `application`, and write in the colours of `style`, one of Django's."""
        self._application = application
        self._notes = notes
        self._modules = modules
        self._style = style
        self._clock = clock
        modules.report()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one call of the server's."""
        self._notes.replay()
        try:
            if scope["type"] == "http":
                await self._http(scope, receive, send)
            elif scope["type"] == "websocket":
                await self._websocket(scope, receive, send)
            else:
                await self._application(scope, receive, send)
        finally:
            self._modules.report()

    async def _http(self, scope: Message, receive: Receive, send: Send) -> None:
        begun, status = self._clock(), 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            if message["type"] in _BODIES and not message.get("more_body", False):
                self._log_response(scope, status, self._clock() - begun)

        try:
            await self._application(scope, receive, sent)
        except Exception:
            if not status:
                self._log_response(scope, 500, self._clock() - begun)
            raise

    def _log_response(self, scope: Message, status: int, seconds: float) -> None:
        path = scope["raw_path"].decode("latin-1")
        if scope["query_string"]:
            path += "?" + scope["query_string"].decode("latin-1")
        details = {
            "method": scope["method"],
            "path": path,
            "status": status,
            "time_taken": seconds,
            "client": _client(scope),
        }
        level, colour = _kind(status)
        text = "HTTP %(method)s %(path)s %(status)s [%(time_taken).2f, %(client)s]"
        logger.log(level, getattr(self._style, colour)(text), details)

    async def _websocket(self, scope: Message, receive: Receive, send: Send) -> None:
        details = {"path": scope["path"], "client": _client(scope)}
        accepted = False
        logger.info("WebSocket HANDSHAKING %(path)s [%(client)s]", details)

        async def sent(message: Message) -> None:
            nonlocal accepted
            await send(message)
            if message["type"] == "websocket.accept":
                accepted = True
                logger.info("WebSocket CONNECT %(path)s [%(client)s]", details)

        try:
            await self._application(scope, receive, sent)
        finally:
            word = "DISCONNECT" if accepted else "REJECT"
            logger.info(f"WebSocket {word} %(path)s [%(client)s]", details)  # noqa: G004


def _client(scope: Message) -> str:
    """Return who asks, without an address for a unix socket's client."""
    client = scope.get("client")
    return "{}:{}".format(*client) if client else "None"


def _kind(status: int) -> tuple[int, str]:
    """Return the level of the log, and the name that Django's palette has for such a response."""
    if status in {_NOT_MODIFIED, _NOT_FOUND}:
        found = status == _NOT_MODIFIED
        return (logging.INFO, "HTTP_NOT_MODIFIED") if found else (logging.WARNING, "HTTP_NOT_FOUND")
    kinds = {
        1: (logging.INFO, "HTTP_INFO"),
        2: (logging.INFO, "HTTP_SUCCESS"),
        3: (logging.INFO, "HTTP_REDIRECT"),
        4: (logging.WARNING, "HTTP_BAD_REQUEST"),
    }
    return kinds.get(status // 100, (logging.ERROR, "HTTP_SERVER_ERROR"))


def _leave_to_django(root: logging.Logger) -> None:
    """Do not write what Django has handlers of its own for, before the project adds any."""
    for handler in root.handlers:
        handler.addFilter(_is_not_of_django)


def _have_lines_written(target: logging.Logger) -> None:
    """Write the lines of requests, unless the project's LOGGING does."""
    if not target.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        target.addHandler(handler)
        target.setLevel(logging.INFO)
        target.propagate = False


def _is_not_of_django(record: logging.LogRecord) -> bool:
    return not f"{record.name}.".startswith("django.")


def build(environ: Mapping[str, str]) -> DevelopmentSite:
    """Return what a worker serves, as the variable in `environ` says."""
    asked = json.loads(environ[VARIABLE])
    companion.hush_drain()
    _leave_to_django(logging.getLogger())
    application = django_site.application(static_files=asked["static_files"])
    _have_lines_written(logger)
    return DevelopmentSite(
        application,
        Notes(asked["notes"]),
        Modules(asked["modules"]),
        color_style(force_color=asked["force_color"]),
    )


def __getattr__(name: str) -> Any:
    """Make `application` when it is asked for, which a worker does once."""
    if name == "application":
        return build(os.environ)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
