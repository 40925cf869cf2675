"""Where the broker is: the master's, or a thread of this process."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from daphne_supervisor.broker.address import VARIABLE, connect
from daphne_supervisor.broker.frames import ACK, HELLO, frame, named
from daphne_supervisor.channels.in_process import BrokerThread, broker_address
from daphne_supervisor.master.birth import fork
from tests.support.births import ended

if TYPE_CHECKING:
    import pytest


def answers(address: str) -> bool:
    """Say whether a broker is at `address`."""
    with connect(address) as sock:
        sock.settimeout(10)
        sock.send(frame(HELLO, 1, named("anna") + b"\1"))
        return sock.recv(100) == frame(ACK, 1)


def test_under_a_master_it_is_the_master_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable says where."""
    monkeypatch.setenv(VARIABLE, "@elsewhere")
    assert broker_address() == "@elsewhere"


def test_without_a_master_it_is_a_thread_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is made at the first use, and serves until its process ends."""
    thread = BrokerThread()
    thread.end()
    assert "channel-broker" not in _threads()
    address = thread.address()
    assert thread.address() == address
    assert _threads().count("channel-broker") == 1
    assert caplog.text.count("messages reach this process only") == 1
    assert answers(address)
    thread.end()
    assert "channel-broker" not in _threads()


def test_a_process_that_has_forked_has_a_broker_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Threads are not forked; the child says the same once more, as it is another process."""
    monkeypatch.delenv(VARIABLE, raising=False)

    def work() -> int:
        address = broker_address()
        child = fork(lambda: int(broker_address() == address or not answers(broker_address())))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or int(not answers(address))

    assert ended(fork(work)) == "exit code 0"


def _threads() -> list[str]:
    return [one.name for one in threading.enumerate()]
