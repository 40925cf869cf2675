"""Certificates and keys in PEM files, and what belongs together."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from daphne_supervisor.worker.tls_pem import (
    PemError,
    certificates,
    identity,
    pair,
    pairs,
    pem_files,
)
from tests.support.certificates import Authority

BROKEN = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
UNTIL = dt.datetime(2030, 1, 2, tzinfo=dt.UTC)


KEY = ec.derive_private_key(7, ec.SECP256R1()).private_bytes(
    Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
)


def no_password() -> bytes:
    """Be asked for none."""
    raise AssertionError


def nameless() -> bytes:
    """Return a certificate without alternative names, signed by itself, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Smith, John")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(UNTIL - dt.timedelta(1))
        .not_valid_after(UNTIL)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )


nameless_once = functools.cache(nameless)


def test_extensions_that_contradict_each_other_name_nobody(tmp_path: Path) -> None:
    """Such a certificate is served to who wants no name; there is no traceback."""
    der = ssl.PEM_cert_to_DER_cert(Authority(tmp_path).issue("shop.example"))
    constraints, names = b"\x06\x03\x55\x1d\x13", b"\x06\x03\x55\x1d\x11"
    assert (der.count(constraints), der.count(names)) == (1, 1)
    twice = ssl.DER_cert_to_PEM_cert(der.replace(constraints, names)).encode()
    assert pair("here", twice, b"the key").names == ()


def test_a_pair_is_what_the_files_say(tmp_path: Path) -> None:
    """The first certificate is the server's own; what stands around it is left out."""
    authority = Authority(tmp_path)
    text = authority.issue("Shop.example", "*.shop.example", until=UNTIL)
    data = b"Bag attributes: \xff\n" + text.encode() + b"text\n" + BROKEN
    found = pair("here", data, b"the key", b"and more")
    assert (found.place, found.key) == ("here", b"the key")
    assert found.chain == text.encode() + BROKEN + b"and more"
    assert found.leaf == text
    assert found.names == ("shop.example", "*.shop.example")
    assert found.begins < found.expires == UNTIL.timestamp()
    assert found.label == "certificate here (shop.example, *.shop.example)"


def test_a_key_may_stand_before_its_certificate(tmp_path: Path) -> None:
    """In one file, as many keep them."""
    Authority(tmp_path)
    whole = (tmp_path / "all.pem").read_bytes()
    found = pair("here", whole, whole)
    assert b"PRIVATE KEY" in whole.partition(b"\n")[0]
    assert b"KEY" not in found.chain
    assert found.leaf == (tmp_path / "cert.pem").read_text()


def test_a_certificate_need_not_have_names() -> None:
    """Clients that verify names refuse it; others, inside a network, may not."""
    found = pair("here", nameless().replace(b"\n", b"\r\n"), b"")
    assert found.names == ()
    assert found.label == "certificate here (no DNS names)"
    assert found.leaf == nameless()[:27].decode() + found.leaf[27:]
    assert "\r" not in found.leaf


@pytest.mark.parametrize("data", [b"", b"text"])
def test_a_file_without_a_certificate_is_named(data: bytes) -> None:
    """It may be another one by mistake."""
    with pytest.raises(PemError, match=r"^'here' holds no certificate in PEM$"):
        pair("here", data, b"")


def test_a_file_that_is_half_written_is_not_believed() -> None:
    """Its first certificate may be whole, and the chain behind it cut off."""
    data = nameless() + BROKEN[:-10]
    for read in (lambda: pair("here", data, b""), lambda: certificates("here", data)):
        with pytest.raises(PemError, match=r"^'here' ends within a block of PEM$"):
            read()
    with pytest.raises(PemError, match=r"^'here' ends within a block of PEM$"):
        pairs([("here", data)], no_password)


def test_a_certificate_that_cannot_be_read_is_named() -> None:
    """With its file."""
    with pytest.raises(PemError, match=r"^'here' holds a certificate that cannot be read$"):
        pair("here", BROKEN, b"")


def test_certificates_are_taken_out_of_a_bundle(tmp_path: Path) -> None:
    """Bundles have comments in any encoding, and some have keys."""
    Authority(tmp_path)
    own, key = ((tmp_path / name).read_bytes() for name in ("cert.pem", "key.pem"))
    assert certificates("here", b"# Autorit\xe9\n" + own + key + own) == own * 2
    assert certificates("here", key) == b""


def test_a_name_is_written_as_rfc_4514_has_it() -> None:
    """A comma in a name cannot pass for the end of it."""
    der = x509.load_pem_x509_certificate(nameless()).public_bytes(Encoding.DER)
    assert identity(der) == (r"CN=Smith\, John", UNTIL.timestamp())
    assert identity(b"nothing of the kind") == ("", 0.0)


def test_files_of_a_directory_are_found_below_it(tmp_path: Path) -> None:
    """Links to files are followed; what Kubernetes hides is not found twice."""
    for name in ("..2026/c.pem", "b/b.pem", "b/b.key", "a.pem"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "c.pem").symlink_to("..2026/c.pem")
    (tmp_path / "circle").symlink_to(".")
    names = [Path(path).relative_to(tmp_path).as_posix() for path in pem_files(str(tmp_path))]
    assert names == ["a.pem", "b/b.pem", "c.pem"]
    with pytest.raises(OSError, match="No such file"):
        pem_files(str(tmp_path / "missing"))


@pytest.mark.parametrize("kind", [trustme.KeyType.ECDSA, trustme.KeyType.RSA])
def test_keys_find_their_certificates(tmp_path: Path, kind: trustme.KeyType) -> None:
    """Wherever they stand, once each, with the chain behind the certificate."""
    authority = Authority(tmp_path)
    authority.issue("a.example", stem="a-", kind=kind)
    authority.issue("b.example", stem="b-", kind=kind)
    names = ("a-key", "b-all", "a-cert", "a-chain", "a-all", "ca")
    files = [(name, (tmp_path / f"{name}.pem").read_bytes()) for name in names]
    first, second = sorted(pairs(files, no_password), key=lambda each: each.names)
    assert (first.names, second.names) == (("a.example",), ("b.example",))
    assert (first.place, second.place) == ("a-cert", "b-all")
    for each, stem in ((first, "a"), (second, "b")):
        whole = (f"{stem}-cert.pem", f"{stem}-chain.pem", "ca.pem")
        expected = b"".join((tmp_path / name).read_bytes() for name in whole)
        assert each.chain == expected


def test_what_has_no_counterpart_is_left_out(tmp_path: Path) -> None:
    """A key without its certificate, a certificate without its key, what is neither."""
    authority = Authority(tmp_path)
    authority.issue("other.example", stem="other-")
    files = [(name, (tmp_path / name).read_bytes()) for name in ("cert.pem", "other-key.pem")]
    files.append(("dh", BROKEN.replace(b"CERTIFICATE", b"DH PARAMETERS")))
    assert pairs(files, no_password) == []


def test_an_encrypted_key_takes_its_password(tmp_path: Path) -> None:
    """Which is asked for only then; a wrong one is said to be one."""
    Authority(tmp_path)
    subprocess.run(
        ["openssl", "pkey", "-in", "key.pem", "-aes128", "-passout", "pass:hush", "-out", "x.pem"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=30,
    )
    files = [(name, (tmp_path / name).read_bytes()) for name in ("cert.pem", "x.pem")]
    assert len(pairs(files, lambda: b"hush")) == 1
    with pytest.raises(PemError, match=r"^'x.pem' holds a private key that cannot be read, or not"):
        pairs(files, lambda: b"loud")


def test_a_key_of_an_unknown_kind_belongs_to_nobody(tmp_path: Path) -> None:
    """Its certificate may still sign others; OpenSSL may know more than we do."""
    Authority(tmp_path)
    p256 = bytes.fromhex("06082a8648ce3d030107")  # the curve, and one that there is not
    der = ssl.PEM_cert_to_DER_cert((tmp_path / "cert.pem").read_text())
    assert der.count(p256) == 1
    unknown = ssl.DER_cert_to_PEM_cert(der.replace(p256, p256[:-1] + b"\x7f")).encode()
    key = (tmp_path / "key.pem").read_bytes()
    assert pairs([("here", unknown + key)], no_password) == []
    assert pair("here", unknown, key).names == ("localhost",)


@given(st.data())
def test_whatever_is_in_a_file_it_is_named(data: st.DataObject) -> None:
    """Nothing that is broken escapes as another error, or as none that is understood."""
    kind = data.draw(st.sampled_from(["CERTIFICATE", "PRIVATE KEY", "EC PRIVATE KEY"]))
    der = bytearray(ssl.PEM_cert_to_DER_cert(nameless_once().decode()))
    if kind != "CERTIFICATE":
        der = bytearray(KEY)
    for _ in range(data.draw(st.integers(0, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    body = base64.encodebytes(bytes(der)) if data.draw(st.booleans()) else bytes(der)
    block = f"-----BEGIN {kind}-----\n".encode() + body + f"\n-----END {kind}-----\n".encode()
    for read in (
        lambda: pair("here", block, b""),
        lambda: pairs([("here", block)], lambda: b"hush"),
    ):
        with suppress(PemError):
            read()
    identity(bytes(der))


def test_a_key_that_cannot_be_read_is_named() -> None:
    """With its file."""
    broken = BROKEN.replace(b"CERTIFICATE", b"PRIVATE KEY")
    with pytest.raises(PemError, match=r"^'here' holds a private key that cannot be read"):
        pairs([("here", broken)], no_password)
