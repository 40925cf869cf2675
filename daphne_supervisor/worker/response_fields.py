"""The headers of a response, as applications give them: checked, whatever carries them. Pure.

Every header is checked before a byte leaves, because a value with CR LF in it would be two headers
to the client (response splitting).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daphne_supervisor.worker.head import Headers

__all__ = [
    "blame",
    "field",
    "learn",
    "length_of",
    "line",
    "names",
    "same_length",
    "sent_lines",
    "trailer_fields",
]

#: 2^63 has 19 digits: more cannot be a length, and clients refuse them.
_LENGTH_DIGITS = 19
#: RFC 9110 section 5.6.2.
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: Headers of the application's that the server writes itself or is bound by.
_STEERING = frozenset(
    {b"connection", b"content-length", b"date", b"keep-alive", b"server", b"transfer-encoding"}
    | {b"upgrade"}
)
#: Names seen in responses, by their exact spelling: lower case if the server has to look at the
#: value, None if not. Applications use few names; one that makes them up does not fill the memory.
names: dict[bytes, bytes | None] = {}
_MAX_NAMES = 1024
#: Lines seen in responses, as they are sent: most applications send most of them every time. Those
#: who never send the same twice begin anew when there are so many; a cookie is not kept at all.
sent_lines: dict[tuple[bytes, bytes], bytes] = {}
_MAX_LINES, _LONGEST_LINE = 1024, 256
#: Control bytes, of which a horizontal tab is none (RFC 9110 section 5.5). Some of them would end
#: the line, or the head; and some would do so for a client that is lax.
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

#: What is needed before the body, besides what the server writes (RFC 9110 section 6.5.1).
_NOT_IN_TRAILERS = frozenset(
    {b"content-encoding", b"content-range", b"content-type", b"host", b"set-cookie", b"trailer"}
)


def learn(name: bytes) -> bytes | None:
    """Check a name that was not seen before; return what `names` is to hold for it."""
    if not _TOKEN.fullmatch(name):
        message = f"header name {name!r} is not a token (RFC 9110 section 5.6.2)"
        raise ValueError(message)
    lower = name.lower()
    steering = lower if lower in _STEERING else None
    if len(names) < _MAX_NAMES:
        names[name] = steering
    return steering


def line(name: bytes, value: bytes) -> bytes:
    """Return a header line as it is sent. Raises `ValueError` when it would not be one line."""
    if not isinstance(value, bytes):
        raise TypeError
    if _FORBIDDEN.search(value):
        message = f"value of header {name!r} has a control byte: {value!r}"
        raise ValueError(message)
    line = b"%b: %b\r\n" % (name, value)
    if len(line) <= _LONGEST_LINE and name.lower() != b"set-cookie":
        if len(sent_lines) >= _MAX_LINES:
            sent_lines.clear()
        sent_lines[name, value] = line
    return line


def blame(headers: Iterable[Any]) -> ValueError:
    """Return the error that names the header which is no pair of byte strings."""
    for line in headers:
        try:
            name, value = line
        except (TypeError, ValueError):
            return ValueError(f"header {line!r} is not a pair of name and value")
        for what, text in (("name", name), ("value", value)):
            if not isinstance(text, bytes):
                return ValueError(
                    f"Header {what} {text!r} expected to be `bytes`, but got `{type(text)}`"
                )
    return ValueError("response headers cannot be encoded")


def field(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Return a header as HTTP/2 sends it. Raises `ValueError` when it cannot be sent."""
    if not isinstance(value, bytes):
        raise TypeError
    if _FORBIDDEN.search(value):
        message = f"value of header {name!r} has a control byte: {value!r}"
        raise ValueError(message)
    # Blanks around a value are none of it, and malformed there (RFC 9113 section 8.2.1).
    return name.lower(), value.strip(b" \t")


def trailer_fields(headers: Sequence[Any]) -> Headers:
    """Return the fields of a trailer section, in lower case (RFC 9110 section 6.5).

    Raises `ValueError` for one that cannot be sent, or comes too late for what it says.
    """
    fields = []
    try:
        for name, value in headers:
            steering = names[name] if name in names else learn(name)
            checked = field(name, value)
            if steering is not None or checked[0] in _NOT_IN_TRAILERS:
                message = f"{name!r} cannot stand in trailers (RFC 9110 section 6.5.1)"
                raise ValueError(message)
            fields.append(checked)
    except (AttributeError, TypeError):
        raise blame(headers) from None
    return fields


@lru_cache(maxsize=1024)
def length_of(value: bytes) -> int:
    """Return the application's Content-Length."""
    if not isinstance(value, bytes):
        raise TypeError
    if not value.isdigit() or len(value) > _LENGTH_DIGITS:
        message = f"the application's Content-Length {value!r} is not a number of bytes"
        raise ValueError(message)
    return int(value)


def same_length(value: bytes, before: int) -> int:
    """Return another Content-Length of the application's, if it is the same one."""
    if length_of(value) != before:
        message = "the application sends two Content-Lengths that differ"
        raise ValueError(message)
    return before
