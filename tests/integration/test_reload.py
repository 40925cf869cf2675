"""HUP: the code on the disk takes over, no client notices, and code that is broken does not."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.client import get
from tests.support.daphne import Daphne
from tests.support.load import Load
from tests.support.project import Patience, Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project whose version 0 is on the disk."""
    project = Project(tmp_path)
    project.release("v0")
    return project


@pytest.fixture
def patience(tmp_path: Path) -> Patience:
    """Return what says how long a worker may take to be ready: long, to begin with."""
    return Patience(tmp_path / "daphne.toml")


@pytest.fixture
def server(project: Project, patience: Patience) -> Iterator[Daphne]:
    """Return two workers that serve the project."""
    options = ["--workers", "2", *patience.arguments, "--access-log", "/dev/null"]
    with Daphne(project.application, *options, *project.arguments) as server:
        yield server


def _versions(load: Load) -> set[str]:
    """Return the versions that the connections were answered by last."""
    return {answer.partition(" ")[0] for answer in load.latest}


def test_ten_reloads_under_load_lose_no_request(server: Daphne, project: Project) -> None:
    """HUP after HUP replaces every worker, and of all requests sent meanwhile each is answered."""
    with Load(server.port) as load:
        for number in range(1, 11):
            before = set(server.worker_pids())
            project.release(f"v{number}")
            server.replace_all()
            assert not before & set(server.worker_pids())
            load.turn()
            assert _versions(load) == {f"v{number}"}
    assert load.losses == []
    assert load.answered == load.sent > 1000


def test_reloads_on_top_of_each_other_lose_no_request(server: Daphne, project: Project) -> None:
    """HUPs that do not wait for the one before end with the last code, and lose nothing."""
    before = server.worker_pids()
    with Load(server.port) as load:
        for number in range(1, 6):
            project.release(f"v{number}")
            server.signal(signal.SIGHUP)
            server.wait(lambda said: "RELOADING=1" in said.splitlines())
        server.wait_status("generation 6; reload done")
        server.settle(2)
        load.turn()
        assert _versions(load) == {"v5"}
    assert not set(before) & set(server.worker_pids())
    assert load.losses == []
    assert load.answered == load.sent


def test_code_that_does_not_import_leaves_the_old_workers(server: Daphne, project: Project) -> None:
    """The old workers go on, the log says why once, and the next HUP with good code works."""
    before = server.worker_pids()
    with Load(server.port) as load:
        project.release_no_python()
        said = server.reload()
        load.turn()
        assert "2/2 workers ready" in said
        assert "reload failed" in said
        assert "SyntaxError" in said
        server.settle(2)
        assert server.worker_pids() == before
        assert _versions(load) == {"v0"}
        assert server.log().count('project.py", line 1') == 1
        assert server.log().count("def application(:") == 1
        assert len(re.findall(r"gen 2 pid \d+: forked", server.log())) == 1
        project.release("v1")
        server.replace_all()
        load.turn()
        assert _versions(load) == {"v1"}
    assert load.losses == []
    assert load.answered == load.sent


def test_code_that_hangs_leaves_the_old_workers(
    server: Daphne, project: Project, patience: Patience
) -> None:
    """A lifespan startup without end is given up after --ready-timeout, and holds nobody up."""
    with Load(server.port) as load:
        seconds = patience.shorten(server)
        before = server.worker_pids()
        project.release_hanging()
        said = server.reload()
        load.turn()
        assert "reload failed" in said
        assert "--ready-timeout" in said
        server.settle(2)
        assert server.worker_pids() == before
        assert _versions(load) == {"v0"}
        log = server.log()
        assert len(re.findall(r"gen 3 pid \d+: forked", log)) == 1
        assert re.search(rf"ERROR .*was not ready within {seconds} s \(--ready-timeout\)", log)
        patience.lengthen()
        project.release("v1")
        server.replace_all()
        load.turn()
        assert _versions(load) == {"v1"}
    assert load.losses == []
    assert load.answered == load.sent


def test_the_traceback_of_a_failed_reload_is_logged_once(server: Daphne, project: Project) -> None:
    """The application's own traceback, and nothing of ours, stands in the log one time."""
    project.release_failing()
    assert "ZeroDivisionError" in server.reload()
    server.settle(2)
    shown = server.log().partition("Traceback (most recent call last):")[2]
    assert re.findall(r'File "(.*)", line \d+, in (\S+)', shown) == [
        (str(project.module), "<module>"),
        (str(project.module), "prepare"),
    ]
    assert get(server.port, "/").text.startswith("v0 ")
