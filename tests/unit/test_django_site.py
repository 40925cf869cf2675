"""What a Django project is, to a server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.test.utils import override_settings

from daphne_supervisor import django_site
from tests.support import apps, django_settings

if TYPE_CHECKING:
    from pathlib import Path

django_settings.configure()


def test_the_application_is_what_the_setting_names() -> None:
    """With static files around it, where that is asked for and the project has any."""
    assert django_site.application_path() == "tests.support.apps:hello"
    assert django_site.application(static_files=False) is apps.hello
    around = django_site.application(static_files=True)
    assert isinstance(around, ASGIStaticFilesHandler)
    assert around.application is apps.hello
    with override_settings(INSTALLED_APPS=["daphne_supervisor"]):
        assert django_site.application(static_files=True) is apps.hello


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (None, "You have not set ASGI_APPLICATION, which is needed to run the server."),
        ("shop", "ASGI_APPLICATION is 'shop', which does not name an object in a module."),
        ("no_such.asgi.application", "ASGI_APPLICATION: there is no module 'no_such'."),
        (
            "tests.support.no_such.application",
            "ASGI_APPLICATION: there is no module 'tests.support.no_such'.",
        ),
        ("tests.support.apps.no_such", "ASGI_APPLICATION: 'tests.support.apps' has no 'no_such'."),
    ],
)
def test_what_is_wrong_with_the_setting_is_said(value: str | None, complaint: str) -> None:
    """In one line."""
    with override_settings(ASGI_APPLICATION=value), pytest.raises(ImproperlyConfigured) as raised:
        django_site.application(static_files=False)
    assert str(raised.value) == complaint


def test_what_the_application_s_own_module_lacks_is_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The traceback leads to the import that fails."""
    (tmp_path / "lacking.py").write_text("import no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    with (
        override_settings(ASGI_APPLICATION="lacking.application"),
        pytest.raises(ModuleNotFoundError, match="'no_such_module'"),
    ):
        django_site.application(static_files=False)


def test_a_server_of_a_test_uses_the_databases_of_the_test() -> None:
    """By the names that they have now; and it may be asked under its own address."""
    names = django_site.database_names()
    assert names == {"default": "nowhere.sqlite3"}
    before, hosts = dict(names), settings.ALLOWED_HOSTS
    try:
        django_site.join_test({"default": "test_of_it"}, "there")
        assert connections["default"].settings_dict["NAME"] == "test_of_it"
        assert [*hosts, "there"] == settings.ALLOWED_HOSTS
        assert django_site.database_names() == {"default": "test_of_it"}
    finally:
        django_site.join_test(before, "there")
        settings.ALLOWED_HOSTS = hosts


def test_a_database_in_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server would see an empty one of its own."""
    monkeypatch.setitem(connections["default"].settings_dict, "NAME", ":memory:")
    with pytest.raises(ImproperlyConfigured, match=r"DATABASES\['default'\] is in memory"):
        django_site.live_server()


@pytest.mark.parametrize(
    ("program", "asked", "present", "expected"),
    [
        ("/srv/shop/manage.py", None, None, ["/srv/shop"]),
        ("/srv/shop/manage.py", None, "/lib", ["/srv/shop", "/lib"]),
        ("/srv/shop/manage.py", "/more", "/lib", ["/more", "/srv/shop", "/lib"]),
        ("manage.py", None, "", [os.getcwd()]),
        ("/usr/bin/django-admin", None, "/lib", ["/lib"]),
        ("/lib/django/__main__.py", "/more", None, ["/more"]),
    ],
)
def test_a_server_finds_what_manage_py_finds(
    program: str, asked: str | None, present: str | None, expected: list[str]
) -> None:
    """From any directory; empty places, which would be the present directory, are left out."""
    environ = {} if present is None else {"PYTHONPATH": present}
    assert django_site.search_path(program, asked, environ) == os.pathsep.join(expected)
