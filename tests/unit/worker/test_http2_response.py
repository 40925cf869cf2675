"""The heads of responses, as a client unpacks them."""

from __future__ import annotations

from typing import Any

import pytest
from hpack import Decoder

from daphne_supervisor.worker.head import Head
from daphne_supervisor.worker.http2_response import ResponseHeads
from tests.support.wire import DATE, SERVER

IDENTITY = (DATE, SERVER, SERVER + DATE + b"\r\n")
OURS = [(b"server", b"test"), (b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")]


class Client:
    """Unpacks what is said to it."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.heads = ResponseHeads()
        self.decoder = Decoder()
        self.block = b""

    def ask(
        self,
        status: Any = 200,
        headers: Any = (),
        size: int = 0,
        *,
        method: str = "GET",
        more: bool = False,
        identity: Any = IDENTITY,
    ) -> tuple[list[Any], int | None, bool]:
        """Return the fields of a response, the size of its body, and whether there can be none."""
        head = Head(method, "2")
        head.ordinary = method != "HEAD"
        self.block, left, bodiless = self.heads.start(
            head, status, headers, size, identity, more=more
        )
        return [tuple(field) for field in self.decoder.decode(self.block, raw=True)], left, bodiless


def test_a_response_says_who_and_when() -> None:
    """Names are in lower case; the length is known."""
    fields, left, bodiless = Client().ask(201, [(b"X-Own", b" a\t")], 5)
    assert fields == [(b":status", b"201"), (b"x-own", b"a"), (b"content-length", b"5"), *OURS]
    assert (left, bodiless) == (5, False)


def test_an_application_may_say_it_itself() -> None:
    """Its own Date and Server stand for ours; without a Server name there is none."""
    own = [(b"Date", b"now"), (b"Server", b"me")]
    fields, _, _ = Client().ask(200, own)
    assert sorted(fields[1:]) == [(b"content-length", b"0"), (b"date", b"now"), (b"server", b"me")]
    fields, _, _ = Client().ask(identity=(DATE, b"", DATE + b"\r\n"))
    assert fields[2:] == OURS[1:]


def test_what_speaks_of_a_connection_is_dropped() -> None:
    """RFC 9113 section 8.2.2: it would make the response malformed."""
    names = [b"Connection", b"Keep-Alive", b"Transfer-Encoding", b"Upgrade", b"TE"]
    headers = [(name, b"x") for name in [*names, b"Proxy-Connection"]]
    assert Client().ask(200, headers)[0] == [(b":status", b"200"), (b"content-length", b"0"), *OURS]


@pytest.mark.parametrize(
    ("status", "method", "headers", "size", "length", "left", "bodiless"),
    [
        (204, "GET", [], 0, None, None, True),
        (204, "GET", [(b"content-length", b"5")], 0, None, None, True),
        (205, "GET", [], 0, b"0", None, True),
        (304, "GET", [(b"content-length", b"5")], 0, b"5", None, True),
        (304, "GET", [], 0, None, None, True),
        (200, "HEAD", [], 5, b"5", None, True),
        (200, "HEAD", [], 0, None, None, True),
        (200, "GET", [(b"content-length", b"5")], 3, b"5", 5, False),
        (200, "GET", [(b"content-length", b"5"), (b"Content-Length", b"5")], 5, b"5", 5, False),
    ],
)
def test_the_length_is_what_it_can_be(  # noqa: PLR0917 - a table
    status: int,
    method: str,
    headers: list[tuple[bytes, bytes]],
    size: int,
    length: bytes | None,
    left: int | None,
    bodiless: bool,  # noqa: FBT001
) -> None:
    """As for HTTP/1.1 (RFC 9110 section 8.6)."""
    fields, found, without = Client().ask(status, headers, size, method=method)
    assert dict(fields).get(b"content-length") == length
    assert (found, without) == (left, bodiless)


def test_a_body_that_is_still_to_be_seen_has_no_length() -> None:
    """Unless the application says it."""
    assert Client().ask(more=True, size=3)[1] is None
    assert Client().ask(200, [(b"content-length", b"9")], more=True, size=3)[1] == 9


BAD: list[Any] = [
    ("200", []),
    (99, []),
    (100, []),
    (200, [(b"a b", b"")]),
    (200, [(b"a", b"\r\n")]),
    (200, [(b"a", b"\0")]),
    (200, [(b"a", "text")]),
    (200, [("a", b"")]),
    (200, [b"a"]),
    (200, [None]),
    (200, [(b"connection", b"\n")]),
    (200, [(b"content-length", b"x")]),
    (200, [(b"content-length", b"3"), (b"content-length", b"4")]),
    (200, [(b"content-length", b"3")]),
]


@pytest.mark.parametrize(("status", "headers"), BAD)
def test_what_cannot_be_sent_changes_nothing(status: Any, headers: Any) -> None:
    """What is packed has to be sent, or the client's table is another one."""
    client = Client()
    client.ask(200, [(b"x", b"y")])
    with pytest.raises(ValueError):  # noqa: PT011 - the words are each rule's own
        client.ask(status, [(b"new", b"one"), *headers], 5)
    assert client.ask(200, [(b"x", b"y"), (b"new", b"one")])[0][1:3] == [
        (b"x", b"y"),
        (b"new", b"one"),
    ]


def test_what_is_said_again_is_packed_once() -> None:
    """And means the same; when something else has changed the table it is packed anew."""
    client = Client()
    headers = [(b"content-type", b"text/plain"), (b"x-own", b"value")]
    first, second, third = (client.ask(200, headers, 5) for _ in range(3))
    assert first == second == third
    client.ask(200, [(b"x-other", b"value")])
    assert client.ask(200, headers, 5) == first
    client.heads.writer.resize(0)
    client.decoder.header_table_size = 0
    assert client.ask(200, headers, 5) == first


def test_what_is_said_again_is_said_of_another_body() -> None:
    """Neither a HEAD nor a body that is too long is mistaken for it."""
    client = Client()
    headers = [(b"content-length", b"5")]
    for _ in range(2):
        client.ask(200, headers, 5, more=True)
    with pytest.raises(ValueError, match="more than its Content-Length"):
        client.ask(200, headers, 6, more=True)
    assert client.ask(200, headers, 0, method="HEAD")[2]


def test_what_can_change_is_packed_each_time() -> None:
    """A list in a list of headers may be another one tomorrow."""
    client = Client()
    line = [b"x", b"1"]
    for _ in range(2):
        client.ask(200, [line])
    line[1] = b"2"
    assert client.ask(200, [line])[0][1] == (b"x", b"2")


def test_the_date_moves_on() -> None:
    """It is no part of what is kept."""
    client = Client()
    headers = [(b"x", b"y")]
    for _ in range(2):
        client.ask(200, headers)
    later = (b"Date: later\r\n", SERVER, b"")
    assert client.ask(200, headers, identity=later)[0][-1] == (b"date", b"later")


def test_an_interim_response() -> None:
    """Neither date nor length."""
    client = Client()
    block = client.heads.inform(103, [(b"Link", b"</a>")])
    assert client.decoder.decode(block) == [(":status", "103"), ("link", "</a>")]
