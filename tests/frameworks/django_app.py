"""Django in one file: its admin, REST framework, static files through WhiteNoise, Channels."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from typing import Any

import django
from django.conf import settings

from tests.frameworks.notes import EVENTS, FILE, FOLDER, PIECES, Notes, digest

settings.configure(
    SECRET_KEY="not of any use",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "django.contrib.staticfiles",
        "rest_framework",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "whitenoise.middleware.WhiteNoiseMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ],
            },
        },
    ],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.path.join(os.environ["FRAMEWORKS_FOLDER"], "django.sqlite3"),
            "CONN_MAX_AGE": 60,
            "OPTIONS": {"transaction_mode": "IMMEDIATE"},
        },
    },
    # Tables are made from the models, in a fraction of the time.
    MIGRATION_MODULES={"admin": None, "auth": None, "contenttypes": None, "sessions": None},
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    STATIC_URL="/static/",
    STATICFILES_DIRS=[FOLDER],
    WHITENOISE_USE_FINDERS=True,
    REST_FRAMEWORK={
        "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.PageNumberPagination",
        "PAGE_SIZE": 2,
    },
    USE_TZ=True,
)
django.setup()

from channels.auth import AuthMiddlewareStack  # noqa: E402 - all that needs settings
from channels.db import database_sync_to_async  # noqa: E402
from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.contrib import admin  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, models  # noqa: E402
from django.http import (  # noqa: E402
    FileResponse,
    HttpRequest,
    HttpResponse,
    JsonResponse,
    StreamingHttpResponse,
)
from django.urls import include, path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402
from rest_framework import permissions, routers, serializers, viewsets  # noqa: E402

notes = Notes()


class Book(models.Model):
    """What there is to keep."""

    title = models.CharField(max_length=20)
    cover = models.FileField(upload_to=os.environ["FRAMEWORKS_FOLDER"], blank=True)

    class Meta:
        """Belong to no app of INSTALLED_APPS."""

        app_label = "frameworks"

    def __str__(self) -> str:
        """Return the title."""
        return self.title


class BookSerializer(serializers.ModelSerializer):
    """A book in JSON."""

    class Meta:
        """All of it."""

        model = Book
        fields = ("id", "title")


class BookViewSet(viewsets.ModelViewSet):
    """Books, for everybody to read and for users to write."""

    queryset = Book.objects.order_by("id")
    serializer_class = BookSerializer
    permission_classes = (permissions.IsAuthenticatedOrReadOnly,)


def hello(request: HttpRequest, name: str) -> JsonResponse:
    """Say who is asked for what, by whom."""
    return JsonResponse(
        {
            "name": name,
            "q": request.GET.getlist("q"),
            "client": request.META["REMOTE_ADDR"],
            "url": request.build_absolute_uri("/hello/"),
        }
    )


async def echo_json(request: HttpRequest) -> HttpResponse:
    """Echo."""
    return HttpResponse(request.body, content_type=request.content_type)


def cookies(request: HttpRequest) -> JsonResponse:
    """Set two, and return those that came."""
    response = JsonResponse(request.COOKIES)
    response.set_cookie("one", "1")
    response.set_cookie("two", "2", httponly=True)
    return response


def upload(request: HttpRequest) -> JsonResponse:
    """Say what was in the form."""
    files = [[file.name, digest(file.read())] for file in request.FILES.getlist("files")]
    return JsonResponse({"title": request.POST["title"], "files": files})


def raw(request: HttpRequest) -> HttpResponse:
    """Read the body by pieces."""
    return HttpResponse(digest(b"".join(iter(lambda: request.read(1000), b""))))


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Send pieces."""
    del request

    async def pieces() -> AsyncIterator[bytes]:
        for piece in PIECES:
            yield piece

    return StreamingHttpResponse(pieces())


async def endless(request: HttpRequest) -> StreamingHttpResponse:
    """Send until the client leaves."""

    async def pieces() -> AsyncIterator[bytes]:
        try:
            while True:
                yield PIECES[1]
                if request.path == "/waiting":
                    await asyncio.Event().wait()
        finally:
            notes.leave("left", request.path)

    return StreamingHttpResponse(pieces())


async def left(request: HttpRequest) -> HttpResponse:
    """Say who has left."""
    del request
    return HttpResponse(await notes.take("left"))


async def events(request: HttpRequest) -> StreamingHttpResponse:
    """Send events."""
    del request

    async def lines() -> AsyncIterator[str]:
        for event in EVENTS:
            yield f"data: {event}\n\n"
            await notes.take("now")

    return StreamingHttpResponse(lines(), content_type="text/event-stream")


async def now(request: HttpRequest) -> HttpResponse:
    """Let somebody go on."""
    del request
    notes.leave("now", "done")
    return HttpResponse(status=204)


def file(request: HttpRequest) -> FileResponse:
    """Send a file."""
    del request
    return FileResponse(FILE.open("rb"))


def thread(request: HttpRequest) -> HttpResponse:
    """Name the thread of a synchronous view."""
    del request
    return HttpResponse(threading.current_thread().name)


def fail(request: HttpRequest) -> Any:
    """Fail."""
    raise ValueError(request.path)


async def count(request: HttpRequest) -> JsonResponse:
    """Count books, and who counts, asynchronously."""
    user = await request.auser()
    return JsonResponse({"books": await Book.objects.acount(), "user": user.get_username()})


class Who(AsyncWebsocketConsumer):
    """Knows who is logged in."""

    async def connect(self) -> None:
        """Say so, and how many others have a name."""
        await self.accept()
        named = await database_sync_to_async(get_user_model().objects.count)()
        await self.send(f"{self.scope['user'].get_username()} of {named}")


router = routers.DefaultRouter()
router.register("books", BookViewSet)
urlpatterns = [
    path("hello/<path:name>", hello),
    path("json", csrf_exempt(echo_json)),
    path("cookies", cookies),
    path("upload", csrf_exempt(upload)),
    path("raw", csrf_exempt(raw)),
    path("stream", stream),
    path("endless", endless),
    path("waiting", endless),
    path("left", left),
    path("events", events),
    path("now", csrf_exempt(now)),
    path("file", file),
    path("thread", thread),
    path("fail", fail),
    path("count", count),
    path("admin/", admin.site.urls),
    path("api/", include(router.urls)),
]

if not connection.introspection.table_names():  # another worker may have made them before
    call_command("migrate", run_syncdb=True, verbosity=0)
    with connection.schema_editor() as editor:
        editor.create_model(Book)
    get_user_model().objects.create_superuser("ada", password="countess")
connection.close()
application = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": AllowedHostsOriginValidator(
            AuthMiddlewareStack(URLRouter([path("ws/who", Who.as_asgi())])),
        ),
    },
)
