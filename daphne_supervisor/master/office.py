"""What only the main process of the service has: its pid file, its socket files, its manager's ear.

There is one main process, but during an upgrade there are two masters. A new master that was
started by an old one does its work without office: it announces nothing and owns no file, until it
is told to take over. The old one hands over when the new one is ready, and can take back as long
as it lives. The title that `ps` shows tells them apart.

A service manager that listens to the main process alone (NotifyAccess=main) has to hear from that
very process who is next. So who gives the office away says so itself; and who takes it back, and
was perhaps not listened to at first, says what it has said once more when the other is gone.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from daphne_supervisor import listeners as listening
from daphne_supervisor.master.announce import set_title

if TYPE_CHECKING:
    from daphne_supervisor.listeners import Listener
    from daphne_supervisor.master.announce import Notifier
    from daphne_supervisor.master.model import Announce
    from daphne_supervisor.master.pid_file import PidFile

__all__ = ["Office"]


class Office:
    """The office; `held` says whether this process holds it."""

    def __init__(
        self,
        notifier: Notifier,
        pid_file: PidFile,
        listeners: tuple[Listener, ...],
        application: str,
    ) -> None:
        """Be ready to take office; `listeners` are to be released at the end."""
        self._notifier = notifier
        self._pid_file = pid_file
        self._listeners = listeners
        self._application = application
        self._latest: Announce | None = None
        self.held = False

    def wait(self) -> None:
        """Begin without the office, which another master has."""
        self._call("master (new)")

    def take(self) -> None:
        """Become the main process. Raises `BootError` when the pid file cannot be written."""
        self._pid_file.write()
        self.hold()

    def hold(self) -> None:
        """Be the main process, with or without a pid file, and say what was announced meanwhile."""
        if not self.held:
            self._call("master")
            self.held = True
            self.repeat()

    def announce(self, announcement: Announce) -> None:
        """Tell the service manager, or keep what it will have to be told."""
        before = None if self._latest is None else self._latest.milestone
        self._latest = replace(announcement, milestone=announcement.milestone or before)
        if self.held:
            self._notifier.announce(announcement)

    def repeat(self) -> None:
        """Tell the service manager once more how things stand: it may not have listened."""
        if self.held and self._latest is not None:
            self._notifier.announce(self._latest)

    def reassure(self) -> None:
        """Tell the service manager's watchdog that all is well."""
        if self.held:
            self._notifier.reassure()

    def hand_over(self, pid: int) -> None:
        """Let the process `pid` be the main process."""
        self._call("master (old)")
        self.held = False
        self._pid_file.set_aside()
        self._notifier.main_pid(pid)

    def confirm(self) -> None:
        """Be looked at anew by the service manager, once the old master has ended.

        systemd decides when it is told of a main process whether that is its own child, and at a
        stop it waits for a child only: others are killed at once (KillMode=mixed). With the old
        master's end we become its child. But it does not look at a process that it has been told of
        already; so we name another one of the service in between.
        """
        child = _some_child()
        if self.held and child:
            self._notifier.main_pid(child)
            self._notifier.main_pid(os.getpid())

    def take_back(self) -> None:
        """Be the main process again."""
        self._call("master")
        self._pid_file.restore()
        self._notifier.main_pid(os.getpid())
        self.held = True

    def resign(self, pid: int) -> None:
        """Give up the office: the process `pid`, who had it before, has taken it back."""
        self._call("master (new)")
        self._notifier.main_pid(pid)
        self.held = False

    def close_listeners(self) -> None:
        """Close the listening sockets, and remove their files if no other master has them."""
        listeners, self._listeners = self._listeners, ()
        listening.release(listeners)

    def leave(self) -> None:
        """Leave nothing behind, at the end."""
        self.close_listeners()
        self._pid_file.remove()

    def abandon(self) -> None:
        """Close, in a forked child, what belongs to the main process alone."""
        self._pid_file.abandon()
        listening.abandon(self._listeners)

    def _call(self, role: str) -> None:
        set_title(role, self._application)


def _some_child() -> int:
    """Return the process id of a child of ours, 0 if there is none or the kernel does not tell."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return int(file.read().split()[0])
    except (IndexError, OSError):
        return 0
