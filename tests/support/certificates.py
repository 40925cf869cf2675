"""Certificates for tests: an authority that writes files, and handshakes with them in memory."""

from __future__ import annotations

import os
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import trustme

from daphne_supervisor.config import Tls
from daphne_supervisor.endpoints import TlsFiles
from daphne_supervisor.worker.tls_credentials import Credentials

if TYPE_CHECKING:
    import datetime as dt
    from pathlib import Path

__all__ = ["Authority", "rewrite", "shake"]


def rewrite(path: Path, data: bytes) -> None:
    """Replace the file at `path` as programs should: nobody sees half of it."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(data)
    new.replace(path)


def shake(
    server: ssl.SSLContext,
    client: ssl.SSLContext,
    name: str | None = "localhost",
    session: ssl.SSLSession | None = None,
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Return the client's and the server's end of a completed handshake. Raises `ssl.SSLError`."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(up, down, server_side=True)
    theirs = client.wrap_bio(down, up, server_hostname=name, session=session)
    for _ in range(4):
        for end in (theirs, ours):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    ours.write(b"x")
    assert theirs.read(1) == b"x"  # with it come the tickets of TLS 1.3
    return theirs, ours


class Authority:
    """Issues keys and certificates into a folder; `cert.pem`, `key.pem` and `chain.pem` at once.

    `trust` is the context of a client that believes it.
    """

    def __init__(self, folder: Path, kind: trustme.KeyType = trustme.KeyType.ECDSA) -> None:
        """Write the first certificate, for `localhost`, and the authority's own, `ca.pem`."""
        self.folder = folder
        self._root = trustme.CA()
        self._between = self._root.create_child_ca()
        self.trust = self.client()
        self.write("ca.pem", self._root.cert_pem.bytes())
        self.issue(kind=kind)

    def write(self, name: str, data: bytes) -> Path:
        """Write a file, at once."""
        rewrite(self.folder / name, data)
        return self.folder / name

    def client(self, pair: Path | None = None) -> ssl.SSLContext:
        """Return the context of a client, with the certificate and key in `pair` if given."""
        context = ssl.create_default_context()
        self._root.configure_trust(context)
        if pair is not None:
            context.load_cert_chain(pair)
        return context

    def issue(
        self,
        *names: str,
        stem: str = "",
        kind: trustme.KeyType = trustme.KeyType.ECDSA,
        until: dt.datetime | None = None,
    ) -> str:
        """Write `cert.pem`, `key.pem`, `chain.pem` and `all.pem`; return the first one's text.

        Their names begin with `stem`.
        """
        issued = self._between.issue_cert(
            *(names or ("localhost", "127.0.0.1")), key_type=kind, not_after=until
        )
        first, *others = issued.cert_chain_pems
        chain = b"".join(blob.bytes() for blob in others)
        self.write(f"{stem}key.pem", issued.private_key_pem.bytes())
        self.write(f"{stem}cert.pem", first.bytes())
        self.write(f"{stem}chain.pem", chain)
        self.write(f"{stem}all.pem", issued.private_key_pem.bytes() + first.bytes() + chain)
        return first.bytes().decode()

    def files(self, **more: str) -> TlsFiles:
        """Return the first certificate's files; `more` are other parts, by the names of files."""
        names = {"private_key": "key.pem", "certificate": "cert.pem", "chain": "chain.pem", **more}
        places = {
            key: str(self.folder / name) if name and key != "method" else name
            for key, name in names.items()
        }
        return replace(TlsFiles(), **places)

    def credentials(self, tls: Tls | None = None, **more: str) -> Credentials:
        """Return the credentials of an `ssl:` endpoint with `files(**more)`."""
        return Credentials(self.files(**more), tls or Tls(), "--endpoint ssl:443")

    def directory(self, name: str, tls: Tls | None = None) -> Credentials:
        """Return the credentials of a `tls:` endpoint whose directory is in the folder."""
        place = os.path.join(self.folder, name)
        return Credentials(TlsFiles(directory=place), tls or Tls(), "--endpoint tls:x")

    def shake(
        self,
        server: Credentials,
        client: ssl.SSLContext | None = None,
        name: str | None = "localhost",
        session: Any = None,
    ) -> tuple[ssl.SSLObject, ssl.SSLObject]:
        """Return both ends of a handshake with `server`, the client's first."""
        return shake(server.context, client or self.trust, name, session)
