"""Every way to say where to listen is served by the real command."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import httpx
import pytest
import trustme

from tests.support.daphne import APPS, Daphne, run_command

if TYPE_CHECKING:
    from pathlib import Path

HELLO = f"{APPS}:hello"


def answered_by(server: Daphne, url: str, **how: object) -> bool:
    """Return whether one of the server's workers answers at `url`."""
    with httpx.Client(transport=httpx.HTTPTransport(**how), timeout=10) as client:  # type: ignore[arg-type]
        return int(client.get(url).text) in server.worker_pids()


def left_over(path: Path) -> None:
    """Leave a socket file at `path` as a server that was killed does."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


@pytest.mark.parametrize("arguments", [(), ("--threads", "4"), ("-v", "2"), ("-b", "127.0.0.1")])
def test_a_tcp_port(arguments: tuple[str, ...]) -> None:
    """`-p 0` takes a free port and logs it, whatever stands beside it."""
    with Daphne(HELLO, "-p", "0", *arguments) as server:
        assert answered_by(server, server.url)


def test_an_ipv6_interface() -> None:
    """`-b ::1` needs no brackets."""
    with Daphne(HELLO, "-b", "::1", "-p", "0") as server:
        assert answered_by(server, f"http://[::1]:{server.port}")


def test_the_ipv6_wildcard_serves_both_families() -> None:
    """`-b ::` is what a container writes for "everywhere"."""
    with Daphne(HELLO, "-b", "::", "-p", "0") as server:
        assert answered_by(server, f"http://[::1]:{server.port}")
        assert answered_by(server, f"http://127.0.0.1:{server.port}")


def test_a_stale_unix_socket_is_replaced_and_removed(tmp_path: Path) -> None:
    """A file that nobody listens on is no obstacle, and our own is gone at the end."""
    path = tmp_path / "x.sock"
    left_over(path)
    with Daphne(HELLO, "-u", str(path)) as server:
        assert answered_by(server, "http://localhost", uds=str(path))
    assert not path.exists()


def test_a_living_unix_socket_is_left_alone(tmp_path: Path) -> None:
    """A second instance says so in one line, ends with 3, and takes nothing from the first."""
    path = tmp_path / "x.sock"
    with Daphne(HELLO, "-u", str(path)) as server:
        second = run_command("-u", str(path), HELLO)
        assert second.returncode == 3
        assert "--unix-socket" in second.stderr.splitlines()[-1]
        assert "Traceback" not in second.stderr
        assert answered_by(server, "http://localhost", uds=str(path))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_an_inherited_listener(family: socket.AddressFamily, tmp_path: Path) -> None:
    """`--fd` finds out by itself what it was given, and does not remove what is not its own."""
    path = tmp_path / "x.sock"
    address = {socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0)}.get(family, str(path))
    with socket.socket(family) as listener:
        listener.bind(address)
        listener.listen()
        number = listener.fileno()
        with Daphne(HELLO, "--fd", str(number), pass_fds=[number]) as server:
            if family == socket.AF_UNIX:
                assert answered_by(server, "http://localhost", uds=str(path))
            else:
                host = "[::1]" if family == socket.AF_INET6 else "127.0.0.1"
                assert answered_by(server, f"http://{host}:{listener.getsockname()[1]}")
    assert path.exists() is (family == socket.AF_UNIX)


def test_a_tls_endpoint(tmp_path: Path) -> None:
    """`-e ssl:` speaks TLS with the key and certificate it names."""
    authority = trustme.CA()
    pair = authority.issue_cert("localhost")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    pair.private_key_pem.write_to_path(str(key))
    for piece in pair.cert_chain_pems:
        piece.write_to_path(str(certificate), append=True)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    endpoint = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
    with Daphne(HELLO, "-e", endpoint) as server:
        assert answered_by(server, f"https://localhost:{server.port}", verify=context)


def test_several_endpoints_together(tmp_path: Path) -> None:
    """Two `-e`, a port and a unix socket are four listeners, each served by every worker."""
    path = tmp_path / "x.sock"
    endpoints = ("-e", "tcp:0:interface=127.0.0.1", "-e", "tcp:port=0:interface=localhost")
    with Daphne(HELLO, *endpoints, "-p", "0", "-u", str(path), "--workers", "2") as server:
        assert len(server.ports) == 3
        assert all(answered_by(server, f"http://127.0.0.1:{port}") for port in server.ports)
        assert answered_by(server, "http://localhost", uds=str(path))


MISTAKES = [
    (("--frob",), 2, "--frob"),
    (("-p", "x"), 2, "--port"),
    (("-p", "65536"), 2, "--port"),
    (("-w", "0"), 2, "--workers"),
    (("-v", "4"), 2, "--verbosity"),
    (("--fd", "1000"), 3, "--fd"),
    (("--fd", "0"), 3, "--fd"),
    (("-e", "ssl:0:privateKey=/nowhere/key.pem"), 3, "/nowhere/key.pem"),
    (("-e", "imap:143"), 2, "--endpoint"),
    (("--proxy-headers-host", "X-Real-IP"), 2, "--proxy-headers-host"),
    (("--config", "/nowhere.toml"), 2, "--config"),
    (("--chdir", "/nowhere"), 3, "--chdir"),
    (("--access-log", "/nowhere/log"), 3, "--access-log"),
]


@pytest.mark.parametrize(("arguments", "code", "named"), MISTAKES)
def test_a_mistake_is_one_line(arguments: tuple[str, ...], code: int, named: str) -> None:
    """It names the option, ends with 2 or 3, and shows no traceback."""
    ended = run_command("-v", "0", *arguments, HELLO)
    assert ended.returncode == code
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert named in ended.stderr


def test_a_taken_port_is_one_line() -> None:
    """Of the two who want it, the second is told so, and ends with 3."""
    with socket.create_server(("127.0.0.1", 0)) as first:
        port = str(first.getsockname()[1])
        ended = run_command("-v", "0", "-p", port, HELLO)
    assert ended.returncode == 3
    assert len(ended.stderr.splitlines()) == 1
    assert f"--port {port}" in ended.stderr
