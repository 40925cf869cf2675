"""TLS contexts from the files that an endpoint names, tried in handshakes in memory."""

from __future__ import annotations

import socket
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest
import trustme

from daphne_supervisor.endpoints import Endpoint, TlsFiles
from daphne_supervisor.errors import BootError
from daphne_supervisor.listeners import Listener
from daphne_supervisor.worker.tls import context_for

if TYPE_CHECKING:
    from pathlib import Path

_DH = """-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""


class Authority:
    """Writes keys and certificates to a folder."""

    def __init__(self, folder: Path, kind: trustme.KeyType = trustme.KeyType.ECDSA) -> None:
        """Write a server's key, certificate and chain."""
        self.folder = folder
        root = trustme.CA()
        between = root.create_child_ca()
        self.trust = ssl.create_default_context()
        root.configure_trust(self.trust)
        issued = between.issue_cert("localhost", key_type=kind)
        first, *others = issued.cert_chain_pems
        issued.private_key_pem.write_to_path(str(folder / "key.pem"))
        first.write_to_path(str(folder / "cert.pem"))
        (folder / "chain.pem").write_bytes(b"".join(blob.bytes() for blob in others))
        trustme.CA().issue_cert("other").private_key_pem.write_to_path(str(folder / "other.pem"))
        (folder / "dh.pem").write_text(_DH)
        (folder / "text.pem").write_text("nothing of the kind\n")

    def context(self, key: str = "key.pem", cert: str = "cert.pem", **more: str) -> ssl.SSLContext:
        """Return the context of an endpoint with these files of the folder."""
        places = {
            name: str(self.folder / value) if value.endswith(".pem") else value
            for name, value in more.items()
        }
        files = TlsFiles(str(self.folder / key), str(self.folder / cert), **places)
        text = f"ssl:443:privateKey={files.private_key}:certKey={files.certificate}"
        with socket.socket() as unbound:
            endpoint = Endpoint(kind="ssl", text=text, origin="--endpoint", tls=files)
            context = context_for(Listener(unbound, endpoint, "somewhere"))
        assert context is not None
        return context

    def shake(self, server: ssl.SSLContext, client: ssl.SSLContext | None = None) -> ssl.SSLObject:
        """Return the client's end of a completed handshake. Raises `ssl.SSLError`."""
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        ours = server.wrap_bio(up, down, server_side=True)
        theirs = (client or self.trust).wrap_bio(down, up, server_hostname="localhost")
        for _ in range(4):
            for end in (theirs, ours):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        return theirs


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Return an authority whose files are in a fresh folder."""
    return Authority(tmp_path)


def test_a_listener_without_tls_has_no_context() -> None:
    """There is nothing to load."""
    with socket.socket() as unbound:
        endpoint = Endpoint(kind="tcp", text="tcp:0", origin="--endpoint")
        assert context_for(Listener(unbound, endpoint, "somewhere")) is None


@pytest.mark.parametrize("method", ["", "SSLv23_METHOD", "TLS_METHOD"])
def test_a_client_is_served_the_whole_chain(authority: Authority, method: str) -> None:
    """It knows the root only, and negotiates the newest version, and HTTP/1.1."""
    server = authority.context(chain="chain.pem", method=method)
    authority.trust.set_alpn_protocols(["http/1.1"])
    client = authority.shake(server)
    assert client.version() == "TLSv1.3"
    assert client.selected_alpn_protocol() == "http/1.1"
    assert server.minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_chain_that_is_not_given_is_not_served(authority: Authority) -> None:
    """The files are what counts: nothing is made up."""
    with pytest.raises(ssl.SSLCertVerificationError):
        authority.shake(authority.context())


@pytest.mark.parametrize(
    ("method", "version"), [("TLSv1_2_METHOD", "TLSv1.2"), ("TLSv1_3_METHOD", "TLSv1.3")]
)
def test_one_version_and_no_other(authority: Authority, method: str, version: str) -> None:
    """As pyOpenSSL's names have it."""
    server = authority.context(chain="chain.pem", method=method)
    assert authority.shake(server).version() == version
    other = ssl.TLSVersion.TLSv1_3 if version == "TLSv1.2" else ssl.TLSVersion.TLSv1_2
    authority.trust.minimum_version = other
    authority.trust.maximum_version = other
    with pytest.raises(ssl.SSLError):
        authority.shake(server)


@pytest.mark.parametrize("method", ["SSLv3_METHOD", "TLSv1_METHOD", "TLSv1_1_METHOD", "nonsense"])
def test_a_version_that_is_unknown_or_broken_is_refused(authority: Authority, method: str) -> None:
    """The message lists what there is."""
    with pytest.raises(BootError, match=r"--endpoint ssl:443.*sslmethod .*TLSv1_2_METHOD"):
        authority.context(method=method)


def test_diffie_hellman_parameters_are_loaded(tmp_path: Path) -> None:
    """They serve clients that offer nothing newer."""
    authority = Authority(tmp_path, trustme.KeyType.RSA)
    server = authority.context(chain="chain.pem", dh_parameters="dh.pem", method="TLSv1_2_METHOD")
    authority.trust.set_ciphers("DHE+AESGCM")
    found = authority.shake(server).cipher()
    assert found is not None
    assert found[0].startswith("DHE-")


@pytest.mark.parametrize("name", ["text.pem", "missing.pem"])
def test_parameters_that_cannot_be_used_are_named(authority: Authority, name: str) -> None:
    """With the endpoint and the file."""
    with pytest.raises(BootError, match=rf"--endpoint ssl:443.*dhParameters .*{name}"):
        authority.context(dh_parameters=name)


@pytest.mark.parametrize(
    ("key", "cert"),
    [
        ("missing.pem", "cert.pem"),
        ("key.pem", "missing.pem"),
        ("text.pem", "cert.pem"),
        ("key.pem", "text.pem"),
        ("other.pem", "cert.pem"),
    ],
)
def test_files_that_cannot_be_used_are_named(authority: Authority, key: str, cert: str) -> None:
    """In one line, with the endpoint; the worker does not boot."""
    with pytest.raises(BootError, match=rf"--endpoint ssl:443.*{key}.*{cert}") as caught:
        authority.context(key, cert)
    assert "\n" not in str(caught.value)


def test_a_chain_that_is_missing_is_named(authority: Authority) -> None:
    """It is part of what was asked for."""
    with pytest.raises(BootError, match=r"nochain\.pem"):
        authority.context(chain="nochain.pem")


def test_an_encrypted_key_is_refused(authority: Authority) -> None:
    """A worker has no terminal to ask for a password, and must not wait for one."""
    subprocess.run(
        [
            "openssl",
            "pkey",
            "-in",
            "key.pem",
            "-aes128",
            "-passout",
            "pass:x",
            "-out",
            "locked.pem",
        ],
        cwd=authority.folder,
        check=True,
        capture_output=True,
        timeout=30,
    )
    with pytest.raises(BootError, match="the private key is encrypted"):
        authority.context("locked.pem")
