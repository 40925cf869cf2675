"""What endpoints ask of a reactor is written down, or refused by name: real plug-ins of a test."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from twisted import plugins
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from daphne_supervisor.errors import BootError
from daphne_supervisor.worker.survey import (
    Listening,
    Recorder,
    listen,
    note_failure,
    path_of,
    record,
)
from tests.support.endpoint_plugin import installed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Twisted find the test's plug-ins, and its TLS a reactor for its timers."""
    installed(tmp_path)
    monkeypatch.setitem(sys.modules, "twisted.internet.reactor", Clock())
    place = str(tmp_path / "twisted" / "plugins")
    monkeypatch.setattr(plugins, "__path__", [*plugins.__path__, place])


def found(text: str) -> Any:
    """Return what the endpoint `text` listens on, or why it does not."""
    answer = record(text, [])
    return answer["listens"] if "listens" in answer else answer["refused"]


def test_a_tcp_port_is_written_down() -> None:
    """With Twisted's default for what the plug-in does not say."""
    tcp = {"kind": "tcp", "host": "127.0.0.1", "port": 8000, "backlog": 50}
    assert found("box:8000") == [tcp]


def test_of_tls_it_is_the_port(tmp_path: Path) -> None:
    """What is spoken over it, the workers see to."""
    path = tmp_path / "pair.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(path))
    tcp = {"kind": "tcp", "host": "127.0.0.1", "port": 8000, "backlog": 50}
    assert found(f"bare:8000:{path}") == [tcp]
    assert found(f"pyssl:8000:{path}") == [tcp]


def test_a_unix_socket_is_written_down() -> None:
    """With the mode that Twisted gives it."""
    unix = {"kind": "unix", "path": "/run/x", "mode": 0o666, "backlog": 50}
    assert found("vault:/run/x") == [unix]


def test_an_endpoint_may_listen_twice() -> None:
    """In the order in which it does."""
    assert [one["port"] for one in found("two:")] == [0, 0]


def test_a_descriptor_that_was_there_is_written_down() -> None:
    """Twisted's endpoint closes it, which is why this is done in a child."""
    one, other = socket.socketpair()
    with one, other, socket.create_server(("127.0.0.1", 0)) as listener:
        copy = listener.dup()
        assert found(f"taken:{copy.fileno()}") == [{"kind": "fd", "fileno": copy.detach()}]


REFUSALS = [
    ("bad:udp", "its plug-in wants datagrams (UDP), which do not carry HTTP"),
    ("bad:client", "its plug-in connects to another server, which cannot be shared by workers"),
    ("bad:nothing", "its plug-in listens on nothing that can be shared"),
    ("bad:late", "its plug-in does not listen at once, and workers do not wait for it"),
    ("bad:own", "its plug-in opens a socket by itself, which cannot be shared by workers"),
    ("bad:adopted", "its plug-in opens a socket by itself, which cannot be shared by workers"),
    ("bad:broken", "its plug-in fails: ZeroDivisionError: two lines"),
    ("bad:failed", "its plug-in fails: OSError: no luck"),
    ("bad:files", "its plug-in fails: FileNotFoundError: no such key"),
    ("bad:object", "its plug-in makes something of it that is no stream server endpoint"),
    ("taken:1000000", "its plug-in fails: OSError: [Errno 9] Bad file descriptor"),
    ("pyssl:1:/nowhere", "its plug-in fails: FileNotFoundError: [Errno 2] No such file"),
    ("bad:unknown", "its plug-in fails: AttributeError: a reactor's 'teleport', which cannot"),
]


@pytest.mark.parametrize(("text", "reason"), REFUSALS)
def test_what_cannot_be_shared_is_refused_by_name(text: str, reason: str) -> None:
    """In one line, and as a fault of the world rather than of the text."""
    answer = record(text, [])
    assert answer["refused"].startswith(reason)
    assert answer["usage"] is False
    assert "\n" not in answer["refused"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("box:x", "its plug-in does not understand it: ValueError: invalid literal"),
        ("box:1:2", "its plug-in does not understand it: TypeError: "),
        ("stdio:", "is one connection, on which nobody can listen"),
        ("imap:143", "is of no kind that is known: autobahn:, bad:, bare:, box:, fd:, haproxy:,"),
    ],
)
def test_a_text_that_makes_no_sense_is_the_user_s_mistake(text: str, reason: str) -> None:
    """So it ends with the other exit code."""
    answer = record(text, [])
    assert answer["refused"].startswith(reason)
    assert answer["usage"] is True


def test_an_unknown_kind_may_be_a_plug_in_that_is_broken() -> None:
    """Twisted says so in its log, and we say it in the line."""
    unloaded: list[str] = []
    events: list[Any] = []
    log = Logger(observer=events.append)  # type: ignore[arg-type]
    log.failure("while loading", failure=Failure(ImportError("No module named 'x'")))
    log.failure("by the way", failure=Failure(ImportError("no")), level=LogLevel.info)
    log.error("something else")
    for event in events:
        note_failure(event, unloaded)
    assert record("imap:143", unloaded)["refused"].endswith(
        "(a plug-in could not be loaded: ImportError: No module named 'x')"
    )


def test_the_reactor_of_everybody_is_not_to_be_used() -> None:
    """It says so to whoever listens there; and time, which stands still, it has for everybody."""
    refusing = Recorder("listens elsewhere")
    with pytest.raises(Exception, match="listens elsewhere"):
        refusing.listenTCP(80, Factory())
    refusing.callWhenRunning(print)
    refusing.callLater(1, print)
    assert refusing.listens == []


def test_what_an_endpoint_gets_is_a_port() -> None:
    """Which is somebody else's to close."""
    port = Listening("here")
    port.startListening()
    assert port.getHost() == "here"
    assert isinstance(port.stopListening(), Deferred)


def test_a_path_may_be_bytes() -> None:
    """As Twisted lets it."""
    assert [path_of("/run/x"), path_of(b"/run/x")] == ["/run/x", "/run/x"]


def test_what_a_worker_says_is_not_the_plug_in_s_fault() -> None:
    """Its view of the reactor may refuse by itself, and says whose fault that is."""

    class View(Recorder):
        """Refuses."""

        def listenTCP(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802
            """Refuse."""
            del args, kwargs
            message = "listens elsewhere"
            raise BootError(message)

    with pytest.raises(BootError, match=r"^listens elsewhere$"):
        listen("box:80", View(), Factory())
