"""Which listener speaks TLS, and with which files."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from daphne_supervisor.config import Tls
from daphne_supervisor.endpoints import Endpoint, TlsFiles
from daphne_supervisor.errors import UsageError
from daphne_supervisor.listeners import Listener
from daphne_supervisor.tls_files import check, files_for

OWN = TlsFiles("own.key", "own.pem")
WITH_KEY = Tls(certfile="c.pem", keyfile="k.pem")


def listener(origin: str, tls: TlsFiles | None = None, *, unix: bool = False) -> Listener:
    """Return a listener that `origin` has asked for; its socket is closed."""
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as unbound:
        endpoint = Endpoint(kind="ssl" if tls else "tcp", text="x", origin=origin, tls=tls)
        return Listener(unbound, endpoint, "somewhere")


@pytest.mark.parametrize("origin", ["--port", "--fd", "LISTEN_FDS"])
def test_what_plain_options_ask_for_has_the_files_of_the_options(origin: str) -> None:
    """Without a --keyfile the key stands beside its certificate."""
    assert files_for(listener(origin), WITH_KEY) == TlsFiles("k.pem", "c.pem")
    assert files_for(listener(origin), Tls(certfile="c.pem")) == TlsFiles("c.pem", "c.pem")
    assert files_for(listener(origin), Tls()) is None


def test_an_endpoint_string_says_itself_what_is_spoken() -> None:
    """So that one server may speak both."""
    assert files_for(listener("--endpoint", OWN), WITH_KEY) == OWN
    assert files_for(listener("--endpoint"), WITH_KEY) is None


@pytest.mark.parametrize("origin", ["--unix-socket", "--fd", "LISTEN_FDS"])
def test_a_unix_socket_speaks_plain_text(origin: str) -> None:
    """Whoever has opened it."""
    assert files_for(listener(origin, unix=True), WITH_KEY) is None


def test_a_certificate_that_nobody_would_use_is_a_mistake() -> None:
    """Who gives one believes that TLS is spoken."""
    check([listener("--endpoint")], Tls())
    check([listener("--endpoint"), listener("--port")], WITH_KEY)
    for useless in ([], [listener("--endpoint")], [listener("--endpoint", OWN)]):
        with pytest.raises(UsageError, match=r"^--certfile: nothing is listened on"):
            check(useless, WITH_KEY)


def test_client_certificates_that_nobody_would_ask_for_are_a_mistake() -> None:
    """Who demands them must not be served in plain text, to everybody."""
    asked = Tls(ca_certs="ca.pem", client_certs="required")
    check([listener("--port"), listener("--endpoint", OWN)], asked)
    check([listener("--port")], replace(asked, certfile="c.pem"))
    for useless in ([listener("--port")], [listener("--endpoint")]):
        with pytest.raises(UsageError, match=r"^--client-certs: nothing is listened on"):
            check(useless, asked)
