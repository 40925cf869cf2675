"""Live servers in the tests of a real project: Channels' own test case, a browser, pytest."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.daphne import environment
from tests.support.django_project import DjangoProject
from tests.support.tools import tool

if TYPE_CHECKING:
    from pathlib import Path

# A whole test run, a project and a browser each: on a busy machine that is a minute.
pytestmark = pytest.mark.timeout(180)

CHANNELS = """
import multiprocessing
import os
import sys

import httpx
from channels.testing import ChannelsLiveServerTestCase
from playwright.sync_api import expect

from daphne_supervisor.testing import DaphneProcess
from site1.models import Word
from tests.support.browser import chromium, open_page

multiprocessing.set_start_method(os.environ["START_METHOD"])


class LiveTest(ChannelsLiveServerTestCase):
    ProtocolServerProcess = DaphneProcess

    def test_page_and_websocket(self):
        Word.objects.create(text="before")
        with chromium() as browser, open_page(browser, self.live_server_url) as page:
            expect(page.locator("#answer")).to_have_text("2 hello")
            expect(page.locator("#version")).to_have_css("color", "rgb(1, 2, 3)")
        self.assertEqual([word.text for word in Word.objects.order_by("id")], ["before", "hello"])
        self.assertNotIn("twisted.internet.reactor", sys.modules)


class LaterTest(ChannelsLiveServerTestCase):
    ProtocolServerProcess = DaphneProcess
    serve_static = False

    def test_the_database_is_that_of_this_test(self):
        answer = httpx.get(self.live_server_url + "/words").text.split()
        self.assertEqual((int(answer[0]) > 0, answer[1:]), (True, []))

    def test_static_files_are_not_served(self):
        self.assertEqual(httpx.get(self.live_server_url + "/static/site.css").status_code, 404)
"""

PYTEST = """
import os

import django
import httpx
import pytest
from django.test.utils import setup_databases, teardown_databases

os.environ["DJANGO_SETTINGS_MODULE"] = "site1.settings"
django.setup()

from site1.models import Word

pytest_plugins = ["daphne_supervisor.pytest_plugin"]


@pytest.fixture(scope="session", autouse=True)
def database():
    before = setup_databases(verbosity=0, interactive=False)
    yield
    teardown_databases(before, verbosity=0)


def test_the_project(daphne_server):
    Word.objects.create(text="written-by-the-test")
    server = daphne_server(None, "--workers=2")
    assert httpx.get(server.url + "/words").text.endswith(" written-by-the-test")
    assert httpx.get(server.url + "/static/site.css").status_code == 200


def test_anything_else(daphne_server):
    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"made here"})

    assert httpx.get(daphne_server(application).url).text == "made here"
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_channels_live_server_test_case(tmp_path: Path, method: str) -> None:
    """It runs with our process in the place of Daphne's, and Chromium sees page and WebSocket."""
    tool("chromium", "chromium")
    project = DjangoProject(tmp_path)
    project.write("site1/tests.py", CHANNELS)
    done = project.run("test", "--verbosity", "0", "site1", env={"START_METHOD": method})
    assert done.returncode == 0, done.stdout
    assert "Ran 3 tests" in done.stdout
    assert "graceful-timeout" not in done.stdout


def test_the_fixture_of_pytest(tmp_path: Path) -> None:
    """In a project that asks for it: its own application on the test's database, or any other."""
    project = DjangoProject(tmp_path)
    project.write("conftest.py", PYTEST.partition("def test_")[0])
    project.write("test_live.py", f"import httpx\nfrom site1.models import Word\n{_tests()}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def _tests() -> str:
    _, _, tests = PYTEST.partition("def test_")
    return f"def test_{tests}"
