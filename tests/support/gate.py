"""Synchronous code that goes on when a test says so."""

from __future__ import annotations

import threading

__all__ = ["PATIENCE", "Gate"]

PATIENCE = 10.0


class Gate:
    """A function that blocks its thread until it is opened."""

    def __init__(self) -> None:
        """Be closed."""
        self._open = threading.Event()
        self.entered = threading.Event()
        self.thread = 0

    def __call__(self) -> int:
        """Block; return the thread."""
        self.thread = threading.get_ident()
        self.entered.set()
        assert self._open.wait(PATIENCE)
        return self.thread

    def wait(self) -> None:
        """Wait until somebody blocks here."""
        assert self.entered.wait(PATIENCE)

    def open(self) -> None:
        """Let who waits go on."""
        self._open.set()
