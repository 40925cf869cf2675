"""The composition root: arguments to configuration to listeners to master."""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING

import pytest
from twisted import plugins

from daphne_supervisor import __version__, cgroups, cpus
from daphne_supervisor.broker import address
from daphne_supervisor.cli import main
from daphne_supervisor.errors import ExitCode, UsageError
from tests.support.endpoint_plugin import installed

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from daphne_supervisor.config import Config
    from daphne_supervisor.master.successor import Inheritance
    from daphne_supervisor.master.zygote import Heritage


class Supervision:
    """Stands where the master runs: notes what it is given, and returns at once."""

    def __init__(self, code: int = 0, error: BaseException | None = None) -> None:
        """End with `code`, or with `error`."""
        self.code = code
        self.error = error
        self.heritages: list[Heritage] = []
        self.listening: list[bool] = []
        self.reread: Callable[[Config], Heritage]
        self.inheritance: Inheritance | None = None
        self.directory = ""

    def __call__(
        self,
        heritage: Heritage,
        reread: Callable[[Config], Heritage],
        inheritance: Inheritance | None,
        directory: str,
    ) -> int:
        """Be run by the command line."""
        self.heritages.append(heritage)
        self.reread, self.inheritance, self.directory = reread, inheritance, directory
        self.listening = [listener.socket.fileno() >= 0 for listener in heritage.listeners]
        assert heritage.broker is None or heritage.broker.fileno() >= 0
        if self.error is not None:
            raise self.error
        return self.code

    @property
    def heritage(self) -> Heritage:
        """What the first workers would have been born with."""
        (heritage,) = self.heritages
        return heritage


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Take away the handlers that a command line has put on the root logger."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


def test_a_command_line_becomes_a_running_master(tmp_path: Path) -> None:
    """The master gets configuration, open listeners and access log; its code is the exit code."""
    supervision = Supervision(code=42)
    path = tmp_path / "x.sock"
    assert main(["a:b", "-u", str(path), "-w", "2"], {}, supervision) == 42
    heritage = supervision.heritage
    assert (heritage.config.application, heritage.config.process.workers) == ("a:b", 2)
    assert [each.description for each in heritage.listeners] == [f"UNIX socket {path}"]
    assert supervision.listening == [True]
    assert repr(heritage.access_log) == "<AccessLog ->"
    assert supervision.inheritance is None
    assert heritage.broker is not None
    assert heritage.broker.fileno() == -1  # closed at the end


def test_without_a_socket_for_the_broker_there_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A system that forbids it has a service without a channel layer for all, and is told so."""

    def refuse() -> socket.socket:
        raise PermissionError(errno.EACCES, "not allowed")

    monkeypatch.setattr(address, "listen", refuse)
    supervision = Supervision()
    assert main(["a:b", "-u", str(tmp_path / "x.sock")], {}, supervision) == 0
    assert supervision.heritage.broker is None
    said = "no socket for the broker of LocalChannelLayer: not allowed"
    assert said in capfd.readouterr().err


def test_a_plug_in_says_where_it_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In a child; of what cannot be had there is one line."""
    installed(tmp_path)
    place = str(tmp_path / "twisted" / "plugins")
    monkeypatch.setattr(plugins, "__path__", [*plugins.__path__, place])
    supervision = Supervision()
    assert main(["a:b", "-v0", "-e", "haproxy:two:"], {}, supervision) == 0
    found = [(one.endpoint.plugin, one.endpoint.place) for one in supervision.heritage.listeners]
    assert found == [("two:", 0), ("two:", 1)]
    assert all(one.endpoint.proxied for one in supervision.heritage.listeners)
    assert main(["a:b", "-v0", "-e", "bad:udp"], {}, supervision) == ExitCode.BOOT_FAILED
    assert capfd.readouterr().err.count("--endpoint bad:udp: its plug-in wants datagrams") == 1


def test_listeners_are_released_however_it_ends(tmp_path: Path) -> None:
    """A master that falls over leaves no socket file behind."""
    path = tmp_path / "x.sock"
    supervision = Supervision(error=RuntimeError("a bug"))
    assert main(["a:b", "-v0", "-u", str(path)], {}, supervision) == ExitCode.CRASHED
    assert not path.exists()
    assert supervision.heritage.access_log is None
    assert supervision.heritage.listeners[0].socket.fileno() == -1


def test_the_log_tells_what_is_listened_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The lines are those of Daphne, so that what waited for them goes on working."""
    path = tmp_path / "x.sock"
    supervision = Supervision()
    main(["a:b", "-p", "0", "-u", str(path), "--log-fmt", "%(message)s"], {}, supervision)
    tcp, _ = supervision.heritage.listeners
    tcp_text = "tcp:port=0:interface=127.0.0.1"
    assert capfd.readouterr().err.splitlines() == [
        f"Starting server at {tcp_text}, unix:{path}",
        f"Configuring endpoint {tcp_text}",
        f"Configuring endpoint unix:{path}",
        f"Listening on {tcp.description}",
        f"Listening on UNIX socket {path}",
    ]
    assert tcp.description.startswith("TCP address 127.0.0.1:")
    assert not tcp.description.endswith(":0")


def test_the_number_of_workers_is_explained(capfd: pytest.CaptureFixture[str]) -> None:
    """Who leaves the number to us is told what it is and why."""
    supervision = Supervision()
    main(["a:b", "-p", "0", "-w", "auto", "--log-fmt", "%(message)s"], {}, supervision)
    number, reason = cpus.count(cpus.affinity())
    assert supervision.heritage.config.process.workers == number
    assert f"\n--workers auto: {number} ({reason})\n" in capfd.readouterr().err


def test_a_variable_that_means_nothing_is_warned_of(capfd: pytest.CaptureFixture[str]) -> None:
    """It is no mistake, since platforms make such names, but it may be a typing error."""
    environ = {"DAPHNE_SUPERVISOR_PROT": "1", "DAPHNE_SUPERVISOR_PORT": "0"}
    main(["a:b", "-v0", "--log-fmt", "%(message)s"], environ, Supervision())
    assert capfd.readouterr().err == "DAPHNE_SUPERVISOR_PROT: no such option, ignored\n"


def test_the_directory_is_entered_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths count from --chdir, whose own name is made absolute and keeps its links."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "release").mkdir()
    (tmp_path / "current").symlink_to("release")
    supervision = Supervision()
    main(["a:b", "--chdir", "current", "-u", "x", "--access-log", "log"], {}, supervision)
    access_log = supervision.heritage.access_log
    assert supervision.heritage.config.app.chdir == f"{tmp_path}/current"
    assert os.listdir(tmp_path / "release") == ["log"]
    assert repr(access_log) == f"<AccessLog {tmp_path}/release/log>"


def test_a_directory_that_cannot_be_entered_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is the world that is wrong, so the code is that of a failed boot."""
    code = main(["a:b", "--chdir", f"{tmp_path}/none"], {}, Supervision())
    assert code == ExitCode.BOOT_FAILED
    assert capfd.readouterr().err == (
        f"daphne-supervisor: --chdir {tmp_path}/none: cannot be entered:"
        " No such file or directory\n"
    )


def test_sockets_of_systemds_are_known_by_the_environment(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Both variables are read, and they hold for this process only."""
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
    assert main(["a:b", "-e", "systemd:INET:index=1"], environ, Supervision()) == 3
    assert capfd.readouterr().err == (
        "daphne-supervisor: --endpoint systemd:INET:index=1: is not among the sockets that"
        " systemd has handed over (LISTEN_FDS): 1\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        ([], 2, "APPLICATION is missing: give module:attribute, as in myproject.asgi:application"),
        (["a:b", "-p", "x"], 2, "--port: 'x' is not a port number (0 to 65535)"),
        (["a:b", "--whatever"], 2, "--whatever: no such option"),
        (
            ["a:b", "-v0", "-e", "tcp:0:interface=127.0.0.1", "--certfile", "c.pem"],
            2,
            (
                "--certfile: nothing is listened on that would speak TLS with it: give --bind or"
                " --port, or an endpoint string of the kind ssl:"
            ),
        ),
        (["a:b", "-e", "tcp:x"], 2, "--endpoint tcp:x: 'x' is not a port number (0 to 65535)"),
        (
            ["a:b", "-v0", "--fd", "2147483647"],
            3,
            "--fd 2147483647: descriptor 2147483647 is not open",
        ),
    ],
)
def test_a_mistake_is_one_line_and_a_code(
    arguments: list[str], code: int, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The line names program and option, and nothing else is printed."""
    assert main(arguments, {}, Supervision()) == code
    assert capfd.readouterr() == ("", f"daphne-supervisor: {line}\n")


def test_a_bug_of_ours_is_reported_as_one(capfd: pytest.CaptureFixture[str]) -> None:
    """The traceback is shown, since the user can do nothing else about it."""
    supervision = Supervision(error=LookupError("never thought of"))
    assert main(["a:b", "-v0", "-p", "0"], {}, supervision) == ExitCode.CRASHED
    error = capfd.readouterr().err
    assert error.startswith("daphne-supervisor: this is a bug in daphne-supervisor\nTraceback")
    assert error.endswith("LookupError: never thought of\n")


def test_an_interrupt_before_the_master_is_a_stop(capfd: pytest.CaptureFixture[str]) -> None:
    """Who is quick with Ctrl-C sees no traceback."""
    supervision = Supervision(error=KeyboardInterrupt())
    assert main(["a:b", "-v0", "-p", "0"], {}, supervision) == ExitCode.STOPPED
    assert capfd.readouterr() == ("", "")


def test_the_version_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """It goes to the standard output, and nothing is started."""
    assert main(["--version"], {}, Supervision(code=1)) == 0
    assert capfd.readouterr() == (f"daphne-supervisor {__version__}\n", "")


def test_the_help_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """It goes to the standard output, and ends with one line end."""
    assert main(["-h"], {}, Supervision(code=1)) == 0
    shown = capfd.readouterr().out
    assert shown.startswith("Usage: daphne-supervisor ")
    assert shown.endswith(".\n")


def test_a_closed_standard_output_is_no_failure() -> None:
    """Who pipes the help into `head` has seen enough."""
    kept = os.dup(1)
    os.close(1)
    try:
        assert main(["-h"], {}, Supervision()) == 0
        assert os.readlink("/proc/self/fd/1") == "/dev/null"  # and nothing else ever gets there
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def test_the_process_has_its_own_arguments_and_environment(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The console script calls without arguments."""
    monkeypatch.setattr("sys.argv", ["daphne-supervisor", "--version"])
    assert main() == 0
    assert capfd.readouterr().out == f"daphne-supervisor {__version__}\n"


def test_a_reload_reads_the_file_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What may change does, and what would take a restart stays and is named."""
    file = tmp_path / "shop.toml"
    file.write_text('threads = 2\nport = 0\nlog-fmt = "%(message)s"\n')
    supervision = Supervision()
    main(["a:b", "--config", str(file)], {}, supervision)
    before = supervision.heritage
    file.write_text('threads = 3\nport = 1\nlog-fmt = "new: %(message)s"\n')
    capfd.readouterr()
    after = supervision.reread(before.config)
    assert (before.config.process.threads, after.config.process.threads) == (2, 3)
    assert after.config.bind == before.config.bind
    assert after.listeners is before.listeners
    assert after.access_log is before.access_log
    logging.getLogger("test").warning("in the new form")
    assert capfd.readouterr().err == (
        "--port: has changed, which takes a restart or an upgrade; not changed\n"
        "new: in the new form\n"
    )


def test_a_reload_may_move_the_access_log(tmp_path: Path) -> None:
    """Another file is opened for the workers to come; the old ones keep theirs."""
    file = tmp_path / "shop.toml"
    file.write_text(f'port = 0\naccess-log = "{tmp_path}/one"\n')
    supervision = Supervision()
    main(["a:b", "-v0", "--config", str(file)], {}, supervision)
    before = supervision.heritage
    file.write_text(f'port = 0\naccess-log = "{tmp_path}/two"\n')
    after = supervision.reread(before.config)
    assert repr(after.access_log) == f"<AccessLog {tmp_path}/two>"
    assert repr(before.access_log) == f"<AccessLog {tmp_path}/one>"


def test_a_reload_of_a_wrong_file_says_where(tmp_path: Path) -> None:
    """The error names file, line and key, and nothing has changed."""
    file = tmp_path / "shop.toml"
    file.write_text("port = 0\n")
    supervision = Supervision()
    main(["a:b", "-v0", "--config", str(file)], {}, supervision)
    file.write_text("port = 0\nthreads = -1\n")
    with pytest.raises(UsageError, match=r"shop.toml:2: threads: '-1' is not a number of threads"):
        supervision.reread(supervision.heritage.config)


def test_a_reload_may_not_add_a_certificate_that_nobody_uses(tmp_path: Path) -> None:
    """As at the start: who gives one believes that TLS is spoken."""
    file = tmp_path / "shop.toml"
    file.write_text("")
    supervision = Supervision()
    endpoint = "tcp:0:interface=127.0.0.1"
    main(["a:b", "-v0", "-e", endpoint, "--config", str(file)], {}, supervision)
    file.write_text("certfile = 'c.pem'\n")
    with pytest.raises(UsageError, match=r"^--certfile: nothing is listened on"):
        supervision.reread(supervision.heritage.config)


def test_on_boot_may_refuse(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The hook is named, the listeners are released, and nothing is supervised."""
    (tmp_path / "refusing.py").write_text(
        "def on_boot(**facts):\n    raise ValueError('not today')\n"
    )
    supervision = Supervision()
    arguments = ["a:b", "-v0", "-p0", "--hooks", "refusing", "--app-dir", str(tmp_path)]
    assert main(arguments, {}, supervision) == ExitCode.BOOT_FAILED
    assert capfd.readouterr().err == (
        "daphne-supervisor: --hooks refusing: on_boot failed: ValueError: not today\n"
    )
    assert supervision.heritages == []


def test_more_memory_than_there_is_is_doubted(capfd: pytest.CaptureFixture[str]) -> None:
    """The machine grants less than that, whatever machine it is."""
    arguments = ["a:b", "-p0", "--max-memory", "900000G", "--log-fmt", "%(message)s"]
    main(arguments, {}, Supervision())
    doubted = "the cgroup grants" in capfd.readouterr().err
    assert doubted == (cgroups.memory_limit() is not None)
