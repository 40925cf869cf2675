"""Files that the server sends for the application: whole, at little cost, and honestly cut."""

from __future__ import annotations

import hashlib
import json
import os
import select
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.client import Client, CutError, get
from tests.support.daphne import Daphne
from tests.support.http2 import Secure
from tests.support.peak import Peak
from tests.support.tools import tool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APPLICATION = "tests.integration.files_app:application"
MEBIBYTE = 1024 * 1024
GIBIBYTE = 1024 * MEBIBYTE
ALLOWED = 8 * MEBIBYTE
"""What a worker may hold of a file; half of it are pieces on their way to threads and back."""
LARGE = 8 * MEBIBYTE
WAYS = {
    "HTTP/1.1": ("http", []),
    "HTTP/1.0": ("http", ["--http1.0"]),
    "HTTP/2 without TLS": ("http", ["--http2-prior-knowledge"]),
    "HTTP/1.1 over TLS": ("https", ["--http1.1"]),
    "HTTP/2 over TLS": ("https", ["--http2"]),
}


@contextmanager
def serving(path: Path, *arguments: str) -> Iterator[Daphne]:
    """Serve `path` with one worker."""
    env = {"TEST_FILE": str(path)}
    quiet = ("--access-log", "/dev/null")
    with Daphne(APPLICATION, "--workers", "1", *quiet, *arguments, env=env) as server:
        yield server
        assert "Traceback" not in server.log()


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of 1 GiB that takes no place on the disk."""
    path = tmp_path_factory.mktemp("sparse") / "sparse"
    path.touch()
    os.truncate(path, GIBIBYTE)
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file that is different everywhere."""
    path = tmp_path_factory.mktemp("large") / "large"
    path.write_bytes(b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(LARGE // 32)))
    return path


def swallow(port: int, target: str) -> int:
    """Ask for `target` and throw the answer away; return how many bytes of body it had."""
    with Client(port) as client:
        client.ask(target, "Connection: close")
        buffer, total = bytearray(MEBIBYTE), 0
        while size := client.socket.recv_into(buffer):
            total += size
    return total - total % GIBIBYTE


def test_a_gibibyte_costs_next_to_nothing(sparse: Path) -> None:
    """Neither memory, nor more than a good part of the time that it takes to stream it.

    Measured it is 0.4 of that (docs/asgi.md); here 0.8 is asked for, of the better of two runs.
    """
    with serving(sparse) as server:
        (worker,) = server.workers()

        def cost(target: str) -> float:
            """Return the seconds that the worker computes."""
            before = json.loads(get(server.port, "/time").text)
            assert swallow(server.port, target) == GIBIBYTE
            return float(json.loads(get(server.port, "/time").text) - before)

        cost("/path")  # which brings the file into memory
        peak = Peak(worker.pid)
        path, file = (min(cost(way) for _ in range(2)) for way in ("/path", "/file"))
        assert peak.growth < ALLOWED
        stream = min(cost("/stream") for _ in range(2))
    assert path < 0.8 * stream
    assert file < 0.8 * stream


def test_a_client_that_does_not_read_costs_nobody_anything(sparse: Path) -> None:
    """Neither memory nor the turn of others; and it is dropped with a reset."""
    with serving(sparse, "--write-timeout", "1") as server, Client(server.port) as stalled:
        peak = Peak(server.workers()[0].pid)
        stalled.ask("/path")
        assert stalled.head().status == 200
        for _ in range(20):
            assert get(server.port, "/time").status == 200
        poll = select.poll()
        poll.register(stalled.socket, 0)  # whatever is asked for, errors are told
        assert poll.poll(10_000)[0][1] & select.POLLERR
        assert "dropped, it reads nothing (--write-timeout)" in server.log()
        assert peak.growth < ALLOWED


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("target", ["path", "file", "chunks"])
def test_curl_gets_every_byte(
    site: tuple[Daphne, Secure], large: Path, way: str, target: str
) -> None:
    """Over whatever it comes."""
    server, secure = site
    scheme, flags = WAYS[way]
    port = dict(zip(("https", "http"), server.ports, strict=True))[scheme]
    command = [tool("curl", "curl"), "-sS", "--cacert", str(secure.authority), *flags]
    done = subprocess.run(
        [*command, f"{scheme}://localhost:{port}/{target}"],
        capture_output=True,
        timeout=30,
        check=True,
    )
    content = large.read_bytes()
    if target == "chunks":
        content = content[: LARGE // 2] + b"between" + content[LARGE // 2 :]
    assert done.stdout == content


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, large: Path) -> Iterator[tuple[Daphne, Secure]]:
    """Serve the file with TLS and without; what was held for all clients is little."""
    secure = Secure(tmp_path_factory.mktemp("tls"))
    places = ("-e", secure.endpoint, "-e", "tcp:0:interface=127.0.0.1")
    with serving(large, *places) as server:
        peak = Peak(server.workers()[0].pid)
        yield server, secure
        assert peak.growth < 2 * ALLOWED


def test_a_head_is_asked_for(site: tuple[Daphne, Secure]) -> None:
    """It says how long the file is, and the connection goes on."""
    server, _ = site
    with Client(server.ports[1]) as client:
        client.ask("/path", method="HEAD")
        assert client.response("HEAD").values("content-length") == [str(LARGE)]
        assert client.get("/time").status == 200


def test_a_file_that_is_not_there(large: Path) -> None:
    """Is a 500, and one line in the log; the connection goes on."""
    with serving(large) as server:
        with Client(server.port) as client:
            assert client.get("/missing").status == 500
            assert client.get("/time").status == 200
        assert "GET /missing: http.response.pathsend: " in server.log()
        assert "No such file or directory" in server.log()


def test_a_file_that_shrinks_while_it_is_sent(tmp_path: Path) -> None:
    """Is cut, so that nobody takes it for whole; the worker serves on."""
    path = tmp_path / "shrinks"
    path.touch()
    os.truncate(path, 64 * MEBIBYTE)
    with serving(path) as server:
        with Client(server.port, receive_buffer=65536) as client:
            client.ask("/path")
            client.socket.recv(1, socket.MSG_PEEK)
            os.truncate(path, 0)
            with pytest.raises((CutError, ConnectionError)):
                client.response()
        assert "has become shorter while it was sent" in server.log()
        assert get(server.port, "/time").status == 200
