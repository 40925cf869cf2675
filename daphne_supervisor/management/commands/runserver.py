"""`manage.py runserver`, on this server.

What Django's reloader runs, and ends when a file has changed, starts the server beside itself and
watches files. The process around it, which lives on, has the listener: so a browser that asks
between the end of one server and the beginning of the next waits, and gets what was changed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles.management.commands.runserver import Command as StaticRunserver
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.core.management.commands.runserver import Command as Runserver
from django.db import connections
from django.utils import autoreload

from daphne_supervisor import (
    __version__,
    checks,
    companion,
    development,
    django_site,
    endpoints,
    listeners,
)
from daphne_supervisor.config import Bind
from daphne_supervisor.errors import SupervisorError
from daphne_supervisor.options import ENVIRONMENT_PREFIX
from daphne_supervisor.watching import Watching

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daphne_supervisor.config import Config

__all__ = ["Command"]

_SOCKET = "DAPHNE_RUNSERVER_SOCKET"
"""The variable with the number of the descriptor that listens."""


_NUMBERS = {
    "http_timeout": "Seconds in which a request must be answered (default: no limit).",
    "websocket_handshake_timeout": "Seconds in which a WebSocket must be accepted (default: 5).",
    "websocket_max_message_size": "Largest WebSocket message from a client, in bytes.",
    "websocket_max_frame_size": "Largest WebSocket frame from a client, in bytes.",
}
"""The options that are numbers of the server's, and what they mean."""

_NUMBERS_FLAGS = {
    "http_timeout": "--http-timeout",
    "websocket_handshake_timeout": "--websocket_connect_timeout",
    "websocket_max_message_size": "--websocket-max-message-size",
    "websocket_max_frame_size": "--websocket-max-frame-size",
}
"""What the server calls them."""


def _count(text: str) -> int:
    """Return a number above 0. Raises `argparse.ArgumentTypeError`."""
    if not text.isdecimal() or int(text) == 0:
        message = f"{text!r} is not a number above 0"
        raise argparse.ArgumentTypeError(message)
    return int(text)


class Command(StaticRunserver):  # type: ignore[misc] # Django has no types
    """The command."""

    help = "Starts a development server for ASGI and WebSocket that reloads, on daphne-supervisor."

    def add_arguments(self, parser: Any) -> None:
        """Add Daphne's options to Django's, and the number of workers."""
        if apps.is_installed("django.contrib.staticfiles"):
            super().add_arguments(parser)
        else:
            Runserver.add_arguments(self, parser)
            parser.set_defaults(use_static_handler=False, insecure_serving=False)
        parser.add_argument(
            "--noasgi",
            action="store_false",
            dest="use_asgi",
            help="Runs Django's own development server, for WSGI.",
        )
        for name, text in _NUMBERS.items():
            flags = {f"--{name}", f"--{name.replace('_', '-')}"}
            parser.add_argument(*sorted(flags), dest=name, type=int, help=text)
        parser.add_argument(
            "--workers", type=_count, default=1, help="Worker processes (default: 1)."
        )

    def run(self, **options: Any) -> None:
        """Run the server, under Django's reloader if that is asked for.

        Raises `CommandError` when the address cannot be had, there is nothing to serve, or an
        option makes no sense.
        """
        if options["use_asgi"]:
            self._prepare(options)
        super().run(**options)

    def _prepare(self, options: dict[str, Any]) -> None:
        try:
            django_site.application_path()
            self._listener = _inherited(os.environ) or self._listen()
            self._configuration(options)
        except (ImproperlyConfigured, SupervisorError) as error:
            raise CommandError(str(error)) from None
        if options["use_reloader"] and not _is_watched():
            # The process that the reloader is going to start inherits what is inheritable.
            self._listener.set_inheritable(True)
            os.environ[_SOCKET] = str(self._listener.fileno())
        else:
            self._watching = Watching()

    def _listen(self) -> socket.socket:
        bind = Bind(host=self.addr, port=int(self.port))
        found = [endpoints.parse(text, origin) for text, origin in endpoints.assemble(bind)]
        (listener,) = listeners.open_all(found, bind)
        return listener.socket

    def inner_run(self, *args: Any, **options: Any) -> None:
        """Check the project, and serve it until the end of this process, or of the server."""
        if not options["use_asgi"]:
            super().inner_run(*args, **options)
            return
        autoreload.raise_last_exception()
        self._check(options)
        self._greet()
        try:
            code = self._serve(options)
        except KeyboardInterrupt:
            self.stdout.write(options.get("shutdown_message", ""), ending="")
            sys.exit(0)
        if not options["use_reloader"]:
            sys.exit(code)
        if code:  # else Ctrl-C has reached it, and is about to end this process
            self.stderr.write(f"The server has ended with {code}; a change of a file starts it.")

    def _check(self, options: dict[str, Any]) -> None:
        """Check all that can be wrong, and import what is to be served, so that it is watched.

        Raises what is wrong, which Django shows.
        """
        if not options["skip_checks"]:
            self.stdout.write("Performing system checks...\n\n")
            checks.consider(self._configuration(options))
            self.check(display_num_errors=True)
        self.check_migrations()
        for connection in connections.all(initialized_only=True):
            connection.close()
        django_site.application(static_files=False)

    def _greet(self) -> None:
        host, port, *_ = self._listener.getsockname()
        now = time.strftime("%B %d, %Y - %X")
        self.stdout.write(
            f"{now}\n"
            f"Django version {self.get_version()}, using settings {settings.SETTINGS_MODULE!r}\n"
            f"Starting ASGI/daphne-supervisor version {__version__} development server at"
            f" {self.protocol}://{f'[{host}]' if ':' in host else host}:{port}/\n"
            "Quit the server with CONTROL-C."
        )
        self.stdout.flush()

    def _arguments(self, options: dict[str, Any]) -> list[str]:
        """Return the server's command line."""
        given = {name: options[name] for name in _NUMBERS if options[name] is not None}
        root_path = settings.FORCE_SCRIPT_NAME or ""
        return [
            "daphne_supervisor.development:application",
            *companion.BRIEF,
            f"--fd={self._listener.fileno()}",
            "--verbosity=0",
            "--log-fmt=%(message)s",
            f"--root-path={root_path}",
            f"--workers={options['workers']}",
            *([] if options["use_threading"] else ["--threads=1"]),
            *(f"{_NUMBERS_FLAGS[name]}={value}" for name, value in given.items()),
        ]

    def _configuration(self, options: dict[str, Any]) -> Config:
        environ = _environment(os.environ, options)
        return companion.configuration(self._arguments(options), environ)

    def _serve(self, options: dict[str, Any]) -> int:
        """Run the server, and return its exit code."""
        watching = self._watching
        asked = {
            "static_files": options["use_static_handler"]
            and (settings.DEBUG or options["insecure_serving"]),
            "notes": watching.notes,
            "modules": watching.modules,
            "force_color": options["force_color"],
        }
        environ = _environment(os.environ, options) | {development.VARIABLE: json.dumps(asked)}
        descriptors = (self._listener.fileno(), watching.notes, watching.modules)
        server = companion.Companion(self._arguments(options), environ, descriptors)
        watching.listen()
        return server.wait()


def _is_watched() -> bool:
    """Say whether this is the process that Django's reloader has started."""
    return os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) == "true"


def _inherited(environ: Mapping[str, str]) -> socket.socket | None:
    """Return the listener of the process around this one, None when it has none.

    It has none when the project could not be imported at the start: Django runs its own command
    then, until somebody has mended that.
    """
    with contextlib.suppress(KeyError, ValueError, OSError):
        found = socket.socket(fileno=int(environ[_SOCKET]))
        if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return found
        found.detach()
    return None


def _environment(environ: Mapping[str, str], options: dict[str, Any]) -> dict[str, str]:
    """Return the server's variables: what says how to run it in production is left out."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(ENVIRONMENT_PREFIX) and name not in {_SOCKET, "WEB_CONCURRENCY"}
    }
    path = django_site.search_path(sys.argv[0], options["pythonpath"], environ)
    return kept | {"PYTHONPATH": path}
