"""The files between `runserver`'s workers and the process that watches: see `development`."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.utils.autoreload import autoreload_started, file_changed

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Watching"]


class Watching:
    """Django's reloader, told of the workers' modules, and telling workers of changed files.

    `notes` and `modules` are the descriptors that workers inherit.
    """

    def __init__(self) -> None:
        """Be told by Django when it begins to watch, and of each change."""
        self.notes = os.memfd_create("notes")
        self._read, self.modules = os.pipe()
        self._reloader: Any = None
        self._files: frozenset[Path] = frozenset()
        autoreload_started.connect(self._begin)
        file_changed.connect(self._note)

    def listen(self) -> threading.Thread:
        """Hear, in a thread of its own that is returned, what workers have imported."""
        os.close(self.modules)  # theirs by now: the last of them is the end of the thread
        thread = threading.Thread(target=self._hear, name="modules of workers", daemon=True)
        thread.start()
        return thread

    def _begin(self, sender: Any, **_: Any) -> None:
        """Keep the reloader; another one than the last time after an error in the code."""
        self._reloader = sender
        self._watch(())

    def _note(self, file_path: Path, **_: Any) -> None:
        """Note a change for the workers; one that takes new code ends them anyway."""
        os.write(self.notes, os.fsencode(file_path) + b"\n")

    def _hear(self) -> None:
        with open(self._read, "rb") as pipe:
            for line in pipe:
                self._watch([Path(os.fsdecode(line.removesuffix(b"\n")))])

    def _watch(self, files: Iterable[Path]) -> None:
        self._files |= frozenset(files)
        if self._reloader is not None:
            # Another thread may be going through the set: it is replaced, not changed.
            self._reloader.extra_files = self._reloader.extra_files | self._files
