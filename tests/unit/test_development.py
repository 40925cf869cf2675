"""What the workers of `runserver` serve: lines, notes of changes, names of modules."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from django.core.management.color import make_style
from django.utils.autoreload import file_changed

from daphne_supervisor import development
from daphne_supervisor.development import DevelopmentSite, Modules, Notes, build
from tests.support import apps, django_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Behaviour = Callable[[Any], Awaitable[None]]

django_settings.configure()

HTTP = {
    "type": "http",
    "method": "GET",
    "path": "/a",
    "raw_path": b"/%61",
    "query_string": b"",
    "client": ["1.2.3.4", 56],
}
WEBSOCKET = {"type": "websocket", "path": "/a", "client": None}


@pytest.fixture
def notes() -> Iterator[int]:
    """Return a descriptor for notes."""
    descriptor = os.memfd_create("notes")
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def told() -> Iterator[int]:
    """Return a descriptor for names of modules: a file, since a pipe would be full at once."""
    descriptor = os.memfd_create("modules")
    yield descriptor
    os.close(descriptor)


def lines_of(descriptor: int) -> list[str]:
    """Return what was written."""
    return os.pread(descriptor, 10_000_000, 0).decode().splitlines()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Return where to find what is logged about requests."""
    logger = logging.getLogger("django.channels.server")
    logger.propagate, logger.level = True, logging.NOTSET
    caplog.set_level(logging.INFO, logger.name)
    return caplog


class Quiet:
    """Stands for notes and modules."""

    def replay(self) -> None:
        """Do nothing."""

    def report(self) -> None:
        """Do nothing."""


def call(scope: Any, behaviour: Behaviour, style: Any = None) -> list[Any]:
    """Let an application with this behaviour be called; return what it has sent."""
    sent: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive
        await behaviour(send)

    async def send(message: Any) -> None:
        sent.append(message)

    quiet: Any = Quiet()
    clock = itertools.count(5, 0.25).__next__
    site = DevelopmentSite(application, quiet, quiet, style or make_style("nocolor"), clock)
    asyncio.run(site(scope, None, send))  # type: ignore[arg-type] # nothing is received
    return sent


def answering(status: int) -> Behaviour:
    """Return the behaviour of an application that answers in two pieces."""

    async def behave(send: Any) -> None:
        await send({"type": "http.response.start", "status": status})
        await send({"type": "http.response.body", "more_body": True})
        await send({"type": "http.response.body"})

    return behave


@pytest.mark.parametrize(
    ("status", "level", "colour"),
    [
        (101, "INFO", "HTTP_INFO"),
        (200, "INFO", "HTTP_SUCCESS"),
        (304, "INFO", "HTTP_NOT_MODIFIED"),
        (302, "INFO", "HTTP_REDIRECT"),
        (404, "WARNING", "HTTP_NOT_FOUND"),
        (403, "WARNING", "HTTP_BAD_REQUEST"),
        (503, "ERROR", "HTTP_SERVER_ERROR"),
        (600, "ERROR", "HTTP_SERVER_ERROR"),
    ],
)
def test_a_response_is_one_line_in_the_colour_of_its_kind(
    log: pytest.LogCaptureFixture, status: int, level: str, colour: str
) -> None:
    """Once it is complete, with Daphne's wording and Django's palette."""
    style = make_style("light")
    assert len(call(HTTP, answering(status), style)) == 3
    (line,) = log.records
    paint = getattr(style, colour)
    assert line.getMessage() == paint(f"HTTP GET /%61 {status} [0.25, 1.2.3.4:56]")
    assert line.levelname == level


def test_a_line_shows_what_was_asked_for_and_who_has_asked(log: pytest.LogCaptureFixture) -> None:
    """The path as it was sent, with the query; a client at a unix socket has no address."""
    call({**HTTP, "query_string": b"q=%0a", "client": None}, answering(200))
    assert log.messages[0] == "HTTP GET /%61?q=%0a 200 [0.25, None]"


def test_a_file_is_a_body_too(log: pytest.LogCaptureFixture) -> None:
    """An extension of ASGI's sends it by its name."""

    async def send_file(send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.pathsend", "path": "/a"})

    call(HTTP, send_file)
    assert log.messages == ["HTTP GET /%61 200 [0.25, 1.2.3.4:56]"]


def test_an_application_that_fails_has_a_line_too(log: pytest.LogCaptureFixture) -> None:
    """The server answers 500 for it, unless the response had begun."""

    async def fail(_: Any) -> None:
        raise KeyError

    async def fail_late(send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        raise KeyError

    for behave in (fail, fail_late):
        with pytest.raises(KeyError):
            call(HTTP, behave)
    assert log.messages == ["HTTP GET /%61 500 [0.25, 1.2.3.4:56]"]


def test_the_life_of_a_websocket_is_three_lines(log: pytest.LogCaptureFixture) -> None:
    """Two, if it is refused."""

    async def accept(send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    async def refuse(send: Any) -> None:
        await send({"type": "websocket.close"})

    call(WEBSOCKET, accept)
    call(WEBSOCKET, refuse)
    words = ["HANDSHAKING", "CONNECT", "DISCONNECT", "HANDSHAKING", "REJECT"]
    assert log.messages == [f"WebSocket {word} /a [None]" for word in words]


def test_a_lifespan_is_passed_on_without_a_line(log: pytest.LogCaptureFixture) -> None:
    """Nothing is asked there."""

    async def start(send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})

    assert call({"type": "lifespan"}, start) == [{"type": "lifespan.startup.complete"}]
    assert log.messages == []


def test_django_is_told_of_each_changed_file_once(notes: int) -> None:
    """In order; what is not complete yet comes with the next look."""
    heard: list[Path] = []

    def hear(file_path: Path, **_: Any) -> None:
        heard.append(file_path)

    file_changed.connect(hear)
    try:
        reader = Notes(notes)
        reader.replay()
        os.write(notes, b"/a\n/b\xff\n")
        reader.replay()
        reader.replay()
        os.write(notes, b"/c\n")
        reader.replay()
    finally:
        file_changed.disconnect(hear)
    assert heard == [Path("/a"), Path(os.fsdecode(b"/b\xff")), Path("/c")]


def test_each_file_of_a_module_is_reported_once(told: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are imported later, too; what has no file, or a strange one, is left out."""
    modules = Modules(told)
    strange = SimpleNamespace(__spec__=SimpleNamespace(origin="/strange.py"))
    monkeypatch.setitem(sys.modules, "told_strange", cast("ModuleType", strange))
    known = {"one": "/one.py", "built": "built-in", "odd": "/o\ndd.py", "none": None}
    for name, origin in known.items():
        module = ModuleType(name)
        module.__spec__ = SimpleNamespace(origin=origin)  # type: ignore[assignment]
        monkeypatch.setitem(sys.modules, f"told_{name}", module)
    modules.report()
    lines = lines_of(told)
    assert {"/one.py", __file__} <= set(lines)
    assert {"built-in", "/o", "dd.py", "/strange.py"}.isdisjoint(lines)
    modules.report()
    module = ModuleType("late")
    module.__spec__ = SimpleNamespace(origin="/late.py")  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "told_late", module)
    modules.report()
    again = lines_of(told)
    assert "/late.py" in set(again) - set(lines)
    assert len(again) == len(set(again))


def test_a_pipe_that_nobody_reads_any_more_is_no_error() -> None:
    """The watcher has ended, and this worker is about to."""
    reading, writing = os.pipe()
    os.close(reading)
    Modules(writing).report()
    os.close(writing)


def test_what_a_worker_serves_is_said_in_a_variable(
    notes: int, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The project's application, under the name that the worker loads; nothing else is there."""
    asked = {"static_files": False, "notes": notes, "modules": told, "force_color": True}
    monkeypatch.setenv(development.VARIABLE, json.dumps(asked))
    hushed = logging.getLogger("daphne_supervisor.worker")
    filters, handlers = list(hushed.filters), list(logging.getLogger().handlers)
    try:
        site = development.application
    finally:
        hushed.filters[:] = filters
        for handler in handlers:
            handler.filters.clear()
        development.logger.handlers.clear()
    assert isinstance(site, DevelopmentSite)
    assert site._application is apps.hello
    assert site._style.HTTP_NOT_FOUND("x") != "x"
    assert lines_of(told)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = development.nothing
    with pytest.raises(KeyError):
        build({})


def test_each_line_is_written_by_one_handler() -> None:
    """Requests have their own, unless LOGGING gives them one; Django's records are Django's."""
    root, target = logging.Logger("root"), logging.Logger("target")  # noqa: LOG001 - apart from all
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.name)  # type: ignore[method-assign]
    root.addHandler(handler)
    development._leave_to_django(root)
    for name in ("django", "django.request", "djangonaut", "shop"):
        root.handle(root.makeRecord(name, logging.WARNING, "", 1, "words", (), None))
    assert heard == ["djangonaut", "shop"]
    development._have_lines_written(target)
    assert not target.propagate
    (own,) = target.handlers
    development._have_lines_written(target)
    assert target.handlers == [own]
