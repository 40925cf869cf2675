"""The first boot: an application that does not come up ends the master, with the reason once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.support.daphne import APPS, Daphne, run_command
from tests.support.project import Project

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

BOOT_FAILED = 3


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project without a release."""
    return Project(tmp_path)


def _boot(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the project, which is expected to end by itself, to its end."""
    return run_command("--port", "0", *arguments, *project.arguments, project.application)


@pytest.mark.parametrize("workers", ["1", "4"])
def test_a_failing_import_ends_with_3_and_one_traceback(project: Project, workers: str) -> None:
    """However many workers fail, the application's traceback is there one time, ours never."""
    project.release_failing()
    done = _boot(project, "--workers", workers)
    assert done.returncode == BOOT_FAILED
    assert done.stderr.count("Traceback (most recent call last)") == 1
    assert done.stderr.count("return 1 // 0") == 1
    assert "daphne_supervisor/" not in done.stderr


@pytest.mark.parametrize("workers", ["1", "4"])
def test_a_syntax_error_ends_with_3_and_its_line_once(project: Project, workers: str) -> None:
    """Code that is no Python is shown one time, with file and line."""
    project.release_no_python()
    done = _boot(project, "--workers", workers)
    assert done.returncode == BOOT_FAILED
    assert done.stderr.count(f'File "{project.module}", line 1') == 1
    assert "daphne_supervisor/" not in done.stderr


@pytest.mark.parametrize("workers", ["1", "4"])
def test_a_module_that_is_missing_is_one_line(project: Project, workers: str) -> None:
    """A name that is nobody's module is the command line's mistake, so there is no traceback."""
    done = _boot(project, "--workers", workers)
    assert done.returncode == BOOT_FAILED
    assert done.stderr.count("no module named 'project'") >= 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("workers", ["1", "4"])
def test_a_hanging_startup_ends_with_3(project: Project, workers: str) -> None:
    """A lifespan startup without end is given up after --ready-timeout, and the option is named."""
    project.release_hanging()
    begun = time.monotonic()
    done = _boot(project, "--workers", workers, "--ready-timeout", "2")
    assert done.returncode == BOOT_FAILED
    assert "was not ready within 2 s (--ready-timeout)" in done.stderr
    assert 2 <= time.monotonic() - begun < 15


@pytest.mark.parametrize("workers", ["1", "4"])
def test_a_startup_that_fails_ends_with_3_and_its_message(project: Project, workers: str) -> None:
    """What the application sends with lifespan.startup.failed is what the user reads."""
    project.release_refusing()
    done = _boot(project, "--workers", workers)
    assert done.returncode == BOOT_FAILED
    assert "lifespan startup failed: the database is on fire" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_application_without_lifespan_is_served() -> None:
    """An application that raises at the lifespan scope does not know it, which is its right."""
    with Daphne(f"{APPS}:hello") as server:
        assert "Traceback" not in server.log()
