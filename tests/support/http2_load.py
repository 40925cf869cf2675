"""Clients of HTTP/2 that ask without pause, honour GOAWAY, and count.

Each connection keeps some streams open, of each kind one: a request that takes a while, a download,
an upload that has begun. When the server says GOAWAY, it begins no more on that connection, opens
another one, and lets what runs there come to its end. What was not processed, by the number in the
GOAWAY or by REFUSED_STREAM, is sent again, which RFC 9113 section 8.7 allows; everything else that
is not answered is lost.
"""

from __future__ import annotations

import select
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from tests.support.http2 import PATIENCE, Http2Client
from tests.support.http2_frames import Code

if TYPE_CHECKING:
    from types import TracebackType

    from tests.support.http2_judge import Answer

__all__ = ["Http2Load", "Kind"]

_STEP = 0.02
"""Seconds between two looks at what else there is to do."""
_PIECE = 10_000
"""Bytes of an upload that are sent at a time, of `_PIECES` in all, one each `_STEP`."""
_PIECES = 5


@dataclass(frozen=True)
class Kind:
    """A request: where it goes, what it sends, and the size of a good answer, if that is known."""

    path: str
    uploads: bool = False
    size: int | None = None

    def answered(self, answer: Answer) -> bool:
        """Say whether `answer` is whole and right."""
        size = _PIECE * _PIECES if self.uploads else self.size
        return answer.outcome == "200" and size in {None, answer.size}


@dataclass
class _Asked:
    """A request under way."""

    kind: Kind
    pieces: int


@dataclass
class _Lane:
    """One connection."""

    client: Http2Client
    under_way: dict[int, _Asked] = field(default_factory=dict)
    leaving: bool = False


class Http2Load:
    """Requests without pause while the `with` block runs; afterwards, what became of them."""

    def __init__(self, port: int, connections: int, kinds: tuple[Kind, ...]) -> None:
        """Keep one stream of each of `kinds` on so many connections to `port`."""
        self._port = port
        self._count = connections
        self._kinds = kinds
        self._lanes: list[_Lane] = []
        self._stopping = threading.Event()
        self._turns: Counter[int] = Counter()
        self._thread = threading.Thread(target=self._drive, daemon=True)
        self._broken: Exception | None = None
        self.sent = self.answered = self.again = self.connections = 0
        """Requests that were begun and not only sent again; those that were answered whole; those
        that were sent again; connections."""
        self.losses: list[str] = []
        self.servers: Counter[str] = Counter()
        """What the requests without a size were answered: the process id of the worker."""

    def __enter__(self) -> Self:
        """Start, and wait until a good many are answered."""
        self._thread.start()
        self.turn()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop when everything under way is answered or lost."""
        self._stopping.set()
        self._thread.join(2 * PATIENCE)
        if error is None and self._broken is not None:
            raise self._broken

    def turn(self) -> None:
        """Wait until as many requests were answered since this call as are under way at once."""
        wanted = self.answered + 2 * self._count * len(self._kinds)
        deadline = time.monotonic() + 2 * PATIENCE
        while self.answered < wanted and self._thread.is_alive():
            assert time.monotonic() < deadline, f"{self.answered} of {wanted} are answered"
            self._thread.join(_STEP)

    def _drive(self) -> None:
        try:
            self._play()
        except Exception as error:  # noqa: BLE001 - it belongs to the test
            self._broken = error
        for lane in self._lanes:
            lane.client.socket.close()

    def _play(self) -> None:
        for _ in range(self._count):
            self._come()
        stepped = time.monotonic()
        while self._lanes:
            sockets = {lane.client.socket: lane for lane in self._lanes}
            for ready in select.select(list(sockets), [], [], _STEP)[0]:
                self._hear(sockets[ready])
            if time.monotonic() - stepped >= _STEP:
                stepped = time.monotonic()
                for lane in list(self._lanes):
                    self._upload(lane)
            if self._stopping.is_set():
                for lane in [each for each in self._lanes if not each.under_way]:
                    self._lanes.remove(lane)
                    lane.client.socket.close()

    def _come(self, again: list[Kind] | None = None) -> None:
        """Open a connection with a stream of each kind, or those that are to be sent again."""
        self.connections += 1
        lane = _Lane(Http2Client(self._port, window=200_000))
        self._lanes.append(lane)
        self.again += len(again or ())
        for kind in self._kinds if again is None else again:
            self._ask(lane, kind, again=again is not None)

    def _ask(self, lane: _Lane, kind: Kind, *, again: bool = False) -> None:
        self.sent += not again
        try:
            stream = lane.client.open(kind.path, end=not kind.uploads)
        except OSError as error:  # the connection is gone, which is heard next
            self.losses.append(f"not sent: {error!r}")
            return
        lane.under_way[stream] = _Asked(kind, _PIECES if kind.uploads else 0)

    def _upload(self, lane: _Lane) -> None:
        for stream, asked in lane.under_way.items():
            if asked.pieces and lane.client.room(stream) >= _PIECE:
                asked.pieces -= 1
                try:
                    lane.client.data(stream, bytes(_PIECE), end=not asked.pieces)
                except OSError:
                    return  # heard next

    def _hear(self, lane: _Lane) -> None:
        client = lane.client
        client.hear(0)
        if client.judge.goaways and not lane.leaving:
            lane.leaving = True
            if not self._stopping.is_set():
                self._come()
        again = self._turned_away(lane)
        for stream, asked in list(lane.under_way.items()):
            answer = client.judge.answer(stream)
            if answer.ended:
                del lane.under_way[stream]
                self._account(lane, asked, answer, again)
        if client.ended:
            self._lanes.remove(lane)
            client.socket.close()
            why = f"the connection has ended, {client.judge.goaways}"
            self.losses += [f"{why}: {each}" for each in lane.under_way.items()]
        if again:
            self._come(again)

    def _turned_away(self, lane: _Lane) -> list[Kind]:
        """Return what was under way above the last stream that is processed."""
        last = min((each.last for each in lane.client.judge.goaways), default=2**31 - 1)
        above = [stream for stream in lane.under_way if stream > last]
        return [lane.under_way.pop(stream).kind for stream in above]

    def _account(self, lane: _Lane, asked: _Asked, answer: Answer, again: list[Kind]) -> None:
        """Count a stream that has ended, and ask for the next."""
        if answer.reset == Code.REFUSED_STREAM and answer.status is None:
            again.append(asked.kind)
            return
        if asked.kind.answered(answer):
            self.answered += 1
            if asked.kind.size is None and not asked.kind.uploads:
                self.servers[answer.body.decode()] += 1
        else:
            self.losses.append(f"{asked.kind}: {answer.outcome}, {answer.size} bytes")
        if not (lane.leaving or self._stopping.is_set()):
            self._ask(lane, asked.kind)
