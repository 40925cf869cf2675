"""A real browser for tests: Debian's Chromium, driven by Playwright.

Playwright's own browser builds are never downloaded. Waiting is left to its `expect`, which returns
as soon as the page looks as expected, so no test sleeps.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from playwright.sync_api import expect, sync_playwright

from tests.support.tools import tool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

__all__ = ["chromium", "open_page", "throttle_upload"]

PATIENCE = 15_000
"""Milliseconds until a page has to look as expected: far beyond what a loaded machine needs."""

ARGUMENTS = (
    "--no-sandbox",  # the sandbox refuses to run as root, which containers and CI are
    "--disable-gpu",
    "--disable-quic",
    # No traffic of its own:
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a headless Chromium; skip the test if it is not installed, or fail it in CI."""
    path = tool("chromium", "chromium")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Browser, url: str, *, width: int = 1200) -> Iterator[Page]:
    """Show `url` in a browser profile of its own, `width` CSS pixels wide.

    Raises AssertionError at the end if the page's script has thrown anything.
    """
    thrown: list[str] = []
    with browser.new_context(viewport={"width": width, "height": 800}) as context:
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("pageerror", lambda error: thrown.append(str(error)))
        page.goto(url)
        yield page
    assert not thrown, f"uncaught in the page: {thrown}"


def throttle_upload(page: Page, bytes_per_second: int) -> None:
    """Slow down what the page sends, so that progress can be seen on a local network."""
    session = page.context.new_cdp_session(page)
    session.send(
        "Network.emulateNetworkConditions",
        {
            "offline": False,
            "latency": 0,
            "downloadThroughput": -1,  # no limit
            "uploadThroughput": bytes_per_second,
        },
    )
