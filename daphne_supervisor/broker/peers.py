"""Who speaks to the broker: connections, and the clients that they belong to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Client", "Peer", "Port"]


class Port(Protocol):
    """The way to one connection."""

    pid: int
    """The process at its other end."""
    busy: bool
    """Whether much waits to be taken: who sends to it should wait."""
    stuck: str
    """Why there is no point in waiting: what it does, and the option that says so; or nothing."""

    def write(self, data: bytes) -> None:
        """Send a frame."""
        ...


@dataclass(slots=True, eq=False)
class Client:
    """A channel layer in a process: its connections, its groups, and which channels are full.

    `missed` is the number of messages that it did not get since it is stuck.
    """

    name: str
    home: Peer | None = None
    peers: set[Peer] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    full: set[str] = field(default_factory=set)
    missed: int = 0


@dataclass(slots=True, eq=False)
class Peer:
    """A connection. `asking` are the channels of its requests to receive, by number.

    `owed` are the answers that wait for it to take what it was sent.
    """

    port: Port
    client: Client | None = None
    asking: dict[int, str] = field(default_factory=dict)
    owed: list[tuple[Peer, bytes]] = field(default_factory=list)
