"""What leaves an HTTP/2 connection: in which order, in which pieces, and when.

Everything that one turn of the loop produces leaves in one write. A body that does not fit into the
windows (RFC 9113 section 5.2) or into the connection waits at its stream; of those that wait the
most urgent are served first, and among equals those that share take turns, a piece each (RFC 9218).
What is sent in a turn is bounded, so that other connections have theirs.

This module knows neither sockets nor ASGI.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

from daphne_supervisor.worker.http2_frames import LONGEST, data_head, header_frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from daphne_supervisor.worker.http2_limits import Bucket
    from daphne_supervisor.worker.http2_stream import Stream
    from daphne_supervisor.worker.waist import Port

__all__ = ["INITIAL_WINDOW", "Sender"]

#: RFC 9113 section 6.9.2: before anybody has said otherwise.
INITIAL_WINDOW = 65_535
#: Bytes after which what is collected is written, to see whether the connection takes it.
_CHUNK = 65_536
#: Bytes that are sent before everybody else has a turn.
_TURN = 262_144
#: A DATA frame of so many bytes is reason enough for two WINDOW_UPDATEs.
_WORTH = 1024
_URGENCIES = 8


def _nobody(stream: Stream) -> None:
    """Take note of a stream for whoever is not there any more."""


class Sender:
    """The outbound half: frames in order, bodies as far as the windows allow.

    `ahead` counts bytes that were written though the client does not read, since its codec has set
    it to 0. `window` is the connection's in bytes, `initial` that of a new stream; `stall_by` is
    when the first of the streams that wait may have waited too long. `completed` is called for
    each stream whose last byte has been framed; `pack` packs trailers when it is their turn, since
    blocks must leave in the order in which they are packed.
    """

    __slots__ = (
        "_control",
        "_out",
        "_port",
        "_queues",
        "_scheduled",
        "_size",
        "_stall",
        "_waiting",
        "ahead",
        "completed",
        "initial",
        "pack",
        "stall_by",
        "window",
    )

    def __init__(self, port: Port, control: Bucket, write_timeout: float) -> None:
        """Send through `port`."""
        self._port = port
        self._control = control
        self._stall = write_timeout or math.inf
        self._out: list[Any] = []  # bytes, and views of them
        self._size = 0  # bytes of it
        self._scheduled = False
        self._queues: tuple[deque[Stream], ...] = tuple(deque() for _ in range(_URGENCIES))
        self._waiting = 0  # streams in the queues
        self.window = self.initial = INITIAL_WINDOW
        self.ahead = 0
        self.stall_by = math.inf
        self.completed: Callable[[Stream], None]
        self.pack: Callable[[list[tuple[bytes, bytes]]], bytes]

    def part(self) -> None:
        """Send nothing any more."""
        self._out.clear()
        for queue in self._queues:
            queue.clear()
        self._waiting = 0
        self._scheduled = True  # there is no turn any more
        self.completed = _nobody

    # -- frames --

    def put(self, frame: bytes) -> None:
        """Send a frame at the end of this turn."""
        self._out.append(frame)
        self._size += len(frame)
        if not self._scheduled:
            self._scheduled = True
            self._port.soon(self.turn)

    def turn(self) -> None:
        """Send what is collected, and what waits, as far as there is room."""
        self._scheduled = False
        if self._waiting:
            self._pump()
        self.flush()

    def flush(self) -> None:
        """Write what is collected."""
        out = self._out
        if not out:
            return
        if self._port.congested:
            self.ahead += self._size
        if len(out) == 1:
            self._port.write(out[0])
        elif self._size <= _CHUNK:
            self._port.write(b"".join(out))
        else:
            self._port.write_all(out.copy())
        out.clear()
        self._size = 0

    # -- bodies --

    def send(self, stream: Stream, body: bytes, head: bytes = b"") -> None:
        """Send `body` behind `head`, now if nothing is in the way; the last piece if `done`."""
        size = len(body)
        free = not size or (
            size <= self.window
            and size <= stream.window
            and size <= LONGEST
            and not (self._waiting or self._port.congested)
            and self._size < _CHUNK
        )
        if free and stream.pending is None:
            if size or stream.done:
                head += self._frame(stream, body)
            if head:
                self.put(head)
            if stream.done:
                self.completed(stream)
            return
        if head:
            self.put(head)
        if stream.pending is None:
            stream.pending = deque()
            self._watch(stream)
        stream.pending.append(memoryview(body) if size > LONGEST else body)
        self.enqueue(stream)

    def _frame(self, stream: Stream, body: bytes | memoryview) -> bytes:
        """Return the last or only frame for `body`; take it from the windows."""
        size = len(body)
        self.window -= size
        stream.window -= size
        if size >= _WORTH:
            self._control.give_back(2)
        if stream.done and stream.trailers is not None:
            data = data_head(stream.id, size, end=False) + body if size else b""
            return data + header_frames(stream.id, self.pack(stream.trailers), end=True)
        return data_head(stream.id, size, end=stream.done) + body

    def enqueue(self, stream: Stream) -> None:
        """Let a stream wait for its turn, if it has something that may be sent."""
        if stream.queued or stream.pending is None:
            return
        if stream.window > 0 or not any(stream.pending):  # an end takes no room
            stream.queued = True
            self._queues[stream.urgency].append(stream)
            self._waiting += 1
            self.wake()

    def forget(self, stream: Stream) -> None:
        """Send nothing more of a stream."""
        if stream.queued:
            stream.queued = False
            self._queues[stream.urgency].remove(stream)
            self._waiting -= 1

    def prioritize(self, stream: Stream, urgency: int, *, shares: bool) -> None:
        """Move a stream to another place among those that wait."""
        queued = stream.queued
        self.forget(stream)
        stream.urgency, stream.shares = urgency, shares
        if queued:
            self.enqueue(stream)

    def _pump(self) -> None:
        """Serve the queues until they, the windows, the connection or the turn are exhausted."""
        sent = 0
        port = self._port
        while self._waiting and not port.congested:
            queue = next(queue for queue in self._queues if queue)
            stream = queue[0]
            if self.window <= 0 and any(stream.pending or ()):
                return
            queue.popleft()
            stream.queued = False
            self._waiting -= 1
            sent += self._send_piece(stream)
            pending = stream.pending
            if pending is not None and (stream.window > 0 or not any(pending)):
                stream.queued = True
                self._waiting += 1
                if stream.shares:
                    queue.append(stream)
                else:
                    queue.appendleft(stream)
            if self._size >= _CHUNK:
                self.flush()
            if sent >= _TURN:
                self.wake()
                return

    def _watch(self, stream: Stream) -> None:
        """Let the client take something of a stream within --write-timeout."""
        stream.stalled_at = self._port.now() + self._stall
        self.stall_by = min(self.stall_by, stream.stalled_at)

    def wake(self) -> None:
        """Go on with what waits: there is room again, or others had their turn."""
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._port.soon(self.turn)

    def _send_piece(self, stream: Stream) -> int:
        """Frame the next piece of what waits at a stream; return its size in bytes."""
        pending = stream.pending
        assert pending is not None  # noqa: S101 - for the type checker
        most = max(0, min(self.window, stream.window, LONGEST))
        piece = pending.popleft()
        if len(piece) > most:
            pending.appendleft(piece[most:])
            piece = piece[:most]
        size = len(piece)
        if pending:
            self.window -= size
            stream.window -= size
            self._collect(data_head(stream.id, size, end=False), piece)
            if size >= _WORTH:
                self._control.give_back(2)
            self._watch(stream)
            return size
        if size or stream.done:
            self._collect(self._frame(stream, piece))
        stream.relieve()
        if stream.done:
            self.completed(stream)
        return size

    def _collect(self, *pieces: bytes | memoryview) -> None:
        self._out += pieces
        self._size += sum(map(len, pieces))
