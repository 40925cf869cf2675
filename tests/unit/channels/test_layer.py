"""The channel layer: what Channels and channels_redis promise, tried with a real broker.

Two layers are two processes, as far as the broker can tell.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull, MessageTooLarge

from daphne_supervisor.broker import frames
from daphne_supervisor.broker.address import VARIABLE
from daphne_supervisor.broker.frames import MOMENT, named
from daphne_supervisor.channels import LocalChannelLayer
from daphne_supervisor.channels.messages import pack
from daphne_supervisor.master.birth import fork
from tests.support.births import ended
from tests.support.brokers import BrokerProcess
from tests.support.loops import turns

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

SECONDS = 10


@pytest.fixture(autouse=True)
def broker() -> Iterator[BrokerProcess]:
    """Yield a broker in a process of its own, which all layers of a test use."""
    with BrokerProcess() as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, found.address)
        yield found
    gc.collect()  # what is connected in loops that are closed


class Pair:
    """Two layers in one space that nobody else is in."""

    def __init__(self, **config: Any) -> None:
        """Make both with the same CONFIG."""
        space = uuid.uuid4().hex
        self.one = LocalChannelLayer(prefix=space, **config)
        self.two = LocalChannelLayer(prefix=space, **config)


def run(test: Callable[[Pair], Coroutine[Any, Any, None]], **config: Any) -> None:
    """Run `test` with two layers, for ten seconds at most."""

    async def main() -> None:
        pair = Pair(**config)
        async with asyncio.timeout(SECONDS):
            await test(pair)
        await pair.one.close()
        await pair.two.close_pools()

    asyncio.run(main())


async def fill(layer: LocalChannelLayer, channel: str) -> int:
    """Send to a channel until it is full; return how many messages it has taken."""
    for sent in range(1000):
        try:
            await layer.send(channel, {})
        except ChannelFull:
            return sent
    return 1000


async def nothing(layer: LocalChannelLayer, channel: str) -> bool:
    """Say whether nothing can be received; what was sent before has arrived."""
    await layer.group_send("nobody", {})
    receiving = asyncio.create_task(layer.receive(channel))
    await layer.group_send("nobody", {})
    await turns()
    if receiving.done():
        return False
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
    return True


# Channels


def test_a_message_arrives_with_all_that_it_may_contain() -> None:
    """Bytes and text, numbers, lists and dicts; and it is a copy."""

    async def test(pair: Pair) -> None:
        sent = {"type": "x", "bytes": b"\xff", "list": [1, 2.5, None, True], "dict": {"a": "ä"}}
        for channel in ("common", await pair.one.new_channel()):
            await pair.two.send(channel, sent)
            await pair.one.send(channel, sent)
            for _ in range(2):
                received = await pair.one.receive(channel)
                assert received == sent
                received["list"].append("mine")

    run(test)


def test_messages_arrive_in_their_order() -> None:
    """Whoever sends them, and wherever the queue is."""

    async def test(pair: Pair) -> None:
        for channel in ("common", await pair.one.new_channel()):
            for sender in (pair.one, pair.two):
                for number in range(5):
                    await sender.send(channel, {"n": number})
                found = [(await pair.one.receive(channel))["n"] for _ in range(5)]
                assert found == list(range(5))

    run(test)


def test_new_channels_are_valid_and_different() -> None:
    """Their names begin as was asked, and belong to one process."""

    async def test(pair: Pair) -> None:
        names = {await pair.one.new_channel() for _ in range(20)}
        assert len(names) == 20
        name = await pair.one.new_channel("chat")
        assert name.startswith("chat.")
        assert pair.one.require_valid_channel_name(name)
        assert pair.one.non_local_name(name) == pair.one.non_local_name(
            name.partition("!")[0] + "!"
        )
        with pytest.raises(TypeError, match="Channel name"):
            await pair.one.new_channel("a" * 70)

    run(test)


def test_a_common_channel_gives_each_message_to_one_receiver() -> None:
    """Any process may receive, and none gets what another one has got."""

    async def test(pair: Pair) -> None:
        tasks = [asyncio.create_task(layer.receive("jobs")) for layer in (pair.one, pair.two)]
        await turns()
        for number in range(2):
            await pair.one.send("jobs", {"n": number})
        assert sorted([(await task)["n"] for task in tasks]) == [0, 1]
        assert await nothing(pair.one, "jobs")

    run(test)


@pytest.mark.parametrize("sender", ["one", "two"])
def test_a_channel_has_a_capacity(sender: str) -> None:
    """`send` raises beyond it, and works again when there is room."""

    async def test(pair: Pair) -> None:
        layer: LocalChannelLayer = getattr(pair, sender)
        for channel in ("common", await pair.one.new_channel()):
            sent = await fill(layer, channel)
            if channel == "common" or layer is pair.one:
                assert sent == 3
            for _ in range(3):
                await pair.one.receive(channel)
            await pair.one.group_send("nobody", {})
            await layer.send(channel, {})

    run(test, capacity=3)


def test_capacities_may_differ_by_channel() -> None:
    """The first pattern that fits counts; they are compared with names without the prefix."""

    async def test(pair: Pair) -> None:
        own = await pair.one.new_channel("chat")
        for channel, capacity in (("common", 2), ("jobs.large", 1), (own, 3)):
            for _ in range(capacity):
                await pair.one.send(channel, {})
            with pytest.raises(ChannelFull):
                await pair.one.send(channel, {})

    run(test, capacity=2, channel_capacity={"jobs.*": 1, "chat.*": 3})


def test_messages_expire() -> None:
    """Those that nobody has received in time are gone, in a channel as by a group."""

    async def test(pair: Pair) -> None:
        own = await pair.one.new_channel()
        await pair.one.group_add("kitchen", own)
        for layer in (pair.one, pair.two):
            layer._clock = lambda: time.monotonic() - 100
            await layer.send("common", {})
            await layer.send(own, {})
            await layer.group_send("kitchen", {})
            layer._clock = time.monotonic
        assert await nothing(pair.one, own)
        assert await nothing(pair.one, "common")

    run(test, expiry=50)


def test_what_has_expired_is_swept_out_and_makes_room() -> None:
    """Nobody receives from the channel, and its senders are told all the same."""

    async def test(pair: Pair) -> None:
        own = await pair.one.new_channel()
        assert await fill(pair.two, own) >= 2
        pair.one._clock = lambda: time.monotonic() + 100
        await pair.one.send(await pair.one.new_channel(), {})
        pair.one._clock = time.monotonic
        await pair.one.group_send("nobody", {})
        await pair.two.send(own, {})
        assert await pair.one.receive(own) == {}

    run(test, capacity=2)


def test_a_receiver_that_is_cancelled_loses_no_message() -> None:
    """Whether it was cancelled before the message came, or at the same moment."""

    async def test(pair: Pair) -> None:
        for channel in ("common", await pair.one.new_channel()):
            waiting = asyncio.create_task(pair.one.receive(channel))
            await pair.one.group_send("nobody", {})
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await pair.two.send(channel, {"n": 1})
            assert await pair.one.receive(channel) == {"n": 1}
        waiting = asyncio.create_task(pair.one.receive(channel))
        await turns()
        await pair.one.send(channel, {"n": 2})
        waiting.cancel()
        assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], BaseException)
        assert await pair.one.receive(channel) == {"n": 2}
        waiting = asyncio.create_task(pair.one.receive(channel))
        await turns()
        waiting.cancel()
        await pair.one.send(channel, {"n": 3})
        await asyncio.gather(waiting, return_exceptions=True)
        assert await pair.one.receive(channel) == {"n": 3}

    run(test)


def test_many_receivers_of_one_channel_get_one_message_each() -> None:
    """As tasks of one process, or with cancelled ones among them."""

    async def test(pair: Pair) -> None:
        channel = await pair.one.new_channel()
        tasks = [asyncio.create_task(pair.one.receive(channel)) for _ in range(6)]
        await turns()
        for task in tasks[::2]:
            task.cancel()
        for number in range(3):
            await pair.two.send(channel, {"n": number})
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [one["n"] for one in found if isinstance(one, dict)] == [0, 1, 2]

    run(test)


# Groups


def test_a_group_gets_a_message_once_each_wherever_its_members_are() -> None:
    """Members here and there, own channels and common ones; who has left gets nothing."""

    async def test(pair: Pair) -> None:
        mine, gone, theirs = [await layer.new_channel() for layer in (pair.one, pair.one, pair.two)]
        for layer, channel in ((pair.one, mine), (pair.one, gone), (pair.two, theirs)):
            await layer.group_add("kitchen", channel)
        await pair.one.group_add("kitchen", "common")
        await pair.one.group_add("kitchen", mine)
        await pair.one.group_discard("kitchen", gone)
        for sender in (pair.one, pair.two):
            await sender.group_send("kitchen", {"n": 1})
            assert await pair.one.receive(mine) == {"n": 1}
            assert await pair.two.receive(theirs) == {"n": 1}
            assert await pair.one.receive("common") == {"n": 1}
        assert await nothing(pair.one, mine)
        assert await nothing(pair.one, gone)
        await pair.two.group_discard("kitchen", "common")
        await pair.one.group_discard("kitchen", mine)
        await pair.one.group_discard("kitchen", mine)
        await pair.two.group_send("kitchen", {"n": 2})
        assert await pair.two.receive(theirs) == {"n": 2}
        assert await nothing(pair.one, mine)
        assert await nothing(pair.one, "common")
        await pair.one.group_add("kitchen", mine)
        await pair.two.group_send("kitchen", {"n": 3})
        assert await pair.one.receive(mine) == {"n": 3}

    run(test)


def test_who_changes_a_message_changes_nobody_elses() -> None:
    """Receivers in one process have nothing in common, whatever is in the message."""

    async def test(pair: Pair) -> None:
        channels = [await pair.one.new_channel() for _ in range(3)]
        for channel in channels:
            await pair.one.group_add("kitchen", channel)
        for content in ("tea", ["tea"], {"drink": "tea"}):
            await pair.two.group_send("kitchen", {"n": 1, "content": content})
            for channel in channels:
                message = await pair.one.receive(channel)
                assert message == {"n": 1, "content": content}
                message["n"] = 2
                if not isinstance(content, str):
                    message["content"].clear()

    run(test)


def test_messages_to_groups_keep_their_order_when_they_arrive_together() -> None:
    """Each receiver is woken once, and gets all of them as they were sent."""

    async def test(pair: Pair) -> None:
        channel = await pair.one.new_channel()
        for group in ("kitchen", "garden"):
            await pair.one.group_add(group, channel)
        waiting = asyncio.create_task(pair.one.receive(channel))
        groups = ["kitchen", "kitchen", "garden", "kitchen", "garden", "garden", "kitchen"]
        for number, group in enumerate(groups):
            pair.two._links.here().tell(
                frames.PUBLISH,
                named(pair.two._space + group) + MOMENT.pack(1e9) + pack({"n": number}),
            )
        await pair.two.group_send("nobody", {})
        found = [await waiting] + [await pair.one.receive(channel) for _ in groups[1:]]
        assert [message["n"] for message in found] == list(range(len(groups)))

    run(test)


def test_a_channel_of_another_process_can_be_put_into_a_group() -> None:
    """Its messages come to its own process."""

    async def test(pair: Pair) -> None:
        channel = await pair.one.new_channel()
        await pair.two.group_add("kitchen", channel)
        await pair.two.group_send("kitchen", {"n": 1})
        assert await pair.one.receive(channel) == {"n": 1}
        await pair.two.group_discard("kitchen", channel)
        await pair.two.group_send("kitchen", {"n": 2})
        assert await nothing(pair.one, channel)

    run(test)


def test_a_full_channel_does_not_keep_a_group_from_its_message() -> None:
    """It is left out without an error, and the others get it."""

    async def test(pair: Pair) -> None:
        full, free = await pair.one.new_channel(), await pair.one.new_channel()
        for channel in (full, free, "common"):
            await pair.one.group_add("kitchen", channel)
        for number in range(3):
            await pair.two.group_send("kitchen", {"n": number})
            assert await pair.one.receive(free) == {"n": number}
        for channel in (full, "common"):
            assert [(await pair.one.receive(channel))["n"] for _ in range(2)] == [0, 1]
            assert await nothing(pair.one, channel)

    run(test, capacity=2)


def test_memberships_expire() -> None:
    """The broker is told no more of a group whose members have all expired."""

    async def test(pair: Pair) -> None:
        channel = await pair.one.new_channel()
        pair.one._clock = lambda: time.monotonic() - 100
        await pair.one.group_add("kitchen", channel)
        await pair.one.group_add("kitchen", "common")
        pair.one._clock = time.monotonic
        for _ in range(2):
            await pair.two.group_send("kitchen", {})
        assert await nothing(pair.one, channel)
        assert await nothing(pair.one, "common")
        await pair.one.group_add("kitchen", channel)
        await pair.two.group_send("kitchen", {"n": 1})
        assert await pair.one.receive(channel) == {"n": 1}

    run(test, group_expiry=50)


def test_flush_forgets_everything_everywhere() -> None:
    """Messages and groups of both processes; who waits goes on waiting."""

    async def test(pair: Pair) -> None:
        mine, theirs = await pair.one.new_channel(), await pair.two.new_channel()
        for layer, channel in ((pair.one, mine), (pair.two, theirs)):
            await layer.group_add("kitchen", channel)
            await layer.send(channel, {})
        await pair.one.send("common", {})
        await pair.one.group_add("kitchen", "common")
        await pair.one.flush()
        await pair.two.group_send("kitchen", {})
        assert await nothing(pair.one, mine)
        assert await nothing(pair.two, theirs)
        assert await nothing(pair.one, "common")
        await pair.two.group_add("kitchen", theirs)
        await pair.one.group_send("kitchen", {"n": 1})
        assert await pair.two.receive(theirs) == {"n": 1}

    run(test)


def test_layers_with_different_prefixes_are_strangers() -> None:
    """Groups, common channels and `flush` end at the prefix."""

    async def test(pair: Pair) -> None:
        other = LocalChannelLayer(prefix=uuid.uuid4().hex)
        channel = await pair.one.new_channel()
        await pair.one.group_add("kitchen", channel)
        await other.group_send("kitchen", {})
        await other.send("common", {})
        await pair.one.send("common", {"n": 1})
        await other.flush()
        assert await pair.one.receive("common") == {"n": 1}
        assert await nothing(pair.one, channel)
        await pair.two.group_send("kitchen", {"n": 2})
        assert await pair.one.receive(channel) == {"n": 2}
        await other.close()

    run(test)


# Checks


@pytest.mark.parametrize("name", [7, "a b", "a" * 100, "", "a/b", "ä", "a!ä", "\u0661"])
def test_names_that_are_not_valid_are_refused(name: Any) -> None:
    """By every call, before anything is sent."""

    async def test(pair: Pair) -> None:
        layer = pair.one
        calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
            lambda: layer.send(name, {}),
            lambda: layer.receive(name),
            lambda: layer.group_add("kitchen", name),
            lambda: layer.group_discard("kitchen", name),
            lambda: layer.group_add(name, "common"),
            lambda: layer.group_discard(name, "common"),
            lambda: layer.group_send(name, {}),
        ]
        for call in calls:
            with pytest.raises(TypeError, match="name must be a valid"):
                await call()

    run(test)


def test_what_is_no_message_is_refused() -> None:
    """One that is no dict, or has an object in it, or is too large: the sender is told."""

    async def test(pair: Pair) -> None:
        with pytest.raises(TypeError, match="a message is a dict, not str"):
            await pair.one.send("common", "text")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await pair.one.group_send("kitchen", {"what": object()})
        with pytest.raises(MessageTooLarge, match="and max_message_size is 1000"):
            await pair.one.send("common", {"x": "x" * 1000})
        with pytest.raises(MessageTooLarge):
            await pair.one.group_send("kitchen", {"x": b"x" * 1000})

    run(test, max_message_size=1000)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"prefix": "a:b"}, "prefix 'a:b'"),
        ({"prefix": "a" * 100}, "shorter than 100"),
        ({"max_message_size": 0}, "max_message_size 0: from 1 to"),
        ({"max_message_size": 1 << 30}, "max_message_size"),
        ({"expiry": 0}, "expiry 0: is a time in seconds"),
        ({"group_expiry": -1}, "group_expiry -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(config: Any, complaint: str) -> None:
    """In one line, which names the key."""
    with pytest.raises(ValueError, match=complaint):
        LocalChannelLayer(**config)


def test_names_are_looked_at_once_and_not_kept_for_ever() -> None:
    """A process that uses ever new names does not grow by them."""

    async def test(pair: Pair) -> None:
        pair.one._mine = {f"name{number}": "" for number in range(10_000)}
        channel = await pair.one.new_channel()
        for number in (1, 2):
            await pair.one.send(channel, {"n": number})
            assert await pair.one.receive(channel) == {"n": number}
        assert list(pair.one._mine) == [channel]

    run(test)


def test_it_has_the_extensions_that_channels_asks_for() -> None:
    """And nothing happens before the first use."""
    layer = LocalChannelLayer()
    assert layer.extensions == ["groups", "flush"]
    assert len(layer._links) == 0


# Event loops, threads and processes


def test_synchronous_code_may_use_it() -> None:
    """Each call of `async_to_sync` has an event loop of its own, and what was joined stays."""
    pair = Pair()
    channel = async_to_sync(pair.one.new_channel)()
    async_to_sync(pair.one.group_add)("kitchen", channel)
    for sender in (pair.one, pair.two):
        async_to_sync(sender.group_send)("kitchen", {"n": 1})
        async_to_sync(sender.send)("common", {"n": 2})
        assert async_to_sync(pair.one.receive)(channel) == {"n": 1}
        assert async_to_sync(pair.two.receive)("common") == {"n": 2}
    async_to_sync(pair.one.flush)()
    assert async_to_sync(nothing)(pair.one, channel)


def test_a_thread_with_its_own_loop_reaches_those_who_wait() -> None:
    """Its messages wake receivers in the loop where they wait."""

    async def test(pair: Pair) -> None:
        channel = await pair.one.new_channel()

        def work() -> None:
            async def send() -> None:
                await pair.one.send(channel, {"n": 1})
                await pair.one.group_add("kitchen", channel)
                await pair.one.group_send("kitchen", {"n": 2})

            asyncio.run(send())

        receiving = asyncio.create_task(pair.one.receive(channel))
        await turns()
        thread = threading.Thread(target=work)
        thread.start()
        assert await receiving == {"n": 1}
        assert await pair.one.receive(channel) == {"n": 2}
        await asyncio.to_thread(thread.join)
        await asyncio.to_thread(work)
        assert await pair.one.receive(channel) == {"n": 1}
        assert len(pair.one._links) == 2  # that of the first thread is closed

    run(test)


def test_loops_that_run_in_turn_are_the_home_in_turn() -> None:
    """As those of a test suite are; what comes while none runs is there for the next one."""
    pair = Pair()
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    channel = first.run_until_complete(pair.one.new_channel())
    first.run_until_complete(pair.one.group_add("kitchen", channel))
    for number, loop in enumerate([second, first, second]):
        async_to_sync(pair.two.group_send)("kitchen", {"n": number})
        assert loop.run_until_complete(pair.one.receive(channel)) == {"n": number}
    for loop in (first, second):
        loop.close()


def test_a_receiver_in_a_loop_that_is_gone_loses_no_message() -> None:
    """Whether the loop is closed, or the receiver was cancelled while the message was under way."""
    pair = Pair()
    channel = async_to_sync(pair.one.new_channel)()
    loop = asyncio.new_event_loop()

    async def wait() -> asyncio.Task[Any]:
        task = asyncio.ensure_future(pair.one.receive(channel))
        await turns()
        return task

    def send() -> None:
        async_to_sync(pair.one.send)(channel, {"n": 1})

    waiting = loop.run_until_complete(wait())
    thread = threading.Thread(target=send)
    thread.start()
    thread.join()
    waiting.cancel()
    loop.run_until_complete(asyncio.gather(waiting, return_exceptions=True))
    assert async_to_sync(pair.one.receive)(channel) == {"n": 1}
    waiting = loop.run_until_complete(wait())
    loop._ready.clear()  # type: ignore[attr-defined] # as a loop that is closed in the middle
    loop.close()
    thread = threading.Thread(target=send)
    thread.start()
    thread.join()
    assert async_to_sync(pair.one.receive)(channel) == {"n": 1}
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_forked_process_is_another_client() -> None:
    """What its parent was connected to stays the parent's."""
    layer = LocalChannelLayer()
    client = layer.client
    same = fork(lambda: int(layer.client == client or len(layer._links) > 0))
    assert ended(same) == "exit code 0"
    assert layer.client == client


# The death of the broker


def test_who_is_in_a_group_stays_in_it_when_the_broker_dies(broker: BrokerProcess) -> None:
    """So does who waits; what nobody has received from a common channel is lost."""

    async def test(pair: Pair) -> None:
        mine, theirs = await pair.one.new_channel(), await pair.two.new_channel()
        await pair.one.group_add("kitchen", mine)
        await pair.two.group_add("kitchen", theirs)
        await pair.one.send("jobs", {"n": 0})
        waiting = asyncio.create_task(pair.one.receive("others"))
        await pair.one.group_send("nobody", {})
        broker.kill()
        sent = [
            asyncio.create_task(pair.two.group_send("kitchen", {})),
            asyncio.create_task(pair.two.send("jobs", {})),
        ]
        begun = time.monotonic()
        broker.start()
        await asyncio.gather(*sent)
        for layer in (pair.one, pair.two):  # both are connected again, and have said their groups
            await layer.group_send("nobody", {})
        assert time.monotonic() - begun < 5
        await pair.two.group_send("kitchen", {"n": 1})
        assert await pair.one.receive(mine) in ({"n": 1}, {})
        await pair.two.send("others", {"n": 2})
        assert await waiting == {"n": 2}

    run(test)
