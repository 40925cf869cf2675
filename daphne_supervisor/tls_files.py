"""Which listener speaks TLS, and with which files.

An endpoint string says it itself: `ssl:` and `tls:` do, `tcp:` and `unix:` do not. What was asked
for by plain options (--bind, --port, --fd) or handed over without being asked for speaks TLS when
there is a --certfile. Unix sockets never do: what passes there leaves the machine's kernel at no
place, and file permissions say who may connect.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from daphne_supervisor.endpoints import INHERITED, TlsFiles
from daphne_supervisor.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daphne_supervisor.config_tls import Tls
    from daphne_supervisor.listeners import Listener

__all__ = ["check", "files_for"]

_PLAIN = frozenset({"--port", "--fd", INHERITED})
"""Origins of endpoints that say nothing of TLS themselves."""


def files_for(listener: Listener, tls: Tls) -> TlsFiles | None:
    """Return the files that `listener` speaks TLS with, None for plain text."""
    if listener.tls is not None:
        return listener.tls
    plain = listener.endpoint.origin in _PLAIN and listener.socket.family != socket.AF_UNIX
    if tls.certfile is None or not plain:
        return None
    return TlsFiles(tls.keyfile or tls.certfile, tls.certfile)


def check(listeners: Iterable[Listener], tls: Tls) -> None:
    """Raise `UsageError` when no listener would do what is asked for.

    A --certfile needs one that uses it, --client-certs one that speaks TLS: who demands
    certificates believes that strangers are kept out.
    """
    listeners = tuple(listeners)
    speaking = [each for each in listeners if files_for(each, tls) is not None]
    if tls.client_certs != "none" and not speaking:
        message = (
            "--client-certs: nothing is listened on that would ask for them: give --certfile, or an"
            " endpoint string of the kind ssl: or tls:"
        )
        raise UsageError(message)
    if tls.certfile is not None and all(each.tls is not None for each in speaking):
        message = (
            "--certfile: nothing is listened on that would speak TLS with it: give --bind or"
            " --port, or an endpoint string of the kind ssl:"
        )
        raise UsageError(message)
