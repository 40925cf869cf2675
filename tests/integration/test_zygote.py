"""Workers are forked from a zygote: what that saves, what it must not cost, and who is called."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.support.client import Client
from tests.support.daphne import PATIENCE, Daphne, run_command, survivors
from tests.support.project import Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)

BOOT_FAILED = 3

APPLICATION = '''
import asyncio
import os

IMPORTED_BY = os.getpid()

async def application(scope, receive, send):
    """Answer with the version, who has imported this module, and who answers."""
    if scope["type"] != "http":
        raise ValueError(scope["type"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while scope["path"] == "/endless":
        await send({"type": "http.response.body", "body": b"more", "more_body": True})
        await asyncio.sleep(1)
    body = f"{VERSION} {IMPORTED_BY} {os.getpid()}".encode()
    await send({"type": "http.response.body", "body": body})
'''

HOOKS = """
import json
import os

def note(name, facts):
    with open(os.environ["NOTES"], "a") as file:
        file.write(json.dumps({"name": name, "by": os.getpid(), **facts}) + "\\n")

def on_boot(**facts): note("on_boot", facts)
def before_fork(**facts): note("before_fork", facts)
def after_fork(**facts): note("after_fork", facts)
def worker_ready(**facts): note("worker_ready", facts)
def worker_exit(**facts): note("worker_exit", facts)
def on_reload(**facts): note("on_reload", facts)
def on_exit(**facts): note("on_exit", facts)
"""


class Shop:
    """A folder with an application in `shop.py` that is released again and again."""

    def __init__(self, folder: Path) -> None:
        """Begin with version 1."""
        self.folder = folder
        self.arguments = ("--app-dir", str(folder), "--access-log", "/dev/null")
        self.release("v1")

    def release(self, version: str, code: str = "") -> None:
        """Put a version on the disk that runs `code` when it is imported."""
        text = f"VERSION = {version!r}\n{code}\n{APPLICATION}"
        (self.folder / "shop.py").write_text(text)

    def serve(self, *arguments: str, **environment: str) -> Daphne:
        """Return two workers that serve it."""
        return Daphne(
            "shop:application", "--workers", "2", *self.arguments, *arguments, env=environment
        )

    def boot(self, *arguments: str) -> tuple[int, str]:
        """Run it to the end that it is expected to come to; return exit code and log."""
        done = run_command("--port", "0", *self.arguments, *arguments, "shop:application")
        return done.returncode, done.stderr


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Return a shop in its first version."""
    return Shop(tmp_path)


def wait_until(server: Daphne, wanted: Callable[[], bool]) -> None:
    """Look again and again whether something that is not announced has come about."""
    for _ in range(100):
        if wanted():
            return
        survivors(server.workers(), PATIENCE / 100)
    message = f"it has not come about\n{server.log()}"
    raise AssertionError(message)


def answers(server: Daphne) -> dict[int, tuple[str, int]]:
    """Return of each worker its version and who has imported it, when all have answered.

    The connections stay open meanwhile: of those that end at once one worker may take every one.
    """
    found: dict[int, tuple[str, int]] = {}
    workers = server.worker_pids()
    with ExitStack() as stack:
        for _ in range(100):
            client = stack.enter_context(Client(server.port))
            version, importer, pid = client.get("/").text.split()
            found[int(pid)] = (version, int(importer))
            if sorted(found) == workers:
                return found
    message = f"only {sorted(found)} of {workers} have answered"
    raise AssertionError(message)


# Who is whose child


def test_workers_are_children_of_the_master(shop: Shop) -> None:
    """The master waits for them and signals them itself; the zygote has no children."""
    with shop.serve() as server:
        (zygote,) = server.zygotes()
        assert len(server.workers()) == 2
        assert {worker.ppid() for worker in server.workers()} == {server.pid}
        assert zygote.children() == []


def test_a_killed_zygote_is_replaced_without_touching_workers(shop: Shop) -> None:
    """The workers go on, there is a new zygote, and a worker that is killed then comes back."""
    with shop.serve() as server:
        before = server.worker_pids()
        (zygote,) = server.zygotes()
        zygote.kill()
        wait_until(server, lambda: server.zygotes() not in ([], [zygote]))
        assert server.worker_pids() == before
        assert sorted(answers(server)) == before
        victim = server.workers()[0]
        victim.kill()
        server.wait_status("1/2 workers ready")
        server.wait_status("2/2 workers ready")
        after = server.worker_pids()
        assert victim.pid not in after
        assert len(set(before) & set(after)) == 1
        assert sorted(answers(server)) == after
        assert f"zygote gen 1 pid {zygote.pid}: gone, signal SIGKILL" in server.log()


def test_worker_and_zygote_killed_together_come_back(shop: Shop) -> None:
    """The order in which two deaths are found does not matter."""
    with shop.serve() as server:
        (zygote,) = server.zygotes()
        zygote.kill()
        server.workers()[0].kill()
        server.wait_status("1/2 workers ready")
        server.wait_status("2/2 workers ready")
        assert len(answers(server)) == 2


def test_a_reload_leaves_one_zygote(shop: Shop) -> None:
    """The old generation's is given up when nobody will be born of it any more."""
    with shop.serve() as server:
        before = server.zygotes()
        for _ in range(3):
            server.replace_all()
        wait_until(server, lambda: len(server.zygotes()) == 1)
        assert server.zygotes() != before
        assert re.findall(r"WARNING.*zygote", server.log()) == []


def test_nobody_is_left_when_the_master_is_killed(shop: Shop) -> None:
    """Zygote and workers see the end of their channels, which none of them holds open."""
    with shop.serve() as server:
        everybody = [*server.workers(), *server.zygotes()]
        assert len(everybody) == 3
        server.process.kill()
        server.wait_exit()
        assert survivors(everybody, PATIENCE) == []


def test_a_draining_service_refuses_connections(shop: Shop) -> None:
    """The zygote has the listeners open too, and must not keep a queue that nobody serves."""
    with shop.serve() as server, Client(server.port) as client:
        port = server.port
        client.ask("/endless")
        assert client.head().status == 200
        server.signal(signal.SIGTERM)
        server.wait_status("draining")
        wait_until(server, lambda: _refuses(port))
        assert server.process.poll() is None  # the request keeps it


def _refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False


# Preload


def test_workers_share_an_application_that_is_preloaded(shop: Shop) -> None:
    """It is imported once, by the zygote; without --preload each worker imports it."""
    with shop.serve("--preload") as server:
        (zygote,) = server.zygotes()
        assert set(answers(server).values()) == {("v1", zygote.pid)}
    with shop.serve() as server:
        assert all(pid == importer for pid, (_, importer) in answers(server).items())


def test_a_reload_picks_up_new_code_that_is_preloaded(shop: Shop) -> None:
    """Each generation has a zygote of its own, which imports what is on the disk then."""
    with shop.serve("--preload") as server:
        for version in ("v2", "v3"):
            shop.release(version)
            server.replace_all()
            assert {said for said, _ in answers(server).values()} == {version}


@pytest.mark.parametrize("workers", ["1", "4"])
def test_a_preload_that_fails_at_boot_ends_with_3_and_one_traceback(
    shop: Shop, workers: str
) -> None:
    """However many workers wait for it; and no line of ours is in the traceback."""
    shop.release("v1", "def prepare():\n    return 1 // 0\nprepare()\n")
    code, log = shop.boot("--preload", "--workers", workers)
    assert code == BOOT_FAILED
    assert log.count("Traceback (most recent call last)") == 1
    assert log.count("return 1 // 0") == 1
    assert "daphne_supervisor/" not in log


def test_a_preload_that_fails_at_a_reload_is_rolled_back(shop: Shop) -> None:
    """The old workers stay, the reason is told once, and a sound release can follow."""
    with shop.serve("--preload") as server:
        before = server.worker_pids()
        shop.release("v2", "1 // 0\n")
        said = server.reload()
        assert "2/2 workers ready" in said
        assert "rolled back" in said
        assert "ZeroDivisionError" in said
        assert server.worker_pids() == before
        assert server.log().count("Traceback (most recent call last)") == 1
        assert {said for said, _ in answers(server).values()} == {"v1"}
        shop.release("v3")
        server.replace_all()
        assert {said for said, _ in answers(server).values()} == {"v3"}


HANG = "import time\ndef connect_to_nowhere():\n    time.sleep(3600)\nconnect_to_nowhere()\n"


def test_a_preload_that_hangs_is_aborted_with_its_stack_and_rolled_back(shop: Shop) -> None:
    """The log shows the hanging line of the application, and the old workers stay."""
    patience = Patience(shop.folder / "daphne.toml")
    with shop.serve("--preload", *patience.arguments) as server:
        patience.shorten(server)
        before = server.worker_pids()
        shop.release("v2", HANG)
        said = server.reload()
        assert "rolled back" in said
        assert "--ready-timeout" in said
        wait_until(server, lambda: len(server.zygotes()) == 1)
        assert server.worker_pids() == before
        assert "in connect_to_nowhere" in server.log()
        patience.lengthen()
        shop.release("v3")
        server.replace_all()
        assert {said for said, _ in answers(server).values()} == {"v3"}


def test_a_preload_that_hangs_at_boot_ends_with_3_and_its_stack(shop: Shop) -> None:
    """Two workers wait for it, and the stack is there once and whole.

    The machine may be so busy that the time is over before the application is imported.
    """
    reached = shop.folder / "reached"
    shop.release("v1", f"open({str(reached)!r}, 'w').close()\n{HANG}")
    for seconds in (2, 6, 18):
        code, log = shop.boot("--preload", "--ready-timeout", str(seconds), "--workers", "2")
        assert code == BOOT_FAILED
        assert f"was not ready within {seconds} s (--ready-timeout)" in log
        if reached.exists():
            break
    assert log.count("in connect_to_nowhere") == 1
    assert log.count("in live") == 1


def test_what_cannot_be_forked_is_named(shop: Shop) -> None:
    """A thread, a reactor and a connection at import work until the day that they do not."""
    with socket.create_server(("127.0.0.1", 0)) as database:
        port = database.getsockname()[1]
        shop.release(
            "v1",
            "import socket, threading\n"
            "threading.Thread(target=threading.Event().wait, name='metrics', daemon=True).start()\n"
            f"connection = socket.create_connection(('127.0.0.1', {port}))\n"
            "from twisted.internet import reactor\n",
        )
        with shop.serve("--preload") as server:
            assert len(answers(server)) == 2
            told = re.findall(r"WARNING +--preload: the application (.*)", server.log())
    assert [text.partition(",")[0].partition(" (descriptor")[0] for text in told] == [
        "has started the thread 'metrics'",
        "has installed a reactor",
        f"has opened a connection to 127.0.0.1 port {port}",
    ]


def test_without_preload_nothing_is_warned_of(shop: Shop) -> None:
    """What an application does in its own worker is its own affair."""
    shop.release("v1", "import threading\nthreading.Thread(target=print, name='metrics').start()\n")
    with shop.serve() as server:
        assert "metrics" not in server.log()
        assert "--preload" not in server.log()


# Hooks


class Notes:
    """What the hooks have written down."""

    def __init__(self, folder: Path) -> None:
        """Write the hooks into `folder`."""
        self.path = folder / "notes"
        self.path.touch()
        (folder / "shop_hooks.py").write_text(HOOKS)

    def all(self, name: str) -> list[dict[str, Any]]:
        """Return the notes of one function."""
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [line for line in lines if line.pop("name") == name]

    def names(self) -> list[str]:
        """Return who was called, in order."""
        return [json.loads(line)["name"] for line in self.path.read_text().splitlines()]


@pytest.fixture
def notes(shop: Shop) -> Iterator[Notes]:
    """Return the notes of hooks that are there to be used."""
    return Notes(shop.folder)


def test_hooks_are_called_where_and_when_it_is_documented(shop: Shop, notes: Notes) -> None:
    """Each by the process that the table names, with the facts that it names."""
    with shop.serve("--hooks", "shop_hooks", NOTES=str(notes.path)) as server:
        master = server.pid
        (zygote,) = server.zygotes()
        workers = dict(enumerate_slots(server))
        assert notes.all("on_boot") == [{"by": master, "application": "shop:application"}]
        assert notes.all("before_fork") == [
            {"by": zygote.pid, "slot": slot, "generation": 1} for slot in (1, 2)
        ]
        forked = sorted(notes.all("after_fork"), key=lambda note: int(note["slot"]))
        assert forked == [
            {"by": pid, "slot": slot, "generation": 1, "pid": pid} for slot, pid in workers.items()
        ]
        ready = sorted(notes.all("worker_ready"), key=lambda note: int(note["slot"]))
        assert ready == [
            {"by": master, "slot": slot, "generation": 1, "pid": pid}
            for slot, pid in workers.items()
        ]
        os.kill(workers[1], signal.SIGKILL)
        server.wait_status("1/2 workers ready")
        server.wait_status("2/2 workers ready")
        assert notes.all("worker_exit") == [
            {"by": master, "slot": 1, "generation": 1, "pid": workers[1], "how": "signal SIGKILL"}
        ]
        assert notes.all("on_reload") == []
        server.replace_all()
        assert notes.all("on_reload") == [{"by": master, "application": "shop:application"}]
        assert notes.all("on_exit") == []
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
    assert notes.all("on_exit") == [{"by": master, "code": 0}]
    assert notes.names()[0] == "on_boot"
    assert notes.names()[-1] == "on_exit"
    assert notes.names().count("on_boot") == 1
    assert len(notes.all("worker_exit")) == 5


def enumerate_slots(server: Daphne) -> list[tuple[int, int]]:
    """Return slot and process id of each worker, in the order of the slots."""
    found = []
    for worker in server.workers():
        title = re.search(r"worker (\d+) gen", " ".join(worker.cmdline()))
        assert title is not None
        found.append((int(title.group(1)), worker.pid))
    return sorted(found)


def test_hooks_that_fail_are_named_and_harmless(shop: Shop) -> None:
    """The service starts, reloads, replaces and stops as if they were not there."""
    names = [
        "before_fork",
        "after_fork",
        "worker_ready",
        "worker_exit",
        "on_reload",
        "on_exit",
    ]
    code = "".join(f"def {name}(**facts):\n    raise SystemExit({name!r})\n" for name in names)
    (shop.folder / "shop_hooks.py").write_text(code)
    with shop.serve("--hooks", "shop_hooks") as server:
        server.workers()[0].kill()
        server.wait_status("1/2 workers ready")
        server.wait_status("2/2 workers ready")
        shop.release("v2")
        server.replace_all()
        assert {said for said, _ in answers(server).values()} == {"v2"}
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        log = server.log()
    for name in names:
        assert f"--hooks shop_hooks: {name} failed" in log
        assert f"SystemExit: {name}" in log


def test_on_boot_may_keep_the_service_from_starting(shop: Shop) -> None:
    """One line says which function of which module, and the exit code is 3."""
    (shop.folder / "shop_hooks.py").write_text("def on_boot(**_): raise ValueError('no licence')")
    code, log = shop.boot("--hooks", "shop_hooks")
    assert code == BOOT_FAILED
    assert "--hooks shop_hooks: on_boot failed: ValueError: no licence" in log
    assert "Traceback" not in log
    assert "forked" not in log


def test_a_hooks_module_that_is_missing_is_one_line(shop: Shop) -> None:
    """The option is named, and the exit code is 3."""
    code, log = shop.boot("--hooks", "shop.nothing")
    assert code == BOOT_FAILED
    assert "--hooks shop.nothing: cannot be imported: ModuleNotFoundError" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("preload", [[], ["--preload"]])
def test_hooks_in_the_projects_package_do_not_keep_old_code(shop: Shop, preload: list[str]) -> None:
    """The master has imported a part of the project for them, and a reload replaces it."""
    package = shop.folder / "store"
    package.mkdir()
    (package / "hooks.py").write_text("import shop\ndef on_exit(**_): pass\n")

    def release(version: str) -> None:
        (package / "__init__.py").write_text(f"VERSION = {version!r}\n")
        shop.release(version, "import store\nVERSION += store.VERSION\n")

    release("v1")
    with shop.serve("--hooks", "store.hooks", *preload) as server:
        assert {said for said, _ in answers(server).values()} == {"v1v1"}
        release("v2")
        server.replace_all()
        assert {said for said, _ in answers(server).values()} == {"v2v2"}


def test_programs_that_a_hook_starts_are_reaped(shop: Shop) -> None:
    """They are the master's children, and leave no zombie."""
    (shop.folder / "shop_hooks.py").write_text(
        "import subprocess\n"
        "def worker_exit(**_):\n    subprocess.Popen(['true'], start_new_session=True)\n"
    )
    with shop.serve("--hooks", "shop_hooks") as server:
        server.replace_all()
        wait_until(
            server,
            lambda: (
                len(psutil.Process(server.pid).children())
                == len(server.workers()) + len(server.zygotes())
            ),
        )
