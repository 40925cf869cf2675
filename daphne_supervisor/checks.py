"""System checks: settings that do not go together with how the server is run.

How it is run is known to the commands `serve` and `runserver`, which say so with `consider`.
`manage.py check` knows it as far as environment variables tell (DAPHNE_SUPERVISOR_WORKERS,
WEB_CONCURRENCY, ASGI_THREADS).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core.checks import Error, Warning  # noqa: A004 - Django's name for it
from django.utils.module_loading import import_string

from daphne_supervisor import companion
from daphne_supervisor.errors import SupervisorError

if TYPE_CHECKING:
    from daphne_supervisor.config import Config

__all__ = [
    "TAG",
    "check_application",
    "check_channel_layers",
    "check_connections",
    "check_order",
    "consider",
]

TAG = "daphne_supervisor"
"""For `manage.py check --tag`."""

_IN_MEMORY = "channels.layers.InMemoryChannelLayer"

_considered: Config | None = None


def consider(config: Config | None) -> None:
    """Check the settings against `config`; against what the environment says without one."""
    global _considered  # noqa: PLW0603 - Django calls checks with nothing of ours
    _considered = config


def _configuration() -> Config | None:
    """Return how the server is run, None when the environment makes no sense.

    Whoever starts the server is told of that by the server itself.
    """
    if _considered is not None:
        return _considered
    try:
        return companion.configuration(["unknown:unknown"], os.environ)
    except SupervisorError:
        return None


def check_order(**_: Any) -> list[Any]:
    """Of two applications with a command of one name, Django takes the first."""
    names = [config.name for config in apps.get_app_configs()]
    own, static = "daphne_supervisor", "django.contrib.staticfiles"
    if own not in names or static not in names or names.index(own) < names.index(static):
        return []
    return [
        Error(
            f"{own!r} stands behind {static!r} in INSTALLED_APPS, which replaces its runserver.",
            hint=f"Put {own!r} before it.",
            id="daphne_supervisor.E001",
        )
    ]


def check_application(**_: Any) -> list[Any]:
    """Without ASGI_APPLICATION neither command knows what to serve."""
    path = getattr(settings, "ASGI_APPLICATION", None)
    if isinstance(path, str) and "." in path.strip("."):
        return []
    return [
        Warning(
            "ASGI_APPLICATION is not set."
            if path is None
            else f"ASGI_APPLICATION is {path!r}, which does not name an object in a module.",
            hint='It is needed by serve and runserver, as in "myproject.asgi.application".',
            id="daphne_supervisor.W003",
        )
    ]


def check_channel_layers(**_: Any) -> list[Any]:
    """A layer in a worker's memory reaches nobody in another worker."""
    config = _configuration()
    if config is None or config.process.workers == 1:
        return []
    layers = getattr(settings, "CHANNEL_LAYERS", {})
    return [
        Warning(
            f"CHANNEL_LAYERS[{alias!r}] is in memory, and there are {config.process.workers}"
            " workers: what one of them sends does not reach the others.",
            hint="Take a layer that works across processes, as LocalChannelLayer of"
            " daphne_supervisor.channels does, or --workers 1.",
            id="daphne_supervisor.W001",
        )
        for alias, layer in layers.items()
        if _is_in_memory(layer.get("BACKEND", ""))
    ]


def _is_in_memory(path: str) -> bool:
    """Say whether `path` names Channels' layer for one process, or one that is made from it."""
    if path == _IN_MEMORY:
        return True
    try:
        backend, in_memory = import_string(path), import_string(_IN_MEMORY)
    except Exception:  # noqa: BLE001 - who uses the layer hears of it
        return False
    return isinstance(backend, type) and issubclass(backend, in_memory)


def check_connections(**_: Any) -> list[Any]:
    """With --threads 0 each request has a thread of its own, and so has each connection."""
    config = _configuration()
    if config is None or config.process.threads != 0:
        return []
    return [
        Warning(
            f"DATABASES[{alias!r}] has CONN_MAX_AGE={database['CONN_MAX_AGE']!r}, and --threads is"
            " 0: a connection belongs to a thread, threads end with their request, so none is used"
            " again, and some stay open for nothing.",
            hint="Set --threads to a number above 0, or CONN_MAX_AGE to 0.",
            id="daphne_supervisor.W002",
        )
        for alias, database in settings.DATABASES.items()
        if database.get("CONN_MAX_AGE", 0) != 0
    ]
