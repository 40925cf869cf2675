"""What a client makes of the bytes a server sent: h11's reader, and rules that it does not check.

h11 shares no code with the server, and refuses what a lenient client would let pass.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import h11

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Answer", "read"]

#: RFC 9110 section 5.6.7: the one form of a date that may be sent.
_DATE = re.compile(
    rb"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
    rb" \d{4} \d\d:\d\d:\d\d GMT"
)
_STATUS_LINE = re.compile(rb"HTTP/1\.1 [1-9]\d\d [\t -~]*")
_HEADER_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")
_SWITCHING = 101
_FIRST_FINAL = 200
_NO_CONTENT = 204


@dataclass(frozen=True)
class Answer:
    """A response; `headers` have lower-case names, in the order sent."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of the header lines called `name` (lower case)."""
        return [value for key, value in self.headers if key == name]

    @property
    def options(self) -> set[bytes]:
        """Return the options of Connection, in lower case."""
        listed = b",".join(self.values(b"connection")).lower().split(b",")
        return {option.strip() for option in listed} - {b""}


def read(sent: bytes, requests: Iterable[tuple[str, bool]], *, ended: bool) -> list[Answer]:
    """Read every response in `sent`, interim ones too, and leave nothing over.

    `requests` are method and whether it asked for an upgrade, one for each final response; behind
    them plain GETs are assumed. `ended` says that the server has ended the connection, which ends
    the last body if nothing else does. Raises `h11.RemoteProtocolError` or `AssertionError`.
    """
    _check_lines(sent)
    asked = iter(requests)
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 24)
    client.receive_data(sent)
    if ended:
        client.receive_data(b"")
    answers: list[Answer] = []
    left = sent
    while left:
        _ask(client, *next(asked, ("GET", False)))
        _read_one(client, answers)
        left, _ = client.trailing_data
        if client.their_state is not h11.DONE or not left:
            break
        client.start_next_cycle()
    assert not left or answers[-1].status == _SWITCHING, f"more than was asked for: {left!r}"
    for answer in answers:
        _check(answer)
    return answers


def _ask(client: h11.Connection, method: str, upgrade: bool) -> None:  # noqa: FBT001
    headers = [("Host", "a")]
    if upgrade:
        headers += [("Connection", "Upgrade"), ("Upgrade", "websocket")]
    client.send(h11.Request(method=method, target="/", headers=headers))
    client.send(h11.EndOfMessage())


def _read_one(client: h11.Connection, answers: list[Answer]) -> None:
    """Read on to the end of a final response."""
    head: h11.Response | h11.InformationalResponse | None = None
    body = b""
    while True:
        event = client.next_event()
        if isinstance(event, h11.InformationalResponse):
            answers.append(Answer(event.status_code, tuple(event.headers), b""))
            if event.status_code == _SWITCHING:
                return
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            answers.append(Answer(head.status_code, tuple(head.headers), body))
            return
        else:
            assert isinstance(event, h11.Data), f"{head} breaks off behind {body!r}: {event}"
            body += bytes(event.data)


def _check_lines(sent: bytes) -> None:
    """Check the first head octet by octet, before anything lenient has read it."""
    head, found, _ = sent.partition(b"\r\n\r\n")
    assert found or not sent, f"no end of a head: {sent!r}"
    first, *lines = head.split(b"\r\n")
    assert not sent or _STATUS_LINE.fullmatch(first), first
    for line in lines:
        assert _HEADER_LINE.fullmatch(line), line


def _check(answer: Answer) -> None:
    """Check what RFC 9110 asks of a response and a client cannot check."""
    assert len(answer.values(b"date")) <= 1
    assert len(answer.values(b"connection")) <= 1
    if answer.status >= _FIRST_FINAL:
        # RFC 9110 section 6.6.1: an origin server with a clock sends the date.
        [date] = answer.values(b"date")
        assert _DATE.fullmatch(date), date
    framing = [*answer.values(b"content-length"), *answer.values(b"transfer-encoding")]
    assert len(framing) <= 1, f"framed twice: {framing}"
    if answer.status < _FIRST_FINAL or answer.status == _NO_CONTENT:
        assert framing == [], f"{answer.status} with {framing}"
    # RFC 9110 section 7.8: whoever sends Upgrade names it in Connection.
    assert not answer.values(b"upgrade") or b"upgrade" in answer.options, "Upgrade alone"
