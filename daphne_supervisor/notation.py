r"""Twisted's notation of endpoint strings: parameters between colons, some of them with a name.

A backslash takes the next character as it is, so that a value may hold a colon. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["escape", "kind", "parameters"]


def escape(text: str) -> str:
    """Return `text` as it is written where it is one value."""
    for special in "\\:=":
        text = text.replace(special, "\\" + special)
    return text


def kind(text: str) -> str:
    """Return what stands in front of the first colon."""
    return next(parameters(text))[0]


def parameters(text: str) -> Iterator[list[str]]:
    """Yield each parameter as [value] or [name, value]; the first one is the kind.

    Raises `ValueError` when it comes to a backslash at the end.
    """
    part = [""]
    characters = iter(text)
    for character in characters:
        if character == ":":
            yield part
            part = [""]
        elif character == "=" and len(part) == 1:
            part.append("")
        elif character == "\\":
            part[-1] += _escaped(characters)
        else:
            part[-1] += character
    yield part


def _escaped(characters: Iterator[str]) -> str:
    following = next(characters, "")
    if not following:
        message = "a backslash at the end escapes nothing"
        raise ValueError(message)
    return following
