"""The servers that are compared, and the command line of each as it would run in production.

One worker, no reloading, no debugging, the fastest parser and event loop that the server's own
documentation offers; everything else is left at its default, ours included.
"""

from __future__ import annotations

import datetime as dt
import enum
import ipaddress
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["BASELINE", "OURS", "SERVERS", "Certificate", "Mode", "Server", "make_certificate"]

HELLO = "benchmarks.application:application"
"""What is served unless a scenario says otherwise, as module:attribute."""
ROOT = Path(__file__).parents[1]
OURS = "daphne-supervisor"
BASELINE = "baseline"
"""Ours too, from another checkout."""


class Mode(enum.Enum):
    """How a server is run."""

    PLAIN = "plain"
    ACCESS_LOG = "access log"
    TLS = "tls"
    HTTP2 = "http/2"


@dataclass(frozen=True)
class Certificate:
    """Paths of a self-signed certificate and of its key, both PEM."""

    chain: Path
    key: Path


@dataclass(frozen=True)
class Server:
    """One server: its distribution, its command line, and what each mode adds to it.

    In the words of a command line `{port}`, `{chain}`, `{key}` and `{log}` are replaced. Where the
    access log of a mode has no option for a file, it goes to the standard output, which is a file.
    """

    distribution: str
    module: str
    words: str
    additions: Mapping[Mode, str]
    checkout: Path = ROOT
    extras: tuple[str, ...] = field(default=())
    """Distributions that decide how fast it is."""

    def command(
        self, mode: Mode, port: int, log: Path, certificate: Certificate, application: str = HELLO
    ) -> Sequence[str]:
        """Return the command line that serves `application` on `port`.

        HTTP/2 is spoken over TLS, and needs nothing else unless an addition says so.
        """
        addition = self.additions[mode if mode in self.additions else Mode.TLS]
        words = f"{self.words} {addition} {application}"
        places = {"port": port, "log": log, "chain": certificate.chain, "key": certificate.key}
        return [sys.executable, "-m", self.module, *words.format_map(places).split()]

    def environment(self) -> dict[str, str]:
        """Return what is added to the environment: where the code and the application are."""
        return {"PYTHONPATH": f"{self.checkout}:{ROOT}"}

    def versions(self) -> dict[str, str]:
        """Return the versions of the server and of what it is made of, by distribution."""
        return {name: version(name) for name in (self.distribution, *self.extras)}


SERVERS: dict[str, Server] = {
    OURS: Server(
        "daphne-supervisor",
        "daphne_supervisor",
        "-v 0",
        {
            Mode.PLAIN: "--port {port}",
            Mode.ACCESS_LOG: "--port {port} --access-log {log}",
            Mode.TLS: "--endpoint ssl:{port}:interface=127.0.0.1:certKey={chain}:privateKey={key}",
        },
        extras=("twisted", "autobahn", "h2", "uvloop"),
    ),
    "uvicorn": Server(
        "uvicorn",
        "uvicorn",
        "--port {port} --loop uvloop --http httptools --ws websockets-sansio",
        {
            Mode.PLAIN: "--log-level warning --no-access-log",
            Mode.ACCESS_LOG: "--log-level info",
            Mode.TLS: "--log-level warning --no-access-log "
            "--ssl-certfile {chain} --ssl-keyfile {key}",
        },
        extras=("httptools", "uvloop", "websockets"),
    ),
    "granian": Server(
        "granian",
        "granian",
        "--interface asgi --workers 1 --port {port} --loop uvloop",
        {
            Mode.PLAIN: "--log-level warning",
            Mode.ACCESS_LOG: "--access-log",
            Mode.TLS: "--log-level warning --ssl-certificate {chain} --ssl-keyfile {key}",
        },
        extras=("uvloop",),
    ),
    "gunicorn": Server(
        "gunicorn",
        "gunicorn",
        "--worker-class asgi --asgi-loop uvloop --bind 127.0.0.1:{port}",
        {
            Mode.PLAIN: "",
            Mode.ACCESS_LOG: "--access-logfile {log}",
            Mode.TLS: "--certfile {chain} --keyfile {key}",
            Mode.HTTP2: "--certfile {chain} --keyfile {key} --http-protocols h2,h1",
        },
        extras=("gunicorn-h1c", "h2", "uvloop"),
    ),
    "hypercorn": Server(
        "hypercorn",
        "hypercorn",
        "--worker-class uvloop",
        {
            Mode.PLAIN: "--bind 127.0.0.1:{port}",
            Mode.ACCESS_LOG: "--bind 127.0.0.1:{port} --access-logfile {log}",
            Mode.TLS: "--bind 127.0.0.1:{port} --certfile {chain} --keyfile {key}",
        },
        extras=("h11", "h2", "wsproto", "uvloop"),
    ),
    "daphne": Server(
        "daphne",
        "daphne",
        "-v 0",
        {
            Mode.PLAIN: "--port {port}",
            Mode.ACCESS_LOG: "--port {port} --access-log {log}",
            Mode.TLS: "--endpoint ssl:{port}:interface=127.0.0.1:certKey={chain}:privateKey={key}",
        },
        extras=("twisted", "autobahn"),
    ),
}


def make_certificate(folder: Path) -> Certificate:
    """Write a certificate for 127.0.0.1 (P-256, ten days) and its PKCS 8 key into `folder`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=10))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    made = Certificate(folder / "chain.pem", folder / "key.pem")
    made.chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return made
