"""What is written down: the log on the standard error, and the access log."""

from __future__ import annotations

import logging
import os
import re
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daphne_supervisor import log_setup
from daphne_supervisor.config import Log
from daphne_supervisor.errors import BootError, UsageError
from daphne_supervisor.logs import AccessLog, _printable, access_log_path, configure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOON = time.mktime((2024, 5, 6, 12, 0, 0, 0, 0, -1))
AT_NOON = "[06/May/2024:12:00:00]"


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        """Begin at noon."""
        self.now = NOON

    def __call__(self) -> float:
        """Return the time in seconds since the epoch."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock that shows noon."""
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of an access log that does not exist yet."""
    return tmp_path / "access.log"


@pytest.fixture
def access_log(file: Path, clock: Clock) -> Iterator[AccessLog]:
    """Return an access log in `file` whose time is `clock`."""
    opened = AccessLog.open(str(file))
    opened._clock = clock
    yield opened
    os.close(opened._descriptor)


# The log


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """Return a logger of our own, and leave logging as it was."""
    yield logging.getLogger("tests.logs")
    log_setup.replace(lambda: None)


@pytest.mark.parametrize(
    ("verbosity", "level"),
    [(0, logging.WARNING), (1, logging.INFO), (2, logging.DEBUG), (3, logging.DEBUG)],
)
def test_the_verbosity_is_a_level(logger: logging.Logger, verbosity: int, level: int) -> None:
    """From warnings only to everything, in the steps that Daphne has."""
    configure(Log(verbosity=verbosity), logger)
    assert logger.level == level


def test_the_log_goes_to_standard_error_in_the_format_asked_for(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """The format is that of the command line."""
    configure(Log(log_fmt="%(levelname)s <%(message)s>"), logger)
    logger.info("ready")
    assert capsys.readouterr() == ("", "INFO <ready>\n")


@pytest.mark.usefixtures("logger")
def test_without_a_logger_the_root_is_set_up(capsys: pytest.CaptureFixture[str]) -> None:
    """Every library's words are seen."""
    configure(Log(log_fmt="%(message)s"))
    logging.getLogger("somebody.elses").info("hello")
    assert capsys.readouterr().err == "hello\n"


def test_told_again_it_no_longer_logs_as_before(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reload that changes the format changes it, and no line is written twice."""
    configure(Log(log_fmt="old %(message)s", verbosity=2), logger)
    configure(Log(log_fmt="new %(message)s"), logger)
    logger.info("ready")
    logger.debug("details")
    assert capsys.readouterr().err == "new ready\n"


def log_config(path: Path, **handler: str) -> Log:
    """Write a file for --log-config with one handler, and return the options that name it."""
    lines = "".join(f'{name} = "{value}"\n' for name, value in handler.items())
    path.write_text(f"version = 1\n[root]\nlevel = 'INFO'\nhandlers = ['h']\n[handlers.h]\n{lines}")
    return Log(log_config=str(path), log_fmt="ours %(message)s")


def test_a_file_takes_the_place_of_our_own_set_up(
    logger: logging.Logger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its handlers get what ours would have got, and nothing is left of ours; then back again."""
    configure(Log(log_fmt="before %(message)s"))
    handler = {"class": "logging.FileHandler", "filename": f"{tmp_path}/log"}
    configure(log_config(tmp_path / "d.toml", **handler))
    logger.info("ready")
    assert (tmp_path / "log").read_text() == "ready\n"
    assert capsys.readouterr().err == ""
    configure(Log(log_fmt="after %(message)s"))
    logger.info("ready")
    assert (tmp_path / "log").read_text() == "ready\n"
    assert capsys.readouterr().err == "after ready\n"


def test_a_bad_file_leaves_the_log_as_it_was(
    logger: logging.Logger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reload with a mistake in it is refused, and the log that says so goes where it went."""
    configure(Log(log_fmt="ours %(message)s"))
    bad = log_config(tmp_path / "d.toml", **{"class": "logging.FileHandler", "filename": "/none/x"})
    with pytest.raises(UsageError, match=r"^--log-config .*d\.toml: Unable to .*/none/x"):
        configure(bad)
    logger.info("refused")
    assert capsys.readouterr().err == "ours refused\n"


@pytest.mark.parametrize(
    ("log", "path"),
    [
        (Log(), "-"),
        (Log(verbosity=0), None),
        (Log(verbosity=0, access_log="-"), "-"),
        (Log(verbosity=2, access_log="a.log"), "a.log"),
    ],
)
def test_there_is_an_access_log_unless_one_is_quiet(log: Log, path: str | None) -> None:
    """Asked for by name, it is written however quiet the rest is."""
    assert access_log_path(log) == path


# The access log


def test_a_response_is_a_line_in_daphnes_form(access_log: AccessLog, file: Path) -> None:
    """Log analysers that understood Daphne go on understanding."""
    access_log.http("10.0.0.1:5000", "GET", "/a?b=c", 200, 1234)
    assert file.read_text() == f'10.0.0.1:5000 - - {AT_NOON} "GET /a?b=c" 200 1234\n'


@pytest.mark.parametrize("action", ["WSCONNECTING", "WSCONNECT", "WSREJECT", "WSDISCONNECT"])
def test_a_websocket_is_a_line_without_figures(
    access_log: AccessLog, file: Path, action: str
) -> None:
    """Where there is no status and no size, a dash stands."""
    access_log.websocket(action, "10.0.0.1:5000", "/ws/")  # type: ignore[arg-type]
    assert file.read_text() == f'10.0.0.1:5000 - - {AT_NOON} "{action} /ws/" - -\n'


def test_what_is_not_known_is_said_so(access_log: AccessLog, file: Path) -> None:
    """A client on a unix socket has no address, an empty response no size."""
    access_log.http(None, "HEAD", "/", 204, 0)
    assert file.read_text() == f'None - - {AT_NOON} "HEAD /" 204 -\n'


def test_the_time_is_that_of_each_line(access_log: AccessLog, clock: Clock, file: Path) -> None:
    """The stamp is kept for a second and not longer."""
    for now in (NOON, NOON + 0.9, NOON + 1, NOON + 3600):
        clock.now = now
        access_log.http(None, "GET", "/", 200, 1)
    stamps = re.findall(r"2024:(.*)\]", file.read_text())
    assert stamps == ["12:00:00", "12:00:00", "12:00:01", "13:00:00"]


@pytest.mark.parametrize(
    ("target", "written"),
    [
        ("/plain", "/plain"),
        ("/é", "/é"),
        ('/"', '/\\"'),
        ("/\\", "/\\\\"),
        ("/\n\r\t\0\x1b\x7f", "/\\n\\r\\t\\x00\\x1b\\x7f"),
        ("/\x85\u2028", "/\\x85\\u2028"),
        ("/\udc80", "/\\udc80"),
    ],
)
def test_a_target_cannot_forge_a_line(
    access_log: AccessLog, file: Path, target: str, written: str
) -> None:
    """Quotes, backslashes and control characters of the client's are escaped."""
    access_log.http('1.2.3.4"\n:1', "GET", target, 200, 1)
    assert file.read_bytes().decode() == (f'1.2.3.4\\"\\n:1 - - {AT_NOON} "GET {written}" 200 1\n')


@given(st.text())
def test_whatever_is_written_stays_on_its_line(text: str) -> None:
    """No text of a client's ends a line, or the quotes that it stands in."""
    written = _printable(text)
    assert written.isprintable()
    assert '"' not in re.sub(r"\\.", "", written)


def test_the_file_is_appended_to(file: Path, access_log: AccessLog) -> None:
    """A restart keeps the lines of before, and so does another process with the same file."""
    file.write_text("before\n")
    access_log.http(None, "GET", "/", 200, 1)
    assert file.read_text().startswith("before\nNone - - ")


def test_programs_that_the_application_starts_do_not_inherit_it(access_log: AccessLog) -> None:
    """The descriptor closes on exec, before and after it is opened anew."""
    assert not os.get_inheritable(access_log._descriptor)
    access_log.reopen()
    assert not os.get_inheritable(access_log._descriptor)


def test_after_a_rotation_a_new_file_is_written(access_log: AccessLog, file: Path) -> None:
    """Until it is told, it follows the renamed file; afterwards nothing is written there."""
    file.rename(file.with_suffix(".1"))
    access_log.http(None, "GET", "/before", 200, 1)
    access_log.reopen()
    access_log.http(None, "GET", "/after", 200, 1)
    assert "/before" in file.with_suffix(".1").read_text()
    assert "/after" in file.read_text()


def test_the_file_is_found_again_from_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application that changes its directory does not move the log."""
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    access_log = AccessLog.open("relative.log")
    monkeypatch.chdir(tmp_path / "sub")
    (tmp_path / "relative.log").unlink()
    access_log.reopen()
    os.close(access_log._descriptor)
    assert (tmp_path / "relative.log").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_new_file_belongs_to_the_user_of_the_workers(file: Path) -> None:
    """Root's process makes it at the start and after a rotation, for others to open."""
    access_log = AccessLog.open(str(file), owner=65534)
    try:
        assert (file.stat().st_uid, file.stat().st_gid) == (65534, os.getegid())
        file.rename(file.with_suffix(".1"))
        access_log.reopen()
        assert file.stat().st_uid == 65534
    finally:
        os.close(access_log._descriptor)


@pytest.mark.parametrize("linked", [False, True])
def test_a_file_that_is_there_is_not_given_away(file: Path, *, linked: bool) -> None:
    """The user may have put a link there, to a file that is none of his."""
    theirs = file.with_name("theirs")
    theirs.write_text("before\n")
    file.symlink_to(theirs) if linked else theirs.rename(file)
    access_log = AccessLog.open(str(file), owner=65534)
    try:
        access_log.http(None, "GET", "/", 200, 1)
        assert file.stat().st_uid == os.geteuid()
        assert file.read_text().startswith("before\nNone - - ")
    finally:
        os.close(access_log._descriptor)


def test_a_rotation_that_fails_keeps_the_old_file(
    access_log: AccessLog, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Lines go on where they went, and the log says why."""
    file.rename(file.with_suffix(".1"))
    file.mkdir()
    access_log.reopen()
    access_log.http(None, "GET", "/still", 200, 1)
    assert "/still" in file.with_suffix(".1").read_text()
    assert caplog.messages == [f"--access-log {file}: cannot be reopened: Is a directory"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The line names the option, the file and the cause."""
    with pytest.raises(BootError) as caught:
        AccessLog.open(f"{tmp_path}/none/access.log")
    assert str(caught.value) == (
        f"--access-log {tmp_path}/none/access.log: cannot be written: No such file or directory"
    )


def test_a_dash_is_the_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    """It is written past Python's buffer, and there is nothing to reopen."""
    access_log = AccessLog.open("-")
    access_log.reopen()
    access_log.http("c", "GET", "/", 200, 1)
    assert re.fullmatch(r'c - - \[.*\] "GET /" 200 1\n', capfd.readouterr().out)


def test_a_reader_that_has_gone_costs_lines_only() -> None:
    """A broken pipe does not reach the request that is being logged."""
    reader, writer = os.pipe()
    os.close(reader)
    AccessLog(writer, None).http(None, "GET", "/", 200, 1)
    os.close(writer)
    AccessLog(writer, None).http(None, "GET", "/", 200, 1)


def test_it_says_where_it_writes(access_log: AccessLog, file: Path) -> None:
    """In a failing test and in a debugger one sees which log this is."""
    assert repr(access_log) == f"<AccessLog {file}>"
    assert repr(AccessLog.open("-")) == "<AccessLog ->"


def test_a_closed_log_is_written_no_more(tmp_path: Path) -> None:
    """A reload may bring another file; then the old one's descriptor is given back."""
    log = AccessLog.open(str(tmp_path / "log"))
    before = len(os.listdir("/proc/self/fd"))
    log.close()
    log.http("127.0.0.1:1", "GET", "/", 200, 1)
    assert len(os.listdir("/proc/self/fd")) == before - 1
    assert (tmp_path / "log").read_text() == ""
    AccessLog.open("-").close()
    os.fstat(1)
