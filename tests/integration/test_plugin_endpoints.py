"""Endpoints of Twisted's plug-ins, served by several workers of the real command."""

from __future__ import annotations

import asyncio
import json
import select
import signal
import socket
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from websockets.asyncio.client import connect

from tests.support.client import Client, get
from tests.support.daphne import APPS, Daphne, run_command
from tests.support.endpoint_plugin import installed
from tests.support.load import Load
from tests.support.succession import upgraded

PROBE = f"{APPS}:probe"
HELLO = f"{APPS}:hello"
TWO = ("--workers", "2", "--access-log", "/dev/null")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Return the environment in which the plug-in is found."""
    return installed(tmp_path / "plug-ins")


@pytest.fixture
def authority() -> trustme.CA:
    """Return who has signed the certificate of `pem`."""
    return trustme.CA()


@pytest.fixture
def pem(tmp_path: Path, authority: trustme.CA) -> str:
    """Return a file with a key and a certificate for localhost."""
    path = tmp_path / "pair.pem"
    pair = authority.issue_cert("localhost")
    pair.private_key_and_cert_chain_pem.write_to_path(str(path))
    return str(path)


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """Return a client's context that trusts `authority`."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def answering(port: int) -> set[int]:
    """Return the process ids that answer on so many connections that both workers should."""
    clients = [Client(port) for _ in range(8)]
    try:
        return {int(client.get("/hello").text) for client in clients}
    finally:
        for client in clients:
            client.close()


def test_a_plug_in_is_served_by_every_worker(env: dict[str, str]) -> None:
    """Its connections are shared as fairly as those of any listener, and the scope is right.

    At TERM a response in progress is completed, and the worker leaves.
    """
    with Daphne(PROBE, "-e", "box:0", *TWO, env=env) as server:
        assert answering(server.port) == set(server.worker_pids())
        with Client(server.port) as client:
            scope: dict[str, Any] = json.loads(client.get("/scope").text)
            assert scope["client"] == list(client.socket.getsockname())
            assert scope["server"] == ["127.0.0.1", server.port]
            assert scope["scheme"] == "http"
        with Client(server.port) as client:
            client.ask("/halves?1")
            assert client.head().status == 200
            assert client.piece() == b"one "
            server.signal(signal.SIGTERM)
            assert client.piece() == b"two"
        assert server.wait_exit() == 0


@pytest.mark.parametrize("kind", ["pyssl", "bare"])
def test_tls_of_a_plug_in(kind: str, env: dict[str, str], pem: str, authority: trustme.CA) -> None:
    """The scheme is https, and bodies larger than any buffer come through in both directions.

    Garbage in place of a handshake ends that connection, without a traceback.
    """
    endpoint = f"{kind}:0:{pem}"
    with (
        Daphne(PROBE, "-e", endpoint, *TWO, env=env) as server,
        httpx.Client(verify=trusting(authority), timeout=20) as client,
    ):
        with Client(server.port) as stranger:
            stranger.send(b"GET / HTTP/1.1\r\n\r\n")
            stranger.rest()
        url = f"https://localhost:{server.port}"
        assert client.get(f"{url}/scope").json()["scheme"] == "https"
        assert client.get(f"{url}/stream?4096").content == b"x" * 4096 * 1024
        body = bytes(range(256)) * 8192
        assert client.post(f"{url}/echo", content=body).content == body
    assert "Traceback" not in server.final_log


def test_a_unix_socket_of_a_plug_in(env: dict[str, str], tmp_path: Path) -> None:
    """It is made by the master with all that belongs to it, and removed at the end."""
    path = tmp_path / "x.sock"
    with Daphne(HELLO, "-e", f"vault:{path}", *TWO, env=env) as server:
        assert int(get(str(path), "/").text) in server.worker_pids()
    assert not path.exists()


def test_a_plug_in_that_listens_twice(env: dict[str, str]) -> None:
    """Both are listeners of every worker."""
    with Daphne(HELLO, "-e", "two:", "-e", "two:", *TWO, env=env) as server:
        assert len(set(server.ports)) == 4
        for port in server.ports:
            assert int(get(port, "/").text) in server.worker_pids()


def test_a_plug_in_that_adopts_a_descriptor(env: dict[str, str]) -> None:
    """Twisted closes what it has adopted; every worker goes on listening all the same."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        endpoint = ("-e", f"taken:{number}")
        with Daphne(HELLO, *endpoint, *TWO, env=env, pass_fds=[number]) as server:
            assert answering(server.port) == set(server.worker_pids())
            server.replace_all()
            assert answering(server.port) == set(server.worker_pids())


def test_a_reload_loses_no_request(env: dict[str, str]) -> None:
    """HUP replaces the workers, each new one asks the plug-in again; every request is served."""
    with (
        Daphne(f"{APPS}:hello", "-e", "box:0", *TWO, env=env) as server,
        Load(server.port) as load,
    ):
        before = set(server.worker_pids())
        server.replace_all()
        assert not before & set(server.worker_pids())
        load.turn()
        assert load.losses == []


def test_an_upgrade_keeps_the_listener(env: dict[str, str], tmp_path: Path) -> None:
    """The new master asks the plug-in too, and takes the listener over instead of opening it."""
    pid_file = tmp_path / "pid"
    options = ("--pid-file", str(pid_file), "-e", "box:0", *TWO)
    with Daphne(HELLO, *options, env=env) as server:
        port = server.port
        with upgraded(server, pid_file) as new:
            assert int(get(port, "/").text) in [child.pid for child in new.children()]


REFUSALS = [
    ("bad:udp", 3, "its plug-in wants datagrams (UDP)"),
    ("bad:own", 3, "its plug-in opens a socket by itself"),
    ("bad:everywhere", 3, "its plug-in listens on twisted.internet.reactor"),
    ("bad:broken", 3, "its plug-in fails: ZeroDivisionError: two lines"),
    ("bad:exit", 3, "its plug-in has ended the process"),
    ("box:x", 2, "its plug-in does not understand it: ValueError"),
    ("no-such:1", 2, "is of no kind that is known: autobahn:, bad:, bare:, box:"),
]


@pytest.mark.parametrize(("endpoint", "code", "reason"), REFUSALS)
def test_what_cannot_be_shared_is_one_line(
    endpoint: str, code: int, reason: str, env: dict[str, str]
) -> None:
    """It names the option and the reason, and shows no traceback."""
    ended = run_command("-v", "0", "-e", endpoint, HELLO, env=env)
    assert ended.stderr.startswith(f"daphne-supervisor: --endpoint {endpoint}: {reason}")
    assert ended.returncode == code
    assert len(ended.stderr.splitlines()) == 1


def test_a_websocket_over_a_plug_in_s_tls(
    env: dict[str, str], pem: str, authority: trustme.CA
) -> None:
    """Messages of every size go both ways, and its close is in order."""

    async def play(port: int) -> None:
        # Not with threads, of which one reads while another writes: before Python 3.13 an SSLSocket
        # sometimes loses what is written then.
        async with connect(f"wss://localhost:{port}/", ssl=trusting(authority)) as websocket:
            for message in ("a", b"b" * 200_000, "c" * 70_000):
                await websocket.send(message)
                assert await websocket.recv() == message
            await websocket.close()
            assert websocket.close_code == 1000

    with Daphne(f"{APPS}:echo", "-e", f"pyssl:0:{pem}", *TWO, env=env) as server:
        asyncio.run(play(server.port))


def test_a_client_that_reads_nothing_is_dropped(
    env: dict[str, str], pem: str, authority: trustme.CA
) -> None:
    """What waits to be sent is known through a plug-in's TLS too: --write-timeout holds."""
    options = ("--write-timeout", "0.5", "-e", f"pyssl:0:{pem}", *TWO)
    with Daphne(PROBE, *options, env=env) as server:
        with Client(server.port, receive_buffer=4096) as client:
            context = trusting(authority)
            client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
            client.ask("/stream?65536")
            poll = select.poll()
            poll.register(client.socket, 0)  # an error is all that is waited for
            assert poll.poll(15_000)
        assert "dropped, it reads nothing (--write-timeout)" in server.log()


def test_a_plug_in_that_breaks_holds_the_reload(env: dict[str, str]) -> None:
    """The old workers stay, and one line says what is wrong with it."""
    with Daphne(HELLO, "-e", "box:0", *TWO, env=env) as server:
        before = server.worker_pids()
        (directory,) = [each for each in env["PYTHONPATH"].split(":") if "plug-ins" in each]
        plugin = Path(directory) / "twisted" / "plugins" / "sorts_of_endpoints.py"
        plugin.write_text(plugin.read_text().replace('Parser("box"', 'Parser("crate"'))
        assert "reload" in server.reload()
        server.settle(2)
        assert server.worker_pids() == before
        assert "--endpoint box:0: is of no kind that is known" in server.log()
        assert int(get(server.port, "/").text) in before
