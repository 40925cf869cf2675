"""Ports that lead nowhere: what the broker would send is kept, and cut into frames."""

from __future__ import annotations

from daphne_supervisor.broker.frames import Splitter

__all__ = ["FakePort"]


class FakePort:
    """Is as busy and as stuck as the test says."""

    def __init__(self) -> None:
        """Begin with nothing sent."""
        self.busy = False
        self.stuck = ""
        self.pid = 4711
        self._sent = b""

    def write(self, data: bytes) -> None:
        """Keep what is sent."""
        self._sent += data

    def frames(self) -> list[tuple[int, int, bytes]]:
        """Return kind, number and payload of what was sent since the last call."""
        sent, self._sent = self._sent, b""
        return Splitter().feed(sent)
