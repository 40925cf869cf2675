"""The example's chat: its rooms reach over the workers, in a real browser and without one.

Everything that a browser does is tried twice: against the server itself, and with the nginx
configuration we ship in front of the server's unix socket.
"""

from __future__ import annotations

import json
import os
import re
import signal
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import expect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.browser import chromium, open_page
from tests.support.live import named_worker, prepared, served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page
    from websockets.sync.client import ClientConnection

    from tests.support.daphne import Daphne
    from tests.support.live import Site

MARKUP = "<img src=x onerror=alert(1)>"


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
def server(environment: dict[str, str]) -> Iterator[Daphne]:
    """Serve the example for clients that are no browsers; nothing they send makes a traceback."""
    with served(environment) as running:
        yield running.server
        assert "Traceback" not in running.server.log()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Run one browser for all tests of this module; each opens profiles of its own in it."""
    with chromium() as running:
        yield running


@contextmanager
def only(server: Daphne, pid: int) -> Iterator[None]:
    """Let the worker `pid` accept all connections: the others stand still for that moment."""
    others = [other for other in server.worker_pids() if other != pid]
    for other in others:
        os.kill(other, signal.SIGSTOP)
    try:
        yield
    finally:
        for other in others:
            os.kill(other, signal.SIGCONT)


# --- with a browser -------------------------------------------------------------------------------


def enter(page: Page, room: str, name: str) -> int:
    """Enter a room of the chat; return the pid of the worker that lets the page in."""
    page.get_by_label("Room").fill(room)
    page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name="Enter").click()
    expect(page.locator("#chat-state")).to_have_text("open")
    return named_worker(page.locator("#chat-worker"))


def say(page: Page, text: str) -> None:
    """Say something in the chat, as soon as that is possible."""
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send").click()


@contextmanager
def ada_and_bob(browser: Browser, site: Site, room: str) -> Iterator[tuple[Page, Page]]:
    """Open two pages that are in one room and on two workers."""
    first, second = site.server.worker_pids()
    with open_page(browser, site.url) as ada, open_page(browser, site.url) as bob:
        for page, name, pid in ((ada, "Ada", first), (bob, "Bob", second)):
            with only(site.server, pid):
                assert enter(page, room, name) == pid
        yield ada, bob


def test_one_room_on_two_workers(browser: Browser, site: Site) -> None:
    """Two pages on two workers see each other's messages, and through whom; another room none."""
    with (
        ada_and_bob(browser, site, "kitchen") as (ada, bob),
        open_page(browser, site.url) as eve,
    ):
        enter(eve, "garden", "Eve")
        workers = [named_worker(page.locator("#chat-worker")) for page in (ada, bob)]
        say(ada, "one")
        expect(bob.locator("#chat-log li")).to_have_text(
            [f"Ada one worker {workers[0]} → worker {workers[1]}"], use_inner_text=True
        )
        say(bob, "zwei, três, четыре, 五, 🙂")
        for page in (ada, bob):
            expect(page.locator("#chat-log li")).to_contain_text(
                ["Bob zwei, três, четыре, 五, 🙂", "Ada one"]
            )
        say(eve, "nobody here?")
        expect(eve.locator("#chat-log li")).to_contain_text(["Eve nobody here?"])


def test_who_is_here(browser: Browser, site: Site) -> None:
    """The list has everybody on all workers: who was there before, and nobody who has left."""
    with ada_and_bob(browser, site, "kitchen") as (ada, bob):
        for page in (ada, bob):
            expect(page.get_by_label("Who is here").locator("li")).to_have_count(2)
        enter(bob, "garden", "Bob")
        expect(bob.get_by_label("Who is here")).not_to_contain_text("Ada")
        expect(ada.get_by_label("Who is here").locator("li")).to_contain_text(["Ada"])


def test_names_and_messages_are_text(browser: Browser, site: Site) -> None:
    """Markup is shown as it was written, and not interpreted; a refusal is shown, too."""
    with open_page(browser, site.url) as page:
        enter(page, "kitchen", MARKUP)
        say(page, MARKUP)
        expect(page.locator("#chat-log li")).to_contain_text([f"{MARKUP} {MARKUP}"])
        expect(page.locator("#chat-people li")).to_contain_text([MARKUP])
        expect(page.locator("img")).to_have_count(0)
        say(page, "   ")
        expect(page.locator("#chat-error")).to_have_text("text: This field is required.")
        page.get_by_label("Your name").fill("   ")
        page.get_by_role("button", name="Enter").click()
        expect(page.locator("#chat-state")).to_have_text("refused")
        expect(page.locator("#chat-close")).to_have_text("4000 name: This field is required.")


def test_the_chat_fits_a_telephone(browser: Browser, site: Site) -> None:
    """At 360 CSS pixels nothing sticks out, whatever people are called and write."""
    with open_page(browser, site.url, width=360) as page:
        enter(page, "r" * 30, "W" * 40)
        say(page, "W" * 280)
        expect(page.locator("#chat-log li")).to_contain_text(["W" * 280])
        expect(page.locator("#chat-people li")).to_contain_text(["W" * 40])
        assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_the_room_is_in_the_address(browser: Browser, site: Site) -> None:
    """The address of a page in a room leads others to the same room."""
    with open_page(browser, site.url) as ada:
        enter(ada, "cellar-2", "Ada")
        with open_page(browser, ada.url) as bob:
            expect(bob.get_by_label("Room")).to_have_value("cellar-2")


def test_they_talk_on_after_a_reload(browser: Browser, site: Site) -> None:
    """HUP: the pages see 1012, come back by themselves on new workers, and hear each other.

    On the way they may meet an old worker whose turn has not come, and be sent away once more.
    """
    old = "|".join(str(pid) for pid in site.server.worker_pids())
    with ada_and_bob(browser, site, "kitchen") as (ada, bob):
        site.server.replace_all()
        for page in (ada, bob):
            expect(page.locator("#chat-close")).to_have_text("1012 service restart")
            expect(page.locator("#chat-state")).to_have_text("open")
            expect(page.locator("#chat-worker")).not_to_have_attribute(
                "data-worker", re.compile(f"^({old})$")
            )
            expect(page.get_by_label("Who is here").locator("li")).to_have_count(2)
        say(ada, "still there?")
        expect(bob.locator("#chat-log li")).to_contain_text(["Ada still there?"])
        say(bob, "yes")
        expect(ada.locator("#chat-log li")).to_contain_text(["Bob yes", "Ada still there?"])


def test_what_is_typed_in_the_meantime_is_kept(browser: Browser, site: Site) -> None:
    """Who is not connected cannot send, not even by Enter, and keeps what is in the field."""
    with open_page(browser, site.url) as page:
        field = page.get_by_label("Message", exact=True)
        field.fill("too early")
        field.press("Enter")
        expect(field).to_have_value("too early")
        enter(page, "kitchen", "Ada")
        field.press("Enter")
        expect(page.locator("#chat-log li")).to_contain_text(["Ada too early"])
        expect(field).to_have_value("")


def test_who_was_on_a_killed_worker_comes_back(browser: Browser, site: Site) -> None:
    """`kill -9`: connection lost, and back on another worker, once in everybody's list.

    The last test of a server: the dead worker's successor is not waited for.
    """
    with ada_and_bob(browser, site, "kitchen") as (ada, bob):
        victim = named_worker(ada.locator("#chat-worker"))
        os.kill(victim, signal.SIGKILL)
        expect(ada.locator("#chat-close")).to_have_text("1006 connection lost")
        expect(ada.locator("#chat-state")).to_have_text("open")
        assert named_worker(ada.locator("#chat-worker")) != victim
        say(ada, "back again")
        expect(bob.locator("#chat-log li")).to_contain_text(["Ada back again"])
        expect(bob.get_by_label("Who is here").locator("li")).to_have_count(2)


# --- without one ----------------------------------------------------------------------------------


def visit(server: Daphne, room: str, name: str, **more: str) -> ClientConnection:
    """Connect to a room of the chat; whether one is let in is the next thing to hear."""
    query = urlencode({"room": room, "name": name, "tab": name.lower()} | more)
    return connect(f"ws://127.0.0.1:{server.port}/ws/chat/?{query}", origin=server.url)


def hear(visitor: ClientConnection, kind: str) -> dict[str, Any]:
    """Return the next message of this kind, after what may come before it."""
    while True:
        message = json.loads(visitor.recv(10))
        if message["type"] == kind:
            return dict(message)


def tell(visitor: ClientConnection, text: str) -> None:
    """Say something in the room."""
    visitor.send(json.dumps({"text": text}))


@contextmanager
def on_two_workers(server: Daphne, room: str) -> Iterator[dict[int, ClientConnection]]:
    """Let a visitor into the room on each of the two workers; yield them by its pid."""
    with ExitStack() as stack:
        visitors = {}
        for pid, name in zip(server.worker_pids(), ("Ada", "Bob"), strict=True):
            with only(server, pid):
                visitors[pid] = stack.enter_context(visit(server, room, name))
                assert hear(visitors[pid], "hello")["worker"] == pid
        yield visitors


def test_a_message_reaches_its_room_on_both_workers(server: Daphne) -> None:
    """Everybody in the room hears it once, with its author and the author's worker; nobody else."""
    with on_two_workers(server, "kitchen") as kitchen, on_two_workers(server, "garden") as garden:
        for pid, name in zip(kitchen, ("Ada", "Bob"), strict=True):
            tell(kitchen[pid], "tea is ready")
            said = {"type": "said", "worker": pid, "name": name, "tab": name.lower()}
            for listener in kitchen.values():
                assert hear(listener, "said") == said | {"text": "tea is ready"}
        tell(next(iter(garden.values())), "it rains")
        for listener in garden.values():
            assert hear(listener, "said")["text"] == "it rains"


def test_no_message_is_lost_after_coming_back_from_a_reload(server: Daphne) -> None:
    """HUP ends both visits with 1012; who has been let in again hears all that is said then."""
    with on_two_workers(server, "kitchen") as before:
        server.replace_all()
        for visitor in before.values():
            with pytest.raises(ConnectionClosed):
                hear(visitor, "never")
            assert visitor.close_code == 1012
    with on_two_workers(server, "kitchen") as after:
        assert not before.keys() & after.keys()
        speaker, listener = after.values()
        texts = [str(number) for number in range(50)]
        for text in texts:
            tell(speaker, text)
        assert [hear(listener, "said")["text"] for _ in texts] == texts


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        (json.dumps({"text": "x" * 281}), "text: Ensure this value has at most 280 characters"),
        (json.dumps({"text": " "}), "text: This field is required."),
        (json.dumps({"text": "a\0b"}), "text: Null characters are not allowed."),
        (r'{"text": "\ud800"}', "text: This is not Unicode text."),
        (json.dumps({"text": ["a"]}), "text: This field is required."),
        (json.dumps(["text"]), "text: This field is required."),
        ("{", "text: This field is required."),
        ("[" * 100_000, "text: This field is required."),
        ("9" * 10_000, "text: This field is required."),
        ("", "text: This field is required."),
        (b'{"text": "bytes"}', "text: This field is required."),
    ],
    ids=str.split("long blank null surrogate list array cut deep number empty binary"),
)
def test_what_is_no_message_is_refused(server: Daphne, frame: str | bytes, problem: str) -> None:
    """Its author hears why, nobody else hears anything, and the visit goes on."""
    with visit(server, "cellar", "Ada") as ada, visit(server, "cellar", "Bob") as bob:
        hear(ada, "hello")
        hear(bob, "hello")
        ada.send(frame)
        assert hear(ada, "refused")["text"].startswith(problem)
        tell(ada, "sorry")
        assert hear(bob, "said")["text"] == "sorry"


@pytest.mark.parametrize(
    ("room", "name", "problem"),
    [
        ("", "Ada", "room: This field is required."),
        ("r" * 31, "Ada", "room: Ensure this value has at most 30 characters"),
        ("../kitchen", "Ada", "room: Enter a valid"),
        ("küche", "Ada", "room: Enter a valid"),
        ("kitchen", "", "name: This field is required."),
        ("kitchen", "A" * 41, "name: Ensure this value has at most 40 characters"),
        ("kitchen", "A\0", "name: Null characters are not allowed."),
    ],
)
def test_a_room_or_name_that_will_not_do_is_refused(
    server: Daphne, room: str, name: str, problem: str
) -> None:
    """The close says so, with a code that tells the page not to try again."""
    with visit(server, room, name, tab="t") as refused, pytest.raises(ConnectionClosed):
        refused.recv(10)
    assert refused.close_code == 4000
    assert (refused.close_reason or "").startswith(problem)


def test_a_query_of_anything_is_refused_alike(server: Daphne) -> None:
    """However many fields, and whatever bytes."""
    for query in ("", "%ff=%ff&room=%ff", "&".join("abcdefgh" * 200)):
        url = f"ws://127.0.0.1:{server.port}/ws/chat/?{query}"
        with connect(url, origin=server.url) as refused, pytest.raises(ConnectionClosed):
            refused.recv(10)
        assert refused.close_code == 4000
