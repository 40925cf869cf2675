"""Fakes at the ports of the codecs: a connection that remembers, and exchanges that obey the test.

They are strict: what no codec may do with a connection or an exchange fails at once, in whichever
test it happens. What a codec sends is read by the standard library's client, which shares no code
with the server.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from http.client import HTTPMessage, HTTPResponse
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from daphne_supervisor.config import Http
from daphne_supervisor.worker.http1 import Http1

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from daphne_supervisor.worker.head import Head, Headers, Refused

__all__ = [
    "DATE",
    "SERVER",
    "Answer",
    "FakeHandler",
    "FakePort",
    "FakeRequest",
    "FakeWorker",
    "Rig",
    "bytewise",
    "cut",
    "read_answers",
]

DATE = b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
SERVER = b"Server: test\r\n"


def bytewise(data: bytes) -> list[bytes]:
    """Return `data` as pieces of one byte."""
    return [data[index : index + 1] for index in range(len(data))]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Return `data` cut at `places`, without empty pieces."""
    edges = sorted({0, len(data), *(place for place in places if 0 < place < len(data))})
    return [data[start:end] for start, end in pairwise(edges)]


@dataclass
class FakeWorker:
    """A worker that stays, until a test says otherwise."""

    lingering: bool = False
    draining: bool = False
    closing_websockets: bool = False
    identity: tuple[bytes, bytes, bytes] = (DATE, SERVER, SERVER + DATE + b"\r\n")


class FakePort:
    """A connection that goes nowhere. Tests move `time`, set `congested`, and do what is `due`."""

    def __init__(self) -> None:
        """Be open, at an arbitrary time."""
        self.sent = bytearray()
        self.writes: list[bytes] = []
        self.time = 1000.0
        self.worker = FakeWorker()
        self.due: list[Callable[[], None]] = []  # when everybody else has had a turn
        self.congested = False
        self.reading = True
        self.ends: list[str] = []  # in order: shut, close, abort

    def __repr__(self) -> str:
        """Tell what became of it."""
        return f"<FakePort {len(self.sent)} bytes sent, {self.ends or 'open'}>"

    def write(self, data: bytes) -> None:
        """Remember `data`."""
        assert not self.ends, "written after the end"
        assert data, "an empty write"
        self.writes.append(data)
        self.sent += data

    def write_all(self, pieces: Sequence[bytes]) -> None:
        """Remember `pieces`."""
        for piece in pieces:
            self.write(piece)

    def pause_reading(self) -> None:
        """Remember that no more may be fed."""
        assert self.reading, "paused twice"
        self.reading = False

    def resume_reading(self) -> None:
        """Take more."""
        assert not self.reading, "resumed without a pause"
        self.reading = True

    def close(self) -> None:
        """Remember the close."""
        assert not self.ends, "closed twice"
        self.ends.append("close")

    def abort(self) -> None:
        """Remember the abort."""
        assert "abort" not in self.ends, "aborted twice"
        self.ends.append("abort")

    def shut(self) -> None:
        """Remember the FIN."""
        assert not self.ends, "shut after the end"
        self.ends.append("shut")

    def broken(self, error: Exception) -> None:
        """Fail: in what is ours nothing may go wrong, unless a test looks for it."""
        message = "an error of ours"
        raise AssertionError(message) from error

    def soon(self, call: Callable[[], None]) -> None:
        """Remember the call."""
        self.due.append(call)

    def now(self) -> float:
        """Return the time of the test."""
        return self.time


class FakeRequest:
    """An exchange without an application. Tests set `full`; the rest is remembered."""

    def __init__(self, head: Head, stream: int, run: Callable[[], None] | None = None) -> None:
        """Remember what has arrived; `run` is called at the start, as an eager task would be."""
        self.head = head
        self.stream = stream
        self.run = run
        self.pieces: list[bytes] = []
        self.full = False
        self.asked = False
        self.ended = head.length == 0  # then no end is told
        self.started = self.answered = self.gone = self.expired = False
        self.over = False  # the application has returned

    def __repr__(self) -> str:
        """Tell which request it is."""
        return f"<FakeRequest {self.stream}: {self.head.method} {self.head.target}>"

    @property
    def body(self) -> bytes:
        """Return the body so far."""
        return b"".join(self.pieces)

    @property
    def running(self) -> bool:
        """Say whether the application has begun and not ended."""
        return self.started and not self.over

    @property
    def waits_for_continue(self) -> bool:
        """Say whether the client waits to be asked for the body."""
        return self.head.expects_continue and not self.asked and not self.pieces

    def start(self) -> None:
        """Be started, once."""
        assert not self.started
        assert not self.gone
        self.started = True
        if self.run is not None:
            self.run()

    def receive_body(self, data: bytes) -> None:
        """Take a piece, never an empty one: an application would take that for an event."""
        assert data, "an empty piece"
        assert not self.ended
        assert not self.gone
        self.pieces.append(data)

    def receive_whole(self, body: bytes) -> None:
        """Take all of it, before the start."""
        assert not self.started
        self.receive_body(body)
        self.end_body()

    def end_body(self) -> None:
        """Be complete, once."""
        assert not self.ended
        assert not self.gone
        self.ended = True

    def lost(self) -> None:
        """Lose the client, once, and before the answer."""
        assert not self.gone, "lost twice"
        assert not self.answered, "lost behind the answer"
        self.gone = True

    def expire(self) -> None:
        """Take too long, once."""
        assert self.started
        assert not self.expired
        self.expired = True


class FakeHandler:
    """Takes what a codec tells its connection.

    `failure` is raised instead of taking a request; `run` is called as soon as one starts.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.requests: list[FakeRequest] = []
        self.upgrades: list[tuple[Head, bytes]] = []
        self.prefaces: list[bytes] = []
        self.http2_upgrades: list[tuple[Head, list[tuple[int, int]], bytes]] = []
        self.speaks_http2 = False
        self.refusals: list[Refused] = []
        self.failure: Exception | None = None
        self.run: Callable[[], None] | None = None
        self.overloaded: Refused | None = None

    def begin(self, head: Head, stream: int) -> FakeRequest:
        """Return an exchange. There is one at a time."""
        if self.failure is not None:
            raise self.failure
        before = self.requests[-1] if self.requests else None
        assert before is None or before.answered or before.gone, "begun out of turn"
        request = FakeRequest(head, stream, self.run)
        self.requests.append(request)
        return request

    def overload(self) -> Refused | None:
        """Return what the test has set."""
        return self.overloaded

    def upgrade(self, head: Head, rest: bytes) -> None:
        """Remember the handshake."""
        assert not self.upgrades
        self.upgrades.append((head, rest))

    def speak_http2(self, data: bytes) -> bool:
        """Remember the preface, and do what the test has set."""
        self.prefaces.append(data)
        return self.speaks_http2

    def upgrade_http2(self, head: Head, values: list[tuple[int, int]], rest: bytes) -> bool:
        """Remember the upgrade, and do what the test has set."""
        self.http2_upgrades.append((head, values, rest))
        return self.speaks_http2

    def refused(self, reason: Refused) -> None:
        """Remember the refusal; a connection has one at the most."""
        assert not self.refusals, "refused twice"
        self.refusals.append(reason)


@dataclass(frozen=True)
class Answer:
    """A response as a client reads it; `whole` unless it broke off."""

    status: int
    headers: HTTPMessage
    body: bytes
    whole: bool = True


class _Stream(io.BytesIO):
    """What the client reads. It stays open for the next response."""

    def makefile(self, *_args: Any, **_options: Any) -> _Stream:
        """Return itself, where the client expects the file of a socket."""
        return self

    def close(self) -> None:
        """Stay open."""


def read_answers(sent: bytes, methods: Iterable[str] = ()) -> list[Answer]:
    """Read responses until `sent` is used up; `methods` are the requests', GET when they end."""
    stream = _Stream(sent)
    waiting = iter(methods)
    answers = []
    while stream.tell() < len(sent):
        response = HTTPResponse(stream, method=next(waiting, "GET"))  # type: ignore[arg-type]
        response.begin()
        body = response.read() if not response.length else stream.read(response.length)
        whole = not response.length or len(body) == response.length
        answers.append(Answer(response.status, response.headers, body, whole))
    return answers


class Rig:
    """An HTTP/1 codec between the fakes."""

    def __init__(self, limits: Http | None = None) -> None:
        """Open a connection with `limits`, the defaults' unless given."""
        self.port = FakePort()
        self.handler = FakeHandler()
        self.codec = Http1(self.port, self.handler, limits or Http())
        self._busy = False

    def __repr__(self) -> str:
        """Tell where the connection is."""
        return f"<Rig {self.codec.phase.name} {self.port!r} {self.handler.requests}>"

    @property
    def requests(self) -> list[FakeRequest]:
        """Return every request that has arrived."""
        return self.handler.requests

    @property
    def current(self) -> FakeRequest:
        """Return the request that has arrived last."""
        return self.requests[-1]

    @property
    def sent(self) -> bytes:
        """Return all that the client was sent."""
        return bytes(self.port.sent)

    @property
    def answers(self) -> list[Answer]:
        """Return the responses as a client reads them."""
        return read_answers(self.sent, [request.head.method for request in self.requests])

    @property
    def statuses(self) -> list[int]:
        """Return the statuses of the responses."""
        return [answer.status for answer in self.answers]

    @property
    def in_time(self) -> float:
        """Return the seconds until the deadline."""
        return self.codec.deadline - self.port.time

    def feed(self, *pieces: bytes) -> None:
        """Let pieces arrive, whether the codec wants to read or not."""
        for piece in pieces:
            assert piece, "no transport delivers nothing"
            self.arrive(piece)
            self.breathe()

    def arrive(self, piece: bytes) -> None:
        """Let a piece arrive, and nothing else happen."""
        self._turn(self.codec.receive, piece)

    def breathe(self) -> None:
        """Do what was to be done soon, and what comes of it; not within a turn of the loop."""
        while self.port.due and not self._busy:
            self._turn(self.port.due.pop(0))

    def _turn(self, call: Callable[..., None], *args: bytes) -> None:
        """Do `call` as an event loop would: alone."""
        self._busy = True
        try:
            call(*args)
        finally:
            self._busy = False

    def catch_up(self) -> None:
        """Let the client take what was written."""
        self.port.congested = False
        self.codec.relieved()
        self.breathe()

    def respond(
        self,
        status: int = 200,
        body: bytes = b"",
        headers: Sequence[Any] = (),
        *,
        more: bool = False,
    ) -> None:
        """Answer the current request, wholly unless there is `more`."""
        lines: Headers = list(headers)
        request = self.current
        self.codec.respond(request.stream, status, lines, body, more=more)
        request.answered = not more
        self.breathe()

    def send(self, body: bytes, *, more: bool = False) -> None:
        """Send a further piece of the current response."""
        request = self.current
        self.codec.send(request.stream, body, more=more)
        request.answered = not more
        self.breathe()

    def ask(self) -> None:
        """Let the current application wait for the body."""
        self.current.asked = True
        self.codec.proceed(self.current.stream)

    def expire(self) -> None:
        """Let time pass until the deadline."""
        self.port.time = self.codec.deadline
        self.codec.expire(self.port.time)
