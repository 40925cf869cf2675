"""LocalChannelLayer under a real master: workers, the broker, and what happens when they die."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

import psutil
from websockets.sync.client import connect

from tests.support.client import get
from tests.support.daphne import Daphne, survivors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.sync.client import ClientConnection

APP = "tests.integration.channel_app:application"
ENOUGH = 400
"""Connections, so that some are on each of two workers, though one may be kept from running."""
MESSAGES = 200
FEW = 5
"""Messages that may be lost with a broker, one at a time: mostly it is one, or none."""


@contextlib.contextmanager
def members(server: Daphne, room: str) -> Iterator[dict[int, ClientConnection]]:
    """Connect to `room` until there is a member in each of two workers; yield them by process.

    Those that are too many stay until then: of connections that end at once one worker may take
    every one.
    """
    with contextlib.ExitStack() as stack:
        found: dict[int, ClientConnection] = {}
        surplus: list[ClientConnection] = []
        for _ in range(ENOUGH):
            if len(found) == 2:
                break
            one = stack.enter_context(connect(f"ws://127.0.0.1:{server.port}/{room}"))
            process = int(one.recv(10))
            if found.setdefault(process, one) is not one:
                surplus.append(one)
        for one in surplus:
            one.close()
        assert len(found) == 2, "all connections are on one worker"
        yield found


def hears(speaker: ClientConnection, listener: ClientConnection, text: str) -> bool:
    """Say whether what one says arrives at the other; both are members, and the first hears too."""
    speaker.send(text)
    return speaker.recv(10) == text and listener.recv(10) == text


def test_members_of_a_group_on_two_workers_hear_each_other() -> None:
    """What one says arrives once at everybody in its room, wherever they are, and nowhere else."""
    with (
        Daphne(APP, "--workers", "2") as server,
        members(server, "kitchen") as kitchen,
        members(server, "garden") as garden,
    ):
        (one, two), (other, _) = kitchen.values(), garden.values()
        assert kitchen.keys() == garden.keys()
        assert hears(one, two, "tea is ready")
        assert hears(two, one, "coming")
        assert hears(other, garden[next(reversed(garden))], "it rains")
        (broker,) = server.brokers()
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        assert survivors([broker], 5) == []


def test_a_project_without_channels_has_no_broker() -> None:
    """The broker is started by the first use of the layer, not by its existence."""
    with Daphne(APP, "--workers", "2") as server:
        assert get(server.port, "/").status == 200
        assert server.brokers() == []
        assert get(server.port, "/layer").status == 200
        assert len(server.brokers()) == 1


def test_the_broker_is_replaced_when_it_dies_under_load() -> None:
    """Whoever is in a group stays in it; a message that was on its way is lost or not, never two.

    Each process connects again at once, and tells the new broker of its groups.
    """
    with Daphne(APP, "--workers", "2") as server, members(server, "kitchen") as kitchen:
        one, two = kitchen.values()
        (broker,) = server.brokers()
        lost = 0
        for number in range(MESSAGES):
            if number == MESSAGES // 2:
                broker.kill()
            one.send(str(number))
            try:
                assert one.recv(1) == str(number)
            except TimeoutError:
                lost += 1
        assert lost <= FEW
        heard = [int(two.recv(10))]
        while heard[-1] != MESSAGES - 1:
            heard.append(int(two.recv(10)))
        assert heard == sorted(set(heard))
        assert len(heard) >= MESSAGES - FEW
        (new,) = server.brokers()
        assert new.pid != broker.pid
        assert f"broker pid {broker.pid}: gone, signal SIGKILL" in server.log()


def test_what_waits_in_the_broker_is_bounded() -> None:
    """Sending raises ChannelFull before the channel's own capacity is reached; the log says why."""
    with Daphne(APP, "--channels-max-queue", "5500") as server:
        assert get(server.port, "/fill").text == "5"
        assert "5500 may (--channels-max-queue): messages are refused" in server.log()


def test_a_worker_that_reads_nothing_does_not_hold_up_the_others() -> None:
    """What it misses is counted; it is in its groups when it reads again."""
    with (
        Daphne(APP, "--workers", "2", "--channels-stuck-after", "0.2") as server,
        members(server, "kitchen") as kitchen,
    ):
        one, two = kitchen.values()
        stopped = psutil.Process(next(reversed(kitchen)))
        stopped.suspend()
        missed = "it gets no messages until it reads again"
        while missed not in server.log():
            one.send("x" * 200_000)
            one.recv(10)
        why = "leaves much unread for 0.2 s (--channels-stuck-after)"
        assert f"process {stopped.pid} {why}: {missed}" in server.log()
        stopped.resume()
        while f"process {stopped.pid} reads again: " not in server.log():
            one.send("are you there?")
            one.recv(10)
        one.send("again")
        while two.recv(10) != "again":
            pass


def test_the_broker_outlives_a_reload_and_the_crash_of_a_worker() -> None:
    """New workers meet the others where the old ones did."""
    with Daphne(APP, "--workers", "2") as server:
        with members(server, "kitchen") as kitchen:
            (broker,) = server.brokers()
            psutil.Process(min(kitchen)).kill()
            server.wait_status("1/2 workers ready")
            server.wait_status("2/2 workers ready")
        server.signal(signal.SIGHUP)
        server.wait_status("reload done")
        with members(server, "kitchen") as kitchen:
            one, two = kitchen.values()
            assert hears(one, two, "again")
            assert server.brokers() == [broker]
