"""What passes between the master and a worker.

Down, once, at birth: the `Assignment`, handed over by the fork itself. Up, for the whole life of
the worker: *reports*, one JSON object a line, over the worker's end of a socketpair. Nothing else
is spoken on that channel: orders travel as signals, and end-of-file means that the other side died.

The codec is pure: bytes in, reports out. A line that is no report raises, because only our own
code writes to the channel.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

    from daphne_supervisor.config import Config
    from daphne_supervisor.listeners import Listener
    from daphne_supervisor.logs import AccessLog

__all__ = [
    "Assignment",
    "BootFailed",
    "Decoder",
    "Draining",
    "Heartbeat",
    "Ready",
    "Report",
    "encode",
]


@dataclass(frozen=True, slots=True)
class Assignment:
    """Everything a new worker is born with.

    `slot` counts from 1 and is kept when a worker is replaced; `generation` counts reloads from 1.
    `channel` is the worker's end of the socketpair; `listeners` are shared with every sibling.
    """

    slot: int
    generation: int
    config: Config
    listeners: tuple[Listener, ...]
    channel: socket.socket
    access_log: AccessLog | None


@dataclass(frozen=True, slots=True)
class Ready:
    """The application is imported, its lifespan has started, and connections are accepted."""


@dataclass(frozen=True, slots=True)
class Draining:
    """The worker takes no new connections and leaves when the present ones end."""

    why: str


@dataclass(frozen=True, slots=True)
class BootFailed:
    """The worker cannot serve.

    `reason` is the one line for the user; `traceback` is the application's own, empty when the
    mistake is in the command line rather than in the application.
    """

    reason: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Proof of life, written by the reactor itself, with the figures of the moment.

    `requests` is counted since the worker's start; `connections`, `websockets`, `in_flight` and
    `busy_threads` are of now; `loop_lag` is in seconds, `rss` in bytes.
    """

    requests: int = 0
    connections: int = 0
    websockets: int = 0
    in_flight: int = 0
    busy_threads: int = 0
    loop_lag: float = 0.0
    rss: int = 0


Report = Ready | Draining | BootFailed | Heartbeat

_KINDS: dict[str, type[Report]] = {
    "ready": Ready,
    "draining": Draining,
    "boot-failed": BootFailed,
    "heartbeat": Heartbeat,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_FIELDS = {kind: {field.name for field in fields(kind)} for kind in _NAMES}


def encode(report: Report) -> bytes:
    """Return `report` as one line of JSON, newline included."""
    body = {"kind": _NAMES[type(report)], **asdict(report)}
    return json.dumps(body, separators=(",", ":")).encode() + b"\n"


def _decode(line: bytes) -> Report:
    body = json.loads(line)
    kind = _KINDS.get(body.pop("kind", "")) if isinstance(body, dict) else None
    if kind is None or body.keys() != _FIELDS[kind]:
        message = f"{line!r} is no report"
        raise ValueError(message)
    return kind(**body)


class Decoder:
    """Turns the bytes of a channel, in any slicing, into reports."""

    def __init__(self) -> None:
        """Start with nothing read."""
        self._rest = b""

    def feed(self, data: bytes) -> list[Report]:
        """Return the reports that `data` completes.

        Raises `ValueError` when a line is no report.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [_decode(line) for line in lines]
