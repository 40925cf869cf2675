"""From `module:attribute` to an application, or to one line that says why not."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

from daphne_supervisor.config import App
from daphne_supervisor.errors import BootError
from daphne_supervisor.worker.application import ApplicationError, load, put_first_on_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Write = "Callable[[str, str], None]"


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Callable[[str, str], None]]:
    """Return what writes a module that can be imported while the test runs."""
    before, modules = list(sys.path), set(sys.modules)
    put_first_on_path(str(tmp_path))

    def write(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)

    yield write
    sys.path[:] = before
    for name in set(sys.modules) - modules:
        del sys.modules[name]


APPLICATION = """
class Inner:
    async def application(self, scope, receive, send):
        await send(scope)
place = Inner()

def legacy(scope):
    async def call(receive, send):
        await send(scope)
    return call

number = 42

def make():
    return Inner().application

def fail():
    raise KeyError("settings")
"""


async def _call(application: Any) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await application({"type": "x"}, None, send)
    return sent


@pytest.mark.parametrize("attribute", ["place.application", "legacy"])
def test_an_application_is_found(write: Callable[[str, str], None], attribute: str) -> None:
    """By a dotted path; one of ASGI 2 is called as if it were of ASGI 3."""
    write("found_application", APPLICATION)
    application = load(f"found_application:{attribute}")
    assert asyncio.run(_call(application)) == [{"type": "x"}]


def test_a_factory_makes_the_application(write: Callable[[str, str], None]) -> None:
    """What it returns is served, and may be of any interface."""
    write("found_application", APPLICATION)
    application = load("found_application:make", App(factory=True))
    assert asyncio.run(_call(application)) == [{"type": "x"}]


def test_a_factory_that_fails_tells_its_own_story(write: Callable[[str, str], None]) -> None:
    """As a module does; one that is no factory is one line, without a traceback."""
    write("found_application", APPLICATION)
    with pytest.raises(ApplicationError, match=r"--factory: .* has failed: KeyError") as caught:
        load("found_application:fail", App(factory=True))
    assert caught.value.traceback.count("File ") == 1
    with pytest.raises(BootError, match=r"--factory: .* takes arguments \(scope\)") as plain:
        load("found_application:legacy", App(factory=True))
    assert not isinstance(plain.value, ApplicationError)


def test_the_interface_is_what_is_asked_for(write: Callable[[str, str], None]) -> None:
    """An application that has another one is refused."""
    write("found_application", APPLICATION)
    with pytest.raises(BootError, match="--interface wsgi: application"):
        load("found_application:legacy", App(interface="wsgi"))


def test_the_scope_is_daphnes_when_that_is_asked_for(write: Callable[[str, str], None]) -> None:
    """And an application that is used as it is gets it whole."""
    write("found_application", APPLICATION)
    plain = load("found_application:place.application")
    compatible = load("found_application:place.application", App(daphne_compat=True))
    assert plain.__name__ == "application"
    assert type(compatible).__name__ == "DaphneScopes"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("nowhere_at_all:application", "no module named 'nowhere_at_all'"),
        ("nowhere_at_all.asgi:application", "no module named 'nowhere_at_all'"),
        ("found_application:missing", "'found_application' has no attribute 'missing'"),
        ("found_application:place.missing", "has no attribute 'place.missing'"),
        ("found_application:number", "'number' is not callable, but int"),
    ],
)
def test_what_is_not_there_is_one_line(
    write: Callable[[str, str], None], path: str, text: str
) -> None:
    """Without a traceback: it is the command line that is wrong."""
    write("found_application", APPLICATION)
    with pytest.raises(BootError, match=text) as caught:
        load(path)
    assert not isinstance(caught.value, ApplicationError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit('settings missing')", "SystemExit: settings missing"),
        ("def", "SyntaxError: invalid syntax"),
        ("raise ModuleNotFoundError", "ModuleNotFoundError"),
    ],
)
def test_a_module_that_fails_tells_its_own_story(
    write: Callable[[str, str], None], source: str, text: str
) -> None:
    """The line says what was raised; the traceback begins in the application's code."""
    write("failing_application", source)
    with pytest.raises(ApplicationError, match="cannot be imported") as caught:
        load("failing_application:application")
    assert text in str(caught.value)
    assert text in caught.value.traceback
    assert "importlib" not in caught.value.traceback
    assert "worker/application.py" not in caught.value.traceback
    assert "failing_application.py" in caught.value.traceback


def test_a_failure_without_frames_has_a_traceback_too() -> None:
    """An error that was never raised has no frames to pass over."""
    assert ApplicationError("x", ValueError("y")).traceback == "ValueError: y\n"
