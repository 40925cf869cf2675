"""The links of several event loops, with a real broker: which of them is the home, and when."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING

import pytest

from daphne_supervisor.broker.address import VARIABLE
from daphne_supervisor.broker.frames import GROUP, MOMENT, PUBLISH, SUBSCRIBE, TURN, frame, named
from daphne_supervisor.channels.links import Links
from tests.support.brokers import BrokerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daphne_supervisor.channels.link import Link

KITCHEN = frame(SUBSCRIBE, 0, named(":kitchen") + TURN.pack(1))


class Owner:
    """A layer with a member in the kitchen, which notes what it hears."""

    client = "ds-0123456789abcdef"

    def __init__(self) -> None:
        """Have no link."""
        self.links = Links(self, threading.RLock())
        self.heard: list[bytes] = []

    def is_home(self, link: Link) -> bool:
        """Say whether it is."""
        return self.links.home is link

    def subscriptions(self) -> list[bytes]:
        """Return the frame that tells of the kitchen."""
        return [KITCHEN]

    def hear(self, link: Link, kind: int, payloads: Sequence[bytes]) -> None:
        """Note what was said in the kitchen."""
        del link
        assert kind == GROUP
        self.heard += [payload[-1:] for payload in payloads]

    def greeted(self, link: Link) -> None:
        """Pass it on."""
        self.links.greeted(link)

    async def claim(self) -> Link:
        """Receive in this loop."""
        link = self.links.claim()
        await link.connected()
        return link

    async def say(self, text: bytes) -> None:
        """Say something in the kitchen, from this loop."""
        payload = named(":kitchen") + MOMENT.pack(1e9) + text
        await self.links.here().ask(PUBLISH, payload, again=False)


@pytest.fixture
def owner() -> Iterator[Owner]:
    """Yield an owner, and a broker in a process of its own."""
    with BrokerProcess() as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, found.address)
        made = Owner()
        yield made
        made.links.close()
    gc.collect()  # what is connected in loops that are closed


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Yield an event loop that runs now and then."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


def test_a_loop_has_one_link_and_one_that_receives_is_the_home(owner: Owner) -> None:
    """One that only sends is none; the first that receives stays it."""

    async def test() -> None:
        link = owner.links.here()
        await link.connected()
        assert owner.links.home is None
        assert await owner.claim() is link
        assert owner.links.home is link
        assert await owner.claim() is link
        assert len(owner.links) == 1
        await owner.say(b"1")
        assert owner.heard == [b"1"]
        owner.links.close()

    asyncio.run(test())


def test_another_loop_does_not_take_the_home_from_one_that_runs(owner: Owner) -> None:
    """It sends over a link of its own, which is closed when it has ended."""

    async def test() -> None:
        home = await owner.claim()

        async def elsewhere() -> None:
            assert await owner.claim() is not home
            await owner.say(b"1")

        for _ in range(2):
            await asyncio.to_thread(asyncio.run, elsewhere())
        assert owner.links.home is home
        assert len(owner.links) == 2
        await owner.say(b"2")
        assert owner.heard == [b"1", b"1", b"2"]
        owner.links.close()

    asyncio.run(test())


def test_a_home_that_does_not_run_is_succeeded_and_nothing_is_lost(
    owner: Owner, loop: asyncio.AbstractEventLoop
) -> None:
    """What came over it is heard in the next one, be that a new link or one that was there."""
    first = loop.run_until_complete(owner.claim())

    async def new() -> None:
        await owner.say(b"1")
        assert owner.links.home is owner.links.here()
        await owner.claim()

    asyncio.run(new())  # its loop is closed then
    assert owner.heard == [b"1"]
    loop.run_until_complete(owner.say(b"2"))
    assert owner.links.home is first
    for text in (b"3", b"4"):  # the second succeeds one whose loop is closed
        asyncio.run(owner.say(text))
    assert owner.heard == [b"1", b"2", b"3", b"4"]
    assert len(owner.links) == 2


def test_all_are_closed_and_the_next_use_connects_again(owner: Owner) -> None:
    """Nobody is the home then."""

    async def test() -> None:
        link = await owner.claim()
        owner.links.close()
        assert len(owner.links) == 0
        assert owner.links.home is None
        assert await owner.claim() is not link
        owner.links.close()

    asyncio.run(test())
