"""Starts the real command and waits for what it announces.

The harness is the service manager: it owns a `NOTIFY_SOCKET`, and blocks on it until the master
says `READY=1` or a given status. Nothing is polled, nothing sleeps, no port is guessed. As a
service manager does, it follows `MAINPID=` from one master to the next during an upgrade.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

__all__ = ["APPS", "Daphne", "run_command", "survivors"]

ROOT = Path(__file__).parents[2]
#: The module of applications that tests serve, as `module:attribute` wants it.
APPS = "tests.support.apps"

PATIENCE = 20.0
"""Seconds that a process gets to leave. Far more than any of them needs."""

_HAND_OVER = """
import fcntl, os, sys
numbers, names, *command = sys.argv[1:]
numbers = [int(number) for number in numbers.split(",")]
copies = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 100) for number in numbers]
for number in numbers:
    os.close(number)
for place, copy in enumerate(copies, 3):
    os.dup2(copy, place)
os.environ |= {"LISTEN_FDS": str(len(numbers)), "LISTEN_PID": str(os.getpid())}
if names:
    os.environ["LISTEN_FDNAMES"] = names
os.execv(command[0], command)
"""
"""Becomes a command that is handed descriptors as by systemd: from 3 on, and meant for its pid."""

_NEW_MASTER = re.compile(r"the new master is process (\d+)")
_PORT = re.compile(r"Listening on TCP address (\S+):(\d+)")


def command(*arguments: str, python: str = sys.executable) -> list[str]:
    """Return the command line that runs the checkout, not what may be installed elsewhere."""
    return [python, "-m", "daphne_supervisor", *arguments]


def handed_over(command: list[str], descriptors: Sequence[int], names: str) -> list[str]:
    """Return `command` with `descriptors` handed over as by systemd, if there are any."""
    if not descriptors:
        return command
    numbers = ",".join(map(str, descriptors))
    return [sys.executable, "-c", _HAND_OVER, numbers, names, *command]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which the checkout can be imported, and nothing of ours is set."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DAPHNE_SUPERVISOR_", "LISTEN_", "NOTIFY_", "WEB_CONCURRENCY"))
    }
    # A pyc is believed while its source's second and size are the same: too coarse for a test
    # that rewrites an application and reloads.
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"} | dict(extra or {})


def run_command(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | str = ROOT,
    activated: Sequence[int] = (),
    names: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, for what it prints and its exit code."""
    return subprocess.run(
        handed_over(command(*arguments), activated, names),
        pass_fds=activated,
        env=environment(env),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def survivors(processes: Iterable[psutil.Process], patience: float) -> list[psutil.Process]:
    """Wait until `processes` have ended, reaped or not; return who has not within `patience` s."""
    deadline = time.monotonic() + patience
    with contextlib.ExitStack() as stack:
        alive = {}
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(process.pid)
                stack.callback(os.close, descriptor)
                alive[descriptor] = process
        while alive and (left := deadline - time.monotonic()) > 0:
            for descriptor in select.select(alive, [], [], left)[0]:
                del alive[descriptor]
        return list(alive.values())


def _lives(process: psutil.Process) -> bool:
    """Whether `process` has not ended; one that has may wait to be reaped."""
    try:
        # One that has given up its memory has no command line any more: it is ending just now.
        return bool(process.status() != psutil.STATUS_ZOMBIE and process.cmdline())
    except psutil.NoSuchProcess:
        return False


def _is(role: str, process: psutil.Process) -> bool:
    """Whether `process` is a zygote, which workers are forked from, or a broker: by its title."""
    try:
        return f": {role} " in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # or a zombie, since a moment ago
        return False


class Daphne:
    """One running master, as a context manager: ready at entry, gone at exit."""

    def __init__(
        self,
        application: str,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | str = ROOT,
        pass_fds: Sequence[int] = (),
        activated: Sequence[int] = (),
        names: str = "",
        python: str = sys.executable,
        patience: float = 30.0,
    ) -> None:
        """Prepare `daphne-supervisor ARGUMENTS APPLICATION`; the port defaults to a free one.

        The descriptors `activated` are handed over as by systemd, with LISTEN_FDNAMES if there are
        `names`; then there is no default.
        """
        given = {argument.partition("=")[0] for argument in arguments}
        places = {"-p", "--port", "-u", "--unix-socket", "--fd", "-e", "--endpoint"}
        defaults = () if given & places or activated else ("--port", "0")
        plain = command(*defaults, *arguments, application, python=python)
        self._command = handed_over(plain, activated, names)
        self._env = environment(env)
        self._cwd = cwd
        self._pass_fds = (*pass_fds, *activated)
        self._patience = patience
        self._said: list[str] = []
        self._seen: list[psutil.Process] = []
        self._main: psutil.Process | None = None
        self._successors: list[psutil.Process] = []

    def __enter__(self) -> Self:
        """Start, and wait for READY=1."""
        self._directory = tempfile.TemporaryDirectory(prefix="daphne-")
        place = Path(self._directory.name)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(place / "notify"))
        self._notify.settimeout(self._patience)
        self._log_path = place / "log"
        with self._log_path.open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                env=self._env | {"NOTIFY_SOCKET": str(place / "notify")},
                cwd=self._cwd,
                pass_fds=self._pass_fds,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self.wait(lambda said: "READY=1" in said.splitlines())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        frames: TracebackType | None,
    ) -> None:
        """Stop, and show the log of a test that has failed."""
        self._end()
        if error is not None:
            sys.stderr.write(f"--- log of the master\n{self.final_log}")

    def _end(self) -> None:
        self._children()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for successor in self._successors:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._seen += successor.children(recursive=True)
                successor.send_signal(signal.SIGQUIT)
        self._seen += survivors(self._successors, 10)
        for child in self._seen:  # whoever has outlived the master
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        self.final_log = self.log()
        self._notify.close()
        self._directory.cleanup()

    # -- what it says --

    def wait(self, wanted: Callable[[str], bool]) -> str:
        """Block until the master announces something `wanted`; return it."""
        while True:
            try:
                said = self._notify.recv(65536).decode()
            except TimeoutError:
                heard = "\n".join(self._said[-8:])
                message = f"not announced; heard last:\n{heard}\n--- log\n{self.log()}"
                raise AssertionError(message) from None
            self._said.append(said)
            if said.startswith("MAINPID="):
                self.follow(psutil.Process(int(said.removeprefix("MAINPID="))))
            if wanted(said):
                return said
            if self._left() and "STOPPING=1" not in said:
                message = f"the master has left with {self.process.returncode}\n{self.log()}"
                raise AssertionError(message)

    def _left(self) -> bool:
        """Whether the master is gone, or the last one that took over from it."""
        return self.process.poll() is not None if self._main is None else not _lives(self._main)

    def listen(self, seconds: float) -> list[str]:
        """Hear what the master announces within so many seconds; return it, often nothing."""
        heard: list[str] = []
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._notify], [], [], left)[0]:
                heard.append(self._notify.recv(65536).decode())
        self._said += heard
        return heard

    def wait_status(self, text: str) -> str:
        """Block until a `STATUS=` announcement contains `text`; return the status."""
        said = self.wait(lambda said: text in said.partition("STATUS=")[2])
        return said.partition("STATUS=")[2]

    def wait_exit(self, patience: float = 20.0) -> int:
        """Wait for the master's end; return its exit code."""
        return self.process.wait(patience)

    def log(self) -> str:
        """Return everything it has printed so far, on both streams."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    # -- what it is --

    @property
    def pid(self) -> int:
        """The master's process id; after an upgrade the new one's."""
        return self.process.pid if self._main is None else self._main.pid

    @property
    def port(self) -> int:
        """The first TCP port it listens on."""
        return self.ports[0]

    @property
    def ports(self) -> list[int]:
        """The TCP ports it listens on, in the order of its log."""
        return [int(port) for _, port in _PORT.findall(self.log())]

    @property
    def url(self) -> str:
        """Where a client finds it."""
        return f"http://127.0.0.1:{self.port}"

    def workers(self) -> list[psutil.Process]:
        """Its living workers, the leaving ones too, none when the master is gone."""
        others = ("zygote", "broker")
        return [one for one in self._children() if not any(_is(role, one) for role in others)]

    def zygotes(self) -> list[psutil.Process]:
        """The living processes that its workers are forked from."""
        return [child for child in self._children() if _is("zygote", child)]

    def brokers(self) -> list[psutil.Process]:
        """The living processes that channel layers meet at: one, or none if nobody uses any."""
        return [child for child in self._children() if _is("broker", child)]

    def _children(self) -> list[psutil.Process]:
        try:
            children = psutil.Process(self.pid).children()
        except psutil.NoSuchProcess:
            return []
        present = [child for child in children if _lives(child) and child not in self._successors]
        self._seen += [child for child in present if child not in self._seen]
        return present

    def worker_pids(self) -> list[int]:
        """The process ids of its present workers."""
        return sorted(worker.pid for worker in self.workers())

    def signal(self, number: signal.Signals) -> None:
        """Send the master a signal."""
        (self._main or self.process).send_signal(number)

    def upgrade(self) -> psutil.Process:
        """Send USR2; return the new master, which has just been started."""
        self.signal(signal.SIGUSR2)
        self.wait_status("; upgrading")
        new = psutil.Process(int(_NEW_MASTER.findall(self.log())[-1]))
        self._successors.append(new)
        return new

    def follow(self, master: psutil.Process) -> None:
        """Take `master` for the one that serves; it is ended at exit, as the first one is."""
        self._main = master
        if master.pid != self.process.pid and master not in self._successors:
            self._successors.append(master)

    def reload(self) -> str:
        """Send HUP and wait for the result; return the status."""
        self.signal(signal.SIGHUP)
        self.wait(lambda said: "RELOADING=1" in said.splitlines())
        said = self.wait(lambda said: "READY=1" in said.splitlines())
        return said.partition("STATUS=")[2]

    def settle(self, count: int) -> None:
        """Wait until no more than `count` workers are left: whoever has to leave has left."""
        for _ in range(100):
            workers = self.workers()
            if len(workers) <= count:
                return
            survivors(workers, PATIENCE / 100)
        message = f"more than {count} workers are left: {workers}"
        raise AssertionError(message)

    def replace_all(self) -> None:
        """Reload, and wait until every worker from before has left."""
        before = self.workers()
        said = self.reload()
        assert "reload done" in said, said
        assert survivors(before, PATIENCE) == [], "still there after a reload"
