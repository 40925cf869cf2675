"""A real Django project, small, in a folder of its own: pages, a WebSocket, static files."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from typing import IO, TYPE_CHECKING, Self

import psutil

from tests.support.daphne import environment, survivors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["DjangoProject", "RunServer"]

PATIENCE = 30.0
"""Seconds that a server gets to say what is waited for."""

_FILES = {
    "manage.py": """
import os
import sys

if __name__ == "__main__":  # else it runs again in what is spawned
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site1.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
""",
    "site1/__init__.py": "",
    "site1/settings.py": """
from pathlib import Path

HERE = Path(__file__).parent
SECRET_KEY = "for tests"
DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
INSTALLED_APPS = ["daphne_supervisor", "django.contrib.staticfiles", "site1"]
ROOT_URLCONF = "site1.urls"
ASGI_APPLICATION = "site1.asgi.application"
STATIC_URL = "static/"
STATICFILES_DIRS = [HERE / "files"]
TEMPLATES = [
    {"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [HERE / "pages"]}
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": HERE / "db.sqlite3",
        "TEST": {"NAME": HERE / "test.sqlite3"},
    }
}
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# The reloader says which file it knows from now on: only then can a test change it.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"watcher": {"class": "logging.StreamHandler"}},
    "loggers": {
        "django.utils.autoreload": {
            "handlers": ["watcher"], "level": "DEBUG", "propagate": False
        }
    },
}
""",
    "site1/asgi.py": """
import os

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site1.settings")
django_application = get_asgi_application()

from site1.routing import patterns

application = ProtocolTypeRouter(
    {"http": django_application, "websocket": URLRouter(patterns)}
)
""",
    "site1/models.py": """
from django.db import models


class Word(models.Model):
    text = models.TextField()
""",
    "site1/migrations/__init__.py": "",
    "site1/migrations/0001_initial.py": """
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            "Word", [("id", models.BigAutoField(primary_key=True)), ("text", models.TextField())]
        )
    ]
""",
    "site1/routing.py": """
from channels.generic.websocket import WebsocketConsumer
from django.urls import path

from site1.models import Word


class Words(WebsocketConsumer):
    def receive(self, text_data):
        Word.objects.create(text=text_data)
        self.send(f"{Word.objects.count()} {text_data}")


patterns = [path("words", Words.as_asgi())]
""",
    "site1/urls.py": """
from django.urls import path

from site1 import views

urlpatterns = [path("", views.index), path("words", views.words), path("late", views.late)]
""",
    "site1/views.py": """
import os

from django.http import HttpResponse
from django.shortcuts import render

from site1.models import Word

VERSION = "one"


def index(request):
    return render(request, "index.html", {"version": VERSION})


def words(request):
    texts = Word.objects.order_by("id").values_list("text", flat=True)
    return HttpResponse(f"{os.getpid()} {' '.join(texts)}")


def late(request):
    from site1 import seldom

    return HttpResponse(seldom.TEXT)
""",
    "site1/seldom.py": 'TEXT = "first"\n',
    "site1/pages/index.html": """<!doctype html><link rel="icon" href="data:,">
<link rel="stylesheet" href="/static/site.css">
<p id="version">page {{ version }}</p><p id="answer"></p>
<script>
const socket = new WebSocket("ws://" + location.host + "/words");
socket.onopen = () => socket.send("hello");
socket.onmessage = (event) => { document.getElementById("answer").textContent = event.data; };
</script>
""",
    "site1/files/site.css": "#version { color: rgb(1, 2, 3); }\n",
}


class DjangoProject:
    """The project, as files that can be changed."""

    def __init__(self, folder: Path) -> None:
        """Write it into `folder`."""
        self.folder = folder
        for name, text in _FILES.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        """Put `text` into the file `name`."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def replace(self, name: str, old: str, new: str) -> None:
        """Put `new` in the place of `old`, which is there, in the file `name`."""
        text = (self.folder / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new))

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of `manage.py` with these arguments."""
        return [sys.executable, "-u", str(self.folder / "manage.py"), *arguments]

    def run(
        self, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `manage.py` to its end; both streams are in `stdout`."""
        return subprocess.run(
            self.command(*arguments),
            env=environment(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=150,
            check=False,
        )


class RunServer:
    """A running `manage.py runserver`, as a context manager: greeting at entry, gone at exit."""

    def __init__(self, project: DjangoProject, *arguments: str, **env: str) -> None:
        """Run it on a free port with these arguments and variables."""
        self._command = project.command("runserver", *arguments, "0")
        self._env = environment(env)
        self.output = ""
        self._seen = 0
        self._ended = False
        self._news = threading.Condition()

    def __enter__(self) -> Self:
        """Start, and wait for the address."""
        self.process = subprocess.Popen(
            self._command,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=[self.process.stdout])
        self._reader.start()
        try:
            said = self.wait(r"development server at http://127\.0\.0\.1:(\d+)/\n")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.port = int(said[1])
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it, as the end of its terminal would; what it has started has to end by itself."""
        family = [] if self.process.poll() is not None else self.family()
        self.process.terminate()
        self.process.wait(PATIENCE)
        left = survivors(family, PATIENCE)
        for one in left:
            one.kill()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        assert left == [], f"outlived by {left}"

    def family(self) -> list[psutil.Process]:
        """Return the processes that it consists of."""
        return [self.process_info, *self.process_info.children(recursive=True)]

    @property
    def process_info(self) -> psutil.Process:
        """The outermost process."""
        return psutil.Process(self.process.pid)

    @property
    def url(self) -> str:
        """Where a client finds it."""
        return f"http://127.0.0.1:{self.port}"

    def wait(self, pattern: str) -> re.Match[str]:
        """Wait until it prints what matches `pattern`, behind all that was waited for before."""
        found = self._wait_for(lambda: re.compile(pattern).search(self.output, self._seen), pattern)
        self._seen = found.end()
        return found

    def wait_watched(self, name: str) -> None:
        """Wait until the file `name` is watched, by the last reloader that has begun."""
        pattern = rf"{re.escape(name)} first seen with"
        begun = "Watching for file changes"
        self._wait_for(lambda: re.search(pattern, self.output.rpartition(begun)[2]), pattern)

    def _wait_for(self, find: Callable[[], re.Match[str] | None], pattern: str) -> re.Match[str]:
        with self._news:
            self._news.wait_for(lambda: find() or self._ended, PATIENCE)
            found = find()
        assert found, f"not said: {pattern}\n--- output\n{self.output}"
        return found

    def _read(self, stream: IO[bytes]) -> None:
        """Read on, or the server would wait for somebody who does, until it has ended."""
        for line in stream:
            with self._news:
                self.output += line.decode()
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()
