"""What is spoken on a TLS connection, tried in handshakes in memory."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest
import trustme

from daphne_supervisor.config import Tls
from daphne_supervisor.errors import BootError
from daphne_supervisor.worker.tls import configure, in_memory, plain_reason, present, trust
from daphne_supervisor.worker.tls_pem import pair
from tests.support.certificates import Authority, shake

WHERE = "--endpoint ssl:443"
DH = """-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""


class Server:
    """A context under test with a certificate, and clients that believe it."""

    def __init__(
        self,
        folder: Path,
        tls: Tls | None = None,
        method: str = "",
        dh: bytes = b"",
        kind: trustme.KeyType = trustme.KeyType.ECDSA,
    ) -> None:
        """Be configured by `tls`, `method` and `dh`."""
        self.authority = Authority(folder, kind)
        self.context = configure(tls or Tls(), method, dh, WHERE)
        whole = (folder / "all.pem").read_bytes()
        present(self.context, pair("all.pem", whole, whole), bytes)

    def shake(self, client: ssl.SSLContext | None = None) -> ssl.SSLObject:
        """Return the client's end of a handshake."""
        return shake(self.context, client or self.authority.trust)[0]


@pytest.mark.parametrize("method", ["", "SSLv23_METHOD", "TLS_METHOD", "TLS_SERVER_METHOD"])
def test_the_newest_version_is_agreed_upon(tmp_path: Path, method: str) -> None:
    """And 1.2 is the oldest, whatever a method of all versions says."""
    server = Server(tmp_path, method=method)
    assert server.shake().version() == "TLSv1.3"
    assert server.context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_the_oldest_version_can_be_chosen(tmp_path: Path) -> None:
    """With --tls-min 1.3 a client of 1.2 is refused."""
    server = Server(tmp_path, Tls(minimum="1.3"))
    assert server.shake().version() == "TLSv1.3"
    server.authority.trust.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        server.shake()


@pytest.mark.parametrize(
    ("method", "version"), [("TLSv1_2_METHOD", "TLSv1.2"), ("TLSv1_3_METHOD", "TLSv1.3")]
)
def test_one_version_and_no_other(tmp_path: Path, method: str, version: str) -> None:
    """As pyOpenSSL's names have it."""
    server = Server(tmp_path, method=method)
    assert server.shake().version() == version
    other = ssl.TLSVersion.TLSv1_3 if version == "TLSv1.2" else ssl.TLSVersion.TLSv1_2
    server.authority.trust.minimum_version = other
    server.authority.trust.maximum_version = other
    with pytest.raises(ssl.SSLError):
        server.shake()


@pytest.mark.parametrize("method", ["SSLv3_METHOD", "TLSv1_METHOD", "TLSv1_1_METHOD", "nonsense"])
def test_a_version_that_is_unknown_or_broken_is_refused(method: str) -> None:
    """The message lists what there is."""
    with pytest.raises(BootError, match=r"^--endpoint ssl:443: sslmethod .*TLSv1_2_METHOD"):
        configure(Tls(), method, b"", WHERE)


def test_a_version_below_the_oldest_is_refused() -> None:
    """Two options that contradict each other are a mistake, not a matter of order."""
    with pytest.raises(BootError, match=r"TLSv1_2_METHOD is below --tls-min 1.3"):
        configure(Tls(minimum="1.3"), "TLSv1_2_METHOD", b"", WHERE)


@pytest.mark.parametrize("dh", [b"", DH.encode()], ids=["", "with parameters"])
def test_every_cipher_has_forward_secrecy_and_authenticates(dh: bytes) -> None:
    """Those that RFC 9113 section 9.2.2 forbids for HTTP/2 are not among them."""
    names = [each["name"] for each in configure(Tls(), "", dh, WHERE).get_ciphers()]
    assert len(names) >= 9
    kinds = ("TLS_", "ECDHE-ECDSA-", "ECDHE-RSA-", *(("DHE-RSA-",) if dh else ()))
    assert [name for name in names if not name.startswith(kinds)] == []
    assert [name for name in names if "GCM" not in name and "POLY1305" not in name] == []
    assert any(name.startswith("DHE-") for name in names) is bool(dh)


def test_the_client_chooses_among_good_ciphers(tmp_path: Path) -> None:
    """A telephone without AES in its processor is better off with ChaCha20."""
    server = Server(tmp_path)
    client = server.authority.trust
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    for first, second in (("CHACHA20", "AESGCM"), ("AESGCM", "CHACHA20")):
        client.set_ciphers(f"ECDHE+{first}:ECDHE+{second}")
        found = server.shake().cipher()
        assert found is not None
        assert ("CHACHA20" in found[0]) is (first == "CHACHA20")


def test_an_order_of_ciphers_is_kept(tmp_path: Path) -> None:
    """Who gives --ciphers has a reason."""
    server = Server(tmp_path, Tls(ciphers="ECDHE+CHACHA20:ECDHE+AESGCM"))
    server.authority.trust.maximum_version = ssl.TLSVersion.TLSv1_2
    server.authority.trust.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    found = server.shake().cipher()
    assert found is not None
    assert "CHACHA20" in found[0]


def test_ciphers_that_nobody_knows_are_refused() -> None:
    """In one line that names the option."""
    with pytest.raises(BootError, match=r"^--ciphers 'ROT13': OpenSSL knows no cipher of it$"):
        configure(Tls(ciphers="ROT13"), "", b"", WHERE)


def test_neither_compression_nor_renegotiation() -> None:
    """One tells secrets by sizes, the other costs the server more than the client."""
    options = configure(Tls(), "", b"", WHERE).options
    assert options & ssl.OP_NO_COMPRESSION
    assert options & ssl.OP_NO_RENEGOTIATION


def test_diffie_hellman_parameters_are_loaded(tmp_path: Path) -> None:
    """They serve clients that offer nothing newer."""
    server = Server(tmp_path, method="TLSv1_2_METHOD", dh=DH.encode(), kind=trustme.KeyType.RSA)
    server.authority.trust.set_ciphers("DHE+AESGCM")
    found = server.shake().cipher()
    assert found is not None
    assert found[0].startswith("DHE-")


def test_parameters_that_cannot_be_used_are_named() -> None:
    """With the endpoint."""
    with pytest.raises(BootError, match=r"^--endpoint ssl:443: dhParameters cannot be used: "):
        configure(Tls(), "", b"nothing of the kind", WHERE)


@pytest.mark.parametrize("order", [("h2", "http/1.1"), ("http/1.1", "h2"), ("http/1.1",)])
def test_the_first_that_a_client_knows_is_chosen(tmp_path: Path, order: tuple[str, ...]) -> None:
    """In the order of --alpn; a client that knows none of them goes on without."""
    server = Server(tmp_path, tls=Tls(alpn=order))
    server.authority.trust.set_alpn_protocols(["h3", "http/1.1", "h2"])
    assert server.shake().selected_alpn_protocol() == order[0]
    server.authority.trust.set_alpn_protocols(["h3"])
    assert server.shake().selected_alpn_protocol() is None


@pytest.mark.parametrize(
    ("asked", "mode"),
    [
        ("none", ssl.CERT_NONE),
        ("optional", ssl.CERT_OPTIONAL),
        ("required", ssl.CERT_REQUIRED),
    ],
)
def test_clients_are_asked_for_certificates(asked: str, mode: ssl.VerifyMode) -> None:
    """As --client-certs says."""
    assert configure(Tls(client_certs=asked), "", b"", WHERE).verify_mode == mode


def test_an_authority_between_is_trusted_without_its_root(tmp_path: Path) -> None:
    """An organization may believe its clients' authority and not all that its root has signed."""
    server = Server(tmp_path, Tls(client_certs="required"))
    client = server.authority.client(tmp_path / "all.pem")
    trust(server.context, (tmp_path / "chain.pem").read_bytes())
    assert server.shake(client).version() == "TLSv1.3"


def test_the_numbers_of_ciphers_are_those_of_the_registry() -> None:
    """RFC 8446 appendix B.4."""
    assert configure(Tls(), "", b"", WHERE).suites["TLS_AES_128_GCM_SHA256"] == 0x1301


def test_what_is_in_memory_has_a_path_for_a_while() -> None:
    """And leaves no descriptor behind."""
    before = os.listdir("/proc/self/fd")
    with in_memory(b"secret") as path:
        assert Path(path).read_bytes() == b"secret"
        assert Path(path).read_bytes() == b"secret"
    assert os.listdir("/proc/self/fd") == before


def test_openssl_s_reasons_are_put_plainly() -> None:
    """What a system call says is left as it is."""
    with pytest.raises(ssl.SSLError) as caught:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers("ROT13")
    assert plain_reason(caught.value) == "No cipher can be selected."
    caught.value.reason = "KEY_VALUES_MISMATCH"
    assert plain_reason(caught.value) == "key values mismatch"
    assert plain_reason(FileNotFoundError(2, "No such file")) == "No such file"
    assert plain_reason(ValueError("what else")) == "what else"
