"""HTTP/1.1 on the wire, between a connection and exchanges that only remember."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest

from daphne_supervisor.config import Http
from daphne_supervisor.worker.chunks import MOST
from daphne_supervisor.worker.head import Refused
from daphne_supervisor.worker.http1 import AHEAD, DRAIN_IDLE, GULP, LINGER, SWALLOW, Phase
from daphne_supervisor.worker.pace import GRACE
from tests.support.wire import Rig, bytewise, cut

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = b"Host: a\r\n"
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def get(path: bytes = b"/", lines: bytes = b"", version: bytes = b"1.1") -> bytes:
    """Return a GET with `lines` behind its Host."""
    return b"GET %b HTTP/%b\r\n" % (path, version) + HOST + lines + b"\r\n"


def post(body: bytes, lines: bytes = b"", length: int | None = None) -> bytes:
    """Return a POST of `body`, announced as `length` bytes."""
    size = len(body) if length is None else length
    return b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n" % size + lines + b"\r\n" + body


def chunked(body: bytes = b"", lines: bytes = b"") -> bytes:
    """Return a chunked POST; `body` is as it goes over the wire."""
    return b"POST / HTTP/1.1\r\n" + HOST + lines + b"Transfer-Encoding: chunked\r\n\r\n" + body


def rig(*pieces: bytes, **limits: Any) -> Rig:
    """Return a connection with `limits` that `pieces` have arrived on."""
    made = Rig(Http(**limits))
    made.feed(*pieces)
    return made


def refused(made: Rig, status: int) -> str:
    """Check that the last thing sent is one error page, and the end; return the rule."""
    assert [reason.status for reason in made.handler.refusals] == [status]
    last = made.answers[-1]
    assert (last.status, last.whole) == (status, True)
    assert last.headers["Connection"].startswith("close")
    assert made.port.ends == ["shut"]
    assert made.codec.phase is Phase.LINGERING
    rule = made.handler.refusals[0].rule
    assert rule.encode()[:20].replace(b"`", b"") in last.body.replace(b"`", b"")
    return rule


# -- one request after the other --


@pytest.mark.parametrize("slices", [bytewise, lambda data: [data]], ids=["bytewise", "whole"])
def test_a_request_is_answered(slices: Callable[[bytes], list[bytes]]) -> None:
    """A request comes out as it went in, however it was cut; the connection is kept."""
    made = rig(*slices(post(b"hello", b"X-Y:  z \r\nX-Empty:\r\n")))
    (request,) = made.requests
    assert (request.started, request.ended, request.body) == (True, True, b"hello")
    assert request.head.values(b"x-y") == [b"z"]
    assert request.head.values(b"x-empty") == [b""]
    assert made.codec.phase is Phase.BUSY
    made.respond(201, b"done", [(b"x-z", b"y")])
    (answer,) = made.answers
    assert (answer.status, answer.body, answer.headers["x-z"]) == (201, b"done", "y")
    assert made.codec.phase is Phase.IDLE
    assert made.port.ends == []


def test_a_connection_serves_many() -> None:
    """Requests follow each other on one connection, each with a stream of its own."""
    made = rig()
    for number in range(3):
        made.feed(get(b"/%d" % number))
        made.respond(body=b"%d" % number)
    assert [answer.body for answer in made.answers] == [b"0", b"1", b"2"]
    assert [request.stream for request in made.requests] == [1, 2, 3]


def test_blank_lines_before_a_request_are_skipped() -> None:
    """Old clients end a body with CR LF that belongs to nothing (RFC 9112 section 2.2)."""
    made = rig(b"\r\n\r\n" + post(b"x"))
    made.respond()
    made.feed(b"\r\n", get())
    made.respond()
    assert made.statuses == [200, 200]


def test_a_response_is_streamed() -> None:
    """Pieces leave as they come, and nothing is written for nothing."""
    made = rig(get())
    made.respond(body=b"a", more=True)
    before = len(made.port.writes)
    made.send(b"", more=True)
    assert len(made.port.writes) == before
    made.send(b"b", more=True)
    assert len(made.port.writes) == before + 1
    made.send(b"")
    assert made.answers[0].body == b"ab"
    assert made.codec.phase is Phase.IDLE


def test_a_large_body_is_not_copied() -> None:
    """Head and body leave together, unless the body is large."""
    made = rig(get())
    made.respond(body=b"x" * 100)
    assert len(made.port.writes) == 1
    made.feed(get())
    body = b"x" * 20_000
    made.respond(body=body)
    assert made.port.writes[-1] is body
    assert [answer.body for answer in made.answers] == [b"x" * 100, body]
    made.feed(get())
    made.respond(body=body, more=True)
    made.send(body, more=True)
    made.send(body)
    assert sum(piece is body for piece in made.port.writes) == 4
    assert made.answers[-1].body == body * 3


@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
def test_a_response_without_a_body_leaves_nothing_behind(method: bytes) -> None:
    """The next response begins right behind a head that has no body."""
    made = rig(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
    made.respond(200 if method == b"HEAD" else 304, b"hello")
    made.feed(get())
    made.respond(body=b"x")
    assert [answer.body for answer in made.answers] == [b"", b"x"]


def test_only_the_current_request_is_answered() -> None:
    """An exchange that is over, or not yet there, cannot write into another one's response."""
    made = rig(get() + get())
    for stream in (0, 2):
        with pytest.raises(RuntimeError, match="not being answered"):
            made.codec.respond(stream, 200, [], b"", more=False)
        with pytest.raises(RuntimeError, match="not being answered"):
            made.codec.send(stream, b"", more=False)
        with pytest.raises(RuntimeError, match="not being answered"):
            made.codec.give_up(stream)
    assert made.sent == b""


def test_a_response_that_cannot_be_sent_can_be_replaced() -> None:
    """An error in head or body is the caller's, and not a byte of it has left."""
    made = rig(get())
    with pytest.raises(ValueError, match="control byte"):
        made.respond(headers=[(b"a", b"b\r\nc: d")])
    with pytest.raises(ValueError, match="more than its Content-Length"):
        made.respond(body=b"abc", headers=[(b"content-length", b"2")])
    assert made.sent == b""
    made.codec.proceed(1)
    assert made.sent == CONTINUE
    made.respond(500, b"sorry")
    assert made.statuses == [500]
    assert made.codec.phase is Phase.IDLE


def test_a_surplus_never_leaves() -> None:
    """More than the announced length raises, and the response that has begun is cut."""
    made = rig(get() + get())
    made.respond(body=b"ab", headers=[(b"content-length", b"3")], more=True)
    with pytest.raises(ValueError, match="more than its Content-Length"):
        made.send(b"cd")
    made.codec.give_up(1)
    assert made.sent.endswith(b"\r\n\r\nab")
    assert made.port.ends == ["abort"]
    made.codec.lost()
    assert [request.gone for request in made.requests] == [False]


def test_a_short_response_ends_the_connection() -> None:
    """Less than the announced length: the close tells the client that it is not all."""
    made = rig(get())
    made.respond(body=b"ab", headers=[(b"content-length", b"3")])
    assert not made.answers[0].whole
    assert made.port.ends == ["close"]


# -- persistence, RFC 9112 section 9 --


@pytest.mark.parametrize(
    ("request_", "kept"),
    [
        (get(), True),
        (get(lines=b"Connection: close\r\n"), False),
        (get(version=b"1.0"), False),
        (get(version=b"1.0", lines=b"Connection: Keep-Alive\r\n"), True),
        (get(version=b"1.0", lines=b"Connection: keep-alive, close\r\n"), False),
    ],
)
def test_who_asks_for_a_close_gets_one(request_: bytes, *, kept: bool) -> None:
    """The connection persists by version and by what the client says, and the client is told."""
    made = rig(request_)
    made.respond(body=b"x")
    assert made.port.ends == ([] if kept else ["close"])
    if kept:
        made.feed(request_)
        made.respond()
        assert made.statuses == [200, 200]
    else:
        assert made.answers[0].headers["Connection"] == "close"
        assert made.codec.phase is Phase.OVER


def test_behind_a_last_request_nothing_is_served() -> None:
    """What follows `Connection: close` is not processed (9.6); the response is safe from it."""
    made = rig(get(lines=b"Connection: close\r\n") + get(b"/never"))
    made.respond(body=b"x")
    assert [request.head.path for request in made.requests] == ["/"]
    assert made.statuses == [200]
    assert made.port.ends == ["shut"]


def test_an_application_may_close() -> None:
    """`Connection: close` from the application ends the connection; what waits is never begun."""
    made = rig(get() + get())
    made.respond(headers=[(b"connection", b"close")])
    assert made.statuses == [200]
    assert len(made.requests) == 1
    assert made.port.ends == ["shut"]
    assert made.port.reading


def test_nothing_is_read_behind_the_end() -> None:
    """Bytes that arrive after the close are nobody's request."""
    made = rig(get(lines=b"Connection: close\r\n"))
    made.respond()
    made.feed(get(), b"garbage\0")
    assert len(made.requests) == 1
    assert made.handler.refusals == []


# -- pipelining --


def test_responses_leave_in_the_order_of_requests() -> None:
    """One request runs at a time, the others wait as bytes."""
    made = rig(get(b"/1") + post(b"two") + get(b"/3"))
    assert len(made.requests) == 1
    made.respond(body=b"1")
    assert made.current.body == b"two"
    made.respond(body=b"2a", more=True)
    assert len(made.requests) == 2
    made.send(b"2b")
    made.respond(body=b"3")
    assert [answer.body for answer in made.answers] == [b"1", b"2a2b", b"3"]
    assert made.codec.phase is Phase.IDLE


def test_little_is_read_while_a_request_waits() -> None:
    """Reading goes on, so that the end of the client is noticed, but not for long."""
    made = rig(get(b"/1") + get(b"/2"))
    assert made.port.reading
    made.feed(post(bytes(AHEAD)))
    assert not made.port.reading
    made.respond()
    assert not made.port.reading
    made.respond()
    assert made.port.reading
    made.feed(get(b"/4"), get(b"/5"))
    assert made.port.reading


def test_a_long_head_is_read_to_its_end() -> None:
    """A head that is not whole needs its rest, however much of it has come, in its turn or not."""
    lines = b"".join(b"X-%d: %b\r\n" % (number, b"y" * 1000) for number in range(40))
    made = rig(*cut(get(b"/1", lines), range(0, 50_000, 1400)))
    assert made.port.reading
    made.feed(get(b"/2", lines))
    assert not made.port.reading
    made.respond()
    assert made.port.reading
    made.respond()
    assert made.statuses == [200, 200]
    made.feed(*cut(chunked(b"0\r\n" + lines), [200, 20_000]))
    assert made.port.reading


def test_nothing_is_begun_for_a_client_that_does_not_read() -> None:
    """Who asks and asks and takes no answer is not asked for more, and costs no more memory."""
    made = rig(get(b"/1") + get(b"/2"), keep_alive=9.0)
    made.port.congested = True
    made.respond()
    made.feed(get(b"/3"))
    assert [request.head.path for request in made.requests] == ["/1"]
    assert made.port.reading
    made.feed(post(bytes(AHEAD)))
    assert not made.port.reading
    made.catch_up()
    assert made.current.head.path == "/2"
    made.respond()
    made.respond()
    assert made.port.reading
    made.respond()
    assert made.statuses == [200] * 4


def test_a_client_that_takes_its_time_is_not_idle() -> None:
    """The keep-alive time begins when the response is taken, or a slow one would be cut off."""
    made = rig(get(), keep_alive=9.0)
    made.port.congested = True
    made.respond()
    for _ in range(5):
        made.expire()
    assert (made.port.ends, made.in_time) == ([], LINGER)
    made.catch_up()
    assert made.in_time == 9
    made.expire()
    assert made.port.ends == ["close"]


def test_a_client_that_caught_up_in_a_response_waits_for_the_rest_of_it() -> None:
    """Room in the buffer is no reason to read the next request."""
    made = rig(get(b"/1") + get(b"/2"))
    made.respond(body=b"x", more=True)
    made.port.congested = True
    made.catch_up()
    assert len(made.requests) == 1


def test_everybody_else_has_a_turn_between_two_requests() -> None:
    """A response does not begin the next request at once, but soon, and only once."""
    made = rig(get(b"/1") + get(b"/2"))
    made.codec.respond(1, 200, [], b"", more=False)
    made.requests[0].answered = True
    assert len(made.requests) == 1
    made.arrive(get(b"/3"))
    made.breathe()
    assert [request.head.path for request in made.requests] == ["/1", "/2"]
    made.respond()
    made.respond()
    made.breathe()
    assert made.statuses == [200] * 3
    assert made.codec.phase is Phase.IDLE


def test_a_long_body_of_the_current_request_is_read() -> None:
    """What it may cost is for its application to say."""
    made = rig(post(b"", length=AHEAD + 10))
    made.feed(bytes(AHEAD), b"x")
    assert made.port.reading


def test_whoever_was_held_up_is_read_to_the_end() -> None:
    """A connection that closes reads again, or it would not notice that the client has closed."""
    made = rig(get() + get())
    made.feed(post(bytes(AHEAD)))
    assert not made.port.reading
    made.respond(headers=[(b"connection", b"close")])
    assert made.port.reading
    assert made.port.ends == ["shut"]


def test_a_request_that_waits_takes_its_body() -> None:
    """The body of a request that has not begun is kept for it."""
    made = rig(get() + post(b"", length=4), b"bo", b"dy")
    made.respond()
    assert (made.current.body, made.current.ended) == (b"body", True)


def test_the_next_head_may_have_begun() -> None:
    """A response may end while the next head is arriving: then the head's time runs."""
    made = rig(get() + b"GET /ne", head_timeout=7.0)
    made.port.time += 100
    made.respond()
    assert made.codec.phase is Phase.HEAD
    assert made.in_time == 7
    made.feed(b"xt HTTP/1.1\r\nHost: a\r\n\r\n")
    assert made.current.head.path == "/next"


def test_a_malformed_request_costs_nobody_before_it() -> None:
    """Everything before it is answered in order, then comes its error, and the end."""
    made = rig(get(b"/1") + get(b"/2") + b"GET / HTTP/1.1\r\nno header\r\n\r\n" + get(b"/4"))
    made.feed(get(b"/5"))
    made.respond(body=b"1")
    made.respond(body=b"2")
    assert made.statuses == [200, 200, 400]
    assert [answer.headers["Connection"] for answer in made.answers] == [None, None, "close"]
    assert len(made.requests) == 2
    refused(made, 400)


def test_a_refusal_waits_for_a_response_that_is_being_sent() -> None:
    """An error page does not break into a response."""
    made = rig(get())
    made.respond(body=b"a", more=True)
    made.feed(b"\0")
    assert made.handler.refusals == []
    made.send(b"b")
    assert made.answers[0].body == b"ab"
    refused(made, 400)


def test_a_refusal_behind_a_close_is_not_sent() -> None:
    """A client that was told of the close expects no second response."""
    made = rig(get() + b"\0")
    made.respond(headers=[(b"connection", b"close")])
    assert made.statuses == [200]
    assert made.port.ends == ["shut"]


# -- malformed requests --


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        get(lines=b"X: a\r\n b\r\n"),
        get(lines=b"X: a\r\n\tb\r\n"),
        get(lines=b"X : a\r\n"),
        get(lines=b": a\r\n"),
        get(lines=b"X\r\n"),
        get(lines=b"X(: a\r\n"),
        get(lines=b"X\xe9: a\r\n"),
        get(lines=b"X: a\rb\r\n"),
        get(lines=b"X: a\0b\r\n"),
        get(lines=b"X: a\x01b\r\n"),
        get(lines=b"X: a\x0bb\r\n"),
        get(lines=b"X: a\x7fb\r\n"),
        get(b"nowhere"),
        get(b"/a#b"),
        get(b"/a\x01"),
        get(b"/\xe9"),
        get(b"/a b"),
        get(b"*"),
        get(b"http://"),
        get(lines=b"Content-Length: 1, 1\r\n"),
        get(lines=b"Content-Length: +1\r\n"),
        get(lines=b"Content-Length: 1\r\nContent-Length: 1\r\n"),
        get(lines=b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
        get(lines=b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n"),
        get(lines=b"Transfer-Encoding:\x0bchunked\r\n"),
        get(lines=b"Transfer-Encoding: gzip\r\n"),
        get(lines=b"Transfer-Encoding: chunked\r\n", version=b"1.0"),
        get(version=b"1.10"),
        get(version=b"1"),
        b"GET /\r\n\r\n",
        b"\r\r\n" + get(),
        b"\n" + get(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=lambda head: repr(head[:45])[2:-1],
)
@pytest.mark.parametrize("slices", [bytewise, lambda data: [data]], ids=["bytewise", "whole"])
def test_a_malformed_head_is_refused(slices: Callable[[bytes], list[bytes]], head: bytes) -> None:
    """400 and the end; no application is called."""
    made = rig(*slices(head))
    refused(made, 400)
    assert made.requests == []


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (get(lines=b"Transfer-Encoding: gzip, chunked\r\n"), 501),
        (get(version=b"2.0"), 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (get(lines=b"Expect: the-unexpected\r\n"), 417),
    ],
)
def test_what_is_not_supported_is_said(head: bytes, status: int) -> None:
    """The status names what the server cannot do."""
    refused(rig(head), status)


def test_a_refused_head_gets_no_body() -> None:
    """A response to HEAD has no content, not even an error's (RFC 9110 section 9.3.2)."""
    made = rig(b"HEAD / HTTP/1.1\r\n\r\n")
    assert made.sent.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nContent-Length: 1" in made.sent
    assert made.sent.endswith(b"\r\n\r\n")


def test_a_header_with_an_underscore_is_nobodys() -> None:
    """It steers nothing and reaches no application."""
    made = rig(get(lines=b"Transfer_Encoding: chunked\r\nContent_Length: 5\r\n") + get(b"/2"))
    made.respond()
    assert [request.head.headers for request in made.requests] == [[(b"host", b"a")]] * 2


def test_an_error_of_the_connections_is_not_the_clients() -> None:
    """An exception from behind the port is told, and not taken for a malformed request."""
    made = Rig()
    made.handler.failure = RuntimeError("a bug")
    with pytest.raises(AssertionError, match="an error of ours") as caught:
        made.feed(get())
    assert caught.value.__cause__ is made.handler.failure
    assert made.handler.refusals == []


# -- limits --


def test_the_request_line_is_limited() -> None:
    """--max-request-line bytes pass, one more is 414, before the line has ended."""
    line = b"GET / HTTP/1.1"
    assert rig(get(b"/" + b"x" * (100 - len(line))), max_request_line=100).requests
    for slices in (bytewise, lambda data: [data]):
        made = rig(*slices(get(b"/" + b"x" * (101 - len(line)))), max_request_line=100)
        assert "--max-request-line" in refused(made, 414)
        made = rig(*slices(b"GET /" + b"x" * 97), max_request_line=100)
        assert "--max-request-line" in refused(made, 414)


def test_the_number_of_headers_is_limited() -> None:
    """--max-header-count headers pass, one more is 431."""
    assert rig(get(lines=b"X: y\r\n" * 9), max_header_count=10).requests
    made = rig(get(lines=b"X: y\r\n" * 10), max_header_count=10)
    assert "--max-header-count" in refused(made, 431)


@pytest.mark.parametrize("slices", [lambda data: cut(data, [9, 70]), lambda data: [data]])
def test_the_size_of_headers_is_limited(slices: Callable[[bytes], list[bytes]]) -> None:
    """--max-header-size bytes pass, one more is 431; `Host: a` is nine of them."""
    assert rig(*slices(get(lines=b"X: " + b"y" * 86 + b"\r\n")), max_header_size=100).requests
    made = rig(*slices(get(lines=b"X: " + b"y" * 87 + b"\r\n")), max_header_size=100)
    assert "--max-header-size" in refused(made, 431)


@pytest.mark.parametrize(
    "endless", [b"GET / HTTP/1.1\r\nX", b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\nHost: a"]
)
def test_a_head_without_an_end_is_limited(endless: bytes) -> None:
    """A header that never ends is refused before it fills the memory."""
    made = rig(endless, max_header_size=100, max_request_line=50)
    # The last three could be the beginning of the end, the first two end the line before.
    for _ in range(len(b"GET / HTTP/1.1") + 100 + 4 - len(endless)):
        assert made.handler.refusals == []
        made.feed(b"x")
    assert "--max-header-size" in refused(made, 431)


@pytest.mark.parametrize("endless", [b"0\r\nX: ", b"0\r\nX", b"1;", b"1;x=", b'1;x="'])
def test_trailers_without_an_end_are_limited(endless: bytes) -> None:
    """So are trailers and chunk extensions, which would be collected for ever."""
    made = rig(chunked(), endless, max_header_size=100, max_request_line=50)
    for _ in range(9):
        made.feed(b"x" * 10)
        assert made.handler.refusals == []
    made.feed(b"x" * 30)
    assert made.requests[0].gone
    assert "--max-header-size" in refused(made, 431)


def test_many_trailers_are_limited() -> None:
    """Nor can one trailer after the other go on for ever."""
    made = rig(chunked(b"0\r\n"), max_header_size=100, max_request_line=50)
    made.feed(*[b"X: y\r\n"] * 26)
    refused(made, 431)


def test_trailers_that_end_in_time_are_none_too_many() -> None:
    """Trailers of --max-header-size bytes pass, one more is 431."""
    made = rig(chunked(), b"0\r\nX: ", max_header_size=100, max_request_line=50)
    made.feed(b"x" * 95, b"\r\n\r\n")
    made.respond()
    assert made.codec.phase is Phase.IDLE
    made = rig(chunked(b"0\r\nX: " + b"x" * 96 + b"\r\n\r\n"), max_header_size=100)
    assert "--max-header-size" in refused(made, 431)


def test_a_long_body_in_small_pieces_is_no_trailer() -> None:
    """What counts are extensions and trailers, not the lines that are a chunk's."""
    made = rig(max_header_size=60, max_request_line=20)
    for _ in range(3):
        made.feed(*bytewise(chunked(b"1\r\nx\r\n" * 100 + b"0\r\nY: z\r\n\r\n")))
        made.respond()
    assert [request.body for request in made.requests] == [b"x" * 100] * 3
    assert made.statuses == [200] * 3


def test_an_error_is_not_followed_by_another() -> None:
    """A head that is malformed and too large has one error, the first."""
    made = rig(b"GET / HTTP/1.1\r\nX: ", max_header_size=100, max_request_line=50)
    made.feed(b"\n" + b"x" * 200, b"x" * 200, b"\0\r\n\r\n")
    refused(made, 400)


def test_a_body_that_is_announced_too_large_is_refused() -> None:
    """--max-body-size bytes pass, one more is 413, before a byte of it has come."""
    made = rig(post(b"x" * 10), max_body_size=10)
    assert made.current.ended
    made = rig(post(b"", length=11), max_body_size=10)
    assert "--max-body-size" in refused(made, 413)
    assert made.requests == []


def test_a_body_that_grows_too_large_is_refused() -> None:
    """A chunked body is counted as it comes; the application learns that its client is lost."""
    for slices in (bytewise, lambda data: [data]):
        made = rig(chunked(b"9\r\n012345678\r\n"), max_body_size=10)
        made.feed(*slices(b"2\r\n9x\r\n"))
        assert (made.requests[0].body, made.requests[0].gone) == (b"0123456789", True)
        assert "--max-body-size" in refused(made, 413)
    with pytest.raises(RuntimeError, match="not being answered"):
        made.respond()


# -- bodies --


@pytest.mark.parametrize("slices", [bytewise, lambda data: [data]], ids=["bytewise", "whole"])
def test_chunks_are_joined(slices: Callable[[bytes], list[bytes]]) -> None:
    """Chunk framing, extensions and trailers stay on the wire; only data reaches the request."""
    body = b'3\r\nabc\r\nA;x=y;z="q"\r\n0123456789\r\n0\r\nX-T: u\r\nHost: evil\r\n\r\n'
    made = rig(*slices(chunked(body) + get(b"/2")))
    made.respond()
    first, second = made.requests
    assert (first.body, first.ended) == (b"abc0123456789", True)
    names = [(b"host", b"a"), (b"transfer-encoding", b"chunked")]
    assert first.head.headers == names
    assert second.head.headers == [(b"host", b"a")]


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n",
        b"\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b"1 \r\n",
        b"1\nx\r\n0\r\n\r\n",
        b"1;a\nx\r\n0\r\n\r\n",
        b"1;a\x01\r\nx\r\n0\r\n\r\n",
        b"1\r\nx\n0\r\n\r\n",
        b"1\r\nxy\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\n",
        b"0\r\n\n",
        b"0\r\nX : y\r\n\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n",
        b"0\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"0\r\nX: a\0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("slices", [bytewise, lambda data: [data]], ids=["bytewise", "whole"])
def test_malformed_chunks_are_refused(slices: Callable[[bytes], list[bytes]], body: bytes) -> None:
    """Chunks that two servers could read differently end the request and the connection."""
    made = rig(*slices(chunked(body)))
    assert made.requests[0].gone
    assert not made.requests[0].ended
    refused(made, 400)


def test_a_body_that_breaks_during_its_response_breaks_the_response() -> None:
    """No error page fits into a response that has begun: the connection is cut, once for all."""
    made = rig(chunked())
    made.respond(body=b"a", more=True)
    made.feed(b"x\r\n")
    assert made.requests[0].gone
    assert made.port.ends == ["abort"]
    assert made.codec.phase is Phase.OVER
    assert made.in_time == math.inf
    made.codec.lost()
    with pytest.raises(RuntimeError, match="not being answered"):
        made.send(b"b")


def test_a_body_that_breaks_before_its_turn_is_answered_in_turn() -> None:
    """A waiting request that breaks is never started, and its error waits for the first one."""
    made = rig(get() + chunked(b"1\r\nx\r\n"), b"nonsense\r\n")
    assert made.handler.refusals == []
    made.respond(body=b"1")
    first, second = made.requests
    assert (second.gone, second.started) == (True, False)
    assert not first.gone
    assert made.statuses == [200, 400]
    refused(made, 400)


def test_reading_follows_the_application() -> None:
    """A full exchange stops the client, and what is taken lets it go on."""
    made = rig(post(b"", length=100))
    made.codec.taken(1)
    made.current.full = True
    made.feed(b"x")
    assert not made.port.reading
    made.codec.taken(1)
    assert not made.port.reading
    made.current.full = False
    made.codec.taken(1)
    assert made.port.reading


def tiny(count: int) -> bytes:
    """Return so many chunks of a byte each."""
    return b"1\r\nx\r\n" * count


def test_a_flood_of_chunks_takes_turns() -> None:
    """So many are read in one go, then everybody else has a turn; what waits is bounded."""
    made = rig(chunked())
    made.arrive(tiny(3 * MOST) + b"0\r\n\r\n")
    assert (len(made.current.body), made.current.ended) == (MOST, False)
    assert made.port.reading
    made.port.due.pop(0)()
    assert len(made.current.body) == 2 * MOST
    made.arrive(get(b"/2"))
    assert len(made.current.body) == 3 * MOST
    made.breathe()
    assert made.current.ended
    made.arrive(get(b"/3"))
    assert len(made.requests) == 1
    made.respond()
    made.respond()
    assert made.current.head.path == "/3"


@pytest.mark.parametrize("answered", [False, True])
def test_who_sends_a_lot_takes_turns(*, answered: bool) -> None:
    """Behind a large read nothing more is read until everybody else has had a turn."""
    made = rig(chunked())
    if answered:
        made.respond()
    size = GULP + 1
    made.arrive(b"%x\r\n" % (6 * size) + bytes(GULP - 100))
    assert made.port.reading
    for _ in range(2):
        made.arrive(bytes(size))
        assert not made.port.reading
        if not answered:
            made.arrive(bytes(size))  # what was read already comes all the same
        made.breathe()
        assert made.port.reading
    assert made.port.ends == []


def test_who_sends_a_lot_to_nobody_takes_turns() -> None:
    """What is thrown away takes its time as well; behind the end nobody goes on."""
    made = rig(b"\0")
    made.arrive(bytes(GULP + 1))
    assert not made.port.reading
    made.breathe()
    assert made.port.reading
    made.arrive(bytes(GULP + 1))
    made.expire()
    made.codec.lost()
    made.breathe()
    assert made.port.ends == ["shut", "abort"]


def test_a_flood_of_chunks_is_held_up() -> None:
    """Reading pauses while too much of it waits, and goes on when it is read."""
    made = rig(chunked())
    made.arrive(tiny(AHEAD))
    assert not made.port.reading
    made.breathe()
    assert made.port.reading
    assert len(made.current.body) == AHEAD
    made.arrive(tiny(AHEAD) + b"0\r\n\r\n")
    made.breathe()
    assert made.current.ended
    assert made.port.reading


@pytest.mark.parametrize("answered", [False, True])
def test_a_flood_of_chunks_waits_for_nobody_who_reads_slowly(*, answered: bool) -> None:
    """The body of a request goes on while its client does not read the response."""
    made = rig(chunked())
    made.port.congested = True
    made.respond(body=b"x", more=not answered)
    made.feed(tiny(3 * MOST) + b"0\r\n\r\n")
    assert made.codec.phase is (Phase.IDLE if answered else Phase.BUSY)
    assert made.current.ended is not answered


def test_a_flood_of_chunks_waits_for_the_application() -> None:
    """A full exchange gets no more until it has taken some."""
    made = rig(chunked())
    made.current.full = True
    made.feed(tiny(3 * MOST))
    assert len(made.current.body) == MOST
    assert not made.port.reading
    made.current.full = False
    made.codec.taken(1)
    made.breathe()
    assert len(made.current.body) == 3 * MOST
    assert made.port.reading


def test_a_flood_of_chunks_may_end_badly() -> None:
    """What is wrong is found in its turn, and a connection that has ended takes no more turns."""
    made = rig(chunked())
    made.feed(tiny(2 * MOST) + b"x\r\n")
    assert made.current.body == b"x" * 2 * MOST
    refused(made, 400)
    made = rig(chunked())
    made.arrive(tiny(2 * MOST))
    made.codec.lost()
    made.breathe()
    assert made.current.body == b"x" * MOST


def test_what_comes_before_a_wrong_chunk_is_delivered() -> None:
    """In the same read too, as if it had come alone; then the application hears of the end."""
    made = rig(chunked(b"5\r\nhello\r\n"), b"1\r\n!\r\nx\r\n")
    assert (made.current.body, made.current.gone) == (b"hello!", True)
    refused(made, 400)


# -- the pace of a body, --body-min-rate --


def test_a_slow_body_is_told() -> None:
    """A body that comes slower than --body-min-rate gets 408, its application loses its client."""
    made = rig(post(b"", length=10_000), body_min_rate=100)
    assert made.in_time == GRACE
    made.feed(bytes(int(100 * GRACE)))
    made.expire()
    assert made.in_time == GRACE
    made.feed(bytes(int(100 * GRACE) - 1))
    made.expire()
    assert made.current.gone
    assert "--body-min-rate" in refused(made, 408)


def test_a_slow_body_breaks_a_response() -> None:
    """An error page does not fit into a response that has begun."""
    made = rig(chunked(), body_min_rate=100)
    made.respond(body=b"x", more=True)
    made.expire()
    assert made.port.ends == ["abort"]
    assert made.current.gone


def test_a_body_has_no_pace_without_a_rate() -> None:
    """Nor has a request without a body, or one whose body is complete."""
    assert rig(post(b"", length=5), body_min_rate=0).in_time == math.inf
    assert rig(get(), body_min_rate=100).in_time == math.inf
    made = rig(post(b"", length=5), body_min_rate=100)
    made.feed(b"hello")
    made.expire()
    assert (made.in_time, made.port.ends) == (math.inf, [])


def test_the_pace_is_not_the_applications() -> None:
    """While it has too much to read the client has no say, and then it is measured anew."""
    made = rig(post(b"", length=10_000), body_min_rate=100)
    made.current.full = True
    made.feed(b"x")
    made.expire()
    made.port.time += 3
    made.current.full = False
    made.codec.taken(1)
    made.feed(bytes(200))
    made.port.time += GRACE - 3
    made.codec.expire(made.port.time)
    assert made.port.ends == []


def test_a_client_that_waits_to_be_asked_is_not_slow() -> None:
    """Its time begins when it is asked for the body."""
    made = rig(post(b"", EXPECT, length=10_000), body_min_rate=100)
    made.expire()
    made.port.time = made.codec.deadline - 1
    made.ask()
    made.port.time += 1
    made.codec.expire(made.port.time)
    assert made.port.ends == []
    made.expire()
    assert "--body-min-rate" in refused(made, 408)


def test_an_application_and_a_body_have_a_time_each() -> None:
    """The application's time passes while the body comes well, and the other way round."""
    made = rig(chunked(), body_min_rate=1, http_timeout=GRACE + 2)
    made.feed(b"ff\r\n" + bytes(200))
    made.expire()
    assert not made.current.expired
    assert made.in_time == 2
    made.expire()
    assert made.current.expired
    assert made.in_time == GRACE
    made.expire()
    assert "--body-min-rate" in refused(made, 408)


# -- 100 Continue, RFC 9110 section 10.1.1 --

EXPECT = b"Expect: 100-continue\r\n"


def test_a_client_that_waits_is_asked() -> None:
    """100 Continue leaves when the application wants the body, and not before."""
    made = rig(post(b"", EXPECT, length=4))
    assert made.sent == b""
    made.ask()
    assert made.sent == CONTINUE
    made.feed(b"body")
    assert made.current.ended
    made.respond()
    assert made.statuses == [200]
    assert made.codec.phase is Phase.IDLE


def test_every_client_that_waits_is_asked() -> None:
    """The second request of a connection is no different."""
    made = rig(get())
    made.respond()
    made.feed(post(b"", EXPECT, length=4))
    made.ask()
    assert made.sent.endswith(CONTINUE)
    made.feed(b"body")
    made.respond()
    assert made.statuses == [200, 200]


def test_nobody_is_asked_out_of_turn() -> None:
    """Not behind the head of the response, and not for a request that waits or is over."""
    made = rig(get() + post(b"", EXPECT, length=4))
    made.codec.proceed(2)
    assert made.sent == b""
    made.respond()
    made.respond(more=True, body=b"x")
    before = made.sent
    made.codec.proceed(2)
    made.codec.proceed(1)
    assert made.sent == before
    made.send(b"")
    made.codec.proceed(2)


def test_an_answer_without_the_body_ends_the_connection() -> None:
    """A client that was not asked may or may not send the body: nobody can tell what follows."""
    made = rig(post(b"", EXPECT, length=4))
    made.respond(403)
    assert made.answers[0].headers["Connection"] == "close"
    assert made.port.ends == ["shut"]
    made.feed(b"body" + get())
    assert len(made.requests) == 1


def test_a_streamed_answer_without_the_body_ends_the_connection_too() -> None:
    """It is told in the head."""
    made = rig(chunked(lines=EXPECT))
    made.respond(403, b"a", more=True)
    made.send(b"b")
    assert made.answers[0].headers["Connection"] == "close"
    assert made.port.ends == ["shut"]


# -- bodies that nobody reads --


def test_a_short_rest_is_swallowed() -> None:
    """The rest of a body is thrown away, and the connection is kept for the next request."""
    made = rig(post(b"", length=SWALLOW + 2) + b"ab", head_timeout=7.0)
    made.port.time += 50
    made.respond()
    assert made.codec.phase is Phase.SWALLOWING
    assert made.in_time == 7
    made.feed(b"x" * (SWALLOW - 1))
    assert made.codec.phase is Phase.SWALLOWING
    assert made.in_time == 7
    made.feed(b"x" + get(b"/2"))
    assert made.requests[0].body == b"ab"
    assert made.current.head.path == "/2"


def test_a_swallowed_body_leaves_an_idle_connection() -> None:
    """The keep-alive time begins with the last byte of the body."""
    made = rig(chunked(b"1\r\nx\r\n"), keep_alive=9.0)
    made.respond()
    made.port.time += 5
    made.feed(b"2\r\nyz\r\n0\r\n\r\n")
    assert made.codec.phase is Phase.IDLE
    assert made.in_time == 9


def test_what_was_read_before_the_answer_is_no_rest() -> None:
    """Only what comes behind the response is swallowed; what a request has read does not count."""
    made = rig(chunked(b"%x\r\n" % SWALLOW + b"x" * SWALLOW + b"\r\n"))
    made.respond()
    made.feed(b"1\r\nx\r\n")
    assert made.codec.phase is Phase.SWALLOWING
    made.feed(b"0\r\n\r\n")
    assert made.codec.phase is Phase.IDLE


def test_the_body_behind_is_another_ones() -> None:
    """A long body that was read to its end costs nothing, whatever follows it."""
    made = rig(post(b"x" * (SWALLOW + 1)) + post(b"", length=5))
    made.respond()
    assert made.answers[0].headers["Connection"] is None
    assert made.codec.phase is Phase.BUSY


def test_a_long_rest_is_announced_as_the_end() -> None:
    """A body that is known to be too long to swallow costs the connection, and the head says so."""
    made = rig(post(b"", length=SWALLOW + 1))
    made.respond()
    assert made.answers[0].headers["Connection"] == "close"
    assert made.port.ends == ["shut"]


def test_a_rest_that_gets_long_is_the_end() -> None:
    """A body of unknown length is swallowed for a while."""
    made = rig(chunked())
    made.respond()
    assert made.answers[0].headers["Connection"] is None
    made.feed(b"%x\r\n" % (SWALLOW + 1) + b"x" * SWALLOW)
    assert made.codec.phase is Phase.SWALLOWING
    made.feed(b"x")
    assert made.codec.phase is Phase.LINGERING
    assert made.port.ends == ["shut"]


def test_a_client_that_does_not_finish_is_cut() -> None:
    """A swallowed body has the time of a head."""
    made = rig(post(b"", length=5))
    made.respond()
    made.expire()
    assert made.port.ends == ["abort"]


@pytest.mark.parametrize(
    "rest", [b"nonsense\r\n", b"b\r\n01234567890\r\n", b"0\r\nX: " + b"y" * 200]
)
def test_an_answered_request_gets_no_second_answer(rest: bytes) -> None:
    """A body that turns out wrong after its response: the next response would be another's."""
    made = rig(chunked(), max_body_size=10, max_header_size=100, max_request_line=50)
    made.respond()
    made.feed(rest[:2], rest[2:], b"z" * 200)
    assert len(made.handler.refusals) == 1
    assert made.statuses == [200]
    assert made.port.ends == ["shut"]


def test_reading_goes_on_for_the_rest() -> None:
    """An answered request holds nobody up, even one that was full."""
    made = rig(post(b"", length=5))
    made.current.full = True
    made.feed(b"x")
    assert not made.port.reading
    made.respond()
    assert made.port.reading


# -- upgrades --


@pytest.mark.parametrize("slices", [bytewise, lambda data: [data]], ids=["bytewise", "whole"])
def test_a_handshake_is_handed_over(slices: Callable[[bytes], list[bytes]]) -> None:
    """The connection becomes a WebSocket's, and nothing that comes is HTTP any more."""
    made = rig(*slices(HANDSHAKE))
    ((head, rest),) = made.handler.upgrades
    assert (head.path, head.websocket, rest) == ("/ws", True, b"")
    assert (made.codec.phase, made.in_time) == (Phase.OVER, math.inf)
    made.feed(get())
    assert made.requests == []
    assert made.sent == b""


def test_what_follows_a_handshake_goes_along() -> None:
    """Bytes in the same read are the WebSocket's, even when they look like a request."""
    made = rig(HANDSHAKE + get())
    assert made.handler.upgrades[0][1] == get()
    assert made.requests == []


def test_a_handshake_waits_its_turn() -> None:
    """A pipelined handshake is taken, with what follows, when all before it is answered."""
    made = rig(get() + get(), HANDSHAKE + b"frame")
    assert made.codec.phase is Phase.BUSY
    made.respond()
    assert made.codec.phase is Phase.BUSY
    assert made.port.reading
    made.feed(bytes(AHEAD), b"e")
    assert not made.port.reading
    assert made.handler.upgrades == []
    made.respond()
    assert made.handler.upgrades[0][1] == b"frame" + bytes(AHEAD) + b"e"
    assert made.port.reading
    assert len(made.requests) == 2
    assert made.statuses == [200, 200]


def test_a_handshake_behind_a_close_is_dropped() -> None:
    """A client that was told of the close expects no WebSocket."""
    made = rig(get() + HANDSHAKE)
    made.respond(headers=[(b"connection", b"close")])
    assert made.handler.upgrades == []
    assert made.port.ends == ["shut"]


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Version: 13", b"Version: 12", 426),
        (b"Sec-WebSocket-Version: 13\r\n", b"", 426),
        (b"ZQ==", b"", 400),
        (b"GET", b"POST", 400),
        (b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n", 400),
        (b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ],
)
def test_a_faulty_handshake_is_refused(old: bytes, new: bytes, status: int) -> None:
    """Its errors are HTTP's, and 426 says what would be right."""
    made = rig(HANDSHAKE.replace(old, new))
    refused(made, status)
    assert made.handler.upgrades == []
    if status == 426:
        assert made.answers[0].headers["Sec-WebSocket-Version"] == "13"
        assert made.answers[0].headers["Upgrade"] == "websocket"


def test_a_leaving_worker_takes_no_websocket() -> None:
    """503 while draining, also for a handshake that was waiting when the draining began."""
    made = rig(get())
    made.respond()
    made.port.worker.draining = True
    made.feed(HANDSHAKE)
    assert made.statuses == [200, 503]
    refused(made, 503)
    made = rig(get() + HANDSHAKE)
    made.respond(body=b"x", more=True)
    made.port.worker.draining = True
    made.send(b"")
    assert made.statuses == [200, 503]
    refused(made, 503)


def test_a_leaving_worker_takes_the_websocket_of_who_has_just_connected() -> None:
    """A connection that begins with a handshake was made for it, and is told by the WebSocket."""
    made = rig()
    made.port.worker.draining = True
    made.feed(HANDSHAKE)
    assert len(made.handler.upgrades) == 1


def test_a_worker_with_too_many_requests_takes_no_websocket() -> None:
    """The answer is the connection's; it has logged it."""
    made = rig()
    made.handler.overloaded = Refused(503, "too many", [(b"Retry-After", b"1")])
    made.feed(HANDSHAKE)
    assert made.statuses == [503]
    assert made.answers[0].headers["Retry-After"] == "1"
    assert made.handler.upgrades == made.handler.refusals == []
    assert made.codec.phase is Phase.LINGERING


UNKNOWN = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"


@pytest.mark.parametrize("slices", [bytewise, lambda data: [data]], ids=["bytewise", "whole"])
@pytest.mark.parametrize(
    "lines",
    [
        UNKNOWN,
        b"Proxy-Connection: upgrade\r\nUpgrade: h2c\r\n",
        b"Connection: upgrade\r\nUpgrade:\r\n",
        b"Connection: keep-alive\r\nProxy-Connection: x, Upgrade\r\nUpgrade: websocket\r\n",
    ],
)
def test_an_unknown_upgrade_is_ignored(
    slices: Callable[[bytes], list[bytes]], lines: bytes
) -> None:
    """The request is served as if it had not asked (RFC 9110 section 7.8), body and successors too.

    A body that was taken for the next request would be a smuggled one.
    """
    evil = get(b"/evil")
    stream = get(b"/1", lines) + post(evil, lines) + chunked(b"1\r\nx\r\n0\r\nY: z\r\n\r\n", lines)
    made = rig(*slices(stream + post(b"", lines) + get(b"/5")))
    for _ in range(5):
        made.respond()
    assert [(request.body, request.ended) for request in made.requests] == [
        (b"", True),
        (evil, True),
        (b"x", True),
        (b"", True),
        (b"", True),
    ]
    assert [request.head.method for request in made.requests] == ["GET", *["POST"] * 3, "GET"]
    assert made.statuses == [200] * 5
    assert made.codec.phase is Phase.IDLE


def test_a_body_behind_an_unknown_upgrade_keeps_the_rules() -> None:
    """Expectation, limits, chunk grammar and close hold for it as for any other."""
    made = rig(post(b"", UNKNOWN + EXPECT, length=4))
    assert made.current.waits_for_continue
    made.ask()
    assert made.sent == CONTINUE
    made.feed(b"body")
    assert made.current.body == b"body"
    made = rig(chunked(b"2\r\nab\r\n", UNKNOWN), max_body_size=1)
    refused(made, 413)
    made = rig(chunked(b"nonsense\r\n", UNKNOWN))
    refused(made, 400)
    last = post(b"x", UNKNOWN.replace(b"Upgrade\r", b"Upgrade, close\r", 1))
    made = rig(last + get(b"/never"))
    made.respond()
    assert len(made.requests) == 1
    assert made.statuses == [200]


@pytest.mark.parametrize("lines", [b"", UNKNOWN])
def test_many_requests_are_no_recursion(lines: bytes) -> None:
    """One read may hold thousands of them, each answered as soon as it starts."""
    made = Rig()
    made.handler.run = made.respond
    made.feed(get(lines=lines) * 3000)
    assert len(made.requests) == 3000
    assert (made.codec.phase, made.handler.refusals) == (Phase.IDLE, [])


# -- time --


def test_a_new_connection_has_the_time_of_a_head() -> None:
    """Who says nothing is closed without a word."""
    made = rig(head_timeout=7.0)
    assert made.in_time == 7
    made.expire()
    assert made.port.ends == ["close"]
    assert made.sent == b""


def test_a_slow_head_is_told() -> None:
    """A head that is still incomplete after --head-timeout gets 408."""
    made = rig(head_timeout=7.0)
    made.port.time += 5
    made.feed(b"GET /")
    assert made.in_time == 2
    made.expire()
    assert "--head-timeout" in refused(made, 408)


def test_blank_lines_buy_no_time() -> None:
    """An idle connection stays idle, whatever CR LF a client sends."""
    made = rig(get(), keep_alive=9.0)
    made.respond()
    made.port.time += 8
    made.feed(b"\r\n")
    assert (made.codec.phase, made.in_time) == (Phase.IDLE, 1)


def test_an_idle_connection_is_closed() -> None:
    """After --keep-alive without a request the connection is closed without a word."""
    made = rig(get(), keep_alive=9.0)
    made.respond()
    sent = made.sent
    assert made.in_time == 9
    made.expire()
    assert made.sent == sent
    assert made.port.ends == ["close"]
    assert made.codec.deadline == math.inf


def test_a_next_head_has_its_own_time() -> None:
    """With its first byte the keep-alive time ends and the head's begins, once."""
    made = rig(get(), head_timeout=7.0)
    made.respond()
    made.feed(b"G")
    assert made.in_time == 7
    made.port.time += 3
    made.feed(b"E")
    assert made.in_time == 4


def test_an_application_has_http_timeout() -> None:
    """The exchange is told when the time is over, once; without a limit it never is."""
    made = rig(get(), http_timeout=5.0)
    assert made.in_time == 5
    made.expire()
    assert made.current.expired
    assert made.codec.deadline == math.inf
    made.respond(503)
    assert made.statuses == [503]
    assert rig(get(), http_timeout=None).in_time == math.inf


def test_lingering_is_short() -> None:
    """Our side is closed and the rest thrown away for two seconds, then the connection is cut."""
    made = rig(b"\0")
    assert made.in_time == LINGER
    sent = made.sent
    made.feed(get(), b"\0")
    assert (made.requests, made.sent) == ([], sent)
    made.expire()
    assert made.port.ends == ["shut", "abort"]
    assert made.codec.phase is Phase.OVER


def test_what_is_thrown_away_takes_no_room() -> None:
    """Of a client that neither reads nor stops, nothing is kept."""
    made = rig(get(), b"\0")
    made.port.congested = True
    made.respond()
    made.catch_up()
    refused(made, 400)
    made.port.congested = True
    for _ in range(10):
        made.feed(bytes(AHEAD))
    assert made.port.reading
    made.port.congested = False
    made.expire()
    assert made.port.ends == ["shut", "abort"]


def test_lingering_waits_for_a_response_that_is_being_taken() -> None:
    """A client that reads slowly gets all of it; then the two seconds count."""
    made = rig(b"\0")
    made.port.congested = True
    made.expire()
    assert (made.port.ends, made.in_time) == (["shut"], LINGER)
    made.port.congested = False
    made.expire()
    assert made.port.ends == ["shut", "abort"]


# -- the worker leaves --


def test_a_draining_connection_ends_with_its_response() -> None:
    """The request that is being answered is, and the client is told not to come back."""
    made = rig(get())
    made.port.worker.lingering = made.port.worker.draining = True
    made.codec.drain()
    assert made.in_time == math.inf
    made.respond(body=b"x")
    assert made.answers[0].headers["Connection"] == "close"
    assert made.port.ends == ["close"]


def test_a_lingering_worker_keeps_no_connection() -> None:
    """Each answer is the last of its connection; but WebSockets still begin."""
    made = rig(get())
    made.port.worker.lingering = True
    made.respond()
    assert made.answers[0].headers["Connection"] == "close"
    assert made.port.ends == ["close"]
    other = rig()
    other.port.worker.lingering = True
    other.feed(HANDSHAKE)
    assert len(other.handler.upgrades) == 1


def test_a_draining_connection_that_is_idle_gets_one_more_request() -> None:
    """It may send one that is already under way, and is told; else it is closed soon."""
    made = rig(get())
    made.respond()
    made.port.worker.lingering = made.port.worker.draining = True
    made.codec.drain()
    assert made.in_time == DRAIN_IDLE
    made.feed(get())
    made.respond()
    assert made.answers[1].headers["Connection"] == "close"
    assert made.port.ends == ["close"]


@pytest.mark.parametrize(("begun", "patience"), [([], DRAIN_IDLE), ([b"GE"], 30.0)])
def test_a_draining_connection_that_is_new(begun: list[bytes], patience: float) -> None:
    """A silent one has little time; one whose head is arriving keeps the head's."""
    made = rig(*begun)
    made.port.worker.draining = True
    made.codec.drain()
    assert made.in_time == patience


def test_draining_gives_nobody_more_time() -> None:
    """A deadline that is near stays."""
    made = rig(get(), keep_alive=1.0)
    made.respond()
    made.codec.drain()
    assert made.in_time == 1


def test_a_response_that_began_before_draining_ends_idle() -> None:
    """Its head could not tell: so the client has a moment for one more request."""
    made = rig(get())
    made.respond(body=b"x", more=True)
    made.port.worker.draining = True
    made.codec.drain()
    made.send(b"")
    assert (made.codec.phase, made.in_time) == (Phase.IDLE, DRAIN_IDLE)


# -- the client leaves --


def test_everybody_learns_of_a_lost_client() -> None:
    """The running request, once; what waits is nobody's yet."""
    made = rig(get() + get() + get())
    made.codec.lost()
    assert [request.gone for request in made.requests] == [True]
    assert (made.codec.phase, made.codec.deadline) == (Phase.OVER, math.inf)
    with pytest.raises(RuntimeError, match="not being answered"):
        made.respond()


def test_a_lost_client_of_an_idle_connection_is_nobodys() -> None:
    """An answered request hears nothing more."""
    made = rig(get())
    made.respond()
    made.codec.lost()
    assert not made.requests[0].gone


def test_refusals_are_reported_once() -> None:
    """The log has the rule that the client was told."""
    made = rig(b"\0", b"\0")
    (reason,) = made.handler.refusals
    assert isinstance(reason, Refused)


# -- large pieces of a streamed response leave together --

LARGE = b"x" * 65_536


def streaming() -> Rig:
    """Return a connection whose response has begun, with nothing sent of it but the head."""
    made = rig(get())
    made.respond(headers=[(b"content-length", b"999999")], more=True)
    made.port.writes.clear()
    return made


def test_large_pieces_leave_together() -> None:
    """As soon as there are 512 KiB, without waiting for anybody."""
    made = streaming()
    for _ in range(7):
        made.codec.send(1, LARGE, more=True)
    assert made.port.writes == []
    made.codec.send(1, LARGE, more=True)
    assert made.port.writes == [LARGE] * 8


def test_a_large_piece_that_nothing_follows_leaves_with_the_turn() -> None:
    """And the next one with its own."""
    made = streaming()
    for _ in range(2):
        made.codec.send(1, LARGE, more=True)
        assert len(made.port.due) == 1
        made.port.due.pop()()
        assert made.port.writes.pop() == LARGE
        assert made.port.writes == []


def test_a_turn_in_which_all_has_left_sends_nothing() -> None:
    """However much was sent in it, it was asked for once."""
    made = streaming()
    for _ in range(8):
        made.codec.send(1, LARGE, more=True)
    assert made.port.writes == [LARGE] * 8
    (turn,) = made.port.due
    turn()
    assert len(made.port.writes) == 8


def test_small_pieces_leave_at_once_but_in_order() -> None:
    """Behind a large one they wait with it."""
    made = streaming()
    made.codec.send(1, b"a", more=True)
    assert made.port.writes == [b"a"]
    made.codec.send(1, LARGE, more=True)
    made.codec.send(1, b"b", more=True)
    assert made.port.writes == [b"a"]
    made.port.due.pop()()
    assert made.port.writes == [b"a", LARGE, b"b"]


def test_the_last_piece_takes_all_with_it() -> None:
    """A response that is complete has left, before the next one begins."""
    made = streaming()
    made.codec.send(1, LARGE, more=True)
    made.codec.send(1, b"z", more=False)
    assert made.port.writes == [LARGE, b"z"]


def test_what_was_held_leaves_before_the_connection_is_cut() -> None:
    """The application has sent it: that it fails later takes nothing back."""
    made = streaming()
    made.codec.send(1, LARGE, more=True)
    made.codec.give_up(1)
    assert made.port.writes == [LARGE]
    assert made.port.ends == ["abort"]


def test_what_is_held_for_a_lost_client_goes_nowhere() -> None:
    """The turn comes after the end, and finds nothing to do."""
    made = streaming()
    made.codec.send(1, LARGE, more=True)
    made.codec.lost()
    made.port.due.pop()()
    assert made.port.writes == []


# -- HTTP/2 --


UPGRADE = get(
    lines=b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def speaking(*, paused: bool = False) -> Rig:
    """Return a rig whose connection takes HTTP/2."""
    rig = Rig()
    rig.handler.speaks_http2 = True
    if paused:
        rig.codec._paused = True
        rig.port.pause_reading()
    return rig


@pytest.mark.parametrize("paused", [False, True])
def test_a_client_that_begins_with_http2(*, paused: bool) -> None:
    """The connection has it from there on, and reads."""
    rig = speaking(paused=paused)
    rig.feed(PREFACE)
    assert rig.handler.prefaces == [PREFACE]
    assert rig.codec.phase is Phase.OVER
    assert rig.port.reading
    assert rig.sent == b""


def test_http2_begins_a_connection() -> None:
    """It does not come behind HTTP/1.1."""
    rig = speaking()
    rig.feed(get())
    rig.respond()
    rig.feed(PREFACE)
    assert rig.handler.prefaces == []
    assert rig.statuses[-1] == 505


def test_an_upgrade_to_http2() -> None:
    """The request goes along, as HTTP/2 has it."""
    rig = speaking()
    rig.feed(UPGRADE)
    ((head, values, rest),) = rig.handler.http2_upgrades
    assert (head.version, values, rest) == ("2", [(3, 100)], b"")
    assert rig.codec.phase is Phase.OVER


@pytest.mark.parametrize("paused", [False, True])
def test_an_upgrade_that_is_not_wanted(*, paused: bool) -> None:
    """It is a request like any other."""
    rig = speaking(paused=paused)
    rig.handler.speaks_http2 = False
    deadline = rig.codec.deadline
    rig.codec._hand_over(rig.handler.speak_http2, b"")
    assert (rig.codec.deadline, rig.port.reading) == (deadline, not paused)
    if not paused:
        rig.feed(UPGRADE)
        assert rig.current.head.version == "1.1"


def test_an_upgrade_with_settings_that_are_none() -> None:
    """Nobody is asked."""
    rig = speaking()
    rig.feed(UPGRADE.replace(b"AAMAAABk", b"AAMA"))
    assert rig.handler.http2_upgrades == []
    assert rig.current.started


def test_trailers_of_a_response_that_is_complete() -> None:
    """It is our bug."""
    made = Rig()
    made.feed(get())
    made.respond()
    with pytest.raises(RuntimeError, match="not being answered"):
        made.codec.trailers(1, [])


# -- a piece of the body that the port sends by another way --


def test_a_file_goes_between_what_was_held_and_what_follows() -> None:
    """What was sent before leaves first, since it stands before it."""
    made = rig(get())
    made.respond(more=True)
    made.codec.send(1, LARGE, more=True)
    made.port.writes.clear()

    async def send() -> None:
        made.port.write(b"the file")

    asyncio.run(made.codec.send_file(1, 8, send))
    made.codec.send(1, b"", more=False)
    assert made.port.writes[-4:] == [b"8\r\n", b"the file", b"\r\n", b"0\r\n\r\n"]
    assert b"".join(made.port.writes[:-4]).endswith(LARGE + b"\r\n")
    assert made.codec.phase is Phase.IDLE


def test_a_file_for_a_response_that_is_not_due() -> None:
    """It may be complete, or cut while the file was on its way."""
    made = streaming()

    async def cut() -> None:
        made.codec.give_up(1)

    for stream in (1, 2):
        with pytest.raises(RuntimeError, match="not being answered"):
            asyncio.run(made.codec.send_file(stream, 1, cut))
    assert made.port.ends == ["abort"]
