"""`manage.py serve`: the production server, with what Django knows of the project."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.daphne import Daphne
from tests.support.django_project import DjangoProject

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path) -> DjangoProject:
    """Return a project of its own for each test."""
    return DjangoProject(tmp_path)


class Serve(Daphne):
    """The same server, started by the project's `manage.py`."""

    def __init__(self, project: DjangoProject, *arguments: str) -> None:
        """Prepare `manage.py serve`, called from somewhere else."""
        super().__init__("unused", cwd="/")
        self._command = project.command("serve", "--port", "0", *arguments)


def test_the_project_is_found_and_a_reload_takes_up_new_code(project: DjangoProject) -> None:
    """From any directory, without naming it; what Django has loaded for the checks is gone."""
    with Serve(project, "--workers", "2", "--threads", "3") as server:
        assert "page one" in httpx.get(server.url).text
        assert len(server.workers()) == 2
        assert "daphne_supervisor.W001" in server.log()
        project.replace("site1/views.py", 'VERSION = "one"', 'VERSION = "two"')
        server.replace_all()
        assert "page two" in httpx.get(server.url).text


def test_an_error_of_the_checks_keeps_it_from_starting(project: DjangoProject) -> None:
    """As with Django's own commands; --skip-checks starts it nevertheless."""
    project.replace(
        "site1/settings.py",
        '["daphne_supervisor", "django.contrib.staticfiles", "site1"]',
        '["django.contrib.staticfiles", "daphne_supervisor", "site1"]',
    )
    done = project.run("serve")
    assert done.returncode == 1
    assert "(daphne_supervisor.E001)" in done.stdout
    assert "Traceback" not in done.stdout
    with Serve(project, "--skip-checks") as server:
        assert "page one" in httpx.get(server.url).text


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--no-such"], 2, "daphne-supervisor: --no-such: no such option"),
        (
            ["other.asgi:application"],
            2,
            "daphne-supervisor: 'other.asgi:application': unexpected argument; there is one ",
        ),
        (["--version"], 0, "daphne-supervisor 0."),
    ],
)
def test_its_options_are_those_of_the_command(
    project: DjangoProject, arguments: list[str], code: int, said: str
) -> None:
    """What it says of them, and its exit codes, are the command's own."""
    done = project.run("serve", *arguments)
    assert done.stdout.startswith(said)
    assert done.returncode == code


def test_a_project_without_application_is_one_line(project: DjangoProject) -> None:
    """Both commands name the setting."""
    project.replace("site1/settings.py", "ASGI_APPLICATION", "OTHER")
    expected = "You have not set ASGI_APPLICATION, which is needed to run the server.\n"
    for command in ("serve", "runserver"):
        done = project.run(command)
        assert done.returncode == 1
        assert done.stdout.removeprefix("CommandError: ") == expected
