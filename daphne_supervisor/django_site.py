"""What a Django project is, to a server: its application and its databases."""

from __future__ import annotations

import functools
import importlib
import os
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from daphne_supervisor.testing import LiveServer

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "application",
    "application_path",
    "database_names",
    "join_test",
    "live_server",
    "search_path",
]


def application_path() -> str:
    """Return what ASGI_APPLICATION names as `module:attribute`.

    Raises `ImproperlyConfigured` when it is not set, or is no path.
    """
    path = getattr(settings, "ASGI_APPLICATION", None)
    if path is None:
        message = "You have not set ASGI_APPLICATION, which is needed to run the server."
        raise ImproperlyConfigured(message)
    module, _, name = str(path).rpartition(".")
    if not (module and name):
        message = f"ASGI_APPLICATION is {path!r}, which does not name an object in a module."
        raise ImproperlyConfigured(message)
    return f"{module}:{name}"


def application(*, static_files: bool) -> Any:
    """Return the project's application, which serves its static files too if that is asked for.

    Raises `ImproperlyConfigured` when there is no such application.
    """
    module, _, name = application_path().partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # it is there, and imports something that is not
        message = f"ASGI_APPLICATION: there is no module {error.name!r}."
        raise ImproperlyConfigured(message) from None
    except AttributeError:
        message = f"ASGI_APPLICATION: {module!r} has no {name!r}."
        raise ImproperlyConfigured(message) from None
    if static_files and apps.is_installed("django.contrib.staticfiles"):
        return ASGIStaticFilesHandler(found)
    return found


def database_names() -> dict[str, Any]:
    """Return the name of each database as it is now, by alias; in a test it is the test's.

    Raises `ImproperlyConfigured` for one in memory, which no other process can see.
    """
    for connection in connections.all():
        if connection.vendor == "sqlite" and connection.is_in_memory_db():
            message = (
                f"DATABASES[{connection.alias!r}] is in memory, where a server in another process"
                ' does not see it: set its TEST["NAME"] to a file.'
            )
            raise ImproperlyConfigured(message)
    return {connection.alias: connection.settings_dict["NAME"] for connection in connections.all()}


def live_server(*options: str, host: str = "127.0.0.1") -> LiveServer:
    """Return a server for tests: the project with its static files, on the databases of the test.

    `options` are those of the command line. Raises `ImproperlyConfigured` for a database in memory.
    """
    return LiveServer(
        None,
        *options,
        host=host,
        get_application=functools.partial(application, static_files=True),
        setup=functools.partial(join_test, database_names(), host),
    )


def join_test(names: Mapping[str, Any], host: str) -> None:
    """In the server of a test: connect to the databases with these names, and let `host` be asked.

    What the test itself has changed of the settings is there after a fork only.
    """
    settings.ALLOWED_HOSTS = [*settings.ALLOWED_HOSTS, host]
    for alias, name in names.items():
        settings.DATABASES[alias]["NAME"] = name
        connections[alias].settings_dict["NAME"] = name


def search_path(program: str, asked: str | None, environ: Mapping[str, str]) -> str:
    """Return PYTHONPATH for a server that is to find what the script `program` finds.

    That is a `manage.py`, which may be called from anywhere. Of Django's own programs nothing is
    found by their place. What was `asked` for, with --pythonpath, comes first.
    """
    places = [asked, environ.get("PYTHONPATH")]
    if program.endswith(".py") and os.path.basename(program) != "__main__.py":
        places.insert(1, os.path.dirname(os.path.abspath(program)))
    return os.pathsep.join(place for place in places if place)
