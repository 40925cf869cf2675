"""The file that tells how things stand."""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any

from daphne_supervisor.master.status_file import INTERVAL, StatusFile

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class Snapshots:
    """A new number each time it is asked."""

    def __init__(self) -> None:
        """Begin at 0."""
        self.number = 0

    def __call__(self) -> dict[str, Any]:
        """Return the next snapshot."""
        self.number += 1
        return {"number": self.number, "name": "größer\n"}


def number(path: Path) -> int:
    """Return the number in the file."""
    found = json.loads(path.read_text())["number"]
    assert isinstance(found, int)
    return found


def test_it_is_json_for_its_owner_only(tmp_path: Path) -> None:
    """Process ids and reasons are nobody else's business."""
    path = tmp_path / "status"
    before = os.umask(0)
    try:
        StatusFile(str(path)).update(Snapshots(), 0.0, changed=True)
    finally:
        os.umask(before)
    assert json.loads(path.read_text()) == {"number": 1, "name": "größer\n"}
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_change_is_written_at_once_and_figures_now_and_then(tmp_path: Path) -> None:
    """Heartbeats alone do not write the file more often than its interval."""
    path = tmp_path / "status"
    file, snapshots = StatusFile(str(path)), Snapshots()
    file.update(snapshots, 100.0, changed=False)  # the first is due
    assert number(path) == 1
    file.update(snapshots, 100.0 + INTERVAL / 2, changed=False)
    assert snapshots.number == 1  # nobody looked
    file.update(snapshots, 100.0 + INTERVAL / 2, changed=True)
    assert number(path) == 2
    file.update(snapshots, 100.0 + INTERVAL, changed=False)
    assert number(path) == 2
    file.update(snapshots, 100.0 + INTERVAL * 1.5, changed=False)
    assert number(path) == 3


def test_a_reader_finds_all_of_one_state(tmp_path: Path) -> None:
    """The file is replaced: who has the old one open reads it to its end."""
    path = tmp_path / "status"
    file, snapshots = StatusFile(str(path)), Snapshots()
    file.update(snapshots, 0.0, changed=True)
    with path.open() as old:
        file.update(snapshots, 0.0, changed=True)
        assert json.load(old)["number"] == 1
    assert number(path) == 2
    assert os.listdir(tmp_path) == ["status"]


def test_it_stays_where_it_was_when_the_directory_changes(tmp_path: Path) -> None:
    """A relative name is one of the place where the master was started."""
    (tmp_path / "other").mkdir()
    before = os.getcwd()
    try:
        os.chdir(tmp_path)
        file = StatusFile("status")
        os.chdir(tmp_path / "other")
        file.update(Snapshots(), 0.0, changed=True)
    finally:
        os.chdir(before)
    assert number(tmp_path / "status") == 1


def test_a_file_that_cannot_be_written_is_named_once_in_a_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The service goes on; after a success another failure is news."""
    folder = tmp_path / "folder"
    path = folder / "status"
    file, snapshots = StatusFile(str(path)), Snapshots()
    with caplog.at_level(logging.WARNING):
        for now in (1.0, 2.0):
            file.update(snapshots, now, changed=True)
        assert [record.getMessage() for record in caplog.records] == [
            f"--status-file {path}: cannot be written: No such file or directory"
        ]
        folder.mkdir()
        file.update(snapshots, 3.0, changed=True)
        assert number(path) == 3
        file.remove()
        folder.rmdir()
        file.update(snapshots, 4.0, changed=True)
    assert len(caplog.records) == 2


def test_what_is_in_the_way_is_named_and_nothing_is_left_beside_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A directory of that name is not replaced, and the temporary file goes."""
    path = tmp_path / "status"
    path.mkdir()
    StatusFile(str(path)).update(Snapshots(), 0.0, changed=True)
    assert f"--status-file {path}: cannot be written: Is a directory" in caplog.text
    assert os.listdir(tmp_path) == ["status"]


def test_it_is_removed_at_the_end(tmp_path: Path) -> None:
    """A state of nobody is no state; a file that is gone already is fine."""
    path = tmp_path / "status"
    file = StatusFile(str(path))
    file.update(Snapshots(), 0.0, changed=True)
    file.remove()
    file.remove()
    assert os.listdir(tmp_path) == []


def test_without_a_path_there_is_no_file() -> None:
    """Nobody asks for a snapshot then."""
    file, snapshots = StatusFile(None), Snapshots()
    file.update(snapshots, 0.0, changed=True)
    file.remove()
    assert snapshots.number == 0
