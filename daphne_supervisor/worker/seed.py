"""What workers grow from: imported once by the zygote of a generation, and shared by its workers.

Importing this module imports all that a worker needs. Nothing here may start a thread or an event
loop, open a connection or hold a lock that matters: the process is going to be forked.

TLS contexts are made here for two reasons: the zygote can still read a key that belongs to root,
and all workers of a generation share the keys of session tickets, so that a client's session is
resumed whichever of them accepts it.

With --preload the application is imported here too. An application that starts a thread, installs
a reactor or opens a connection at import cannot be forked safely: what is found is named in the
log, since it works until the day that it does not. Django's connections to databases are closed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import psutil

from daphne_supervisor.worker import application, main
from daphne_supervisor.worker.tls import context_for

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from daphne_supervisor.config import Config
    from daphne_supervisor.listeners import Listener
    from daphne_supervisor.messages import Assignment

__all__ = ["Seed"]

logger = logging.getLogger("daphne_supervisor.worker")


class Seed:
    """The imported modules, the TLS contexts and, with --preload, the application."""

    def __init__(self, config: Config, listeners: tuple[Listener, ...]) -> None:
        """Prepare workers that serve `listeners`. Raises `BootError` when TLS files are wrong."""
        self._config = config
        self._contexts: tuple[ssl.SSLContext | None, ...] = tuple(
            context_for(listener) for listener in listeners
        )
        self._application: Any = None

    def preload(self) -> None:
        """Import the application, and name what it has done that cannot be forked.

        Raises `BootError` when it cannot be imported.
        """
        before = set(_sockets())
        application.put_first_on_path(os.path.abspath(self._config.app.app_dir))
        self._application = application.load(self._config.application)
        _close_django_connections()
        for hazard in [*_hazards(), *sorted(set(_sockets()) - before)]:
            logger.warning("--preload: %s, which its workers inherit at the fork", hazard)

    def run(self, assignment: Assignment) -> int:
        """Be a worker, in a process of its own, and return the exit code."""
        return main.run(assignment, self._contexts, self._application)


def _hazards() -> Iterator[str]:
    """Yield, in words, what the application has started and a fork does not carry over."""
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            yield f"the application has started the thread {thread.name!r}"
    reactor = sys.modules.get("twisted.internet.reactor")
    if reactor is not None:
        yield f"the application has installed a reactor, {type(reactor).__name__}"
    if asyncio.events._get_running_loop() is not None:  # noqa: SLF001 - the public one raises
        yield "the application runs in an event loop"


def _sockets() -> Iterator[str]:
    """Yield, in words, every connected socket of this process."""
    for connection in psutil.Process().net_connections("inet"):
        if connection.raddr:
            yield (
                f"the application has opened a connection to {connection.raddr.ip}"
                f" port {connection.raddr.port} (descriptor {connection.fd})"
            )


def _close_django_connections() -> None:
    database = sys.modules.get("django.db")
    if database is None:
        return
    for connection in database.connections.all(initialized_only=True):
        if connection.connection is not None:
            logger.warning(
                "--preload: the application has used the database %r at import; its connection"
                " is closed before the fork",
                connection.alias,
            )
        connection.close()
