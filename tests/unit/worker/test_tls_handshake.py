"""What is said of TLS handshakes that fail."""

from __future__ import annotations

import ssl
import sys
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from daphne_supervisor.config import Tls
from daphne_supervisor.worker.tls_handshake import contain_names, failure
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def refused(server: ssl.SSLContext, *data: bytes) -> ssl.SSLError:
    """Return the error of a server that hears `data`, and then the end."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = server.wrap_bio(up, down, server_side=True)
    for each in data:
        up.write(each)
    up.write_eof()
    with pytest.raises(ssl.SSLError) as caught:
        connection.do_handshake()
    return caught.value


def hello(client: ssl.SSLContext, name: str | None = "localhost") -> bytes:
    """Return the first bytes of a client."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        client.wrap_bio(down, up, server_hostname=name).do_handshake()
    return up.read()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "the client speaks plain HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "what the client speaks is no TLS"),
        (b"", None),
        (b"\x16\x03\x01", None),
    ],
)
def test_what_is_no_tls_is_named(tmp_path: Path, data: bytes, reason: str | None) -> None:
    """Who connects and leaves, as health checks do, is not worth a line."""
    server = Authority(tmp_path).credentials().context
    assert failure(refused(server, data)) == reason


def test_a_client_that_is_too_old_is_named(tmp_path: Path) -> None:
    """With the option that it fails by."""
    authority = Authority(tmp_path)
    authority.trust.maximum_version = ssl.TLSVersion.TLSv1_2
    server = authority.credentials(Tls(minimum="1.3")).context
    assert failure(refused(server, hello(authority.trust))) == (
        "the client speaks too old a version only (--tls-min)"
    )
    authority.trust.set_ciphers("ECDHE+AES128+SHA256")
    server = authority.credentials().context
    assert failure(refused(server, hello(authority.trust))) == (
        "the client knows none of the ciphers (--ciphers)"
    )


def test_a_client_certificate_that_is_refused_is_explained(tmp_path: Path) -> None:
    """In OpenSSL's words; so is one that is missing."""
    authority = Authority(tmp_path)
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other")
    tls = Tls(client_certs="required", ca_certs=str(tmp_path / "ca.pem"))
    server = authority.credentials(tls)
    for pair, reason in (
        (
            stranger.folder / "all.pem",
            "the client's certificate is refused: unable to get local issuer certificate",
        ),
        (None, "the client has no certificate (--client-certs required)"),
    ):
        with pytest.raises(ssl.SSLError) as caught:
            authority.shake(server, authority.client(pair))
        assert failure(caught.value) == reason


def test_other_errors_are_put_plainly() -> None:
    """What is neither TLS's nor the time's is somebody else's to report."""
    with pytest.raises(ssl.SSLError) as caught:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers("ROT13")
    assert failure(caught.value) == "No cipher can be selected."
    assert failure(ConnectionAbortedError()) == "not done within --tls-handshake-timeout"
    assert failure(ConnectionResetError()) is None
    assert failure(ZeroDivisionError()) is None


@pytest.fixture
def hook() -> Iterator[list[Any]]:
    """Return what is said to be unraisable, with what is under test before it."""
    before, said = sys.unraisablehook, []
    sys.unraisablehook = said.append
    contain_names()
    yield said
    sys.unraisablehook = before


def test_a_name_that_is_no_ascii_makes_no_traceback(
    tmp_path: Path, hook: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Any client could fill the log with it; its handshake ends."""
    caplog.set_level("DEBUG")
    authority = Authority(tmp_path)
    first = hello(authority.trust).replace(b"localhost", b"local\xffost")
    error = refused(authority.credentials().context, first)
    assert failure(error) == "callback failed"
    assert hook == []
    assert "b'local\\xffost'" in caplog.text


@pytest.mark.parametrize(
    "unraisable",
    [
        SimpleNamespace(object=b"x", exc_value=ValueError()),
        SimpleNamespace(object=None, exc_value=UnicodeDecodeError("ascii", b"x", 0, 1, "?")),
    ],
)
def test_what_else_cannot_be_raised_is_shown(hook: list[Any], unraisable: Any) -> None:
    """It is a bug of somebody's."""
    sys.unraisablehook(unraisable)
    assert hook == [unraisable]
