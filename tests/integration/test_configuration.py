"""Configuration, environment and log files: read at the start and at each reload, or refused."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.support.client import get
from tests.support.daphne import Daphne, run_command
from tests.support.resources import at_rest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)

USAGE = 2
APPLICATION = '''
import os

async def application(scope, receive, send):
    """Answer with the variable that the path names."""
    if scope["type"] != "http":
        raise ValueError(scope["type"])
    body = os.environ.get(scope["path"][1:], "not set").encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
'''
#: A mistake in the third line of each kind of file, and what the line about it says.
MISTAKES = {
    "config": (
        "\n\nthreads = -1\n",
        "d.toml:3: threads: '-1' is not a number of threads (0 or more)",
    ),
    "env-file": ("A=1\n\nB='1\n", "env:3: B: the quote is not closed on its line"),
    "log-config": (
        "version = 1\n\nhandlers = ?\n",
        "log.toml: Invalid value (at line 3, column 12)",
    ),
}
NAMES = {"config": "d.toml", "env-file": "env", "log-config": "log.toml"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with an application and good files for all options that name one."""
    (tmp_path / "shop.py").write_text(APPLICATION)
    (tmp_path / "d.toml").write_text("env-file = 'env'\nlog-config = 'log.toml'\nport = 0\n")
    (tmp_path / "env").write_text("GREETING=hello\n")
    (tmp_path / "log.toml").write_text(log_config(tmp_path, "one"))
    return tmp_path


def log_config(folder: Path, mark: str) -> str:
    """Return a configuration of logging that writes to `log` in lines that begin with `mark`."""
    described = {
        "version": 1,
        "formatters.plain": {"format": f"{mark} %(name)s %(message)s"},
        "handlers.file": {
            "class": "logging.FileHandler",
            "filename": f"{folder}/log",
            "formatter": "plain",
        },
        "root": {"level": "INFO", "handlers": ["file"]},
    }
    lines = []
    for name, value in described.items():
        if isinstance(value, dict):
            lines += [f"[{name}]", *(f"{key} = {json.dumps(each)}" for key, each in value.items())]
        else:
            lines.append(f"{name} = {value}")
    return "\n".join(lines)


def serving(folder: Path, *arguments: str, **variables: str) -> Daphne:
    """Return the application of `folder` with its environment file, not yet started."""
    given = ["--app-dir", str(folder), "--env-file", str(folder / "env"), *arguments]
    return Daphne("shop:application", *given, env=variables)


def test_the_application_sees_the_environment_file(folder: Path) -> None:
    """What the process has already wins, and so every variable can be overruled."""
    (folder / "env").write_text('export GREETING="good morning"\nPLACE=file\n# GONE=1\n')
    with serving(folder, PLACE="process") as server:
        assert get(server.port, "/GREETING").text == "good morning"
        assert get(server.port, "/PLACE").text == "process"
        assert get(server.port, "/GONE").text == "not set"


def test_a_reload_reads_the_environment_file_anew(folder: Path) -> None:
    """New values are seen by the new workers, and variables that have left the file are gone."""
    (folder / "env").write_text("GREETING=hello\nGONE=not yet\n")
    with serving(folder) as server:
        assert get(server.port, "/GONE").text == "not yet"
        (folder / "env").write_text("GREETING=goodbye\n")
        server.replace_all()
        assert get(server.port, "/GREETING").text == "goodbye"
        assert get(server.port, "/GONE").text == "not set"


def test_options_may_stand_in_the_environment_file(folder: Path) -> None:
    """A variable of ours in it counts as one that is set; one that means nothing is warned of."""
    (folder / "env").write_text("DAPHNE_SUPERVISOR_WORKERS=2\nDAPHNE_SUPERVISOR_WROKERS=3\n")
    with serving(folder) as server:
        assert "worker 2 gen 1" in server.log()
        assert "DAPHNE_SUPERVISOR_WROKERS: no such option, ignored" in server.log()


def test_a_reload_reads_the_configuration_file_anew(folder: Path) -> None:
    """What can change changes; what cannot is named, and stays as it was."""
    config = folder / "d.toml"
    config.write_text("port = 0\nserver-name = 'one'\n")
    with Daphne("shop:application", "--config", str(config), f"--app-dir={folder}") as server:
        assert get(server.port, "/").values("server") == ["one"]
        config.write_text("bind = '127.0.0.2'\nserver-name = 'two'\n")
        server.replace_all()
        assert get(server.port, "/").values("server") == ["two"]
        assert "--bind: has changed, which takes a restart" in server.log()


@pytest.mark.parametrize("option", MISTAKES)
def test_a_mistake_in_a_file_ends_the_start_with_2_and_one_line(folder: Path, option: str) -> None:
    """The line names the file and the place in it."""
    text, words = MISTAKES[option]
    (folder / NAMES[option]).write_text(text)
    done = run_command("--config=d.toml", "--app-dir=.", "shop:application", cwd=folder)
    assert done.returncode == USAGE
    assert done.stderr.splitlines()[1:] == []
    assert words in done.stderr


@pytest.mark.parametrize("option", MISTAKES)
def test_a_mistake_in_a_file_refuses_the_reload(folder: Path, option: str) -> None:
    """The workers go on as they are, status and log name file and place, and it can be mended."""
    text, words = MISTAKES[option]
    broken = folder / NAMES[option]
    good = broken.read_text()
    with Daphne("shop:application", "--config=d.toml", "--port=0", cwd=folder) as server:
        before = server.worker_pids()
        broken.write_text(text)
        said = server.reload()
        assert "reload refused" in said
        assert words in said
        assert server.worker_pids() == before
        assert get(_port(folder), "/GREETING").text == "hello"
        assert words in (folder / "log").read_text()
        broken.write_text(good)
        server.replace_all()
        assert get(_port(folder), "/GREETING").text == "hello"


def _port(folder: Path) -> int:
    """Return the port that the log of `folder` tells of."""
    return int((folder / "log").read_text().partition("TCP address 127.0.0.1:")[2].split()[0])


def test_a_log_configuration_is_obeyed_by_master_and_workers(folder: Path) -> None:
    """All lines go where the file says and in its form, those of the application's too."""
    (folder / "shop.py").write_text(
        f"import logging\nlogging.getLogger('shop').warning('imported'){APPLICATION}"
    )
    arguments = [f"--log-config={folder}/log.toml", f"--app-dir={folder}", "--log-fmt=%(message)s"]
    with Daphne("shop:application", *arguments, "--access-log=/dev/null") as server:
        lines = (folder / "log").read_text().splitlines()
        assert [line for line in lines if not line.startswith("one ")] == []
        assert "one shop imported" in lines
        assert any(line.startswith("one daphne_supervisor.master worker 1 ") for line in lines)
        assert server.log() == "", "nothing is said twice"


def test_a_reload_changes_the_log_and_leaks_no_descriptor(folder: Path) -> None:
    """The same file with other content is taken up, and what it had opened before is closed."""
    arguments = [f"--log-config={folder}/log.toml", f"--app-dir={folder}"]
    with Daphne("shop:application", *arguments) as server:
        server.replace_all()
        opened = at_rest(server)[0].descriptors
        for mark in ("two", "three", "four"):
            (folder / "log.toml").write_text(log_config(folder, mark))
            (folder / "log").unlink()
            server.replace_all()
            lines = (folder / "log").read_text().splitlines()
            assert lines
            assert [line for line in lines if not line.startswith(f"{mark} ")] == []
        assert at_rest(server)[0].descriptors <= opened


def test_a_reload_follows_the_link_that_a_deploy_has_moved(folder: Path) -> None:
    """Code, configuration and environment are those of where `current` leads to by then."""
    for release in ("one", "two"):
        (folder / release).mkdir()
        (folder / release / "shop.py").write_text(APPLICATION)
        (folder / release / "d.toml").write_text(f"env-file = 'env'\nserver-name = '{release}'\n")
        (folder / release / "env").write_text(f"RELEASE={release}\n")
    current = folder / "current"
    current.symlink_to("one")
    # A shell that has gone there leaves the name in PWD.
    where = {"cwd": current, "env": {"PWD": str(current)}}
    with Daphne("shop:application", "--config=d.toml", **where) as server:  # type: ignore[arg-type]
        _check_release(server, folder / "one")
        (folder / "next").symlink_to("two")
        (folder / "next").rename(current)
        server.replace_all()
        _check_release(server, folder / "two")


def _check_release(server: Daphne, release: Path) -> None:
    """Check that all is of `release`: configuration, environment and working directory."""
    answer = get(server.port, "/RELEASE")
    assert answer.text == release.name
    assert answer.values("server") == [release.name]
    workers = [os.readlink(f"/proc/{pid}/cwd") for pid in server.worker_pids()]
    assert str(release) in workers
