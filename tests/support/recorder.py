"""What the worker logs about its connections while a corpus is played."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["recorded"]


class _Recorder(logging.Handler):
    """Keeps the lines, and lets none bring a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert record.exc_info is None, "a traceback for what a client sent"
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def recorded() -> Iterator[list[str]]:
    """Give the lines that the worker logs meanwhile, those of level DEBUG too."""
    logger = logging.getLogger("daphne_supervisor.worker")
    recorder, level = _Recorder(), logger.level
    logger.addHandler(recorder)
    logger.setLevel(logging.DEBUG)
    try:
        yield recorder.lines
    finally:
        logger.removeHandler(recorder)
        logger.setLevel(level)
