"""The Django project that every server serves in the scenario `django`: one synchronous view.

The middleware is that of a new project, but for what needs a database. Each of its steps goes to
the request's thread and back, as the view does: that is what this scenario is about.
"""

from __future__ import annotations

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from benchmarks.application import HELLO

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
)
django.setup()


def hello(request: HttpRequest) -> HttpResponse:
    """Answer as the smallest application does."""
    del request
    return HttpResponse(HELLO, content_type="text/plain")


urlpatterns = [path("", hello)]
application = get_asgi_application()
