"""HTTP/1.1: what a stream of bytes means depends on nothing but the bytes.

One reading, whole and with every request answered as soon as it is complete, is the measure. Cut
anywhere, answered at any time or never, interrupted by deadlines, drains and lost connections: no
other request may ever be seen, no other body, and nothing may raise. A second parser, which shares
no code with the server, has to read the same requests, since a proxy in front may be like it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from daphne_supervisor.config import Http
from daphne_supervisor.worker.head import Refused
from daphne_supervisor.worker.http1 import Phase
from tests.fuzz import h11_reference
from tests.fuzz.choices import pieces, split
from tests.support.wire import Rig, read_answers

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fuzz.choices import Choices
    from tests.support.wire import FakeRequest

__all__ = ["DICTIONARY", "check"]

#: The defaults, which hardly any input reaches, and limits that every input reaches.
FAR = Http()
NEAR = Http(max_request_line=60, max_header_size=200, max_header_count=6, max_body_size=40)

DICTIONARY = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HEAD /?q HTTP/1.0\r\n",
    b"OPTIONS * HTTP/1.1\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET http://b/ HTTP/1.1\r\n",
    b"Host: a\r\n",
    b"Host: [::1]:80\r\n",
    b"Content-Length: ",
    b"Transfer-Encoding: ",
    b"chunked",
    b"gzip, chunked",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Connection: Upgrade\r\n",
    b"Proxy-Connection: upgrade\r\n",
    b"Upgrade: websocket\r\n",
    b"Upgrade: h2c\r\n",
    b"Sec-WebSocket-Version: 13\r\n",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    b"Expect: 100-continue\r\n",
    b"X_Y: z\r\n",
    b"\r\n folded",
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\x80",
    b"\xff",
    b"%2e",
    b"0\r\n\r\n",
    b"0\r\nHost: b\r\n\r\n",
    b"5;a=b\r\n",
    b'1;a="\r\n',
    b"ffffffffffffffff\r\n",
    b"-1",
    b"+5",
    b"0x5",
    b"5, 5",
    b"9223372036854775808",
    b"HTTP/1.1\r\n",
    b"HTTP/1.0\r\n",
    b"HTTP/0.9",
]


def check(data: bytes) -> None:
    """Fail if an input breaks what this module promises."""
    wire, choices = split(data)
    limits = NEAR if choices.number(2) else FAR
    cut = pieces(wire, choices.rest())
    whole = read([wire], limits, answer_the_whole)
    late = read(cut, limits, unanswered)
    answer_the_whole(late)
    for reading in (read(cut, limits, answer_the_whole), late):
        assert outcome(reading) == outcome(whole)
        assert reading.sent == whole.sent
    h11_reference.agree(wire, heard(whole))
    chaos = Chaos(limits, choices).play(wire)
    agrees(chaos, whole)
    assert handshake(chaos) in {handshake(whole), None}


# -- one reading --


def read(stream: list[bytes], limits: Http, answer: Callable[[Rig], None]) -> Rig:
    """Feed `stream` as a connection does: not while reading is paused, and not behind a handover.

    What comes behind a handshake goes to the next codec, so it is added to what that was handed.
    """
    rig = Rig(limits)
    for piece in filter(None, stream):
        if rig.handler.upgrades:
            head, rest = rig.handler.upgrades.pop()
            rig.handler.upgrades.append((head, rest + piece))
            continue
        if rig.codec.phase is Phase.OVER:
            break
        rig.feed(piece)
        answer(rig)
        holds(rig)
        assert not any(each.ended and each.gone for each in rig.requests)
    return rig


def unanswered(rig: Rig) -> None:
    """Answer nobody."""


def answer_the_whole(rig: Rig) -> None:
    """Answer every request that is complete, in turn, with its own body."""
    while due(rig) and rig.current.ended:
        rig.respond(body=rig.current.body)


def due(rig: Rig) -> bool:
    """Say whether a request waits for its response."""
    return rig.codec.phase is Phase.BUSY and not rig.current.gone


def meaning(request: FakeRequest) -> tuple[object, ...]:
    """Return all that a request says, but for its body."""
    head = request.head
    return (head.method, head.version, head.raw_path, head.query, tuple(head.headers))


def heard(rig: Rig) -> list[tuple[tuple[object, ...], bytes, bool, bool]]:
    """Return what is known of every request: its meaning, its body, that it ended, or broke."""
    return [(meaning(each), each.body, each.ended, each.gone) for each in rig.requests]


def outcome(rig: Rig) -> tuple[object, ...]:
    """Return all that a reading has seen."""
    return (
        heard(rig),
        [(reason.status, reason.rule) for reason in rig.handler.refusals],
        [(head.target, head.headers, rest) for head, rest in rig.handler.upgrades],
    )


def agrees(reading: Rig, whole: Rig) -> None:
    """Check that `reading` has seen nothing that `whole` has not; it may have seen less."""
    assert len(reading.requests) <= len(whole.requests)
    for seen, measure in zip(reading.requests, whole.requests, strict=False):
        assert meaning(seen) == meaning(measure)
        assert measure.body.startswith(seen.body)
        assert measure.ended or not seen.ended
        assert not seen.ended or seen.body == measure.body


def handshake(rig: Rig) -> str | None:
    """Return the target of the WebSocket handshake, if one was handed over."""
    return rig.handler.upgrades[0][0].target if rig.handler.upgrades else None


def holds(rig: Rig) -> None:
    """Check what holds at any time; the fakes check each step besides."""
    phase = rig.codec.phase
    if rig.handler.refusals:
        assert rig.codec.phase >= Phase.BUSY
    assert rig.port.reading or phase is not Phase.LINGERING
    assert math.isfinite(rig.codec.deadline) or phase in {Phase.BUSY, Phase.OVER}
    assert not (rig.port.ends == ["close"] and phase is not Phase.OVER)


# -- a reading in which anything may happen in between --


class Chaos:
    """Feeds a stream, and lets the choices say what happens between its pieces."""

    def __init__(self, limits: Http, choices: Choices) -> None:
        """Open a connection with `limits`."""
        self.rig = Rig(limits)
        self.choices = choices
        self.methods: list[str] = []  # of the requests with a response, in order
        self.open = False  # a response has begun and goes on
        self.cut_off = False
        self.lost = False

    def play(self, wire: bytes) -> Rig:
        """Feed `wire`, end the connection, and return what came of it."""
        rig = self.rig
        while wire and not self.lost and rig.codec.phase is not Phase.OVER:
            count = self.choices.number() + 1 if self.choices else len(wire)
            if not rig.port.reading:
                self.act()
                self.relieve()
            rig.arrive(wire[:count])
            wire = wire[count:]
            holds(rig)
            self.act()
            holds(rig)
        self.end()
        return rig

    def act(self) -> None:
        """Do what is chosen, if it can be done now."""
        if not self.lost and self.choices:
            actions = Chaos.ACTIONS
            actions[self.choices.number(len(actions))](self)

    def relieve(self) -> None:
        """Make room for what comes, as an application does that goes on."""
        for request in self.rig.requests:
            request.full = False
        if self.rig.requests:
            self.rig.codec.taken(self.rig.requests[-1].stream)
        if self.rig.port.congested:
            self.rig.catch_up()
        self.rig.breathe()
        if self.rig.codec.phase is Phase.OVER:
            return
        while not self.rig.port.reading:
            assert due(self.rig), "nothing is read, and nobody waited for"
            self.finish()

    def end(self) -> None:
        """Let every deadline pass; then nothing may be left, whatever has happened."""
        rig = self.rig
        if not self.lost:
            rig.breathe()
            if rig.port.congested:
                rig.catch_up()
        while not self.lost and due(rig):
            self.finish()
        for _ in range(4):
            if not self.lost and rig.codec.phase is not Phase.OVER:
                rig.expire()
        if not self.lost:
            assert rig.codec.phase is Phase.OVER
            assert bool(rig.port.ends) != bool(rig.handler.upgrades)
            if not rig.handler.upgrades:
                rig.codec.lost()
        if not (self.cut_off or "abort" in rig.port.ends):
            self.check_answers()

    def check_answers(self) -> None:
        """Check that a client reads whole responses, of which only the last is an error's."""
        methods = [request.head.method for request in self.rig.requests]
        answers = read_answers(self.rig.sent, methods)
        refused = len(answers) - len(self.methods)
        assert refused in {0, 1}
        for answer in answers[: len(self.methods)]:
            assert (answer.status, answer.whole) == (200, True)
        if refused:
            assert answers[-1].status >= 400
            assert answers[-1].headers["connection"] == "close"

    # what may happen

    def nothing(self) -> None:
        """Let the next piece come."""

    def breathe(self) -> None:
        """Let everybody else have a turn."""
        self.rig.breathe()

    def respond(self) -> None:
        """Answer, or end the answer that has begun."""
        if due(self.rig):
            self.finish()

    def finish(self) -> None:
        """Complete the response of the current request."""
        if self.open:
            self.open = False
            self.rig.send(b"", more=False)
        else:
            self.methods.append(self.rig.current.head.method)
            self.rig.respond(body=b"ok")

    def begin(self) -> None:
        """Begin a response, or send more of it."""
        if due(self.rig) and self.open:
            self.rig.send(b"more", more=True)
        elif due(self.rig):
            self.methods.append(self.rig.current.head.method)
            self.open = True
            self.rig.respond(body=b"some", more=True)

    def give_up(self) -> None:
        """Break a response off."""
        if due(self.rig):
            self.cut_off = True
            self.rig.codec.give_up(self.rig.current.stream)

    def ask(self) -> None:
        """Wait for the body."""
        if due(self.rig) and self.rig.current.waits_for_continue:
            self.rig.ask()

    def fill(self) -> None:
        """Have too much of a body waiting, or have read it."""
        if self.rig.requests:
            request = self.rig.requests[-1]
            request.full = not request.full and not request.ended
            self.rig.codec.taken(request.stream)

    def expire(self) -> None:
        """Let time pass."""
        if math.isfinite(self.rig.codec.deadline):
            self.rig.expire()

    def drain(self) -> None:
        """Let the worker prepare to leave."""
        self.rig.port.worker.draining = True
        self.rig.codec.drain()

    def linger(self) -> None:
        """Let every response be the last of its connection, or no longer."""
        worker = self.rig.port.worker
        worker.lingering = not worker.lingering

    def congest(self) -> None:
        """Let the client read slowly, or no longer."""
        if self.rig.port.congested:
            self.rig.catch_up()
        else:
            self.rig.port.congested = True

    def overload(self) -> None:
        """Let there be no room for a WebSocket."""
        self.rig.handler.overloaded = Refused(503, "overloaded")

    def leave(self) -> None:
        """Lose the client."""
        self.lost = self.cut_off = True
        self.rig.codec.lost()

    ACTIONS = (
        nothing,
        respond,
        respond,
        begin,
        ask,
        fill,
        expire,
        drain,
        linger,
        congest,
        overload,
        give_up,
        leave,
        breathe,
    )
