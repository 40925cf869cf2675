"""What is said of TLS handshakes that fail: one line, without a traceback.

Clients that leave in the middle are not worth one: health checks connect and close.
"""

from __future__ import annotations

import logging
import ssl
import sys
from typing import TYPE_CHECKING, Any

from daphne_supervisor.worker.tls import plain_reason

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["contain_names", "failure"]

logger = logging.getLogger("daphne_supervisor.worker")

#: In people's words what OpenSSL calls otherwise.
_WORDS = {
    "HTTP_REQUEST": "the client speaks plain HTTP",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client has no certificate (--client-certs required)",
    "WRONG_VERSION_NUMBER": "what the client speaks is no TLS",
    "UNSUPPORTED_PROTOCOL": "the client speaks too old a version only (--tls-min)",
    "NO_SHARED_CIPHER": "the client knows none of the ciphers (--ciphers)",
}
_GONE = (ssl.SSLEOFError, ssl.SSLZeroReturnError)


def failure(error: Exception) -> str | None:
    """Return why a handshake has ended with `error`, None when the client has left."""
    if isinstance(error, ConnectionAbortedError):
        return "not done within --tls-handshake-timeout"
    if not isinstance(error, ssl.SSLError) or isinstance(error, _GONE):
        return None
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate is refused: {error.verify_message}"
    return _WORDS.get(getattr(error, "reason", "")) or plain_reason(error)


def contain_names() -> None:
    """Let server names that are no ASCII end their handshake, and nothing more.

    Python decodes a name before it asks us, and reports a failure to `sys.unraisablehook`, which
    prints a traceback: any client could fill the log.
    """
    sys.unraisablehook = _Contained(sys.unraisablehook)


class _Contained:
    """Everybody else's hook, except for names that no client may send."""

    def __init__(self, hook: Callable[[Any], Any]) -> None:
        self._hook = hook

    def __call__(self, unraisable: Any) -> None:
        """Report what is `unraisable`, but a name at a lower level."""
        name = unraisable.object
        if isinstance(unraisable.exc_value, UnicodeDecodeError) and isinstance(name, bytes):
            logger.debug("TLS: a client wants a server of the name %r", name)
        else:
            self._hook(unraisable)
