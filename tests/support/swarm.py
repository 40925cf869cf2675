"""Clients that mean harm, as many as descriptors allow, in one thread and without blocking.

What they do is written down in a `Manner`; the swarm acts only while `press` is called, and what
the server has done to each of them is on record.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from dataclasses import dataclass
from typing import Self

__all__ = ["Ending", "Manner", "Swarm"]

_READ = 65_536
_KEPT = 4096
"""Bytes from the server that are kept, of the first and of the last ones."""
_SMALL = 4096
"""Receive buffer in bytes of those who do not read: what they take is soon all they take."""
_END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How a client misbehaves."""

    opening: bytes = b""
    """What it sends first."""
    waits: bool = False
    """It hears a whole response head before it goes on, as behind a handshake."""
    flood: bytes = b""
    """What it then sends again and again, as fast as it is taken."""
    drip: bytes = b""
    """What it then sends every `gap` seconds."""
    gap: float = 0.1
    reads: bool = True
    """It takes what the server sends."""
    returns: bool = False
    """It comes back when it is thrown out."""
    stubborn: bool = False
    """It goes on sending when the server has ended its own side."""


@dataclass(frozen=True)
class Ending:
    """How the server has ended a connection."""

    first: bytes
    """The first bytes that it has sent."""
    last: bytes
    """The last ones."""
    lasted: float
    """Seconds from the beginning of the connection to its end."""


class _Client:
    """One of them."""

    def __init__(self, port: int, manner: Manner) -> None:
        self.manner = manner
        self.socket = socket.socket()
        self.socket.setblocking(False)
        if not manner.reads:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL)
        with contextlib.suppress(BlockingIOError):
            self.socket.connect(("127.0.0.1", port))
        self.begun = time.monotonic()
        self._unsent = memoryview(manner.opening)
        self._opened = False
        self._deaf = False  # the server has ended its side
        self._first = self._last = b""

    @property
    def interest(self) -> int:
        """What epoll shall tell of, beside errors."""
        wanted = 0
        if self._deaf:
            pass
        elif self.manner.reads or self._waiting:
            wanted |= select.EPOLLIN
        else:
            wanted |= select.EPOLLRDHUP
        if self._unsent or (self.manner.flood and not self._waiting):
            wanted |= select.EPOLLOUT
        return wanted

    @property
    def _waiting(self) -> bool:
        """Whether it has to hear something before it goes on."""
        return self.manner.waits and not self._opened

    def write(self) -> None:
        """Send what goes. Raises `OSError` when the connection is broken."""
        if not self._unsent and not self._waiting:
            self._unsent = memoryview(self.manner.flood)
        if self._unsent:
            self._unsent = self._unsent[self.socket.send(self._unsent) :]

    def drip(self) -> None:
        """Send a little, if it goes. Raises `OSError` when the connection is broken."""
        if not self._unsent and not self._waiting:
            with contextlib.suppress(BlockingIOError):
                self.socket.send(self.manner.drip)

    def read(self) -> bool:
        """Take what has come; return whether more may come."""
        data = self.socket.recv(_READ)
        self._last = (self._last + data)[-_KEPT:]
        if len(self._first) < _KEPT:
            self._first = (self._first + data)[:_KEPT]
            self._opened = _END_OF_HEAD in self._first
        return bool(data)

    def hear(self, events: int) -> bool:
        """Do what `events` allow; return whether the connection goes on."""
        try:
            if events & select.EPOLLIN and not self.read():
                self._deaf = True
            if events & select.EPOLLRDHUP:
                self._deaf = True
            if events & select.EPOLLOUT:
                self.write()
        except BlockingIOError:
            return True
        except OSError:
            return False
        broken = events & (select.EPOLLERR | select.EPOLLHUP)
        return not broken and (self.manner.stubborn or not self._deaf)

    def ending(self) -> Ending:
        """Return how it was, now that it is over."""
        return Ending(self._first, self._last, time.monotonic() - self.begun)


class Swarm:
    """So many clients while the `with` block runs."""

    def __init__(self, port: int, count: int, manner: Manner) -> None:
        """Connect `count` times to `port`, and behave in that `manner`."""
        self._port = port
        self._count = count
        self._manner = manner
        self._clients: dict[int, _Client] = {}
        self._poll = select.epoll()
        self.returns = manner.returns
        self._dripped = time.monotonic()
        self.endings: list[Ending] = []
        """Of those whom the server has thrown out."""

    def __enter__(self) -> Self:
        """Connect."""
        for _ in range(self._count):
            self._come()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave, without a word."""
        for client in self._clients.values():
            client.socket.close()
        self._poll.close()

    @property
    def present(self) -> int:
        """How many are connected, as far as they know."""
        return len(self._clients)

    def press(self, patience: float = 0.001) -> None:
        """Do once what each of them can do now; wait `patience` seconds if nobody can."""
        for descriptor, events in self._poll.poll(patience):
            client = self._clients[descriptor]
            before = client.interest
            if not client.hear(events):
                self._end(client)
            elif client.interest != before:
                self._poll.modify(descriptor, client.interest)
        now = time.monotonic()
        if self._manner.drip and now - self._dripped >= self._manner.gap:
            self._dripped = now
            self._drip()

    def press_on(self, seconds: float) -> None:
        """Go on for so many `seconds`; who is thrown out comes back no more."""
        self.returns = False
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.press()

    def _come(self) -> None:
        client = _Client(self._port, self._manner)
        self._clients[client.socket.fileno()] = client
        # One that has nothing to send has to hear of its end all the same.
        self._poll.register(client.socket, client.interest)

    def _drip(self) -> None:
        for client in list(self._clients.values()):
            try:
                client.drip()
            except OSError:
                self._end(client)

    def _end(self, client: _Client) -> None:
        descriptor = client.socket.fileno()
        self._poll.unregister(descriptor)
        del self._clients[descriptor]
        client.socket.close()
        self.endings.append(client.ending())
        if self.returns:
            self._come()
