"""Changing how the process logs: all of it or not at all."""

from __future__ import annotations

import logging
import logging.config
from typing import TYPE_CHECKING, Any

import pytest

from daphne_supervisor import log_setup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NAME = "tests.log_setup"


class Handler(logging.Handler):
    """Remembers whether it is closed."""

    def __init__(self) -> None:
        """Be open."""
        super().__init__()
        self.closed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Do nothing with it."""

    def close(self) -> None:
        """Note it."""
        super().close()
        self.closed = True


class Stubborn(Handler):
    """Cannot be closed."""

    def close(self) -> None:
        """Fail."""
        message = "stuck"
        raise RuntimeError(message)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Leave logging as it was."""
    log_setup.replace(lambda: None)
    yield
    log_setup.replace(lambda: None)


@pytest.fixture
def logger() -> logging.Logger:
    """Return a logger that exists before anything is set up."""
    return logging.getLogger(NAME)


def adding(kind: type[Handler] = Handler, level: int = logging.INFO) -> Callable[[], None]:
    """Return a set-up that makes a handler and adds it to the logger of these tests."""

    def set_up() -> None:
        logger = logging.getLogger(NAME)
        logger.addHandler(kind())
        logger.setLevel(level)

    return set_up


def dictionary(**settings: Any) -> Callable[[], None]:
    """Return a set-up by dictionary."""
    whole = {"version": 1, "disable_existing_loggers": False, **settings}
    return lambda: logging.config.dictConfig(whole)


def state() -> tuple[list[object], ...]:
    """Return how the loggers of these tests and the root stand, and which handlers are known."""
    loggers = [logging.root, logging.getLogger(NAME), logging.getLogger(f"{NAME}.late")]
    return (
        [
            (each.level, each.handlers[:], each.filters[:], each.propagate, each.disabled)
            for each in loggers
        ],
        list(logging._handlerList),  # type: ignore[attr-defined]
        list(logging._handlers.items()),  # type: ignore[attr-defined]
    )


def closed(handler: logging.Handler) -> bool:
    """Return whether the handler was closed."""
    assert isinstance(handler, Handler)
    return handler.closed


def test_what_is_set_up_holds(logger: logging.Logger) -> None:
    """The simple case, and the handler stays open."""
    log_setup.replace(adding())
    [handler] = logger.handlers
    assert (logger.level, closed(handler)) == (logging.INFO, False)


def test_the_next_set_up_starts_from_how_things_were(logger: logging.Logger) -> None:
    """Nothing of the last one is left, and its handlers are closed: a reload leaks nothing."""
    log_setup.replace(adding(level=logging.DEBUG))
    [first] = logger.handlers
    log_setup.replace(lambda: logger.addHandler(Handler()))
    [second] = logger.handlers
    assert (logger.level, closed(first), closed(second)) == (logging.NOTSET, True, False)


def test_it_can_all_be_undone(logger: logging.Logger) -> None:
    """Handlers, levels, filters and propagation come back, and loggers that were silenced."""
    own = Handler()
    logger.addHandler(own)
    logger.setLevel(logging.ERROR)
    try:
        before = state()
        log_setup.replace(
            dictionary(
                disable_existing_loggers=True,
                filters={"f": {"name": "x"}},
                handlers={"h": {"()": Handler}},
                loggers={f"{NAME}.late": {"handlers": ["h"], "filters": ["f"], "propagate": False}},
                root={"level": "DEBUG", "handlers": ["h"]},
            )
        )
        assert logger.disabled
        assert [now == then for now, then in zip(state()[0], before[0], strict=True)] == [False] * 3
        log_setup.replace(lambda: None)
        assert state()[0] == before[0]
        assert not own.closed
    finally:
        logger.removeHandler(own)
        logger.setLevel(logging.NOTSET)


def test_handlers_that_were_replaced_come_back(logger: logging.Logger) -> None:
    """A file that names a logger takes its handlers away; those of others are given back."""
    own = Handler()
    logger.addHandler(own)
    log_setup.replace(dictionary(loggers={NAME: {"level": "INFO"}}))
    assert logger.handlers == []
    log_setup.replace(lambda: None)
    assert logger.handlers == [own]
    logger.removeHandler(own)


def test_what_others_have_done_since_stays(logger: logging.Logger) -> None:
    """Only what was set up is taken back: a handler that somebody added meanwhile is his."""
    log_setup.replace(adding())
    [ours] = logger.handlers
    theirs = Handler()
    logger.addHandler(theirs)
    log_setup.replace(lambda: None)
    assert logger.handlers == [theirs]
    assert (closed(ours), closed(theirs)) == (True, False)
    logger.removeHandler(theirs)


def test_a_failure_halfway_leaves_all_as_it_was(logger: logging.Logger) -> None:
    """`logging.config` has closed and replaced by then; nothing of it is to be seen."""
    log_setup.replace(adding())
    [present] = logger.handlers
    present.name = "present"
    before, made = state(), []
    tried = dictionary(
        handlers={"present": {"()": Handler}},
        loggers={f"{NAME}.late": {"level": "DEBUG", "handlers": ["present"]}},
        root={"handlers": ["present"]},
    )

    def fail() -> None:
        tried()
        made.extend(logging.root.handlers)
        message = "halfway"
        raise ValueError(message)

    with pytest.raises(ValueError, match="halfway"):
        log_setup.replace(fail)
    assert state() == before
    assert logger.handlers == [present]
    assert [closed(handler) for handler in (present, *made)] == [False, True]


def test_a_handler_keeps_its_name_when_the_last_of_that_name_is_closed() -> None:
    """Names are how the next `logging.config` finds handlers."""
    for _ in range(2):
        log_setup.replace(dictionary(handlers={"h": {"()": Handler}}, root={"handlers": ["h"]}))
        (handler,) = logging.root.handlers
        assert logging._handlers.get("h") is handler  # type: ignore[attr-defined]


def test_handlers_of_others_stay_known() -> None:
    """What they hold back is still written at the end of the process, and names still find them."""
    own = Handler()
    own.name = "own"
    log_setup.replace(adding())
    log_setup.replace(lambda: None)
    assert own in [known() for known in logging._handlerList]  # type: ignore[attr-defined]
    assert logging._handlers.get("own") is own  # type: ignore[attr-defined]


def test_a_handler_that_cannot_be_closed_stops_nothing(logger: logging.Logger) -> None:
    """Handlers are anybody's classes."""
    log_setup.replace(adding(Stubborn))
    log_setup.replace(lambda: None)
    assert logger.handlers == []


def test_a_hundred_set_ups_open_one_file(tmp_path: Path) -> None:
    """Each closes the file of the one before."""
    set_up = dictionary(
        handlers={"h": {"class": "logging.FileHandler", "filename": str(tmp_path / "log")}},
        root={"handlers": ["h"]},
    )
    handlers = []
    for _ in range(100):
        log_setup.replace(set_up)
        handlers += logging.root.handlers
    assert [handler for handler in handlers if handler.stream is not None] == handlers[-1:]  # type: ignore[attr-defined]
