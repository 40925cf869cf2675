"""The channels of this process: their queues, who waits for a message, and their groups.

Pure: time, or a clock, is an argument, in seconds of the monotonic clock. There is a box for a
channel as long as something waits in it, messages or somebody for a message, or as it is in a
group. So a channel that is used no more leaves nothing behind, once its messages and memberships
have expired; nobody says that a channel has ended.

A group holds the boxes of its members, and each box the one that waits there, which is the rule:
a message to a group takes no search, a member that waits costs two steps.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daphne_supervisor.channels.letters import Letter

__all__ = ["Mailboxes", "Receiver"]


class Receiver(Protocol):
    """Somebody who waits for a message, in an event loop: a future."""

    def done(self) -> bool:
        """Say whether it waits no more."""
        ...

    def get_loop(self) -> object:
        """Return the loop, in which alone it may be given a message."""
        ...

    def set_result(self, letter: Letter, /) -> None:
        """Take a message."""
        ...


@dataclass(slots=True, eq=False)
class _Box:
    """What waits at a channel, which is in so many groups.

    `others` wait behind the `receiver`; None stands for none, since most channels never have any.
    """

    channel: str
    capacity: int
    receiver: Receiver | None = None
    others: deque[Receiver] | None = None
    letters: deque[Letter] | None = None
    groups: int = 0


@dataclass(slots=True)
class _Group:
    """Boxes, with the moment until which each is a member; none has expired before `sound`."""

    members: dict[_Box, float] = field(default_factory=dict)
    sound: float = math.inf


class Mailboxes:
    """All channels of this process in which something waits, and its groups."""

    def __init__(
        self, capacity_of: Callable[[str], int], hand: Callable[[str, Receiver, Letter], bool]
    ) -> None:
        """Begin with none; `capacity_of` returns how many messages may wait in a channel.

        `hand` gives a letter to a receiver of a channel, in any loop; it says whether it did.
        """
        self._capacity_of = capacity_of
        self._hand = hand
        self._boxes: dict[str, _Box] = {}
        self._groups: dict[str, _Group] = {}
        self.full: set[str] = set()
        """Channels of which others were told that they are full."""

    def __repr__(self) -> str:
        """Tell how many there are."""
        return f"<Mailboxes {len(self._boxes)} channels, {len(self._groups)} groups>"

    # --- messages ---------------------------------------------------------------------------

    def put(self, channel: str, letter: Letter, now: float) -> bool:
        """Give a message to who waits for it, or keep it; say whether there was room."""
        box = self._boxes.get(channel) or self._new_box(channel)
        taken = self._put(box, letter, now)
        self._tidy(box)
        return taken

    def _put(self, box: _Box, letter: Letter, now: float) -> bool:
        if self._given(box, letter):
            return True
        letters = box.letters
        if letters is None:
            letters = box.letters = deque()
        if len(letters) >= box.capacity:
            _expire(box, now)
            if len(letters) >= box.capacity:
                return False
        letters.append(letter)
        return True

    def _given(self, box: _Box, letter: Letter) -> bool:
        """Give a message to the first who waits for it and has not left; say whether one did."""
        while box.receiver is not None:
            receiver = box.receiver
            box.receiver = box.others.popleft() if box.others else None
            if not receiver.done() and self._hand(box.channel, receiver, letter):
                return True
        return False

    def take(self, channel: str, clock: Callable[[], float]) -> Letter | None:
        """Return the oldest message, None if there is none: mostly, and then no clock is read."""
        box = self._boxes.get(channel)
        if box is None or not box.letters:
            return None
        now = clock()
        letter = box.letters.popleft()
        while letter.until <= now and box.letters:
            letter = box.letters.popleft()
        if not box.letters and not box.groups:
            self._tidy(box)
        return letter if letter.until > now else None

    def wait(self, channel: str, receiver: Receiver) -> None:
        """Let `receiver` have the next message."""
        box = self._boxes.get(channel) or self._new_box(channel)
        if box.receiver is None:
            box.receiver = receiver
            return
        if box.others is None:
            box.others = deque()
        box.others.append(receiver)

    def forsake(self, channel: str, receiver: Receiver) -> None:
        """Forget a receiver who waits no more."""
        box = self._boxes.get(channel)
        if box is None:
            return
        if box.receiver is receiver:
            box.receiver = box.others.popleft() if box.others else None
        elif box.others and receiver in box.others:
            box.others.remove(receiver)
        self._tidy(box)

    def put_back(self, channel: str, letter: Letter) -> None:
        """Take back, to the front, a message whose receiver has left."""
        box = self._boxes.get(channel) or self._new_box(channel)
        if not self._given(box, letter):
            if box.letters is None:
                box.letters = deque()
            box.letters.appendleft(letter)
        self._tidy(box)

    def filled(self, channel: str) -> bool:
        """Say whether a channel is full now, and was not when this was asked the last time."""
        if channel in self.full or not self._is_full(channel):
            return False
        self.full.add(channel)
        return True

    def emptied(self, channel: str) -> bool:
        """Say whether a channel that was said to be full is not full any more."""
        if channel not in self.full or self._is_full(channel):
            return False
        self.full.remove(channel)
        return True

    def _is_full(self, channel: str) -> bool:
        box = self._boxes.get(channel)
        return box is not None and bool(box.letters) and len(box.letters or ()) >= box.capacity

    # --- groups -----------------------------------------------------------------------------

    def groups(self) -> list[str]:
        """Return the groups that have a member here."""
        return list(self._groups)

    def join(self, group: str, channel: str, until: float) -> None:
        """Put a channel into a group, or keep it there for longer."""
        box = self._boxes.get(channel) or self._new_box(channel)
        joined = self._groups.setdefault(group, _Group())
        if box not in joined.members:
            box.groups += 1
        joined.members[box] = until
        joined.sound = min(joined.sound, until)

    def part(self, group: str, channel: str) -> bool:
        """Take a channel out of a group; say whether it was the last one."""
        found, box = self._groups.get(group), self._boxes.get(channel)
        if found is None or box is None or box not in found.members:
            return False
        self._part(found, box)
        if found.members:
            return False
        del self._groups[group]
        return True

    def _part(self, group: _Group, box: _Box) -> None:
        del group.members[box]
        box.groups -= 1
        self._tidy(box)

    def spread(self, group: str, letters: Sequence[Letter], now: float, here: object) -> bool:
        """Give messages to each channel of a group; say whether the group has a member here.

        A channel that is full does not get them. `here` is the loop that runs. Several messages
        that have arrived together wake a receiver once: the first is given to it, the others wait.
        """
        found = self._groups.get(group)
        if found is None or not self._has_members(group, found, now):
            return False
        first, rest = letters[0], letters[1:]
        for box in found.members:
            receiver = box.receiver
            # What mostly happens, in fewer steps: one waits in this loop, and there is room.
            if (
                receiver is not None
                and not box.others
                and receiver.get_loop() is here
                and not receiver.done()
            ):
                box.receiver = None
                receiver.set_result(first)
                if rest:
                    self._add(box, rest, now)
            else:
                self._add(box, letters, now)
        return True

    def _add(self, box: _Box, letters: Sequence[Letter], now: float) -> None:
        """Give or keep several messages, as far as there is room."""
        if box.receiver is None:
            kept = box.letters
            if kept is None:
                kept = box.letters = deque()
            if len(kept) + len(letters) <= box.capacity:
                kept.extend(letters)
                return
        for letter in letters:
            self._put(box, letter, now)

    def _has_members(self, name: str, group: _Group, now: float) -> bool:
        """Take out of a group whose membership has expired; say whether it has a member left."""
        if group.sound > now:
            return True
        for box in [box for box, until in group.members.items() if until <= now]:
            self._part(group, box)
        if group.members:
            group.sound = min(group.members.values())
            return True
        del self._groups[name]
        return False

    # --- the end of things ------------------------------------------------------------------

    def sweep(self, now: float) -> list[str]:
        """Forget messages and memberships that have expired; return who is not full any more."""
        for box in list(self._boxes.values()):
            _expire(box, now)
            self._tidy(box)
        for name, group in list(self._groups.items()):
            self._has_members(name, group, now)
        return [channel for channel in list(self.full) if self.emptied(channel)]

    def clear(self) -> None:
        """Forget all messages and groups; who waits for a message goes on waiting."""
        self._groups.clear()
        self.full.clear()
        for box in list(self._boxes.values()):
            box.letters, box.groups = None, 0
            self._tidy(box)

    def _new_box(self, channel: str) -> _Box:
        box = self._boxes[channel] = _Box(channel, self._capacity_of(channel))
        return box

    def _tidy(self, box: _Box) -> None:
        if box.receiver is None and not box.letters and not box.groups:
            del self._boxes[box.channel]


def _expire(box: _Box, now: float) -> None:
    while box.letters and box.letters[0].until <= now:
        box.letters.popleft()
