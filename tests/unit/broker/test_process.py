"""The broker with real sockets, round by round, in the test's own process."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from typing import TYPE_CHECKING, Self

import pytest

from daphne_supervisor.broker.address import connect, listen, text_of
from daphne_supervisor.broker.connection import BUSY
from daphne_supervisor.broker.frames import (
    ACK,
    GROUP,
    HELLO,
    LIMITS,
    MOMENT,
    PUBLISH,
    RECEIVE,
    REFUSED,
    SEND,
    SUBSCRIBE,
    TURN,
    Splitter,
    frame,
    named,
)
from daphne_supervisor.broker.process import SWEEP, Broker
from daphne_supervisor.config import Channels
from tests.support.fake_processes import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator

Frame = tuple[int, int, bytes]
OPTIONS = Channels(max_queue=1000, stuck_after=2.0)


class Member:
    """A process that has connected."""

    def __init__(self, stage: Stage, name: str) -> None:
        """Greet as client `name`."""
        self.sock = connect(text_of(stage.listener))
        self._stage = stage
        self._splitter = Splitter()
        self.heard: list[Frame] = []
        stage.broker.round()
        self.says(HELLO, named(name) + b"\1")
        self.until(ACK)

    def says(self, kind: int, payload: bytes, number: int = 1) -> None:
        """Send a frame."""
        self.sock.send(frame(kind, number, payload))

    def publishes(self, body: bytes, number: int = 1) -> None:
        """Send a message to the kitchen."""
        self.says(PUBLISH, named(":kitchen") + MOMENT.pack(1e9) + body, number)

    def takes(self) -> None:
        """Read what there is."""
        with contextlib.suppress(BlockingIOError):
            while data := self.sock.recv(1 << 20):
                self.heard += self._splitter.feed(data)

    def until(self, kind: int) -> Frame:
        """Let the broker work until a frame of `kind` has come; return it."""
        while True:
            self.takes()
            for one in self.heard:
                if one[0] == kind:
                    self.heard.remove(one)
                    return one
            self._stage.broker.round()


class Stage:
    """A broker whose rounds the test takes."""

    def __init__(self, *, trusted: bool = True) -> None:
        """Be met at an address of its own."""
        self.clock = Clock()
        self.listener = listen()
        self.lifeline, far = socket.socketpair()
        self._far = far
        self.broker = Broker(
            self.listener, far, OPTIONS, clock=self.clock, trusted=lambda _: trusted
        )
        self._members: list[Member] = []

    def __enter__(self) -> Self:
        """Be ready, as `serve` is."""
        self.broker.open()
        return self

    def __exit__(self, *_: object) -> None:
        """Close everything."""
        self.broker.close()
        for one in (self.listener, self.lifeline, self._far):
            one.close()
        for member in self._members:
            member.sock.close()

    def member(self, name: str) -> Member:
        """Return a process that has greeted."""
        member = Member(self, name)
        self._members.append(member)
        return member


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Yield a broker."""
    with Stage() as found:
        yield found


def subscribed(stage: Stage, name: str) -> Member:
    """Return a process with members in the kitchen."""
    member = stage.member(name)
    member.says(SUBSCRIBE, named(":kitchen") + TURN.pack(1))
    member.until(ACK)
    return member


def test_a_message_passes_from_process_to_process(stage: Stage) -> None:
    """And the one who sends it is answered."""
    anna, bert = subscribed(stage, "anna"), stage.member("bert")
    bert.publishes(b"tea", 5)
    assert bert.until(ACK) == (ACK, 5, b"")
    assert anna.until(GROUP)[2].endswith(b"tea")


def test_one_that_leaves_is_forgotten(stage: Stage) -> None:
    """Messages go to those who are there."""
    anna, bert = subscribed(stage, "anna"), stage.member("bert")
    anna.sock.close()
    bert.publishes(b"tea")
    bert.until(ACK)
    bert.publishes(b"more tea")
    bert.until(ACK)


def test_what_is_no_frame_ends_a_connection(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Its own, and nobody else's; the log says why."""
    anna, bert = stage.member("anna"), stage.member("bert")
    anna.says(99, b"")
    stage.broker.round()
    assert anna.sock.recv(10) == b""
    assert "what is no frame: a frame of kind 99" in caplog.text
    bert.publishes(b"tea")
    bert.until(ACK)


def test_another_user_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """The socket is open to everybody, the broker is not."""
    with Stage(trusted=False) as stage, connect(text_of(stage.listener)) as stranger:
        stage.broker.round()
        assert stranger.recv(10) == b""
        assert "another user has connected" in caplog.text


def test_one_that_has_left_the_queue_is_no_error(stage: Stage) -> None:
    """Whoever connects may be gone when it is accepted; and somebody else may have been faster."""
    connect(text_of(stage.listener)).close()
    copy, _ = stage.listener.accept()
    copy.close()
    stage.broker.accept()
    assert stage.member("anna")


def test_a_flood_to_one_who_reads_slowly_arrives_whole(stage: Stage) -> None:
    """Who sends waits for its answer, so nothing is lost."""
    anna, bert = subscribed(stage, "anna"), stage.member("bert")
    for _ in range(6):
        bert.publishes(bytes(60000))
        bert.until(ACK)
    for _ in range(6):
        assert len(anna.until(GROUP)[2]) > 60000


def test_one_that_takes_nothing_holds_others_up_for_a_while_only(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """Then messages pass it by, and how many were lost is said when it reads again."""
    anna, bert = subscribed(stage, "anna"), stage.member("bert")
    body, sent = bytes(100_000), 0
    while not any(one.busy for one in stage.broker.connections):
        sent += 1
        bert.publishes(body, sent)
        stage.broker.round()
    assert sent * len(body) > BUSY
    bert.takes()
    assert (ACK, sent, b"") not in bert.heard
    stage.clock.now += OPTIONS.stuck_after
    stage.broker.round()
    assert bert.until(ACK)
    stage.clock.now += OPTIONS.stuck_after
    while (ACK, sent, b"") not in bert.heard:
        bert.takes()
        stage.broker.round()
    bert.publishes(body, 7777)
    while (ACK, 7777, b"") not in bert.heard:
        bert.takes()
        stage.broker.round()
    caplog.set_level(logging.WARNING)
    assert (
        f"process {os.getpid()} leaves much unread for 2 s (--channels-stuck-after)" in caplog.text
    )
    while "reads again: 1 messages to it were lost or refused" not in caplog.text:
        anna.takes()
        stage.broker.round()


def test_what_waits_in_the_broker_is_bounded(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """What does not fit is refused, and the log names the option."""
    anna = stage.member("anna")
    letter = named(":jobs") + LIMITS.pack(stage.clock.now + 1, 100) + bytes(400)
    for number in (1, 2):
        anna.says(SEND, letter, number)
        assert anna.until(ACK)[1] == number
    anna.says(SEND, letter, 3)
    assert anna.until(REFUSED)[1] == 3
    assert "800 bytes wait" in caplog.text
    assert "1000 may (--channels-max-queue)" in caplog.text


def test_what_has_expired_is_swept_out_now_and_then(stage: Stage) -> None:
    """A broker that nobody speaks to wakes up for it."""
    anna = stage.member("anna")
    anna.says(SEND, named(":jobs") + LIMITS.pack(stage.clock.now + 1, 5) + b"x")
    anna.until(ACK)
    stage.clock.now += SWEEP
    stage.broker.round()
    anna.says(RECEIVE, named(":jobs"), 3)
    anna.publishes(b"", 4)
    assert anna.until(ACK) == (ACK, 4, b"")
    assert anna.heard == []


def test_it_serves_until_its_master_and_then_everybody_has_left() -> None:
    """Workers that drain after the death of their master have a broker until they have left."""
    stage = Stage()
    thread = threading.Thread(target=stage.broker.serve)
    thread.start()
    with connect(text_of(stage.listener)) as sock:
        sock.setblocking(True)
        sock.settimeout(10)
        sock.send(frame(HELLO, 1, named("anna") + b"\1"))
        assert sock.recv(100) == frame(ACK, 1)
        stage.lifeline.close()
        sock.send(frame(PUBLISH, 2, named(":kitchen") + MOMENT.pack(0)))
        assert sock.recv(100) == frame(ACK, 2)
        assert thread.is_alive()
    thread.join(10)
    assert not thread.is_alive()
    stage.listener.close()
    stage.__exit__()
