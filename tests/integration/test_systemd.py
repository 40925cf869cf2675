"""Under a real systemd the service starts, reloads, restarts and stops as `deploy/` promises.

The units of `deploy/` are used as they are, on a machine of their own (see `support/systemd.py`).
Where that is not allowed, the last tests still hear every word that the master says to systemd.
"""

from __future__ import annotations

import errno
import fcntl
import shutil
import signal
import socket
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.daphne import PATIENCE, Daphne, survivors
from tests.support.project import Project
from tests.support.systemd import SystemdBox

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from typing import IO

    import psutil

    from tests.support.programs import Program

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVICE = "daphne-supervisor.service"
SOCKET = "daphne-supervisor.socket"
UNITS = "/etc/systemd/system"
TCP_SOCKET = f"""
[Socket]
ListenStream=127.0.0.1:8000
FileDescriptorName=tcp
Service={SERVICE}
"""
RELEASE = "from tests.integration.systemd_app import release\napplication = release({number})\n"
NO_PYTHON = "def application(:\n"
CLIENT = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=30)
connection.request("GET", "/")
print("asked", flush=True)
print("answer:", connection.getresponse().read().decode())
"""
REQUEST = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def box() -> Iterator[SystemdBox]:
    """Return a machine with systemd on which the server is installed."""
    with SystemdBox() as box:
        yield box


class Service:
    """The service of `deploy/` in the box, and the project that it serves."""

    def __init__(self, box: SystemdBox) -> None:
        """Put the units and the first release in place."""
        self.box = box
        for unit in (SERVICE, SOCKET):
            box.write(f"{UNITS}/{unit}", (DEPLOY / unit).read_text())
        for gate in ("startup", "request"):
            box.write(f"/srv/project/gates/{gate}", "")
        self.configure("CPUAffinity=0 1")  # two workers on every machine with two processors
        self.release(1)

    def configure(self, *lines: str) -> None:
        """Add settings to the service, as `systemctl edit` does."""
        with self.box.path("/").joinpath("run/settings").open("a") as settings:
            settings.write("".join(f"{line}\n" for line in lines))
        text = self.box.path("/run/settings").read_text()
        self.box.write(f"{UNITS}/{SERVICE}.d/test.conf", f"[Service]\n{text}")
        self.box.run("systemctl", "daemon-reload")

    def release(self, number: int, code: str = RELEASE) -> None:
        """Put another release in place, and let the link `current` point to it."""
        self.box.write(f"/srv/project/release-{number}/project/asgi.py", code.format(number=number))
        current = self.box.path("/srv/project/current")
        current.unlink(missing_ok=True)
        current.symlink_to(f"release-{number}")

    @contextmanager
    def closed_gate(self, name: str = "startup") -> Iterator[IO[bytes]]:
        """Let whoever comes to a gate wait until the block ends, or the file is closed."""
        with self.box.path(f"/srv/project/gates/{name}").open("rb") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            yield gate

    def remove(self) -> None:
        """Stop everything, and leave nothing to the next test."""
        self.box.run("systemctl", "kill", "--signal=CONT", SERVICE, check=False)  # if still frozen
        self.box.run("systemctl", "stop", SERVICE, SOCKET, "tcp.socket", check=False)
        self.box.run("systemctl", "reset-failed")
        for unit in (SERVICE, SOCKET, "tcp.socket"):
            self.box.path(f"{UNITS}/{unit}").unlink(missing_ok=True)
        shutil.rmtree(self.box.path(f"{UNITS}/{SERVICE}.d"))
        self.box.path("/run/settings").unlink()

    # -- what an operator does --

    def control(self, verb: str) -> str:
        """Run `systemctl VERB` on the service, and return what it prints."""
        return self.box.run("systemctl", verb, SERVICE)

    def signal(self, name: str, whom: str) -> None:
        """Send a signal to `main` or to `all` processes of the service."""
        self.box.run("systemctl", "kill", f"--signal={name}", f"--kill-whom={whom}", SERVICE)

    def show(self, name: str) -> str:
        """Return what systemd says of the service under `name`."""
        return self.box.run("systemctl", "show", "--value", f"--property={name}", SERVICE)

    def master(self) -> psutil.Process:
        """Return the main process, as systemd knows it."""
        return self.box.process(int(self.show("MainPID")))

    def meanwhile(self, verb: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """Run `systemctl VERB` on the service during the `with` block."""
        return self.box.meanwhile("systemctl", verb, SERVICE)

    def journal(self) -> Program:
        """Return the service's log from now on."""
        return self.box.journal(SERVICE)

    # -- what a client sees --

    @property
    def address(self) -> str:
        """The unix socket of the socket unit, as it is seen from here."""
        return str(self.box.path("/run/daphne-supervisor/web.sock"))

    def ask(self, path: str = "/") -> str:
        """Return the answer to a request."""
        transport = httpx.HTTPTransport(uds=self.address)
        with httpx.Client(transport=transport, timeout=PATIENCE) as client:
            return client.get(f"http://test{path}").text

    @contextmanager
    def asked(self, path: str = "/") -> Iterator[IO[bytes]]:
        """Send a request, and yield what its answer can be read from."""
        with socket.socket(socket.AF_UNIX) as client, client.makefile("rb") as answer:
            client.settimeout(PATIENCE)
            client.connect(self.address)
            client.sendall(REQUEST.replace(b"/", path.encode(), 1))
            yield answer


@pytest.fixture
def service(box: SystemdBox) -> Iterator[Service]:
    """Return the service, not started yet; a test that fails shows its log."""
    service = Service(box)
    with box.journal(SERVICE) as journal:
        yield service
    service.remove()
    sys.stderr.write(journal.log())


@pytest.fixture
def running(service: Service) -> Service:
    """Return the service, started."""
    service.control("start")
    return service


def test_start_returns_when_the_workers_are_ready(service: Service) -> None:
    """Whoever is ordered after the service starts when it serves, not when it was executed."""
    with service.closed_gate() as gate, service.journal() as journal:
        with service.meanwhile("start") as start:
            journal.line("release 1 at the gate: startup")
            assert service.show("ActiveState") == "activating"
            assert start.poll() is None
            gate.close()
        assert start.returncode == 0
    assert service.show("ActiveState") == "active"
    assert "ready" in service.show("StatusText")


def test_reload_returns_when_the_new_code_serves(running: Service) -> None:
    """Until then the old code answers; afterwards every answer is the new code's."""
    running.release(2)
    with running.closed_gate() as gate, running.journal() as journal:
        with running.meanwhile("reload") as reload:
            journal.line("release 2 at the gate: startup")
            assert running.show("ActiveState") == "reloading"
            assert running.ask() == "release 1"
            assert reload.poll() is None
            gate.close()
        assert reload.returncode == 0
    assert {running.ask() for _ in range(10)} == {"release 2"}
    assert running.show("StatusErrno") == "0"


def test_a_broken_reload_is_seen_and_the_next_one_mends_it(running: Service) -> None:
    """`systemctl status` says what is wrong, and the old code serves, until a good reload."""
    running.release(2, NO_PYTHON)
    running.control("reload")
    status = running.control("status")
    assert "SyntaxError" in status
    assert f"Error: {errno.ECANCELED}" in status
    assert running.show("StatusErrno") == str(errno.ECANCELED)
    assert running.ask() == "release 1"
    running.release(3)
    running.control("reload")
    assert running.show("StatusErrno") == "0"
    assert running.ask() == "release 3"


def test_a_frozen_service_is_restarted_and_the_queue_is_served(service: Service) -> None:
    """The watchdog ends a wedged master; who connected meanwhile is answered by the next."""
    service.configure("WatchdogSec=1", "TimeoutAbortSec=1", "RestartSec=0")
    service.control("start")
    frozen = service.master()
    service.signal("STOP", "all")
    with service.journal() as journal, service.asked() as answer:
        journal.line("Watchdog timeout")
        assert answer.read().endswith(b"release 1")
    assert service.master() != frozen


def test_the_watchdog_leaves_a_busy_service_alone(service: Service) -> None:
    """A request may take longer than the watchdog's time: the master speaks all the while."""
    service.configure("WatchdogSec=1")
    service.control("start")
    before = service.show("MainPID")
    assert service.ask("/slow") == "release 1"
    assert (service.show("MainPID"), service.show("NRestarts")) == (before, "0")


def test_a_restart_refuses_no_connection(service: Service) -> None:
    """Clients of TCP and UNIX socket units wait in the queues, and the new server answers."""
    service.box.write(f"{UNITS}/tcp.socket", TCP_SOCKET)
    service.configure()
    service.box.run("systemctl", "start", "tcp.socket", SERVICE)
    service.release(2)
    with (
        service.journal() as journal,
        service.closed_gate() as gate,
        service.meanwhile("restart") as restart,
    ):
        journal.line("release 2 at the gate: startup")
        with service.box.beside(sys.executable, "-c", CLIENT) as client, service.asked() as answer:
            client.line("asked")
            assert restart.poll() is None
            gate.close()
            assert client.line("answer:") == "answer: release 2"
            assert answer.read().endswith(b"release 2")
    assert restart.returncode == 0


def test_a_connection_starts_the_service(service: Service) -> None:
    """With the socket unit alone, the first client starts the server and is answered by it."""
    service.box.run("systemctl", "start", SOCKET)
    assert service.show("ActiveState") == "inactive"
    assert service.ask() == "release 1"
    service.control("start")  # the other worker may not be ready yet
    assert service.show("ActiveState") == "active"


def test_stop_waits_for_the_requests_in_progress(service: Service) -> None:
    """A request may take longer than TimeoutStopSec: the master asks for the time that it needs."""
    service.configure("TimeoutStopSec=1")
    service.control("start")
    with service.journal() as journal, service.asked("/slow") as answer:
        with service.meanwhile("stop") as stop:
            journal.line("told to drain")
            assert answer.read().endswith(b"release 1")
        assert stop.returncode == 0
    assert (service.show("Result"), service.show("ExecMainStatus")) == ("success", "0")


def test_nothing_is_left_after_a_stop(running: Service) -> None:
    """Master and workers leave by themselves; nobody has to be killed."""
    with running.journal() as journal:
        running.control("stop")
        journal.line("Deactivated successfully")
        assert "SIGKILL" not in journal.log()
    assert (running.show("Result"), running.show("ExecMainStatus")) == ("success", "0")


def test_an_upgrade_makes_the_new_master_the_main_process(running: Service) -> None:
    """Under the same unit another master serves, which systemd reloads and stops from then on."""
    old = running.master()
    running.release(2)
    running.signal("USR2", "main")
    assert survivors([old], PATIENCE) == []
    assert running.master() != old
    assert running.ask() == "release 2"
    running.release(3)
    running.control("reload")
    assert running.ask() == "release 3"
    running.control("stop")
    assert running.show("Result") == "success"


def test_an_upgrade_can_be_taken_back(running: Service) -> None:
    """HUP to the old master, while it still drains, makes it the main process again."""
    old = running.master()
    with (
        running.closed_gate("request") as gate,
        running.journal() as journal,
        running.asked("/gate") as answer,
    ):
        journal.line("at the gate: request")
        running.signal("USR2", "main")
        journal.line("the new master takes over")
        new = running.master()
        assert new != old
        old.send_signal(signal.SIGHUP)
        assert survivors([new], PATIENCE) == []
        gate.close()
        assert answer.read().endswith(b"release 1")
    assert running.master() == old
    running.release(2)
    running.control("reload")
    assert running.ask() == "release 2"
    assert running.master() == old


def _heard(server: Daphne, key: str) -> list[dict[str, str]]:
    """Return what the master says up to the next message with `key`, signs of life apart."""
    messages: list[dict[str, str]] = []

    def wanted(text: str) -> bool:
        messages.append(dict(line.split("=", 1) for line in text.splitlines()))
        return key in messages[-1]

    server.wait(wanted)
    return [message for message in messages if "WATCHDOG" not in message]


def _milestones(messages: list[dict[str, str]]) -> list[tuple[str, ...]]:
    """Return the keys of each message that is more than news of the status."""
    return [keys for message in messages if (keys := tuple(message)) != ("STATUS",)]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project of which version one is released."""
    project = Project(tmp_path)
    project.release("one")
    return project


def test_a_service_manager_hears_every_step_in_order(project: Project) -> None:
    """What systemd waits for is said on a NOTIFY_SOCKET, once, when it is true and not before."""
    with Daphne(project.application, *project.arguments, "--workers", "2") as server:
        project.release("two")
        server.signal(signal.SIGHUP)
        good = _heard(server, "READY")
        assert _milestones(good) == [
            ("RELOADING", "MONOTONIC_USEC", "STATUS"),
            ("READY", "ERRNO", "STATUS"),
        ]
        assert good[-1]["ERRNO"] == "0"
        assert "reload done" in good[-1]["STATUS"]
        project.release_no_python()
        server.signal(signal.SIGHUP)
        bad = _heard(server, "READY")
        assert _milestones(bad) == _milestones(good)
        assert bad[-1]["ERRNO"] == str(errno.ECANCELED)
        assert "SyntaxError" in bad[-1]["STATUS"]
        server.signal(signal.SIGTERM)
        (end,) = (message for message in _heard(server, "STOPPING") if "STOPPING" in message)
        assert set(end) == {"STOPPING", "EXTEND_TIMEOUT_USEC", "STATUS"}
        assert int(end["EXTEND_TIMEOUT_USEC"]) > 25e6  # --graceful-timeout, and something on top


def test_a_watchdog_hears_a_sign_of_life(project: Project) -> None:
    """With WATCHDOG_USEC the master says again and again that the pool is well."""
    with Daphne(project.application, *project.arguments, env={"WATCHDOG_USEC": "500000"}) as server:
        for _ in range(3):
            server.wait(lambda said: said == "WATCHDOG=1")
