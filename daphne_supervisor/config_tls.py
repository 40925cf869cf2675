"""The section of the configuration that is about TLS.

As in `config`, every field carries its `Option`; times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from daphne_supervisor import values
from daphne_supervisor.options import duration, option, path

__all__ = ["Tls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """TLS."""

    certfile: str | None = path(
        "--certfile",
        metavar="FILE",
        help="PEM file of the certificate and the chain behind it. The TCP sockets of --bind,"
        " --port, --fd and of systemd then speak TLS; unix sockets do not.",
    )
    keyfile: str | None = path(
        "--keyfile",
        metavar="FILE",
        standard="--certfile",
        help="PEM file of the private key; needs --certfile.",
    )
    keyfile_password: str | None = option(
        "--keyfile-password",
        parse=values.secret,
        metavar="FILE|env:NAME",
        help="Where the password of encrypted keys stands: a file, whose first line it is, or the"
        " environment variable NAME. Never the password itself, which everybody would see in ps.",
    )
    ca_certs: str | None = path(
        "--ca-certs",
        metavar="FILE",
        help="PEM file of the authorities that client certificates may come from; needs"
        " --client-certs.",
    )
    client_certs: str = option(
        "--client-certs",
        parse=values.client_certs,
        metavar="none|optional|required",
        default="none",
        help="Whether clients are asked for a certificate, and refused without one. A wrong one is"
        " refused by both; needs --ca-certs.",
    )
    minimum: str = option(
        "--tls-min",
        parse=values.tls_version,
        metavar="1.2|1.3",
        default="1.2",
        help="Oldest version of TLS that is spoken; those before 1.2 are broken (RFC 8996).",
    )
    ciphers: str = option(
        "--ciphers",
        parse=values.text,
        metavar="LIST",
        default="",
        standard="forward secrecy and AEAD",
        help="Ciphers of TLS 1.2 in OpenSSL's notation, the best first; those of TLS 1.3 are"
        " OpenSSL's own, and all are good.",
    )
    alpn: tuple[str, ...] = option(
        "--alpn",
        parse=values.protocols,
        metavar="LIST",
        default=("h2", "http/1.1"),
        repeated=True,
        help="Protocols to agree upon in the handshake, the best first: h2, http/1.1.",
    )
    handshake_timeout: float = duration(
        "--tls-handshake-timeout",
        default=10.0,
        help="Time in which a TLS handshake must be done; it takes two round trips.",
    )
