"""The queues of channels that belong to nobody, without any process."""

from __future__ import annotations

from daphne_supervisor.broker.frames import MESSAGE, MOMENT, named
from daphne_supervisor.broker.peers import Peer
from daphne_supervisor.broker.queues import Queues
from tests.support.ports import FakePort

NOW, LATER = 100.0, 160.0


def answer(number: int, body: bytes, until: float = LATER) -> tuple[int, int, bytes]:
    """Return the frame in which a message on channel `:jobs` arrives."""
    return MESSAGE, number, named(":jobs") + MOMENT.pack(until) + body


class Worker:
    """Somebody who receives from `:jobs`."""

    def __init__(self, queues: Queues) -> None:
        """Use `queues`."""
        self.port = FakePort()
        self.peer = Peer(self.port)
        self._queues = queues

    def asks(self, number: int, now: float = NOW) -> None:
        """Want one message."""
        self._queues.ask(":jobs", self.peer, number, now)


def put(queues: Queues, body: bytes, *, until: float = LATER, now: float = NOW) -> bool:
    """Send a message to `:jobs`, which holds two."""
    return queues.put(":jobs", until, 2, body, now)


def test_messages_wait_in_order_until_they_are_asked_for() -> None:
    """First come, first served; and nothing is left of a channel that is empty."""
    queues = Queues(1000, print)
    worker = Worker(queues)
    assert put(queues, b"one")
    assert put(queues, b"two")
    worker.asks(1)
    worker.asks(2)
    assert worker.port.frames() == [answer(1, b"one"), answer(2, b"two")]
    assert len(queues) == 0


def test_who_waits_longest_gets_the_next_message() -> None:
    """A message goes to one of those who wait, and each request is answered once."""
    queues = Queues(1000, print)
    one, two = Worker(queues), Worker(queues)
    one.asks(1)
    two.asks(1)
    put(queues, b"first")
    put(queues, b"second")
    put(queues, b"third")
    assert one.port.frames() == [answer(1, b"first")]
    assert two.port.frames() == [answer(1, b"second")]
    assert one.peer.asking == {}
    assert len(queues) == 1


def test_a_channel_takes_no_more_than_its_capacity() -> None:
    """One too many is refused; what has expired takes no place."""
    queues = Queues(1000, print)
    assert put(queues, b"one", until=NOW + 1)
    assert put(queues, b"two")
    assert not put(queues, b"three")
    assert put(queues, b"three", now=NOW + 1)


def test_all_channels_together_take_no_more_than_so_many_bytes() -> None:
    """A full broker refuses, and has room again when something was received or has expired."""
    queues = Queues(10, print)
    assert put(queues, b"123456")
    assert not queues.put(":other", LATER, 2, b"12345", NOW)
    assert len(queues) == 1
    Worker(queues).asks(1)
    assert queues.put(":other", NOW + 1, 2, b"1234567890", NOW)
    assert not put(queues, b"1")
    queues.sweep(NOW + 1)
    assert put(queues, b"1")


def test_it_is_said_that_messages_are_refused_and_how_many() -> None:
    """Once, and then at each sweep that has something to tell; what a capacity refuses is not."""
    remarks: list[str] = []
    queues = Queues(10, remarks.append)
    assert put(queues, b"123456")
    for _ in range(3):
        assert not put(queues, b"12345")
    (remark,) = remarks
    assert "6 bytes wait" in remark
    assert "10 may (--channels-max-queue)" in remark
    queues.sweep(NOW)
    assert "3 messages were refused (--channels-max-queue)" in remarks[1]
    assert put(queues, b"1")
    assert not put(queues, b"1")
    queues.sweep(NOW)
    assert len(remarks) == 2


def test_who_gives_up_gets_nothing() -> None:
    """A request that was taken back is passed over; to take it back twice is no error."""
    queues = Queues(1000, print)
    one, two = Worker(queues), Worker(queues)
    one.asks(1)
    two.asks(5)
    queues.cancel(one.peer, 1)
    queues.cancel(one.peer, 1)
    put(queues, b"message")
    assert one.port.frames() == []
    assert two.port.frames() == [answer(5, b"message")]
    two.asks(6)
    queues.cancel(two.peer, 6)
    assert len(queues) == 0


def test_a_message_that_comes_back_is_the_next_one() -> None:
    """It was taken out for somebody who has left: it goes to who waits, or to the front."""
    queues = Queues(1000, print)
    worker = Worker(queues)
    put(queues, b"two")
    queues.put_back(":jobs", LATER, b"one", NOW)
    worker.asks(1)
    worker.asks(2)
    worker.asks(3)
    queues.put_back(":jobs", LATER, b"three", NOW)
    found = worker.port.frames()
    assert found == [answer(1, b"one"), answer(2, b"two"), answer(3, b"three")]
    queues.put_back(":jobs", NOW, b"too late", NOW)
    assert len(queues) == 0


def test_what_has_expired_is_not_received() -> None:
    """Not even when nobody has looked for it."""
    queues = Queues(1000, print)
    worker = Worker(queues)
    put(queues, b"old", until=NOW + 1)
    put(queues, b"new")
    worker.asks(1, NOW + 1)
    assert worker.port.frames() == [answer(1, b"new")]


def test_a_space_is_cleared_alone() -> None:
    """Messages of other spaces stay, and who waits goes on waiting."""
    queues = Queues(1000, print)
    worker = Worker(queues)
    put(queues, b"gone")
    queues.put("b:jobs", LATER, 2, b"stays", NOW)
    queues.ask(":others", worker.peer, 9, NOW)
    queues.clear(":")
    assert len(queues) == 2
    worker.asks(1)
    queues.ask("b:jobs", worker.peer, 2, NOW)
    assert [number for _, number, _ in worker.port.frames()] == [2]
