"""The parser alone: what it tells its sink, and what it refuses. Its use is in test_http1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from daphne_supervisor.config import Http
from daphne_supervisor.worker.head import Refused
from daphne_supervisor.worker.http1_parser import Parser
from tests.support.wire import bytewise

if TYPE_CHECKING:
    from daphne_supervisor.worker.head import Head

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
IGNORED = b"POST /h2c HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
PLAIN = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"


class Recorder:
    """A sink that remembers."""

    def __init__(self) -> None:
        """Have heard nothing yet."""
        self.heads: list[Head] = []
        self.story: list[str] = []
        self.body = b""

    def begin_request(self, head: Head) -> None:
        """Remember the path."""
        self.heads.append(head)
        self.story.append(head.path)

    def receive_body(self, data: bytes) -> None:
        """Remember the bytes."""
        self.body += data

    def end_request(self) -> None:
        """Remember that it was whole."""
        self.story.append("end")

    def begin_handshake(self, head: Head) -> None:
        """Remember that it was one."""
        self.story.append(f"handshake {head.path}")


def parsed(*pieces: bytes, **limits: int) -> tuple[Recorder, bytes]:
    """Return what a parser with `limits` has told of `pieces`, and what it left."""
    sink = Recorder()
    parser = Parser(sink, Http(**limits))  # type: ignore[arg-type]
    return sink, b"".join([parser.feed(piece) for piece in pieces])


REQUESTS = [
    (PLAIN * 2, ["/next", "end", "/next", "end"], b""),
    (b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" + PLAIN, None, b"abc"),
    (
        b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nab\r\n1\r\nc\r\n0\r\nX-Trailer: t\r\n\r\n" + PLAIN,
        None,
        b"abc",
    ),
    (IGNORED + b"Content-Length: 3\r\n\r\nabc" + PLAIN, ["/h2c", "end", "/next", "end"], b"abc"),
    (
        IGNORED + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + PLAIN,
        ["/h2c", "end", "/next", "end"],
        b"abc",
    ),
    (IGNORED + b"\r\n" + PLAIN, ["/h2c", "end", "/next", "end"], b""),
]


@pytest.mark.parametrize(("data", "story", "body"), REQUESTS)
def test_requests_come_in_order_in_any_slicing(
    data: bytes, story: list[str] | None, body: bytes
) -> None:
    """Whole or byte by byte: the same heads, bodies and ends, and nothing is left."""
    for pieces in ([data], bytewise(data)):
        sink, rest = parsed(*pieces)
        assert sink.story == (story or ["/a", "end", "/next", "end"])
        assert (sink.body, rest) == (body, b"")


def test_a_trailer_is_no_header() -> None:
    """Neither of its own request nor of the next one."""
    sink, _ = parsed(REQUESTS[2][0])
    assert all(name != b"x-trailer" for head in sink.heads for name, _ in head.headers)


def test_nothing_is_parsed_behind_a_handshake() -> None:
    """What follows it is given back, in the same read and in later ones."""
    sink, rest = parsed(HANDSHAKE + b"\r\n" + PLAIN, b"more")
    assert sink.story == ["handshake /ws"]
    assert rest == PLAIN + b"more"


def test_it_says_where_it_stands() -> None:
    """Whether a head has begun, of which method, and how much of a body has come."""
    parser = Parser(Recorder(), Http())
    assert not parser.begun
    parser.feed(b"PUT / HTTP/1.1\r\nHost: x\r\n")
    assert (parser.begun, parser.method) == (True, b"PUT")
    parser.feed(b"Content-Length: 9\r\n\r\nabc")
    assert (parser.begun, parser.received) == (False, 3)


HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("data", "limits", "status", "rule"),
    [
        (b"BREW / HTTP/1.1\r\n\r\n", {}, 501, "unknown method"),
        (b"GET / HTTP/1.1\nHost: x\n\n", {}, 400, "malformed request"),
        (b"GET / HTTP/1.1\r\n\r\n", {}, 400, "no Host"),
        (b"GET /long HTTP/1.1\r\n", {"max_request_line": 4}, 414, "--max-request-line"),
        (HEAD + b"A: b\r\n\r\n", {"max_header_count": 1}, 431, "--max-header-count"),
        (HEAD + b"A: bcdefg\r\n\r\n", {"max_header_size": 12}, 431, "--max-header-size"),
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


def test_a_line_without_end_is_refused() -> None:
    """Or it would be kept for as long as it grows, in a head and in trailers."""
    limits = {"max_header_size": 9, "max_request_line": 9}
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    for beginning, more in ((HEAD, {}), (chunked, {"max_header_size": 99})):
        with pytest.raises(Refused, match="--max-header-size"):
            parsed(beginning, b"X: ", *[b"b" * 50] * 3, **limits | more)


def test_a_mistake_of_ours_is_not_the_client_s() -> None:
    """An error in the sink is no refusal."""

    class Broken(Recorder):
        def begin_request(self, head: Head) -> None:
            message = f"cannot take {head.path}"
            raise RuntimeError(message)

    parser = Parser(Broken(), Http())
    with pytest.raises(Exception, match="callback") as caught:
        parser.feed(PLAIN)
    assert not isinstance(caught.value, Refused)
    assert isinstance(caught.value.__context__, RuntimeError)
