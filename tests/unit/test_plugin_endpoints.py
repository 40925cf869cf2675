"""Asking a child where a plug-in listens: real children, whose plug-ins are played."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from daphne_supervisor.errors import BootError, UsageError
from daphne_supervisor.plugin_endpoints import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

TCP = {"kind": "tcp", "host": "::1", "port": 80, "backlog": 5}


def saying(*listens: dict[str, Any]) -> Callable[[str], dict[str, Any]]:
    """Return a survey that finds these."""
    return lambda _: {"listens": list(listens)}


def test_what_the_plug_in_asks_for_is_what_is_opened() -> None:
    """Each listener is an endpoint, and knows which of the plug-in's it is."""
    unix = {"kind": "unix", "path": "/run/x", "mode": 0o600, "backlog": 7}
    inherited = {"kind": "fd", "fileno": 3}
    found = resolve("box:1", "--endpoint", saying(TCP, unix, inherited))
    assert [(one.kind, one.place, one.plugin, one.text) for one in found] == [
        ("tcp", 0, "box:1", "box:1"),
        ("unix", 1, "box:1", "box:1"),
        ("fd", 2, "box:1", "box:1"),
    ]
    assert (found[0].host, found[0].port, found[0].backlog) == ("::1", 80, 5)
    assert (found[1].path, found[1].mode, found[1].backlog) == ("/run/x", 0o600, 7)
    assert found[2].fileno == 3
    assert not any(one.proxied for one in found)


def test_a_backlog_that_nobody_chose_is_ours_to_choose() -> None:
    """Twisted's default of 50 comes from everybody who says nothing."""
    (found,) = resolve("box:1", "--endpoint", saying({**TCP, "backlog": 50}))
    assert found.backlog is None


def test_behind_a_proxy_the_plug_in_sees_only_its_own_string() -> None:
    """The PROXY header is read before anything that is the plug-in's."""
    asked = []

    def survey(text: str) -> dict[str, Any]:
        return {"listens": [TCP], "refused": text, "usage": True}

    with pytest.raises(UsageError) as caught:
        asked += resolve("haproxy:box:1", "--endpoint", survey)
    assert str(caught.value) == "--endpoint haproxy:box:1: box:1"
    (found,) = resolve("haproxy:box:1", "--endpoint", saying(TCP))
    assert (found.proxied, found.plugin, found.text) == (True, "box:1", "haproxy:box:1")


@pytest.mark.parametrize(("usage", "kind"), [(True, UsageError), (False, BootError)])
def test_a_refusal_is_one_line(usage: bool, kind: type[Exception]) -> None:  # noqa: FBT001
    """It names the option; whose mistake it is decides about the exit code."""
    with pytest.raises(kind, match=r"^--endpoint box:1: does not want$"):
        resolve("box:1", "--endpoint", lambda _: {"refused": "does not want", "usage": usage})


@pytest.mark.parametrize(
    "listen",
    [
        {**TCP, "port": 65536},
        {**TCP, "backlog": 0},
        {"kind": "unix", "path": "\0x", "mode": 0o600, "backlog": 50},
        {"kind": "fd", "fileno": -1},
    ],
)
def test_what_nobody_can_listen_on_is_one_line(listen: dict[str, Any]) -> None:
    """A plug-in's numbers are checked as a user's are."""
    with pytest.raises(BootError, match="--endpoint box:1: its plug-in listens where nobody can"):
        resolve("box:1", "--endpoint", saying(listen))


def test_a_child_that_ends_without_an_answer_is_one_line() -> None:
    """As does a plug-in that calls `os._exit`."""
    with pytest.raises(BootError, match="its plug-in has ended the process"):
        resolve("box:1", "--endpoint", lambda _: os._exit(0))


def test_a_child_that_does_not_answer_is_ended() -> None:
    """After a limit, which the line names."""

    def hang(_: str) -> dict[str, Any]:
        while True:
            signal.pause()

    with pytest.raises(BootError, match=r"has not said where it listens within 0\.05 s"):
        resolve("box:1", "--endpoint", hang, patience=0.05)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_child_that_cannot_be_had_is_one_line() -> None:
    """Because there are too many processes, mostly."""

    def fork(child: object, *, abandon: object) -> int:
        del child, abandon
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    with pytest.raises(BootError, match="its plug-in cannot be asked: Resource temporarily"):
        resolve("box:1", "--endpoint", saying(TCP), fork=fork)


def test_an_answer_may_be_long_and_slow() -> None:
    """It is heard to its end, in however many pieces."""
    found = resolve("box:1", "--endpoint", saying(*[TCP] * 5000))
    assert len(found) == 5000


def test_a_child_that_outlives_its_answer_does_not_hold_up() -> None:
    """A process that the plug-in has started may keep the pipe open."""
    reading, writing = os.pipe()

    def survey(_: str) -> dict[str, Any]:
        if os.fork() == 0:
            os.close(writing)
            os.read(reading, 1)  # until the test ends
            os._exit(0)
        return {"listens": [TCP]}

    assert len(resolve("box:1", "--endpoint", survey, patience=10)) == 1
    os.close(writing)
    os.close(reading)
