"""The ASGI TLS extension 0.2: what an application is told of the connection.

Made once for each connection. What a client has sent is passed on as far as it was verified: the
specification wants a chain in which each signs the one before, and a client may send anything
beside it. OpenSSL keeps the certificate alone in a session; so after a resumption the chain is
that one certificate.

OpenSSL does not look at the certificate again when a session is resumed, and with TLS 1.3 each
resumption brings another ticket: a client could go on for ever. So its end is looked at here.
"""

from __future__ import annotations

import math
import ssl
from typing import Any

__all__ = ["describe"]

_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


def describe(connection: ssl.SSLObject, now: float) -> dict[str, Any]:
    """Return `scope["extensions"]["tls"]` for a `connection` whose handshake is done.

    Its context is one of `worker.tls.Presented`; `now` is the time in seconds since 1970. There is
    a `client_cert_error` when the certificate of a resumed session has expired meanwhile. Whatever
    else cannot be verified has ended the handshake.
    """
    context: Any = connection.context
    cipher = connection.cipher()
    chain, name, expires = _client(connection, context)
    return {
        "server_cert": context.certificate,
        "client_cert_chain": chain,
        "client_cert_name": name,
        "client_cert_error": "certificate has expired" if expires < now else None,
        "tls_version": _VERSIONS.get(connection.version() or ""),
        "cipher_suite": context.suites.get(cipher[0]) if cipher else None,
    }


def _client(
    connection: ssl.SSLObject, context: ssl.SSLContext
) -> tuple[list[str], str | None, float]:
    """Return the client's chain in PEM, its name and its end; nothing without a certificate."""
    asked = context.verify_mode is not ssl.CERT_NONE
    leaf = connection.getpeercert(binary_form=True) if asked else None
    if leaf is None:
        return [], None, math.inf
    from daphne_supervisor.worker import tls_pem  # noqa: PLC0415 - it is there: nothing is loaded

    sent = set(_certificates(connection, "get_unverified_chain"))
    verified = _certificates(connection, "get_verified_chain")
    behind = [each for each in verified[1:] if each in sent]
    chain = [ssl.DER_cert_to_PEM_cert(each) for each in (leaf, *behind)]
    return chain, *tls_pem.identity(leaf)


def _certificates(connection: Any, name: str) -> list[bytes]:
    """Return a chain in DER. What Python 3.13 made public was there before, as objects."""
    public = getattr(connection, name, None)
    if public is not None:
        return list(public())
    private = getattr(connection._sslobj, name)  # noqa: SLF001 - there is no other way
    return [ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in private() or ()]
