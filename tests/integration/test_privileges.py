"""`--user`, `--group` and `--umask`: the master keeps its rights, the application gets none."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest
import trustme

from tests.support.certificates import Authority
from tests.support.client import Client
from tests.support.daphne import ROOT, Daphne, command, environment
from tests.support.tools import unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

APPLICATION = "worker_app:application"
NOBODY = pwd.getpwnam("nobody")
DAEMON = pwd.getpwnam("daemon")
AS_NOBODY: dict[str, Any] = {"user": "nobody", "group": NOBODY.pw_gid, "extra_groups": []}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Return a directory that everybody can read, with the package and the application in it."""
    if os.geteuid() != 0:
        unavailable("only root can become somebody else")
    with tempfile.TemporaryDirectory(prefix="daphne-privileges-") as name:
        shutil.copytree(ROOT / "daphne_supervisor", Path(name) / "daphne_supervisor")
        shutil.copy(ROOT / "tests" / "integration" / "worker_app.py", name)
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def variables(place: Path) -> dict[str, str]:
    """Return an environment in which all is imported from where everybody can read."""
    return {"PYTHONPATH": f"{place}:{sysconfig.get_path('purelib')}"}


@pytest.fixture(scope="module")
def python(variables: dict[str, str]) -> str:
    """Return an interpreter that nobody can use: the one of these tests may lie in root's home."""
    wanted = "import twisted.internet.asyncioreactor, uvloop, daphne_supervisor"
    for candidate in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            done = subprocess.run(
                [candidate, "-c", wanted],
                env=environment(variables),
                cwd="/",
                capture_output=True,
                check=False,
                **AS_NOBODY,
            )
            if done.returncode == 0:
                return candidate
    return unavailable("nobody can use no Python here that has this one's version and packages")


@pytest.fixture
def everybodys(place: Path) -> Iterator[Path]:
    """Return a directory in which everybody may make files."""
    with tempfile.TemporaryDirectory(dir=place) as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.fixture
def start(python: str, variables: dict[str, str], place: Path) -> Any:
    """Return what starts a server on the application, with given options."""

    def begin(*options: str) -> Daphne:
        return Daphne(APPLICATION, *options, env=variables, cwd=place, python=python)

    return begin


def status(server: Daphne) -> dict[str, str]:
    """Return what the kernel says of the worker that answers."""
    return dict(httpx.get(f"{server.url}/status", timeout=10).json())


def test_the_application_is_somebody_else(start: Any) -> None:
    """All ids, the supplementary groups and the umask, also after a reload; no capability is left.

    The master remains root, and nothing that it started does.
    """
    groups = sorted(set(os.getgrouplist("nobody", DAEMON.pw_gid)))
    with start("--user", "nobody", "--group", "daemon", "--umask", "027") as server:
        for _ in range(2):
            seen = status(server)
            assert seen["Uid"] == " ".join([str(NOBODY.pw_uid)] * 4)
            assert seen["Gid"] == " ".join([str(DAEMON.pw_gid)] * 4)
            assert sorted(map(int, seen["Groups"].split())) == groups
            assert seen["Umask"] == "0027"
            assert {seen["CapEff"], seen["CapPrm"]} == {"0" * 16}
            server.replace_all()
        master = psutil.Process(server.pid)
        assert set(master.uids()) == set(master.gids()) == {0}
        uids = {uid for child in master.children(recursive=True) for uid in child.uids()}
        assert uids == {NOBODY.pw_uid}


def test_a_user_alone_brings_the_group_along(start: Any) -> None:
    """And the umask is the master's."""
    with start("--user", str(NOBODY.pw_uid)) as server:
        seen = status(server)
        assert seen["Gid"] == " ".join([str(NOBODY.pw_gid)] * 4)
        assert "0" not in seen["Groups"].split()
        assert int(seen["Umask"], 8) == _umask(server.pid)


def _umask(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Umask:")), 8)


def test_what_the_application_makes_is_the_users(start: Any, everybodys: Path) -> None:
    """Owner, group and mode of a file are those of the options."""
    path = everybodys / "made"
    with start("--user", "nobody", "--group", "daemon", "--umask", "027") as server:
        httpx.get(f"{server.url}/touch?{path}", timeout=10).raise_for_status()
        found = path.stat()
    assert (found.st_uid, found.st_gid) == (NOBODY.pw_uid, DAEMON.pw_gid)
    assert stat.S_IMODE(found.st_mode) == 0o640


def test_the_preloaded_application_has_no_rights_either(start: Any) -> None:
    """It is imported after they were given up."""
    with start("--user", "nobody", "--preload") as server:
        assert status(server)["Uid"] == " ".join([str(NOBODY.pw_uid)] * 4)


def test_a_rotated_access_log_can_be_written_by_the_user(start: Any, everybodys: Path) -> None:
    """Root makes the new file too, in a directory of root's, and gives it to the user."""
    everybodys.chmod(0o755)
    path = everybodys / "access.log"
    with start("--user", "nobody", "--access-log", str(path)) as server:
        status(server)
        path.rename(path.with_suffix(".1"))
        server.signal(signal.SIGUSR1)
        server.replace_all()  # what was asked for before is done before
        httpx.get(f"{server.url}/status?after", timeout=10)
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0  # a line may come after its response
        assert path.stat().st_uid == NOBODY.pw_uid
        assert "/status?after" in path.read_text()
        assert "cannot be reopened" not in server.log()


def test_a_port_below_1024_is_bound_first(start: Any) -> None:
    """By root, and kept through a reload."""
    for port in range(1023, 600, -1):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            break
    with start("--user", "nobody", "-p", str(port)) as server:
        server.replace_all()
        assert status(server)["CapEff"] == "0" * 16


_WHO = """
import os
from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.plugin import IPlugin
from zope.interface import implementer

@implementer(IPlugin, IStreamServerEndpointStringParser)
class Who:
    prefix = "who"
    def parseStreamServer(self, reactor, *args):
        raise ValueError(str(os.getresuid()))

who = Who()
"""


def test_a_plug_in_is_asked_as_the_user(
    python: str, variables: dict[str, str], place: Path, everybodys: Path
) -> None:
    """Also where the master wants to know what it listens on: it may be the application's."""
    plugins = everybodys / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "who.py").write_text(_WHO)
    options = ("-v", "0", "--user", "nobody", "--app-dir", str(everybodys), "-e", "who:1")
    done = subprocess.run(
        command(*options, APPLICATION, python=python),
        env=environment(variables),
        cwd=place,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr.endswith(f"ValueError: {(NOBODY.pw_uid,) * 3}\n")
    assert done.returncode == 2


def test_a_key_that_only_root_can_read_is_enough(start: Any, everybodys: Path) -> None:
    """It is read before the rights are given up, for each generation anew."""
    authority = trustme.CA()
    pair = authority.issue_cert("localhost")
    key, certificate = everybodys / "key.pem", everybodys / "cert.pem"
    pair.private_key_pem.write_to_path(str(key))
    key.chmod(0o600)
    for piece in pair.cert_chain_pems:
        piece.write_to_path(str(certificate), append=True)
    endpoint = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
    with start("--user", "nobody", "-e", endpoint) as server:
        server.replace_all()
        url = f"https://127.0.0.1:{server.port}/status"
        seen = httpx.get(url, verify=False, timeout=10).json()  # noqa: S501 - not the question
        assert seen["Uid"] == " ".join([str(NOBODY.pw_uid)] * 4)


def test_a_reload_reads_what_the_workers_cannot(start: Any, everybodys: Path) -> None:
    """They say once that they cannot; a replaced pair is served from the next reload on."""
    authority = Authority(everybodys)
    for name in ("key.pem", "all.pem"):
        (everybodys / name).chmod(0o600)
    arguments = ("--certfile", f"{everybodys}/cert.pem", "--keyfile", f"{everybodys}/key.pem")
    authority.trust.check_hostname = False
    authority.trust.verify_mode = ssl.CERT_NONE
    with start("--user", "nobody", "-p", "0", "--workers", "3", *arguments) as server:
        said = f"the workers' user cannot read {everybodys}/key.pem: send HUP when"
        deadline = time.monotonic() + 10.0
        while said not in server.log():
            assert time.monotonic() < deadline
            server.listen(0.05)
        server.listen(0.5)
        assert server.log().count(said) == 1
        new = authority.issue()
        (everybodys / "key.pem").chmod(0o600)
        server.replace_all()
        with Client(server.port, tls=authority.trust) as client:
            assert client.get("/status").status == 200
            assert client.certificate == new


def test_workers_that_can_read_take_up_a_replaced_pair(start: Any, everybodys: Path) -> None:
    """Without a reload, and without root's rights."""
    authority = Authority(everybodys)
    pair = ("--certfile", f"{everybodys}/cert.pem", "--keyfile", f"{everybodys}/key.pem")
    authority.trust.check_hostname = False
    authority.trust.verify_mode = ssl.CERT_NONE
    with start("--user", "nobody", "-p", "0", *pair) as server:
        new = authority.issue()
        deadline = time.monotonic() + 10.0
        while time.monotonic() < deadline:
            with Client(server.port, tls=authority.trust) as client:
                if client.certificate == new:
                    return
    pytest.fail("the new certificate is not served")


def test_who_is_not_root_is_told_so_in_one_line(
    python: str, variables: dict[str, str], place: Path
) -> None:
    """It ends with 3; to ask for what one is already is no mistake."""
    done = subprocess.run(
        command("-v", "0", "-p", "0", "--user", "root", APPLICATION, python=python),
        env=environment(variables),
        cwd=place,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        **AS_NOBODY,
    )
    assert done.returncode == 3
    assert done.stderr == ("daphne-supervisor: --user root: only root can run workers as another\n")
