"""HTTP/1.1 under every slicing: what a stream means does not depend on how it was cut."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daphne_supervisor.config import Http
from daphne_supervisor.worker.http1 import Phase
from tests.fuzz import http1 as fuzzed
from tests.fuzz.choices import join
from tests.support.wire import Rig, bytewise, cut

if TYPE_CHECKING:
    from collections.abc import Callable

LIMITS = Http(max_body_size=5000, max_header_size=4000, max_request_line=500)
TOKENS = st.text("abcdefghijklmnopqrstuvwxyz-0123456789", min_size=1, max_size=12)
VALUES = st.text('abc ,;=\t"\\\x80\xff', max_size=20).map(str.strip)
PATHS = st.text("abc/%20;=&?.~", max_size=30)
BODIES = st.binary(max_size=60)
UPGRADES = (
    b"",
    b"",
    b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
    b"Proxy-Connection: upgrade\r\nUpgrade: x\r\n",
)


@dataclass(frozen=True)
class Sent:
    """A request on the wire, and what it means."""

    data: bytes
    method: str
    target: str
    extra: list[tuple[bytes, bytes]]
    body: bytes


def chunks(body: bytes, sizes: list[int], extension: bytes, trailer: bytes) -> bytes:
    """Return `body` cut into chunks of `sizes` and the rest."""
    data = b""
    for piece in cut(body, [sum(sizes[: end + 1]) for end in range(len(sizes))]) if body else []:
        data += b"%x%b\r\n%b\r\n" % (len(piece), extension, piece)
    return data + b"0\r\n" + trailer + b"\r\n"


@st.composite
def valid_requests(draw: st.DrawFn) -> Sent:
    """Draw a request that every rule admits."""
    method = draw(st.sampled_from(["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS"]))
    target = "/" + draw(PATHS)
    names = draw(st.lists(TOKENS.map(lambda name: f"x-{name}"), max_size=4))
    extra = [(name.encode(), draw(VALUES).encode("latin-1")) for name in names]
    body = draw(BODIES)
    framing = b"Content-Length: %d\r\n" % len(body)
    wire = body
    if draw(st.booleans()):
        framing = b"Transfer-Encoding: chunked\r\n"
        wire = chunks(
            body,
            draw(st.lists(st.integers(1, 20), max_size=4)),
            draw(st.sampled_from([b"", b";a", b';a="b;c"'])),
            draw(st.sampled_from([b"", b"X-Trailer: y\r\n", b"Age: b\r\nX: \r\n"])),
        )
    blanks = draw(st.sampled_from([b"", b"", b"\r\n"]))
    head = b"%b%b %b HTTP/1.1\r\nHost: a\r\n" % (blanks, method.encode(), target.encode())
    head += b"".join(b"%b: %b\r\n" % line for line in extra)
    head += draw(st.sampled_from(UPGRADES)) + framing + b"\r\n"
    return Sent(head + wire, method, target, extra, body)


#: Splices of what matters to a parser, which noise would never hit upon.
MORSELS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"POST /a HTTP/1.1\r\n",
        b"HEAD * HTTP/1.0\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http://b/ HTTP/1.1\r\n",
        b"Host: a\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 99999\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Connection: close\r\n",
        b"Connection: upgrade\r\n",
        b"Proxy-Connection: upgrade\r\n",
        b"Upgrade: websocket\r\n",
        b"Upgrade: h2c\r\n",
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        b"Expect: 100-continue\r\n",
        b"X_Y: z\r\n",
        b"X: \x80\r\n",
        b"X: " + b"y" * 3000,
        b" folded\r\n",
        b"\r\n",
        b"\n",
        b"\0",
        b"hello",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"0\r\n",
        b"5;" + b"e" * 1500,
        b"ffffffffffffffff\r\n",
        b"z" * 6000,
    ]
)
GARBAGE = st.lists(MORSELS | st.binary(max_size=20), max_size=14).map(b"".join)
ALMOST_VALID = st.lists(valid_requests().map(lambda each: each.data) | MORSELS, max_size=6).map(
    b"".join
)


def slicings(data: bytes, places: list[int]) -> list[list[bytes]]:
    """Return `data` whole, byte by byte, and cut at `places`."""
    return [[data], bytewise(data), cut(data, places)] if data else [[]]


def respond(rig: Rig) -> None:
    """Answer everything whose body is complete, in turn."""
    while rig.codec.phase is Phase.BUSY and rig.current.ended:
        rig.respond(body=rig.current.body)


@given(
    stream=st.lists(valid_requests(), max_size=5),
    places=st.lists(st.integers(0, 2000), max_size=30),
    answer=st.sampled_from([respond, lambda _: None]),
)
def test_any_slicing_of_valid_requests_is_the_same(
    stream: list[Sent], places: list[int], answer: Callable[[Rig], None]
) -> None:
    """Whole, bytewise or cut anywhere; answered as they come or at the end: the same requests."""
    data = b"".join(sent.data for sent in stream)
    for pieces in slicings(data, places):
        rig = Rig(LIMITS)
        for piece in pieces:
            rig.feed(piece)
            answer(rig)
        respond(rig)
        assert [
            (each.head.method, each.head.raw_path + b"?" + each.head.query, each.body, each.ended)
            for each in rig.requests
        ] == [
            (
                sent.method,
                b"?".join((*sent.target.encode().split(b"?", 1), b"")[:2]),
                sent.body,
                True,
            )
            for sent in stream
        ]
        for sent, request in zip(stream, rig.requests, strict=True):
            names = {name for name, _ in sent.extra}
            kept = [(name, value) for name, value in request.head.headers if name in names]
            assert kept == sent.extra
        bodies = [b"" if sent.method == "HEAD" else sent.body for sent in stream]
        assert [answer.body for answer in rig.answers] == bodies
        assert rig.handler.refusals == []
        assert rig.port.ends == []


def unanswered(_rig: Rig) -> None:
    """Answer nobody."""


def settle(rig: Rig) -> None:
    """Answer everything that was started, whether its body is complete or not."""
    while rig.codec.phase is Phase.BUSY:
        rig.respond(body=b"ok")


def run(pieces: list[bytes], answer: Callable[[Rig], None]) -> Rig:
    """Feed pieces as a connection would, whose reading pauses when it is told so."""
    rig = Rig(LIMITS)
    for piece in pieces:
        if not rig.port.reading:
            settle(rig)
        rig.feed(piece)
        answer(rig)
    settle(rig)
    return rig


def check(rig: Rig) -> None:
    """Check what holds after any bytes: the fakes have checked each step."""
    answered = [request for request in rig.requests if request.answered]
    assert rig.statuses[: len(answered)] == [200] * len(answered)
    assert len(rig.statuses) - len(answered) <= 1, "an error that is not the last"
    assert len(rig.handler.refusals) <= 1
    if rig.handler.refusals:
        assert rig.codec.phase >= Phase.LINGERING
    assert rig.port.reading or rig.codec.phase < Phase.LINGERING
    for request in rig.requests:
        assert not (request.ended and request.gone)
    if rig.codec.phase < Phase.LINGERING:
        assert rig.codec.deadline < rig.port.time + 1000


@settings(max_examples=400)
@given(
    data=GARBAGE | ALMOST_VALID,
    places=st.lists(st.integers(0, 10000), max_size=20),
    answer=st.sampled_from([settle, lambda _: None]),
)
@example(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", [56], settle)
def test_garbage_ends_in_one_error_at_the_most(
    data: bytes, places: list[int], answer: Callable[[Rig], None]
) -> None:
    """Any bytes in any slicing raise nothing, end in at most one error page, and end in time."""
    for pieces in slicings(data, places):
        rig = run(pieces, answer)
        check(rig)
        for _ in range(4):
            if rig.codec.phase is not Phase.OVER:
                rig.expire()
        assert rig.codec.phase is Phase.OVER
        assert bool(rig.port.ends) != bool(rig.handler.upgrades)
        rig.codec.lost()


@settings(max_examples=300)
@given(data=GARBAGE | ALMOST_VALID, places=st.lists(st.integers(0, 10000), max_size=20))
def test_any_slicing_of_anything_is_the_same(data: bytes, places: list[int]) -> None:
    """Requests, bodies, refusal and handshake are those of the stream, not of its pieces.

    Who is complete is answered as soon as it is, or when all has come: that changes nothing either.
    The limits are near: they count what was sent, not what was read at a time.
    """
    limits = Http(max_body_size=50, max_request_line=60, max_header_size=200, max_header_count=6)
    seen = []
    for pieces in slicings(data, places):
        for answer in (respond, unanswered):
            rig = Rig(limits)
            for piece in pieces:
                rig.feed(piece)
                answer(rig)
            respond(rig)
            refusals = [(reason.status, reason.rule) for reason in rig.handler.refusals]
            requests = [
                (each.head.target, each.head.headers, each.body, each.ended, each.gone)
                for each in rig.requests
            ]
            upgrades = [head.target for head, _ in rig.handler.upgrades]
            seen.append((refusals, requests, upgrades, rig.sent))
    assert all(each == seen[0] for each in seen)


@settings(max_examples=300)
@given(data=GARBAGE | ALMOST_VALID, choices=st.binary(max_size=30))
def test_nothing_in_between_makes_another_request(data: bytes, choices: bytes) -> None:
    """Answers, deadlines, drains, a lost client: what was sent means what it means by itself.

    What a fuzzer looks for at length, here for a moment.
    """
    fuzzed.check(join(data, choices))


#: Streams that grow by a number, each of what could be gone over again and again.
GROWING = {
    "blank lines": lambda size: b"\r\n" * size,
    "target": lambda size: b"GET /" + b"a" * size,
    "header": lambda size: b"GET / HTTP/1.1\r\nX: " + b"a" * size,
    "headers": lambda size: b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * size + b"\r\n",
    "connection": lambda size: (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: " + b"close," * size + b"\r\n\r\n"
    ),
    "requests": lambda size: b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * size,
    "chunks": lambda size: CHUNKED + b"1\r\na\r\n" * size,
    "extension": lambda size: CHUNKED + b"1;" + b"a" * size,
    "trailers": lambda size: CHUNKED + b"0\r\n" + b"X: y\r\n" * size,
    "swallowed": lambda size: CHUNKED + b"1\r\na\r\n" * size + b"0\r\n\r\nGET / HTTP/1.1\r\n",
}
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def work(pieces: list[bytes], answer: Callable[[Rig], None]) -> int:
    """Return how many functions are called to read `pieces`: a clock that is always right."""
    rig = Rig(Http(max_header_count=10**6))
    called = 0

    def count(_frame: object, event: str, _function: object) -> None:
        nonlocal called
        called += event in {"call", "c_call"}

    for piece in pieces:
        sys.setprofile(count)
        try:
            rig.feed(piece)
            answer(rig)
        finally:
            sys.setprofile(None)
    return called


@pytest.mark.parametrize("growing", GROWING.values(), ids=GROWING.keys())
@pytest.mark.parametrize("answer", [settle, lambda _: None], ids=["answered", "unanswered"])
def test_work_grows_with_what_is_sent(
    growing: Callable[[int], bytes], answer: Callable[[Rig], None]
) -> None:
    """Twice the bytes are at most twice the work, in any slicing: nothing is gone over again."""
    for slicing in (lambda data: [data], bytewise):
        once, twice, four = (work(slicing(growing(size)), answer) for size in (50, 100, 200))
        assert four - twice <= 2.2 * (twice - once) + 50
