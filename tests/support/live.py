"""The example, `examples/live`, as it is served to browsers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import expect

from tests.support.daphne import Daphne
from tests.support.proxies import nginx

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from playwright.sync_api import Locator

__all__ = ["APPLICATION", "OPTIONS", "Site", "named_worker", "prepared", "served"]

LIVE = Path(__file__).parents[2] / "examples" / "live"
APPLICATION = "live.asgi:application"
OPTIONS = ("--workers", "2", "--app-dir", str(LIVE))


@dataclass(frozen=True)
class Site:
    """The running example: its server, and where browsers find it."""

    server: Daphne
    url: str


def prepared(folder: Path) -> dict[str, str]:
    """Make the example's database in `folder`; return its settings, as environment variables."""
    settings = {
        "LIVE_DATABASE": str(folder / "db.sqlite3"),
        "LIVE_LONG_POLL_SECONDS": "1",
        "LIVE_CLOCK_SECONDS": "3",
    }
    migrate = [sys.executable, str(LIVE / "manage.py"), "migrate", "--verbosity", "0"]
    subprocess.run(migrate, env=os.environ | settings, check=True)
    return settings


@contextmanager
def served(settings: Mapping[str, str], *, behind_nginx_in: Path | None = None) -> Iterator[Site]:
    """Serve the example with two workers: itself, or on a unix socket behind nginx in a folder."""
    if behind_nginx_in is None:
        with Daphne(APPLICATION, *OPTIONS, env=settings) as server:
            yield Site(server, server.url)
        return
    path = behind_nginx_in / "web.sock"
    behind = ("--proxy-headers", "--unix-socket", str(path))
    with (
        Daphne(APPLICATION, *OPTIONS, *behind, env=settings) as server,
        nginx(behind_nginx_in, upstream=f"unix:{path}") as front,
    ):
        yield Site(server, front.url)


def named_worker(element: Locator) -> int:
    """Return the pid of the worker that an element of the page names, once it does."""
    expect(element).to_have_attribute("data-worker", re.compile(r"^\d+$"))
    return int(element.get_attribute("data-worker") or 0)
