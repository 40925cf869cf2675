"""What a client hears of a handshake that fails."""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from daphne_supervisor.config import Tls
from daphne_supervisor.worker.tls_alert import descriptor
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path


def refuse(folder: Path, number: int, first: bytes = b"") -> bytes:
    """Let a handshake fail on the socket `number`; return what was to be sent and was not."""
    authority = Authority(folder)
    authority.trust.maximum_version = ssl.TLSVersion.TLSv1_2
    server = authority.credentials(Tls(minimum="1.3")).context
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    token = descriptor.set(number)
    connection = server.wrap_bio(up, down, server_side=True)
    descriptor.reset(token)
    client = authority.trust.wrap_bio(ssl.MemoryBIO(), up, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    if first:
        up.read()
        up.write(first)
    with pytest.raises(ssl.SSLError):
        connection.do_handshake()
    return down.read()


def test_a_client_is_told_why(tmp_path: Path) -> None:
    """With the alert `protocol_version`, 70: RFC 8446 section 6.2."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert refuse(tmp_path, ours.fileno()) == b""
        record = theirs.recv(100)
        assert (record[0], record[-1]) == (21, 70)


def test_who_has_left_is_told_nothing(tmp_path: Path) -> None:
    """The error of the handshake is the one that counts."""
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        refuse(tmp_path, ours.fileno())


def test_what_is_no_tls_gets_no_alert(tmp_path: Path) -> None:
    """OpenSSL has none for it, and nothing is sent."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        refuse(tmp_path, ours.fileno(), b"GET / HTTP/1.1\r\n\r\n")
        os.set_blocking(theirs.fileno(), False)
        with pytest.raises(BlockingIOError):
            theirs.recv(100)


def test_without_a_socket_the_alert_stays_where_it_is(tmp_path: Path) -> None:
    """For whoever takes the bytes from there."""
    assert refuse(tmp_path, -1)[-1] == 70
