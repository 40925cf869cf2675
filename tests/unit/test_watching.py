"""The files between the workers of `runserver` and the process that watches."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from django.utils.autoreload import autoreload_started, file_changed

from daphne_supervisor.watching import Watching
from tests.support import django_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

django_settings.configure()


class Reloader:
    """As much of Django's reloader as is used."""

    def __init__(self, *files: Path) -> None:
        """Watch these files."""
        self.extra_files = set(files)

    def watch_dir(self, path: Path, glob: str) -> None:
        """Let Django's own receivers ask for whole directories, if it was set up in full before."""


@pytest.fixture
def watching() -> Iterator[Watching]:
    """Return it, connected to Django's signals."""
    watching = Watching()
    yield watching
    autoreload_started.disconnect(watching._begin)
    file_changed.disconnect(watching._note)
    os.close(watching.notes)


def test_modules_of_workers_are_watched(watching: Watching) -> None:
    """Those that were told before the reloader began, and by whichever worker."""
    reloader = Reloader(Path("/own"))
    workers = os.dup(watching.modules)
    watching._watch([Path("/early.py")])
    thread = watching.listen()
    autoreload_started.send(sender=reloader)
    before = reloader.extra_files
    os.write(workers, b"/late\xff.py\n")
    os.close(workers)
    thread.join(10)
    assert not thread.is_alive()
    late = Path(os.fsdecode(b"/late\xff.py"))
    assert reloader.extra_files == {Path("/own"), Path("/early.py"), late}
    assert late not in before  # somebody may have been going through it
    again = Reloader()
    autoreload_started.send(sender=again)
    assert again.extra_files == {Path("/early.py"), late}


def test_changes_are_noted_for_workers(watching: Watching) -> None:
    """Each is a line; nothing is answered, so Django does with the file what it would do."""
    answers = file_changed.send(sender=None, file_path=Path("/pages/a.html"))
    file_changed.send(sender=None, file_path=Path("/pages/b.html"))
    assert not any(answer for receiver, answer in answers if receiver == watching._note)
    assert os.pread(watching.notes, 100, 0) == b"/pages/a.html\n/pages/b.html\n"
    os.close(watching.modules)
    os.close(watching._read)
