"""The ASGI TLS extension."""

from __future__ import annotations

import datetime as dt
import ssl
import time
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from daphne_supervisor.config import Tls
from daphne_supervisor.worker.tls_scope import describe
from tests.support.certificates import Authority, shake

if TYPE_CHECKING:
    from pathlib import Path


NOW = time.time()


class Client:
    """A client of an authority's with a certificate, and a server that asks for one."""

    def __init__(self, folder: Path, asked: str = "optional") -> None:
        """Write all of it."""
        self.authority = Authority(folder)
        self.cert = self.authority.issue("client.example", stem="client-")
        self.context = self.authority.client(folder / "client-all.pem")
        tls = Tls() if asked == "none" else Tls(client_certs=asked, ca_certs=f"{folder}/ca.pem")
        self.server = self.authority.credentials(tls)


def test_the_extension_has_every_key(tmp_path: Path) -> None:
    """Those of the specification, version 0.2; without a client's certificate there is no name."""
    authority = Authority(tmp_path)
    _, server = authority.shake(authority.credentials())
    assert describe(server, NOW) == {
        "server_cert": (tmp_path / "cert.pem").read_text(),
        "client_cert_chain": [],
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": 0x0304,
        "cipher_suite": 0x1302,
    }


def test_versions_and_ciphers_are_numbers(tmp_path: Path) -> None:
    """Those of the protocol."""
    authority = Authority(tmp_path)
    authority.trust.maximum_version = ssl.TLSVersion.TLSv1_2
    authority.trust.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    found = describe(authority.shake(authority.credentials())[1], NOW)
    assert (found["tls_version"], found["cipher_suite"]) == (0x0303, 0xC02B)


def test_a_client_may_have_no_certificate(tmp_path: Path) -> None:
    """If it is not required."""
    client = Client(tmp_path)
    _, server = client.authority.shake(client.server)
    assert describe(server, NOW)["client_cert_chain"] == []
    assert describe(server, NOW)["client_cert_name"] is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_is_known_by_its_certificate(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """The chain begins with it and goes on with what it has sent of those that sign it.

    A session that is resumed still has the certificate.
    """
    client = Client(tmp_path, "required")
    client.context.maximum_version = version
    theirs, server = client.authority.shake(client.server, client.context)
    found = describe(server, NOW)
    chain = found["client_cert_chain"]
    assert chain[0] == client.cert
    assert chain[1] == (tmp_path / "chain.pem").read_text()
    assert found["client_cert_name"].startswith("OU=Testing cert #")
    assert found["client_cert_name"].endswith(",O=trustme v" + trustme.__version__)
    _, server = client.authority.shake(client.server, client.context, session=theirs.session)
    assert server.session_reused
    found = describe(server, NOW)
    assert found["client_cert_chain"] == [client.cert]
    assert found["client_cert_name"]


def test_what_a_client_sends_beside_its_chain_is_left_out(tmp_path: Path) -> None:
    """Nobody has verified it: an application could take it for an authority's word."""
    client = Client(tmp_path, "required")
    pair, stranger = tmp_path / "client-all.pem", tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(str(stranger))
    pair.write_bytes(pair.read_bytes() + stranger.read_bytes())
    context = client.authority.client(pair)
    _, server = client.authority.shake(client.server, context)
    chain = describe(server, NOW)["client_cert_chain"]
    assert stranger.read_text() not in chain
    assert len(chain) >= 2


def test_a_certificate_that_ends_while_its_session_lives_is_an_error(tmp_path: Path) -> None:
    """Nothing else would notice: OpenSSL does not look again, and each resumption lasts longer."""
    client = Client(tmp_path, "required")
    _, server = client.authority.shake(client.server, client.context)
    assert describe(server, NOW)["client_cert_error"] is None
    later = dt.datetime(3001, 1, 1, tzinfo=dt.UTC).timestamp()
    assert describe(server, later)["client_cert_error"] == "certificate has expired"


def test_where_nobody_is_asked_nobody_is_known(tmp_path: Path) -> None:
    """A client that has a certificate does not send it."""
    client = Client(tmp_path, "none")
    _, server = client.authority.shake(client.server, client.context)
    assert describe(server, NOW)["client_cert_chain"] == []


class _Public:
    """A connection as Python 3.13 has it, whose chains are public and in DER."""

    def __init__(self, connection: ssl.SSLObject) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def _chain(self, name: str) -> list[bytes]:
        inner: Any = self._connection
        found = getattr(inner._sslobj, name)() or ()
        return [ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in found]

    def get_verified_chain(self) -> list[bytes]:
        """Return the chain that was verified."""
        return self._chain("get_verified_chain")

    def get_unverified_chain(self) -> list[bytes]:
        """Return the chain that was sent."""
        return self._chain("get_unverified_chain")


def test_chains_are_taken_where_python_has_them(tmp_path: Path) -> None:
    """Python 3.13 has made public what was there before, with the same result."""
    client = Client(tmp_path, "required")
    _, server = shake(client.server.context, client.context)
    public: Any = _Public(server)
    assert describe(public, NOW) == describe(server, NOW)
