"""WSGI applications: Flask and Django as they are, uploads and streams in bounded memory."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.client import Client, CutError, get
from tests.support.daphne import Daphne, run_command
from tests.support.peak import Peak

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FLASK = "tests.integration.flask_app"
DJANGO = "tests.integration.django_wsgi_app:application"
MEBIBYTE = 1024 * 1024
UPLOAD = 64 * MEBIBYTE
ALLOWED = 16 * MEBIBYTE
"""What a worker may hold beside an application that has been used before."""
THREADS = 2
BOOT_FAILED = 3


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file that is different everywhere."""
    path = tmp_path_factory.mktemp("file") / "file.bin"
    path.write_bytes(b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(20_000)))
    return path


def serving(application: str, file: Path, *arguments: str) -> Daphne:
    """Serve with one worker of a few threads."""
    few = ("--workers", "1", "--threads", str(THREADS), "--access-log", "/dev/null")
    return Daphne(application, *few, *arguments, env={"TEST_FILE": str(file)})


@pytest.fixture(scope="module")
def flask(file: Path) -> Iterator[Daphne]:
    """Serve the Flask application; nothing but its own errors has a traceback."""
    with serving(f"{FLASK}:application", file) as server:
        yield server


@pytest.fixture(scope="module")
def django(file: Path) -> Iterator[Daphne]:
    """Serve the Django project."""
    with serving(DJANGO, file, "--interface", "wsgi") as server:
        yield server
        assert "Traceback" not in server.log()


def test_flask_is_served(flask: Daphne) -> None:
    """It is recognised, and knows who asks for what; the connection is kept."""
    with Client(flask.port) as client:
        for _ in range(2):
            response = client.get("/?q=1")
            assert response.text == "127.0.0.1 http://test/?q=1 HTTP/1.1"
            assert response.values("content-length") == [str(len(response.body))]


def test_flask_reads_an_upload_of_many_megabytes(flask: Daphne) -> None:
    """With a length, and in chunks, and in a form; in memory there is little of it."""
    (worker,) = flask.workers()
    body = os.urandom(MEBIBYTE) * (UPLOAD // MEBIBYTE)
    wanted = f"{len(body)} {hashlib.sha256(body).hexdigest()}"
    pieces = (body[at : at + MEBIBYTE] for at in range(0, len(body), MEBIBYTE))
    with httpx.Client(base_url=flask.url, timeout=30) as client:
        client.post("/digest", content=body[:MEBIBYTE])
        peak = Peak(worker.pid)
        assert client.post("/digest", content=body).text == wanted
        assert client.post("/digest", content=pieces).text == wanted
        assert peak.growth < ALLOWED
        form = client.post("/form", data={"name": "x"}, files={"file": body[: 3 * MEBIBYTE]})
        assert form.text == f"x {3 * MEBIBYTE}"


def test_flask_streams(flask: Daphne) -> None:
    """With its request at hand, piece by piece; who does not read costs neither memory nor thread.

    As many slow clients as there are threads, and one more, leave threads for everybody else.
    """
    assert get(flask.port, "/stream/3?byte=a").body == b"a" * 3 * 65_536
    peak = Peak(flask.workers()[0].pid)
    slow = [Client(flask.port, receive_buffer=65_536) for _ in range(THREADS + 1)]
    for client in slow:
        client.ask("/stream/1600?byte=b")
        assert client.head().status == 200
    for _ in range(20):
        assert get(flask.port, "/thread").status == 200
    assert peak.growth < ALLOWED
    for client in slow:
        client.close()


def test_a_piece_leaves_when_it_is_made(flask: Daphne) -> None:
    """It does not wait for the next one (PEP 3333)."""
    with Client(flask.port) as client:
        client.ask("/turns")
        client.head()
        assert client.piece() == b"first"
        assert get(flask.port, "/turn").text == "done"
        assert client.piece() == b"second"
    assert get(flask.port, "/closed").text == "True"


def test_flask_sends_a_file(flask: Daphne, file: Path) -> None:
    """Whole, in part, and not again to who has it."""
    content = file.read_bytes()
    with httpx.Client(base_url=flask.url) as client:
        whole = client.get("/file")
        assert whole.content == content
        part = client.get("/file", headers={"Range": "bytes=100-299"})
        assert (part.status_code, part.content) == (206, content[100:300])
        assert client.get("/file", headers={"If-None-Match": whole.headers["etag"]}).content == b""
        assert client.head("/file").headers["content-length"] == str(len(content))


def test_flasks_errors(flask: Daphne) -> None:
    """Its own page before the head; behind it the response is cut."""
    assert get(flask.port, "/error").status == 500
    with Client(flask.port) as client:
        client.ask("/late")
        with pytest.raises((CutError, ConnectionError)):
            client.response()
    assert get(flask.port, "/").status == 200


def test_a_websocket_is_refused(flask: Daphne) -> None:
    """WSGI has none."""
    with Client(flask.port) as client:
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", key)
        assert client.get("/", *upgrade).status == 403


def test_requests_run_at_the_same_time_on_the_leased_threads(flask: Daphne) -> None:
    """And on no others."""
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: get(flask.port, "/thread").text, range(40)))
    assert len(set(answers)) <= THREADS


def test_a_factory_makes_a_wsgi_application(file: Path) -> None:
    """In the zygote if need be; what it makes is recognised."""
    with serving(f"{FLASK}:make", file, "--factory", "--preload") as server:
        assert get(server.port, "/thread").status == 200


def test_django_is_served(django: Daphne) -> None:
    """Paths that are no ASCII arrive, as they are under gunicorn."""
    with Client(django.port) as client:
        assert client.get("/").text == " / GET"
        assert client.get("/caf%C3%A9/").text == " /caf\u00e9/ GET"
        assert client.get("/caf%C3%A9").status == 301
        assert client.get("/missing").status == 404


def test_django_is_mounted_below_a_path(file: Path) -> None:
    """Whether the proxy before it has left the path whole or not."""
    with serving(DJANGO, file, "--root-path", "/site") as server, Client(server.port) as client:
        assert client.get("/").text == "/site / GET"
        assert client.get("/site/").text == "/site / GET"


def test_django_takes_an_upload_of_many_megabytes(django: Daphne) -> None:
    """In a form, which Django itself writes to a file."""
    body = os.urandom(MEBIBYTE) * (UPLOAD // MEBIBYTE)
    with httpx.Client(base_url=django.url, timeout=30) as client:
        client.post("/upload", data={"name": "x"}, files={"file": body[:MEBIBYTE]})
        peak = Peak(django.workers()[0].pid)
        answer = client.post("/upload", data={"name": "x"}, files={"file": body}).text
    assert answer == f"x {len(body)} {hashlib.sha256(body).hexdigest()}"
    assert peak.growth < ALLOWED


def test_django_streams_and_sends_files(django: Daphne, file: Path) -> None:
    """The file by its descriptor, as `wsgi.file_wrapper` allows."""
    assert get(django.port, "/stream?count=100").body == b"d" * 100 * 65_536
    assert get(django.port, "/file").body == file.read_bytes()


@pytest.mark.parametrize(
    ("application", "arguments", "line"),
    [
        ("tests.support.apps:hello", ["--interface", "wsgi"], "--interface wsgi: application"),
        ("tests.support.apps:hello", ["--factory", "--preload"], "--factory: 'tests.support.apps"),
        ("tests.support.apps:legacy", ["--interface", "asgi3"], "--interface asgi3: application"),
    ],
)
def test_what_does_not_fit_is_one_line(application: str, arguments: list[str], line: str) -> None:
    """The option is named, and there is no traceback; the exit code is that of a failed boot."""
    done = run_command("--port", "0", *arguments, application)
    assert done.returncode == BOOT_FAILED
    assert line in done.stderr
    assert "Traceback" not in done.stderr
