"""Connections whose clients have chosen HTTP/2, and such a client."""

from __future__ import annotations

import ssl
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from h2.config import H2Configuration
from h2.connection import H2Connection

from tests.support.transports import Line, Transport

if TYPE_CHECKING:
    from daphne_supervisor.worker.service import Service

__all__ = ["FIELDS", "chosen", "h2_client"]


class Spoken:
    """Our end of TLS, as far as it is asked."""

    context = SimpleNamespace(certificate="", suites={}, verify_mode=ssl.CERT_NONE)

    def __init__(self, protocol: str | None) -> None:
        """Have agreed on `protocol`."""
        self.protocol = protocol

    def version(self) -> str:
        """Return the version."""
        return "TLSv1.3"

    def cipher(self) -> None:
        """Return nothing: nobody is going to look."""

    def selected_alpn_protocol(self) -> str | None:
        """Return it."""
        return self.protocol


def chosen(served: Service, protocol: str | None = "h2", peer: Any = None) -> Line:
    """Return a connection whose client has chosen `protocol` in the TLS handshake."""
    transport = Transport(peer)
    transport.ssl_object = Spoken(protocol)
    return Line(served, secure=True, transport=transport)


def h2_client() -> H2Connection:
    """Return a client that shares no code with us but hpack."""
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    return client


FIELDS = [(":method", "GET"), (":scheme", "https"), (":authority", "test"), (":path", "/a")]
