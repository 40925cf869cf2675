"""Every file of `deploy/` works: run by the program that it is for, with only paths changed."""

from __future__ import annotations

import os
import pwd
import shlex
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.support.daphne import Daphne
from tests.support.programs import PATIENCE, Program, reserved_port
from tests.support.proxies import Proxy, nginx, rendered
from tests.support.tools import tool

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SERVER = f"{sys.executable} -m daphne_supervisor"
APPLICATION = "tests.integration.deploy_app:application"
PATHS = {
    "/srv/project/venv/bin/daphne-supervisor": SERVER,
    "/srv/project/current": str(ROOT),
    "project.asgi:application": APPLICATION,
}
RELEASE = """
async def application(scope, receive, send):
    assert scope["type"] == "http"
    await send({{"type": "http.response.start", "status": 200}})
    await send({{"type": "http.response.body", "body": b"release {number}"}})
"""
SUPERVISORD = """
[supervisord]
nodaemon=true
logfile=/dev/null
logfile_maxbytes=0
pidfile={folder}/pid
"""


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Return a folder with both units of `deploy/`, in which nothing but paths is changed."""
    service = rendered("daphne-supervisor.service", PATHS)
    (tmp_path / "daphne-supervisor.service").write_text(service)
    (tmp_path / "daphne-supervisor.socket").write_text(rendered("daphne-supervisor.socket", {}))
    return tmp_path


def _systemd_analyze(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool("systemd-analyze", "systemd"), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_units_are_valid(units: Path) -> None:
    """Every key and every value is known to systemd, and the service's program can be run."""
    files = ["./daphne-supervisor.service", "./daphne-supervisor.socket"]
    done = _systemd_analyze("verify", "--recursive-errors=no", *files, folder=units)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_service_is_hardened(units: Path) -> None:
    """The exposure that systemd sees stays below 2 of 10, which few network services reach."""
    arguments = ["security", "--offline=yes", "--threshold=20", "./daphne-supervisor.service"]
    done = _systemd_analyze(*arguments, folder=units)
    assert done.returncode == 0, done.stdout


def _exec_start(service: Path) -> list[str]:
    (line,) = (
        line.removeprefix("ExecStart=")
        for line in service.read_text().splitlines()
        if line.startswith("ExecStart=")
    )
    return shlex.split(line)


@contextmanager
def activated(units: Path, address: str) -> Iterator[Program]:
    """Have systemd's own tool listen on `address`, and run the service at the first connection."""
    activate = [tool("systemd-socket-activate", "systemd"), "-l", address]
    with Program([*activate, *_exec_start(units / "daphne-supervisor.service")]) as program:
        program.line("Listening on")
        yield program


def _shown(response: httpx.Response) -> dict[str, Any]:
    """Return what the application saw of the request."""
    assert response.status_code == httpx.codes.OK
    return dict(response.json())


def _answering_master(where: int | Path) -> int:
    """Return the process id of the master behind a port or a unix socket."""
    path = str(where) if isinstance(where, Path) else None
    host = "localhost" if path else f"127.0.0.1:{where}"
    transport = httpx.HTTPTransport(uds=path)
    # The service may have to start first.
    with httpx.Client(base_url=f"http://{host}", transport=transport, timeout=PATIENCE) as client:
        return int(_shown(client.get("/"))["master"])


def test_the_service_answers_on_an_activated_tcp_socket(units: Path) -> None:
    """The connection that starts the service is answered, by a worker of that very process."""
    with reserved_port() as port, activated(units, f"127.0.0.1:{port}") as service:
        assert _answering_master(port) == service.pid


def test_the_service_answers_on_an_activated_unix_socket(units: Path) -> None:
    """The same over a unix socket, which is what the socket unit opens; its file is left alone."""
    path = units / "web.sock"
    with activated(units, str(path)) as service:
        assert _answering_master(path) == service.pid
    assert path.is_socket()


def _release(folder: Path, number: int) -> Path:
    """Make a release of a project that answers with its number."""
    release = folder / f"release-{number}"
    (release / "project").mkdir(parents=True)
    (release / "project" / "asgi.py").write_text(RELEASE.format(number=number))
    return release


def test_a_reload_follows_the_link_to_the_present_release(tmp_path: Path) -> None:
    """The unit's --chdir is a link: when it points elsewhere, the next reload serves from there."""
    current = tmp_path / "current"
    current.symlink_to(_release(tmp_path, 1))
    with Daphne("project.asgi:application", "--chdir", str(current)) as server:
        assert httpx.get(server.url).text == "release 1"
        current.unlink()
        current.symlink_to(_release(tmp_path, 2))
        assert "reload done" in server.reload()
        assert httpx.get(server.url).text == "release 2"


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    """Return `deploy/nginx.conf` in front of a server on a unix socket."""
    path = tmp_path / "web.sock"
    options = ["--workers", "2", "--proxy-headers", "--unix-socket", str(path)]
    with Daphne(APPLICATION, *options), nginx(tmp_path, upstream=f"unix:{path}") as front:
        yield front


def test_nginx_tells_the_server_who_asks(proxy: Proxy) -> None:
    """Client and scheme are nginx's word; what a client claims of itself is not passed on."""
    claims = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Port": "9",
        "X-Forwarded-Proto": "https",
        "Daphne-Root-Path": "/stolen",
    }
    with httpx.Client(base_url=proxy.url) as client:
        seen = _shown(client.get("/", headers=claims))
    host, port = seen["client"]
    assert (host, seen["scheme"], seen["root_path"]) == ("127.0.0.1", "http", "")
    assert port not in {0, 9}
    assert seen["headers"]["host"] == f"127.0.0.1:{proxy.port}"
    assert "daphne-root-path" not in seen["headers"]


def test_nginx_passes_uploads_larger_than_its_default(proxy: Proxy) -> None:
    """Two MiB arrive whole, with a length and without one."""
    size = 2 * 1024 * 1024
    with httpx.Client(base_url=proxy.url) as client:
        assert _shown(client.post("/", content=b"x" * size))["size"] == size
        pieces = iter([b"x" * (size // 2)] * 2)
        assert _shown(client.post("/", content=pieces))["size"] == size


def test_nginx_passes_a_websocket(proxy: Proxy) -> None:
    """A WebSocket's handshake and its messages go through in both directions."""
    with connect(f"ws://127.0.0.1:{proxy.port}/") as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"


def test_nginx_passes_events_as_they_come(proxy: Proxy) -> None:
    """The first event arrives although the stream never ends: nothing on the way collects it."""
    url = f"{proxy.url}/events"
    with httpx.Client() as client, client.stream("GET", url) as response:
        assert next(response.iter_text()) == "data: first\n\n"


def _supervisord(folder: Path) -> list[str]:
    """Return the command that runs `deploy/supervisord.conf` alone, in the foreground."""
    site = rendered(
        "supervisord.conf",
        {
            **PATHS,
            "unix:///run/daphne-supervisor": f"unix://{folder}",
            "www-data": pwd.getpwuid(os.getuid()).pw_name,
            "/var/log/supervisor": str(folder),
        },
    )
    (folder / "supervisord.conf").write_text(SUPERVISORD.format(folder=folder) + site)
    return [tool("supervisord", "supervisor"), "-c", str(folder / "supervisord.conf")]


def _pid_of_spawned(supervisord: Program) -> int:
    return int(supervisord.line("spawned: 'web' with pid").rpartition(" ")[2])


def test_supervisord_serves_and_restarts(tmp_path: Path) -> None:
    """The server takes supervisord's socket as `--fd 0`, and is started again when killed."""
    path = tmp_path / "web.sock"
    with Program(_supervisord(tmp_path)) as supervisord:
        first = _pid_of_spawned(supervisord)
        assert _answering_master(path) == first
        os.kill(first, signal.SIGKILL)
        second = _pid_of_spawned(supervisord)
        assert second != first
        assert _answering_master(path) == second
