"""Responses: what a client reads is what the application has sent, or nothing was sent at all.

An application may pass any status and any headers, taken from a user perhaps. Either they are
refused with `ValueError`, with no byte sent, or a client finds those very lines in the head, the
server's own beside them, and the next response where the framing says. h11 is that client; a
grammar written down here from RFC 9110 section 5 is a second one, which knows nothing but lines.

The wire of an input is names and values by turns, parted by `PART`.
"""

from __future__ import annotations

import http
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h11

from daphne_supervisor.config import WebSocket as Limits
from daphne_supervisor.worker.http1 import Phase
from daphne_supervisor.worker.websocket import WebSocket
from tests.fuzz.choices import Choices, split
from tests.support.transports import Listener, Port, handshake
from tests.support.wire import Rig

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DICTIONARY", "PART", "check"]

PART = b"\0|"

DICTIONARY = [
    PART,
    b"content-length" + PART + b"5" + PART,
    b"Content-Length" + PART + b"0" + PART,
    b"transfer-encoding" + PART + b"chunked" + PART,
    b"connection" + PART + b"close" + PART,
    b"connection" + PART + b"Upgrade" + PART,
    b"upgrade" + PART + b"h2c" + PART,
    b"Date" + PART + b"never" + PART,
    b"server" + PART + b"me" + PART,
    b"set-cookie" + PART + b"a=b; path=/" + PART,
    b"sec-websocket-protocol" + PART,
    b"x" + PART + b"y\r\nset-cookie: z" + PART,
    b"x: y\r\nz",
    b"keep-alive",
    b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    b"\r\n",
    b"\r\n ",
    b"\n",
    b"\r",
    b"\0",
    b"\x0b",
    b"\x7f",
    b"\x85",
    b"\xff",
    b" ",
    b"\t",
    b":",
    b"+5",
    b"5, 5",
    b"\xb2",
]

#: Requests of every kind that frames its response in a way of its own.
REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
)
STATUSES: tuple[Any, ...] = (
    200,
    204,
    304,
    205,
    404,
    999,
    http.HTTPStatus.CREATED,
    100,
    101,
    1000,
    -200,
    10**30,
    True,
    200.0,
    "200",
    b"200 OK\r\nX: y",
    None,
)
#: RFC 9110 sections 5.5 and 5.6.2.
LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
FRAMING = (b"connection", b"content-length", b"transfer-encoding")
#: Lines that are the server's to write, or are written once.
OWN = frozenset({*FRAMING, b"date", b"keep-alive", b"server"})
SWITCHING = frozenset({b"connection", b"upgrade", b"sec-websocket-accept"})


def check(data: bytes) -> None:
    """Fail if an input breaks what this module promises."""
    wire, choices = split(data)
    headers = headers_of(wire, choices)
    if choices.number(8) == 7:
        check_handshake(headers)
    else:
        Answered(choices).by(headers)


def headers_of(wire: bytes, choices: Choices) -> list[Any]:
    """Return the application's headers: pairs of bytes, and now and then something else."""
    parts = wire.split(PART)
    odd = choices.number(len(ODDITIES) + 8) - 8
    where = choices.number(8)
    pairs: list[Any] = list(zip(parts[::2], parts[1::2], strict=False))
    if odd >= 0 and where < len(pairs):
        pairs[where] = ODDITIES[odd](*pairs[where])
    return pairs


#: What an application may pass instead of a pair of bytes.
ODDITIES = (
    lambda name, value: [name, value],
    lambda name, value: (name.decode("latin-1"), value),
    lambda name, value: (name, value.decode("latin-1")),
    lambda name, value: (bytearray(name), value),
    lambda name, value: (name, bytearray(value)),
    lambda name, value: (memoryview(name), memoryview(value)),
    lambda name, value: (name, value, value),
    lambda name, _: (name, None),
    lambda _, value: (None, value),
    lambda name, _: (name, 5),
    lambda name, _: name,
    lambda _name, _value: None,
)


@dataclass
class Read:
    """A response as a client reads it."""

    status: int
    lines: list[tuple[bytes, bytes]]
    body: bytes
    whole: bool


class Answered:
    """A request that an application answers as the choices say."""

    def __init__(self, choices: Choices) -> None:
        """Choose the request, the status and the pieces of the body."""
        self.request = REQUESTS[choices.number(len(REQUESTS))]
        self.status = STATUSES[choices.number(len(STATUSES))]
        self.body = [b"x" * choices.number() for _ in range(1 + choices.number(4))]
        self.ends_apart = choices.number(2) == 1
        self.rig = Rig()
        self.rig.feed(self.request)
        self.broken_off = False

    def by(self, headers: list[Any]) -> None:
        """Answer with `headers`, then another request, and check what a client makes of it."""
        first, *more = [*self.body, b""] if self.ends_apart else self.body
        try:
            self.rig.respond(self.status, first, headers, more=bool(more))
        except ValueError:
            assert self.rig.sent == b"", "refused, and yet sent"
            self.status, headers, self.body, more = 500, [], [b"sorry"], []
            self.rig.respond(500, b"sorry")
        self.send(more)
        again = self.rig.codec.phase in {Phase.IDLE, Phase.HEAD}
        if again:
            self.rig.feed(REQUESTS[0])
            self.rig.respond(299, b"next", [(b"x-next", b"1")])
        found = client(self.rig.sent, self.request, again=again)
        self.compare(found[0], headers)
        if again:
            assert found[0].whole
            assert (found[1].status, found[1].body) == (299, b"next")
            assert (b"x-next", b"1") in found[1].lines

    def send(self, pieces: list[bytes]) -> None:
        """Send the rest of the body, and break off when it is more than was announced."""
        for index, piece in enumerate(pieces, start=1):
            try:
                self.rig.send(piece, more=index < len(pieces))
            except ValueError:
                self.broken_off = True
                self.rig.codec.give_up(self.rig.current.stream)
                return

    def compare(self, found: Read, headers: Sequence[Any]) -> None:
        """Compare what a client has read with what was sent."""
        assert found.status == self.status
        compare_lines(found.lines, headers, OWN)
        names = [name for name, _ in found.lines]
        assert all(names.count(name) <= 1 for name in FRAMING)
        assert not {b"content-length", b"transfer-encoding"} <= set(names)
        if self.status == 204:  # RFC 9110 section 8.6
            assert not {b"content-length", b"transfer-encoding"} & set(names)
        bodiless = self.request.startswith(b"HEAD") or self.status in {204, 205, 304}
        sent = b"" if bodiless else b"".join(self.body)
        if self.broken_off or not found.whole:
            assert sent.startswith(found.body)
            assert self.rig.port.ends
        else:
            assert found.body == sent


def compare_lines(
    found: list[tuple[bytes, bytes]], headers: Sequence[Any], own: frozenset[bytes]
) -> None:
    """Check that `found` are the application's `headers`, in order, and the server's `own`."""
    theirs = [
        (bytes(name).lower(), bytes(value).strip(b" \t"))
        for name, value in headers
        if bytes(name).lower() not in own
    ]
    assert [line for line in found if line[0] not in own] == theirs
    names = [name for name, _ in found]
    assert names.count(b"date") == names.count(b"server") == 1


def lines_of(head: bytes) -> list[tuple[bytes, bytes]]:
    """Return the header lines of a head, each of which has to be one by RFC 9110 section 5."""
    found = []
    for line in head.split(b"\r\n")[1:]:
        match = LINE.fullmatch(line)
        assert match, f"{line!r} is no header line"
        found.append((match[1].lower(), match[2]))
    return found


def client(sent: bytes, request: bytes, *, again: bool) -> list[Read]:
    """Return the responses as h11 reads them, whose heads this module reads like it."""
    connection = h11.Connection(h11.CLIENT)
    connection.receive_data(sent)
    if not again:
        connection.receive_data(b"")
    found = [one(connection, request)]
    rest = connection.trailing_data[0]
    assert lines_of(sent.partition(b"\r\n\r\n")[0]) == found[0].lines
    if again:
        connection.start_next_cycle()
        found.append(one(connection, REQUESTS[0]))
        assert connection.trailing_data[0] == b""
    else:
        assert rest == b""
    return found


def one(connection: h11.Connection, request: bytes) -> Read:
    """Ask for `request`, and read the answer."""
    method = request.split(b" ")[0]
    connection.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"a")]))
    connection.send(h11.EndOfMessage())
    head = connection.next_event()
    assert isinstance(head, h11.Response)
    read = Read(head.status_code, [(bytes(n), bytes(v)) for n, v in head.headers], b"", whole=True)
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:  # the end of the connection, in the middle
            read.whole = False
            return read
        if not isinstance(event, h11.Data):
            assert isinstance(event, h11.EndOfMessage)
            return read
        read.body += bytes(event.data)


def check_handshake(headers: list[Any]) -> None:
    """Answer a WebSocket handshake with `headers`, and check what a client makes of it."""
    port = Port()
    port.worker.identity = Rig().port.worker.identity
    websocket = WebSocket(port, handshake(), b"", Limits())
    websocket.attach(Listener())
    try:
        websocket.accept(None, headers)
    except ValueError:
        assert port.sent == b"", "refused, and yet sent"
        return
    head, end, rest = port.sent.partition(b"\r\n\r\n")
    assert (end, rest) == (b"\r\n\r\n", b"")
    assert head.startswith(b"HTTP/1.1 101 ")
    lines = lines_of(head)
    compare_lines(lines, headers, OWN | SWITCHING)
    names = [name for name, _ in lines]
    assert all(names.count(name) == 1 for name in SWITCHING)
    assert not {b"content-length", b"transfer-encoding"} & set(names)
