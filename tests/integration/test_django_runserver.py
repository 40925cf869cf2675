"""`manage.py runserver` of a real project: what is served, what is logged, what a change does."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import httpx
import pytest
from websockets.sync.client import connect

from tests.support.daphne import survivors
from tests.support.django_project import DjangoProject, RunServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 30.0
"""Seconds that a changed file gets to be noticed, and that a request may wait for the new code."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> DjangoProject:
    """Return a project with its database."""
    project = DjangoProject(tmp_path_factory.mktemp("project"))
    assert project.run("migrate", "--verbosity", "0").returncode == 0
    return project


@pytest.fixture(scope="module")
def server(project: DjangoProject) -> Iterator[RunServer]:
    """Run the server with its reloader."""
    with RunServer(project, "--force-color") as server:
        yield server


@pytest.fixture
def client(server: RunServer) -> Iterator[httpx.Client]:
    """Return a client that waits for new code, and makes a connection for each request."""
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=server.url, timeout=PATIENCE, limits=limits) as client:
        yield client


def ask_until(client: httpx.Client, path: str, wanted: str) -> None:
    """Ask again and again until the answer is `wanted`; no request may fail meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while (text := client.get(path).text) != wanted:
        assert time.monotonic() < deadline, text


def test_a_project_is_served_and_each_request_is_a_coloured_line(
    server: RunServer, client: httpx.Client
) -> None:
    """Pages, static files and WebSockets; a line for each, in the form of Daphne's."""
    assert "page one" in client.get("/?q=1").text
    server.wait(r"\x1b\[\S*mHTTP GET /\?q=1 200 \[\d\.\d\d, 127\.0\.0\.1:\d+\]\x1b\[0m\n")
    assert client.get("/static/site.css").headers["content-type"] == "text/css"
    assert client.get("/nowhere").status_code == 404
    server.wait(r"\x1b\[\S*mHTTP GET /nowhere 404 ")
    with connect(f"ws://127.0.0.1:{server.port}/words") as websocket:
        websocket.send("hello")
        assert websocket.recv() == "1 hello"
    for word in ("HANDSHAKING", "CONNECT", "DISCONNECT"):
        server.wait(rf"WebSocket {word} /words \[127\.0\.0\.1:\d+\]\n")


def test_each_line_is_written_once(server: RunServer, client: httpx.Client) -> None:
    """Neither Django's logging nor the server's repeats what the other has written."""
    client.get("/once")
    server.wait("HTTP GET /once")
    client.get("/behind-it")
    server.wait("HTTP GET /behind-it")
    assert server.output.count("HTTP GET /once") == 1
    assert server.output.count("Not Found: /once") == 1


def test_a_changed_template_is_shown_by_the_same_server(
    server: RunServer, client: httpx.Client, project: DjangoProject
) -> None:
    """What a worker has read of a template is forgotten, as if the watcher were in it."""
    assert "page one" in client.get("/").text
    before = server.family()
    server.wait_watched("site1/pages/index.html")
    project.replace("site1/pages/index.html", "page {{", "leaf {{")
    deadline = time.monotonic() + PATIENCE
    while "leaf one" not in client.get("/").text:
        assert time.monotonic() < deadline
    assert server.family() == before


def test_a_module_that_only_a_view_imports_is_watched_too(
    server: RunServer, client: httpx.Client, project: DjangoProject
) -> None:
    """The reloader hears from the workers what they have imported; nobody is refused meanwhile."""
    assert client.get("/late").text == "first"
    server.wait_watched("site1/seldom.py")
    project.write("site1/seldom.py", 'TEXT = "the second"\n')
    server.wait("seldom.py changed, reloading")
    ask_until(client, "/late", "the second")


def test_who_asks_while_the_code_is_broken_gets_an_answer_when_it_is_mended(
    server: RunServer, client: httpx.Client, project: DjangoProject
) -> None:
    """The listener stays open: a browser waits, and shows what was meant."""
    server.wait_watched("site1/views.py")
    project.replace("site1/views.py", 'VERSION = "one"', 'VERSION = "two"\n)')
    server.wait("SyntaxError: unmatched")
    server.wait_watched("site1/views.py")
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(client.get("/").text))
    asking.start()
    project.replace("site1/views.py", "\n)", "")
    asking.join(PATIENCE)
    assert ["leaf two" in answer for answer in answers] == [True]


def test_without_reloader_two_workers_serve_until_ctrl_c(project: DjangoProject) -> None:
    """Each has its own process; the check says what they cannot share; the end is no error."""
    with RunServer(project, "--noreload", "--workers", "2") as server:
        assert "daphne_supervisor.W001" in server.output
        assert "there are 2 workers" in server.output
        workers: set[str] = set()
        deadline = time.monotonic() + PATIENCE
        while len(workers) < 2:
            workers.add(httpx.get(f"{server.url}/words").text.split()[0])
            assert time.monotonic() < deadline
        family = server.family()
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.process.wait(PATIENCE) == 0
        assert survivors(family, PATIENCE) == []


def test_static_files_are_served_without_debug_when_that_is_insisted_on(
    tmp_path: Path,
) -> None:
    """--insecure serves them although DEBUG is off, the rest of the options reach the server."""
    project = DjangoProject(tmp_path)
    project.replace("site1/settings.py", "DEBUG = True", "DEBUG = False")
    options = ("--noreload", "--skip-checks", "--insecure", "--http-timeout", "7", "--no-color")
    with RunServer(project, *options) as server:
        assert "system checks" not in server.output
        assert httpx.get(f"{server.url}/static/site.css").status_code == 200
        server.wait(r"\nHTTP GET /static/site\.css 200 ")


def test_a_port_that_is_taken_is_one_line(project: DjangoProject) -> None:
    """No traceback, and the option that is at fault."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = project.run("runserver", str(port))
    where = f"127.0.0.1:{port}"
    assert done.returncode == 1
    assert done.stdout == f"CommandError: --port {port}: {where} is in use by another process\n"


def test_django_s_own_server_is_there_too(project: DjangoProject) -> None:
    """--noasgi is what runserver would be without us; its static files are served as well."""
    with RunServer(project, "--noasgi", "--noreload") as server:
        assert "daphne-supervisor" not in server.output
        assert httpx.get(f"{server.url}/static/site.css").headers["server"].startswith("WSGIServer")
