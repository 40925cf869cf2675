"""The working directory, by the name under which it was entered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daphne_supervisor import here
from daphne_supervisor.errors import BootError


@pytest.fixture
def current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a link to the directory that the test is in."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "current").symlink_to("one")
    monkeypatch.chdir(tmp_path / "current")
    return tmp_path / "current"


def test_the_name_that_a_shell_remembers_keeps_its_links(current: Path) -> None:
    """PWD says how we came here."""
    assert here.logical({"PWD": str(current)}) == str(current)


@pytest.mark.parametrize("named", ["", ".", "/", "/does/not/exist"])
def test_a_name_that_does_not_lead_here_is_not_believed(current: Path, named: str) -> None:
    """Whoever has changed the directory without being a shell has left PWD as it was."""
    assert here.logical({"PWD": named}) == str(current.parent / "one")
    assert here.logical({}) == str(current.parent / "one")


def test_a_deleted_directory_has_no_name(current: Path) -> None:
    """Then there is nothing to come back to, and no reason to fail."""
    (current.parent / "one").rmdir()
    assert here.logical({"PWD": str(current)}) == ""


def test_a_link_is_followed_anew(current: Path) -> None:
    """After a deploy the same name leads to the new release."""
    current.unlink()
    current.symlink_to("two")
    here.enter(str(current))
    assert os.getcwd() == str(current.parent / "two")


def test_without_a_name_one_stays(current: Path) -> None:
    """A process that could not name its directory is where it is."""
    here.enter("")
    assert Path.cwd() == current.parent / "one"


def test_a_directory_that_we_are_in_need_not_be_entered(current: Path) -> None:
    """It may be closed to us by now, which is no reason not to start."""
    (current.parent / "one").chmod(0)
    try:
        here.enter(str(current))
        assert Path.cwd() == current.parent / "one"
    finally:
        (current.parent / "one").chmod(0o700)


def test_a_directory_that_cannot_be_entered_is_named(current: Path) -> None:
    """One line, with the option that would change it."""
    with pytest.raises(BootError) as caught:
        here.enter(f"{current}/none")
    assert str(caught.value) == (
        f"--chdir {current}/none: cannot be entered: No such file or directory"
    )
