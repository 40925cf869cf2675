"""The frames between broker and layers: round trips, slicings, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daphne_supervisor.broker import frames as module
from daphne_supervisor.broker.frames import (
    ACK,
    LARGEST,
    SEND,
    Splitter,
    frame,
    name_in,
    named,
    owner_of,
)

FRAMES = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=40)), max_size=5
)


@given(FRAMES, st.data())
def test_frames_arrive_however_they_are_cut(
    frames: list[tuple[int, int, bytes]], data: st.DataObject
) -> None:
    """What is fed in pieces of any size comes out as it was written."""
    stream = b"".join(frame(*one) for one in frames)
    splitter, found = Splitter(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += splitter.feed(stream[:size])
        stream = stream[size:]
    assert found == frames


def test_a_frame_that_is_too_large_is_refused_by_its_head() -> None:
    """Nothing is collected that would not be accepted."""
    head = frame(SEND, 1, b"")
    assert Splitter().feed(LARGEST.to_bytes(4, "little") + head[4:]) == []
    with pytest.raises(ValueError, match="a frame of 16777217 bytes"):
        Splitter().feed((LARGEST + 1).to_bytes(4, "little") + head[4:])


def test_a_frame_without_payload_is_a_head_only() -> None:
    """An answer takes nine bytes."""
    assert Splitter().feed(frame(ACK, 7)) == [(ACK, 7, b"")]
    assert len(frame(ACK, 7)) == 9


def test_names_stand_one_behind_the_other() -> None:
    """Each is found where the one before has ended."""
    payload = named(":kitchen") + named(":anna") + b"rest"
    name, end = name_in(payload)
    assert name == ":kitchen"
    assert name_in(payload, end) == (":anna", len(payload) - 4)


@pytest.mark.parametrize("payload", [b"", b"\x05abcd", b"\x01"])
def test_a_name_that_is_cut_off_is_refused(payload: bytes) -> None:
    """A payload is believed no further than it goes."""
    with pytest.raises(ValueError, match="name"):
        name_in(payload)


@pytest.mark.parametrize(
    ("channel", "owner"),
    [
        (":specific.ds-0123456789abcdef!xyz", "ds-0123456789abcdef"),
        ("a:with.dots.ds-0123456789abcdef!", "ds-0123456789abcdef"),
        (":specific.ds-0123456789abcdef", ""),
        (":specific.ds-0123456789abcde!xyz", ""),
        (":specific.xx-0123456789abcdef!xyz", ""),
        (":thumbnails", ""),
    ],
)
def test_a_channel_tells_whose_it_is(channel: str, owner: str) -> None:
    """Only a name that a layer has made belongs to a process."""
    assert owner_of(channel) == owner


def test_every_kind_has_its_own_number() -> None:
    """No two frames are taken for each other, and a number fits into its byte."""
    values = [getattr(module, name) for name in module.__all__ if name != "LARGEST"]
    kinds = [value for value in values if isinstance(value, int)]
    assert len(set(kinds)) == len(kinds) == 19
    assert all(0 < kind < 256 for kind in kinds)
