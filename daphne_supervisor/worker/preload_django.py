"""What Django loads at its first request, loaded before the fork.

Theory. `get_asgi_application` loads settings, applications and middleware. The URLconf, and with it
all views, the template engines and what the ORM writes SQL with wait until they are needed. With
--preload that would be in every worker, in memory of its own: with this, a worker of examples/live
takes 23.7 MB (PSS, one of four) instead of 25.2. No view is called and no database is connected to.

Nothing here can keep a worker from starting. What fails, fails again at the first request, where
Django deals with it; but it is said.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module

__all__ = ["load"]

logger = logging.getLogger("daphne_supervisor.worker")


def load() -> None:
    """Load it, if there is a Django that has been set up."""
    applications = sys.modules.get("django.apps")
    if applications is None or not applications.apps.ready:
        return
    for step in (_urls, _templates, _databases):
        try:
            step()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an application's own code runs
            logger.warning(
                "--preload: Django's %s cannot be loaded before the fork: %s: %s",
                step.__name__.strip("_"),
                type(error).__name__,
                error,
            )


def _urls() -> None:
    """Import the URLconf, and all that it includes."""
    if hasattr(import_module("django.conf").settings, "ROOT_URLCONF"):  # Channels alone needs none
        _ = import_module("django.urls").get_resolver().url_patterns


def _templates() -> None:
    """Make the template engines; of Django's own, find what they are made of at first use."""
    for backend in import_module("django.template").engines.all():
        engine = getattr(backend, "engine", None)
        if engine is not None:
            _ = engine.template_loaders, engine.template_context_processors


def _databases() -> None:
    """Make what stands for each database, and import what writes its SQL."""
    if import_module("django.conf").settings.DATABASES:
        for connection in import_module("django.db").connections.all():
            connection.ops.compiler("SQLCompiler")
