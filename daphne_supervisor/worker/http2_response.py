"""The head of a response as fields: checked as for HTTP/1.1, named in lower case, packed. Pure.

An application that says the same again has its head packed once, as long as that can be sent again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daphne_supervisor.worker.http2_fields import FieldWriter, literal
from daphne_supervisor.worker.response import BODILESS, status_line
from daphne_supervisor.worker.response_fields import (
    blame,
    field,
    learn,
    length_of,
    names,
    same_length,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daphne_supervisor.worker.head import Head
    from daphne_supervisor.worker.response import Identity

__all__ = ["ResponseHeads"]

#: What else speaks of a connection (RFC 9113 section 8.2.2).
_HOP = frozenset({b"proxy-connection", b"te"})
_NO_CONTENT, _RESET_CONTENT = 204, 205


def _fields(headers: Iterable[Any]) -> tuple[list[tuple[bytes, bytes]], dict[bytes, Any]]:
    """Return the application's fields, and apart from them those that steer."""
    fields = []
    steering: dict[bytes, Any] = {}
    try:
        for name, value in headers:
            steers = names[name] if name in names else learn(name)
            if steers is None:
                checked = field(name, value)
                if checked[0] not in _HOP:
                    fields.append(checked)
            elif steers == b"content-length":
                before = steering.get(steers)
                length = length_of(value) if before is None else same_length(value, before)
                steering[steers] = length
            elif steers in {b"date", b"server"}:
                steering[steers] = field(name, value)
            else:  # of a connection: RFC 9113 section 8.2.2 has no place for it
                field(name, value)
    except (AttributeError, TypeError):
        raise blame(headers) from None
    return fields, steering


def _check_length(size: int, left: int | None) -> None:
    if left is not None and size > left:
        message = "the application sends more than its Content-Length"
        raise ValueError(message)


class ResponseHeads:
    """Packs the heads of the responses of one connection."""

    __slots__ = ("_date", "_identity", "_known", "_said", "_server", "_version", "writer")

    def __init__(self) -> None:
        """Be ready for a first response."""
        self.writer = FieldWriter()
        self._said: tuple[Any, Any, Any, bool] | None = None  # status, headers, size, with a body,
        self._known: tuple[bytes, int | None, bool] = (b"", 0, False)  # and what became of it
        self._version = 0  # of the writer then
        self._identity: Identity | None = None
        self._date = self._server = b""

    def start(
        self,
        request: Head,
        status: Any,
        headers: Sequence[Any],
        size: int,
        identity: Identity,
        *,
        more: bool,
    ) -> tuple[bytes, int | None, bool]:
        """Return the field block; how many bytes the body has; whether there can be none.

        `status` and `headers` are the application's, and may be anything. `size` is that of the
        first piece of the body in bytes, which is the only one unless there is `more`. Raises
        `ValueError`, with nothing changed, when it cannot be sent so.
        """
        if identity is not self._identity:
            self._identify(identity)
        writer = self.writer
        said = (status, headers, None if more else size, request.ordinary)
        if self._said == said and self._version == writer.version:
            block, left, bodiless = self._known
            _check_length(size, left)
            return block + self._server + self._date, left, bodiless
        return self._encode(request, said, size)

    def _identify(self, identity: Identity) -> None:
        """Pack `Date` and `Server` of this second."""
        self._identity = identity
        date, server, _ = identity
        self._date = literal(b"date", date[6:-2])
        self._server = literal(b"server", server[8:-2]) if server else b""

    def _encode(
        self, request: Head, said: tuple[Any, Any, Any, bool], first: int
    ) -> tuple[bytes, int | None, bool]:
        status, headers, size, _ = said
        if not isinstance(status, int):
            message = f"status {status!r} is not a number"
            raise ValueError(message)  # noqa: TRY004 - as `Response` has it
        status_line(status)
        fields, steering = _fields(headers)
        bodiless = status in BODILESS or request.method == "HEAD"
        length = steering.get(b"content-length")
        if status == _RESET_CONTENT:
            length = 0
        elif length is None and (size or not bodiless):
            length = size
        left = None if bodiless else length
        _check_length(first, left)  # before it is packed: what is packed has to be sent
        lines = [(b":status", b"%d" % status), *fields]
        if length is not None and status != _NO_CONTENT:
            lines.append((b"content-length", b"%d" % length))
        own = [steering[name] for name in (b"server", b"date") if name in steering]
        version = self.writer.version
        block = self.writer.write([*lines, *own])
        # Only what nobody can change afterwards is known when it is said again, and only what has
        # left the table as it was can be sent again: the second time, mostly.
        if version == self.writer.version and not own and all(type(x) is tuple for x in headers):
            self._said, self._known = said, (block, left, bodiless)
            self._version = version
        if b"server" not in steering:
            block += self._server
        if b"date" not in steering:
            block += self._date
        return block, left, bodiless

    def inform(self, status: int, headers: Sequence[Any]) -> bytes:
        """Return the block of an interim response (RFC 9110 section 15.2). Raises `ValueError`."""
        fields, _ = _fields(headers)
        return self.writer.write([(b":status", b"%d" % status), *fields])
