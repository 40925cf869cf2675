"""One connection of the broker's: what was read of a frame, and what still has to be sent.

Frames that are written are sent together, at the end of a round: a round is what the broker does
between two waits. What the kernel does not take waits here. Above `BUSY` bytes whoever sends to
this connection waits for its answer; so what waits stops growing, and a process that takes
anything is soon below `EASED` again. One that is not (--channels-stuck-after), or for which far
too much waits (--channels-max-unread), is stuck.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING

from daphne_supervisor.broker.address import pid_of
from daphne_supervisor.broker.frames import Splitter

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from daphne_supervisor.config import Channels as Limits

__all__ = ["BUSY", "EASED", "Connection"]

BUSY = 1024 * 1024
"""Bytes: a thousand notices of a kilobyte. The kernel holds two hundred more."""

EASED = BUSY // 4
"""Bytes below which a busy connection is not busy any more."""

_READ = 256 * 1024
"""Bytes that are read at once."""

_AT_ONCE = 256
"""Frames in one call of sendmsg(2), which takes 1024 (IOV_MAX)."""


class Connection:
    """The port to one connection (`peers.Port`)."""

    def __init__(
        self, sock: socket.socket, wrote: Callable[[Connection], None], limits: Limits
    ) -> None:
        """Use `sock`, which must not block; `wrote` is told when there is something to send."""
        self.sock = sock
        self.pid = pid_of(sock)
        self.waiting = 0  # bytes
        self.busy = False
        self.stuck = ""
        self.busy_since = 0.0
        self.ended = False
        self._wrote = wrote
        self._limits = limits
        self._splitter = Splitter()
        self._out: deque[bytes | memoryview] = deque()

    def __repr__(self) -> str:
        """Tell how it goes."""
        return f"<Connection {self.sock.fileno()}, {self.waiting} bytes wait>"

    def read(self) -> list[tuple[int, int, bytes]]:
        """Return the frames that have arrived; `ended` is set when there will be no more.

        Raises `ValueError` for what is no frame.
        """
        try:
            data = self.sock.recv(_READ)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.ended = True
            return []
        return self._splitter.feed(data)

    def write(self, data: bytes) -> None:
        """Send a frame at the end of this round; a connection that has ended swallows it."""
        if self.ended:
            return
        if not self._out:
            self._wrote(self)
        self._out.append(data)
        self.waiting += len(data)
        if self.waiting > self._limits.max_unread and not self.stuck:
            self.stuck = f"leaves {self.waiting} bytes unread (--channels-max-unread)"
        if self.waiting > BUSY or self.stuck:
            self.busy = not self.stuck

    def flush(self) -> None:
        """Send what waits, as far as the kernel takes it; `ended` is set when nobody will."""
        out = self._out
        while out:
            try:
                sent = self.sock.sendmsg(itertools.islice(out, _AT_ONCE))
            except BlockingIOError:
                break
            except OSError:
                self.ended = True
                out.clear()
                self.waiting = sent = 0
            self.waiting -= sent
            self._take_off(sent)

    def _take_off(self, sent: int) -> None:
        out = self._out
        while sent:
            head = out[0]
            if sent < len(head):
                out[0] = memoryview(head)[sent:]
                return
            sent -= len(head)
            out.popleft()

    def judge(self, now: float) -> bool:
        """Look whether it is busy, eased or stuck; say whether who waits for it need wait on."""
        if self.waiting <= EASED or self.ended:
            self.busy, self.stuck = False, ""
            self.busy_since = 0.0
            return False
        if self.busy:
            self.busy_since = self.busy_since or now
            if now >= self.busy_since + self._limits.stuck_after:
                self.busy = False
                self.stuck = (
                    f"leaves much unread for {self._limits.stuck_after:g} s"
                    " (--channels-stuck-after)"
                )
        return self.busy
