"""The parser alone: what it tells its sink, and what it refuses. Its use is in test_http1."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING

import pytest

from daphne_supervisor.config import Http
from daphne_supervisor.worker.chunks import MOST
from daphne_supervisor.worker.head import Refused
from daphne_supervisor.worker.http1_parser import Parser
from tests.support.wire import bytewise, cut

if TYPE_CHECKING:
    from daphne_supervisor.worker.head import Head

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
IGNORED = b"POST /h2c HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
PLAIN = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


class Recorder:
    """A sink that remembers."""

    def __init__(self) -> None:
        """Have heard nothing yet; HTTP/2 is spoken if the test says so."""
        self.speaks_http2 = False
        self.heads: list[Head] = []
        self.story: list[str] = []
        self.body = b""

    def begin_request(self, head: Head, body: bytes = b"") -> None:
        """Remember the path."""
        self.heads.append(head)
        self.story.append(head.path)
        if body:  # a whole one is no other story
            self.receive_body(body)
            self.end_request()

    def receive_body(self, data: bytes) -> None:
        """Remember the bytes."""
        self.body += data

    def end_request(self) -> None:
        """Remember that it was whole."""
        self.story.append("end")

    def begin_http2(self, data: bytes) -> bool:
        """Take HTTP/2 if the test says so."""
        self.story.append(f"http2 {len(data)}")
        return self.speaks_http2

    def begin_upgrade(self, head: Head, rest: bytes) -> bool:
        """Take HTTP/2 if the test says so."""
        self.story.append(f"upgrade {head.path} {rest.decode()}")
        return self.speaks_http2

    def begin_handshake(self, head: Head, rest: bytes) -> None:
        """Remember that it was one."""
        self.story.append(f"handshake {head.path}")
        self.body += rest


def parsed(*pieces: bytes, **limits: int) -> tuple[Recorder, Parser]:
    """Return what a parser with `limits` has told of `pieces`; each request is answered at once."""
    sink = Recorder()
    parser = Parser(sink, Http(**limits))  # type: ignore[arg-type]
    for piece in pieces:
        parser.feed(piece)
        while parser.rest and (parser.hasty or parser.ready):
            parser.feed(b"")
    return sink, parser


REQUESTS = [
    (PLAIN * 2, ["/next", "/next"], b""),
    (b"\r\n\r\n" + PLAIN + b"\r\n", ["/next"], b""),
    (b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" + PLAIN, None, b"abc"),
    (
        b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nab\r\n1\r\nc\r\n0\r\nX-Trailer: t\r\n\r\n" + PLAIN,
        None,
        b"abc",
    ),
    (IGNORED + b"Content-Length: 3\r\n\r\nabc" + PLAIN, ["/h2c", "end", "/next"], b"abc"),
    (
        IGNORED + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + PLAIN,
        ["/h2c", "end", "/next"],
        b"abc",
    ),
    (IGNORED + b"\r\n" + PLAIN, ["/h2c", "/next"], b""),
]


@pytest.mark.parametrize(("data", "story", "body"), REQUESTS)
def test_requests_come_in_order_in_any_slicing(
    data: bytes, story: list[str] | None, body: bytes
) -> None:
    """Whole or byte by byte: the same heads, bodies and ends, and nothing is left.

    Of a request that has no body no end is told.
    """
    for pieces in ([data], bytewise(data)):
        sink, parser = parsed(*pieces)
        assert sink.story == (story or ["/a", "end", "/next"])
        assert (sink.body, parser.rest, parser.ready) == (body, b"", True)


def test_a_trailer_is_no_header() -> None:
    """Neither of its own request nor of the next one."""
    sink, _ = parsed(REQUESTS[3][0])
    assert len(sink.heads) == 2
    assert all(name != b"x-trailer" for head in sink.heads for name, _ in head.headers)


UPGRADE = (
    b"GET /up HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n"
    b"Connection: upgrade, http2-settings\r\n\r\n"
)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "taken", "not_taken"),
    [
        (PREFACE + b"rest", ["http2 28"], None),
        (UPGRADE + b"rest", ["upgrade /up rest"], ["upgrade /up rest", "/up"]),
    ],
)
def test_http2_takes_over(data: bytes, taken: list[str], not_taken: list[str] | None) -> None:
    """What it begins with is its own; where it is not spoken HTTP/1.1 goes on, or refuses."""
    sink = Recorder()
    sink.speaks_http2 = True
    parser = Parser(sink, Http())
    parser.feed(data)
    assert sink.story == taken
    assert not parser.rest
    sink = Recorder()
    parser = Parser(sink, Http())
    if not_taken is None:
        with pytest.raises(Refused, match=r"HTTP version 2\.0"):
            parser.feed(data)
    else:
        parser.feed(data)
        assert (sink.story, parser.rest) == (not_taken, b"rest")


def test_a_preface_in_drops_is_one() -> None:
    """Its first line has to be whole."""
    sink = Recorder()
    sink.speaks_http2 = True
    parser = Parser(sink, Http())
    for piece in bytewise(PREFACE[:16]):
        parser.feed(piece)
    assert sink.story == ["http2 16"]


def test_nothing_is_parsed_behind_a_handshake() -> None:
    """What came along with it is handed over, what comes later is nobody's."""
    sink, parser = parsed(HANDSHAKE + b"\r\n" + PLAIN, b"more")
    assert sink.story == ["handshake /ws"]
    assert sink.body == PLAIN
    assert parser.rest == b""


def test_one_request_is_read_at_a_time() -> None:
    """What a client sends ahead is kept, and read when it is asked for, with what has come then."""
    sink = Recorder()
    parser = Parser(sink, Http())
    parser.feed(PLAIN + PLAIN[:9])
    assert (sink.story, parser.rest, parser.ready) == (["/next"], PLAIN[:9], True)
    parser.keep(PLAIN[9:20])
    parser.keep(PLAIN[20:])
    assert (sink.story, parser.rest) == (["/next"], PLAIN)
    parser.feed(PLAIN[:3])
    assert (sink.story, parser.rest) == (["/next", "/next"], PLAIN[:3])
    parser.feed(PLAIN[3:])
    assert sink.story == ["/next"] * 3


@pytest.mark.parametrize("body", [b"", b"Content-Length: 1\r\n"])
def test_behind_a_last_request_nothing_is_read(body: bytes) -> None:
    """It is thrown away, and told (RFC 9112 section 9.6)."""
    last = b"POST /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + body + b"\r\n"
    last += b"x" if body else b""
    sink, parser = parsed(last)
    assert (parser.surplus, parser.ready, parser.begun) == (False, False, False)
    parser.keep(b"x")
    assert (parser.surplus, parser.rest) == (True, b"")
    for pieces in ([last + PLAIN], [last, PLAIN]):
        sink, parser = parsed(*pieces)
        assert sink.story[0] == "/last"
        assert len(sink.heads) == 1
        assert parser.rest == b""
    _, parser = parsed(last + PLAIN)
    assert parser.surplus


def test_it_says_where_it_stands() -> None:
    """Whether a head has begun, of which method, and how much of a body has come."""
    parser = Parser(Recorder(), Http())
    assert (parser.begun, parser.ready) == (False, True)
    parser.feed(b"\r\n")
    assert (parser.begun, parser.ready) == (False, True)
    parser.feed(b"PU")
    assert (parser.begun, parser.ready, parser.method) == (True, False, "")
    parser.feed(b"T / HTTP/1.1\r\nHost: x\r\n")
    assert (parser.begun, parser.method) == (True, "PUT")
    parser.feed(b"Content-Length: 9\r\n\r\nabc")
    assert (parser.begun, parser.ready, parser.received) == (False, False, 3)
    parser.feed(b"defghi" + b"GET")
    assert (parser.begun, parser.ready, parser.received) == (False, True, 9)


def test_who_has_left_is_not_held() -> None:
    """A parser that has parted from its sink is no cycle with it: that would take a collector."""
    sink = Recorder()
    alive = weakref.ref(sink)
    parser = Parser(sink, Http())
    parser.feed(PLAIN)
    parser.part()
    del sink
    assert alive() is None


def test_the_method_is_that_of_the_last_request_line() -> None:
    """One that is refused is not taken for the one before it: the answer to HEAD has no body."""
    head = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"
    for wrong in (b"GET / HTTP/1.2\r\n", b" ", b"GET\n"):
        parser = Parser(Recorder(), Http())
        parser.feed(head)
        assert parser.method == "HEAD"
        with pytest.raises(Refused):
            parser.feed(wrong)
        assert parser.method == ""
    chunked = CHUNKED.replace(b"POST", b"HEAD") + b"0\r\n\r\n"
    _, parser = parsed(chunked, b"\r\n", chunked)
    assert parser.method == "HEAD"


def test_a_flood_of_chunks_is_read_in_goes() -> None:
    """So that others have a turn between them; the rest says that it is the rest."""
    sink = Recorder()
    parser = Parser(sink, Http())
    parser.feed(CHUNKED + b"1\r\nx\r\n" * 2 * MOST + b"0\r\n\r\n" + PLAIN)
    for goes in (1, 2):
        assert (parser.hasty, len(sink.body), parser.received) == (True, *[goes * MOST] * 2)
        parser.feed(b"")
    assert (parser.hasty, parser.rest, sink.story[-1]) == (False, PLAIN, "end")


# -- the same head again --

LENGTH = HEAD + b"Content-Length: 1\r\n\r\n"
LONG = b"GET /long HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 3000 + b"\r\n\r\n"


def test_the_same_bytes_are_the_same_head() -> None:
    """A client that polls is not read anew, but only the very same bytes are meant."""
    sink, parser = parsed(PLAIN, PLAIN * 2, b"\r\n" + PLAIN, PLAIN)
    assert sink.heads[:3] == [sink.heads[0]] * 3
    assert sink.heads[3:] == [sink.heads[3]] * 2
    assert (parser.ready, parser.rest, parser.method) == (True, b"", "GET")
    sink, _ = parsed(PLAIN, PLAIN.replace(b"next", b"text"), PLAIN, PLAIN[:5], PLAIN[5:])
    assert sink.story == ["/next", "/text", "/next", "/next"]


@pytest.mark.parametrize(
    ("head", "bodies"),
    [
        (LENGTH, [b"a", b"b", b"c"]),
        (CHUNKED, [b"1;x\r\na\r\n0\r\n\r\n", b"0\r\n\r\n", b"2\r\nbc\r\n0\r\nX: y\r\n\r\n"]),
    ],
)
def test_the_same_head_may_have_another_body(head: bytes, bodies: list[bytes]) -> None:
    """A body is read as it comes, in any slicing, and counted from its beginning."""
    data = b"".join(head + body for body in bodies)
    whole = [head + body for body in bodies]
    for pieces in ([data], whole, bytewise(data), cut(data, range(0, len(data), len(head)))):
        sink, parser = parsed(*pieces, max_body_size=2)
        assert sink.story == ["/", "end"] * 3
        assert (sink.body, parser.rest) == (b"abc", b"")
    sink, _ = parsed(*whole)
    assert sink.heads == [sink.heads[0]] * 3


def test_the_same_head_may_have_been_kept() -> None:
    """What waited is read as what has just come, and is not read twice."""
    sink = Recorder()
    parser = Parser(sink, Http())
    parser.feed(PLAIN)
    parser.keep(PLAIN)
    parser.feed(PLAIN[:3])
    assert (len(sink.heads), parser.rest) == (2, PLAIN[:3])


def test_a_long_head_is_read_anew() -> None:
    """Its bytes are not worth their room, whatever comes before them."""
    for first in (LONG, b"\r\n" + LONG):
        sink, _ = parsed(first, LONG)
        assert sink.story == ["/long"] * 2
        assert sink.heads[0] is not sink.heads[1]


@pytest.mark.parametrize("between", [LENGTH + b"x", PLAIN + PLAIN, LONG])
def test_only_the_last_head_is_kept(between: bytes) -> None:
    """The head that is kept is that of the bytes that are."""
    first = IGNORED + b"\r\n"
    sink, _ = parsed(first, between, first)
    assert sink.story[0] == sink.story[-1] == "/h2c"
    assert sink.story.count("/h2c") == 2


def test_only_a_head_is_taken_for_one() -> None:
    """Neither a body that has its bytes nor the end of another head."""
    ending = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(PLAIN)
    sink, _ = parsed(PLAIN, ending, PLAIN, PLAIN)
    assert sink.story == ["/next", "/a", "end", "/next"]
    assert sink.body == PLAIN
    sink, _ = parsed(PLAIN, b"GET /a HTTP/1.1\r\nX: ", PLAIN, PLAIN)
    assert sink.story == ["/next", "/a", "/next"]
    sink, _ = parsed(b"GET /a HTTP/1.1\r\nX: ", PLAIN, PLAIN)
    assert sink.story == ["/a", "/next"]


def test_nothing_at_all_is_no_request() -> None:
    """Neither before the first one nor behind one that is not kept."""
    sink, parser = parsed()
    parser.feed(b"")
    parser.feed(HEAD + b"Content-Length: 1\r\n\r\nx")
    parser.feed(b"")
    assert sink.story == ["/", "end"]


# -- what is refused --


@pytest.mark.parametrize(
    ("data", "limits", "status", "rule"),
    [
        (b"BREW / HTTP/1.1\r\n\r\n", {}, 501, "unknown method"),
        (b"GET / HTTP/1.1\nHost: x\n\n", {}, 400, "CR or LF alone"),
        (b"GET / HTTP/1.1\r\nHost: x\n\r\n", {}, 400, "CR or LF alone"),
        (b"GET / HTTP/1.1\r\nHost: x\rX\r\n\r\n", {}, 400, "CR or LF alone"),
        (b"\rGET / HTTP/1.1\r\n", {}, 400, "no method"),
        (b"\x16\x03\x01", {}, 400, "TLS"),
        (b"GET / HTTP/1.1\r\nX\r\n\r\n", {}, 400, "no colon"),
        (b"GET / HTTP/1.1\r\n\r\n", {}, 400, "no Host"),
        (b"GET /long HTTP/1.1\r\n", {"max_request_line": 17}, 414, "--max-request-line"),
        (b"GET /long HTTP/1.1", {"max_request_line": 8}, 414, "--max-request-line"),
        (b"GET\n/long HTTP/1.1", {"max_request_line": 8}, 400, "CR or LF alone"),
        (HEAD + b"A: b\r\n\r\n", {"max_header_count": 1}, 431, "--max-header-count"),
        (HEAD + b"A: b\nc\r\n\r\n", {"max_header_count": 1}, 400, "CR or LF alone"),
        (HEAD + b"A: bcdefg\r\n\r\n", {"max_header_size": 12}, 431, "--max-header-size"),
        (HEAD + b"A: bcdef\r\n\r\n", {"max_header_size": 18}, 431, "--max-header-size"),
        (HEAD + b"A: bcdefg", {"max_header_size": 12}, 431, "--max-header-size"),
        (HEAD + b"\nA: bcdefg", {"max_header_size": 12}, 400, "CR or LF alone"),
        (HEAD + b"Content-Length: 3\r\n\r\n", {"max_body_size": 2}, 413, "Content-Length exceeds"),
        (
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            {"max_body_size": 2},
            413,
            "body exceeds",
        ),
        (HANDSHAKE + b"Content-Length: 1\r\n\r\nx", {}, 400, "beside a WebSocket handshake"),
    ],
)
def test_what_is_refused(data: bytes, limits: dict[str, int], status: int, rule: str) -> None:
    """With the status for the client and the rule or option for the log, in any slicing."""
    for pieces in ([data], bytewise(data)):
        with pytest.raises(Refused) as caught:
            parsed(*pieces, **limits)
        assert caught.value.status == status
        assert rule in caught.value.rule


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        (b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n", {"max_request_line": 18}),
        (b"\r\n" * 50 + b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n", {"max_request_line": 18}),
        (HEAD + b"A: b\r\n\r\n", {"max_header_count": 2}),
        (HEAD + b"A: bcdef\r\n\r\n", {"max_header_size": 19}),
        (HEAD + b"Content-Length: 3\r\n\r\nabc", {"max_body_size": 3}),
        (CHUNKED + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", {"max_body_size": 3}),
    ],
)
def test_what_just_fits_is_taken(data: bytes, limits: dict[str, int]) -> None:
    """A limit is what is allowed, in any slicing."""
    for pieces in ([data], bytewise(data)):
        sink, parser = parsed(*pieces, **limits)
        assert len(sink.heads) == 1
        assert parser.ready


def test_what_fits_of_a_body_is_told() -> None:
    """Before it shows that the body is too large, in any slicing."""
    data = CHUNKED + b"2\r\nab\r\n2\r\ncd\r\n"
    for pieces in ([data], bytewise(data)):
        sink = Recorder()
        parser = Parser(sink, Http(max_body_size=3))
        for piece in pieces[:-3]:
            parser.feed(piece)
        with pytest.raises(Refused, match="body exceeds"):
            parser.feed(b"".join(pieces[-3:]))
        assert sink.body == b"abc"


def test_a_line_without_end_is_refused() -> None:
    """Or it would be kept for as long as it grows, in a head and in trailers."""
    limits = {"max_header_size": 60, "max_request_line": 20}
    for beginning in (HEAD, CHUNKED + b"0\r\n", CHUNKED + b"1;"):
        with pytest.raises(Refused, match="--max-header-size"):
            parsed(beginning, b"X: " if beginning is HEAD else b"x", *[b"b" * 50] * 3, **limits)


@pytest.mark.parametrize("beginning", [HEAD, CHUNKED + b"0\r\n", CHUNKED + b"1;", b"GET /"])
def test_a_head_that_dribbles_in_is_not_gone_over_again(beginning: bytes) -> None:
    """Byte by byte, 20 kB take some hundred milliseconds; if each was to look at all, many seconds.

    The bound is far from both.
    """
    line = b"X: y\r\n" if beginning.endswith(b"\n") else b"x" * 6
    parser = Parser(Recorder(), Http(max_header_count=10**6, max_request_line=10**6))
    parser.feed(beginning)
    start = time.process_time()
    for byte in bytewise(line * 3400):
        parser.feed(byte)
    assert time.process_time() - start < 2


def test_a_mistake_of_ours_is_not_the_client_s() -> None:
    """An error in the sink is no refusal, and not hidden."""

    class Broken(Recorder):
        def begin_request(self, head: Head, body: bytes = b"") -> None:
            message = f"cannot take {head.path} {body!r}"
            raise RuntimeError(message)

    parser = Parser(Broken(), Http())
    with pytest.raises(RuntimeError, match="cannot take /next"):
        parser.feed(PLAIN)


# -- heads with which other connections have begun --


def begun(data: bytes, heads: dict[bytes, Head], **limits: int) -> Recorder:
    """Return what a new connection that begins with `data` has told."""
    sink = Recorder()
    Parser(sink, Http(**limits), heads).feed(data)  # type: ignore[arg-type]
    return sink


def test_a_first_head_is_known_on_the_next_connection() -> None:
    """Whoever begins with the same bytes gets the same head, and is read on as anybody is."""
    heads: dict[bytes, Head] = {}
    first = begun(PLAIN, heads)
    sink = Recorder()
    parser = Parser(sink, Http(), heads)
    parser.feed(PLAIN)
    assert sink.heads[0] is first.heads[0] is heads[PLAIN]
    assert (parser.method, parser.rest, parser.ready) == ("GET", b"", True)
    parser.feed(PLAIN)
    parser.feed(PLAIN.replace(b"next", b"other"))
    assert sink.story == ["/next", "/next", "/other"]


def test_the_last_request_of_a_known_head_is_the_last() -> None:
    """What is behind it is thrown away, as on the connection that it was seen on first."""
    heads: dict[bytes, Head] = {}
    last = PLAIN[:-2] + b"Connection: close\r\n\r\n"
    for _ in range(2):
        sink = Recorder()
        parser = Parser(sink, Http(), heads)
        parser.feed(last)
        parser.keep(PLAIN)
        assert (sink.story, parser.surplus, parser.rest) == (["/next"], True, b"")
    assert list(heads) == [last]


@pytest.mark.parametrize(
    "data",
    [
        PLAIN + PLAIN,
        HEAD + b"Content-Length: 1\r\n\r\nb",
        HEAD + b"Content-Length: 1\r\n\r\n",
        CHUNKED,
        PLAIN[:-2] + b"Cookie: a=b\r\n\r\n",
        PLAIN[:-2] + b"Authorization: Basic eDp5\r\n\r\n",
        PLAIN[:-2] + b"X: " + b"y" * 2048 + b"\r\n\r\n",
        PLAIN[:-4],
    ],
)
def test_other_first_reads_are_not_kept(data: bytes) -> None:
    """More than a head, less than one, what is long, and what is secret."""
    heads: dict[bytes, Head] = {}
    begun(data, heads)
    assert not heads


def test_only_what_a_connection_begins_with_is_kept_for_others() -> None:
    """A client that asks for another target each time leaves one head, not all of them."""
    heads: dict[bytes, Head] = {}
    parser = Parser(Recorder(), Http(), heads)
    for number in range(3):
        parser.feed(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
    assert list(heads) == [b"GET /0 HTTP/1.1\r\nHost: x\r\n\r\n"]


def test_known_heads_are_bounded() -> None:
    """Clients that never say the same do not fill the memory."""
    heads: dict[bytes, Head] = {}
    for number in range(300):
        begun(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number, heads)
    assert len(heads) <= 256
    assert b"GET /299 HTTP/1.1\r\nHost: x\r\n\r\n" in heads
