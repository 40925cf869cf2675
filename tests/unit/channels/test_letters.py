"""A message that several receive: each has its own."""

from __future__ import annotations

from typing import Any

import pytest

from daphne_supervisor.channels.letters import Letter
from daphne_supervisor.channels.messages import pack


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"type": "news", "n": 1, "x": 0.5, "b": b"\0", "yes": True, "none": None},
        {"type": "news", "list": [1, {"a": [2]}]},
        {"type": "news", "dict": {"a": {}}},
    ],
)
def test_each_reader_gets_the_whole_message(message: dict[str, Any]) -> None:
    """As often as it is read."""
    letter = Letter(1.0, pack(message))
    assert [letter.read() for _ in range(3)] == [message] * 3


def test_what_one_reader_changes_is_not_seen_by_the_next() -> None:
    """Neither in the message itself, nor in what is in it."""
    flat = Letter(1.0, pack({"n": 1}))
    for _ in range(3):
        message = flat.read()
        assert message == {"n": 1}
        message["n"] = 2
    deep = Letter(1.0, pack({"list": [1, [2]], "dict": {"a": {"b": 1}}}))
    for _ in range(3):
        message = deep.read()
        assert message == {"list": [1, [2]], "dict": {"a": {"b": 1}}}
        message["list"][1].append(3)
        message["dict"]["a"]["b"] = 2


def test_a_message_is_unpacked_once_if_nothing_in_it_can_be_changed() -> None:
    """Then its readers have the very same text; otherwise not."""
    flat = Letter(1.0, pack({"text": "a long text"}))
    assert flat.read()["text"] is flat.read()["text"]
    assert flat.body == b""  # not kept twice
    deep = Letter(1.0, pack({"text": "a long text", "list": []}))
    assert deep.read()["text"] is not deep.read()["text"]


def test_it_tells_until_when_it_counts() -> None:
    """And not what it says, which is nobody's business."""
    assert repr(Letter(1.5, b"12345")) == "<Letter until 1.500>"
