"""Files that say by a lock whether their owner lives."""

from __future__ import annotations

import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from daphne_supervisor import lock_file
from daphne_supervisor.lock_file import Lock

if TYPE_CHECKING:
    from pathlib import Path


def held(path: Path) -> Lock:
    """Return the lock of the file at `path`, which must be free."""
    lock = lock_file.take(str(path))
    assert lock is not None
    return lock


def test_one_at_a_time_holds_a_file(tmp_path: Path) -> None:
    """Closing it is all that it takes to let go."""
    path = tmp_path / "x.lock"
    with held(path):
        assert lock_file.take(str(path)) is None
    held(path).close()


def test_a_lock_is_for_its_owner_and_does_not_reach_programs(tmp_path: Path) -> None:
    """Whoever could open it could hold it against us; a program that inherits it would hold it."""
    with held(tmp_path / "x.lock") as lock:
        assert stat.S_IMODE((tmp_path / "x.lock").stat().st_mode) == 0o600
        assert not os.get_inheritable(lock.fileno())


def test_a_copy_of_the_descriptor_holds_it_too(tmp_path: Path) -> None:
    """So a new master that has inherited one goes on holding it when the old one leaves."""
    path = tmp_path / "x.lock"
    lock = held(path)
    with Lock(os.dup(lock.fileno()), "r+"):
        lock.close()
        assert lock_file.take(str(path)) is None
    held(path).close()


def test_what_is_in_the_file_stays(tmp_path: Path) -> None:
    """Who takes it after a crash can read what the dead one has left."""
    path = tmp_path / "x.lock"
    path.write_text("left")
    with held(path) as lock:
        assert lock.read() == b"left"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """In a directory that others write to, it could lead anywhere."""
    (tmp_path / "x.lock").symlink_to("other")
    with pytest.raises(OSError, match="symbolic links"):
        lock_file.take(str(tmp_path / "x.lock"))
    assert not (tmp_path / "other").exists()


def test_what_cannot_be_locked_is_an_error_and_not_somebodys(tmp_path: Path) -> None:
    """Only a lock of somebody else's is an answer."""
    (tmp_path / "x").touch()
    with (
        Lock(os.open(tmp_path / "x", os.O_PATH)) as unreadable,
        pytest.raises(OSError, match="Bad file descriptor"),
    ):
        lock_file.hold(unreadable)


def test_a_file_is_told_from_one_that_has_its_name(tmp_path: Path) -> None:
    """Also when there is none any more."""
    path = tmp_path / "x.lock"
    with held(path) as lock:
        assert lock_file.names(str(path), lock)
        path.unlink()
        assert not lock_file.names(str(path), lock)
        path.touch()
        assert not lock_file.names(str(path), lock)


def test_a_file_that_its_owner_removed_meanwhile_is_not_held(tmp_path: Path) -> None:
    """Many who take, remove and let go of one file: never two of them have it at a time."""
    path = tmp_path / "x.lock"
    inside: list[int] = []
    most: list[int] = []

    def fight(number: int) -> None:
        for _ in range(300):
            lock = lock_file.take(str(path))
            if lock is not None:
                with lock:
                    inside.append(number)
                    most.append(len(inside))
                    inside.remove(number)
                    path.unlink()

    threads = [threading.Thread(target=fight, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1


def test_a_failure_while_taking_closes_what_was_opened(tmp_path: Path) -> None:
    """A directory cannot be opened for writing; nothing is left open."""
    before = os.listdir("/proc/self/fd")
    with pytest.raises(IsADirectoryError):
        lock_file.take(str(tmp_path))
    assert os.listdir("/proc/self/fd") == before
