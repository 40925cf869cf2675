"""What of Django is loaded before the fork: by its real names, and without harm."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from daphne_supervisor.worker.preload_django import load

if TYPE_CHECKING:
    from collections.abc import Iterator

LIVE = Path(__file__).parents[3] / "examples" / "live"
LATE = ("board.views", "django.template.loaders.cached", "django.db.models.sql.compiler")
"""What the example's first request needs, and Django imports no earlier than that."""

REAL = f"""
import sys
import live.asgi
from daphne_supervisor.worker.preload_django import load

print([name in sys.modules for name in {LATE}])
load()
print([name in sys.modules for name in {LATE}])
from django.db import connections
print([connection.connection for connection in connections.all()])
"""


class Django:
    """As much of Django as is used; what was asked of it is in `asked`."""

    def __init__(self, **settings: object) -> None:
        """Be set up with these settings, and be what is imported as Django."""
        self.asked: list[str] = []
        self.apps = SimpleNamespace(ready=True)
        self.backends: list[object] = []
        self.broken: BaseException | None = None
        settings.setdefault("DATABASES", {})
        self._module("django.apps", apps=self.apps)
        self._module("django.conf", settings=SimpleNamespace(**settings))
        self._module("django.urls", get_resolver=lambda: self)
        self._module("django.template", engines=SimpleNamespace(all=lambda: self.backends))
        self._module("django.db", connections=SimpleNamespace(all=lambda: [self._connection()]))

    @staticmethod
    def _module(name: str, **attributes: object) -> None:
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(attributes)

    def _connection(self) -> object:
        return SimpleNamespace(ops=SimpleNamespace(compiler=self.asked.append))

    @property
    def url_patterns(self) -> list[object]:
        """Import the URLconf."""
        self.asked.append("urls")
        if self.broken:
            raise self.broken
        return []


class Engine:
    """What stands behind a template backend of Django's own."""

    def __init__(self, asked: list[str]) -> None:
        """Note in `asked` what is asked for."""
        self._asked = asked

    def __getattr__(self, name: str) -> Any:
        """Load something."""
        self._asked.append(name)
        return ()


@pytest.fixture(autouse=True)
def same_modules() -> Iterator[None]:
    """Give Django back its place."""
    before = {name: module for name, module in sys.modules.items() if "django." in name}
    yield
    for name in [name for name in sys.modules if "django." in name]:
        del sys.modules[name]
    sys.modules.update(before)


def test_what_a_first_request_needs_is_loaded() -> None:
    """Views, templates and the writer of SQL, by the names that they really have."""
    code = [sys.executable, "-c", REAL]
    root = str(LIVE.parents[1])
    environ = os.environ | {"PYTHONPATH": root, "LIVE_DATABASE": "/nowhere/to/be/found"}
    said = subprocess.run(code, cwd=LIVE, env=environ, capture_output=True, text=True, check=True)
    before, after, connections = said.stdout.splitlines()
    assert before == "[False, False, False]"
    assert after == "[True, True, True]"
    assert connections == "[None]"
    assert said.stderr == ""


def test_every_part_is_asked_for() -> None:
    """A backend that is not Django's own has no engine of the kind."""
    django = Django(ROOT_URLCONF="shop.urls", DATABASES={"default": {}})
    django.backends = [SimpleNamespace(engine=Engine(django.asked)), object()]
    load()
    assert django.asked == [
        "urls",
        "template_loaders",
        "template_context_processors",
        "SQLCompiler",
    ]


def test_a_project_without_pages_and_database_needs_none() -> None:
    """Channels alone: there is nothing to load, and nothing to complain of."""
    django = Django()
    load()
    assert django.asked == []


def test_an_application_of_something_else_is_left_alone() -> None:
    """Django may not be there, or be imported and not set up."""
    django = Django(ROOT_URLCONF="shop.urls")
    django.apps.ready = False
    load()
    del sys.modules["django.apps"]
    load()
    assert django.asked == []


@pytest.mark.parametrize("error", [ImportError("no module named 'tills'"), SystemExit(1)])
def test_what_fails_is_said_and_the_rest_loaded(
    caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    """A broken URLconf is for the first request to show; workers start as they do without."""
    django = Django(ROOT_URLCONF="shop.urls", DATABASES={"default": {}})
    django.broken = error
    with caplog.at_level(logging.WARNING):
        load()
    assert django.asked == ["urls", "SQLCompiler"]
    assert [one.getMessage() for one in caplog.records] == [
        (
            "--preload: Django's urls cannot be loaded before the fork:"
            f" {type(error).__name__}: {error}"
        )
    ]
