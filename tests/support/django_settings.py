"""Django in the process that tests: set up once, with settings that need no file."""

from __future__ import annotations

import django
from django.conf import settings

__all__ = ["configure"]


def configure() -> None:
    """Set Django up, unless that has been done. It logs nothing, and leaves the time zone alone."""
    if settings.configured:
        return
    settings.configure(
        ALLOWED_HOSTS=["here"],
        ASGI_APPLICATION="tests.support.apps.hello",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "nowhere.sqlite3"}},
        INSTALLED_APPS=["daphne_supervisor", "django.contrib.staticfiles"],
        LOGGING_CONFIG=None,
        SECRET_KEY="for tests",
        STATIC_URL="static/",
        TIME_ZONE=None,
    )
    django.setup()
