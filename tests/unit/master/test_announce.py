"""Service manager and process title."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from typing import TYPE_CHECKING

import pytest
import setproctitle

from daphne_supervisor.master.announce import (
    Notifier,
    message,
    set_title,
    watchdog_interval,
)
from daphne_supervisor.master.model import Announce, Milestone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UP = Announce(Milestone.READY, "2/2 workers ready", "")


@pytest.mark.parametrize(
    ("milestone", "lines"),
    [
        (None, "STATUS=fine"),
        (Milestone.READY, "READY=1\nERRNO=0\nSTATUS=fine"),
        (Milestone.RELOADING, "RELOADING=1\nMONOTONIC_USEC=42\nSTATUS=fine"),
        (Milestone.STOPPING, "STOPPING=1\nSTATUS=fine"),
    ],
)
def test_each_milestone_has_its_lines(milestone: Milestone | None, lines: str) -> None:
    """The datagram is what sd_notify(3) and systemd.service(5) ask for."""
    assert message(Announce(milestone, "fine", ""), 42) == lines


def test_a_failed_reload_is_told_from_a_good_one() -> None:
    """Both end with READY=1; only the failed one leaves an error in `systemctl status`."""
    failed = Announce(Milestone.READY, "fine", "", failed=True)
    assert message(failed, 42) == f"READY=1\nERRNO={errno.ECANCELED}\nSTATUS=fine"


@pytest.mark.parametrize(
    ("extend", "lines"),
    [
        (0.0, ""),
        (1.5, "EXTEND_TIMEOUT_USEC=1500000\n"),
        (3e6, "EXTEND_TIMEOUT_USEC=3000000000000\n"),
    ],
)
def test_more_time_is_asked_for_where_it_is_needed(extend: float, lines: str) -> None:
    """What takes longer than the service manager's patience is announced with its length."""
    stopping = Announce(Milestone.STOPPING, "fine", "", extend=extend)
    assert message(stopping, 42) == f"STOPPING=1\n{lines}STATUS=fine"


def test_a_status_cannot_smuggle_in_a_line() -> None:
    """A reason of several lines stays one value."""
    assert message(Announce(None, "no\nREADY=1", ""), 0) == "STATUS=no READY=1"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Return the socket of a service manager, bound to the path `notify`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5.0)
        yield manager


@pytest.fixture
def notifier(manager: socket.socket) -> Notifier:
    """Return a notifier that speaks to `manager`."""
    return Notifier({"NOTIFY_SOCKET": manager.getsockname()})


def test_the_service_manager_is_told(manager: socket.socket, notifier: Notifier) -> None:
    """An announcement is one datagram; a reload's has the time of the clock that systemd uses."""
    notifier.announce(UP)
    assert manager.recv(4096) == b"READY=1\nERRNO=0\nSTATUS=2/2 workers ready"
    before = time.monotonic_ns() // 1000
    notifier.announce(Announce(Milestone.RELOADING, "", ""))
    said = dict(line.split("=") for line in manager.recv(4096).decode().splitlines())
    assert before <= int(said["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000


def test_an_abstract_address_begins_with_an_at_sign(tmp_path: Path) -> None:
    """A service manager may listen in Linux's abstract namespace."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{tmp_path}")
        manager.settimeout(5.0)
        Notifier({"NOTIFY_SOCKET": f"@{tmp_path}"}).announce(Announce(None, "fine", ""))
        assert manager.recv(4096) == b"STATUS=fine"


def test_the_watchdog_hears_of_us(manager: socket.socket, notifier: Notifier) -> None:
    """A sign of life is nothing but that."""
    notifier.reassure()
    assert manager.recv(4096) == b"WATCHDOG=1"


def test_another_process_can_be_made_the_main_one(
    manager: socket.socket, notifier: Notifier
) -> None:
    """An upgrade tells the service manager whom to supervise."""
    notifier.main_pid(4711)
    assert manager.recv(4096) == b"MAINPID=4711"


def test_a_status_that_is_no_text_is_told_all_the_same(
    manager: socket.socket, notifier: Notifier
) -> None:
    """A file name in an error may hold bytes that no encoding knows."""
    notifier.announce(Announce(None, os.fsdecode(b"no \xff"), ""))
    assert manager.recv(4096) == rb"STATUS=no \udcff"


def test_workers_do_not_inherit_what_is_meant_for_the_master() -> None:
    """Nobody but the master speaks for the service."""
    ours = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "2"}
    environment = {**ours, "HOME": "/"}
    Notifier(environment)
    assert environment == {"HOME": "/"}


def test_nobody_to_tell_is_fine() -> None:
    """Without a service manager nothing happens."""
    Notifier({}).announce(UP)


def test_an_unreachable_manager_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no reason to stop, nor to repeat oneself."""
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    with caplog.at_level(logging.WARNING):
        notifier.announce(UP)
        notifier.reassure()
    assert len(caplog.records) == 1
    assert "NOTIFY_SOCKET" in caplog.text


@pytest.mark.parametrize("pid", [{}, {"WATCHDOG_PID": "7"}])
def test_the_watchdog_is_reassured_twice_in_its_time(pid: dict[str, str]) -> None:
    """One sign of life may be late by as much as there is between two."""
    assert watchdog_interval({"WATCHDOG_USEC": "3000000", **pid}, 7) == 1.5


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "\u0663"},
        {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"},
    ],
)
def test_without_a_watchdog_there_is_nothing_to_do(environment: dict[str, str]) -> None:
    """No time, no sensible time, or one for another process: nobody watches us."""
    assert watchdog_interval(environment, 7) is None


def test_the_title_names_the_application() -> None:
    """`ps` shows which of several services this master runs."""
    before = setproctitle.getproctitle()
    try:
        set_title("master", "shop.asgi:application")
        assert setproctitle.getproctitle() == "daphne-supervisor: master [shop.asgi:application]"
    finally:
        setproctitle.setproctitle(before)
