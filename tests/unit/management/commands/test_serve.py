"""`manage.py serve`: which command it becomes, and what keeps it from that."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from django.core.checks import Error, register
from django.core.checks.registry import registry
from django.core.management.base import CommandError, SystemCheckError
from django.test.utils import override_settings

from daphne_supervisor import checks
from daphne_supervisor.management.commands.serve import Command
from tests.support import django_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

django_settings.configure()

APPLICATION = "tests.support.apps:hello"


class Serve(Command):
    """The command, without becoming anything."""

    def __init__(self) -> None:
        """Note what would be become."""
        super().__init__(stdout=io.StringIO(), stderr=io.StringIO(), no_color=True)
        self.became: list[tuple[str, list[str], dict[str, str]]] = []
        self.become = lambda *what: self.became.append(what)

    @property
    def arguments(self) -> list[str]:
        """The arguments of the server."""
        ((program, (first, option, module, *rest), _),) = self.became
        assert (program, first, option, module) == (
            sys.executable,
            sys.executable,
            "-m",
            "daphne_supervisor",
        )
        return rest


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Return the command, as manage.py runs it."""
    monkeypatch.setattr("sys.argv", ["/srv/shop/manage.py", "serve"])
    yield Serve()
    checks.consider(None)


@pytest.fixture
def failing_check() -> Iterator[None]:
    """Register a check that finds an error."""

    def check(**_: Any) -> list[Error]:
        return [Error("the shop is shut", id="shop.E001")]

    register(check)
    yield
    registry.registered_checks.remove(check)


def run(serve: Serve, *arguments: str) -> None:
    """Run it as `manage.py serve ARGUMENTS`."""
    serve.run_from_argv(["manage.py", "serve", *arguments])


def test_options_are_the_server_s(serve: Serve) -> None:
    """The application comes first, and is the settings'; what is Django's own is taken out."""
    django = ["--settings=shop.settings", "--pythonpath", "/more", "--traceback", "--no-color"]
    run(serve, *django, "--workers", "3", "-v", "2")
    assert serve.arguments == [APPLICATION, "--workers", "3", "-v", "2"]
    environ = serve.became[0][2]
    assert environ["PYTHONPATH"].split(os.pathsep)[:2] == ["/more", "/srv/shop"]
    assert environ["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize("flag", ["-h", "--help", "--version"])
def test_questions_need_no_application(serve: Serve, flag: str) -> None:
    """They are answered by the server."""
    with override_settings(ASGI_APPLICATION=None):
        run(serve, flag)
    assert serve.arguments == [flag]


def test_without_application_it_is_an_error(serve: Serve) -> None:
    """One line, and exit code 1, as with every command of Django's."""
    with override_settings(ASGI_APPLICATION=None):
        with pytest.raises(SystemExit) as end:
            run(serve)
        with pytest.raises(CommandError):
            serve.handle()
    assert end.value.code == 1
    said = serve.stderr.getvalue()
    assert said == "You have not set ASGI_APPLICATION, which is needed to run the server.\n"
    assert serve.became == []


def test_checks_know_the_options(serve: Serve) -> None:
    """A layer in memory is no matter for one worker."""
    layers = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    with override_settings(CHANNEL_LAYERS=layers):
        run(serve, "--workers=1")
        assert "W001" not in serve.stderr.getvalue()
        run(serve, "--workers=2")
        assert "W001" in serve.stderr.getvalue()
    assert len(serve.became) == 2


@pytest.mark.usefixtures("failing_check")
def test_an_error_of_a_check_is_the_end(serve: Serve) -> None:
    """Unless checks are skipped."""
    with pytest.raises(SystemExit) as end:
        run(serve)
    assert end.value.code == 1
    assert "the shop is shut" in serve.stderr.getvalue()
    with pytest.raises(SystemCheckError):
        serve.handle()
    assert serve.became == []
    run(serve, "--skip-checks")
    assert serve.arguments == [APPLICATION]


@pytest.mark.usefixtures("failing_check")
def test_what_is_wrong_with_options_is_said_by_the_server(serve: Serve) -> None:
    """It says so in one line, with its own exit code; so nothing is checked before."""
    run(serve, "--workers=none")
    assert serve.arguments == [APPLICATION, "--workers=none"]
    assert serve.stderr.getvalue() == ""
