"""A live server for tests: its contract, its options, its failures."""

from __future__ import annotations

import logging
import os
import queue
import socket
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import psutil
import pytest

from daphne_supervisor.config import Config
from daphne_supervisor.errors import BootError, UsageError
from daphne_supervisor.testing import (
    DaphneProcess,
    LiveServer,
    _find,
    _refuse_reload,
    _same,
    _Seed,
    served,
)
from tests.support import apps
from tests.support.client import get
from tests.support.daphne import environment, survivors

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 20.0


def application() -> Any:
    """Return something to serve; at the top of a module, as `spawn` needs it."""
    return apps.hello


def broken() -> Any:
    """Fail."""
    one, two = "nothing ", "to serve"
    raise LocalError(one, two)


def note(path: str, word: str) -> None:
    """Add a word to a file."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{word} {os.getpid()}\n")


class LocalError(Exception):
    """An error that nobody can unpickle: it asks for more than it passes on."""

    def __init__(self, one: str, two: str) -> None:
        """Fail for `one` and `two`."""
        super().__init__(one + two)


@pytest.fixture
def notes() -> Iterator[Path]:
    """Return a file to write to."""
    with tempfile.NamedTemporaryFile() as file:
        yield Path(file.name)


def await_ready(process: DaphneProcess) -> None:
    """Wait as Channels does."""
    while not process.ready.wait(timeout=1):
        assert process.is_alive()


def test_the_contract_of_daphne(notes: Path) -> None:
    """Start, ready, port, terminate, join; setup and teardown where the application is.

    That it is kept by what is spawned, too, is seen in a project's own tests: `multiprocessing`
    leaves a process of its own behind.
    """
    modules = set(sys.modules)
    process = DaphneProcess(
        "localhost",
        application,
        kwargs={"http_timeout": 9, "workers": None},
        setup=partial(note, str(notes), "setup"),
        teardown=partial(note, str(notes), "teardown"),
    )
    process.start()
    await_ready(process)
    response = get(process.port.value, "/")
    process.terminate()
    process.join()
    assert response.status == 200
    assert not process.is_alive()
    assert process.exitcode == 0
    assert notes.read_text() == f"setup {response.text}\nteardown {response.text}\n"
    assert "twisted.internet.reactor" not in sys.modules.keys() - modules
    assert process.errors.empty()


def test_a_given_port_is_taken() -> None:
    """The last argument is the port; one that is in use is an error in the queue."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        process = DaphneProcess("127.0.0.1", application, port=port)
        process.start()
        error, _ = process.errors.get(timeout=PATIENCE)
        process.join()
    assert str(error) == f"--port {port}: 127.0.0.1:{port} is in use by another process"
    assert process.exitcode == 3
    assert not process.ready.is_set()


def test_an_application_that_cannot_be_had_is_an_error_in_the_queue() -> None:
    """With its traceback; the process ends, which is what Channels looks for.

    An error that cannot be read elsewhere is described.
    """
    process = DaphneProcess("127.0.0.1", broken)
    process.start()
    error, story = process.errors.get(timeout=PATIENCE)
    process.join()
    assert repr(error) == "RuntimeError('LocalError: nothing to serve')"
    assert "in broken" in story
    assert process.exitcode == 3


def test_options_are_those_of_daphne_and_of_the_command() -> None:
    """What is unknown, and what makes no sense, is said where the mistake was made."""
    options = {"options": ["--threads=2"], "workers": 2, "request_buffer_size": 5}
    process = DaphneProcess("127.0.0.1", application, options | {"ping_interval": 0})
    config = process._configuration()
    assert (config.process.threads, config.process.workers) == (2, 2)
    assert config.websocket.ping_interval == 0
    assert not config.proxy.proxy_headers
    process = DaphneProcess(
        "127.0.0.1", application, {"proxy_forwarded_address_header": "X-Real-IP"}
    )
    assert process._configuration().proxy.proxy_headers
    assert process._configuration().proxy.proxy_headers_host == "X-Real-IP"
    with pytest.raises(TypeError, match="kwargs: no such option: colour, shape"):
        DaphneProcess("127.0.0.1", application, {"shape": 1, "colour": 2})
    with pytest.raises(UsageError, match="--http-timeout: 'soon' is not"):
        DaphneProcess("127.0.0.1", application, {"http_timeout": "soon"})


def test_a_live_server_is_ready_when_all_its_workers_are() -> None:
    """`with LiveServer(...)`: afterwards all of it is gone."""
    with LiveServer("tests.support.apps:hello", "--workers=2") as server:
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert server.ws_url == f"ws://127.0.0.1:{server.port}"
        assert get(server.port, "/").status == 200
        (master,) = psutil.Process().children()
        family = [master, *master.children(recursive=True)]
        assert len(family) == 4  # and the zygote
    assert survivors(family, 0) == []


def test_a_live_server_that_does_not_start_says_why() -> None:
    """The traceback of what has failed; without one, that it has not started."""
    with pytest.raises(RuntimeError, match="has no attribute 'nothing'"):
        LiveServer("tests.support.apps:nothing").__enter__()
    with pytest.raises(RuntimeError, match="not started within 0 s, or has died"):
        LiveServer(apps.hello, patience=0).__enter__()
    assert psutil.Process().children() == []


def test_it_is_ready_when_the_last_worker_is() -> None:
    """A worker that is replaced is not another one."""
    process = DaphneProcess("127.0.0.1", application)
    hooks = process._hooks(2)
    for slot in (1, 1):
        hooks.worker_ready(slot=slot, generation=1, pid=slot)
        assert not process.ready.is_set()
    hooks.worker_ready(slot=2, generation=1, pid=2)
    assert process.ready.is_set()


class Planted:
    """Stands where the worker's half of the package is."""

    def preload(self) -> None:
        """Do nothing."""

    def run(self, assignment: Any) -> int:
        """Serve, and end with what was assigned."""
        assert "twisted.internet.reactor" not in sys.modules
        assert served.application is apps.hello
        return int(assignment)


@pytest.mark.parametrize("word", ["", "teardown"])
def test_what_a_worker_does(notes: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    """It has a reactor of its own, and the functions of the tests around what it serves."""
    monkeypatch.setitem(sys.modules, "twisted.internet.reactor", ModuleType("a test's own"))
    end = partial(note, str(notes), word) if word else None
    process = DaphneProcess("127.0.0.1", application, teardown=end)
    logger = logging.getLogger("daphne_supervisor.worker")
    filters = list(logger.filters)
    seed = _Seed(Planted(), process)
    seed.preload()
    code: Any = 7
    try:
        assert seed.run(code) == 7
    finally:
        logger.filters[:] = filters
    assert notes.read_text().split()[:1] == ([word] if word else [])


@pytest.mark.parametrize("fails", ["get_application", "setup"])
def test_what_fails_in_a_worker_is_told(fails: str) -> None:
    """The tests get the error and its story, the master the line and the same story."""
    told: list[BaseException] = []
    functions = {"get_application": application, "setup": None, fails: broken}
    process = SimpleNamespace(**functions, note=told.append)
    served.process = cast("DaphneProcess", process)
    with pytest.raises(BootError, match="cannot be had: LocalError: nothing to serve") as raised:
        _ = served.application
    assert [type(error) for error in told] == [LocalError]
    assert "in broken" in raised.value.traceback  # type: ignore[attr-defined]


class Errors(list[Any]):
    """Stands for the queue: holds what was put, and what was done after it."""

    put = list.append

    def close(self) -> None:
        """Take no more."""
        self.append("closed")

    def join_thread(self) -> None:
        """Wait until all is written."""
        self.append("written")


def test_what_is_told_has_left_before_the_process_does() -> None:
    """The queue's own thread has written it; what cannot be read elsewhere is described."""
    process = DaphneProcess("127.0.0.1", application)
    process.errors = errors = cast("Any", Errors())
    process.note(LocalError("one ", "two"))
    (error, _), *rest = errors
    assert repr(error) == "RuntimeError('LocalError: one two')"
    assert rest == ["closed", "written"]
    errors.clear()
    process.note(KeyError("plain"))
    assert repr(errors[0][0]) == "KeyError('plain')"


def test_an_application_is_found_by_its_name() -> None:
    """Or is what it is."""
    assert _find("tests.support.apps:hello") is apps.hello
    assert _find("tests.support:apps.hello") is apps.hello
    assert _same(apps.hello) is apps.hello
    assert LiveServer(None, get_application=application)._process.get_application is application


PROGRAM = """
import sys
from daphne_supervisor.testing import DaphneProcess
from tests.unit.test_testing import application

process = DaphneProcess("127.0.0.1", application)
process.start()
process.ready.wait()
print(process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["killed", "left"])
def test_it_ends_with_the_tests(end: str) -> None:
    """Whether they are killed, or leave without a word to it; nobody waits for the other then."""
    tests = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert tests.stdin is not None
    assert tests.stdout is not None
    with tests.stdin, tests.stdout:
        master = psutil.Process(int(tests.stdout.readline()))
        family = [master, *master.children(recursive=True)]
        if end == "killed":
            tests.kill()
    assert tests.wait(PATIENCE) == (-9 if end == "killed" else 0)
    assert survivors(family, PATIENCE) == []


def test_waiting_for_a_server_has_an_end() -> None:
    """As `join` of a process does; it goes on then, and is waited for again."""
    process = DaphneProcess("127.0.0.1", application)
    process.start()
    process.join(0)
    assert process.is_alive()
    process.terminate()
    process.join()
    assert not process.is_alive()


def test_a_server_for_tests_is_not_reloaded() -> None:
    """What the tests have in memory cannot be read anew."""
    with pytest.raises(UsageError, match="a server of tests is not reloaded"):
        _refuse_reload(Config(application="some:thing"))


def test_the_queue_of_errors_is_empty_at_first() -> None:
    """Nothing is in it before something has gone wrong."""
    with pytest.raises(queue.Empty):
        DaphneProcess("127.0.0.1", application).errors.get_nowait()
