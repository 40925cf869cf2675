"""Channels and groups of one process, without a process: time is an argument."""

from __future__ import annotations

import pytest

from daphne_supervisor.channels.letters import Letter
from daphne_supervisor.channels.mailboxes import Mailboxes, Receiver

NOW = 100.0
LATER = 160.0


HERE, ELSEWHERE = "here", "elsewhere"


class Someone:
    """Waits for a message in a loop, until it has one or has left."""

    def __init__(self, loop: str = HERE) -> None:
        """Wait."""
        self.texts: list[str] = []
        self.left = False
        self._loop = loop

    def done(self) -> bool:
        """Say whether it waits no more."""
        return self.left or bool(self.texts)

    def get_loop(self) -> str:
        """Return where it waits."""
        return self._loop

    def set_result(self, letter: Letter) -> None:
        """Take one message."""
        assert not self.done()
        self.texts.append(letter.body.decode())


def letter(text: str, until: float = LATER) -> Letter:
    """Return a message."""
    return Letter(until, text.encode())


def hand(channel: str, receiver: Receiver, letter: Letter) -> bool:
    """Give a message to who waits at a channel; nobody can who waits in a loop that is closed."""
    assert channel
    if receiver.get_loop() == "closed":
        return False
    receiver.set_result(letter)
    return True


@pytest.fixture
def boxes() -> Mailboxes:
    """Return boxes for two messages each, and for none in `closed`."""
    return Mailboxes(lambda channel: 0 if channel == "closed" else 2, hand)


def taken(boxes: Mailboxes, channel: str, now: float = NOW) -> list[str]:
    """Take everything out of a channel."""
    found = []
    while (one := boxes.take(channel, lambda: now)) is not None:
        found.append(one.body.decode())
    return found


def test_messages_wait_in_order(boxes: Mailboxes) -> None:
    """And nothing is left of a channel that is empty."""
    assert boxes.put("anna", letter("one"), NOW)
    assert boxes.put("anna", letter("two"), NOW)
    assert repr(boxes) == "<Mailboxes 1 channels, 0 groups>"
    assert taken(boxes, "anna") == ["one", "two"]
    assert repr(boxes) == "<Mailboxes 0 channels, 0 groups>"


def test_a_channel_takes_no_more_than_its_capacity(boxes: Mailboxes) -> None:
    """What has expired takes no place; a capacity of nothing is one, too."""
    assert boxes.put("anna", letter("one", NOW + 1), NOW)
    assert boxes.put("anna", letter("two"), NOW)
    assert not boxes.put("anna", letter("three"), NOW)
    assert boxes.put("anna", letter("three"), NOW + 1)
    assert not boxes.put("closed", letter("one"), NOW)


def test_who_waits_gets_the_message_and_one_only(boxes: Mailboxes) -> None:
    """In the order of waiting; who has left is passed over."""
    gone, one, two = Someone(), Someone(), Someone()
    gone.left = True
    for someone in (gone, one, two):
        boxes.wait("anna", someone)
    for text in ("first", "second", "third"):
        boxes.put("anna", letter(text), NOW)
    assert [one.texts, two.texts] == [["first"], ["second"]]
    assert taken(boxes, "anna") == ["third"]


def test_who_gives_up_is_forgotten(boxes: Mailboxes) -> None:
    """A channel that nobody waits at and nothing waits in is no more."""
    one = Someone()
    boxes.wait("anna", one)
    boxes.forsake("anna", Someone())
    boxes.forsake("bert", one)
    boxes.forsake("anna", one)
    assert repr(boxes) == "<Mailboxes 0 channels, 0 groups>"
    two = Someone()
    boxes.wait("anna", one)
    boxes.wait("anna", two)
    boxes.forsake("anna", Someone())
    boxes.forsake("anna", one)
    boxes.forsake("anna", two)
    assert repr(boxes) == "<Mailboxes 0 channels, 0 groups>"


def test_a_message_that_comes_back_is_the_next_one(boxes: Mailboxes) -> None:
    """Its receiver was cancelled at the last moment: it goes to who waits, or to the front."""
    boxes.put("anna", letter("two"), NOW)
    boxes.put_back("anna", letter("one"))
    assert taken(boxes, "anna") == ["one", "two"]
    gone, one, two = Someone(), Someone(), Someone()
    gone.left = True
    boxes.wait("anna", gone)
    boxes.wait("anna", one)
    boxes.put_back("anna", letter("three"))
    assert one.texts == ["three"]
    boxes.wait("anna", two)
    boxes.put_back("anna", letter("four"))
    assert two.texts == ["four"]
    assert repr(boxes) == "<Mailboxes 0 channels, 0 groups>"


def test_it_is_said_once_that_a_channel_is_full_and_once_that_it_is_not(boxes: Mailboxes) -> None:
    """Others need to hear of the changes only."""
    assert not boxes.filled("anna")
    boxes.put("anna", letter("one"), NOW)
    assert not boxes.filled("anna")
    assert not boxes.emptied("anna")
    boxes.put("anna", letter("two"), NOW)
    assert boxes.filled("anna")
    assert not boxes.filled("anna")
    assert not boxes.emptied("anna")
    assert taken(boxes, "anna") == ["one", "two"]
    assert boxes.emptied("anna")
    assert not boxes.emptied("anna")
    assert repr(boxes) == "<Mailboxes 0 channels, 0 groups>"


def test_a_group_spreads_a_message_to_its_members(boxes: Mailboxes) -> None:
    """Each gets it once; one that waits gets it at once, one that is full does not get it."""
    waiting, gone = Someone(), Someone()
    gone.left = True
    for channel in ("anna", "bert", "carl", "dora"):
        boxes.join("kitchen", channel, LATER)
    boxes.join("kitchen", "anna", LATER)
    boxes.wait("bert", waiting)
    boxes.wait("dora", gone)
    boxes.put("carl", letter("one"), NOW)
    boxes.put("carl", letter("two"), NOW)
    assert boxes.spread("kitchen", [letter("tea")], NOW, HERE)
    assert waiting.texts == ["tea"]
    assert taken(boxes, "anna") == ["tea"]
    assert taken(boxes, "bert") == []
    assert taken(boxes, "carl") == ["one", "two"]
    assert taken(boxes, "dora") == ["tea"]


def test_messages_that_arrive_together_wake_once(boxes: Mailboxes) -> None:
    """Who waits gets the first, the others wait, as far as there is room, in their order."""
    one, two, three = Someone(), Someone(), Someone()
    for channel in ("anna", "bert", "carl", "dora", "closed"):
        boxes.join("kitchen", channel, LATER)
    boxes.wait("anna", one)
    boxes.wait("bert", two)
    boxes.wait("bert", three)
    boxes.put("carl", letter("older"), NOW)
    some = [letter(text) for text in ("first", "second", "third")]
    assert boxes.spread("kitchen", some, NOW, HERE)
    assert [one.texts, two.texts, three.texts] == [["first"], ["first"], ["second"]]
    assert taken(boxes, "anna") == ["second", "third"]
    assert taken(boxes, "bert") == ["third"]
    assert taken(boxes, "carl") == ["older", "first"]
    assert taken(boxes, "dora") == ["first", "second"]
    assert taken(boxes, "closed") == []


def test_a_group_reaches_who_waits_in_another_loop(boxes: Mailboxes) -> None:
    """By another way; who waited in a loop that is closed is forgotten."""
    one, two = Someone(ELSEWHERE), Someone("closed")
    for channel, someone in (("anna", one), ("bert", two)):
        boxes.join("kitchen", channel, LATER)
        boxes.wait(channel, someone)
    assert boxes.spread("kitchen", [letter("tea")], NOW, HERE)
    assert (one.texts, two.texts) == (["tea"], [])
    assert taken(boxes, "bert") == ["tea"]


def test_a_channel_stays_as_long_as_it_is_in_a_group(boxes: Mailboxes) -> None:
    """In any: with the last one nothing is left of it."""
    for group in ("kitchen", "garden"):
        boxes.join(group, "anna", LATER)
    boxes.spread("kitchen", [letter("tea")], NOW, HERE)
    assert taken(boxes, "anna") == ["tea"]
    assert boxes.part("kitchen", "anna")
    assert repr(boxes) == "<Mailboxes 1 channels, 1 groups>"
    assert not boxes.part("garden", "bert")
    assert boxes.part("garden", "anna")
    assert repr(boxes) == "<Mailboxes 0 channels, 0 groups>"


def test_a_channel_that_takes_nothing_is_not_said_to_be_full(boxes: Mailboxes) -> None:
    """It could never be said that it is empty again; each message to it is dropped here."""
    boxes.join("kitchen", "closed", LATER)
    assert not boxes.put("closed", letter("one"), NOW)
    assert not boxes.filled("closed")


def test_a_group_ends_with_its_last_member(boxes: Mailboxes) -> None:
    """Whoever takes out what is not in it does no harm."""
    boxes.join("kitchen", "anna", LATER)
    boxes.join("kitchen", "bert", LATER)
    assert boxes.groups() == ["kitchen"]
    assert not boxes.part("kitchen", "anna")
    assert not boxes.part("kitchen", "anna")
    assert not boxes.part("garden", "anna")
    assert boxes.part("kitchen", "bert")
    assert boxes.groups() == []
    assert not boxes.spread("kitchen", [letter("tea")], NOW, HERE)


def test_memberships_expire(boxes: Mailboxes) -> None:
    """One that was renewed does so later; a group without members is none."""
    boxes.join("kitchen", "anna", NOW + 1)
    boxes.join("kitchen", "bert", NOW + 1)
    boxes.join("kitchen", "bert", NOW + 2)
    assert boxes.spread("kitchen", [letter("tea")], NOW + 1, HERE)
    assert (taken(boxes, "anna"), taken(boxes, "bert")) == ([], ["tea"])
    assert not boxes.spread("kitchen", [letter("tea")], NOW + 2, HERE)
    assert boxes.groups() == []


def test_what_has_expired_is_not_received(boxes: Mailboxes) -> None:
    """Whether it was swept out or not."""
    boxes.put("anna", letter("old", NOW + 1), NOW)
    boxes.put("anna", letter("new", NOW + 2), NOW)
    assert taken(boxes, "anna", NOW + 1) == ["new"]


def test_a_sweep_leaves_what_is_in_use(boxes: Mailboxes) -> None:
    """And names the channels that are not full any more, since nobody else would."""
    boxes.put("anna", letter("one", NOW + 1), NOW)
    boxes.put("anna", letter("two", NOW + 1), NOW)
    assert boxes.filled("anna")
    boxes.put("bert", letter("one", NOW + 1), NOW)
    boxes.put("carl", letter("one"), NOW)
    boxes.wait("dora", Someone())
    boxes.join("kitchen", "anna", NOW + 1)
    boxes.join("kitchen", "bert", LATER)
    boxes.join("garden", "anna", NOW + 1)
    assert boxes.sweep(NOW + 1) == ["anna"]
    assert repr(boxes) == "<Mailboxes 3 channels, 1 groups>"
    assert boxes.sweep(NOW + 1) == []


def test_clearing_forgets_all_but_who_waits(boxes: Mailboxes) -> None:
    """Messages and groups are gone; a receiver goes on waiting."""
    one = Someone()
    boxes.put("anna", letter("one"), NOW)
    boxes.put("anna", letter("two"), NOW)
    assert boxes.filled("anna")
    boxes.wait("bert", one)
    boxes.join("kitchen", "anna", LATER)
    boxes.clear()
    assert repr(boxes) == "<Mailboxes 1 channels, 0 groups>"
    assert not boxes.emptied("anna")
    boxes.put("bert", letter("tea"), NOW)
    assert one.texts == ["tea"]
