"""The pid file: locked while its owner lives."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

import pytest

from daphne_supervisor.errors import BootError
from daphne_supervisor.lock_file import Lock
from daphne_supervisor.master import pid_file
from daphne_supervisor.master.pid_file import PidFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OURS = f"{os.getpid()}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file is to be."""
    return tmp_path / "pid"


@contextlib.contextmanager
def written(path: Path) -> Iterator[PidFile]:
    """Own the file at `path`."""
    file = PidFile(str(path))
    file.write()
    try:
        yield file
    finally:
        file.remove()


def test_no_pid_file_is_fine() -> None:
    """Without the option nothing is written."""
    file = PidFile(None)
    file.write()
    file.set_aside()
    file.restore()
    file.abandon()
    file.remove()


def test_the_pid_file_names_us_while_we_run(path: Path) -> None:
    """Everybody may read it, nothing else is left beside it, and it goes when we go."""
    with written(path) as file:
        assert path.read_text() == OURS
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert list(path.parent.iterdir()) == [path]
        file.write()
    assert list(path.parent.iterdir()) == []


def test_a_relative_path_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who changes the directory does not lose the file."""
    monkeypatch.chdir(tmp_path)
    with written(path := tmp_path / "pid"):
        pass
    file = PidFile("pid")
    monkeypatch.chdir("/")
    file.write()
    assert path.read_text() == OURS
    file.remove()
    assert not path.exists()


@pytest.mark.parametrize("content", ["", "nonsense", "1", str(os.getppid()), "9" * 99, "\xff"])
def test_a_file_that_nobody_has_locked_is_stale(path: Path, content: str) -> None:
    """Whatever it says: the process it names may live, and have nothing to do with us."""
    path.write_text(content)
    with written(path):
        assert path.read_text() == OURS
        assert list(path.parent.iterdir()) == [path]


def test_the_file_of_a_living_master_is_respected(path: Path) -> None:
    """Two masters do not share a file; one line names the option and the owner."""
    with written(path):
        with pytest.raises(BootError) as caught:
            PidFile(str(path)).write()
        assert str(caught.value) == (
            f"--pid-file {path}: another master has it; the file says '{os.getpid()}'"
        )
        assert path.read_text() == OURS
        assert list(path.parent.iterdir()) == [path]


def test_a_child_of_a_dead_master_does_not_keep_the_file(path: Path) -> None:
    """It has closed its copy of the lock, so the next master can start while it finishes."""
    ours = PidFile(str(path))
    ours.write()
    ours.abandon()
    with written(path):
        assert path.read_text() == OURS
        ours.remove()
        assert path.exists()


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The message says which option and why."""
    with pytest.raises(BootError, match=r"^--pid-file .*missing/pid: No such file or directory$"):
        PidFile(str(tmp_path / "missing" / "pid")).write()


@pytest.mark.parametrize("kind", ["directory", "link"])
def test_what_is_no_file_is_left_alone(path: Path, kind: str) -> None:
    """It is named, and no temporary file stays behind."""
    if kind == "directory":
        (path / "full").mkdir(parents=True)
    else:
        path.symlink_to("elsewhere")
    with pytest.raises(BootError, match=f"^--pid-file {path}: "):
        PidFile(str(path)).write()
    assert list(path.parent.iterdir()) == [path]


def test_a_pipe_does_not_stop_us(path: Path) -> None:
    """Opening one for reading would wait for a writer."""
    os.mkfifo(path)
    with written(path):
        assert path.read_text() == OURS


def test_a_file_that_is_gone_is_no_error(path: Path) -> None:
    """Somebody else may have tidied up; a file that took its place is not ours."""
    with written(path) as file:
        path.unlink()
        file.set_aside()
    with written(path):
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"


def test_a_file_that_vanishes_while_it_is_looked_at_is_tried_again(
    path: Path, tmp_path: Path
) -> None:
    """Its owner has left between our two looks."""
    (tmp_path / "new").touch()
    assert not pid_file._replace(str(tmp_path / "new"), str(path))


def test_a_file_that_was_replaced_while_it_was_opened_is_tried_again(path: Path) -> None:
    """Who has locked a file that is not in its place any more has locked nothing."""
    path.touch()
    with Lock(path) as old:
        path.unlink()
        path.touch()
        assert not pid_file._take_over("unused", str(path), old)


def test_an_upgrade_sets_the_file_aside(path: Path) -> None:
    """Both masters have a file, and the one that leaves removes its own."""
    aside = path.with_name("pid.old")
    with written(path) as old:
        old.set_aside()
        assert aside.read_text() == OURS
        assert not path.exists()
        with written(path):
            assert {each.name for each in path.parent.iterdir()} == {"pid", "pid.old"}
            old.remove()
            assert list(path.parent.iterdir()) == [path]
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("end", ["leaves", "stays", "was killed"])
def test_an_upgrade_that_failed_gives_the_name_back(path: Path, end: str) -> None:
    """The old master's file is in its place again, whatever the new one does about its own."""
    with written(path) as old:
        inode = path.stat().st_ino
        old.set_aside()
        new = PidFile(str(path))
        new.write()
        if end == "leaves":
            new.remove()
        elif end == "was killed":
            new.abandon()
        old.restore()
        assert path.stat().st_ino == inode
        assert list(path.parent.iterdir()) == [path]
        new.remove()
        assert path.stat().st_ino == inode
    assert list(path.parent.iterdir()) == []


def test_a_second_upgrade_replaces_what_the_first_left_aside(path: Path) -> None:
    """A master that was killed while it drained leaves its FILE.old."""
    path.with_name("pid.old").write_text("of a dead one")
    with written(path) as file:
        file.set_aside()
        assert path.with_name("pid.old").read_text() == OURS


def test_a_file_that_cannot_be_moved_stays(path: Path) -> None:
    """A directory in its way is no reason to fall over."""
    path.with_name("pid.old").mkdir()
    with written(path) as file:
        file.set_aside()
        assert path.read_text() == OURS


def test_a_file_that_cannot_be_written_whole_is_not_left(path: Path) -> None:
    """What went wrong takes the temporary file with it."""
    seen: list[Lock] = []

    def fail() -> None:
        with pid_file._written(str(path)) as (name, lock):
            assert os.path.exists(name)
            seen.append(lock)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert seen[0].closed
    assert list(path.parent.iterdir()) == []
