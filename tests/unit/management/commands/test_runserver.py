"""`manage.py runserver`: which server it starts, on which listener, and how it ends."""

from __future__ import annotations

import io
import json
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command
from django.core.management.commands.runserver import Command as Runserver
from django.db import connections
from django.test.utils import override_settings
from django.utils import autoreload

from daphne_supervisor import companion, development
from daphne_supervisor.management.commands import runserver
from daphne_supervisor.management.commands.runserver import Command
from tests.support import django_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

django_settings.configure()


class Companion:
    """Stands where the server is started: notes how, and ends as it is told."""

    started: list[Companion]
    end: int | BaseException

    def __init__(
        self, arguments: list[str], environ: Mapping[str, str], descriptors: tuple[int, ...]
    ) -> None:
        """Note it."""
        self.arguments = arguments
        self.environ = environ
        self.descriptors = descriptors
        self.asked = json.loads(environ[development.VARIABLE])
        self.port = _port(descriptors[0])
        self.started.append(self)

    def wait(self) -> int:
        """End."""
        if isinstance(self.end, BaseException):
            raise self.end
        return self.end


def _port(descriptor: int) -> int:
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        return int(copy.getsockname()[1])


class Migrated(Command):
    """The command, for a database that needs nothing."""

    def check_migrations(self) -> None:
        """Find none missing."""


class Run:
    """Runs the command, and holds what it has said and started."""

    def __init__(self) -> None:
        """Say nothing yet."""
        self.stdout, self.stderr = io.StringIO(), io.StringIO()
        self.command = Migrated(stdout=self.stdout, stderr=self.stderr, no_color=True)
        self.started: list[Companion] = []

    def __call__(self, *arguments: str, **options: Any) -> None:
        """Run it with these arguments, on a free port, and expect it to exit."""
        with pytest.raises(SystemExit) as end:
            call_command(self.command, "0", *arguments, use_reloader=False, **options)
        self.code = end.value.code

    @property
    def server(self) -> Companion:
        """The one server that was started."""
        (server,) = self.started
        return server


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Return what runs the command."""
    run = Run()
    Companion.started, Companion.end = run.started, 0
    monkeypatch.setattr(companion, "Companion", Companion)
    before = list(autoreload.autoreload_started.receivers), list(autoreload.file_changed.receivers)
    yield run
    autoreload.autoreload_started.receivers[:], autoreload.file_changed.receivers[:] = before
    autoreload.autoreload_started.sender_receivers_cache.clear()
    autoreload.file_changed.sender_receivers_cache.clear()
    for server in run.started:
        os.close(server.asked["notes"])
    listener = vars(run.command).get("_listener")
    if listener is not None:
        listener.close()


def test_the_server_inherits_the_listener_and_knows_where_to_look(run: Run) -> None:
    """Its port is in the greeting; it ends with what the server has ended with."""
    Companion.end = 3
    assert connections["default"]  # it has been used, by the checks
    run(skip_checks=False)
    assert run.code == 3
    server, said = run.server, run.stdout.getvalue()
    assert f"development server at http://127.0.0.1:{server.port}/\nQuit the server" in said
    assert "System check identified no issues" in said
    assert server.arguments[0] == "daphne_supervisor.development:application"
    assert f"--fd={server.descriptors[0]}" in server.arguments
    assert server.descriptors[1:] == (server.asked["notes"], server.asked["modules"])
    assert not server.asked["static_files"]
    config = companion.configuration(server.arguments, {})
    assert config.process.workers == 1
    assert config.process.threads == companion.configuration(["a:b"], {}).process.threads


def test_options_reach_the_server(run: Run) -> None:
    """Daphne's names for them, those of our own command, and Django's."""
    with override_settings(FORCE_SCRIPT_NAME="/shop"):
        run(
            "--http_timeout=7",
            "--websocket_handshake_timeout=8",
            "--websocket-max-message-size=9",
            "--websocket_max_frame_size=10",
            "--workers=3",
            "--nothreading",
            "--insecure",
            "--skip-checks",
        )
    config = companion.configuration(run.server.arguments, {})
    assert config.http.http_timeout == 7
    assert config.websocket.connect_timeout == 8
    assert config.websocket.max_message_size == 9
    assert config.websocket.max_frame_size == 10
    assert (config.process.workers, config.process.threads) == (3, 1)
    assert config.app.root_path == "/shop"
    assert run.server.asked["static_files"]
    assert "system checks" not in run.stdout.getvalue()


@pytest.mark.parametrize(
    ("debug", "flags", "expected"),
    [
        (True, [], True),
        (True, ["--nostatic"], False),
        (False, [], False),
        (False, ["--insecure"], True),
        (False, ["--insecure", "--nostatic"], False),
    ],
)
def test_when_static_files_are_served(
    run: Run, *, debug: bool, flags: list[str], expected: bool
) -> None:
    """In DEBUG, or when that is insisted on; never against --nostatic."""
    with override_settings(DEBUG=debug):
        run(*flags)
    assert run.server.asked["static_files"] is expected


def test_a_project_without_static_files_has_no_options_for_them(run: Run) -> None:
    """They are those of `django.contrib.staticfiles`."""
    with override_settings(INSTALLED_APPS=["daphne_supervisor"], DEBUG=True):
        run()
        with pytest.raises(CommandError, match="unrecognized arguments: --nostatic"):
            run.command.create_parser("manage.py", "runserver").parse_args(["--nostatic"])
    assert not run.server.asked["static_files"]


@pytest.mark.parametrize("number", ["0", "-1", "two"])
def test_a_number_of_workers_is_above_0(run: Run, number: str) -> None:
    """What it cannot be is said by the parser."""
    with pytest.raises(CommandError, match=f"--workers: '{number}' is not a number above 0"):
        run.command.create_parser("manage.py", "runserver").parse_args([f"--workers={number}"])


def test_what_says_how_to_run_it_in_production_is_left_out(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A developer's shell may have variables for containers in it."""
    monkeypatch.setenv("DAPHNE_SUPERVISOR_PORT", "80")
    monkeypatch.setenv("WEB_CONCURRENCY", "9")
    monkeypatch.setenv("SHOP", "open")
    monkeypatch.setattr("sys.argv", ["/srv/shop/manage.py", "runserver"])
    run("--pythonpath=/more")
    environ = run.server.environ
    assert environ["SHOP"] == "open"
    assert {"DAPHNE_SUPERVISOR_PORT", "WEB_CONCURRENCY"}.isdisjoint(environ)
    assert environ["PYTHONPATH"].split(os.pathsep)[:2] == ["/more", "/srv/shop"]


def test_ctrl_c_is_no_error(run: Run) -> None:
    """The stealth option says something then, as with Django's own."""
    Companion.end = KeyboardInterrupt()
    run(shutdown_message="Good night.\n")
    assert run.code == 0
    assert run.stdout.getvalue().endswith("Good night.\n")


def test_a_greeting_has_brackets_around_ipv6(run: Run) -> None:
    """As a browser wants it."""
    run("-6")
    assert f"http://[::1]:{run.server.port}/" in run.stdout.getvalue()


def test_an_address_that_cannot_be_had_is_said_before_anything_else(run: Run) -> None:
    """In a line that names it; and so is an application that nobody has named, or an option."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        with pytest.raises(CommandError, match="is in use by another process"):
            call_command(run.command, port)
    with (
        override_settings(ASGI_APPLICATION=None),
        pytest.raises(CommandError, match="You have not set ASGI_APPLICATION"),
    ):
        call_command(run.command, "0")
    with pytest.raises(CommandError, match="--http-timeout: '-7' is not"):
        call_command(run.command, "0", "--http_timeout=-7")
    assert run.started == []


class Reloading:
    """Stands for Django's reloader: calls what it is given, or starts a process instead."""

    def __init__(self) -> None:
        """Have done nothing yet."""
        self.variable: str | None = None

    def __call__(self, function: Any, **options: Any) -> None:
        """Do in this process what the reloader does in it."""
        self.variable = os.environ.get(runserver._SOCKET)
        if runserver._is_watched():
            function(**options)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (3, "The server has ended with 3; a change of a file starts it.\n"),
        (0, ""),  # it hears of Ctrl-C as well, and that is no failure
    ],
)
def test_the_process_around_has_the_listener(
    run: Run, monkeypatch: pytest.MonkeyPatch, end: int, said: str
) -> None:
    """Each of those that the reloader starts takes it, and goes on watching at the server's end."""
    reloading = Reloading()
    Companion.end = end
    monkeypatch.setattr(autoreload, "run_with_reloader", reloading)
    monkeypatch.delenv(autoreload.DJANGO_AUTORELOAD_ENV, raising=False)
    monkeypatch.setenv(runserver._SOCKET, "unknown")
    call_command(run.command, "0", use_reloader=True)
    outer = run.command._listener
    assert reloading.variable == str(outer.fileno())
    assert outer.get_inheritable()
    assert run.started == []
    # The copy, because each side closes its own.
    monkeypatch.setenv(runserver._SOCKET, str(os.dup(outer.fileno())))
    monkeypatch.setenv(autoreload.DJANGO_AUTORELOAD_ENV, "true")
    call_command(run.command, "0", use_reloader=True)
    assert run.server.port == outer.getsockname()[1]
    assert runserver._SOCKET not in run.server.environ
    assert run.stderr.getvalue() == said
    outer.close()


def test_a_descriptor_that_does_not_listen_is_left_alone() -> None:
    """The variable may be older than this process."""
    with socket.socket() as sock:
        assert runserver._inherited({runserver._SOCKET: str(sock.fileno())}) is None
        assert sock.getsockname()
    assert runserver._inherited({runserver._SOCKET: "99999"}) is None
    assert runserver._inherited({}) is None


def test_without_asgi_it_is_django_s_own(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of ours happens then, and nothing of ours is needed."""
    called: list[dict[str, Any]] = []
    monkeypatch.setattr(Runserver, "inner_run", lambda *_, **options: called.append(options))
    with override_settings(ASGI_APPLICATION=None):
        call_command(run.command, "0", use_asgi=False, use_reloader=False)
    assert len(called) == 1
    assert run.started == []


def test_an_error_in_the_code_comes_before_anything_else(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Django has kept for the process that watches is raised there."""
    error = SyntaxError("the code is broken")
    monkeypatch.setattr(autoreload, "_exception", (SyntaxError, error, None))
    with pytest.raises(SyntaxError, match="the code is broken"):
        call_command(run.command, "0", use_reloader=False)
    assert run.started == []
