"""A server that ends with the program beside it."""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING

import pytest

from daphne_supervisor import companion
from daphne_supervisor.companion import Companion, configuration, leave_with, main
from daphne_supervisor.errors import UsageError
from tests.support.daphne import environment

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def terminated() -> Iterator[list[int]]:
    """Return the SIGTERMs that this process is sent."""
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    yield heard
    signal.signal(signal.SIGTERM, before)


def test_the_end_of_the_other_program_is_a_signal(terminated: list[int]) -> None:
    """The kernel tells, whatever the other one has died of; what it writes tells nothing."""
    near, far = os.pipe()
    assert leave_with(near)
    assert terminated == []
    os.close(far)
    os.kill(os.getpid(), 0)  # a call, after which a signal that waits has come
    assert terminated == [signal.SIGTERM]
    os.close(near)


def test_who_comes_too_late_is_told(terminated: list[int]) -> None:
    """A program that has ended before anybody could look is seen to have ended."""
    near, far = os.pipe()
    os.close(far)
    assert not leave_with(near)
    os.close(near)
    assert terminated == []


def test_without_the_other_program_nothing_is_started(terminated: list[int]) -> None:
    """The arguments are not even looked at, and that is no failure."""
    near, far = os.pipe()
    os.close(far)
    assert main([str(near), "--no-such-option"]) == 0
    os.close(near)
    assert terminated == []


def test_beside_the_other_program_it_is_the_command(
    terminated: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    """The rest of the arguments, and the exit code, are the command's."""
    near, far = os.pipe()
    assert main([str(near), "--version"]) == 0
    assert main([str(near), "--no-such-option"]) == 2
    assert capfd.readouterr().out.startswith("daphne-supervisor ")
    os.close(near)
    os.close(far)
    assert len(terminated) <= 1


def test_a_companion_is_started_with_variables_and_waited_for(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It reads the variables that it was given; descriptors are only what it was given, too."""
    environ = environment({"DAPHNE_SUPERVISOR_WORKERS": "none"})
    assert Companion(["a:b"], environ).wait() == 2
    said = capfd.readouterr().err
    assert said.startswith("daphne-supervisor: DAPHNE_SUPERVISOR_WORKERS: 'none' is not")


def test_what_is_brief_is_understood() -> None:
    """The options of development and tests are options of the command."""
    config = configuration([*companion.BRIEF, "--workers=auto", "a:b"], {})
    assert config.drain.graceful_timeout < 1
    assert config.process.worker_timeout > 3600
    assert config.process.workers >= 1
    with pytest.raises(UsageError, match="APPLICATION is missing"):
        configuration([], {})


def test_only_the_end_is_hushed(caplog: pytest.LogCaptureFixture) -> None:
    """Who is cut off at the end is not named; everything else is."""
    logger = logging.getLogger("daphne_supervisor.worker")
    before = list(logger.filters)
    try:
        companion.hush_drain()
        record = logger.makeRecord(logger.name, logging.WARNING, "drain.py", 1, "cut", (), None)
        logger.handle(record)
        logger.warning("something else")
    finally:
        logger.filters[:] = before
    assert [each.message for each in caplog.records] == ["something else"]
