"""A machine of its own for a test, with a real systemd as process 1, and the server installed.

Theory. systemd runs unchanged in namespaces that look like a container to it: its own processes,
mounts, network and control groups. `systemd-box.sh` makes the file system: this machine's, copied
on write, without what this machine would start. So nothing is downloaded, the boot takes half a
second, and the end of process 1 is the end of all that it has started.

Nothing is polled. As in every container, systemd says READY=1 on the `NOTIFY_SOCKET` that it is
given; the kernel adds the sender's process id, and `/proc/PID/root` is then the box's file system
for us: files are written and unix sockets connected to from here.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn, Self

import psutil

from tests.support.programs import Program
from tests.support.tools import tool, unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SystemdBox"]

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("systemd-box.sh")

PATIENCE = 30.0
"""Seconds that the machine gets to boot, and that a command in it gets. Far more than they need."""
_NOT_ALLOWED = 77
"""The script's exit code for what this machine does not let us do."""

VENV = "/srv/project/venv"
"""Where the server is installed in the box: the place that the files of `deploy/` name."""
_PYTHON = Path("/srv/python")
_CHECKOUT = "/srv/checkout"
_PACKAGES = "/srv/packages"

_ENVIRONMENT = {"LANG": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_PAGER": ""}
_UCRED = struct.Struct("3i")
"""What the kernel says of a sender: process, user and group (unix(7))."""

_LAUNCHER = f"""#!{VENV}/bin/python
import sys
from daphne_supervisor.cli import main
sys.exit(main())
"""


@contextmanager
def _cgroup() -> Iterator[Path]:
    """Make a control group below our own, which the box will take for the topmost there is."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    tops = [line.split()[4] for line in mounts if line.partition(" - ")[2].startswith("cgroup2 ")]
    groups = Path("/proc/self/cgroup").read_text().splitlines()
    own = [line.removeprefix("0::") for line in groups if line.startswith("0::")]
    if not tops or not own:
        unavailable("a systemd in namespaces needs a mounted cgroup2 hierarchy")
    group = Path(tops[0], own[0].strip("/"), f"systemd-box-{os.getpid()}")
    try:
        group.mkdir()
    except OSError as error:
        unavailable(f"a systemd in namespaces needs a control group: {error}")
    try:
        yield group
    finally:
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()


class SystemdBox:
    """A booted machine, as a context manager. Skips the test where it is not allowed."""

    def __enter__(self) -> Self:
        """Boot it, and install the server."""
        if os.geteuid() != 0:
            unavailable("a systemd in namespaces needs root")
        with ExitStack() as stack:
            group = stack.enter_context(_cgroup())
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="systemd-"))
            output = stack.enter_context(tempfile.TemporaryFile())
            # Closed after the boot: process 1 goes on talking, and would wait for a full queue.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                notify.bind(f"{folder}/notify")
                process = subprocess.Popen(
                    _command(group, Path(folder)),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
                stack.callback(_end, process)
                self._init = _booted(process, notify, output)
            self._install()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Switch it off, and remove all traces."""
        self._stack.close()

    def _install(self) -> None:
        """Make the environment that the files of `deploy/` name, of the tests' own interpreter."""
        venv = self.path(VENV)
        packages = self.path(sysconfig.get_path("purelib", "venv", {"base": VENV}))
        packages.mkdir(parents=True)
        (venv / "bin").mkdir()
        base = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
        (venv / "bin" / "python").symlink_to(_PYTHON / base.relative_to(_base_prefix()))
        (venv / "pyvenv.cfg").write_text(f"home = {_PYTHON}/bin\n")
        (packages / "tests.pth").write_text(
            f"{_CHECKOUT}\nimport site; site.addsitedir('{_PACKAGES}')\n"
        )
        self.write(f"{VENV}/bin/daphne-supervisor", _LAUNCHER, mode=0o755)
        # An interpreter that is a shared library is looked for where it was built to be.
        library = f"[Service]\nEnvironment=LD_LIBRARY_PATH={_PYTHON}/lib\n"
        self.write("/etc/systemd/system/service.d/python.conf", library)

    # -- its files --

    def path(self, inside: str) -> Path:
        """Return where we find what the box has at `inside`, if no absolute link is on the way."""
        return Path(f"/proc/{self._init}/root{inside}")

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Write a file in the box, and the folders above it."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    # -- its programs --

    def command(self, *arguments: str) -> list[str]:
        """Return the command line that runs a program in the box; `systemctl`, as a rule."""
        namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
        return [*_nsenter(self._init), *namespaces, "--", *arguments]

    def run(self, *arguments: str, check: bool = True) -> str:
        """Run a program in the box to its end, and return what it has printed.

        Raises `AssertionError` with that when it fails, unless `check` is false.
        """
        done = subprocess.run(
            self.command(*arguments),
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{arguments}: {done.stdout}"
        return done.stdout.strip()

    @contextmanager
    def meanwhile(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a program in the box during the `with` block, which ends when the program does."""
        with subprocess.Popen(
            self.command(*arguments),
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        ) as process:
            try:
                yield process
                process.wait(PATIENCE)
            except BaseException:
                process.kill()  # what it has started in the box ends with the box
                raise

    def beside(self, *arguments: str) -> Program:
        """Return a program of ours, not started yet, which sees the network of the box only."""
        return Program([*_nsenter(self._init), "--net", "--", *arguments])

    def journal(self, unit: str) -> Program:
        """Return a program, not started yet, that prints what `unit` logs from this moment on."""
        folder = self.path("/run/log/journal")
        which = (f"--directory={folder}", f"--unit={unit}", f"--since=@{time.time():.6f}")
        how = ("--follow", "--no-tail", "--output=cat")
        return Program([tool("journalctl", "systemd"), *which, *how])

    def process(self, inside: int) -> psutil.Process:
        """Return the process whose id in the box is `inside`."""
        for process in psutil.Process(self._init).children(recursive=True):
            with suppress(FileNotFoundError):  # it has just ended
                if _inner_pid(process.pid) == inside:
                    return process
        message = f"no process {inside} in the box"
        raise LookupError(message)


def _nsenter(init: int) -> list[str]:
    return [tool("nsenter", "util-linux"), f"--target={init}"]


def _inner_pid(pid: int) -> int:
    """Return the id that process `pid` has in its own namespace."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (ids,) = (line for line in lines if line.startswith("NSpid:"))
    return int(ids.split()[-1])


def _base_prefix() -> Path:
    return Path(sys.base_prefix).resolve()


def _command(group: Path, folder: Path) -> list[str]:
    """Return what starts the box, in the control group and with the scratch folder given.

    If this process dies, unshare dies with it, and by --kill-child process 1 with unshare.
    """
    tool("systemctl", "systemd")  # whoever has it has the manager
    unshare = tool("unshare", "util-linux")
    packages = sysconfig.get_path("purelib")
    shown = [str(_base_prefix()), str(_PYTHON), str(ROOT), _CHECKOUT, packages, _PACKAGES]
    join = f'echo $$ > {group}/cgroup.procs; exec "$@"'
    return [
        *("sh", "-c", join, "sh"),
        *(tool("setpriv", "util-linux"), "--pdeathsig=KILL", unshare),
        *("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--fork", "--kill-child"),
        *("--", "sh", str(SCRIPT), str(folder), *shown),
    ]


def _booted(process: subprocess.Popen[bytes], notify: socket.socket, output: IO[bytes]) -> int:
    """Wait until systemd says that all is up; return its process id."""
    ended = os.pidfd_open(process.pid)
    try:
        while True:
            ready, _, _ = select.select([notify.fileno(), ended], [], [], PATIENCE)
            if notify.fileno() not in ready:
                _refuse(process, output)
            said, ancillary, _, _ = notify.recvmsg(65536, socket.CMSG_SPACE(_UCRED.size))
            if b"READY=1" in said.splitlines():
                ((_, _, credentials),) = ancillary
                return int(_UCRED.unpack(credentials)[0])
    finally:
        os.close(ended)


def _refuse(process: subprocess.Popen[bytes], output: IO[bytes]) -> NoReturn:
    """Tell what is not allowed from what is broken."""
    output.seek(0)
    said = output.read().decode(errors="replace").strip()
    if process.poll() == _NOT_ALLOWED or said.startswith("unshare:"):
        unavailable(f"a systemd in namespaces is not allowed here: {said}")
    message = f"systemd does not boot: {process.poll()} {said}"
    raise AssertionError(message)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill process 1; unshare ends when the kernel has ended all others with it."""
    for child in psutil.Process(process.pid).children() if process.poll() is None else []:
        child.kill()
    process.wait(PATIENCE)
