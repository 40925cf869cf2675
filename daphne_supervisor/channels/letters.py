"""A message on its way: what it says, and until when it is one.

Theory. A message to a group has many receivers in one process, and each gets a message of its own,
which it may change. It is unpacked for the first of them. If nothing in it can be changed, only the
dict itself, the others get a copy of that, which is ten times cheaper than to unpack it again.
"""

from __future__ import annotations

from typing import Any

from daphne_supervisor.channels.messages import unpack

__all__ = ["Letter"]

_CONSTANT = frozenset({str, bytes, int, float, bool, type(None)})
"""The types of what several messages may share."""


class Letter:
    """A message that one or several are to receive."""

    __slots__ = ("_first", "_nested", "body", "until")

    def __init__(self, until: float, body: bytes) -> None:
        """Hold `body`, as packed, until a moment of the monotonic clock.

        It is kept as long as it has to be unpacked again.
        """
        self.until = until
        self.body = body
        self._first: dict[str, Any] | None = None
        self._nested = False

    def __repr__(self) -> str:
        """Tell how long it counts."""
        return f"<Letter until {self.until:.3f}>"

    def read(self) -> dict[str, Any]:
        """Return the message, of which nobody else has anything that can be changed."""
        # In this order: another thread may be reading, and drops the body when there is a first.
        body, first = self.body, self._first
        if first is not None:
            return first.copy()
        message: dict[str, Any] = unpack(body)
        if not self._nested:
            if _CONSTANT.issuperset(map(type, message.values())):
                self._first, self.body = message, b""
                return message.copy()
            self._nested = True
        return message
