"""Certificates and private keys in PEM files (RFC 7468): what is in them, what belongs together.

Files are read once, as bytes; what is made of them never looks at the disk again. So a file that is
replaced meanwhile cannot make a pair of two halves. What OpenSSL judges better (whether a key fits
its certificate, whether a cipher would take it) is left to OpenSSL.

This is the only module that knows `cryptography`, which Twisted's TLS brings along. It is imported
by workers that speak TLS only.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtensionOID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Pair", "PemError", "certificates", "identity", "pair", "pairs", "pem_files"]

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n.*?-----END \1-----", re.DOTALL)


#: What `cryptography` raises for what it cannot read.
_UNREADABLE = (TypeError, UnsupportedAlgorithm, ValueError, x509.InvalidVersion)
#: And for the extensions of a certificate, which reads them all to find one.
_NAMELESS = (
    ValueError,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)


class PemError(Exception):
    """What is wrong with a file, which is named."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key.

    `place` is the file of the certificate, `chain` the PEM of the certificate and those behind it,
    `leaf` its own alone, `key` that of the private key, which may be encrypted. `names` are the DNS
    names that it is good for, in lower case; `expires` is the end of its validity, in seconds since
    1970.
    """

    place: str
    chain: bytes
    leaf: str
    key: bytes
    names: tuple[str, ...]
    begins: float
    expires: float

    @property
    def label(self) -> str:
        """How a log line calls it."""
        return f"certificate {self.place} ({', '.join(self.names) or 'no DNS names'})"


def certificates(place: str, data: bytes) -> bytes:
    """Return the certificates in the PEM `data` of the file `place`, and nothing else of it.

    Raises `PemError`, as do all that read a file, when the data ends within a block: somebody is
    writing it, or has stopped in the middle.
    """
    return b"".join(
        block + b"\n" for label, block in _blocks(place, data) if label == b"CERTIFICATE"
    )


def identity(der: bytes) -> tuple[str, float]:
    """Return whose a certificate is, as RFC 4514 writes it, and its end in seconds since 1970.

    One that cannot be read is that of "", which nobody is called, and has ended.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        return certificate.subject.rfc4514_string(), certificate.not_valid_after_utc.timestamp()
    except _UNREADABLE:
        return "", 0.0


def pair(place: str, data: bytes, key: bytes, behind: bytes = b"") -> Pair:
    """Return the first certificate of the PEM `data`, which stood in `place`, with its `key`.

    The chain is what follows it there, and the certificates `behind`. Raises `PemError` when there
    is none.
    """
    for label, block in _blocks(place, data):
        if label == b"CERTIFICATE":
            return _pair(_certificate(place, block), certificates(place, data) + behind, key)
    message = f"{place!r} holds no certificate in PEM"
    raise PemError(message)


def pem_files(directory: str) -> list[str]:
    """Return the files below `directory` that are called `*.pem`, sorted.

    Links to files are followed, those to directories are not, which might go in circles. Hidden
    directories are left out: Kubernetes keeps there what its links point to. Raises `OSError`.
    """
    found: list[str] = []
    for folder, folders, names in os.walk(directory, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.join(folder, name) for name in names if name.endswith(".pem")]
    return sorted(found)


def pairs(files: Iterable[tuple[str, bytes]], password: Callable[[], bytes]) -> list[Pair]:
    """Return the pairs among `files`, each with its path, as Twisted's `tls:` finds them.

    Keys and certificates belong together when they have the same public key, wherever they stand.
    The chain behind a certificate is made of those that have no key, by the names of the issuers.
    `password` is called for encrypted keys. Raises `PemError`.
    """
    keys: dict[bytes, bytes] = {}
    found: dict[bytes, _Certificate] = {}
    for place, data in files:
        for label, block in _blocks(place, data):
            if label == b"CERTIFICATE" and block not in found:
                found[block] = _certificate(place, block)
            elif label.endswith(b"PRIVATE KEY"):
                keys[_key(place, block, password)] = block
    signers = {each.subject: each for each in found.values() if each.public not in keys}
    return [
        _pair(each, b"".join(_chain(each, signers)), key)
        for each in found.values()
        if (key := keys.get(each.public))
    ]


@dataclass(frozen=True, slots=True)
class _Certificate:
    """What is of interest of one; `public` is its public key, b"" for one of an unknown kind."""

    place: str
    block: bytes
    subject: x509.Name
    issuer: x509.Name
    public: bytes
    names: tuple[str, ...]
    begins: float
    expires: float


def _chain(certificate: _Certificate, signers: dict[x509.Name, _Certificate]) -> Iterator[bytes]:
    """Yield the PEM of a certificate, and that of those who signed it."""
    left = dict(signers)  # each once: a root has signed itself
    signer: _Certificate | None = certificate
    while signer is not None:
        yield signer.block + b"\n"
        signer = left.pop(signer.issuer, None)


def _blocks(place: str, data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield label and text of each block."""
    found = list(_BLOCK.finditer(data))
    if len(found) != data.count(b"-----BEGIN "):
        message = f"{place!r} ends within a block of PEM"
        raise PemError(message)
    for match in found:
        yield match[1], match[0]


def _certificate(place: str, block: bytes) -> _Certificate:
    try:
        found = x509.load_pem_x509_certificate(block)
        return _Certificate(
            place=place,
            block=block,
            subject=found.subject,
            issuer=found.issuer,
            public=_public(found),
            names=_names(found),
            begins=found.not_valid_before_utc.timestamp(),
            expires=found.not_valid_after_utc.timestamp(),
        )
    except _UNREADABLE:
        message = f"{place!r} holds a certificate that cannot be read"
        raise PemError(message) from None


def _key(place: str, block: bytes, password: Callable[[], bytes]) -> bytes:
    """Return the public key that belongs to a private one."""
    try:
        try:
            key = serialization.load_pem_private_key(block, None)
        except TypeError:  # it is encrypted
            key = serialization.load_pem_private_key(block, password())
        return _public(key)
    except _UNREADABLE:
        message = f"{place!r} holds a private key that cannot be read, or not with this password"
        raise PemError(message) from None


def _public(owner: Any) -> bytes:
    """Return the public key of a certificate or of a private key."""
    try:
        key = owner.public_key()
    except UnsupportedAlgorithm:
        return b""
    return bytes(
        key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def _pair(certificate: _Certificate, chain: bytes, key: bytes) -> Pair:
    return Pair(
        place=certificate.place,
        chain=chain,
        leaf=certificate.block.decode("ascii", "replace").replace("\r\n", "\n") + "\n",
        key=key,
        names=certificate.names,
        begins=certificate.begins,
        expires=certificate.expires,
    )


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = certificate.extensions.get_extension_for_oid(
            ExtensionOID.SUBJECT_ALTERNATIVE_NAME
        )
    except _NAMELESS:
        return ()
    value: Any = extension.value
    return tuple(name.lower() for name in value.get_values_for_type(x509.DNSName))


def _raise(error: OSError) -> None:
    raise error
