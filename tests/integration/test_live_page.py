"""The example's page in a real browser, through the real master with two workers.

Everything that a browser does is tried twice: against the server itself, and with the nginx
configuration we ship in front of the server's unix socket.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest
from playwright.sync_api import expect

from tests.support.browser import chromium, open_page, throttle_upload
from tests.support.daphne import Daphne
from tests.support.live import APPLICATION, OPTIONS, named_worker, prepared, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from tests.support.live import Site

CLOCK = "/clock/"
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the example's settings, after making its database."""
    return prepared(tmp_path_factory.mktemp("live"))


@pytest.fixture(scope="module", params=["direct", "nginx"])
def site(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    environment: dict[str, str],
) -> Iterator[Site]:
    """Serve the example with two workers, with or without nginx in front."""
    folder = tmp_path_factory.mktemp("nginx") if request.param == "nginx" else None
    with served(environment, behind_nginx_in=folder) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Run one browser for all tests of this module; each opens profiles of its own in it."""
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """Show the page in a fresh profile."""
    with open_page(browser, site.url) as shown:
        yield shown


def ticks_reach(page: Page, count: int) -> None:
    """Wait until the clock has ticked at least so often."""
    page.wait_for_function("count => document.all['clock-ticks'].textContent >= count", arg=count)


def sign(page: Page, name: str, text: str) -> None:
    """Sign the guest book."""
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Note", exact=True).fill(text)
    page.get_by_role("button", name="Sign").click()


def test_the_page_names_one_of_the_workers(page: Page, site: Site) -> None:
    """The page says which worker process it comes from."""
    assert named_worker(page.locator("#page-worker")) in site.server.worker_pids()


def test_the_page_fits_a_telephone(browser: Browser, site: Site) -> None:
    """At 360 CSS pixels nothing sticks out, whatever a visitor wrote."""
    with open_page(browser, site.url, width=360) as page:
        sign(page, "W" * 40, "W" * 280)
        expect(page.get_by_label("Notes, newest first")).to_contain_text("W" * 280)
        assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_the_clock_ticks_until_it_is_stopped(page: Page, site: Site) -> None:
    """Server-sent events arrive, and go on by themselves when the server has ended a stream."""
    ticks_reach(page, 3)
    assert named_worker(page.locator("#clock-worker")) in site.server.worker_pids()
    ticks_reach(page, 6)  # a stream lasts three seconds here: this is the second one
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#clock-state")).to_have_text("stopped")
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#clock-state")).to_have_text("open")


def test_a_long_poll_brings_what_another_browser_wrote(browser: Browser, site: Site) -> None:
    """A note signed in one browser appears in another by itself."""
    with open_page(browser, site.url) as reader, open_page(browser, site.url) as writer:
        expect(reader.locator("#poll-state")).to_have_text("waiting")
        sign(writer, "Ada", "Can you read this?")
        expect(reader.locator("#note-list")).to_contain_text("Can you read this?")


def test_a_long_poll_with_nothing_to_say_ends_and_is_asked_again(page: Page, site: Site) -> None:
    """After its time a long poll answers with nothing, and the page asks the next one."""
    for _ in range(2):
        with page.expect_response("**/notes/next/**") as answered:
            pass
        assert answered.value.json()["notes"] == []
    expect(page.locator("#poll-outcome")).to_contain_text("nothing new")
    assert named_worker(page.locator("#poll-worker")) in site.server.worker_pids()


def test_an_upload_shows_its_progress_and_arrives_whole(
    page: Page, site: Site, tmp_path: Path
) -> None:
    """The bar stands somewhere in the middle on the way, and every byte arrives."""
    content = os.urandom(8 * MEGABYTE)
    file = tmp_path / "photo.raw"
    file.write_bytes(content)
    throttle_upload(page, 4 * MEGABYTE)
    page.get_by_label("File").set_input_files(file)
    page.get_by_role("button", name="Upload").click()
    page.wait_for_function(
        "bar => bar.value > 0 && bar.value < 1 && bar.getClientRects().length",
        arg=page.get_by_role("progressbar", name="Progress").element_handle(),
    )
    expect(page.locator("#upload-state")).to_have_text("sending")
    expect(page.locator("#upload-size")).to_have_text(str(len(content)))
    expect(page.locator("#upload-digest")).to_have_text(hashlib.sha256(content).hexdigest())
    expect(page.locator("#upload-percent")).to_have_text("100 %")
    assert named_worker(page.locator("#upload-worker")) in site.server.worker_pids()


def test_the_guest_book_keeps_what_is_signed(page: Page) -> None:
    """A note shows at once, is still there after a reload, and is text, never markup."""
    sign(page, "Grace", "<img src=x onerror=alert(1)>")
    newest = page.locator("#note-list li").first
    expect(newest).to_contain_text("Grace <img src=x onerror=alert(1)>")
    page.reload()
    expect(newest).to_contain_text("Grace <img src=x onerror=alert(1)>")
    expect(page.locator("#note-list img")).to_have_count(0)


def test_posting_without_the_token_of_the_page_is_refused(site: Site) -> None:
    """Another site cannot post in a visitor's name: the CSRF check is on and sees our host."""
    with httpx.Client(base_url=site.url) as client:
        client.get("/")
        note = {"name": "Mallory", "text": "hello"}
        assert client.post("/notes/", data=note).status_code == 403
        token = {"X-CSRFToken": client.cookies["csrftoken"]}
        elsewhere = token | {"Origin": "http://elsewhere.example"}
        assert client.post("/notes/", data=note, headers=elsewhere).status_code == 403
        ours = token | {"Origin": site.url.rstrip("/")}
        assert client.post("/notes/", data=note, headers=ours).status_code == 201


def test_a_long_poll_hears_of_a_note_that_came_in_through_the_other_worker(
    environment: dict[str, str],
) -> None:
    """The workers share the guest book, so it does not matter which one a browser talks to."""
    settings = environment | {"LIVE_LONG_POLL_SECONDS": "15"}
    with Daphne(APPLICATION, *OPTIONS, env=settings) as server:
        first, second = server.worker_pids()
        with (
            connection_to(server, first, not_to=second) as reader,
            connection_to(server, second, not_to=first) as writer,
            ThreadPoolExecutor() as pool,
        ):
            known = max((note["id"] for note in reader.get("/notes/").json()["notes"]), default=0)
            token = {"X-CSRFToken": writer.cookies["csrftoken"]}
            note = {"name": "Barbara", "text": "over here"}
            answer = pool.submit(reader.get, "/notes/next/", params={"after": known})
            signed = writer.post("/notes/", data=note, headers=token)
            heard = answer.result()
    assert signed.json()["worker"] == second
    assert heard.json() == {"worker": first, "notes": [signed.json()["note"]]}


def test_a_clock_ends_when_its_browser_leaves(environment: dict[str, str]) -> None:
    """A stream that would go on for a minute is over in the application once nobody listens."""
    settings = environment | {"LIVE_CLOCK_SECONDS": "60"}
    with Daphne(APPLICATION, *OPTIONS, env=settings) as server:
        one, other = server.worker_pids()
        with connection_to(server, one, not_to=other) as stays, stays.stream("GET", CLOCK) as here:
            running = clocks(here)
            with (
                connection_to(server, one, not_to=other) as leaves,
                leaves.stream("GET", CLOCK) as there,
            ):
                also_running = clocks(there)
                assert next(also_running) == 2
                assert 2 in running
            assert 1 in running


def clocks(response: httpx.Response) -> Iterator[int]:
    """Yield what a stream of the clock says about the clocks in its worker, as it comes."""
    for line in response.iter_lines():
        if line.startswith("data:"):
            yield json.loads(line.removeprefix("data:"))["clocks"]


@contextmanager
def connection_to(server: Daphne, pid: int, *, not_to: int) -> Iterator[httpx.Client]:
    """Open a kept-alive connection that the worker `pid` has accepted, and fetch the page over it.

    Who accepts is the kernel's choice, unless the other worker stands still for that moment.
    """
    one = httpx.Limits(max_connections=1)
    with httpx.Client(base_url=server.url, limits=one, timeout=20) as client:
        os.kill(not_to, signal.SIGSTOP)
        try:
            client.get("/").raise_for_status()
        finally:
            os.kill(not_to, signal.SIGCONT)
        assert client.get("/notes/").json()["worker"] == pid
        yield client
