"""The header with which a proxy says whose connection it passes on: PROXY protocol, versions 1, 2.

Theory. The header is the first thing on a connection, before TLS, sent once. Version 1 is a line of
text, version 2 a signature that no other protocol begins with, a length and a block of addresses;
what follows the addresses there are fields of which each has a type and a length ("TLV"). The
source is HAProxy's `proxy-protocol.txt`, of which the sections are cited.

Only who is known to be a proxy is asked for one: a header is nothing but a claim. Pure.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from dataclasses import dataclass
from typing import Any

__all__ = ["LONGEST", "Header", "MalformedError", "NoHeaderError", "read"]

LONGEST = 4096
"""Bytes of the longest header that is read. Version 1 has 107 (section 2.1); addresses of version 2
have 232, and what proxies put behind them (names of certificates, ids) is a few hundred more."""

_V1 = b"PROXY "
_V1_LONGEST = 107
_V1_LINE = re.compile(rb"PROXY TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) (\d{1,5}) (\d{1,5})")
_V1_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: .*)?", re.DOTALL)
_LAST_PORT = 65535

_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_HEAD = struct.Struct("!12sBBH")
_VERSION, _LOCAL, _PROXY = 2, 0, 1
# The byte of family and protocol: the high half is the family. Datagrams, in the low half, are what
# a proxy has received over QUIC; the addresses are right all the same.
_UNSPECIFIED = 0x00
_INET, _INET6, _UNIX = (0x11, 0x12), (0x21, 0x22), (0x31, 0x32)
_INET_BLOCK, _INET6_BLOCK = struct.Struct("!4s4sHH"), struct.Struct("!16s16sHH")
_UNIX_BLOCK = struct.Struct("!108s108s")
_CRC32C, _SSL = 0x03, 0x20  # types of TLVs, section 2.2
_CLIENT_SSL = 0x01  # the client connected over TLS, section 2.2.6
_TLV_HEAD = struct.Struct("!BH")
_POLYNOMIAL = 0x82F63B78  # of CRC32C, reflected (RFC 3309)


class NoHeaderError(ValueError):
    """What the connection begins with is something else."""


class MalformedError(ValueError):
    """It begins as a header does, and breaks the rule that the text says."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says.

    `size` is its length in bytes. `client` and `server` are the ends of the connection that is
    passed on, as `getpeername` and `getsockname` say them: tuples, or the path of a unix socket.
    They are None where the proxy speaks for itself (`local`, as in a health check), or does not
    know. `secure` says that the client has spoken TLS to the proxy.
    """

    size: int
    client: Any = None
    server: Any = None
    local: bool = False
    secure: bool = False

    @property
    def known(self) -> bool:
        """Whether it is known whose connection this is.

        The path of a unix socket says nothing: it is the proxy's, and file permissions that we
        cannot see say who may connect there.
        """
        return self.local or isinstance(self.client, tuple)


def read(data: bytes) -> Header | None:
    """Return the header that `data` begins with, None while more of it has to come.

    Raises `NoHeaderError` when there is none, `MalformedError` when it is wrong.
    """
    for beginning, reader in ((_V1, _read_v1), (_V2, _read_v2)):
        if data.startswith(beginning):
            return reader(data)
        if beginning.startswith(data):
            return None
    message = "does not begin with a PROXY header"
    raise NoHeaderError(message)


def _read_v1(data: bytes) -> Header | None:
    """Read the line of section 2.1."""
    end = data.find(b"\n", 0, _V1_LONGEST)
    if end < 0:
        if len(data) < _V1_LONGEST:
            return None
        message = f"version 1: the line is longer than {_V1_LONGEST} bytes"
        raise MalformedError(message)
    line, size = data[: end - 1], end + 1
    match = _V1_LINE.fullmatch(line)
    if data[end - 1 : end] != b"\r" or not (match or _V1_UNKNOWN.fullmatch(line)):
        message = f"version 1: {data[:size]!r} is not as the grammar says"
        raise MalformedError(message)
    if match is None:
        return Header(size)
    family, source, destination, source_port, destination_port = match.groups()
    kind = ipaddress.IPv4Address if family == b"4" else ipaddress.IPv6Address
    return Header(size, _end(kind, source, source_port), _end(kind, destination, destination_port))


def _end(
    kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address], host: bytes, port: bytes
) -> Any:
    """Return one end of the connection in a header of version 1."""
    try:
        address = kind(host.decode("ascii"))
    except ValueError:
        message = f"version 1: {host!r} is no address of that family"
        raise MalformedError(message) from None
    number = int(port)
    if number > _LAST_PORT or (port.startswith(b"0") and number):
        message = f"version 1: {port!r} is no port"
        raise MalformedError(message)
    return _name(address, number)


def _name(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> Any:
    """Return what a socket says of such an end."""
    return (str(address), port, 0, 0) if address.version != 4 else (str(address), port)  # noqa: PLR2004


def _read_v2(data: bytes) -> Header | None:
    """Read the block of section 2.2."""
    if len(data) < _V2_HEAD.size:
        return None
    _, command, family, length = _V2_HEAD.unpack_from(data)
    size = _V2_HEAD.size + length
    if command >> 4 != _VERSION or command & 0x0F not in {_LOCAL, _PROXY}:
        message = f"version 2: {command:#04x} is no version and command"
        raise MalformedError(message)
    if size > LONGEST:
        message = f"version 2: {size} bytes are more than {LONGEST}"
        raise MalformedError(message)
    if len(data) < size:
        return None
    if command & 0x0F == _LOCAL:
        return Header(size, local=True)
    if family == _UNSPECIFIED:
        return Header(size)
    client, server, end = _ends(data[_V2_HEAD.size : size], family)
    return Header(size, client, server, secure=_read_fields(data[:size], _V2_HEAD.size + end))


def _ends(block: bytes, family: int) -> tuple[Any, Any, int]:
    """Return the two ends in the `block` of addresses, and where it ends."""
    form = _form(family)
    if len(block) < form.size:
        message = f"version 2: {len(block)} bytes are too few for addresses of {family:#04x}"
        raise MalformedError(message)
    source, destination, *ports = form.unpack_from(block)
    if family in _UNIX:
        return _path(source), _path(destination), form.size
    kind = ipaddress.IPv4Address if family in _INET else ipaddress.IPv6Address
    return _name(kind(source), ports[0]), _name(kind(destination), ports[1]), form.size


def _form(family: int) -> struct.Struct:
    for families, form in ((_INET, _INET_BLOCK), (_INET6, _INET6_BLOCK), (_UNIX, _UNIX_BLOCK)):
        if family in families:
            return form
    message = f"version 2: {family:#04x} is no family and protocol"
    raise MalformedError(message)


def _path(field: bytes) -> str:
    return field.rstrip(b"\x00").decode("utf-8", "replace")


def _read_fields(header: bytes, start: int) -> bool:
    """Check the TLVs of the `header` from `start` on; return whether the client has spoken TLS."""
    secure = False
    while start < len(header):
        if len(header) < start + _TLV_HEAD.size:
            message = "version 2: a TLV is cut off"
            raise MalformedError(message)
        kind, length = _TLV_HEAD.unpack_from(header, start)
        begin = start + _TLV_HEAD.size
        start = begin + length
        if start > len(header):
            message = "version 2: a TLV is cut off"
            raise MalformedError(message)
        if kind == _CRC32C:
            _check_sum(header, begin, start)
        elif kind == _SSL and length:
            secure = bool(header[begin] & _CLIENT_SSL)
    return secure


def _check_sum(header: bytes, begin: int, end: int) -> None:
    """Compare the checksum that stands there with that of the header, in which it counts as 0."""
    blank = header[:begin] + bytes(end - begin) + header[end:]
    if header[begin:end] != _crc32c(blank).to_bytes(4):
        message = "version 2: the checksum (CRC32C) is wrong"
        raise MalformedError(message)


def _crc32c(data: bytes) -> int:
    """Return the CRC32C of `data`, bit by bit: few proxies send one, once for each connection."""
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder ^= byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (_POLYNOMIAL if remainder & 1 else 0)
    return remainder ^ 0xFFFFFFFF
