"""HTTP/2 as a browser speaks it: Chromium over TLS, with several workers' worth of streams at once.

What a page knows of its connection is `nextHopProtocol`; what the server knows is in the scope, and
the application says it.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.browser import chromium
from tests.support.daphne import Daphne
from tests.support.http2 import Secure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

APPLICATION = "tests.integration.http2_app:application"
PATIENCE = 20_000

_HOW = """async path => {
    const told = await (await fetch(path)).json();
    const entry = performance.getEntriesByName(new URL(path, location).href).at(-1);
    return [told.http_version, entry.nextHopProtocol];
}"""

_UPLOAD = """async size => {
    const body = new Uint8Array(size);
    for (let at = 0; at < size; at++) body[at] = (at * 7) % 251;
    return await (await fetch("/digest", { method: "POST", body })).text();
}"""

_UPLOAD_STREAM = """async count => {
    let number = 0;
    const body = new ReadableStream({
        pull(controller) {
            if (number === count) controller.close();
            else controller.enqueue(new TextEncoder().encode(`${number++}\\n`));
        },
    });
    return await (await fetch("/digest", { method: "POST", body, duplex: "half" })).text();
}"""

_DOWNLOAD = """async path => {
    const reader = (await fetch(path)).body.getReader();
    let size = 0;
    for (let piece; !(piece = await reader.read()).done;) size += piece.value.length;
    return size;
}"""

_MANY = """async count => {
    const asked = [...Array(count).keys()].map(async number => {
        const answer = await fetch("/echo", { method: "POST", body: `number ${number}` });
        return await answer.text();
    });
    return await Promise.all(asked);
}"""

_LEAVES = """async () => {
    const control = new AbortController();
    const reader = (await fetch("/stream?200000", { signal: control.signal })).body.getReader();
    await reader.read();
    control.abort();
    return (await fetch("/hello")).status;
}"""

_WEBSOCKET = """async messages => {
    const socket = new WebSocket(`wss://${location.host}/chat`);
    socket.binaryType = "arraybuffer";
    const heard = [];
    const next = () => new Promise((resolve, reject) => {
        if (heard.length) resolve(heard.shift());
        else { socket.waiting = resolve; socket.onclose = event => reject(event.code); }
    });
    socket.onmessage = event => {
        const data = typeof event.data === "string" ? event.data : event.data.byteLength;
        if (socket.waiting) { socket.waiting(data); socket.waiting = null; }
        else heard.push(data);
    };
    const told = [JSON.parse(await next())];
    for (const message of messages) {
        socket.send(message);
        told.push(await next());
    }
    socket.send(new Uint8Array(300000));
    told.push(await next());
    const closed = new Promise(resolve => { socket.onclose = resolve; });
    socket.send("close");
    const { code, reason, wasClean } = await closed;
    return [...told, [code, reason, wasClean]];
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daphne]:
    """Serve over TLS."""
    secure = Secure(tmp_path_factory.mktemp("tls"))
    with Daphne(APPLICATION, "-w", "1", "-e", secure.endpoint) as server:
        yield server
        assert "Traceback" not in server.log()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Run one browser for all tests of this module."""
    with chromium() as running:
        yield running


@contextmanager
def opened(browser: Browser, server: Daphne) -> Iterator[Page]:
    """Show the page in a profile of its own, which believes any certificate."""
    with browser.new_context(ignore_https_errors=True) as context:
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(f"https://localhost:{server.port}/page")
        yield page


@pytest.fixture
def page(browser: Browser, server: Daphne) -> Iterator[Page]:
    """Show the page."""
    with opened(browser, server) as page:
        yield page


def test_requests(page: Page) -> None:
    """The browser and the application both say that it is HTTP/2."""
    assert page.evaluate(_HOW, "/scope") == ["2", "h2"]


def test_an_upload_of_ten_megabytes(page: Page) -> None:
    """Every byte arrives, by the checksum."""
    whole = (bytes((at * 7) % 251 for at in range(251)) * 40_000)[:10_000_000]
    assert page.evaluate(_UPLOAD, len(whole)) == hashlib.sha256(whole).hexdigest()


def test_an_upload_that_is_made_as_it_is_sent(page: Page) -> None:
    """A body whose length nobody knows before: browsers stream it over HTTP/2 only."""
    whole = "".join(f"{number}\n" for number in range(500)).encode()
    assert page.evaluate(_UPLOAD_STREAM, 500) == hashlib.sha256(whole).hexdigest()


def test_a_download_piece_by_piece(page: Page) -> None:
    """Twenty megabytes, read as a stream."""
    assert page.evaluate(_DOWNLOAD, "/stream?20000") == 20_480_000


def test_two_hundred_requests_at_once(page: Page) -> None:
    """More than the streams that may be open: the rest waits in the browser, and none is lost."""
    assert page.evaluate(_MANY, 200) == [f"number {number}" for number in range(200)]


def test_a_download_that_is_aborted(page: Page) -> None:
    """It costs its stream; the next request is answered."""
    assert page.evaluate(_LEAVES) == 200


def test_an_early_hint(browser: Browser, server: Daphne) -> None:
    """A page behind a 103 is shown, and what it hints at is fetched."""
    with opened(browser, server) as page:
        answer = page.goto(f"https://localhost:{server.port}/hint")
        assert answer is not None
        assert answer.status == 200
        # The page itself has no such link.
        page.wait_for_function("""async () => {
            const events = await (await fetch("/events?style")).json();
            return events.length === 1;
        }""")


def test_a_websocket(page: Page) -> None:
    """It goes as a stream of the connection that is there (RFC 8441), and ends with its code."""
    told: list[Any] = page.evaluate(_WEBSOCKET, ["hello", "é" * 50_000])
    assert told == [
        {"version": "2", "scheme": "wss"},
        "hello",
        "é" * 50_000,
        300_000,
        [4001, "as you like", True],
    ]


def test_websockets_beside_requests(page: Page) -> None:
    """Ten of them at once, and none in the way of the others."""
    script = f"messages => Promise.all([...Array(10).keys()].map(() => ({_WEBSOCKET})(messages)))"
    told = page.evaluate(script, ["a", "b", "c"])
    assert {(each[0]["version"], *each[1:4]) for each in told} == {("2", "a", "b", "c")}
    assert page.evaluate(_HOW, "/scope") == ["2", "h2"]


def test_a_reload(browser: Browser, server: Daphne) -> None:
    """A WebSocket hears 1012, a fetch goes on to its end, and the next finds the new worker."""
    with opened(browser, server) as page:
        page.evaluate("""() => new Promise(resolve => {
            const socket = new WebSocket(`wss://${location.host}/chat`);
            window.socketEnd = new Promise(done => { socket.onclose = event => done(event.code); });
            socket.onmessage = () => resolve();
        })""")
        page.evaluate("""() => { window.halves = fetch("/halves?2").then(got => got.text()); }""")
        before = page.evaluate("async () => await (await fetch('/hello')).text()")
        server.reload()
        assert page.evaluate("window.socketEnd") == 1012
        assert page.evaluate("window.halves") == "one two"
        after = page.evaluate("async () => await (await fetch('/hello')).text()")
        assert after != before
        assert page.evaluate(_HOW, "/scope") == ["2", "h2"]
