"""What workers grow from: imported once by the zygote of a generation, and shared by its workers.

Importing this module imports all that a worker needs. Nothing here may start a thread or an event
loop, open a connection or hold a lock that matters: the process is going to be forked.

TLS contexts are made here for two reasons: the zygote can still read a key that belongs to root,
and all workers of a generation share the keys of session tickets, so that a client's session is
resumed whichever of them accepts it.

With --preload the application is imported here too. An application that starts a thread, installs
a reactor or opens a connection at import cannot be forked safely: what is found is named in the
log, since it works until the day that it does not. Django's connections to databases are closed.
Only threads that Python knows of are named: numerical libraries start others, and survive a fork.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from daphne_supervisor import tls_files
from daphne_supervisor.worker import application, main, preload_django, tls_watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daphne_supervisor.config import Config
    from daphne_supervisor.endpoints import TlsFiles
    from daphne_supervisor.listeners import Listener
    from daphne_supervisor.messages import Assignment
    from daphne_supervisor.worker.tls_credentials import Credentials

__all__ = ["Seed"]

logger = logging.getLogger("daphne_supervisor.worker")


class Seed:
    """The imported modules, the credentials for TLS and, with --preload, the application."""

    def __init__(self, config: Config, listeners: tuple[Listener, ...]) -> None:
        """Prepare workers that serve `listeners`. Raises `BootError` when TLS files are wrong."""
        self._config = config
        self._credentials = _credentials(config, listeners)
        self._application: Any = None

    def preload(self) -> None:
        """Import the application, and name what it has done that cannot be forked.

        Raises `BootError` when it cannot be imported.
        """
        before, threads = _sockets(), set(threading.enumerate())
        application.put_first_on_path(os.path.abspath(self._config.app.app_dir))
        self._application = application.load(self._config.application, self._config.app)
        preload_django.load()
        _close_django_connections()
        for hazard in [*_hazards(threads), *_connections(_sockets() - before)]:
            logger.warning("--preload: the application %s, and is forked with it", hazard)

    def run(self, assignment: Assignment) -> int:
        """Be a worker, in a process of its own, and return the exit code."""
        return main.run(assignment, self._credentials, self._application)


def _credentials(config: Config, listeners: tuple[Listener, ...]) -> tuple[Credentials | None, ...]:
    """Return what each listener shows TLS clients, None for plain text; log how long it is valid.

    Listeners with the same files share it. Raises `BootError`.
    """
    files = [tls_files.files_for(listener, config.tls) for listener in listeners]
    made: dict[TlsFiles, Credentials] = {}
    for each, listener in zip(files, listeners, strict=True):
        if each is not None and each not in made:
            # Only for those who speak TLS: what it imports takes memory.
            from daphne_supervisor.worker.tls_credentials import Credentials  # noqa: PLC0415

            plain = listener.tls is None
            endpoint = listener.endpoint
            where = "--certfile" if plain else endpoint.label
            made[each] = Credentials(each, config.tls, where)
            for pair in made[each].pairs:
                logger.log(*tls_watch.validity(pair, time.time()))
    return tuple(made[each] if each is not None else None for each in files)


def _hazards(threads: set[threading.Thread]) -> Iterator[str]:
    """Yield, in words, what was started and a fork does not carry over; `threads` were before."""
    for thread in threading.enumerate():
        if thread not in threads:
            yield f"has started the thread {thread.name!r}"
    reactor = sys.modules.get("twisted.internet.reactor")
    if reactor is not None:
        yield f"has installed a reactor, {type(reactor).__name__}"


def _sockets() -> set[tuple[int, str]]:
    """Return descriptor and identity of every socket of this process."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the descriptor of the directory itself
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith("socket:"):
                found.add((int(name), target))
    return found


def _connections(sockets: set[tuple[int, str]]) -> Iterator[str]:
    """Yield, in words, each of the `sockets` that is connected to somebody with a name."""
    for descriptor, _ in sorted(sockets):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as copy:
            peer = copy.getpeername()
            if isinstance(peer, tuple):
                peer = f"{peer[0]} port {peer[1]}"
            if peer:  # one end of a pair within the process has none
                yield f"has opened a connection to {_text(peer)} (descriptor {descriptor})"


def _text(address: str | bytes) -> str:
    """Return an address for people; that of an abstract unix socket is bytes."""
    return address if isinstance(address, str) else "@" + address[1:].decode(errors="replace")


def _close_django_connections() -> None:
    """Close the connections to databases that were opened; without settings there are none."""
    database, configuration = sys.modules.get("django.db"), sys.modules.get("django.conf")
    if database is None or configuration is None or not configuration.settings.configured:
        return
    for connection in database.connections.all(initialized_only=True):
        if connection.connection is not None:
            logger.warning(
                "--preload: the application has used the database %r at import; its connection"
                " is closed before the fork",
                connection.alias,
            )
        connection.close()
