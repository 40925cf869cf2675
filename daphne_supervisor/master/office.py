"""What only the main process of the service has: its pid file, its socket files, its manager's ear.

There is one main process, but during an upgrade there are two masters. A new master that was
started by an old one does its work without office: it announces nothing and owns no file, until it
is told to take over. The old one hands over when the new one is ready, and can take back as long
as it lives.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from daphne_supervisor import listeners as listening
from daphne_supervisor.master.model import Milestone

if TYPE_CHECKING:
    from daphne_supervisor.listeners import Listener
    from daphne_supervisor.master.announce import Notifier
    from daphne_supervisor.master.model import Announce
    from daphne_supervisor.master.pid_file import PidFile

__all__ = ["Office"]


class Office:
    """The office; `held` says whether this process holds it."""

    def __init__(
        self, notifier: Notifier, pid_file: PidFile, listeners: tuple[Listener, ...]
    ) -> None:
        """Be ready to take office; `listeners` are to be released at the end."""
        self._notifier = notifier
        self._pid_file = pid_file
        self._listeners = listeners
        self.held = False
        self._unsaid: Announce | None = None

    def take(self) -> None:
        """Become the main process, and say what was announced meanwhile.

        Raises `BootError` when the pid file cannot be written.
        """
        self._pid_file.write()
        self.held = True
        if self._unsaid is not None:
            self._notifier.announce(self._unsaid)
            self._unsaid = None

    def announce(self, announcement: Announce) -> None:
        """Tell the service manager, or keep what it will have to be told."""
        if self.held:
            self._notifier.announce(announcement)
        elif self._unsaid is None or announcement.milestone is Milestone.READY:
            self._unsaid = announcement

    def reassure(self) -> None:
        """Tell the service manager's watchdog that all is well."""
        if self.held:
            self._notifier.reassure()

    def hand_over(self, pid: int) -> None:
        """Let the process `pid` be the main process."""
        self.held = False
        self._pid_file.set_aside()
        self._notifier.main_pid(pid)

    def take_back(self) -> None:
        """Be the main process again."""
        self._pid_file.restore()
        self._notifier.main_pid(os.getpid())
        self.held = True

    def resign(self) -> None:
        """Give up the office: the one who had it before has taken it back."""
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
