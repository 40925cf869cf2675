"""What is spoken on a TLS connection: versions, ciphers, protocols, who may connect.

The defaults, and why. TLS 1.2 is the oldest version: RFC 8996 forbids those before. Its ciphers all
have forward secrecy and authenticate what they encrypt (RFC 7525, and what RFC 9113 asks of HTTP/2,
section 9.2.2), as Mozilla's intermediate configuration has them; since none of them is weak the
client chooses, which knows whether its processor has AES. An order that is given with --ciphers is
ours to keep. TLS 1.3's ciphers and the curves are OpenSSL's: a newer one brings the hybrids against
quantum computers with it. There is no compression (CRIME) and no renegotiation.
"""

from __future__ import annotations

import contextlib
import os
import re
import ssl
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from daphne_supervisor.errors import BootError
from daphne_supervisor.worker.tls_alert import Alerting, descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daphne_supervisor.config_tls import Tls
    from daphne_supervisor.worker.tls_pem import Pair

__all__ = ["Presented", "configure", "in_memory", "plain_reason", "present", "trust"]

#: Ephemeral elliptic curves, and AES-GCM or ChaCha20-Poly1305. Where an endpoint brings parameters
#: for it, the older kind of Diffie-Hellman too.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_CIPHERS_DH = f"{_CIPHERS}:DHE+AESGCM:DHE+CHACHA20:!aDSS"

#: `sslmethod` as pyOpenSSL spells it, for one version and no other.
_METHOD = re.compile(r"TLSv1(?:_(\d))?_METHOD")
_ANY_METHODS = {"", "SSLv23_METHOD", "TLS_METHOD", "TLS_SERVER_METHOD"}
_VERSIONS = {
    "2": ssl.TLSVersion.TLSv1_2,
    "3": ssl.TLSVersion.TLSv1_3,
}
_VERIFY = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


class Presented(ssl.SSLContext):
    """A context that knows what it presents: `certificate` is the PEM of the server's own."""

    certificate: str = ""
    sslobject_class = Alerting

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002 - as `ssl` has it
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> Alerting:
        """Return one end of a connection, which knows where to send an alert."""
        made: Any = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        made.outgoing, made.descriptor = outgoing, descriptor.get()
        return cast("Alerting", made)

    @cached_property
    def suites(self) -> dict[str, int]:
        """The numbers of the ciphers as RFC 8446 writes them, by OpenSSL's names."""
        return {each["name"]: each["id"] & 0xFFFF for each in self.get_ciphers()}


def configure(tls: Tls, method: str, dh_parameters: bytes, where: str) -> Presented:
    """Return a context without a certificate that speaks as `tls` and `method` say.

    `method` is the `sslmethod` of an endpoint, `dh_parameters` what its dhParameters hold, "" and
    empty where there are none. Raises `BootError`, which begins with `where`.
    """
    context = Presented(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    _set_version(context, method, tls.minimum, where)
    _set_ciphers(context, tls.ciphers, dh=bool(dh_parameters))
    if dh_parameters:
        _set_dh(context, dh_parameters, where)
    # A client that wants nothing of it speaks HTTP/1.1.
    context.set_alpn_protocols(tls.alpn)
    context.verify_mode = _VERIFY[tls.client_certs]
    return context


def _set_version(context: ssl.SSLContext, method: str, minimum: str, where: str) -> None:
    lowest = _VERSIONS[minimum[-1]]
    if method in _ANY_METHODS:
        context.minimum_version = lowest
        return
    match = _METHOD.fullmatch(method)
    version = _VERSIONS.get(match[1]) if match else None
    if version is None:
        known = "TLS_METHOD, SSLv23_METHOD, TLSv1_2_METHOD or TLSv1_3_METHOD"
        message = f"{where}: sslmethod {method!r} is not {known}"
        raise BootError(message)
    if version < lowest:
        message = f"{where}: sslmethod {method} is below --tls-min {minimum}"
        raise BootError(message)
    context.minimum_version = context.maximum_version = version


def _set_ciphers(context: ssl.SSLContext, ciphers: str, *, dh: bool) -> None:
    try:
        context.set_ciphers(ciphers or (_CIPHERS_DH if dh else _CIPHERS))
    except ssl.SSLError:
        message = f"--ciphers {ciphers!r}: OpenSSL knows no cipher of it"
        raise BootError(message) from None
    if ciphers:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE


def _set_dh(context: ssl.SSLContext, parameters: bytes, where: str) -> None:
    try:
        with in_memory(parameters) as path:
            context.load_dh_params(path)
    except (OSError, ssl.SSLError) as error:
        message = f"{where}: dhParameters cannot be used: {plain_reason(error)}"
        raise BootError(message) from None


def trust(context: ssl.SSLContext, authorities: bytes) -> None:
    """Believe client certificates that come from the PEM `authorities`.

    Raises `ssl.SSLError` or `ValueError` when they cannot be read.

    An authority between need not have its root there: what is in the file is trusted, and nothing
    else is.
    """
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=authorities.decode("ascii"))


def present(context: Presented, pair: Pair, password: Callable[[], bytes]) -> None:
    """Give `context` the `pair`; `password` is called for an encrypted key.

    Raises `OSError`, `ssl.SSLError` among them, or `ValueError` when the two do not fit or cannot
    be read.
    """
    with in_memory(pair.chain) as chain, in_memory(pair.key) as key:
        context.load_cert_chain(chain, key, password=password)
    context.certificate = pair.leaf


@contextlib.contextmanager
def in_memory(data: bytes) -> Iterator[str]:
    """Give `data` a path for as long as the block lasts: OpenSSL reads files, and nothing else."""
    number = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        os.write(number, data)
        yield f"/proc/self/fd/{number}"
    finally:
        os.close(number)


def plain_reason(error: Exception) -> str:
    """Return what OpenSSL has to say, in small letters; "KEY_VALUES_MISMATCH" is hers."""
    # Errors that Python has made itself have no reason, and some no more than a text.
    found = getattr(error, "reason", None) or getattr(error, "strerror", None)
    reason = str(found or " ".join(map(str, error.args)))
    return reason.lower().replace("_", " ") if reason.isupper() else reason
