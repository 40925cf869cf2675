"""The system checks: which settings do not go together with how the server is run."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from channels.layers import InMemoryChannelLayer
from django.apps import apps
from django.conf import settings
from django.test.utils import override_settings

from daphne_supervisor import checks
from daphne_supervisor.config import Config, Process
from tests.support import django_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

django_settings.configure()


class Layer(InMemoryChannelLayer):  # type: ignore[misc] # Channels has no types
    """A layer of the project's own, in memory."""


@pytest.fixture(autouse=True)
def nothing_is_known() -> Iterator[None]:
    """Begin and end without a configuration that was considered."""
    checks.consider(None)
    yield
    checks.consider(None)


def consider(**process: Any) -> None:
    """Say how the server is run."""
    checks.consider(Config(application="a:b", process=replace(Process(), **process)))


def said(found: list[Any]) -> list[str]:
    """Return what was found, by its number and its first words."""
    return [f"{each.id.rpartition('.')[2]} {each.msg.partition(':')[0]}" for each in found]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["daphne_supervisor", "django.contrib.staticfiles"], []),
        (["daphne_supervisor"], []),
        (["django.contrib.staticfiles"], []),
        (["django.contrib.staticfiles", "daphne_supervisor"], ["E001"]),
    ],
)
def test_the_order_of_applications(names: list[str], expected: list[str]) -> None:
    """Behind Django's static files, our runserver would never be called."""
    with override_settings(INSTALLED_APPS=names):
        assert [config.name for config in apps.get_app_configs()] == names
        assert [each.id.rpartition(".")[2] for each in checks.check_order()] == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("shop.asgi.application", []),
        (None, ["W003 ASGI_APPLICATION is not set."]),
        ("shop", ["W003 ASGI_APPLICATION is 'shop', which does not name an object in a module."]),
        (7, ["W003 ASGI_APPLICATION is 7, which does not name an object in a module."]),
    ],
)
def test_what_is_to_be_served(value: object, expected: list[str]) -> None:
    """The setting is a dotted path."""
    with override_settings(ASGI_APPLICATION=value):
        assert said(checks.check_application()) == expected


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("channels.layers.InMemoryChannelLayer", 1),
        ("project_layers.Layer", 1),
        ("channels_redis.core.RedisChannelLayer", 0),
        ("channels.layers.BaseChannelLayer", 0),
        ("channels.layers.get_channel_layer", 0),
    ],
)
def test_a_layer_in_memory_with_several_workers(
    backend: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that is derived from Channels'; one worker is enough for it."""
    module = ModuleType("project_layers")
    vars(module)["Layer"] = Layer
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": backend}}):
        assert checks.check_channel_layers() == []
        consider(workers=2)
        found = checks.check_channel_layers()
    assert said(found) == expected * [
        "W001 CHANNEL_LAYERS['default'] is in memory, and there are 2 workers"
    ]


def test_a_project_without_layers_has_none_in_memory() -> None:
    """The setting need not be there."""
    consider(workers=2)
    assert checks.check_channel_layers() == []


def test_connections_that_persist_without_threads_that_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """--threads 0 gives each request a thread of its own."""
    consider(threads=0)
    assert checks.check_connections() == []
    monkeypatch.setitem(settings.DATABASES["default"], "CONN_MAX_AGE", None)
    assert said(checks.check_connections()) == [
        "W002 DATABASES['default'] has CONN_MAX_AGE=None, and --threads is 0"
    ]
    consider(threads=8)
    assert checks.check_connections() == []


def test_manage_py_check_knows_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes no sense there is for the server to say."""
    layers = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    with override_settings(CHANNEL_LAYERS=layers):
        monkeypatch.setenv("WEB_CONCURRENCY", "3")
        assert len(checks.check_channel_layers()) == 1
        monkeypatch.setenv("WEB_CONCURRENCY", "many")
        assert checks.check_channel_layers() == []
        assert checks.check_connections() == []
