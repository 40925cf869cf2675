"""Another reading of an HTTP/1.1 stream, by h11, as a proxy or another server may have it.

Where the two differ on what a request is or where it ends, somebody can smuggle one past the other
(RFC 9112 section 11.2). h11 admits some of what the server refuses, and the other way round; what
both admit has to be the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import h11

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["agree"]

#: What the server does not pass on, or not as it was sent.
_OWN = {b"host", b"daphne-root-path"}
#: What h11 does not pass on as it was sent, but in lower case.
_LOWERED = b"transfer-encoding"


@dataclass
class Reading:
    """A request as h11 reads it."""

    request: h11.Request
    body: bytes = b""
    ended: bool = False
    refused: bool = False


def readings(wire: bytes) -> list[Reading]:
    """Return the requests that h11 finds in `wire`, up to the first that it refuses."""
    connection = h11.Connection(h11.SERVER)
    found: list[Reading] = []
    if wire:
        connection.receive_data(wire)
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            if found:
                found[-1].refused = True
            return found
        if isinstance(event, h11.Request):
            if event.method == b"CONNECT":  # refused by the server, a tunnel to h11
                return found
            found.append(Reading(event))
        elif isinstance(event, h11.Data):
            found[-1].body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            found[-1].ended = True
            if not _next(connection):
                return found
        else:
            return found


def _next(connection: h11.Connection) -> bool:
    """Answer, and say whether another request may follow."""
    answer = h11.Response(status_code=200, headers=[(b"Content-Length", b"0")])
    connection.send(answer)
    connection.send(h11.EndOfMessage())
    if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
        return False
    connection.start_next_cycle()
    return True


def compared(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return those of `headers` that both readers pass on."""
    return [
        (bytes(name), value.lower() if name == _LOWERED else bytes(value))
        for name, value in headers
        if name not in _OWN and b"_" not in name
    ]


def agree(wire: bytes, requests: list[tuple[tuple[object, ...], bytes, bool, bool]]) -> None:
    """Check `requests`: what the head means, the body, whether it has ended, or was refused."""
    for (meaning, body, ended, refused), reading in zip(requests, readings(wire), strict=False):
        theirs = reading.request
        method, _, raw_path, query, headers = meaning
        assert theirs.method.decode() == method
        if theirs.target.startswith(b"/"):
            assert theirs.target.partition(b"?")[::2] == (raw_path, query)
        assert isinstance(headers, tuple)
        assert compared(headers) == compared(theirs.headers)
        if not refused and not reading.refused:
            assert (body, ended) == (reading.body, reading.ended)
        assert body.startswith(reading.body) or reading.body.startswith(body)
        assert body == reading.body or not (ended and reading.ended)
