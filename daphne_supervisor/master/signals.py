"""The signals that the master understands: one table, and the mailbox they arrive in.

Theory. A signal can interrupt any instruction, so a handler that does anything can break anything.
Ours do nothing at all. The interpreter writes the number of every signal into a socket
(`signal.set_wakeup_fd`), and the master reads it where it waits for everything else. Nothing is
lost between looking and sleeping, because the byte stays in the socket until it is read.

SIGCHLD is in the mailbox too, but it carries no message: the master reaps whenever it wakes, since
two deaths may be one signal.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daphne_supervisor.master.model import Command

if TYPE_CHECKING:
    from types import FrameType
    from typing import Self

__all__ = ["HANDLED", "TABLE", "Mailbox", "SignalRow", "markdown_table"]


@dataclass(frozen=True, slots=True)
class SignalRow:
    """One signal to the master; `sentence` is Markdown, for the README."""

    number: signal.Signals
    command: Command
    sentence: str


TABLE = (
    SignalRow(
        signal.SIGTERM,
        Command.DRAIN,
        "Stop. No new connections after `--shutdown-delay`; requests in progress may finish within"
        " `--graceful-timeout`; WebSockets are closed with 1012. A second one means stop now.",
    ),
    SignalRow(
        signal.SIGINT,
        Command.INTERRUPT,
        "Ctrl-C. The same as `SIGTERM`, but without delay; the second one means stop now.",
    ),
    SignalRow(signal.SIGQUIT, Command.QUIT, "Stop now. Requests in progress are cut."),
    SignalRow(
        signal.SIGHUP,
        Command.RELOAD,
        "Reload. The configuration is read anew, and each worker is replaced by one with the code"
        " that is on disk now: the new one is ready before the old one drains. If the configuration"
        " is not valid or the new code does not boot, the old workers stay.",
    ),
    SignalRow(signal.SIGTTIN, Command.MORE, "One worker more. A reload keeps the number."),
    SignalRow(
        signal.SIGTTOU,
        Command.FEWER,
        "One worker fewer, never below one. A reload keeps the number.",
    ),
    SignalRow(signal.SIGUSR1, Command.REOPEN, "Reopen the access log, after it was rotated."),
    SignalRow(
        signal.SIGUSR2,
        Command.UPGRADE,
        "Upgrade. The command line is run once more, beside this master and on its sockets; when"
        " the new master is ready, this one drains and leaves. Until it has left, `SIGHUP` to it"
        " takes everything back.",
    ),
)
"""Every signal with a meaning for the master, in the order of the README."""

_COMMANDS = {int(row.number): row.command for row in TABLE}

HANDLED = (*(row.number for row in TABLE), signal.SIGCHLD)
"""Every signal that the mailbox takes, hence what a fork has to block and a child to give back."""


def markdown_table() -> str:
    """Return the README's table of signals."""
    rows = [f"| `{row.number.name}` | {row.sentence} |" for row in TABLE]
    return "\n".join(["| Signal | What the master does |", "| --- | --- |", *rows, ""])


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Handle a signal: its number is in the mailbox already."""


class Mailbox:
    """Receives the signals of `HANDLED` while it is open; only the main thread may open it."""

    def __init__(self) -> None:
        """Make the socket pair, but take no signals yet."""
        self._letters, self._slot = socket.socketpair()
        self._letters.setblocking(False)
        self._slot.setblocking(False)

    def __enter__(self) -> Self:
        """Begin to take signals."""
        self._before = {number: signal.signal(number, _nothing) for number in HANDLED}
        # A full socket means hundreds of unread signals: one more would tell nothing new.
        self._fd_before = signal.set_wakeup_fd(self._slot.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back to those who had them before."""
        signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self.close()

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is mail."""
        return self._letters.fileno()

    def read(self) -> list[Command]:
        """Return the commands that have arrived, in their order; never blocks."""
        numbers = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                numbers += self._letters.recv(4096)
        return [_COMMANDS[number] for number in numbers if number in _COMMANDS]

    def close(self) -> None:
        """Close the sockets, and touch nothing else; also what a forked child has to do."""
        self._letters.close()
        self._slot.close()
