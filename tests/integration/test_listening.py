"""Every way to say where to listen is served by the real command."""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import ssl
import stat
import struct
from typing import TYPE_CHECKING

import httpx
import pytest
import trustme

from tests.support.daphne import APPS, Daphne, run_command, survivors
from tests.support.race import race
from tests.support.succession import upgraded
from tests.support.tools import unavailable

if TYPE_CHECKING:
    from pathlib import Path

HELLO = f"{APPS}:hello"
WORKER = "tests.integration.worker_app:application"
BACKLOG = 5
"""Unlike any of ours, to be recognised."""


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


@pytest.mark.parametrize("arguments", [(), ("-e",)])
def test_the_second_instance_on_one_socket_is_one_line(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """It names the option, whichever was used, and the first one's file stays what it was."""
    path = tmp_path / "x.sock"
    with Daphne(HELLO, "-u", str(path)):
        before = path.stat()
        place = ("-e", f"unix:{path}") if arguments else ("-u", str(path))
        second = run_command("-v", "0", *place, HELLO)
        assert (path.stat().st_ino, path.stat().st_mode) == (before.st_ino, before.st_mode)
    name = f"--endpoint unix:{path}" if arguments else f"--unix-socket {path}"
    assert second.returncode == 3
    assert second.stderr == f"daphne-supervisor: {name}: is in use by another process\n"


def test_of_three_instances_that_replace_one_stale_socket_one_wins(tmp_path: Path) -> None:
    """It serves, the others say so in one line and end with 3; nothing is left behind."""
    path = tmp_path / "x.sock"
    left_over(path)

    def ask(winner: int) -> None:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=10) as client:
            assert int(client.get("http://localhost").text) != winner

    outcome = race(3, "-u", str(path), HELLO, directory=tmp_path, meanwhile=ask)
    line = f"daphne-supervisor: --unix-socket {path}: is in use by another process\n"
    assert outcome.losers == [(3, line)] * 2
    assert outcome.winner == 0
    assert [each.name for each in tmp_path.iterdir()] == ["notify"]


def test_the_next_instance_starts_while_the_last_ones_workers_finish(tmp_path: Path) -> None:
    """`kill -9` of the master: its workers hold the old socket, and the path is free at once.

    The response that had begun is completed by the old worker.
    """
    path = tmp_path / "x.sock"
    address = {"uds": str(path)}
    with (
        Daphne(f"{APPS}:probe", "-u", str(path)) as first,
        httpx.Client(transport=httpx.HTTPTransport(**address), timeout=20) as client,  # type: ignore[arg-type]
        client.stream("GET", "http://localhost/halves?4") as response,
    ):
        pieces = response.iter_raw()
        assert next(pieces) == b"one "
        workers = first.workers()
        first.process.kill()
        first.process.wait()
        with Daphne(HELLO, "-u", str(path)) as second:
            assert answered_by(second, "http://localhost", uds=str(path))
            assert next(pieces) == b"two"
            assert survivors(workers, 10) == []
            assert path.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_unix_socket_with_mode_and_group(tmp_path: Path) -> None:
    """`--uds-mode` and `--uds-group` hold for each one that says nothing itself."""
    if os.geteuid() != 0:
        unavailable("only root may give files to any group")
    plain, own = tmp_path / "plain.sock", tmp_path / "own.sock"
    options = ("--uds-mode", "640", "--uds-group", "daemon", "-e", f"unix:{own}:mode=600")
    with Daphne(HELLO, "-u", str(plain), *options) as server:
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (plain, own)]
        assert modes == [0o640, 0o600]
        assert {path.stat().st_gid for path in (plain, own)} == {grp.getgrnam("daemon").gr_gid}
        assert answered_by(server, "http://localhost", uds=str(plain))
    assert list(tmp_path.iterdir()) == []


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


def backlog(listener: socket.socket) -> int:
    """Return how many connections may wait: tcpi_sacked of struct tcp_info, for a listener."""
    told = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    return int(struct.unpack_from("=6I", told, 8)[5])


@pytest.mark.parametrize("names", ["", "web.socket:local"])
def test_sockets_of_a_service_manager_need_no_option(tmp_path: Path, names: str) -> None:
    """All that LISTEN_FDS hands over is served, and stays what it is; the log has the names.

    Workers are not told of it: what they start would take it for their own.
    """
    path = tmp_path / "x.sock"
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=BACKLOG))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(path))
        unix.listen(BACKLOG)
        path.chmod(0o640)
        numbers = (tcp.fileno(), unix.fileno())
        server = stack.enter_context(Daphne(WORKER, activated=numbers, names=names))
        places = [("http://localhost", str(path)), (f"http://127.0.0.1:{server.port}", None)]
        assert server.port == tcp.getsockname()[1]
        for url, uds in places:
            with httpx.Client(transport=httpx.HTTPTransport(uds=uds), timeout=10) as client:
                seen = client.get(f"{url}/environ").json()
            assert not {name for name in seen if name.startswith("LISTEN_")}
        assert (" (web.socket)" in server.log()) is bool(names)
        assert ("UNIX socket" in server.log()) is True
        assert backlog(tcp) == BACKLOG
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_an_upgrade_keeps_the_sockets_of_a_service_manager(tmp_path: Path) -> None:
    """They were meant for the old master's process id; the new one listens on them all the same."""
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        url = f"http://127.0.0.1:{tcp.getsockname()[1]}"
        pid_file = tmp_path / "pid"
        options = ("--pid-file", str(pid_file))
        with Daphne(HELLO, *options, activated=[tcp.fileno()], names="web.socket") as server:
            old = server.worker_pids()
            with upgraded(server, pid_file) as new:
                answering = int(httpx.get(url, timeout=10).text)
                assert answering not in old
                assert answering in [child.pid for child in new.children()]
                assert server.log().count(" (web.socket)") == 2


def test_a_socket_of_a_service_manager_that_cannot_be_served_is_one_line() -> None:
    """A datagram socket in the unit file is named as it is named there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        ended = run_command("-v", "0", HELLO, activated=[sock.fileno()], names="web.socket")
    assert ended.returncode == 3
    assert ended.stderr == (
        "daphne-supervisor: LISTEN_FDS web.socket: descriptor 3 is no stream socket\n"
    )


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
    (("-u", "/nowhere/x.sock"), 3, "--unix-socket /nowhere/x.sock"),
    (("-u", "x" * 120), 3, "longer than 106 bytes"),
    (("-u", "/tmp/no.sock", "--uds-group", "no-such"), 2, "--uds-group"),
    (("-u", "/tmp/no.sock", "--uds-mode", "888"), 2, "--uds-mode"),
    (("--user", "no-such"), 2, "--user"),
    (("--group", "no-such"), 2, "--group"),
    (("--umask", "999"), 2, "--umask"),
    (("--pid-file", "/nowhere/pid"), 3, "--pid-file"),
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
