"""The master's side of zygotes: real processes and channels, whose words the test speaks."""

from __future__ import annotations

import errno
import logging
import os
import selectors
import signal
import socket
from typing import TYPE_CHECKING, Self

import pytest

from daphne_supervisor.master.birth import fork
from daphne_supervisor.master.model import Exited, Reported, Spawned
from daphne_supervisor.master.nursery import Nursery, receive
from daphne_supervisor.master.zygote import request
from daphne_supervisor.messages import BootFailed, Born, Grown, Stillborn, encode
from tests.support.births import ended, line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daphne_supervisor.master.model import Event
    from daphne_supervisor.messages import ZygoteReport


def _pause() -> int:
    signal.pause()
    return 0


def _outlive(channel: socket.socket, last_words: bytes) -> int:
    """Be a process that says something at each SIGABRT, and goes on.

    The signal is waited for: a handler is not called when it comes just before a pause.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGABRT})
    channel.sendall(b"here\n")
    while True:
        signal.sigwait({signal.SIGABRT})
        channel.sendall(last_words)


class Cradle:
    """A nursery whose zygotes are processes that only wait; the test says what they would say."""

    def __init__(self) -> None:
        """Begin with no zygote."""
        self.selector = selectors.DefaultSelector()
        self.nursery = Nursery(self._fork, self._born, self.selector)
        self.zygotes: list[int] = []  # their process ids, in the order of their births
        self.far: list[socket.socket] = []  # their ends of the channels
        self.ends: list[tuple[socket.socket, socket.socket]] = []
        self.born: list[tuple[int, int]] = []
        self.dead: list[int] = []  # who died before it was known to be born
        self.refusal: OSError | None = None
        self.life: Callable[[], int] = _pause

    def __enter__(self) -> Self:
        """Be ready."""
        return self

    def __exit__(self, *_: object) -> None:
        """End who is left, and close everything."""
        self.nursery.end()
        self.nursery.close()
        self.selector.close()
        for near, far in self.ends:
            near.close()
            far.close()
        for channel in self.far:
            channel.close()

    def order(self, slot: int, generation: int = 1) -> socket.socket:
        """Order a worker, and return the master's end of its channel."""
        near, far = socket.socketpair()
        self.ends.append((near, far))
        self.nursery.order(slot, generation, far)
        return near

    def say(self, report: ZygoteReport | bytes, which: int = -1) -> list[Event]:
        """Let a zygote, the youngest by default, say something; return what comes of it."""
        self.far[which].send(report if isinstance(report, bytes) else encode(report))
        return self.hear()

    def hear(self) -> list[Event]:
        """Return what comes of all that was said."""
        return [event for key, _ in self.selector.select(0) for event in key.data()]

    def asked(self, which: int = -1) -> list[int]:
        """Return the slots that a zygote is asked for; the descriptors are closed."""
        slots = []
        while (packet := self._packet(which)) is not None:
            slots += [slot for slot in range(1, 100) if packet == request(slot)]
        return slots

    def hangs_up(self, which: int = -1) -> bool:
        """Say whether the master has hung up on a zygote."""
        return self.far[which].recv(100) == b""

    def die(self, which: int = -1, number: signal.Signals | None = signal.SIGKILL) -> list[Event]:
        """Let a zygote end, of `number` unless that was sent before; return what comes of it."""
        pid = self.zygotes[which]
        if number is not None:
            os.kill(pid, number)
        self.far[which].close()
        events = self.nursery.bury(pid, ended(pid))
        assert events is not None
        return events

    def _packet(self, which: int) -> bytes | None:
        try:
            packet, descriptors, _, _ = socket.recv_fds(self.far[which], 100, 1)
        except BlockingIOError:
            return None
        for descriptor in descriptors:
            os.close(descriptor)
        return packet or None

    def _fork(self, _: int, far: socket.socket) -> int:
        if self.refusal is not None:
            raise self.refusal
        kept = far.dup()
        kept.setblocking(False)
        self.far.append(kept)

        def abandon() -> None:
            self.nursery.close()
            far.close()

        self.zygotes.append(fork(self.life, abandon=abandon))
        return self.zygotes[-1]

    def _born(self, slot: int, pid: int) -> list[Event]:
        self.born.append((slot, pid))
        return [Exited(slot, "exit code 3")] if pid in self.dead else []


@pytest.fixture
def cradle() -> Iterator[Cradle]:
    """Return a cradle that is cleared at the end."""
    with Cradle() as cradle:
        yield cradle


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def test_one_zygote_bears_all_workers_of_a_generation(cradle: Cradle) -> None:
    """The first order forks it; another generation has another."""
    for slot in (1, 2):
        cradle.order(slot)
    assert len(cradle.zygotes) == 1
    cradle.order(3, generation=2)
    assert len(cradle.zygotes) == 2


def test_workers_wait_until_the_zygote_has_grown(cradle: Cradle) -> None:
    """Nothing is asked of a zygote that is still importing."""
    cradle.order(1)
    assert cradle.asked() == []
    assert cradle.say(Grown()) == []
    assert cradle.asked() == [1]


def test_workers_are_asked_for_one_by_one_in_their_order(cradle: Cradle) -> None:
    """However many are wanted, the channel holds one request: the kernel's queue is short."""
    for slot in range(1, 33):
        cradle.order(slot)
    cradle.say(Grown())
    for slot in range(1, 33):
        assert cradle.asked() == [slot]
        assert cradle.say(Born(slot, 1000 + slot)) == [Spawned(slot, 1000 + slot)]
    assert cradle.asked() == []
    assert cradle.born == [(slot, 1000 + slot) for slot in range(1, 33)]


def test_a_request_carries_the_workers_end_of_its_channel(cradle: Cradle) -> None:
    """What is written to the descriptor arrives at the master's end, and the master keeps none."""
    near = cradle.order(1)
    cradle.say(Grown())
    packet, descriptors, _, _ = socket.recv_fds(cradle.far[0], 100, 1)
    assert packet == request(1)
    with socket.socket(fileno=descriptors[0]) as end:
        end.sendall(b"here")
        assert near.recv(10) == b"here"
    assert near.recv(10) == b""


def test_a_grown_zygote_is_asked_at_once(cradle: Cradle) -> None:
    """A worker that replaces another does not wait for anything."""
    cradle.order(1)
    cradle.say(Grown())
    cradle.say(Born(1, 1001))
    cradle.asked()
    cradle.order(2)
    assert cradle.asked() == [2]


def test_a_worker_that_could_not_be_forked_is_dead(cradle: Cradle) -> None:
    """The system's own words say why, and the next worker has its turn."""
    cradle.order(1)
    cradle.order(2)
    cradle.say(Grown())
    assert cradle.say(Stillborn(1, "no room")) == [Exited(1, "could not be forked: no room")]
    assert cradle.asked() == [1, 2]


def test_a_process_may_be_unknown_only_while_one_is_asked_for(cradle: Cradle) -> None:
    """Before and after a birth every process that is reaped can be told a worker or not."""
    assert not cradle.nursery.expecting()
    cradle.order(1)
    assert not cradle.nursery.expecting()
    cradle.say(Grown())
    assert cradle.nursery.expecting()
    cradle.say(Born(1, 1001))
    assert not cradle.nursery.expecting()


def test_a_birth_that_nobody_selected_is_news(cradle: Cradle) -> None:
    """Who asks for the news learns of a birth before the worker itself is listened to."""
    cradle.order(1)
    cradle.say(Grown())
    cradle.far[0].send(encode(Born(1, 1001)))
    assert cradle.nursery.news() == [Spawned(1, 1001)]
    assert cradle.hear() == []


# Signals to the unborn


def test_a_worker_that_waits_is_cancelled_by_a_signal(cradle: Cradle) -> None:
    """It is told dead, its channel ends, and the zygote never hears of it."""
    near = cradle.order(1)
    cradle.nursery.signal(1, signal.SIGTERM)
    assert cradle.nursery.news() == [Exited(1, "was not born yet")]
    assert near.recv(10) == b""
    cradle.say(Grown())
    assert cradle.asked() == []


def test_a_signal_waits_for_the_worker_that_is_being_born(cradle: Cradle) -> None:
    """It is sent as soon as there is a process to send it to, and to no other."""
    worker = fork(_pause)
    cradle.order(1)
    cradle.order(2)
    cradle.say(Grown())
    cradle.nursery.signal(1, signal.SIGTERM)
    assert cradle.nursery.news() == []
    assert cradle.say(Born(1, worker)) == [Spawned(1, worker)]
    assert ended(worker) == "signal SIGTERM"
    other = fork(_pause)
    cradle.say(Born(2, other))
    os.kill(other, signal.SIGKILL)
    assert ended(other) == "signal SIGKILL"


def test_no_signal_is_sent_to_a_worker_that_died_at_birth(cradle: Cradle) -> None:
    """It is reaped, so its process id may be somebody else's by now."""
    innocent = fork(_pause)
    cradle.dead.append(innocent)
    cradle.order(1)
    cradle.say(Grown())
    cradle.nursery.signal(1, signal.SIGTERM)
    assert cradle.say(Born(1, innocent)) == [Spawned(1, innocent), Exited(1, "exit code 3")]
    os.kill(innocent, signal.SIGKILL)
    assert ended(innocent) == "signal SIGKILL"


def test_a_signal_for_a_stillborn_worker_is_forgotten(cradle: Cradle) -> None:
    """The next worker in its slot does not inherit it."""
    cradle.order(1)
    cradle.say(Grown())
    cradle.nursery.signal(1, signal.SIGTERM)
    cradle.say(Stillborn(1, "no room"))
    cradle.order(1)
    worker = fork(_pause)
    cradle.say(Born(1, worker))
    os.kill(worker, signal.SIGKILL)
    assert ended(worker) == "signal SIGKILL"


def test_force_is_used_against_the_zygote_that_hangs_and_once(cradle: Cradle) -> None:
    """However many workers wait, it gets one SIGABRT: a second would cut the first one's stacks."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        cradle.life = lambda: _outlive(theirs, b"aborted\n")
        cradle.order(1)
        cradle.order(2)
        theirs.close()
        assert line(ours) == "here\n"
        cradle.nursery.signal(1, signal.SIGABRT)
        assert line(ours) == "aborted\n"
        cradle.nursery.signal(2, signal.SIGABRT)
        assert cradle.nursery.news() == []
        cradle.nursery.signal(2, signal.SIGKILL)
        died = "its zygote died: signal SIGKILL"
        assert cradle.die(number=None) == [Exited(1, died), Exited(2, died)]
        assert line(ours) == ""


def test_force_against_the_one_that_is_being_born_hits_the_zygote(cradle: Cradle) -> None:
    """A zygote may also hang when it has grown, in a hook."""
    cradle.order(1)
    cradle.say(Grown())
    cradle.nursery.signal(1, signal.SIGABRT)
    assert cradle.die(number=None) == [Exited(1, "its zygote died: signal SIGABRT")]


def test_a_signal_to_nobody_is_nothing(cradle: Cradle) -> None:
    """A slot that is not wanted here is passed over."""
    cradle.order(1)
    cradle.nursery.signal(7, signal.SIGKILL)
    cradle.nursery.signal(7, signal.SIGTERM)
    assert cradle.nursery._mothers[1].sent == set()


# Deaths


def test_a_stranger_is_not_buried(cradle: Cradle) -> None:
    """The nursery knows its own."""
    cradle.order(1)
    assert cradle.nursery.bury(os.getpid(), "exit code 0") is None


def test_a_zygote_that_dies_growing_takes_its_workers_along(
    cradle: Cradle, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is forked in its place: that is for the supervisor's back-off to decide."""
    near = cradle.order(1)
    died = "its zygote died: signal SIGKILL"
    assert cradle.die() == [Exited(1, died)]
    assert near.recv(10) == b""
    assert len(cradle.zygotes) == 1
    assert f"zygote gen 1 pid {cradle.zygotes[0]}: gone, signal SIGKILL" in caplog.text
    cradle.order(1)
    assert len(cradle.zygotes) == 2


def test_a_zygote_that_cannot_import_says_why_for_each_worker(
    cradle: Cradle, caplog: pytest.LogCaptureFixture
) -> None:
    """What it says is what the workers would have said, and its end is no surprise."""
    cradle.order(1)
    cradle.order(2)
    failure = BootFailed("no such module", "Traceback")
    assert cradle.say(failure) == []
    with caplog.at_level(logging.WARNING):
        events = cradle.die(number=signal.SIGTERM)
    assert events == [
        Reported(1, failure),
        Exited(1, "its zygote died: signal SIGTERM"),
        Reported(2, failure),
        Exited(2, "its zygote died: signal SIGTERM"),
    ]
    assert caplog.text == ""


def test_the_last_words_of_a_zygote_are_heard(cradle: Cradle) -> None:
    """A worker that was born in the last moment lives, whatever was read first."""
    cradle.order(1)
    cradle.say(Grown())
    assert cradle.asked() == [1]
    cradle.far[0].send(encode(Born(1, 1001)))
    assert cradle.die() == [Spawned(1, 1001)]


def test_a_zygote_that_has_borne_is_replaced_at_once(cradle: Cradle) -> None:
    """Whoever is being born goes with it, and the next order finds a zygote that grows already."""
    cradle.order(1)
    cradle.say(Grown())
    cradle.say(Born(1, 1001))
    cradle.order(2)
    assert cradle.die() == [Exited(2, "its zygote died: signal SIGKILL")]
    assert len(cradle.zygotes) == 2
    cradle.order(2)
    assert len(cradle.zygotes) == 2
    cradle.say(Grown())
    assert cradle.asked() == [2]


def test_a_zygote_of_no_use_is_replaced_when_it_is_wanted(cradle: Cradle) -> None:
    """One that dies whenever it has grown is not forked in a circle."""
    cradle.order(1)
    cradle.say(Grown())
    cradle.say(Born(1, 1001))
    cradle.die()
    cradle.say(Grown())
    assert cradle.die() == []
    assert len(cradle.zygotes) == 2
    cradle.order(2)
    assert len(cradle.zygotes) == 3


def test_a_replacement_that_cannot_be_forked_waits_for_the_next_order(
    cradle: Cradle, caplog: pytest.LogCaptureFixture
) -> None:
    """No room for a process now does not mean no room later."""
    cradle.order(1)
    cradle.say(Grown())
    cradle.say(Born(1, 1001))
    cradle.refusal = OSError(errno.EAGAIN, "no room")
    assert cradle.die() == []
    assert "zygote gen 1: could not be forked: no room" in caplog.text
    cradle.refusal = None
    cradle.order(2)
    assert len(cradle.zygotes) == 2


def test_an_order_that_needs_a_fork_that_fails_is_refused(cradle: Cradle) -> None:
    """The caller hears of it, nothing stays open, and the next order tries again."""
    cradle.refusal = OSError(errno.EAGAIN, "no room")
    before = descriptors()
    near, far = socket.socketpair()
    with near, far:
        with pytest.raises(OSError, match="no room"):
            cradle.nursery.order(1, 1, far)
        assert far.fileno() != -1  # it is still the caller's
    assert descriptors() == before
    cradle.refusal = None
    cradle.order(1)
    assert len(cradle.zygotes) == 1


def test_an_order_to_a_dead_zygote_ends_with_its_burial(cradle: Cradle) -> None:
    """The channel is broken, but nobody is lost."""
    cradle.order(1)
    cradle.say(Grown())
    cradle.say(Born(1, 1001))
    cradle.far[0].close()
    cradle.order(2)
    assert cradle.hear() == []
    assert cradle.hear() == []  # its end is read once
    os.kill(cradle.zygotes[0], signal.SIGKILL)
    events = cradle.nursery.bury(cradle.zygotes[0], ended(cradle.zygotes[0]))
    assert events == [Exited(2, "its zygote died: signal SIGKILL")]


@pytest.mark.parametrize("words", [b"nonsense\n", b'{"kind":"ready"}\n', b"\xff\n"])
def test_nonsense_ends_the_zygote_and_not_the_master(
    cradle: Cradle, words: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A preloaded application may write anywhere; who cannot be understood is replaced."""
    cradle.order(1)
    assert cradle.say(words) == []
    assert "sent what is no report" in caplog.text
    assert cradle.die(number=None) == [Exited(1, "its zygote died: signal SIGKILL")]


def test_nonsense_as_last_words_is_survived(cradle: Cradle) -> None:
    """The process is reaped then, so nobody is killed for it."""
    cradle.order(1)
    cradle.far[0].send(b"nonsense\n")
    assert cradle.die() == [Exited(1, "its zygote died: signal SIGKILL")]
    assert not cradle.nursery._everyone()


# Retirement


def test_a_retired_zygote_is_hung_up_on(cradle: Cradle, caplog: pytest.LogCaptureFixture) -> None:
    """It leaves by itself, is not replaced, and its end is no surprise."""
    cradle.order(1)
    cradle.order(2, generation=2)
    cradle.say(Grown(), 0)
    assert cradle.asked(0) == [1]
    cradle.say(Born(1, 1001), 0)
    cradle.nursery.keep(frozenset({2}))
    assert cradle.hangs_up(0)
    with caplog.at_level(logging.WARNING):
        assert cradle.die(0, signal.SIGTERM) == []
    assert caplog.text == ""
    assert [mother.generation for mother in cradle.nursery._everyone()] == [2]


def test_who_is_being_born_is_born_by_a_retired_zygote(cradle: Cradle) -> None:
    """It is known, and gets the signals that it is owed; who waited behind it is cancelled."""
    worker = fork(_pause)
    cradle.order(1)
    cradle.order(2)
    cradle.say(Grown())
    cradle.nursery.keep(frozenset())
    assert cradle.nursery.news() == [Exited(2, "was not born yet")]
    assert cradle.nursery.expecting()
    cradle.nursery.signal(1, signal.SIGTERM)
    assert cradle.say(Born(1, worker)) == [Spawned(1, worker)]
    assert ended(worker) == "signal SIGTERM"


def test_a_zygote_that_is_retired_while_it_grows_is_killed(cradle: Cradle) -> None:
    """It may hang, and has nothing to lose."""
    near = cradle.order(1)
    cradle.nursery.keep(frozenset({7}))
    assert cradle.nursery.news() == [Exited(1, "was not born yet")]
    assert near.recv(10) == b""
    assert cradle.die(number=None) == []


def test_a_zygote_that_writes_its_stacks_is_left_to_it(cradle: Cradle) -> None:
    """Its workers end with it or, when it does not end, when they are killed."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        cradle.life = lambda: _outlive(theirs, b"writing\n")
        cradle.order(1)
        assert line(ours) == "here\n"
        cradle.nursery.signal(1, signal.SIGABRT)
        assert line(ours) == "writing\n"
        cradle.nursery.keep(frozenset())
        assert cradle.nursery.news() == []
        assert cradle.nursery._everyone()[0].sent == {signal.SIGABRT}
        cradle.nursery.signal(1, signal.SIGKILL)
        assert cradle.die(number=None) == [Exited(1, "its zygote died: signal SIGKILL")]


def test_a_generation_can_be_wanted_again(cradle: Cradle) -> None:
    """A zygote that is on its way out and a new one of the same generation are told apart."""
    cradle.order(1)
    cradle.nursery.keep(frozenset())
    cradle.order(1)
    assert cradle.nursery.news() == [Exited(1, "was not born yet")]
    assert cradle.die(0, None) == []
    assert cradle.say(Grown()) == []
    assert cradle.asked() == [1]


def test_retiring_the_dead_is_no_error(cradle: Cradle) -> None:
    """A zygote may have died, and not been reaped yet."""
    cradle.order(1)
    cradle.say(Grown())
    cradle.far[0].close()
    cradle.nursery.keep(frozenset())
    assert cradle.die(0) == [Exited(1, "its zygote died: signal SIGKILL")]


def test_logs_are_reopened_by_the_zygotes_that_will_bear(cradle: Cradle) -> None:
    """Each present zygote is told, for the workers to come."""
    cradle.order(1)
    cradle.order(2, generation=2)
    cradle.nursery.keep(frozenset({2}))
    cradle.nursery.reopen()
    told = {mother.generation: mother.sent for mother in cradle.nursery._everyone()}
    assert told == {1: {signal.SIGKILL}, 2: {signal.SIGUSR1}}


def test_the_end_leaves_no_process_and_no_descriptor() -> None:
    """Grown, growing, retired and dead zygotes, and those who wait for them."""
    before = descriptors()
    with Cradle() as cradle:
        for slot in (1, 2, 3):
            cradle.order(slot, generation=slot)
        cradle.say(Grown(), 0)
        cradle.nursery.keep(frozenset({1, 2}))
        os.kill(cradle.zygotes[1], signal.SIGKILL)
        cradle.nursery.end()
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        cradle.nursery.end()  # they are not there any more, which is what was wanted
    assert descriptors() == before


def test_reading_a_channel() -> None:
    """Nothing yet, something, the end; a reset is an end as good as any."""
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        assert receive(near) is None
        far.sendall(b"something")
        assert receive(near) == b"something"
        near.send(b"unread")
        far.close()
        assert receive(near) == b""
        assert receive(near) == b""
