"""The lines of HTTP/1.1: what is one, and which rule a wrong one breaks. Pure.

Each kind of line has one regular expression, which is the grammar of its RFC and nothing laxer;
what does not match is refused, and only then is looked at again to say why. Lines are cut at CR LF
and nowhere else: a CR or LF that stands alone matches nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from daphne_supervisor.worker.head import METHODS, Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_start", "chunk_line", "header_lines", "refuse", "request_line", "stray"]

#: RFC 9112 section 3; a method is a token, a target has no white space.
_REQUEST = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/([0-9]\.[0-9])")
#: RFC 9112 section 5, RFC 9110 section 5.5: a token, a colon, and text without control bytes. What
#: is blank around the text belongs to it here: two parts that both match a blank would be tried in
#: every combination, which takes a minute when a control byte stands behind many of them.
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t -~\x80-\xff]*)")
#: RFC 9112 section 7.1, without the white space that it would tolerate: nobody sends it, and
#: servers differ in reading it. 16 digits are 64 bits.
_CHUNK = re.compile(
    rb"([0-9A-Fa-f]{1,16})"
    rb"((?:;[!#$%&'*+.^_`|~0-9A-Za-z-]+"
    rb"(?:=(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+|\"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*\"))?)*)"
)
_TOKEN_BYTE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_STRAY = re.compile(rb"(?<!\r)\n|\r[^\n]")
_TLS_HANDSHAKE = b"\x16"

_VERSIONS = {b"1.1": "1.1", b"1.0": "1.0"}

#: Header lines seen, as they were sent, and what they are: clients say most things about themselves
#: again and again. Those who never do begin anew when there are so many; what is secret, or long,
#: is not kept at all.
_known: dict[bytes, tuple[bytes, bytes]] = {}
_MAX_KNOWN, _LONGEST_KNOWN = 1024, 256
SECRET = frozenset({b"authorization", b"cookie", b"proxy-authorization"})


def stray(where: str, data: bytes, start: int, stop: int) -> Refused | None:
    """Return the refusal of a CR or LF that stands alone in that part of `data`, if there is one.

    `where` says what the part is.
    """
    pairs = data.count(b"\r\n", start, stop)
    if data.count(b"\n", start, stop) == pairs == data.count(b"\r", start, stop - 1):
        return None  # as nearly always, and a hundred times faster
    if _STRAY.search(data, start, stop) is None:
        return None
    return Refused(400, f"malformed {where}: CR or LF alone (RFC 9112 section 2.2)")


def refuse(reason: Refused | None) -> None:
    """Raise `reason`, if there is one.

    Whoever raises what he has a name for is held by it, with all that he has read, until the
    collector comes by.
    """
    if reason is not None:
        try:
            raise reason
        finally:
            del reason


def _stray_in_line(where: str, line: bytes) -> Refused | None:
    """Return the refusal of a CR or LF that stands alone in what a CR LF follows."""
    return stray(where, line + b"\r", 0, len(line) + 1)


def request_line(line: bytes) -> tuple[str, bytes, str]:
    """Return method, target and version of a request line. Raises `Refused`."""
    match = _REQUEST.fullmatch(line)
    if match is None:
        raise check_start(line + b"\r") or Refused(
            400, "malformed request line (RFC 9112 section 3)"
        )
    method, target, version = match.groups()
    if version not in _VERSIONS:
        raise Refused(505, f"HTTP version {version.decode()} (RFC 9112 section 2.3)")
    if method not in METHODS:
        raise Refused(501, "unknown method (RFC 9110 section 9.1)")
    return METHODS[method], target, _VERSIONS[version]


def check_start(start: bytes) -> Refused | None:
    """Return why `start` cannot be the beginning of a request line, if that is certain already."""
    if start[:1] == _TLS_HANDSHAKE:
        return Refused(400, "malformed request line: TLS where HTTP is spoken")
    if not _TOKEN_BYTE.match(start):
        return Refused(400, "malformed request line: no method (RFC 9112 section 3.1)")
    return stray("request line", start, 0, len(start))


def header_lines(where: str, lines: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """Return name, in lower case, and value of each of `lines`, which CR LF has ended.

    Raises `Refused`; `where` says what the lines are.
    """
    known = _known
    try:
        return [known.get(line) or _header_line(line) for line in lines]
    except Refused as reason:
        raise _stray_in_line(where, b"\r\n".join(lines)) or reason from None


def _header_line(line: bytes) -> tuple[bytes, bytes]:
    match = _HEADER.fullmatch(line)
    if match is None:
        raise _blame(line)
    name = match[1].lower()
    header = (name, match[2].strip(b" \t"))
    if len(line) <= _LONGEST_KNOWN and name not in SECRET:
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        _known[line] = header
    return header


def _blame(line: bytes) -> Refused:
    """Return the refusal of a header line, with the rule that it breaks."""
    if line[:1] in {b" ", b"\t"}:
        return Refused(400, "malformed header: a folded line (RFC 9112 section 5.2)")
    name, colon, _ = line.partition(b":")
    if not colon:
        return Refused(400, "malformed header: no colon (RFC 9112 section 5)")
    if name != name.rstrip(b" \t"):
        return Refused(400, "malformed header: blank before the colon (RFC 9112 section 5.1)")
    if not _TOKEN.fullmatch(name):
        return Refused(400, "malformed header: its name is no token (RFC 9110 section 5.1)")
    shown = name[:64].decode("ascii")
    return Refused(400, f"malformed header: control byte in {shown} (RFC 9110 section 5.5)")


def chunk_line(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Return size of a chunk and of its extensions in bytes. Raises `Refused`."""
    match = _CHUNK.fullmatch(data, start, end)
    if match is None:
        raise _stray_in_line("chunk", data[start:end]) or Refused(
            400, "malformed chunk: its size or extension (RFC 9112 section 7.1)"
        )
    return int(match[1], 16), len(match[2])
