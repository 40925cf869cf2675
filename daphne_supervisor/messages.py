"""What passes between the master, its zygotes and its workers.

Down, once, at birth: the `Assignment`, handed over by the fork itself. Up, for the whole life of
the worker: *reports*, one JSON object a line, over the worker's end of a socketpair. Orders travel
as signals, but for `LINGER`, and end-of-file means that the other side died.

The codec is pure: bytes in, reports out. A line that is no report raises, because only our own
code writes to the channel.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from daphne_supervisor.config import Config
    from daphne_supervisor.listeners import Listener
    from daphne_supervisor.logs import AccessLog
    from daphne_supervisor.scoreboard import Scoreboard

__all__ = [
    "LINGER",
    "WORKER_REPORTS",
    "ZYGOTE_REPORTS",
    "Assignment",
    "BootFailed",
    "Born",
    "Decoder",
    "Draining",
    "Due",
    "Grown",
    "Heartbeat",
    "Ready",
    "Report",
    "Stillborn",
    "ZygoteReport",
    "encode",
]


@dataclass(frozen=True, slots=True)
class Assignment:
    """Everything a new worker is born with.

    `slot` counts from 1 and is kept when a worker is replaced; `generation` counts reloads from 1.
    `channel` is the worker's end of the socketpair; `listeners` are shared with every sibling, and
    so is the `scoreboard`.
    """

    slot: int
    generation: int
    config: Config
    listeners: tuple[Listener, ...]
    channel: socket.socket
    access_log: AccessLog | None
    scoreboard: Scoreboard


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

    `requests` (requests and WebSockets) and `messages` (of WebSockets, both ways) are counted since
    the worker's start; `connections`, `websockets`, `in_flight`, `busy_threads` and
    `queued_calls`, which wait for a thread, are of now; `oldest_wait`, the longest that one of them
    has waited, and `loop_lag` are in seconds, `rss` in bytes.
    """

    requests: int = 0
    messages: int = 0
    connections: int = 0
    websockets: int = 0
    in_flight: int = 0
    busy_threads: int = 0
    queued_calls: int = 0
    oldest_wait: float = 0.0
    loop_lag: float = 0.0
    rss: int = 0


@dataclass(frozen=True, slots=True)
class Due:
    """The worker asks, once, to be replaced; `why` names the option and the figure."""

    why: str


@dataclass(frozen=True, slots=True)
class Grown:
    """The zygote has imported what there is to import, and can bear workers."""


@dataclass(frozen=True, slots=True)
class Born:
    """The zygote has forked the worker of `slot`, which is now the master's child."""

    slot: int
    pid: int


@dataclass(frozen=True, slots=True)
class Stillborn:
    """The zygote could not fork the worker of `slot`."""

    slot: int
    why: str


Report = Ready | Draining | BootFailed | Heartbeat | Due
"""What a worker says."""

ZygoteReport = Grown | Born | Stillborn | BootFailed
"""What a zygote says."""

WORKER_REPORTS: Mapping[str, type[Report]] = {
    "ready": Ready,
    "draining": Draining,
    "boot-failed": BootFailed,
    "heartbeat": Heartbeat,
    "due": Due,
}
ZYGOTE_REPORTS: Mapping[str, type[ZygoteReport]] = {
    "grown": Grown,
    "born": Born,
    "stillborn": Stillborn,
    "boot-failed": BootFailed,
}
_NAMES: dict[type, str] = {
    kind: name for name, kind in (*WORKER_REPORTS.items(), *ZYGOTE_REPORTS.items())
}
_FIELDS = {kind: {field.name for field in fields(kind)} for kind in _NAMES}

LINGER = b"linger\n"
"""The one order that is no signal: what it asks for needs a worker that is well. See `Linger`."""

_Kind = TypeVar("_Kind")


def encode(report: Report | ZygoteReport) -> bytes:
    """Return `report` as one line of JSON, newline included."""
    body = {"kind": _NAMES[type(report)], **asdict(report)}
    return json.dumps(body, separators=(",", ":")).encode() + b"\n"


class Decoder(Generic[_Kind]):
    """Turns the bytes of a channel, in any slicing, into reports of the given kinds."""

    def __init__(self, kinds: Mapping[str, type[_Kind]]) -> None:
        """Start with nothing read; `kinds` is one of the two tables of reports."""
        self._kinds = kinds
        self._rest = b""

    def feed(self, data: bytes) -> list[_Kind]:
        """Return the reports that `data` completes.

        Raises `ValueError` when a line is no report.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [self._decode(line) for line in lines]

    def _decode(self, line: bytes) -> _Kind:
        body = json.loads(line)
        name = body.pop("kind", None) if isinstance(body, dict) else None
        kind = self._kinds.get(name) if isinstance(name, str) else None
        if kind is None or body.keys() != _FIELDS[kind]:
            message = f"{line!r} is no report"
            raise ValueError(message)
        return kind(**body)
