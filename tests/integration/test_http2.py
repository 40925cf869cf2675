"""HTTP/2 as the clients of others speak it: curl, nghttp2, httpx, and haproxy as a proxy."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import socket
import subprocess
from typing import TYPE_CHECKING

import httpx
import pytest
from websockets.sync.client import connect

from tests.support.daphne import Daphne
from tests.support.http2 import Secure
from tests.support.http2_frames import Code
from tests.support.http2_judge import Judge
from tests.support.programs import Program, reserved_port
from tests.support.tools import tool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

APPLICATION = "tests.integration.http2_app:application"
MEGABYTE = 1_000_000
PATIENCE = 30

#: How curl comes to HTTP/2: each with the place of the listener, and the scheme.
WAYS = {
    "alpn": ("https", ["--http2"]),
    "prior knowledge": ("http", ["--http2-prior-knowledge"]),
    "upgrade": ("http", ["--http2"]),
}


class Site:
    """A server with TLS and without, and who believes it."""

    def __init__(self, server: Daphne, secure: Secure) -> None:
        """Be found where `server` listens."""
        self.server = server
        self.secure = secure
        self.urls = dict(zip(("https", "http"), server.ports, strict=True))

    def url(self, scheme: str, path: str = "") -> str:
        """Return where a client finds `path`."""
        return f"{scheme}://localhost:{self.urls[scheme]}{path}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Serve with one worker."""
    secure = Secure(tmp_path_factory.mktemp("tls"))
    arguments = ("-w", "1", "-e", secure.endpoint, "-e", "tcp:0:interface=127.0.0.1")
    with Daphne(APPLICATION, *arguments, "--access-log", "/dev/null") as server:
        yield Site(server, secure)
        assert "Traceback" not in server.log()


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of ten megabytes that is not the same everywhere."""
    path = tmp_path_factory.mktemp("body") / "body"
    path.write_bytes(b"".join(hashlib.sha256(b"%d" % each).digest() for each in range(312_500)))
    return path


def digest(path: Path) -> str:
    """Return what the application has to say of a file that it was sent."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(*command: str) -> str:
    """Run a client to its end, which must be a good one; return what it prints."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == 0, (command, ended.stdout[-2000:], ended.stderr[-2000:])
    return ended.stdout


def curl(site: Site, way: str, path: str, *options: str) -> str:
    """Return what curl has to say of `path`, with the version at the end of it."""
    scheme, flags = WAYS[way]
    trust = ["--cacert", str(site.secure.authority), "-sS", "-w", "\n%{http_version}"]
    url = site.url(scheme, path)
    return run(tool("curl", "curl"), *trust, *flags, *options, url)


# -- curl --


@pytest.mark.parametrize("way", WAYS)
def test_curl(site: Site, way: str) -> None:
    """By ALPN, with prior knowledge and by an upgrade it is HTTP/2, and the scope says so."""
    told, _, version = curl(site, way, "/scope?a=b").rpartition("\n")
    assert version == "2"
    scope = json.loads(told)
    assert scope["http_version"] == "2"
    assert scope["scheme"] == WAYS[way][0]
    assert scope["query_string"] == "b'a=b'"
    assert {"http.response.trailers", "http.response.early_hint"} <= set(scope["extensions"])


@pytest.mark.parametrize("way", ["alpn", "prior knowledge"])
def test_curl_uploads_ten_megabytes(site: Site, way: str, body: Path) -> None:
    """Every byte arrives, and none twice."""
    told = curl(site, way, "/digest", "--data-binary", f"@{body}")
    assert told == f"{digest(body)}\n2"


def test_curl_uploads_by_http1_when_it_asks_for_an_upgrade(site: Site, body: Path) -> None:
    """An upgrade with a body is no upgrade: the request is answered over HTTP/1.1."""
    told = curl(site, "upgrade", "/digest", "--data-binary", f"@{body}")
    assert told == f"{digest(body)}\n1.1"


@pytest.mark.parametrize("way", WAYS)
def test_curl_downloads_ten_megabytes(site: Site, way: str, tmp_path: Path) -> None:
    """What is longer than every window arrives whole."""
    copy = tmp_path / "copy"
    assert curl(site, way, "/stream?10000", "-o", str(copy)) == "\n2"
    assert copy.read_bytes() == b"x" * 10_240_000


@pytest.mark.parametrize("way", WAYS)
def test_curl_sees_hints_and_trailers(site: Site, way: str) -> None:
    """103 comes before the response, trailers behind it."""
    hinted = curl(site, way, "/hint", "-D", "-")
    assert re.search(r"HTTP/2 103 *\nlink: </style.css>; rel=preload; as=style\n\n", hinted)
    assert re.search(r"HTTP/2 200 *\n", hinted)
    trailed = curl(site, way, "/trailers", "-D", "-")
    assert re.search(r"^x-size: 5", trailed.partition("12345")[2], re.MULTILINE), trailed


@pytest.mark.parametrize("way", WAYS)
def test_curl_asks_for_the_head_only(site: Site, way: str) -> None:
    """HEAD has the headers of a GET and no body."""
    told = curl(site, way, "/blob?20", "-I")
    assert "content-length: 20480" in told
    assert "HTTP/2 200" in told


def test_many_of_curl_at_once(site: Site) -> None:
    """Twenty downloads of one curl share a connection."""
    url = site.url("https", "/blob?[1-20]")
    command = [tool("curl", "curl"), "--cacert", str(site.secure.authority), "-sS", "--http2"]
    options = ["-Z", "--no-progress-meter", "-o", "/dev/null"]
    told = run(*command, *options, "-w", "%{http_version} %{size_download}\n", url)
    lines = [line.split() for line in told.splitlines() if line]
    assert sorted(int(size) for _, size in lines) == [1024 * each for each in range(1, 21)]
    assert {version for version, _ in lines} == {"2"}


# -- nghttp2 --


def nghttp(*arguments: str) -> str:
    """Return what nghttp prints."""
    return run(tool("nghttp", "nghttp2-client"), "--no-verify-peer", *arguments)


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_nghttp(site: Site, scheme: str) -> None:
    """It sees a preface, settings, an answer, and an orderly end."""
    told = nghttp("-nv", site.url(scheme, "/hello"))
    assert ":status: 200" in told
    assert "error_code=NO_ERROR" in told
    assert told.count("recv SETTINGS frame") == 2


def test_nghttp_upgrades(site: Site) -> None:
    """By an upgrade as well: HTTP/1.1 101 and then the answer on stream 1."""
    told = nghttp("-nvu", site.url("http", "/hello"))
    assert "HTTP Upgrade success" in told
    assert "(stream_id=1) :status: 200" in told


def test_nghttp_uploads(site: Site, body: Path) -> None:
    """Padded and in CONTINUATION frames, a body arrives whole."""
    told = nghttp("--padding=100", "--continuation", "-d", str(body), site.url("https", "/digest"))
    assert told.strip() == digest(body)


def test_nghttp_sees_trailers(site: Site) -> None:
    """They end the stream."""
    told = nghttp("-nv", site.url("https", "/trailers"))
    assert re.search(r"recv \(stream_id=13\) x-size: 5", told)


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_h2load(site: Site, scheme: str) -> None:
    """3,000 requests on 4 connections, 50 at once on each: all are answered."""
    told = run(
        tool("h2load", "nghttp2-client"), "-n", "3000", "-c", "4", "-m", "50", site.url(scheme, "/")
    )
    assert "3000 succeeded, 0 failed, 0 errored, 0 timeout" in told
    assert "status codes: 3000 2xx" in told


def test_h2load_with_bodies(site: Site, tmp_path: Path) -> None:
    """As well with a body of 100 kB in each of 200 requests, and as much in the answer."""
    (tmp_path / "body").write_bytes(bytes(100_000))
    options = ["-n", "200", "-c", "2", "-m", "20", "-d", str(tmp_path / "body")]
    told = run(tool("h2load", "nghttp2-client"), *options, site.url("https", "/echo"))
    assert "200 succeeded, 0 failed, 0 errored, 0 timeout" in told
    assert "(20000000) data" in told


# -- httpx, on the library h2 --


def client(site: Site) -> httpx.AsyncClient:
    """Return an httpx that speaks nothing else."""
    return httpx.AsyncClient(
        http1=False,
        http2=True,
        base_url=site.url("https"),
        verify=site.secure.context(),
        timeout=PATIENCE,
        trust_env=False,
    )


def test_httpx(site: Site) -> None:
    """A hundred requests at once on one connection, each with the answer that is its own."""

    async def play() -> None:
        async with client(site) as session:

            async def echoed(number: int) -> None:
                answer = await session.post("/echo", content=b"%d" % number * 1000)
                assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
                assert answer.content == b"%d" % number * 1000

            await asyncio.gather(*(echoed(number) for number in range(100)))

    asyncio.run(play())


def test_httpx_streams_both_ways(site: Site) -> None:
    """Ten megabytes go up piece by piece, and numbers come down as they are made."""

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(100):
            yield b"%d" % (number % 10) * (MEGABYTE // 10)

    async def play() -> None:
        async with client(site) as session:
            answer = await session.post("/digest", content=pieces())
            whole = b"".join([piece async for piece in pieces()])
            assert answer.text == hashlib.sha256(whole).hexdigest()
            async with session.stream("GET", "/ticks?2000") as ticks:
                numbers = [int(line) async for line in ticks.aiter_lines()]
            assert numbers == list(range(2000))

    asyncio.run(play())


def test_httpx_leaves_in_the_middle(site: Site) -> None:
    """A download that is cancelled costs its stream, and the connection serves on."""

    async def play() -> None:
        async with client(site) as session:
            first = (await session.get("/hello")).extensions["network_stream"]
            async with session.stream("GET", "/stream?100000") as download:
                async for _ in download.aiter_bytes():
                    break
            again = await session.get("/hello")
            assert again.status_code == 200
            peer = again.extensions["network_stream"].get_extra_info("client_addr")
            assert peer == first.get_extra_info("client_addr")

    asyncio.run(play())


# -- who may speak it, and where --


def speaks(url: str, *options: str) -> str | None:
    """Return the version that curl has spoken with `options`, `None` if it was turned away."""
    command = [tool("curl", "curl"), "-sk", "-o", "/dev/null", "-w", "%{http_version}", *options]
    ended = subprocess.run(
        [*command, url], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return ended.stdout if ended.returncode == 0 else None


@pytest.mark.parametrize(
    ("options", "prior", "upgraded"),
    [
        ((), "2", "2"),
        (("--h2c", "off"), None, "1.1"),
        (("--forwarded-allow-ips", "10.0.0.1"), None, "1.1"),
        (("--forwarded-allow-ips", "10.0.0.1", "--h2c", "any"), "2", "2"),
        (("--no-http2", "--h2c", "any"), None, "1.1"),
    ],
    ids=["by default", "off", "not trusted", "any", "no HTTP/2"],
)
def test_http2_without_tls(options: tuple[str, ...], prior: str | None, upgraded: str) -> None:
    """It is spoken with whom --h2c says; whoever is not asked for more than that stays on 1.1."""
    with Daphne(APPLICATION, "-w", "1", *options) as server:
        url = f"{server.url}/hello"
        assert speaks(url, "--http2-prior-knowledge") == prior
        assert speaks(url, "--http2") == upgraded
        assert speaks(url) == "1.1"


def test_http2_on_a_unix_socket(tmp_path: Path) -> None:
    """Who can open the socket is trusted."""
    path = tmp_path / "web.sock"
    with Daphne(APPLICATION, "-w", "1", "-u", str(path)):
        options = ("--unix-socket", str(path), "--http2-prior-knowledge")
        assert speaks("http://localhost/hello", *options) == "2"


def test_no_http2_over_tls(tmp_path: Path) -> None:
    """--no-http2: ALPN offers HTTP/1.1 only."""
    endpoint = Secure(tmp_path).endpoint
    with Daphne(APPLICATION, "-w", "1", "--no-http2", "-e", endpoint) as server:
        assert speaks(f"https://localhost:{server.port}/hello", "--http2") == "1.1"


def test_a_client_that_has_chosen_http2_and_speaks_http1(site: Site) -> None:
    """Behind ALPN there is no doubt: it has one GOAWAY that says why, and the end."""
    context = site.secure.context("h2")
    with (
        socket.create_connection(("127.0.0.1", site.urls["https"]), PATIENCE) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        assert tls.selected_alpn_protocol() == "h2"
        tls.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        while data := tls.recv(65536):
            received += data
    judge = Judge()
    judge.hear(received)
    assert [each.code for each in judge.goaways] == [Code.PROTOCOL_ERROR]
    assert "no preface" in site.server.log()


def test_the_access_log_has_a_line_for_each_stream() -> None:
    """As for HTTP/1.1, with the client's address."""
    with Daphne(APPLICATION, "-w", "1") as server:
        assert speaks(f"{server.url}/blob?2", "--http2-prior-knowledge") == "2"
        assert speaks(f"{server.url}/status?404-no", "--http2-prior-knowledge") == "2"
    assert re.search(
        r'^127\.0\.0\.1:\d+ .*"GET /blob\?2" 200 2048$', server.final_log, re.MULTILINE
    )
    assert re.search(r'"GET /status\?404-no" 404 2$', server.final_log, re.MULTILINE)


# -- haproxy --

_HAPROXY = """
global
    maxconn 200
defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server 20s
frontend web
    bind 127.0.0.1:{port}
    default_backend daphne
backend daphne
    server one 127.0.0.1:{upstream} proto h2
"""


@pytest.fixture(scope="module")
def behind_haproxy(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run haproxy that speaks HTTP/1.1 to clients and HTTP/2 to us; return where it is."""
    path = tmp_path_factory.mktemp("haproxy") / "haproxy.cfg"
    with reserved_port() as port:
        path.write_text(_HAPROXY.format(port=port, upstream=site.urls["http"]))
        with Program([tool("haproxy", "haproxy"), "-db", "-f", str(path)]) as proxy:
            transport = httpx.HTTPTransport(retries=10)  # until it listens
            with httpx.Client(transport=transport, trust_env=False) as session:
                assert session.get(f"http://127.0.0.1:{port}/hello").status_code == 200
            assert proxy.pid
            yield f"127.0.0.1:{port}"


def test_haproxy_speaks_http2_to_us(behind_haproxy: str, body: Path) -> None:
    """What comes to it as HTTP/1.1 comes to us as HTTP/2, uploads and streams too."""
    with httpx.Client(base_url=f"http://{behind_haproxy}", trust_env=False) as session:
        assert session.get("/scope").json()["http_version"] == "2"
        uploaded = session.post("/digest", content=body.read_bytes(), timeout=PATIENCE)
        assert uploaded.text == digest(body)
        assert len(session.get("/stream?2000").content) == 2_048_000


def test_haproxy_carries_a_websocket(behind_haproxy: str) -> None:
    """The upgrade of HTTP/1.1 becomes an extended CONNECT (RFC 8441), both ways."""
    with connect(f"ws://{behind_haproxy}/chat", open_timeout=PATIENCE, proxy=None) as websocket:
        assert json.loads(websocket.recv(PATIENCE))["version"] == "2"
        websocket.send("hello" * 20_000)
        assert websocket.recv(PATIENCE) == "hello" * 20_000
        websocket.send(bytes(range(256)))
        assert websocket.recv(PATIENCE) == bytes(range(256))
