"""What holds for every test."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# A slow machine is no failure: the global timeout bounds a test, not hypothesis's own clock. What
# fails prints the line that reproduces it. CI tries the same examples for the same code, so that a
# change is judged by itself; everybody else tries new ones.
settings.register_profile(
    "project",
    deadline=None,
    print_blob=True,
    derandomize=os.environ.get("CI") == "true",
)
settings.load_profile("project")


@pytest.fixture(autouse=True, scope="session")
def no_process_is_left_behind() -> Iterator[None]:
    """Fail the run when a test has started a process and not ended it."""
    yield
    left = [str(process) for process in psutil.Process().children(recursive=True)]
    assert left == []
