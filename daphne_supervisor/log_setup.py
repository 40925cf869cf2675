"""Changing how the process logs: all of it or not at all.

Python's `logging` is one state for the whole process, `logging.config` changes it step by step, and
a mistake halfway leaves half of it. So it is noted how every logger stands, somebody sets up what
he likes, and if he fails everything is put back. What was set up is remembered together with what
it replaced: the next set-up starts from how things were before, as it would in a new process.

Meanwhile the registers of handlers that `logging` keeps are empty. They belong to no public
interface, but `logging.config` closes whatever stands in them before it knows whether it will
succeed; and they are how new handlers are found, which have to be closed one day.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["replace"]

_LISTED: Any = vars(logging)["_handlerList"]  # of weak references
_NAMED: Any = vars(logging)["_handlers"]


@dataclass(frozen=True, slots=True)
class _Settings:
    """How one logger stands; without arguments, how a new one does."""

    level: int = logging.NOTSET
    handlers: tuple[logging.Handler, ...] = ()
    filters: tuple[Any, ...] = ()
    propagate: bool = True
    disabled: bool = False


_NEW = _Settings()
_Loggers = dict[logging.Logger, _Settings]


@dataclass(slots=True)
class _Setup:
    """What was set up: handlers, and the loggers that it changed, as they stood and stand."""

    handlers: list[logging.Handler] = field(default_factory=list)
    before: _Loggers = field(default_factory=dict)
    after: _Loggers = field(default_factory=dict)


class _Registers:
    """The handlers that `logging` knows, by name and for its end; emptied by making this."""

    def __init__(self) -> None:
        """Take all of them."""
        self._listed = _LISTED[:]
        self._named = dict(_NAMED)
        _LISTED.clear()
        _NAMED.clear()

    def put_back(self) -> None:
        """Add what was there."""
        _LISTED[:0] = self._listed
        for name, handler in self._named.items():
            _NAMED.setdefault(name, handler)


_present = _Setup()


def replace(set_up: Callable[[], object]) -> None:
    """Let `set_up` set up logging in place of what was set up last; if it raises, that stays."""
    global _present  # noqa: PLW0603 - as global as what it describes
    old, standing, registers = _present, _loggers(), _Registers()
    try:
        new = _fresh(set_up)
    except BaseException:
        _give_up(standing, registers)
        raise
    made = _Registers()
    registers.put_back()
    _close(old.handlers)  # which removes their names, so those of the new ones come afterwards
    made.put_back()
    _present = new


def _fresh(set_up: Callable[[], object]) -> _Setup:
    """Take back what was set up last, let `set_up` do its work, and return what that was."""
    for logger, old in _present.before.items():
        others = [each for each in logger.handlers if each not in _present.handlers]
        gone = [each for each in old.handlers if each not in _present.after[logger].handlers]
        _put(logger, dataclasses.replace(old, handlers=(*others, *gone)))
    before = _loggers()
    set_up()
    after = _loggers()
    changed = [logger for logger in after if after[logger] != before.get(logger, _NEW)]
    return _Setup(
        _listed(),
        {logger: before.get(logger, _NEW) for logger in changed},
        {logger: after[logger] for logger in changed},
    )


def _give_up(standing: _Loggers, registers: _Registers) -> None:
    """Put everything back, and close what was made in vain."""
    for logger in _loggers():
        _put(logger, standing.get(logger, _NEW))
    made = _listed()
    _Registers()  # forget them
    _close(made)
    registers.put_back()


def _listed() -> list[logging.Handler]:
    """Return the handlers that live, of those that `logging` has registered."""
    return [handler for each in _LISTED if (handler := each()) is not None]


def _close(handlers: list[logging.Handler]) -> None:
    for handler in handlers:
        with contextlib.suppress(Exception):  # a handler is a class of anybody's
            handler.close()


def _loggers() -> _Loggers:
    """Return how every logger stands."""
    known = logging.root.manager.loggerDict.values()  # with placeholders among them
    return {
        logger: _Settings(
            logger.level,
            tuple(logger.handlers),
            tuple(logger.filters),
            logger.propagate,
            logger.disabled,
        )
        for logger in [logging.root, *known]
        if isinstance(logger, logging.Logger)
    }


def _put(logger: logging.Logger, settings: _Settings) -> None:
    logger.setLevel(settings.level)  # it also forgets what was computed from levels
    logger.handlers[:] = settings.handlers
    logger.filters[:] = settings.filters
    logger.propagate = settings.propagate
    logger.disabled = settings.disabled
