"""The encoding of responses: what leaves the server, whatever an application says."""

from __future__ import annotations

import http
from typing import TYPE_CHECKING, Any

import pytest

from daphne_supervisor.worker.head import Head, admit
from daphne_supervisor.worker.response import (
    CONTINUE,
    Response,
    encode_switch,
    error_page,
    status_line,
    status_phrase,
)
from tests.support.wire import DATE, SERVER, Answer, read_answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daphne_supervisor.worker.response import Identity

IDENTITY = (DATE, SERVER, SERVER + DATE + b"\r\n")


def request(
    method: str = "GET", version: str = "1.1", *lines: tuple[bytes, bytes], close: bool = False
) -> Head:
    """Return the head of a request that keeps the connection unless it is to `close`."""
    connection = (b"connection", b"close" if close else b"keep-alive")
    return admit(method, b"/", version, [(b"host", b"a"), connection, *lines])


def start(
    response: Response,
    head: Head | None = None,
    status: Any = 200,
    headers: Sequence[Any] = (),
    *,
    size: int | None = None,
    close: bool = False,
    identity: Identity = IDENTITY,
) -> bytes:
    """Start `response` with everything plain unless said."""
    head = head or request()
    return response.start(head, status, headers, size, identity, close=close)


def whole(
    body: bytes, headers: Sequence[Any] = (), *, method: str = "GET", status: int = 200
) -> Answer:
    """Return how a client reads a response that is sent in one piece."""
    response = Response()
    sent = start(response, request(method), status, headers, size=len(body))
    sent += response.body(body, more=False)
    (answer,) = read_answers(sent, [method])
    return answer


# -- the head --


def test_a_response_is_encoded_to_the_byte() -> None:
    """Status line, the application's headers as it spells them, framing, Server and Date."""
    response = Response()
    head = start(response, headers=[(b"X-Y", b"z"), (b"content-type", b"a/b")], size=2)
    assert head == (
        b"HTTP/1.1 200 OK\r\nX-Y: z\r\ncontent-type: a/b\r\nContent-Length: 2\r\n"
        + SERVER
        + DATE
        + b"\r\n"
    )
    assert response.body(b"hi", more=False) == b"hi"
    assert (response.begun, response.close) == (True, False)


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (404, b"HTTP/1.1 404 Not Found\r\n"),
        (299, b"HTTP/1.1 299 \r\n"),
        (999, b"HTTP/1.1 999 \r\n"),
    ],
)
def test_status_lines(status: int, line: bytes) -> None:
    """A known status has its phrase; an unknown one keeps the blank that the grammar asks for."""
    assert status_line(status) == line
    assert start(Response(), status=status).startswith(line)


@pytest.mark.parametrize("status", [100, 101, 199, 1000, 0, -1, True])
def test_only_a_final_status_is_sent(status: object) -> None:
    """An interim status is the application's mistake."""
    response = Response()
    with pytest.raises(ValueError, match="not a final HTTP status"):
        start(response, status=status)
    assert not response.begun


@pytest.mark.parametrize("length", [b"x", b"-1", b"", b"1" * 20])
def test_a_length_is_a_number_of_bytes(length: bytes) -> None:
    """One of more digits than 2^63 has is none that a client would take."""
    with pytest.raises(ValueError, match="is not a number of bytes"):
        start(Response(), headers=[(b"content-length", length)])
    assert b"Content-Length: " + b"9" * 18 in start(
        Response(), headers=[(b"content-length", b"9" * 18)]
    )


@pytest.mark.parametrize("status", ["200", 200.0, None, [200]])
def test_a_status_is_a_number(status: object) -> None:
    """What is none is the same kind of mistake, and is shown."""
    with pytest.raises(ValueError, match="is not a number") as caught:
        start(Response(), status=status)
    assert repr(status) in str(caught.value)


def test_a_status_may_be_an_enum() -> None:
    """Of the standard library's, as many applications have it."""
    assert start(Response(), status=http.HTTPStatus.NOT_FOUND).startswith(
        b"HTTP/1.1 404 Not Found\r\n"
    )


def test_date_and_server_are_the_applications_if_it_sets_them() -> None:
    """Each is sent once: the application's in place of ours."""
    ours = {"Date": DATE[6:-2].decode(), "Server": SERVER[8:-2].decode()}
    for own in ({"Date": "then"}, {"Server": "mine"}, {"Date": "then", "Server": "mine"}):
        headers = [(name.upper().encode(), value.encode()) for name, value in own.items()]
        answer = whole(b"hi", headers)
        for name, value in (ours | own).items():
            assert answer.headers.get_all(name) == [value]
        assert answer.body == b"hi"


def test_a_nameless_server_sends_no_name() -> None:
    """With --no-server-name there is no line, and the head is still whole."""
    assert start(Response(), identity=(DATE, b"", DATE + b"\r\n"), size=0).count(b"\r\n") == 4


def test_the_server_frames() -> None:
    """Transfer-Encoding, Keep-Alive and Connection of an application's are not repeated."""
    steering = [(b"Transfer-Encoding", b"gzip, chunked"), (b"Keep-Alive", b"x")]
    answer = whole(b"hi", [*steering, (b"Connection", b"keep-alive, x")])
    assert [name for name, _ in answer.headers.items()] == ["Content-Length", "Server", "Date"]
    assert answer.body == b"hi"


@pytest.mark.parametrize(
    ("version", "close", "size", "line"),
    [
        ("1.1", False, 2, b"Connection: upgrade\r\n"),
        ("1.1", True, 2, b"Connection: close, upgrade\r\n"),
        ("1.1", False, None, b"Connection: upgrade\r\n"),
        ("1.0", False, None, b"Connection: close, upgrade\r\n"),
    ],
)
def test_an_upgrade_is_a_connection_option(
    version: str, size: int | None, line: bytes, *, close: bool
) -> None:
    """Who sends Upgrade, with 426 for example, has to say so (RFC 9110 section 7.8)."""
    response = Response()
    head = start(
        response,
        request("GET", version),
        426,
        [(b"Upgrade", b"HTTP/3.0"), (b"connection", b"upgrade")],
        size=size,
        close=close,
    )
    assert b"\r\nUpgrade: HTTP/3.0\r\n" in head
    assert head.count(b"Connection") == 1
    assert line in head
    assert response.close is (b"close" in line)


# -- framing, RFC 9112 section 6 --


def test_a_body_of_unknown_size_is_chunked() -> None:
    """Each piece is a chunk, an empty piece in the middle is none, the end is a chunk of zero."""
    response = Response()
    head = start(response)
    assert b"Transfer-Encoding: chunked\r\n" in head
    assert b"Content-Length" not in head
    assert response.body(b"", more=True) == b""
    assert response.body(b"x" * 26, more=True) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert response.body(b"y", more=False) == b"1\r\ny\r\n0\r\n\r\n"
    assert not response.close


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("body", [b"", b"x" * 26])
@pytest.mark.parametrize(
    ("method", "status", "headers"),
    [
        ("GET", 200, []),
        ("GET", 200, [(b"content-length", b"26")]),
        ("HEAD", 200, []),
        ("GET", 204, []),
    ],
)
def test_pieces_say_the_same_without_a_copy(
    method: str, status: int, headers: list[Any], body: bytes, *, more: bool
) -> None:
    """A large body leaves as it is, whatever stands around it; nothing is no piece."""
    joined, apart = Response(), Response()
    for response in (joined, apart):
        start(response, request(method), status, headers)
    pieces = apart.pieces(body, more=more)
    assert b"".join(pieces) == joined.body(body, more=more)
    assert all(pieces)
    assert not b"".join(pieces) or not body or any(piece is body for piece in pieces)
    assert (apart.left, apart.close) == (joined.left, joined.close)


def test_pieces_keep_to_the_announced_length() -> None:
    """As a body in one piece does."""
    response = Response()
    start(response, headers=[(b"content-length", b"5")])
    with pytest.raises(ValueError, match="more than its Content-Length"):
        response.pieces(b"x" * 6, more=True)


def test_an_empty_end_ends_the_chunks_once() -> None:
    """The chunk of zero stands alone when the last piece is empty."""
    response = Response()
    start(response)
    assert response.body(b"", more=False) == b"0\r\n\r\n"


def test_an_old_client_reads_to_the_end() -> None:
    """HTTP/1.0 knows no chunks: the close of the connection ends a body of unknown size."""
    response = Response()
    head = start(response, request("GET", "1.0"))
    assert b"Transfer-Encoding" not in head
    assert b"Connection: close\r\n" in head
    assert response.close
    assert response.body(b"abc", more=True) == b"abc"


@pytest.mark.parametrize(
    ("version", "by_request", "by_server", "headers", "line"),
    [
        ("1.1", False, False, [], b""),
        ("1.1", True, False, [], b"Connection: close\r\n"),
        ("1.1", False, True, [], b"Connection: close\r\n"),
        ("1.1", False, False, [(b"connection", b"Close")], b"Connection: close\r\n"),
        ("1.0", False, False, [], b"Connection: keep-alive\r\n"),
        ("1.0", True, False, [], b"Connection: close\r\n"),
    ],
)
def test_the_connection_header(
    *, version: str, by_request: bool, by_server: bool, headers: list[Any], line: bytes
) -> None:
    """Client, server and application can each close; HTTP/1.0 is told when it is kept (9.3)."""
    response = Response()
    head = start(
        response, request("GET", version, close=by_request), 200, headers, size=0, close=by_server
    )
    assert head.count(b"Connection") == bool(line)
    assert line in head
    assert response.close is (line == b"Connection: close\r\n")


def test_an_announced_length_is_kept() -> None:
    """The application's Content-Length stands, also for a body sent in pieces."""
    response = Response()
    assert b"Content-Length: 5\r\n" in start(response, headers=[(b"content-length", b"5")])
    assert response.body(b"abc", more=True) == b"abc"
    assert response.body(b"de", more=False) == b"de"
    assert not response.close


def test_more_than_announced_is_not_sent() -> None:
    """The surplus would be the beginning of another response to the client."""
    response = Response()
    start(response, headers=[(b"content-length", b"5")])
    response.body(b"abcd", more=True)
    with pytest.raises(ValueError, match="more than its Content-Length"):
        response.body(b"ef", more=True)


def test_less_than_announced_costs_the_connection() -> None:
    """A client that waits for the rest learns from the close that none will come."""
    response = Response()
    start(response, headers=[(b"content-length", b"5")])
    response.body(b"abcd", more=True)
    assert not response.close
    response.body(b"", more=False)
    assert response.close


@pytest.mark.parametrize(
    "values",
    [[b"x"], [b""], [b"-1"], [b"+1"], [b"1, 1"], [b"1", b"2"], ["1"], [1], [None], [b"9" * 5000]],
    ids=lambda values: repr(values)[:20],
)
def test_an_announced_length_is_one_number(values: list[Any]) -> None:
    """Two lengths, or what is no length in bytes, cannot be sent."""
    with pytest.raises(ValueError, match=r"Content-Length|content-length|expected to be|digits"):
        start(Response(), headers=[(b"content-length", value) for value in values])


def test_a_length_said_twice_is_sent_once() -> None:
    """An application that repeats itself is understood, its client sees one line."""
    answer = whole(b"ab", [(b"content-length", b"2"), (b"Content-Length", b"2")])
    assert answer.headers.get_all("Content-Length") == ["2"]


# -- responses without a body, RFC 9110 sections 9.3.2, 15.3.5, 15.3.6, 15.4.5 --


@pytest.mark.parametrize(
    ("method", "status", "headers", "body", "length"),
    [
        ("HEAD", 200, [], b"hello", "5"),
        ("HEAD", 200, [], b"", None),
        ("HEAD", 200, [(b"content-length", b"9")], b"", "9"),
        ("HEAD", 200, [(b"content-length", b"9")], b"hello", "9"),
        ("GET", 304, [], b"", None),
        ("GET", 304, [(b"content-length", b"9")], b"", "9"),
        ("GET", 204, [], b"", None),
        ("GET", 204, [(b"content-length", b"0")], b"", None),
        ("GET", 204, [], b"hello", None),
        ("GET", 205, [], b"", "0"),
        ("GET", 205, [], b"hello", "0"),
        ("GET", 205, [(b"content-length", b"5")], b"hello", "0"),
        ("HEAD", 205, [], b"", "0"),
        ("GET", 200, [], b"", "0"),
    ],
)
def test_some_responses_have_no_body(
    method: str, status: int, headers: list[Any], body: bytes, length: str | None
) -> None:
    """HEAD and 304 may say the length that would be; 204 has none, 205 has 0; no body is sent."""
    answer = whole(body, headers, method=method, status=status)
    assert (answer.body, answer.headers["Content-Length"]) == (b"", length)
    assert "Transfer-Encoding" not in answer.headers


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 205), ("GET", 304)]
)
def test_a_streamed_body_that_may_not_be_is_swallowed(method: str, status: int) -> None:
    """Pieces of a body vanish, and none of them counts against a Content-Length."""
    response = Response()
    head = start(response, request(method), status, [(b"content-length", b"1")])
    assert b"Transfer-Encoding" not in head
    assert [response.body(b"abc", more=True), response.body(b"", more=False)] == [b"", b""]
    assert not response.close


def test_an_old_client_of_a_bodiless_response_is_kept() -> None:
    """Where there is no body, no close must end it."""
    response = Response()
    assert b"keep-alive" in start(response, request("HEAD", "1.0"))
    assert not response.close


# -- what cannot be sent --


@pytest.mark.parametrize(
    "value",
    [
        *(b"a\r\nSet-Cookie: b", b"a\nb", b"a\rb", b"\r\n\r\n", b"a\n\rb"),
        *(b"a" + bytes([byte]) + b"b" for byte in (*range(9), *range(10, 32), 127)),
    ],
)
@pytest.mark.parametrize("name", [b"location", b"date", b"server", b"upgrade", b"set-cookie"])
def test_responses_are_not_split(name: bytes, value: bytes) -> None:
    """A value that is two lines to a client, if only to a lax one, is refused in every header."""
    for _ in range(2):
        with pytest.raises(ValueError, match="has a control byte") as caught:
            start(Response(), headers=[(b"x-fine", b"y"), (name, value)])
        assert repr(name) in str(caught.value)


def test_a_tab_and_what_is_not_ascii_are_text() -> None:
    """RFC 9110 section 5.5 counts them among the bytes of a value."""
    head = start(Response(), headers=[(b"x", b"a\tb\x80\xff~ !")])
    assert b"\r\nx: a\tb\x80\xff~ !\r\n" in head


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a\r\nb", b"a\n", b"\xe9", b"a\0", b"(a)"])
def test_names_are_tokens(name: bytes) -> None:
    """A name that is no token is refused (RFC 9110 section 5.6.2), at every attempt."""
    for _ in range(2):
        with pytest.raises(ValueError, match="not a token"):
            start(Response(), headers=[(name, b"x")])


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (("name", b"x"), "Header name 'name' expected to be `bytes`"),
        ((5, b"x"), "Header name 5 expected to be `bytes`"),
        (([], b"x"), "Header name [] expected to be `bytes`"),
        ((b"name", "x"), "Header value 'x' expected to be `bytes`"),
        ((b"name", None), "Header value None expected to be `bytes`"),
        ((b"connection", "close"), "Header value 'close' expected to be `bytes`"),
        ((b"connection", 5), "Header value 5 expected to be `bytes`"),
        ((b"date", "x"), "Header value 'x' expected to be `bytes`"),
        ((b"server", None), "Header value None expected to be `bytes`"),
        ((b"upgrade", 5), "Header value 5 expected to be `bytes`"),
        ((b"content-length", 5), "Header value 5 expected to be `bytes`"),
        ((b"content-length", "5"), "Header value '5' expected to be `bytes`"),
        ((b"name", [b"x"]), "Header value [b'x'] expected to be `bytes`"),
        ((b"name", bytearray(b"x")), "Header value bytearray(b'x') expected to be `bytes`"),
        (5, "header 5 is not a pair"),
        (None, "header None is not a pair"),
    ],
)
def test_the_wrong_header_is_named(header: Any, complaint: str) -> None:
    """Whatever an application passes for a header, the error is a ValueError that shows it."""
    with pytest.raises(ValueError, match=r"header|Header") as caught:
        start(Response(), headers=[(b"x-fine", b"y"), header])
    assert complaint in str(caught.value)


@pytest.mark.parametrize("header", [(b"a",), (b"a", b"b", b"c"), b"a"])
def test_a_header_is_a_pair(header: Any) -> None:
    """Too few or too many parts are a ValueError as well."""
    with pytest.raises(ValueError, match="unpack"):
        start(Response(), headers=[header])


def test_headers_that_cannot_be_read_again_are_refused_too() -> None:
    """The wrong one cannot be named then."""
    with pytest.raises(ValueError, match="cannot be encoded"):
        start(Response(), headers=iter([5]))  # type: ignore[arg-type]


def test_what_cannot_be_sent_changes_nothing() -> None:
    """The application's failure is answered on the same connection."""
    response = Response()
    with pytest.raises(ValueError, match="not a token"):
        start(response, headers=[(b"connection", b"close"), (b"a b", b"")])
    assert (response.begun, response.close) == (False, False)
    start(response, status=500, size=2)
    assert response.body(b"no", more=False) == b"no"
    assert not response.close


@pytest.mark.parametrize(
    ("status", "headers", "lines", "body"),
    [
        (304, [(b"content-length", b"9")], [], b""),
        (200, [(b"content-length", b"9")], [], b"short"),
        (200, [], [b"Transfer-Encoding"], b"x"),
    ],
)
def test_a_response_follows_another(
    status: int, headers: list[Any], lines: list[bytes], body: bytes
) -> None:
    """Of the last response nothing is left, whatever its framing."""
    response = Response()
    head = start(response, status=status, headers=headers)
    assert all(line in head for line in lines)
    response.body(body, more=False)
    start(response, size=1)
    assert response.body(b"x", more=False) == b"x"
    assert not response.close
    start(response)
    assert response.body(b"x", more=False) == b"1\r\nx\r\n0\r\n\r\n"


# -- a head that is said again --


def test_a_view_of_bytes_is_known_where_its_bytes_are() -> None:
    """It is found among lines that were sent before, also at a connection's end; or refused."""
    known = start(Response(), headers=[(b"x-seen", b"1")], size=0, close=True)
    view = memoryview(b"x-seen")
    assert start(Response(), headers=[(view, b"1"), (b"x", b"y")], size=0, close=True)
    assert start(Response(), headers=[(view, b"1")], size=0, close=True) == known
    with pytest.raises(ValueError, match=r"Header name <memory at .*> expected to be `bytes`"):
        start(Response(), headers=[(view, b"2")], size=0, close=True)


def test_what_is_said_again_is_sent_again() -> None:
    """With the date of its own second, and with the framing that it had."""
    response = Response()
    headers = [(b"X-Y", b"z")]
    first = start(response, headers=headers, size=2)
    assert response.body(b"hi", more=False) == b"hi"
    later = b"Date: Thu, 01 Jan 1970 00:00:01 GMT\r\n"
    identity = (later, SERVER, SERVER + later + b"\r\n")
    again = start(response, headers=[*headers], size=2, identity=identity)
    assert again == first.replace(DATE, later)
    assert (response.begun, response.close, response.left) == (True, False, 2)
    with pytest.raises(ValueError, match="more than its Content-Length"):
        response.body(b"hi!", more=False)


def test_what_ended_a_connection_is_known_on_the_next() -> None:
    """Where each request has its own connection, nothing else would ever be said again."""
    headers = [(b"X-Y", b"z")]
    first, second = Response(), Response()
    head = start(first, headers=headers, size=2, close=True)
    assert b"Connection: close\r\n" in head
    assert start(Response(), headers=headers, size=2, close=True) == head
    kept = start(second, headers=headers, size=2)
    assert b"Connection" not in kept
    assert not second.close
    again = start(second, headers=headers, size=2, close=True)
    assert (again, second.close, second.left) == (head, True, 2)


def test_a_cookie_is_known_on_no_other_connection() -> None:
    """It is one client's; and it is not what another is told."""
    headers = [(b"Set-Cookie", b"secret=1")]
    start(Response(), headers=headers, size=2, close=True)
    assert b"secret" not in repr(Response._latest).encode()


@pytest.mark.parametrize("close", [True, False])
def test_a_head_without_a_body_is_none_of_them(*, close: bool) -> None:
    """The answer to HEAD has the length of a body, and no body, on a connection that ends too."""
    for _ in range(2):
        start(Response(), headers=[(b"x", b"1")], size=2, close=close)
        response = Response()
        start(response, head=request("HEAD"), headers=[(b"x", b"1")], size=2, close=close)
        assert response.body(b"hi", more=False) == b""


def test_what_was_announced_is_announced_again() -> None:
    """Less than the application's Content-Length costs the connection this time too."""
    response = Response()
    for body in (b"hello", b"shor"):
        head = start(response, headers=[(b"content-length", b"5")])
        assert b"Content-Length: 5\r\n" in head
        response.body(body, more=False)
        assert response.close is (body == b"shor")


@pytest.mark.parametrize(
    "other",
    [
        {"status": 201},
        {"headers": [(b"x", b"2")]},
        {"headers": [(b"x", b"1"), (b"x", b"1")]},
        {"headers": ()},
        {"size": 3},
        {"size": None},
        {"close": True},
        {"head": request("HEAD")},
        {"head": request("GET", "1.0")},
        {"head": request(close=True)},
        {"status": 304},
        {"headers": [(b"x", b"1"), (b"date", b"then")]},
        {"headers": [(b"x", b"1"), (b"upgrade", b"h2c")]},
        {"headers": [(b"x", b"1"), (b"connection", b"close")]},
    ],
)
def test_what_is_not_the_same_is_encoded_anew(other: dict[str, Any]) -> None:
    """Whatever was said before, and each of them twice; then the first one is itself again."""
    usual: dict[str, Any] = {"status": 200, "headers": [(b"x", b"1")], "size": 2}
    response = Response()
    for said in (usual, other, other, usual, usual):
        fresh = Response()
        assert start(response, **(usual | said)) == start(fresh, **(usual | said))
        assert (response.close, response.left) == (fresh.close, fresh.left)
        assert response.body(b"hi", more=True) == fresh.body(b"hi", more=True)


def test_headers_that_can_change_are_encoded_each_time() -> None:
    """An application may keep its lists, and alter them."""
    response = Response()
    line = [b"x", b"1"]
    assert b"x: 1\r\n" in start(response, headers=[line], size=0)
    line[1] = b"2"
    assert b"x: 2\r\n" in start(response, headers=[line], size=0)


def test_what_cannot_be_sent_is_refused_behind_what_can() -> None:
    """And what was said before can be said again."""
    response = Response()
    first = start(response, headers=[(b"x", b"1")], size=0)
    with pytest.raises(ValueError, match="has a control byte"):
        start(response, headers=[(b"x", b"1\n")], size=0)
    assert start(response, headers=[(b"x", b"1")], size=0) == first


# -- the rest --


def test_continue_is_an_interim_response() -> None:
    """100 Continue is a head and nothing else."""
    assert CONTINUE == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_a_switch_carries_both_sides_headers() -> None:
    """101 has the server's lines, then the application's, Server and Date."""
    ours = [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade")]
    assert encode_switch(ours, [(b"x-y", b"z")], IDENTITY) == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"x-y: z\r\n" + SERVER + DATE + b"\r\n"
    )


def test_a_switch_has_no_framing_and_one_date() -> None:
    """A 101 has no body to frame; the application's own Date and Server stand alone."""
    headers = [(b"content-length", b"5"), (b"date", b"D"), (b"server", b"S")]
    assert encode_switch([], headers, IDENTITY) == (
        b"HTTP/1.1 101 Switching Protocols\r\nserver: S\r\ndate: D\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ((b"Upgrade", b"x"), "the server's to set"),
        ((b"connection", b"x"), "the server's to set"),
        ((b"Sec-WebSocket-Accept", b"x"), "the server's to set"),
        ((b"sec-websocket-protocol", b"x"), "the server's to set"),
        ((b"sec-websocket-extensions", b"x"), "the server's to set"),
        ((b"x", b"a\r\nb"), "has a control byte"),
        ((b"x y", b"a"), "not a token"),
        ((b"x", "a"), "expected to be `bytes`"),
        (("x", b"a"), "expected to be `bytes`"),
        (5, "not a pair"),
    ],
)
def test_a_switch_is_checked_too(header: Any, complaint: str) -> None:
    """What would break or fake the handshake is refused."""
    with pytest.raises(ValueError, match=complaint):
        encode_switch([(b"Upgrade", b"websocket")], [header], IDENTITY)


def test_error_pages_are_small_and_escaped() -> None:
    """The text of an error cannot become markup."""
    headers, page = error_page(404, "<script> & co")
    assert headers == [(b"content-type", b"text/html; charset=utf-8")]
    assert b"<title>404 Not Found</title>" in page
    assert b"<p>&lt;script&gt; &amp; co</p>" in page
    assert b"<title>299</title>" in error_page(299, "")[1]
    assert (status_phrase(404), status_phrase(299)) == ("Not Found", "")


# -- trailers --


def test_trailers_end_a_chunked_body() -> None:
    """In the last chunk's place (RFC 9112 section 7.1.2)."""
    response = Response()
    start(response)
    assert response.trailers([(b"X-Sum", b"1")]) == b"0\r\nx-sum: 1\r\n\r\n"
    assert response.trailers([]) == b"0\r\n\r\n"


def test_without_chunks_there_is_no_place_for_trailers() -> None:
    """A body that is shorter than was announced is still no whole one."""
    response = Response()
    start(response, headers=[(b"content-length", b"1")])
    assert response.trailers([(b"x-sum", b"1")]) == b""
    assert response.close


# -- a body that leaves by another way --


def test_around_a_piece_that_leaves_by_another_way() -> None:
    """Nothing when the length is known, a chunk's ends when it is not."""
    response = Response()
    start(response)
    assert response.around(300) == (b"12c\r\n", b"\r\n")
    assert response.body(b"", more=False) == b"0\r\n\r\n"
    start(response, headers=[(b"content-length", b"300")])
    assert response.around(299) == (b"", b"")
    with pytest.raises(ValueError, match="more than its Content-Length"):
        response.around(2)
    assert response.left == 1
    start(response, request(version="1.0"))
    assert response.around(300) == (b"", b"")
