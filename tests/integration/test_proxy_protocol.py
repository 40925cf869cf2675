"""PROXY headers, read by the real command from proxies that were declared."""

from __future__ import annotations

import json
import socket
import ssl
import struct
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from tests.support.client import Client, CutError
from tests.support.daphne import APPS, Daphne
from tests.support.endpoint_plugin import installed
from tests.support.programs import Program
from tests.support.tools import tool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROBE = f"{APPS}:probe"
TWO = ("--workers", "2")
V1 = b"PROXY TCP4 192.0.2.7 198.51.100.9 4711 443\r\n"
V2 = b"\r\n\r\n\x00\r\nQUIT\n"
CLIENT, SERVER = ["192.0.2.7", 4711], ["198.51.100.9", 443]
_HOSTS = bytes((192, 0, 2, 7, 198, 51, 100, 9))
HEADERS = [V1, V2 + struct.pack("!BBH8sHH", 0x21, 0x11, 12, _HOSTS, 4711, 443)]
ENDPOINT = "haproxy:tcp:0:interface=127.0.0.1"


def scope_of(client: Client, *lines: str) -> dict[str, Any]:
    """Return the scope that the application sees."""
    scope: dict[str, Any] = json.loads(client.get("/scope", *lines).text)
    return scope


@pytest.fixture(scope="module")
def shared() -> Iterator[Daphne]:
    """Return a server behind a proxy, which believes forwarding headers of proxies."""
    with Daphne(PROBE, "-e", ENDPOINT, "--proxy-headers", *TWO) as server:
        yield server


@pytest.mark.parametrize("options", [("-e", ENDPOINT), ("--proxy-protocol", "optional")])
def test_the_client_is_who_the_header_says(options: tuple[str, ...]) -> None:
    """In the scope and in the access log, whichever way it was asked for and arrives."""
    with Daphne(PROBE, *options, *TWO) as server:
        for header in HEADERS:
            with Client(server.port) as client:
                client.send(header)
                scope = scope_of(client)
                assert (scope["client"], scope["server"]) == (CLIENT, SERVER)
            with Client(server.port) as client:
                for byte in header:
                    client.send(bytes([byte]))
                assert scope_of(client)["client"] == CLIENT
    assert server.final_log.count("192.0.2.7:4711 - - ") == 2 * len(HEADERS)


def test_forwarding_headers_are_the_declared_client_s(shared: Daphne) -> None:
    """They are believed if the client in the header is a trusted proxy too, and not otherwise."""
    for host, believed in ((b"192.0.2.7", CLIENT[0]), (b"127.0.0.1", "203.0.113.5")):
        with Client(shared.port) as client:
            client.send(V1.replace(b"192.0.2.7", host))
            scope = scope_of(client, "X-Forwarded-For: 203.0.113.5")
            assert scope["client"][0] == believed
    with Client(shared.port) as client:
        client.send(b"PROXY UNKNOWN\r\n")
        scope = scope_of(client, "X-Forwarded-For: 203.0.113.5")
        assert scope["client"] == list(client.socket.getsockname())


def refused(client: Client) -> bool:
    """Return whether the connection ends without an answer."""
    try:
        client.get("/")
    except (CutError, ConnectionError):
        return True
    return False


def test_who_sends_no_header_is_closed_and_named() -> None:
    """One line each, with the reason and the option; a neighbour is served."""
    with Daphne(PROBE, "--proxy-protocol", "required", *TWO) as server:
        with Client(server.port) as client:
            assert refused(client)
        with Client(server.port) as client:
            client.send(b"PROXY TCP4 one two 3 4\r\n")
            assert refused(client)
        with Client(server.port) as client:
            client.send(V1)
            assert client.get("/").status == 200
    log = server.final_log
    assert "closed: PROXY header: --proxy-protocol required, and the connection does not" in log
    assert "closed: PROXY header: version 1:" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("wanted", ["optional", "required"])
def test_nobody_else_is_believed(wanted: str) -> None:
    """An untrusted peer's header is a bad request where it is optional, else the end."""
    options = ("--proxy-protocol", wanted, "--forwarded-allow-ips", "192.0.2.1")
    with Daphne(PROBE, *options, *TWO) as server, Client(server.port) as client:
        client.send(V1)
        if wanted == "required":
            assert refused(client)
        else:
            assert client.get("/").status == 400
    named = "its sender is not in --forwarded-allow-ips" in server.final_log
    assert named is (wanted == "required")


def test_a_header_that_does_not_come_is_waited_for_no_longer_than_a_head() -> None:
    """--head-timeout holds for it, and the log says so; --max-connections counts who waits."""
    options = ("-e", ENDPOINT, "--head-timeout", "0.5", "--max-connections", "1")
    with Daphne(PROBE, *options) as server, Client(server.port) as client:
        client.send(V1[:20])
        with Client(server.port) as neighbour:
            neighbour.send(V1)
            assert neighbour.get("/").status == 200
        with pytest.raises((CutError, ConnectionError)):
            client.response()
    assert "PROXY header: it is not whole within --head-timeout" in server.final_log
    assert "--max-connections 1" in server.final_log


def test_a_unix_socket(tmp_path: Path) -> None:
    """A proxy beside us says whose connection it is."""
    path = tmp_path / "x.sock"
    with Daphne(PROBE, "-e", f"haproxy:unix:{path}") as server, Client(str(path)) as client:
        client.send(V1)
        scope = scope_of(client)
        assert (scope["client"], scope["server"]) == (CLIENT, SERVER)
        assert server.workers()


def test_a_socket_of_a_service_manager() -> None:
    """It may stand behind a proxy as any other."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Daphne(PROBE, "-e", "haproxy:systemd:name=web", activated=[listener.fileno()], names="web"),
        Client(listener.getsockname()[1]) as client,
    ):
        client.send(V1)
        assert scope_of(client)["client"] == CLIENT


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, ssl.SSLContext]:
    """Return a file with key and certificate for localhost, and a context that trusts it."""
    authority, path = trustme.CA(), tmp_path / "pair.pem"
    issued = authority.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(str(path))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return str(path), context


@pytest.mark.parametrize(
    "inner", ["ssl:0:privateKey={}:interface=127.0.0.1", "pyssl:0:{}"], ids=["own", "plug-in"]
)
def test_the_header_stands_before_tls(
    inner: str, pair: tuple[str, ssl.SSLContext], tmp_path: Path
) -> None:
    """With our own TLS, and with a plug-in's."""
    path, context = pair
    env = installed(tmp_path / "plug-ins")
    with (
        Daphne(PROBE, "-e", "haproxy:" + inner.format(path), *TWO, env=env) as server,
        Client(server.port) as client,
    ):
        client.send(HEADERS[1])
        client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
        scope = scope_of(client)
        assert (scope["client"], scope["scheme"]) == (CLIENT, "https")


def test_a_drain_waits_for_a_header() -> None:
    """A connection that was accepted is served, even if the header comes after the TERM."""
    with Daphne(PROBE, "-e", ENDPOINT) as server, Client(server.port) as client:
        with Client(server.port) as first:
            first.send(V1)
            first.get("/")
        client.send(V1[:9])
        server.process.terminate()
        server.wait(lambda said: "STOPPING=1" in said)
        client.send(V1[9:])
        assert client.get("/").status == 200
        assert server.wait_exit() == 0


CONFIGURATION = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 10s
    timeout server 10s
listen one
    bind fd@{front} {tls}
    server own 127.0.0.1:{port} {how}
"""


@pytest.mark.parametrize(
    "how",
    [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id",
        "send-proxy-v2-ssl-cn",
    ],
)
def test_a_real_haproxy(
    how: str, shared: Daphne, pair: tuple[str, ssl.SSLContext], tmp_path: Path
) -> None:
    """Both versions as HAProxy writes them, with what it adds; TLS that it ends is https."""
    path, context = pair
    encrypted = "ssl" in how
    configuration = tmp_path / "haproxy.cfg"
    with socket.create_server(("127.0.0.1", 0)) as front:
        text = CONFIGURATION.format(
            front=front.fileno(),
            tls=f"ssl crt {path}" if encrypted else "",
            port=shared.port,
            how=how,
        )
        configuration.write_text(text)
        command = [tool("haproxy", "haproxy"), "-db", "-f", str(configuration)]
        with (
            Program(command, pass_fds=[front.fileno()]),
            Client(front.getsockname()[1]) as client,
        ):
            own = list(client.socket.getsockname())
            if encrypted:
                client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
            scope = scope_of(client)
            assert scope["client"] == own
            assert scope["server"] == list(front.getsockname())
            assert scope["scheme"] == ("https" if encrypted else "http")
