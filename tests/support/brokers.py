"""A broker to try a channel layer with: a real one that can be killed, or the test itself."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from typing import Self

from daphne_supervisor.broker.address import listen, text_of
from daphne_supervisor.broker.frames import ACK, HELLO, Splitter, frame
from daphne_supervisor.broker.process import Broker
from daphne_supervisor.config import Channels
from daphne_supervisor.master.birth import fork

__all__ = ["BrokerProcess", "PlayedBroker"]

PATIENCE = 10.0
"""Seconds for what takes milliseconds."""


class BrokerProcess:
    """A broker in a process of its own, which can be killed and started again at its address."""

    def __init__(self) -> None:
        """Listen; nobody serves yet."""
        self._listener = listen()
        self.address = text_of(self._listener)
        self._pid = 0

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.kill()
        self._listener.close()

    def start(self) -> None:
        """Serve who connects, or has connected."""

        def serve() -> int:
            near, far = socket.socketpair()
            with near, far:
                Broker(self._listener, far, Channels()).serve()
            return 0

        self._pid = fork(serve)

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


class PlayedBroker:
    """The test is the broker: it reads frames and answers as it likes."""

    def __init__(self) -> None:
        """Listen."""
        self.listener = listen()
        self.address = text_of(self.listener)
        self._connections: list[socket.socket] = []
        self._splitter = Splitter()
        self._frames: list[tuple[int, int, bytes]] = []

    def __enter__(self) -> Self:
        """Be ready."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close everything."""
        self.listener.close()
        for one in self._connections:
            one.close()

    def accept(self, *, greet: bool = True) -> None:
        """Take the next connection, and answer its greeting."""
        assert select.select([self.listener], [], [], PATIENCE)[0]
        self._connections.append(self.listener.accept()[0])
        self._splitter = Splitter()
        if greet:
            kind, number, _ = self.hear()
            assert kind == HELLO
            self.says(frame(ACK, number))

    def hear(self) -> tuple[int, int, bytes]:
        """Return the next frame."""
        while not self._frames:
            connection = self._connections[-1]
            assert select.select([connection], [], [], PATIENCE)[0], "nothing was said"
            data = connection.recv(1 << 20)
            assert data, "the connection has ended"
            self._frames += self._splitter.feed(data)
        return self._frames.pop(0)

    def says(self, data: bytes) -> None:
        """Send frames."""
        self._connections[-1].sendall(data)

    def hangs_up(self, *, listener: bool = False) -> None:
        """End the connection, and with `listener` be there no more."""
        self._connections[-1].close()
        if listener:
            self.listener.close()

    def ended(self) -> bool:
        """Whether the other side has hung up, by now or soon."""
        with contextlib.suppress(ConnectionResetError):
            while self._connections[-1].recv(1 << 20):
                pass
        return True
