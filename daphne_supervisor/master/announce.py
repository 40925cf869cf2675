"""What the world is told about the master: the service manager, the pid file, the process list.

Theory of the notification protocol: a service manager names a datagram socket in `NOTIFY_SOCKET`,
and each datagram is a few `KEY=value` lines (sd_notify(3)). It is told when the service is ready,
and not asked, so nobody has to guess or to poll; the same socket lets a test wait without a sleep.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import setproctitle

from daphne_supervisor.errors import BootError
from daphne_supervisor.master.model import Milestone

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from daphne_supervisor.master.model import Announce

__all__ = ["Notifier", "PidFile", "message", "set_title"]

_log = logging.getLogger("daphne_supervisor.master")

_PATIENCE = 1.0
"""Seconds to wait for room in the service manager's queue: it is a local process with nothing else
to do, and a lost READY=1 costs the whole start."""


def set_title(application: str) -> None:
    """Show what this process is in `ps` and `top`."""
    setproctitle.setproctitle(f"daphne-supervisor: master [{application}]")


def message(announcement: Announce, monotonic_microseconds: int) -> str:
    """Return the datagram for `announcement`.

    RELOADING=1 carries the time because systemd tells by it whether the reload that it asked for
    has begun (systemd.service(5), Type=notify-reload).
    """
    lines = {
        None: [],
        Milestone.READY: ["READY=1"],
        Milestone.RELOADING: ["RELOADING=1", f"MONOTONIC_USEC={monotonic_microseconds}"],
        Milestone.STOPPING: ["STOPPING=1"],
    }[announcement.milestone]
    # A line break would end the value, and what follows would be taken for another key.
    return "\n".join([*lines, "STATUS=" + " ".join(announcement.status.split())])


class Notifier:
    """Talks to the service manager, if there is one."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Take the address out of `environment`: workers must not speak for the service."""
        self._complained = False
        self._address = environment.pop("NOTIFY_SOCKET", "")

    def announce(self, announcement: Announce) -> None:
        """Send one datagram; a service manager that cannot be reached is no reason to stop."""
        if not self._address:
            return
        data = message(announcement, time.monotonic_ns() // 1000).encode()
        # A leading @ stands for the NUL byte of Linux's abstract addresses.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.settimeout(_PATIENCE)
                notify.sendto(data, address)
        except OSError as error:
            if not self._complained:
                _log.warning("NOTIFY_SOCKET %s: %s", self._address, error)
            self._complained = True


class PidFile:
    """The file that holds the master's process id while it runs; None means that there is none."""

    def __init__(self, path: str | None) -> None:
        """Remember where it will be."""
        self._path = None if path is None else Path(path).absolute()

    def write(self) -> None:
        """Write our process id, whole or not at all, over a stale file.

        Raises `BootError` when the file names another living process, or cannot be written.
        """
        if self._path is None:
            return
        owner = self._owner(self._path)
        if owner not in {0, os.getpid()} and _alive(owner):
            message = f"--pid-file {self._path}: process {owner}, which it names, is running"
            raise BootError(message)
        try:
            self._replace(self._path)
        except OSError as error:
            message = f"--pid-file {self._path}: {error.strerror}"
            raise BootError(message) from error

    def remove(self) -> None:
        """Remove the file if it is still ours."""
        if self._path is not None and self._owner(self._path) == os.getpid():
            with contextlib.suppress(OSError):
                self._path.unlink()

    @staticmethod
    def _owner(path: Path) -> int:
        """Return the process id in the file, 0 when there is none."""
        try:
            return max(0, int(path.read_text(encoding="ascii")))
        except (OSError, ValueError):
            return 0

    @staticmethod
    def _replace(path: Path) -> None:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(f"{os.getpid()}\n")
                os.fchmod(descriptor, 0o644)  # everybody may know whom to signal
            Path(name).replace(path)
        except OSError:
            Path(name).unlink()
            raise


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's, but alive
        return True
    return True
