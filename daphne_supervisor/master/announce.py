"""What the world is told about the master: the service manager, the process list.

Theory of the notification protocol: a service manager names a datagram socket in `NOTIFY_SOCKET`,
and each datagram is a few `KEY=value` lines (sd_notify(3)). It is told when the service is ready,
and not asked, so nobody has to guess or to poll; the same socket lets a test wait without a sleep.
"""

from __future__ import annotations

import errno
import logging
import socket
import time
from typing import TYPE_CHECKING

import setproctitle

from daphne_supervisor.master.model import Milestone

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from daphne_supervisor.master.model import Announce

__all__ = ["Notifier", "message", "set_title", "watchdog_interval"]

_log = logging.getLogger("daphne_supervisor.master")

_MICROSECONDS = 1_000_000
"""In a second."""
_PATIENCE = 1.0
"""Seconds to wait for room in the service manager's queue: it is a local process with nothing else
to do, and a lost READY=1 costs the whole start."""


def set_title(role: str, application: str) -> None:
    """Show what this process is in `ps` and `top`."""
    setproctitle.setproctitle(f"daphne-supervisor: {role} [{application}]")


def message(announcement: Announce, monotonic_microseconds: int) -> str:
    """Return the datagram for `announcement`.

    RELOADING=1 carries the time because systemd tells by it whether the reload that it asked for
    has begun (systemd.service(5), Type=notify-reload). A reload that has come to nothing ends with
    READY=1 as well, there is no other word; so ERRNO tells it apart, and is 0 after a good one.
    """
    reload = errno.ECANCELED if announcement.failed else 0
    lines = {
        None: [],
        Milestone.READY: ["READY=1", f"ERRNO={reload}"],
        Milestone.RELOADING: ["RELOADING=1", f"MONOTONIC_USEC={monotonic_microseconds}"],
        Milestone.STOPPING: ["STOPPING=1"],
    }[announcement.milestone]
    if announcement.extend > 0:
        lines.append(f"EXTEND_TIMEOUT_USEC={round(announcement.extend * _MICROSECONDS)}")
    # A line break would end the value, and what follows would be taken for another key.
    return "\n".join([*lines, "STATUS=" + " ".join(announcement.status.split())])


def watchdog_interval(environment: Mapping[str, str], pid: int) -> float | None:
    """Return the seconds between two signs of life, None when nobody watches process `pid`.

    It is half of the time after which the service manager acts, as sd_watchdog_enabled(3) advises.
    """
    limit = environment.get("WATCHDOG_USEC", "")
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid) or not _is_number(limit):
        return None
    return int(limit) / _MICROSECONDS / 2 or None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


class Notifier:
    """Talks to the service manager, if there is one."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Take out of `environment` what is for us: workers must not speak for the service."""
        self._complained = False
        self._address = environment.pop("NOTIFY_SOCKET", "")
        for name in ("WATCHDOG_PID", "WATCHDOG_USEC"):
            environment.pop(name, None)

    def announce(self, announcement: Announce) -> None:
        """Tell what has come about."""
        self._send(message(announcement, time.monotonic_ns() // 1000))

    def reassure(self) -> None:
        """Tell the watchdog that all is well."""
        self._send("WATCHDOG=1")

    def main_pid(self, pid: int) -> None:
        """Tell that the process `pid` is the one to be supervised from now on.

        From then on the service manager may listen to nobody else (NotifyAccess=main).
        """
        self._send(f"MAINPID={pid}")

    def _send(self, text: str) -> None:
        """Send one datagram; a service manager that cannot be reached is no reason to stop."""
        if not self._address:
            return
        # A leading @ stands for the NUL byte of Linux's abstract addresses.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.settimeout(_PATIENCE)
                notify.sendto(text.encode(errors="backslashreplace"), address)
        except OSError as error:
            if not self._complained:
                _log.warning("NOTIFY_SOCKET %s: %s", self._address, error)
            self._complained = True
