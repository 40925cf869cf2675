"""The form of a fuzzer's input: what is on the wire, and what happens around it.

An input is the bytes of the wire, then, if anything else is chosen, `MARK` and a byte for each
choice. So a file of plain bytes is an input as it stands, what a finding holds can be read in any
editor, and replaying it needs no fuzzer. Choices that are used up are all zero, which is always the
plainest case.
"""

from __future__ import annotations

from itertools import cycle

__all__ = ["MARK", "Choices", "join", "pieces", "split"]

#: Stands between the wire and the choices. None of the protocols has a use for it.
MARK = b"\0\xff\0"
#: Choices from here on stand for pieces longer than a byte can count.
_LONG = 200
_LONG_STEP = 97


class Choices:
    """Choices, taken one after the other."""

    def __init__(self, data: bytes) -> None:
        """Take them from `data`, a byte each."""
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Say whether any is left."""
        return self._at < len(self._data)

    def number(self, below: int = 256) -> int:
        """Return a number from 0 on and `below` that."""
        if not self:
            return 0
        self._at += 1
        return self._data[self._at - 1] % below

    def rest(self) -> bytes:
        """Return those that are left, without taking them."""
        return self._data[self._at :]


def split(data: bytes) -> tuple[bytes, Choices]:
    """Return the wire of an input, and its choices."""
    wire, mark, choices = data.rpartition(MARK)
    return (wire, Choices(choices)) if mark else (data, Choices(b""))


def join(wire: bytes, choices: bytes) -> bytes:
    """Return the input that has these."""
    return wire + MARK + choices


def size(choice: int) -> int:
    """Return the length in bytes of a piece: 1 to 200 bytes, or up to about 5600."""
    return choice + 1 if choice < _LONG else (choice - _LONG + 2) * _LONG_STEP


def pieces(wire: bytes, choices: bytes) -> list[bytes]:
    """Return `wire` cut into pieces whose sizes `choices` say, over and over; whole without any."""
    if not choices or not wire:
        return [wire] if wire else []
    found, at = [], 0
    for choice in cycle(choices):
        found.append(wire[at : at + size(choice)])
        at += size(choice)
        if at >= len(wire):
            break
    return found
