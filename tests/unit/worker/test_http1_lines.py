"""The lines of HTTP/1.1: what is one, and what is said about one that is not."""

from __future__ import annotations

import random
import time

import pytest

from daphne_supervisor.worker import http1_lines
from daphne_supervisor.worker.head import Refused
from daphne_supervisor.worker.http1_lines import (
    check_start,
    chunk_line,
    header_lines,
    request_line,
    stray,
)

TOKEN = b"!#$%&'*+-.^_`|~09azAZ"


# -- CR and LF that stand alone --


@pytest.mark.parametrize(
    ("data", "alone"),
    [
        (b"", False),
        (b"abc", False),
        (b"\r\n", False),
        (b"a\r\nb\r\n\r\n", False),
        (b"a\r", False),  # the LF may come yet
        (b"\n", True),
        (b"a\nb", True),
        (b"\r\n\n", True),
        (b"\rb", True),
        (b"\r\r\n", True),
        (b"a\r\nb\rc\r\n", True),
    ],
)
def test_a_stray_is_found(data: bytes, *, alone: bool) -> None:
    """A CR without LF or a LF without CR; one at the end may be half of a pair."""
    reason = stray("thing", data, 0, len(data))
    assert (reason is not None) is alone
    if reason is not None:
        assert reason.status == 400
        assert reason.rule == "malformed thing: CR or LF alone (RFC 9112 section 2.2)"


def test_a_stray_is_looked_for_in_a_part() -> None:
    """What is before and behind it is not blamed, but seen: a pair may be cut."""
    data = b"\n\r\nabc\r\n\r"
    assert stray("thing", data, 0, len(data)) is not None
    assert stray("thing", data, 1, len(data)) is None
    assert stray("thing", data, 2, 8) is None  # from the LF of a pair to the LF of another
    assert stray("thing", data, 2, 7) is None
    assert stray("thing", b"ab\r", 0, 2) is None
    assert stray("thing", b"ab\rc", 0, 3) is None
    assert stray("thing", b"ab\rc", 0, 4) is not None


# -- the request line --


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"GET / HTTP/1.1", ("GET", b"/", "1.1")),
        (b"OPTIONS * HTTP/1.0", ("OPTIONS", b"*", "1.0")),
        (b"M-SEARCH http://a/?b#~ HTTP/1.1", ("M-SEARCH", b"http://a/?b#~", "1.1")),
        (b"CONNECT a:1 HTTP/1.1", ("CONNECT", b"a:1", "1.1")),
    ],
)
def test_a_request_line_is_cut(line: bytes, expected: tuple[str, bytes, str]) -> None:
    """Method and version as text, the target as it was sent."""
    assert request_line(line) == expected


@pytest.mark.parametrize(
    ("line", "status", "rule"),
    [
        (b"GET  / HTTP/1.1", 400, "malformed request line (RFC 9112 section 3)"),
        (b"GET / HTTP/1.1 ", 400, "malformed request line"),
        (b"GET\t/ HTTP/1.1", 400, "malformed request line"),
        (b"GET /", 400, "malformed request line"),
        (b"GET / HTTP/1", 400, "malformed request line"),
        (b"GET / HTTP/1.10", 400, "malformed request line"),
        (b"GET / HTTP/11.1", 400, "malformed request line"),
        (b"GET / http/1.1", 400, "malformed request line"),
        (b"GET / RTSP/1.0", 400, "malformed request line"),
        (b"GET /\x80 HTTP/1.1", 400, "malformed request line"),
        (b"GET /\0 HTTP/1.1", 400, "malformed request line"),
        (b"GET /\x7f HTTP/1.1", 400, "malformed request line"),
        (b"G(T / HTTP/1.1", 400, "malformed request line"),
        (b" GET / HTTP/1.1", 400, "no method"),
        (b"GET /\n HTTP/1.1", 400, "CR or LF alone"),
        (b"GET / HTTP/1.1\n", 400, "CR or LF alone"),
        (b"GET / HTTP/1.1\r", 400, "CR or LF alone"),
        (b"\x16\x03\x01", 400, "TLS"),
        (b"GET / HTTP/1.2", 505, "HTTP version 1.2"),
        (b"PRI * HTTP/2.0", 505, "HTTP version 2.0"),
        (b"GET / HTTP/0.9", 505, "HTTP version 0.9"),
        (b"get / HTTP/1.1", 501, "unknown method"),
        (b"BREW / HTTP/1.1", 501, "unknown method"),
    ],
)
def test_what_is_no_request_line(line: bytes, status: int, rule: str) -> None:
    """The status for the client, the rule for the log."""
    with pytest.raises(Refused) as caught:
        request_line(line)
    assert caught.value.status == status
    assert rule in caught.value.rule


@pytest.mark.parametrize("start", [b"G", b"GET", b"GET / HT", b"GET / HTTP/1.1\r", b"((", b"G(T"])
def test_what_may_be_a_request_line_yet(start: bytes) -> None:
    """Only what is certain already is refused before the end of the line."""
    reason = check_start(start)
    assert (reason is not None) is (start == b"((")


@pytest.mark.parametrize("start", [b"\x16", b"\0", b" ", b"\t", b"\x80", b"\n", b"\rG", b"GET\n"])
def test_what_cannot_be_a_request_line_any_more(start: bytes) -> None:
    """Nobody waits for the end of what is something else."""
    reason = check_start(start)
    assert reason is not None
    assert reason.status == 400
    assert ("TLS" in reason.rule) is (start == b"\x16")


# -- header lines --


def headers(block: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers of `block`."""
    return header_lines("part", block.split(b"\r\n"))


@pytest.mark.parametrize(
    ("line", "header"),
    [
        (b"Host: a", (b"host", b"a")),
        (b"X-Y:z", (b"x-y", b"z")),
        (b"X:", (b"x", b"")),
        (b"X: \t ", (b"x", b"")),
        (b"X:\t a\tb c \t", (b"x", b"a\tb c")),
        (b"X: a:b: c", (b"x", b"a:b: c")),
        (b"X: \x80\xff", (b"x", b"\x80\xff")),
        (TOKEN + b": " + TOKEN, (TOKEN.lower(), TOKEN)),
    ],
)
def test_a_header_line_is_cut(line: bytes, header: tuple[bytes, bytes]) -> None:
    """The name in lower case, the value without the blanks around it."""
    for _ in range(2):  # seen for the first time, and again
        assert headers(line) == [header]


def test_header_lines_come_in_order() -> None:
    """Each line is a header, the same name twice too."""
    assert headers(b"B: 1\r\nA: 2\r\nb: 3") == [
        (b"b", b"1"),
        (b"a", b"2"),
        (b"b", b"3"),
    ]


@pytest.mark.parametrize(
    ("block", "rule"),
    [
        (b"", "no colon"),
        (b"X", "no colon"),
        (b"A: b\r\nX", "no colon"),
        (b" X: y", "folded"),
        (b"A: b\r\n\ty", "folded"),
        (b"X : y", "blank before the colon"),
        (b"X\t: y", "blank before the colon"),
        (b": y", "no token"),
        (b"X(: y", "no token"),
        (b"X\xe9: y", "no token"),
        (b"X y: z", "no token"),
        (b"X: a\0b", "control byte in X "),
        (b"X: a\x1fb", "control byte"),
        (b"X: a\x0bb", "control byte"),
        (b"X: a\x7f", "control byte"),
        (b"Y" * 100 + b": \0", "control byte in " + "Y" * 64 + " "),
        (b"X: a\nY: b", "malformed part: CR or LF alone"),
        (b"X: a\rY: b", "malformed part: CR or LF alone"),
        (b"X: a\r", "malformed part: CR or LF alone"),
        (b"X: a\0\r\nY: b\n", "malformed part: CR or LF alone"),  # as if it came in pieces
    ],
)
def test_what_is_no_header_line(block: bytes, rule: str) -> None:
    """Each of its mistakes has its rule, and the value is not told to the log."""
    with pytest.raises(Refused) as caught:
        headers(block)
    assert caught.value.status == 400
    assert rule in caught.value.rule


@pytest.mark.parametrize("name", [b"Authorization", b"Cookie", b"PROXY-AUTHORIZATION"])
def test_secrets_are_not_kept(name: bytes) -> None:
    """Nor what is long: what a client says once is not held for all of the worker's life."""
    secret = name + b": s3cr3t-%d" % random.getrandbits(64)
    long = b"X: " + b"%064d" % random.getrandbits(64) * 5
    plain = b"X-Plain: %d" % random.getrandbits(64)
    headers(b"\r\n".join((secret, long, plain)))
    kept = http1_lines._known
    assert plain in kept
    assert secret not in kept
    assert long not in kept


def test_lines_that_never_come_again_do_not_fill_the_memory() -> None:
    """They begin anew when there are too many."""
    for number in range(5000):
        line = b"X-Once: %d" % number
        assert headers(line) == [(b"x-once", b"%d" % number)]
        assert len(http1_lines._known) <= 1024


# -- the line before a chunk --


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"0", (0, 0)),
        (b"00", (0, 0)),
        (b"aF", (0xAF, 0)),
        (b"f" * 16, (2**64 - 1, 0)),
        (b"5;a", (5, 2)),
        (b"5;a=b;c", (5, 6)),
        (b'5;a="b;c\\"\\\\\t\x80"', (5, 14)),
        (b'5;a=""', (5, 5)),
    ],
)
def test_a_chunk_line_is_cut(line: bytes, expected: tuple[int, int]) -> None:
    """The size of the chunk, and of what else the line has."""
    assert chunk_line(line, 0, len(line)) == expected
    assert chunk_line(b"ff" + line + b"ff", 2, len(line) + 2) == expected


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"x",
        b"-1",
        b"+1",
        b"0x1",
        b"1_0",
        b" 1",
        b"1 ",
        b"1\t",
        b"1 ;a",
        b"1; a",
        b"1;",
        b"1;;a",
        b"1;a=",
        b"1;=b",
        b'1;a="',
        b'1;a="b',
        b'1;a="b"c',
        b'1;a="\\',
        b'1;a="\0"',
        b"1;a\x01",
        b"1,2",
        b"f" * 17,
        "1\N{ARABIC-INDIC DIGIT ONE}".encode(),
    ],
)
def test_what_is_no_chunk_line(line: bytes) -> None:
    """Nothing that two servers might read differently (RFC 9112 section 7.1)."""
    with pytest.raises(Refused, match=r"malformed chunk: its size or extension") as caught:
        chunk_line(line, 0, len(line))
    assert caught.value.status == 400


@pytest.mark.parametrize("line", [b"1\n", b"1;a\nb", b'1;a="\n"', b"1\r", b"1;a\rb"])
def test_a_chunk_line_ends_where_it_ends(line: bytes) -> None:
    """A CR or LF alone is told as such, an extension is no place for it either."""
    with pytest.raises(Refused, match="CR or LF alone"):
        chunk_line(line + b"\r\n", 0, len(line))


# -- time --

LONG = 60_000


@pytest.mark.parametrize(
    ("read", "line"),
    [
        (request_line, b"G" * LONG + b"\0"),
        (request_line, b"GET " + b"/" * LONG + b"\0"),
        (headers, b"X:" + b" " * LONG + b"\0"),
        (headers, b"X:" + b" \t" * (LONG // 2) + b"x\0"),
        (headers, b"X" * LONG),
        (headers, b"X" * LONG + b" :"),
        (headers, b"\r\n" * LONG),
        (lambda line: chunk_line(line, 0, len(line)), b"1" + b";a" * (LONG // 2) + b"\0"),
        (lambda line: chunk_line(line, 0, len(line)), b"1;" + b"a" * LONG + b"\0"),
        (lambda line: chunk_line(line, 0, len(line)), b'1;a="' + b"\\a" * (LONG // 2)),
        (lambda line: chunk_line(line, 0, len(line)), b"1" + b';a="b"' * (LONG // 6) + b'"'),
    ],
    ids=lambda value: repr(value[:12])[2:-1] if isinstance(value, bytes) else "",
)
def test_a_line_takes_no_longer_for_being_wrong(read: object, line: bytes) -> None:
    """No expression goes over a line again and again: one of 60 kB is read in milliseconds.

    One that does takes half a minute; the bound is far from both.
    """
    assert callable(read)
    start = time.process_time()
    with pytest.raises(Refused):
        read(line)
    assert time.process_time() - start < 2
