"""Service manager, pid file, process title."""

from __future__ import annotations

import logging
import os
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import setproctitle

from daphne_supervisor.errors import BootError
from daphne_supervisor.master.announce import Notifier, PidFile, _alive, message, set_title
from daphne_supervisor.master.model import Announce, Milestone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UP = Announce(Milestone.READY, "2/2 workers ready", "")


@pytest.mark.parametrize(
    ("milestone", "lines"),
    [
        (None, "STATUS=fine"),
        (Milestone.READY, "READY=1\nSTATUS=fine"),
        (Milestone.RELOADING, "RELOADING=1\nMONOTONIC_USEC=42\nSTATUS=fine"),
        (Milestone.STOPPING, "STOPPING=1\nSTATUS=fine"),
    ],
)
def test_each_milestone_has_its_lines(milestone: Milestone | None, lines: str) -> None:
    """The datagram is what sd_notify(3) and systemd.service(5) ask for."""
    assert message(Announce(milestone, "fine", ""), 42) == lines


def test_a_status_cannot_smuggle_in_a_line() -> None:
    """A reason of several lines stays one value."""
    assert message(Announce(None, "no\nREADY=1", ""), 0) == "STATUS=no READY=1"


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(tmp_path: Path, *, abstract: bool) -> None:
    """Both kinds of address work, and workers do not inherit the address."""
    path = f"@{tmp_path}" if abstract else str(tmp_path / "notify")
    environment = {"NOTIFY_SOCKET": path}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path.replace("@", "\0") if abstract else path)
        Notifier(environment).announce(UP)
        assert manager.recv(4096) == b"READY=1\nSTATUS=2/2 workers ready"
    assert environment == {}


def test_nobody_to_tell_is_fine() -> None:
    """Without a service manager nothing happens."""
    Notifier({}).announce(UP)


def test_an_unreachable_manager_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no reason to stop, nor to repeat oneself."""
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    with caplog.at_level(logging.WARNING):
        notifier.announce(UP)
        notifier.announce(UP)
    assert len(caplog.records) == 1
    assert "NOTIFY_SOCKET" in caplog.text


def test_no_pid_file_is_fine() -> None:
    """Without the option nothing is written."""
    file = PidFile(None)
    file.write()
    file.remove()


def test_the_pid_file_names_us_while_we_run(tmp_path: Path) -> None:
    """Everybody may read it, nothing else is left beside it, and it goes when we go."""
    path = tmp_path / "pid"
    file = PidFile(str(path))
    file.write()
    assert path.read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]
    file.write()
    file.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def dead() -> int:
    """Return the pid of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        return process.pid


@pytest.mark.parametrize("content", ["", "nonsense", "-5", "0", "99999999999999999999"])
def test_a_stale_pid_file_is_overwritten(tmp_path: Path, content: str) -> None:
    """What names no living process stops nobody."""
    path = tmp_path / "pid"
    path.write_text(content)
    PidFile(str(path)).write()
    assert path.read_text() == f"{os.getpid()}\n"


def test_the_pid_file_of_a_dead_process_is_overwritten(tmp_path: Path, dead: int) -> None:
    """A crash leaves the file behind, and the next start goes on."""
    path = tmp_path / "pid"
    path.write_text(str(dead))
    PidFile(str(path)).write()
    assert path.read_text() == f"{os.getpid()}\n"


def test_the_pid_file_of_a_living_process_is_respected(tmp_path: Path) -> None:
    """Two masters do not share a file; the message names the option."""
    path = tmp_path / "pid"
    path.write_text(str(os.getppid()))
    with pytest.raises(BootError, match=f"--pid-file {path}: process {os.getppid()}"):
        PidFile(str(path)).write()
    PidFile(str(path)).remove()
    assert path.read_text() == str(os.getppid())


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Give up the right to signal others' processes for a moment; only root can."""
    if os.geteuid() != 0:
        yield
        return
    # The real user counts as well: whoever is root by it may signal everybody.
    os.setresuid(65534, 65534, 0)
    yield
    os.setresuid(0, 0, 0)


@pytest.mark.usefixtures("as_nobody")
def test_another_users_process_lives_too() -> None:
    """That we may not signal it does not make it dead."""
    assert _alive(1)


def test_a_pid_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The message says which option and why."""
    with pytest.raises(BootError, match=r"--pid-file .*missing/pid: No such file"):
        PidFile(str(tmp_path / "missing" / "pid")).write()


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """A directory in the file's place is left alone, and no temporary file stays behind."""
    path = tmp_path / "pid"
    (path / "full").mkdir(parents=True)
    with pytest.raises(BootError, match="--pid-file"):
        PidFile(str(path)).write()
    assert list(tmp_path.iterdir()) == [path]


def test_a_pid_file_that_is_gone_is_no_error(tmp_path: Path) -> None:
    """Somebody else may have tidied up."""
    path = tmp_path / "pid"
    file = PidFile(str(path))
    file.write()
    path.unlink()
    file.remove()


def test_the_title_names_the_application() -> None:
    """`ps` shows which of several services this master runs."""
    before = setproctitle.getproctitle()
    try:
        set_title("shop.asgi:application")
        assert setproctitle.getproctitle() == "daphne-supervisor: master [shop.asgi:application]"
    finally:
        setproctitle.setproctitle(before)
