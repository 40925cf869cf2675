"""The broker's decisions: who gets what. Pure: ports are written to, time is an argument.

Theory. Most channels belong to one process, that of the consumer which receives from them
(`prefix.client!rest`), and that process, here a client, keeps their queues. So the broker keeps a
group as the list of the clients that have members in it, and a message to a group passes once to
each client, whatever the number of its members. Only channels that belong to nobody, which any
process may receive from, have their queue here; and only they are kept here as members of a group.

A client may have several connections, one for each event loop; what is for the client goes to the
one that said so, its home. Answers go where the question came from, behind what they caused.

A client that takes nothing holds up whoever sends to it, by the answer that is not given yet. If
it has taken nothing for a while the port says that it is stuck: then nobody waits for it any more,
messages to groups pass it by, and one to its own channel is refused as if the channel were full.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daphne_supervisor.broker import frames
from daphne_supervisor.broker.frames import MOMENT, frame, name_in, named, owner_of
from daphne_supervisor.broker.peers import Client

if TYPE_CHECKING:
    from collections.abc import Callable
    from struct import Struct

    from daphne_supervisor.broker.peers import Peer
    from daphne_supervisor.broker.queues import Queues

__all__ = ["Switchboard"]


@dataclass(slots=True)
class _Membership:
    """A channel in a group: until when, and what holds for its messages."""

    until: float
    capacity: int
    expiry: float


class Switchboard:
    """Knows every client, group and common channel."""

    def __init__(self, remark: Callable[[str], None], queues: Queues) -> None:
        """Begin with nobody; `remark` is told what people should know."""
        self._remark = remark
        self._clients: dict[str, Client] = {}
        self._subscribers: dict[str, dict[Client, int]] = {}  # by group; with the turn
        self._members: dict[str, dict[str, _Membership]] = {}  # by group and channel
        self._queues = queues
        self._deeds: dict[int, Callable[[Peer, int, bytes, float], None]] = {
            frames.HELLO: self._hello,
            frames.SUBSCRIBE: self._subscribe,
            frames.UNSUBSCRIBE: self._unsubscribe,
            frames.JOIN: self._join,
            frames.LEAVE: self._leave,
            frames.PUBLISH: self._publish,
            frames.SEND: self._send,
            frames.RECEIVE: self._receive,
            frames.CANCEL: self._cancel,
            frames.GIVE_BACK: self._give_back,
            frames.FULL: self._full,
            frames.OPEN: self._open,
            frames.FLUSH: self._flush,
        }

    def __repr__(self) -> str:
        """Tell how much there is."""
        groups = self._subscribers.keys() | self._members.keys()
        return f"<Switchboard {len(self._clients)} clients, {len(groups)} groups>"

    def hear(self, peer: Peer, kind: int, number: int, payload: bytes, now: float) -> None:
        """Do what a frame says. Raises `ValueError` for one that means nothing."""
        deed = self._deeds.get(kind)
        if deed is None or (peer.client is None and kind != frames.HELLO):
            message = f"a frame of kind {kind}, which has no place here"
            raise ValueError(message)
        deed(peer, number, payload, now)

    def relieve(self, peer: Peer) -> None:
        """Answer those who waited for `peer`, which has taken all, is stuck or gone."""
        owed, peer.owed = peer.owed, []
        for other, answer in owed:
            other.port.write(answer)
        client = peer.client
        if client is not None and peer is client.home and not peer.port.stuck:
            self._account(client, peer, "reads again")

    def leave(self, peer: Peer) -> None:
        """Forget a connection that has ended, and its client with the last one."""
        self.relieve(peer)
        for number in list(peer.asking):
            self._queues.cancel(peer, number)
        client = peer.client
        if client is None:
            return
        client.peers.discard(peer)
        if client.home is peer:
            self._account(client, peer, "is gone")
            client.home = None
        if not client.peers:
            for group in list(client.groups):
                self._unlist(client, group)
            del self._clients[client.name]

    def _miss(self, client: Client, home: Peer) -> None:
        """Note that a client does not get a message; say why if it is the first one."""
        client.missed += 1
        if client.missed == 1:
            self._remark(
                f"channel layer: process {home.port.pid} {home.port.stuck}:"
                " it gets no messages until it reads again"
            )

    def _account(self, client: Client, home: Peer, event: str) -> None:
        """Say how much a client has missed that was stuck."""
        missed, client.missed = client.missed, 0
        if missed:
            self._remark(
                f"channel layer: process {home.port.pid} {event}:"
                f" {missed} messages to it were lost or refused"
            )

    def sweep(self, now: float) -> None:
        """Forget messages and memberships that have expired."""
        self._queues.sweep(now)
        for group, members in list(self._members.items()):
            for channel in [name for name, one in members.items() if one.until <= now]:
                del members[channel]
            if not members:
                del self._members[group]

    # --- clients and groups -----------------------------------------------------------------

    def _hello(self, peer: Peer, number: int, payload: bytes, _now: float) -> None:
        name, end = name_in(payload)
        if peer.client is not None and peer.client.name != name:
            message = "a greeting in another name"
            raise ValueError(message)
        client = self._clients.setdefault(name, Client(name))
        client.peers.add(peer)
        peer.client = client
        if payload[end:] == b"\1":
            client.home = peer
            client.full.clear()
        peer.port.write(frame(frames.ACK, number))

    def _subscribe(self, peer: Peer, number: int, payload: bytes, _now: float) -> None:
        client, (group, end) = _client(peer), name_in(payload)
        (turn,) = _unpack(frames.TURN, payload, end)
        client.groups.add(group)
        listed = self._subscribers.setdefault(group, {})
        listed[client] = max(turn, listed.get(client, 0))
        peer.port.write(frame(frames.ACK, number))

    def _unsubscribe(self, peer: Peer, _number: int, payload: bytes, _now: float) -> None:
        client, (group, end) = _client(peer), name_in(payload)
        (turn,) = _unpack(frames.TURN, payload, end)
        # The client has subscribed again since then, over another connection that was faster.
        if group in client.groups and self._subscribers[group][client] < turn:
            self._unlist(client, group)

    def _unlist(self, client: Client, group: str) -> None:
        client.groups.discard(group)
        listed = self._subscribers[group]
        del listed[client]
        if not listed:
            del self._subscribers[group]

    def _join(self, peer: Peer, number: int, payload: bytes, _now: float) -> None:
        group, end = name_in(payload)
        channel, end = name_in(payload, end)
        until, capacity, expiry = _unpack(frames.MEMBERSHIP, payload, end)
        self._members.setdefault(group, {})[channel] = _Membership(until, capacity, expiry)
        peer.port.write(frame(frames.ACK, number))

    def _leave(self, peer: Peer, number: int, payload: bytes, _now: float) -> None:
        group, end = name_in(payload)
        channel, _ = name_in(payload, end)
        members = self._members.get(group, {})
        members.pop(channel, None)
        if not members:
            self._members.pop(group, None)
        peer.port.write(frame(frames.ACK, number))

    def _publish(self, peer: Peer, number: int, payload: bytes, now: float) -> None:
        group, end = name_in(payload)
        slow: Peer | None = None
        listed = self._subscribers.get(group)
        if listed:
            data = frame(frames.GROUP, 0, payload)
            for client in listed:
                if self._pass_on(client, data) and client.home is not None:
                    slow = client.home if client.home.port.busy else slow
        members = self._members.get(group)
        if members:
            _unpack(MOMENT, payload, end)
            body = payload[end + MOMENT.size :]
            for channel, one in members.items():
                if one.until > now:
                    self._put(channel, now + one.expiry, one.capacity, body, now)
        self._answer(peer, frame(frames.ACK, number), slow)

    def _pass_on(self, client: Client, data: bytes) -> bool:
        """Send a frame to a client's home, if that takes any."""
        if client.home is None:
            return False
        if client.home.port.stuck:
            self._miss(client, client.home)
            return False
        client.home.port.write(data)
        return True

    def _answer(self, peer: Peer, answer: bytes, slow: Peer | None) -> None:
        """Answer at once, or when the `slow` one has taken what it was sent."""
        if slow is None:
            peer.port.write(answer)
        else:
            slow.owed.append((peer, answer))

    # --- channels ---------------------------------------------------------------------------

    def _send(self, peer: Peer, number: int, payload: bytes, now: float) -> None:
        channel, end = name_in(payload)
        until, capacity = _unpack(frames.LIMITS, payload, end)
        body = payload[end + frames.LIMITS.size :]
        taken = self._put(channel, until, capacity, body, now)
        answer = frame(frames.ACK if taken else frames.REFUSED, number)
        owner = self._clients.get(owner_of(channel))
        home = None if owner is None else owner.home
        self._answer(peer, answer, home if home is not None and home.port.busy else None)

    def _put(self, channel: str, until: float, capacity: int, body: bytes, now: float) -> bool:
        """Deliver a message, or queue it; say whether there was room.

        A message to a channel whose owner is gone is lost, as nobody will ever receive from it.
        """
        name = owner_of(channel)
        if not name:
            return self._queues.put(channel, until, capacity, body, now)
        owner = self._clients.get(name)
        if owner is None or owner.home is None:
            return True
        if owner.home.port.stuck:
            self._miss(owner, owner.home)
            return False
        if channel in owner.full:
            return False
        payload = named(channel) + MOMENT.pack(until) + body
        owner.home.port.write(frame(frames.DELIVER, 0, payload))
        return True

    def _receive(self, peer: Peer, number: int, payload: bytes, now: float) -> None:
        self._queues.ask(name_in(payload)[0], peer, number, now)

    def _cancel(self, peer: Peer, number: int, _payload: bytes, _now: float) -> None:
        self._queues.cancel(peer, number)

    def _give_back(self, _peer: Peer, _number: int, payload: bytes, now: float) -> None:
        channel, end = name_in(payload)
        (until,) = _unpack(MOMENT, payload, end)
        self._queues.put_back(channel, until, payload[end + MOMENT.size :], now)

    def _full(self, peer: Peer, _number: int, payload: bytes, _now: float) -> None:
        _client(peer).full.add(name_in(payload)[0])

    def _open(self, peer: Peer, _number: int, payload: bytes, _now: float) -> None:
        _client(peer).full.discard(name_in(payload)[0])

    def _flush(self, peer: Peer, number: int, payload: bytes, _now: float) -> None:
        """Forget all of one space; those who wait for a message go on waiting."""
        space, _ = name_in(payload)
        for client in self._clients.values():
            for group in [name for name in client.groups if name.startswith(space)]:
                self._unlist(client, group)
            client.full = {name for name in client.full if not name.startswith(space)}
            if client.home is not None:
                client.home.port.write(frame(frames.FLUSHED, 0, payload))
        for group in [name for name in self._members if name.startswith(space)]:
            del self._members[group]
        self._queues.clear(space)
        peer.port.write(frame(frames.ACK, number))


def _client(peer: Peer) -> Client:
    """Return whose connection it is; who has not greeted was not listened to."""
    assert peer.client is not None  # noqa: S101 - `hear` has looked
    return peer.client


def _unpack(form: Struct, payload: bytes, start: int) -> tuple[Any, ...]:
    if len(payload) < start + form.size:
        message = "a payload that ends too early"
        raise ValueError(message)
    return form.unpack_from(payload, start)
