"""What every framework for HTTP has to do; each application has the same paths for it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest
from httpx_sse import connect_sse

from tests.frameworks.notes import EVENTS, FILE, PATIENCE, PIECES, digest
from tests.frameworks.site import HTTP, Site, story
from tests.support.client import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HTTP_STORIES", "text"]


def text(answer: httpx.Response) -> str:
    """Return the text that was answered, with what JSON puts around it or without."""
    return answer.text.strip('"\n')


@story("path, query string, client address", over=HTTP)
def heads(site: Site) -> None:
    """Percent signs, repeated names, and who asks."""
    with site.http() as http:
        answer = http.get("/hello/w%C3%B6rld", params={"q": ["a b", "ü"]})
    assert answer.json() == {
        "name": "wörld",
        "q": ["a b", "ü"],
        "client": "127.0.0.1",
        "url": f"{site.url}/hello/",
    }


@story("JSON in and out", over=HTTP)
def json(site: Site) -> None:
    """Several requests of one connection."""
    with site.http() as http:
        for number in range(5):
            sent = {"number": number, "text": "é" * number}
            assert http.post("/json", json=sent).json() == sent


@story("cookies, two in one response", over=HTTP)
def cookies(site: Site) -> None:
    """They come back."""
    with site.http() as http:
        assert len(http.get("/cookies").headers.get_list("set-cookie")) == 2
        assert http.get("/cookies").json() == {"one": "1", "two": "2"}


@story("upload of files in a form", over=HTTP)
def upload(site: Site) -> None:
    """Two of them, one so large that a framework puts it into a file of its own."""
    large = b"0123456789abcdef" * 200_000
    files = [
        ("files", ("large.bin", large, "application/octet-stream")),
        ("files", ("small é.txt", b"small", "text/plain")),
    ]
    with site.http() as http:
        answer = http.post("/upload", data={"title": "ünder"}, files=files)
    assert answer.json() == {
        "title": "ünder",
        "files": [["large.bin", digest(large)], ["small é.txt", digest(b"small")]],
    }


@story("a request body read as it comes", over=HTTP)
def raw(site: Site) -> None:
    """Its length is not said beforehand."""

    def pieces() -> Iterator[bytes]:
        yield from PIECES

    with site.http() as http:
        answer = http.post("/raw", content=pieces())
    assert text(answer) == digest(b"".join(PIECES))


@story("an upload that breaks off")
def broken(site: Site) -> None:
    """Of everything that it could cause, nothing is left but the next request."""
    with Client(site.server.port) as client:
        client.ask("/raw", "Content-Length: 1000", method="POST")
        client.send(b"some of it")
    json.tell(site)


@story("a streamed response", over=HTTP)
def stream(site: Site) -> None:
    """Whole, and without a length."""
    with site.http() as http, http.stream("GET", "/stream") as answer:
        assert "content-length" not in answer.headers
        assert b"".join(answer.iter_bytes()) == b"".join(PIECES)


@story("a stream ends when its client leaves", over=HTTP)
def leaving(site: Site) -> None:
    """What the application's generator has in its `finally` is run, though it may be waiting."""
    for path in ("/endless", "/waiting"):
        # httpx does not reset a stream of HTTP/2: it leaves with its connection.
        with site.http() as http, http.stream("GET", path) as answer:
            assert next(answer.iter_raw())
        with site.http() as http:
            assert text(http.get("/left")) == path


@story("a stream that waits for nothing leaves others their turn", over=HTTP)
def turns(site: Site) -> None:
    """Though its client reads as fast as it is written."""
    begun, done = threading.Event(), threading.Event()

    def read() -> None:
        with site.http() as http, http.stream("GET", "/endless") as answer:
            for _ in answer.iter_raw():
                begun.set()
                if done.is_set():
                    return

    with ThreadPoolExecutor(1) as others:
        reading = others.submit(read)
        try:
            assert begun.wait(PATIENCE)
            json.tell(site)
        finally:
            done.set()
        reading.result(PATIENCE)
    with site.http() as http:
        assert text(http.get("/left")) == "/endless"


@story("server-sent events", over=HTTP)
def events(site: Site) -> None:
    """Each arrives at once: the next one waits for it."""
    seen = []
    with site.http() as http, connect_sse(http, "GET", "/events") as source:
        for event in source.iter_sse():
            seen.append(event.data)
            assert http.post("/now").status_code == 204
    assert seen == EVENTS


@story("a file, and its head", over=HTTP)
def file(site: Site) -> None:
    """With the same length."""
    content = FILE.read_bytes()
    with site.http() as http:
        answer = http.get("/file")
        assert answer.content == content
        assert answer.headers["content-length"] == str(len(content))
        head = http.head("/file")
        assert (head.content, head.headers["content-length"]) == (b"", str(len(content)))


@story("a range of a file", over=HTTP)
def ranges(site: Site) -> None:
    """Nothing else of it."""
    with site.http() as http:
        part = http.get("/file", headers={"Range": "bytes=3-6"})
        assert (part.status_code, part.content) == (206, FILE.read_bytes()[3:7])


@story("static files", over=HTTP)
def static(site: Site) -> None:
    """With their type; what is not there is not found."""
    with site.http() as http:
        answer = http.get("/static/site.css")
        assert answer.content == FILE.read_bytes()
        assert answer.headers["content-type"].startswith("text/css")
        assert http.get("/static/none.css").status_code == 404


@story("static files that the client has kept", over=HTTP)
def kept(site: Site) -> None:
    """They are not sent again."""
    with site.http() as http:
        first = http.get("/static/site.css")
        name, value = "If-Modified-Since", first.headers.get("last-modified")
        if "etag" in first.headers:
            name, value = "If-None-Match", first.headers["etag"]
        again = http.get("/static/site.css", headers={name: value})
        assert (again.status_code, again.content) == (304, b"")


@story("background tasks, behind the response", over=HTTP)
def background(site: Site) -> None:
    """The response does not wait for one that waits for the next request."""
    with site.http() as http:
        assert http.post("/later").status_code == 202
        assert http.post("/now").status_code == 204
        assert text(http.get("/later")) == "done"


@story("lifespan, and the state it leaves for requests")
def state(site: Site) -> None:
    """The same object for each."""
    with site.http() as http:
        assert http.get("/state").json() == 1
        assert http.get("/state").json() == 2


@story("synchronous views, on a thread")
def thread(site: Site) -> None:
    """Not that of the event loop."""
    with site.http() as http:
        assert text(http.get("/thread")) not in {"", "MainThread"}


@story("an exception is the framework's own 500", over=HTTP)
def failure(site: Site) -> None:
    """And the connection goes on."""
    with site.http() as http:
        assert http.get("/fail").status_code == 500
        assert http.post("/json", json=1).json() == 1


@story("a stream hears that its worker leaves", parting=True)
def hearing(site: Site) -> Iterator[None]:
    """After `--disconnect-delay`; one that has no end of its own is broken off."""
    with site.http() as http, http.stream("GET", "/waiting") as answer:
        pieces = answer.iter_raw()
        assert next(pieces)
        yield
        with pytest.raises(httpx.RemoteProtocolError):
            list(pieces)


HTTP_STORIES = (
    heads,
    json,
    cookies,
    upload,
    raw,
    broken,
    stream,
    leaving,
    turns,
    events,
    file,
    ranges,
    static,
    kept,
    background,
    state,
    thread,
    failure,
    hearing,
)
