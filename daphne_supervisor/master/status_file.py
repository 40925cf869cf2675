"""All that the master knows of itself, as JSON in a file, for those who look and for scripts.

It is replaced, never written to, so that a reader finds all of an old state or all of a new one;
and it is for its owner only (0600): process ids and reasons are nobody else's business. A full disk
costs the file, never the service.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["INTERVAL", "StatusFile"]

_log = logging.getLogger("daphne_supervisor.master")

INTERVAL = 1.0
"""Seconds between two versions that differ by the workers' figures only."""


class StatusFile:
    """The file, and when it was last written; a path of None means that there is none."""

    def __init__(self, path: str | None) -> None:
        """Remember where it will be."""
        self._path = None if path is None else os.path.abspath(path)
        self._written = float("-inf")
        self._complained = False

    def update(self, snapshot: Callable[[], object], now: float, *, changed: bool) -> None:
        """Write what `snapshot` returns, if something has `changed` or it is time (seconds)."""
        if self._path is None or (not changed and now - self._written < INTERVAL):
            return
        self._written = now
        try:
            self._replace(self._path, json.dumps(snapshot(), indent=1))
        except OSError as error:
            if not self._complained:
                _log.warning("--status-file %s: cannot be written: %s", self._path, error.strerror)
            self._complained = True
        else:
            self._complained = False

    def remove(self) -> None:
        """Remove the file at the end."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    @staticmethod
    def _replace(path: str, text: str) -> None:
        descriptor, name = tempfile.mkstemp(
            prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(path)
        )
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text + "\n")
            os.replace(name, path)
        except OSError:
            os.unlink(name)
            raise
