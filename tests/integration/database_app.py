"""A Django project in one file, with a PostgreSQL: what tests ask about its connections."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.db import connection
from django.db.backends.postgresql.base import DatabaseWrapper
from django.http import JsonResponse
from django.urls import path

if TYPE_CHECKING:
    from django.http import HttpRequest

__all__ = ["application"]

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": os.environ["DATABASE"],
            "USER": os.environ["DATABASE_USER"],
            "NAME": "postgres",
            "CONN_MAX_AGE": int(os.environ["CONN_MAX_AGE"]),
            "CONN_HEALTH_CHECKS": True,
            "OPTIONS": {"application_name": "project"},
        }
    },
)
django.setup()
_close = DatabaseWrapper._close


def _say_and_close(self: DatabaseWrapper) -> None:
    if self.connection is not None:
        print(f"connection closed on {threading.current_thread().name}", flush=True)  # noqa: T201
    _close(self)


DatabaseWrapper._close = _say_and_close


def query(request: HttpRequest) -> JsonResponse:
    """Ask the database, which takes 10 ms; say on which connection and on which thread."""
    del request
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid(), pg_sleep(0.01)")
        backend = cursor.fetchone()[0]
    return JsonResponse({"backend": backend, "thread": threading.get_native_id()})


urlpatterns = [path("query", query)]
application = get_asgi_application()
