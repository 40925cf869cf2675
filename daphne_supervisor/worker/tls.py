"""TLS contexts from the files that an `ssl:` endpoint names."""

from __future__ import annotations

import re
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from daphne_supervisor.errors import BootError

if TYPE_CHECKING:
    from daphne_supervisor.endpoints import TlsFiles
    from daphne_supervisor.listeners import Listener

__all__ = ["context_for"]

#: `sslmethod` as pyOpenSSL spells it, for one version and no other.
_METHOD = re.compile(r"TLSv1(?:_(\d))?_METHOD")
_ANY_METHODS = {"", "SSLv23_METHOD", "TLS_METHOD"}
_VERSIONS = {
    "2": ssl.TLSVersion.TLSv1_2,
    "3": ssl.TLSVersion.TLSv1_3,
}


def context_for(listener: Listener) -> ssl.SSLContext | None:
    """Return the context of a listener, `None` for one without TLS.

    Raises `BootError`, naming the endpoint and the file, when something in it cannot be used.
    """
    files = listener.tls
    if files is None:
        return None
    where = f"{listener.endpoint.origin} {listener.endpoint.text}"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    _set_version(context, files.method, where)
    _load_certificate(context, files, where)
    if files.dh_parameters:
        try:
            context.load_dh_params(files.dh_parameters)
        except (OSError, ssl.SSLError) as error:
            message = f"{where}: dhParameters {files.dh_parameters!r} cannot be used: {error}"
            raise BootError(message) from None
    return context


def _set_version(context: ssl.SSLContext, method: str, where: str) -> None:
    if method in _ANY_METHODS:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return
    match = _METHOD.fullmatch(method)
    version = _VERSIONS.get(match[1]) if match else None
    if version is None:
        known = "TLS_METHOD, SSLv23_METHOD, TLSv1_2_METHOD or TLSv1_3_METHOD"
        message = f"{where}: sslmethod {method!r} is not {known}"
        raise BootError(message)
    context.minimum_version = context.maximum_version = version


def _load_certificate(context: ssl.SSLContext, files: TlsFiles, where: str) -> None:
    """Load certificate, chain and key; OpenSSL wants the first two in one file."""
    try:
        with tempfile.NamedTemporaryFile(suffix=".pem") as joined:
            joined.write(Path(files.certificate).read_bytes() + b"\n")
            if files.chain:
                joined.write(Path(files.chain).read_bytes())
            joined.flush()
            context.load_cert_chain(joined.name, files.private_key, password=_no_password)
    except ssl.SSLError as error:
        reason = error.reason or "not a certificate and its private key in PEM"
        message = (
            f"{where}: privateKey {files.private_key!r} and certKey {files.certificate!r}: {reason}"
        )
        raise BootError(message) from None
    except (OSError, ValueError) as error:
        message = f"{where}: {error}"
        raise BootError(message) from None


def _no_password() -> str:
    message = "the private key is encrypted; a server cannot ask for its password"
    raise ValueError(message)
