"""The frameworks that people run, each served by a real master to clients of its own kind."""

from __future__ import annotations

import contextlib
import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.frameworks.site import Framework, Site, Story
from tests.frameworks.table import FRAMEWORKS
from tests.support.daphne import Daphne

if TYPE_CHECKING:
    from collections.abc import Iterator

#: That an application is slow to see that its client has left is no trouble.
_TROUBLE = re.compile(
    r"^Traceback|\b(?:WARNING|ERROR|CRITICAL)\b(?!.*\(--application-close-timeout\))", re.MULTILINE
)


def leaves_in_order(site: Site) -> None:
    """A framework's last story: the lifespan ends, and the log has nothing that was not asked for.

    Each story that fails on purpose has left one traceback.
    """
    with contextlib.ExitStack() as partings:
        for each in site.framework.told(parting=True):
            partings.enter_context(contextlib.contextmanager(each.tell)(site))
        site.server.signal(signal.SIGTERM)
    assert site.server.wait_exit() == 0
    log = site.server.log()
    assert "cut off" not in log, log
    assert log.count("Traceback (most recent call last)") <= site.framework.failures, log
    assert ("lifespan ended" in log) == site.framework.lifespan, log
    if not site.framework.failures:
        assert not _TROUBLE.search(log), log


#: An application that has lost its client and waits for something else is told in the end.
ARGUMENTS = (
    *("--workers", "1", "--application-close-timeout", "0.2"),
    *("--disconnect-delay", "0.1", "--ws-drain-time", "0.1"),
)

LAST = Story("leaves in order", leaves_in_order)
CASES = [
    pytest.param(framework, story, protocol, id=f"{framework!r}-{story.name}-{protocol}".strip("-"))
    for framework in FRAMEWORKS
    for story in (*framework.told(), LAST)
    for protocol in story.over
]


class Stage:
    """Serves one framework at a time, as long as stories are told of it."""

    def __init__(self, stack: contextlib.ExitStack, folder: str) -> None:
        """End in `stack`; applications may keep in `folder` what they want to."""
        self._stack = stack
        self._env = {"FRAMEWORKS_FOLDER": folder}
        self._framework: Framework | None = None
        self._server: Daphne

    def serve(self, framework: Framework) -> Daphne:
        """Return what serves `framework`; another one's server ends."""
        if framework is not self._framework:
            self._stack.close()
            self._server = Daphne(framework.application, *ARGUMENTS, env=self._env)
            self._stack.enter_context(self._server)
            self._framework = framework
        return self._server


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Return where frameworks are served."""
    with contextlib.ExitStack() as stack:
        yield Stage(stack, str(tmp_path_factory.mktemp("frameworks")))


@pytest.mark.parametrize(("framework", "story", "protocol"), CASES)
def test_a_framework_works(stage: Stage, framework: Framework, story: Story, protocol: str) -> None:
    """Each does what its row of docs/frameworks.md says, over HTTP/1.1 and over HTTP/2."""
    story.tell(Site(framework, stage.serve(framework), protocol))
