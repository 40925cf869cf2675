"""A fixture for pytest: live servers that end with the test.

It is not loaded by itself, wherever this package happens to be installed: a project that wants it
says `pytest_plugins = ["daphne_supervisor.pytest_plugin"]` in its top-level conftest.py.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from daphne_supervisor.testing import LiveServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["daphne_server"]


@pytest.fixture
def daphne_server() -> Iterator[Callable[..., LiveServer]]:
    """Start servers: `daphne_server(application, *options)` returns a running `LiveServer`.

    Without an application, or with None, it is that of the Django project, with its static files,
    on the databases of the test; these must not be in memory, and the test must commit (with
    pytest-django: the fixture `transactional_db`).
    """
    with contextlib.ExitStack() as running:

        def start(application: Any = None, *options: str) -> LiveServer:
            if application is not None:
                return running.enter_context(LiveServer(application, *options))
            from daphne_supervisor import django_site  # noqa: PLC0415 - Django may not be there

            return running.enter_context(django_site.live_server(*options))

        yield start
