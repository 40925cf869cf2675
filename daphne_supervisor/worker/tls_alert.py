"""Tells a client why its handshake has failed (RFC 8446 section 6).

OpenSSL has the alert ready, but the event loop drops a connection whose handshake fails without
another look at what was to be sent, and a client with an expired certificate would learn no more
than that its connection was reset. So the alert is written here, straight to the socket.

Which socket that is neither OpenSSL nor Python's `ssl` knows: it is remembered in the context that
a connection is accepted in, and which the loop keeps for its callbacks.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from contextvars import ContextVar

__all__ = ["Alerting", "descriptor"]

descriptor: ContextVar[int] = ContextVar("descriptor", default=-1)
"""The file descriptor of the connection that is being opened, -1 for none."""


class Alerting(ssl.SSLObject):
    """One end of a connection that sends its alert when the handshake fails.

    `outgoing` is where OpenSSL puts what is to be sent, `descriptor` that of the socket.
    """

    outgoing: ssl.MemoryBIO
    descriptor: int

    def do_handshake(self) -> None:
        """Go on with the handshake. Raises `ssl.SSLError`, as `ssl.SSLObject` does."""
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            if self.descriptor >= 0 and self.outgoing.pending:
                with contextlib.suppress(OSError):  # it has left, or takes nothing
                    os.write(self.descriptor, self.outgoing.read())
            raise
