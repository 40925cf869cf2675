"""The broker's decisions: frames in, frames out, no socket and no clock."""

from __future__ import annotations

import pytest

from daphne_supervisor.broker.frames import (
    ACK,
    CANCEL,
    DELIVER,
    FLUSH,
    FLUSHED,
    FULL,
    GIVE_BACK,
    GROUP,
    HELLO,
    JOIN,
    LEAVE,
    LIMITS,
    MEMBERSHIP,
    MESSAGE,
    MOMENT,
    OPEN,
    PUBLISH,
    RECEIVE,
    REFUSED,
    SEND,
    SUBSCRIBE,
    TURN,
    UNSUBSCRIBE,
    named,
)
from daphne_supervisor.broker.peers import Peer
from daphne_supervisor.broker.queues import Queues
from daphne_supervisor.broker.switchboard import Switchboard
from tests.support.ports import FakePort

NOW, LATER = 100.0, 160.0
ANNA, BERT = "ds-aaaaaaaaaaaaaaaa", "ds-bbbbbbbbbbbbbbbb"
Frame = tuple[int, int, bytes]


class Exchange:
    """A switchboard, and what it has remarked."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self.remarks: list[str] = []
        self.board = Switchboard(self.remarks.append, Queues(1000, self.remarks.append))

    def client(self, name: str, *, home: bool = True) -> Speaker:
        """Return a connection of client `name` that has greeted."""
        speaker = Speaker(self)
        assert speaker.says(HELLO, named(name) + (b"\1" if home else b"\0")) == [(ACK, 1, b"")]
        return speaker


class Speaker:
    """One connection; its requests are numbered."""

    def __init__(self, exchange: Exchange) -> None:
        """Connect."""
        self.port = FakePort()
        self.peer = Peer(self.port)
        self._board = exchange.board
        self._number = 0

    def says(self, kind: int, payload: bytes = b"", number: int = 0) -> list[Frame]:
        """Send a frame; return what comes at once, over this connection."""
        self._number += 1
        self._board.hear(self.peer, kind, number or self._number, payload, NOW)
        return self.port.frames()

    def acked(self, kind: int, payload: bytes) -> bool:
        """Send a frame; say whether it was answered by ACK, and by nothing else."""
        return self.says(kind, payload) == [(ACK, self._number, b"")]

    def sends(self, channel: str, body: bytes = b"hi", capacity: int = 2) -> list[int]:
        """Send a message to a channel; return the kinds of what comes at once."""
        payload = named(channel) + LIMITS.pack(LATER, capacity) + body
        return [kind for kind, _, _ in self.says(SEND, payload)]


def to_group(group: str, body: bytes = b"hi") -> bytes:
    """Return the payload of a message to a group."""
    return named(group) + MOMENT.pack(LATER) + body


def turn(group: str, number: int) -> bytes:
    """Return the payload of a subscription, or of its end."""
    return named(group) + TURN.pack(number)


def membership(group: str, channel: str, until: float = LATER) -> bytes:
    """Return the payload that puts a channel into a group."""
    return named(group) + named(channel) + MEMBERSHIP.pack(until, 2, 60.0)


def test_a_message_to_a_group_passes_once_to_each_client_with_members() -> None:
    """The sender too, if it has any; its own copy is there before its answer."""
    exchange = Exchange()
    anna, bert, carl = (exchange.client(name) for name in (ANNA, BERT, "ds-c"))
    for one in (anna, bert):
        assert one.acked(SUBSCRIBE, turn(":kitchen", 1))
    message = to_group(":kitchen")
    assert anna.says(PUBLISH, message, 7) == [(GROUP, 0, message), (ACK, 7, b"")]
    assert bert.port.frames() == [(GROUP, 0, message)]
    assert carl.port.frames() == []


def test_a_group_without_members_is_no_error() -> None:
    """Nobody gets the message, and the sender is told no less."""
    assert Exchange().client(ANNA).acked(PUBLISH, to_group(":nobody"))


def test_a_subscription_ends_when_the_client_says_so() -> None:
    """The broker keeps no group that nobody has members in."""
    exchange = Exchange()
    anna, bert = exchange.client(ANNA), exchange.client(BERT)
    anna.says(SUBSCRIBE, turn(":kitchen", 1))
    bert.says(SUBSCRIBE, turn(":kitchen", 1))
    assert repr(exchange.board) == "<Switchboard 2 clients, 1 groups>"
    assert anna.says(UNSUBSCRIBE, turn(":kitchen", 2)) == []
    bert.says(PUBLISH, to_group(":kitchen"))
    assert anna.port.frames() == []
    bert.says(UNSUBSCRIBE, turn(":kitchen", 2))
    assert repr(exchange.board) == "<Switchboard 2 clients, 0 groups>"
    assert bert.says(UNSUBSCRIBE, turn(":kitchen", 3)) == []


def test_of_two_that_overtake_each_other_the_later_one_counts() -> None:
    """The end of an old subscription that arrives late does not end the new one."""
    exchange = Exchange()
    anna = exchange.client(ANNA)
    anna.says(SUBSCRIBE, turn(":kitchen", 3))
    anna.says(UNSUBSCRIBE, turn(":kitchen", 2))
    anna.says(SUBSCRIBE, turn(":kitchen", 1))
    anna.says(UNSUBSCRIBE, turn(":kitchen", 2))
    message = to_group(":kitchen")
    assert anna.says(PUBLISH, message)[0] == (GROUP, 0, message)


def test_what_is_for_a_client_comes_over_its_home() -> None:
    """A second connection of the same process gets its answers only, until it is the home."""
    exchange = Exchange()
    home, other = exchange.client(ANNA), exchange.client(ANNA, home=False)
    assert other.acked(SUBSCRIBE, turn(":kitchen", 1))
    message = to_group(":kitchen")
    assert other.acked(PUBLISH, message)
    assert home.port.frames() == [(GROUP, 0, message)]
    assert other.acked(HELLO, named(ANNA) + b"\1")
    assert home.acked(PUBLISH, message)
    assert other.port.frames() == [(GROUP, 0, message)]


def test_a_client_without_a_home_gets_nothing_and_is_no_error() -> None:
    """Between two event loops of a process there is nobody who could take anything."""
    exchange = Exchange()
    home, other = exchange.client(ANNA), exchange.client(ANNA, home=False)
    other.says(SUBSCRIBE, turn(":kitchen", 1))
    exchange.board.leave(home.peer)
    assert other.acked(PUBLISH, to_group(":kitchen"))
    assert other.sends(f":specific.{ANNA}!x") == [ACK]
    assert other.says(FLUSH, named(":"))[-1][0] == ACK


def test_a_client_leaves_with_its_last_connection() -> None:
    """Its groups go with it, and what waited for it is asked for no more."""
    exchange = Exchange()
    anna, other = exchange.client(ANNA), exchange.client(ANNA, home=False)
    bert = exchange.client(BERT)
    anna.says(SUBSCRIBE, turn(":kitchen", 1))
    other.says(RECEIVE, named(":jobs"))
    exchange.board.leave(other.peer)
    assert repr(exchange.board) == "<Switchboard 2 clients, 1 groups>"
    exchange.board.leave(anna.peer)
    assert repr(exchange.board) == "<Switchboard 1 clients, 0 groups>"
    assert bert.sends(":jobs") == [ACK]
    assert bert.says(RECEIVE, named(":jobs"))[0][0] == MESSAGE
    exchange.board.leave(Speaker(exchange).peer)  # one that has never greeted


def test_a_channel_of_a_client_gets_its_messages_there() -> None:
    """With the moment at which they expire; the sender hears that it was passed on."""
    exchange = Exchange()
    anna, bert = exchange.client(ANNA), exchange.client(BERT)
    channel = f":specific.{ANNA}!x"
    assert bert.sends(channel, b"hello") == [ACK]
    assert anna.port.frames() == [(DELIVER, 0, named(channel) + MOMENT.pack(LATER) + b"hello")]


def test_a_channel_of_a_client_that_is_gone_swallows_its_messages() -> None:
    """Nobody will ever receive from it."""
    assert Exchange().client(BERT).sends(f":specific.{ANNA}!x") == [ACK]


def test_a_channel_that_its_client_calls_full_refuses() -> None:
    """Until the client says that it is open, or is a new one under the old name."""
    exchange = Exchange()
    anna, bert = exchange.client(ANNA), exchange.client(BERT)
    channel = f":specific.{ANNA}!x"
    assert anna.says(FULL, named(channel)) == []
    assert bert.sends(channel) == [REFUSED]
    anna.says(OPEN, named(channel))
    assert bert.sends(channel) == [ACK]
    anna.says(FULL, named(channel))
    anna.says(HELLO, named(ANNA) + b"\1")
    assert bert.sends(channel) == [ACK]


def test_a_common_channel_is_received_from_by_anybody() -> None:
    """It has its queue here, and a capacity that the sender states."""
    exchange = Exchange()
    anna, bert = exchange.client(ANNA), exchange.client(BERT)
    assert [anna.sends(":jobs", b"%d" % n) for n in range(3)] == [[ACK], [ACK], [REFUSED]]
    for number, body in ((11, b"0"), (12, b"1")):
        payload = named(":jobs") + MOMENT.pack(LATER) + body
        assert bert.says(RECEIVE, named(":jobs"), number) == [(MESSAGE, number, payload)]
    assert bert.says(RECEIVE, named(":jobs"), 13) == []
    assert bert.says(CANCEL, number=13) == []
    assert bert.says(GIVE_BACK, named(":jobs") + MOMENT.pack(LATER) + b"1") == []
    assert anna.says(RECEIVE, named(":jobs"), 5)[0][2].endswith(b"1")


def test_other_channels_can_be_members_of_a_group_too() -> None:
    """Common ones get the message into their queue, somebody else's own is passed on."""
    exchange = Exchange()
    anna, bert = exchange.client(ANNA), exchange.client(BERT)
    own = f":specific.{ANNA}!x"
    assert bert.acked(JOIN, membership(":kitchen", ":jobs"))
    assert bert.acked(JOIN, membership(":kitchen", own))
    assert bert.acked(JOIN, membership(":kitchen", ":expired", NOW))
    assert bert.acked(PUBLISH, to_group(":kitchen", b"tea"))
    expected = named(own) + MOMENT.pack(NOW + 60.0) + b"tea"
    assert anna.port.frames() == [(DELIVER, 0, expected)]
    assert bert.says(RECEIVE, named(":jobs"))[0][2].endswith(b"tea")
    assert bert.says(RECEIVE, named(":expired")) == []
    for channel in (":jobs", own, ":expired"):
        assert bert.acked(LEAVE, named(":kitchen") + named(channel))
    assert bert.acked(LEAVE, named(":kitchen") + named(":jobs"))
    assert repr(exchange.board) == "<Switchboard 2 clients, 0 groups>"


def test_what_has_expired_is_swept_out() -> None:
    """Memberships and groups go when their time is over, whether anybody asks or not."""
    exchange = Exchange()
    anna = exchange.client(ANNA)
    anna.says(JOIN, membership(":kitchen", ":jobs", NOW + 1))
    anna.says(JOIN, membership(":garden", ":jobs", NOW + 1))
    anna.says(JOIN, membership(":garden", ":late", NOW + 2))
    exchange.board.sweep(NOW + 1)
    assert repr(exchange.board) == "<Switchboard 1 clients, 1 groups>"


def test_flush_forgets_a_space_and_tells_everybody() -> None:
    """Other spaces keep what they have."""
    exchange = Exchange()
    anna, bert = exchange.client(ANNA), exchange.client(BERT)
    for space in (":", "b:"):
        anna.says(SUBSCRIBE, turn(f"{space}kitchen", 1))
        anna.says(JOIN, membership(f"{space}garden", f"{space}jobs"))
        anna.says(FULL, named(f"{space}specific.{ANNA}!x"))
        bert.sends(f"{space}jobs")
    assert bert.says(FLUSH, named(":"), 9) == [(FLUSHED, 0, named(":")), (ACK, 9, b"")]
    assert anna.port.frames() == [(FLUSHED, 0, named(":"))]
    assert repr(exchange.board) == "<Switchboard 2 clients, 2 groups>"
    assert bert.sends(f":specific.{ANNA}!x") == [ACK]
    assert bert.sends(f"b:specific.{ANNA}!x") == [REFUSED]
    assert bert.says(RECEIVE, named(":jobs")) == []
    assert bert.says(RECEIVE, named("b:jobs"))[0][0] == MESSAGE


def test_who_sends_to_a_busy_client_waits_for_it() -> None:
    """The answer is held until the client has taken what it was sent."""
    exchange = Exchange()
    anna, bert = exchange.client(ANNA), exchange.client(BERT)
    anna.says(SUBSCRIBE, turn(":kitchen", 1))
    anna.port.busy = True
    assert bert.says(PUBLISH, to_group(":kitchen"), 5) == []
    assert bert.sends(f":specific.{ANNA}!x") == []
    assert [kind for kind, _, _ in anna.port.frames()] == [GROUP, DELIVER]
    exchange.board.relieve(anna.peer)
    assert [kind for kind, _, _ in bert.port.frames()] == [ACK, ACK]
    assert bert.says(PUBLISH, to_group(":kitchen"), 6) == []
    exchange.board.leave(anna.peer)
    assert bert.port.frames() == [(ACK, 6, b"")]
    assert exchange.remarks == []


def test_a_stuck_client_is_passed_by_and_that_is_said() -> None:
    """Nobody waits for it; its channels are full, its groups go on, and the loss is counted."""
    exchange = Exchange()
    anna, bert = exchange.client(ANNA), exchange.client(BERT)
    anna.says(SUBSCRIBE, turn(":kitchen", 1))
    anna.port.stuck = "sleeps (--option)"
    assert bert.acked(PUBLISH, to_group(":kitchen"))
    assert bert.acked(PUBLISH, to_group(":kitchen"))
    assert bert.sends(f":specific.{ANNA}!x") == [REFUSED]
    assert anna.port.frames() == []
    exchange.board.relieve(anna.peer)
    (remark,) = exchange.remarks
    assert "process 4711 sleeps (--option): it gets no messages" in remark
    anna.port.stuck = ""
    exchange.board.relieve(bert.peer)
    exchange.board.relieve(anna.peer)
    exchange.board.relieve(anna.peer)
    (_, remark) = exchange.remarks
    assert "process 4711 reads again: 3 messages to it were lost or refused" in remark


def test_what_a_stuck_client_has_missed_is_said_when_it_dies() -> None:
    """With its home; another connection of the same process that ends tells nothing."""
    exchange = Exchange()
    anna, bert = exchange.client(ANNA), exchange.client(BERT)
    second = exchange.client(ANNA, home=False)
    anna.port.stuck = "sleeps (--option)"
    assert bert.sends(f":specific.{ANNA}!x") == [REFUSED]
    exchange.board.leave(second.peer)
    assert len(exchange.remarks) == 1
    exchange.board.leave(anna.peer)
    assert "is gone: 1 messages to it were lost or refused" in exchange.remarks[1]


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (99, b""),
        (ACK, b""),
        (HELLO, named(BERT) + b"\1"),
        (SUBSCRIBE, named(":kitchen")),
        (UNSUBSCRIBE, named(":kitchen") + b"1234567"),
        (JOIN, named(":kitchen") + named(":jobs") + b"1"),
        (LEAVE, named(":kitchen")),
        (PUBLISH, b""),
        (SEND, named(":jobs") + b"1"),
        (RECEIVE, b"\x09abc"),
        (GIVE_BACK, named(":jobs")),
        (FULL, b""),
    ],
)
def test_what_means_nothing_is_refused(kind: int, payload: bytes) -> None:
    """Whoever sends it is not one of ours, or broken: the connection ends."""
    exchange = Exchange()
    anna = exchange.client(ANNA)
    with pytest.raises(ValueError, match=r"frame|payload|greeting"):
        anna.says(kind, payload)


def test_who_has_not_greeted_is_not_listened_to() -> None:
    """The first frame says who speaks."""
    with pytest.raises(ValueError, match="has no place here"):
        Speaker(Exchange()).says(PUBLISH, to_group(":kitchen"))


def test_a_message_to_a_group_with_common_members_has_a_moment() -> None:
    """One that ends before it is refused, not delivered in part."""
    anna = Exchange().client(ANNA)
    anna.says(JOIN, membership(":kitchen", ":jobs"))
    with pytest.raises(ValueError, match="ends too early"):
        anna.says(PUBLISH, named(":kitchen") + b"1")
