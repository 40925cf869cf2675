"""The fixture that starts live servers."""

from __future__ import annotations

from importlib.metadata import distribution
from typing import TYPE_CHECKING

from daphne_supervisor import django_site, pytest_plugin
from tests.support import apps, django_settings
from tests.support.client import get

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from daphne_supervisor.testing import LiveServer

daphne_server = pytest_plugin.daphne_server


def test_servers_run_until_the_end_of_the_test(
    daphne_server: Callable[..., LiveServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than one at a time, with options; without application it is that of the project."""
    django_settings.configure()
    monkeypatch.setattr(django_site, "database_names", dict)
    one, other = daphne_server(apps.hello), daphne_server(None, "--server-name=project")
    assert get(one.port, "/").values("server") == ["daphne"]
    assert get(other.port, "/").values("server") == ["project"]


def test_no_project_gets_it_without_asking() -> None:
    """The package has no entry point by which pytest would load it everywhere."""
    groups = {entry.group for entry in distribution("daphne-supervisor").entry_points}
    assert groups == {"console_scripts"}
