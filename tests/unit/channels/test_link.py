"""The link of an event loop to the broker, which the test plays."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import TYPE_CHECKING, Any

import pytest

from daphne_supervisor.broker.frames import (
    ACK,
    CANCEL,
    GIVE_BACK,
    GROUP,
    HELLO,
    MESSAGE,
    MOMENT,
    PUBLISH,
    RECEIVE,
    REFUSED,
    SEND,
    SUBSCRIBE,
    UNSUBSCRIBE,
    frame,
    named,
)
from daphne_supervisor.channels.link import Link
from tests.support.brokers import PlayedBroker
from tests.support.loops import turns, until

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

LETTER = named(":jobs") + MOMENT.pack(1e9) + b"x"


class Owner:
    """A layer that notes what it hears."""

    client = "ds-0123456789abcdef"

    def __init__(self) -> None:
        """Have no group, and no home."""
        self.home = False
        self.heard: list[tuple[int, bytes]] = []
        self.greetings = 0
        self.groups: list[bytes] = []

    def is_home(self, link: Link) -> bool:
        """Say what the test says."""
        del link
        return self.home

    def subscriptions(self) -> list[bytes]:
        """Return what the test says."""
        return self.groups

    def greeted(self, link: Link) -> None:
        """Count it."""
        del link
        self.greetings += 1

    def hear(self, link: Link, kind: int, payloads: list[bytes]) -> None:
        """Note it."""
        del link
        self.heard += [(kind, payload) for payload in payloads]


class Stage:
    """A link, its owner, and the broker that the test plays."""

    def __init__(self, patience: float = 10.0) -> None:
        """Be ready."""
        self.broker = PlayedBroker()
        self.owner = Owner()
        self._patience = patience

    def run(self, test: Callable[[Link], Coroutine[Any, Any, None]]) -> None:
        """Run `test` in an event loop, with a link that is not connected yet."""

        async def main() -> None:
            loop = asyncio.get_running_loop()
            link = Link(loop, self.broker.address, self.owner, self._patience)
            try:
                await test(link)
            finally:
                link.close()

        with self.broker:
            asyncio.run(main())

    async def up(self, link: Link) -> None:
        """Connect."""
        link.greet()
        self.broker.accept()
        await link.connected()


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Yield a stage."""
    yield Stage()
    gc.collect()  # what a test leaves open is its own fault


def asked(link: Link, kind: int, *, again: bool = False) -> asyncio.Task[Any]:
    """Begin to ask."""
    return asyncio.create_task(link.ask(kind, b"", again=again))


def test_a_question_gets_its_own_answer(stage: Stage) -> None:
    """Several may be open; each answer goes to its number, in any order."""

    async def test(link: Link) -> None:
        await stage.up(link)
        one, two = asked(link, PUBLISH), asked(link, SEND)
        await turns(5)
        first, second = stage.broker.hear(), stage.broker.hear()
        assert (first[0], second[0]) == (PUBLISH, SEND)
        stage.broker.says(frame(REFUSED, second[1]) + frame(ACK, first[1]))
        assert (await one, await two) == ((ACK, b""), (REFUSED, b""))
        assert "up, 0 asked" in repr(link)
        assert not link.gone

    stage.run(test)


def test_a_greeting_says_who_we_are_and_the_home_says_its_groups(stage: Stage) -> None:
    """A link becomes the home by a second greeting; questions wait until it is answered."""
    stage.owner.groups = [frame(SUBSCRIBE, 0, b"kitchen")]

    async def test(link: Link) -> None:
        link.greet()
        stage.broker.accept(greet=False)
        name = named(stage.owner.client)
        assert stage.broker.hear() == (HELLO, 1, name + b"\0")
        stage.owner.home = True
        link.greet()
        assert stage.broker.hear() == (HELLO, 2, name + b"\1")
        assert stage.broker.hear() == (SUBSCRIBE, 0, b"kitchen")
        stage.broker.says(frame(ACK, 1))
        question = asked(link, PUBLISH)
        await turns(20)
        assert "down" in repr(link)
        stage.broker.says(frame(ACK, 2))
        await until(lambda: "up" in repr(link))
        await until(lambda: "1 asked" in repr(link))
        stage.broker.hear()
        stage.broker.says(frame(ACK, 3))
        assert await question == (ACK, b"")
        assert stage.owner.greetings == 1
        link.greet()
        assert "down" in repr(link)

    stage.run(test)


def test_without_a_broker_a_question_is_an_error_in_the_end() -> None:
    """It names the address; a broker that comes later is found."""
    stage = Stage(patience=0.05)

    async def test(link: Link) -> None:
        link.greet()
        with pytest.raises(ConnectionError, match=f"no broker at {stage.broker.address} within"):
            await link.ask(PUBLISH, b"", again=False)
        stage.broker.accept()
        link.patience = 10.0
        await link.connected()

    stage.run(test)


def test_an_address_where_nobody_listens_is_tried_again(stage: Stage) -> None:
    """Until the link is not wanted any more."""

    async def test(link: Link) -> None:
        stage.broker.listener.close()
        link.greet()
        link.greet()
        link.tell(UNSUBSCRIBE, b"")
        assert "down" in repr(link)
        link.close()
        link.retry()

    stage.run(test)


def test_when_the_broker_ends_it_is_connected_to_again(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """What may be asked twice is asked again; what may not has no answer. The log says so."""
    caplog.set_level(logging.WARNING)

    async def test(link: Link) -> None:
        await stage.up(link)
        once, again = asked(link, PUBLISH), asked(link, RECEIVE, again=True)
        await turns(5)
        assert [stage.broker.hear()[0] for _ in range(2)] == [PUBLISH, RECEIVE]
        stage.broker.hangs_up()
        await until(once.done)
        assert await once is None
        stage.broker.accept()
        await link.connected()
        await turns(5)
        kind, number, _ = stage.broker.hear()
        assert kind == RECEIVE
        stage.broker.says(frame(MESSAGE, number, LETTER))
        assert await again == (MESSAGE, LETTER)
        assert "broker has ended" in caplog.text

    stage.run(test)


def test_a_broker_that_ends_before_it_has_answered_the_greeting(stage: Stage) -> None:
    """The next one is greeted; who waits goes on waiting."""

    async def test(link: Link) -> None:
        link.greet()
        stage.broker.accept(greet=False)
        question = asked(link, PUBLISH)
        await turns(5)
        stage.broker.hangs_up()
        await turns(20)
        stage.broker.accept(greet=False)
        kind, number, _ = stage.broker.hear()
        while kind != HELLO or number == 1:
            kind, number, _ = stage.broker.hear()
        stage.broker.says(frame(ACK, number))
        await link.connected()
        await turns(5)
        assert stage.broker.hear()[0] == PUBLISH
        question.cancel()

    stage.run(test)


def test_who_gives_up_waiting_takes_the_request_back(stage: Stage) -> None:
    """A message that comes all the same is given back; another answer is nobody's."""

    async def test(link: Link) -> None:
        await stage.up(link)
        waiting, other = asked(link, RECEIVE, again=True), asked(link, PUBLISH)
        await turns(5)
        number, second = stage.broker.hear()[1], stage.broker.hear()[1]
        waiting.cancel()
        other.cancel()
        await turns(5)
        assert stage.broker.hear() == (CANCEL, number, b"")
        stage.broker.says(frame(MESSAGE, number, LETTER) + frame(ACK, second))
        await turns(20)
        assert stage.broker.hear() == (GIVE_BACK, 0, LETTER)

    stage.run(test)


def test_a_message_that_comes_at_the_last_moment_is_given_back(stage: Stage) -> None:
    """The task was cancelled when its answer was there already."""

    async def test(link: Link) -> None:
        await stage.up(link)
        waiting = asked(link, RECEIVE, again=True)
        await turns(5)
        _, number, _ = stage.broker.hear()
        stage.broker.says(frame(MESSAGE, number, LETTER))
        link.read()
        waiting.cancel()
        await turns(5)
        assert waiting.cancelled()
        assert stage.broker.hear() == (GIVE_BACK, 0, LETTER)

    stage.run(test)


def test_who_gives_up_when_the_broker_has_just_ended(stage: Stage) -> None:
    """There is nothing to take back, and nobody to tell."""

    async def test(link: Link) -> None:
        await stage.up(link)
        waiting = asked(link, RECEIVE, again=True)
        await turns(5)
        stage.broker.hear()
        early = asked(link, PUBLISH)
        await turns(5)
        early.cancel()
        stage.broker.hangs_up(listener=True)
        link.read()
        waiting.cancel()
        await turns(5)
        assert waiting.cancelled()
        assert early.cancelled()

    stage.run(test)


def test_news_are_handled_a_few_at_a_time(stage: Stage) -> None:
    """Others have a turn in between, nothing is lost, and the order stays."""

    async def test(link: Link) -> None:
        await stage.up(link)
        stage.broker.says(b"".join(frame(GROUP, 0, b"%d" % n) for n in range(50)))
        link.read()
        assert len(stage.owner.heard) == 16
        await turns()
        assert len(stage.owner.heard) in {32, 48}
        await until(lambda: len(stage.owner.heard) == 50)
        assert stage.owner.heard == [(GROUP, b"%d" % n) for n in range(50)]
        stage.broker.says(frame(GROUP, 0, b"more"))
        await until(lambda: len(stage.owner.heard) == 51)

    stage.run(test)


def test_news_of_a_broker_that_has_ended_are_dropped(stage: Stage) -> None:
    """The new one begins anew."""

    async def test(link: Link) -> None:
        await stage.up(link)
        stage.broker.says(b"".join(frame(GROUP, 0, b"%d" % n) for n in range(50)))
        link.read()
        link.end()
        await turns(5)
        assert len(stage.owner.heard) == 16
        stage.broker.accept()

    stage.run(test)


def test_what_the_kernel_does_not_take_at_once_leaves_later(stage: Stage) -> None:
    """In order, and without waiting for the loop when there is room."""

    async def test(link: Link) -> None:
        await stage.up(link)
        payload = bytes(range(256)) * 4096
        link.tell(UNSUBSCRIBE, b"first")
        assert stage.broker.hear() == (UNSUBSCRIBE, 0, b"first")
        link.tell(SEND, payload)
        link.tell(SEND, payload)
        link.write_on()
        link.tell(UNSUBSCRIBE, b"last")
        heard = await asyncio.to_thread(lambda: [stage.broker.hear() for _ in range(3)])
        assert heard == [(SEND, 0, payload), (SEND, 0, payload), (UNSUBSCRIBE, 0, b"last")]

    stage.run(test)


def test_a_write_to_a_broker_that_has_ended_is_no_error(stage: Stage) -> None:
    """That it has ended is read a moment later. To read nothing is no end."""

    async def test(link: Link) -> None:
        await stage.up(link)
        link.read()
        assert "up" in repr(link)
        stage.broker.hangs_up()
        link.tell(UNSUBSCRIBE, b"x")
        link.tell(UNSUBSCRIBE, b"x")
        await until(lambda: "down" in repr(link))

    stage.run(test)


def test_a_link_that_is_closed_hangs_up(stage: Stage) -> None:
    """Also when its loop was closed before it."""
    kept: list[Link] = []

    async def test(link: Link) -> None:
        await stage.up(link)
        question = asked(link, PUBLISH)
        await turns(5)
        link.close()
        link.close()
        assert await question is None
        assert stage.broker.ended()

    stage.run(test)

    other = Stage()

    async def keep() -> None:
        link = Link(asyncio.get_running_loop(), other.broker.address, other.owner)
        await other.up(link)
        kept.append(link)

    with other.broker:
        asyncio.run(keep())
        assert kept[0].gone
        kept[0].retry()
        kept[0].close()
        assert other.broker.ended()


def test_what_has_come_to_a_loop_that_is_closed_can_be_had(stage: Stage) -> None:
    """The kernel has kept it: news, but no answers, since nobody waits for them."""

    async def leave() -> Link:
        link = Link(asyncio.get_running_loop(), stage.broker.address, stage.owner)
        await stage.up(link)
        return link

    with stage.broker:
        link = asyncio.run(leave())
        stage.broker.says(frame(GROUP, 0, b"1") + frame(ACK, 7) + frame(GROUP, 0, b"2"))
        link.salvage()
        assert stage.owner.heard == [(GROUP, b"1"), (GROUP, b"2")]
        stage.broker.hangs_up()
        link.salvage()
        link.close()


def test_a_link_that_is_forgotten_hangs_up(stage: Stage) -> None:
    """With the loop that it was made in; nobody has to close anything."""

    async def forget() -> None:
        link = Link(asyncio.get_running_loop(), stage.broker.address, stage.owner)
        await stage.up(link)

    with stage.broker:
        asyncio.run(forget())
        gc.collect()
        assert stage.broker.ended()
