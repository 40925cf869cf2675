"""What a listener shows its TLS clients, and how it changes."""

from __future__ import annotations

import datetime as dt
import logging
import os
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest
import trustme

from daphne_supervisor.config import Tls
from daphne_supervisor.endpoints import TlsFiles
from daphne_supervisor.errors import BootError
from daphne_supervisor.worker.tls_credentials import Credentials, cause
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
DAY = dt.timedelta(1)
NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Return an authority whose files are in a fresh folder."""
    return Authority(tmp_path)


def shown(authority: Authority, server: Credentials, name: str | None = "localhost") -> str:
    """Return the certificate that a client is shown who wants `name`."""
    client = authority.client()
    client.check_hostname = False
    theirs, _ = authority.shake(server, client, name)
    return ssl.DER_cert_to_PEM_cert(theirs.getpeercert(binary_form=True) or b"")


def lock(authority: Authority, name: str) -> None:
    """Write `key.pem` as `name`, encrypted by the password `hush`."""
    subprocess.run(
        ["openssl", "pkey", "-in", "key.pem", "-aes128", "-passout", "pass:hush", "-out", name],
        cwd=authority.folder,
        check=True,
        capture_output=True,
        timeout=30,
    )


def messages(lines: list[tuple[int, str]], level: int = logging.INFO) -> list[str]:
    """Return the texts of `lines`, which are all of one level."""
    assert {each for each, _ in lines} <= {level}
    return [text for _, text in lines]


# -- files --


def test_a_client_is_served_the_whole_chain(authority: Authority) -> None:
    """It knows the root only."""
    theirs, ours = authority.shake(authority.credentials())
    assert theirs.version() == "TLSv1.3"
    assert ours.context.certificate == (authority.folder / "cert.pem").read_text()  # type: ignore[attr-defined]


def test_a_protocol_is_agreed_upon(authority: Authority) -> None:
    """The context that a connection is moved to offers what the first one does."""
    authority.trust.set_alpn_protocols(["http/1.1"])
    theirs, _ = authority.shake(authority.credentials())
    assert theirs.selected_alpn_protocol() == "http/1.1"


def test_a_chain_that_is_not_given_is_not_served(authority: Authority) -> None:
    """The files are what counts: nothing is made up."""
    with pytest.raises(ssl.SSLCertVerificationError):
        authority.shake(authority.credentials(chain=""))


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"private_key": "missing.pem"}, r"missing\.pem' cannot be read: No such file"),
        ({"certificate": "missing.pem"}, r"missing\.pem' cannot be read: No such file"),
        ({"chain": "missing.pem"}, r"missing\.pem' cannot be read: No such file"),
        ({"dh_parameters": "missing.pem"}, r"missing\.pem' cannot be read: No such file"),
        ({"dh_parameters": "text.pem"}, r"dhParameters cannot be used: "),
        ({"private_key": "text.pem"}, r"privateKey .*text\.pem' and .*': there is no private key"),
        ({"chain": "text.pem"}, r"extraCertChain .*text\.pem' holds no certificate in PEM"),
        ({"certificate": "text.pem"}, r"text\.pem' holds no certificate in PEM"),
        ({"private_key": "other-key.pem"}, r"privateKey .*other-key\.pem' .*: key values mismatch"),
        ({"method": "SSLv3_METHOD"}, r"sslmethod 'SSLv3_METHOD' is not "),
    ],
)
def test_files_that_cannot_be_used_are_named(
    authority: Authority, more: dict[str, str], named: str
) -> None:
    """In one line, with the endpoint; the worker does not boot."""
    authority.write("text.pem", b"nothing of the kind\n")
    authority.issue("other", stem="other-")
    with pytest.raises(BootError, match=f"^--endpoint ssl:443: .*{named}") as caught:
        authority.credentials(**more)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tls", "option"),
    [
        (Tls(ca_certs="/missing.pem", client_certs="required"), "--ca-certs"),
        (Tls(keyfile_password="/missing.pem"), "--keyfile-password"),
    ],
)
def test_a_file_is_looked_for_in_the_option_that_names_it(
    authority: Authority, tls: Tls, option: str
) -> None:
    """And not in the endpoint."""
    with pytest.raises(BootError, match=rf"^{option}: '/missing\.pem' cannot be read: No such"):
        authority.credentials(tls)


def test_a_wrong_password_is_said_in_words(authority: Authority) -> None:
    """OpenSSL's own are "PEM lib"."""
    lock(authority, "locked.pem")
    password = str(authority.write("password", b"wrong\n"))
    with pytest.raises(BootError, match=r"can be read, or not with this password$"):
        authority.credentials(Tls(keyfile_password=password), private_key="locked.pem")


def test_plain_options_are_named_as_they_are_written(authority: Authority) -> None:
    """Who has given --keyfile has never heard of privateKey."""
    authority.issue("other", stem="other-")
    files = authority.files(private_key="other-key.pem")
    with pytest.raises(BootError, match=r"^--certfile: --keyfile .*other.* and --certfile .*: key"):
        Credentials(files, Tls(), "--certfile")


def test_a_path_that_no_file_can_have_is_named(authority: Authority) -> None:
    """A configuration file can hold what no shell can."""
    with pytest.raises(BootError, match="cannot be read: embedded null byte"):
        Credentials(TlsFiles("a\0b", "a\0b"), Tls(), "--certfile")
    del authority


# -- passwords --


def test_an_encrypted_key_takes_its_password_from_a_file(authority: Authority) -> None:
    """Its first line."""
    lock(authority, "locked.pem")
    place = str(authority.write("secret", b"hush\r\nmore\n"))
    server = authority.credentials(Tls(keyfile_password=place), private_key="locked.pem")
    assert shown(authority, server) == (authority.folder / "cert.pem").read_text()
    authority.write("secret", b"")
    with pytest.raises(BootError, match=r"privateKey .*locked\.pem'"):
        authority.credentials(Tls(keyfile_password=place), private_key="locked.pem")


def test_an_encrypted_key_takes_its_password_from_the_environment(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where container platforms put secrets."""
    lock(authority, "locked.pem")
    tls = Tls(keyfile_password="env:SHOP_KEY")
    monkeypatch.setenv("SHOP_KEY", "hush")
    assert authority.credentials(tls, private_key="locked.pem").pairs
    monkeypatch.delenv("SHOP_KEY")
    with pytest.raises(BootError, match=r"^--keyfile-password env:SHOP_KEY: there is no such"):
        authority.credentials(tls, private_key="locked.pem")


def test_an_encrypted_key_without_a_password_is_refused(authority: Authority) -> None:
    """A worker has no terminal to ask for one, and must not wait for it."""
    lock(authority, "locked.pem")
    with pytest.raises(BootError, match="the private key is encrypted, and needs --keyfile-pass"):
        authority.credentials(private_key="locked.pem")


# -- clients --


@pytest.mark.parametrize("version", VERSIONS)
def test_client_certificates_are_verified(authority: Authority, version: ssl.TLSVersion) -> None:
    """By the authorities in the file."""
    tls = Tls(client_certs="required", ca_certs=str(authority.folder / "ca.pem"))
    server = authority.credentials(tls)
    known = authority.client(authority.folder / "all.pem")
    known.maximum_version = authority.trust.maximum_version = version
    authority.shake(server, known)
    with pytest.raises(ssl.SSLError):
        authority.shake(server)


def test_authorities_that_cannot_be_used_are_named(authority: Authority) -> None:
    """With the option."""
    block = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    cases = ((b"text", "holds no"), (block, "no start line"), (block[:-9], "'.*' ends within"))
    for data, reason in cases:
        place = str(authority.write("bad.pem", data))
        with pytest.raises(BootError, match=f"^--ca-certs '{place}': {reason}"):
            authority.credentials(Tls(client_certs="optional", ca_certs=place))


# -- sessions --


@pytest.mark.parametrize("asked", ["none", "optional"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_outlives_its_certificate(
    authority: Authority, version: ssl.TLSVersion, asked: str
) -> None:
    """What seals tickets stays, whatever is replaced; new handshakes see what is new."""
    tls = Tls(client_certs=asked, ca_certs=str(authority.folder / "ca.pem"))
    server = authority.credentials(tls)
    authority.trust.maximum_version = version
    theirs, _ = authority.shake(server)
    assert not theirs.session_reused
    new = authority.issue()
    server.look()
    again, _ = authority.shake(server, session=theirs.session)
    assert again.session_reused
    assert shown(authority, server) == new


def test_sessions_end_with_the_trust_in_clients(authority: Authority) -> None:
    """A resumed session is not verified again: who is not believed any more must be refused."""
    tls = Tls(client_certs="required", ca_certs=str(authority.folder / "ca.pem"))
    server = authority.credentials(tls)
    client = authority.client(authority.folder / "all.pem")
    theirs, _ = authority.shake(server, client)
    authority.write("ca.pem", trustme.CA().cert_pem.bytes())
    assert messages(server.look()) == [
        f"TLS: other authorities in {tls.ca_certs}; sessions of before are not resumed"
    ]
    with pytest.raises(ssl.SSLCertVerificationError):
        authority.shake(server, client, session=theirs.session)


# -- replacement --


def test_nothing_changes_while_the_files_do_not(authority: Authority) -> None:
    """And nothing is said."""
    server = authority.credentials()
    context, pairs = server.context, server.pairs
    assert [server.look() for _ in range(3)] == [[]] * 3
    assert (server.context, server.pairs) == (context, pairs)


@pytest.mark.parametrize("kind", [trustme.KeyType.ECDSA, trustme.KeyType.RSA])
def test_a_replaced_pair_is_taken_up(authority: Authority, kind: trustme.KeyType) -> None:
    """Of any kind: a client that prefers the old kind is not shown the old pair."""
    server = authority.credentials()
    old = shown(authority, server)
    new = authority.issue("localhost", kind=kind)
    place = authority.folder / "cert.pem"
    assert messages(server.look()) == [f"TLS: certificate {place} (localhost) has been taken up"]
    assert shown(authority, server) == new != old
    authority.trust.maximum_version = ssl.TLSVersion.TLSv1_2
    authority.trust.set_ciphers("ECDHE+aECDSA" if kind is trustme.KeyType.RSA else "ECDHE+aRSA")
    with pytest.raises(ssl.SSLError):
        authority.shake(server)
    assert [server.look() for _ in range(3)] == [[]] * 3


def test_a_link_that_points_elsewhere_is_a_replacement(authority: Authority) -> None:
    """So do certbot and Kubernetes: the files themselves never change."""
    for number in (1, 2):
        folder = authority.folder / f"..{number}"
        folder.mkdir()
        text = Authority(folder).issue() if number == 1 else ""
        if number == 2:
            text = authority.issue(stem="..2/")
        (folder / "text").write_text(text)
    (authority.folder / "..data").symlink_to("..1")
    server = authority.credentials(
        certificate="..data/cert.pem", private_key="..data/key.pem", chain="..data/chain.pem"
    )
    assert shown_text(authority, "..1") == server.pairs[0].leaf
    new = authority.folder / "..data_tmp"
    new.symlink_to("..2")
    os.replace(new, authority.folder / "..data")
    assert len(server.look()) == 1
    assert shown(authority, server) == shown_text(authority, "..2")


def shown_text(authority: Authority, folder: str) -> str:
    """Return the certificate that was written to `folder`."""
    return (authority.folder / folder / "text").read_text()


@pytest.mark.parametrize(
    ("name", "data", "complaint"),
    [
        ("cert.pem", b"", "holds no certificate in PEM"),
        ("cert.pem", b"-----BEGIN CERTIFICATE-----\nMIIB", "cert.pem' ends within a block of PEM"),
        ("chain.pem", b"-----BEGIN CERTIFICATE-----\nMIIB", "chain.pem' ends within a block of"),
        ("key.pem", b"-----BEGIN PRIVATE KEY-----\nMIIB", "privateKey "),
        ("cert.pem", None, "key values mismatch"),
        ("key.pem", None, "key values mismatch"),
    ],
)
def test_a_broken_replacement_keeps_the_old_pair(
    authority: Authority, name: str, data: bytes | None, complaint: str
) -> None:
    """It is said once, when the file has not changed between two looks, and can be mended."""
    server = authority.credentials()
    old = shown(authority, server)
    before = (authority.folder / name).read_bytes()
    authority.issue("localhost", stem="other-")
    other = (authority.folder / f"other-{name}").read_bytes()
    authority.write(name, other if data is None else data)
    assert server.look() == []
    (said,) = messages(server.look(), logging.WARNING)
    assert said.startswith("TLS: --endpoint ssl:443: ")
    assert complaint in said
    assert str(authority.folder) in said
    assert said.endswith("; what was served before is still served")
    assert [server.look() for _ in range(3)] == [[]] * 3
    assert shown(authority, server) == old
    authority.write(name, before)
    assert [server.look() for _ in range(3)] == [[]] * 3
    assert shown(authority, server) == old


def test_files_that_are_written_one_by_one_are_no_error(authority: Authority) -> None:
    """Between two looks there may be any number of halves."""
    server = authority.credentials()
    new = authority.issue("localhost", stem="new-")
    authority.write("cert.pem", new.encode())
    assert server.look() == []
    authority.write("key.pem", (authority.folder / "new-key.pem").read_bytes())
    assert len(messages(server.look())) == 1
    assert shown(authority, server) == new


def test_who_may_not_read_is_told_what_helps() -> None:
    """The workers' user may be another one than the master's, whose key it is."""
    assert cause(FileNotFoundError(2, "No such file")) == "No such file"
    assert cause(PermissionError(13, "Permission denied")) == (
        "Permission denied (HUP has it read as the master's user)"
    )


def test_a_file_that_vanishes_is_named(authority: Authority) -> None:
    """What was served goes on."""
    server = authority.credentials()
    (authority.folder / "key.pem").unlink()
    assert server.look() == []
    (said,) = messages(server.look(), logging.WARNING)
    assert "key.pem' cannot be read: No such file or directory" in said
    assert shown(authority, server)


def test_a_file_that_was_touched_is_not_news(authority: Authority) -> None:
    """Its content counts."""
    server = authority.credentials()
    authority.write("cert.pem", (authority.folder / "cert.pem").read_bytes())
    shown_before = server.pairs
    assert [server.look() for _ in range(3)] == [[]] * 3
    assert server.pairs is shown_before


def test_what_a_process_cannot_read_is_known_beforehand(authority: Authority) -> None:
    """Whoever reads with less rights than the zygote can say so, and rests."""
    server = authority.credentials()
    assert server.unreadable() == []
    (authority.folder / "key.pem").unlink()
    assert server.unreadable() == [str(authority.folder / "key.pem")]
    server.rest()
    assert [server.look() for _ in range(2)] == [[]] * 2


# -- directories --


def test_names_have_their_own_certificates(authority: Authority, tmp_path: Path) -> None:
    """As Twisted's `tls:` has it: exact names, wildcards, and the first one for all others."""
    (tmp_path / "d").mkdir()
    first = authority.issue("a.example", stem="d/a-")
    second = authority.issue("b.example", "*.b.example", stem="d/b-")
    server = authority.directory("d")
    for name, expected in (
        ("a.example", first),
        ("A.Example", first),
        ("b.example", second),
        ("www.b.example", second),
        ("www.a.example", first),
        ("x.www.b.example", first),
        ("localhost", first),
        (None, first),
    ):
        assert shown(authority, server, name) == expected, name


def test_a_session_is_resumed_under_its_name(authority: Authority, tmp_path: Path) -> None:
    """Whichever certificate that has."""
    (tmp_path / "d").mkdir()
    authority.issue("a.example", stem="d/a-")
    authority.issue("b.example", stem="d/b-")
    server = authority.directory("d")
    theirs, _ = authority.shake(server, name="b.example")
    again, _ = authority.shake(server, name="b.example", session=theirs.session)
    assert again.session_reused


def test_of_several_certificates_for_a_name_the_best_is_shown(
    authority: Authority, tmp_path: Path
) -> None:
    """The one that is valid longest: old ones may lie about."""
    (tmp_path / "d").mkdir()
    authority.issue("a.example", stem="d/a-", until=NOW - DAY)
    good = authority.issue("a.example", stem="d/b-", until=NOW + 50 * DAY)
    authority.issue("a.example", stem="d/c-", until=NOW + 20 * DAY)
    server = authority.directory("d")
    assert shown(authority, server, "a.example") == good
    assert shown(authority, server, None) == good
    assert [pair.leaf for pair in server.pairs] == [good]


def test_a_new_file_in_a_directory_is_taken_up(authority: Authority, tmp_path: Path) -> None:
    """And one that is removed is forgotten; an empty directory changes nothing."""
    (tmp_path / "d").mkdir()
    first = authority.issue("a.example", stem="d/a-")
    server = authority.directory("d")
    second = authority.issue("b.example", stem="d/b-")
    assert len(messages(server.look())) == 1
    assert shown(authority, server, "b.example") == second
    for path in (tmp_path / "d").glob("b-*"):
        path.unlink()
    assert server.look() == []
    assert shown(authority, server, "b.example") == first
    for path in (tmp_path / "d").glob("*"):
        path.unlink()
    assert server.look() == []
    (said,) = messages(server.look(), logging.WARNING)
    assert "d' has no certificate with its private key in *.pem" in said
    (tmp_path / "d").rmdir()
    assert server.look() == []
    (said,) = messages(server.look(), logging.WARNING)
    assert "d' cannot be read: No such file or directory" in said
    assert server.unreadable() == [str(tmp_path / "d")]
    assert shown(authority, server, "a.example") == first


@pytest.mark.parametrize("kind", ["empty", "missing", "broken"])
def test_a_directory_that_cannot_be_used_is_named(
    authority: Authority, tmp_path: Path, kind: str
) -> None:
    """Before anybody is served."""
    if kind != "missing":
        (tmp_path / "d").mkdir()
    if kind == "broken":
        authority.write(
            "d/x.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        )
    with pytest.raises(BootError, match=r"^--endpoint tls:x: '.*/d"):
        authority.directory("d")


def test_a_key_that_openssl_does_not_take_is_named(authority: Authority, tmp_path: Path) -> None:
    """With the file of its certificate: 512 bits are too few for anybody."""
    (tmp_path / "d").mkdir()
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=x"),
            *("-keyout", "d/key.pem", "-out", "d/cert.pem"),
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=30,
    )
    with pytest.raises(BootError, match=r"d/cert\.pem' and its private key: ee key too small"):
        authority.directory("d")
    del authority


def test_a_password_is_for_directories_too(authority: Authority, tmp_path: Path) -> None:
    """The file with it may stand beside the keys."""
    (tmp_path / "d").mkdir()
    lock(authority, "d/key.pem")
    authority.write("d/cert.pem", (tmp_path / "cert.pem").read_bytes())
    authority.write("d/secret.pem", b"hush\n")
    server = authority.directory("d", Tls(keyfile_password=f"{tmp_path}/d/secret.pem"))
    assert server.pairs[0].names == ("localhost",)
    with pytest.raises(BootError, match="needs --keyfile-password"):
        authority.directory("d")
