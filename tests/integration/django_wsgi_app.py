"""A plain Django project on WSGI, in one file."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.urls import path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.http import HttpRequest

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="of a test",
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    FORCE_SCRIPT_NAME=None,
)


def index(request: HttpRequest) -> HttpResponse:
    """Answer with where the project finds itself."""
    return HttpResponse(f"{request.META['SCRIPT_NAME']} {request.path_info} {request.method}")


def upload(request: HttpRequest) -> HttpResponse:
    """Answer with an uploaded file's length and digest; Django reads it piece by piece."""
    found = hashlib.sha256()
    file = request.FILES["file"]
    for piece in file.chunks():
        found.update(piece)
    return HttpResponse(f"{request.POST['name']} {file.size} {found.hexdigest()}")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Send pieces of 64 KiB, as many as are asked for."""

    def pieces() -> Iterator[bytes]:
        for _ in range(int(request.GET["count"])):
            yield b"d" * 65_536

    return StreamingHttpResponse(pieces())


def file(_: HttpRequest) -> FileResponse:
    """Send the file that $TEST_FILE names."""
    return FileResponse(open(os.environ["TEST_FILE"], "rb"))


urlpatterns = [
    path("caf\u00e9/", index),
    path("upload", upload),
    path("stream", stream),
    path("file", file),
    path("", index),
]
application = get_wsgi_application()
