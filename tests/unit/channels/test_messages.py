"""Messages as bytes: both ways of packing carry what the specification allows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daphne_supervisor.channels import messages
from daphne_supervisor.channels.messages import fastest, json_pack, json_unpack, pack, unpack

WAYS = [(pack, unpack), (json_pack, json_unpack)]

KEYS = st.sampled_from(["type", "", "\0", "\0b", "\0\0b", "b", "text"])

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(alphabet=st.characters(exclude_categories=["Cs"]))
    | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(("packed", "unpacked"), WAYS, ids=["fastest", "json"])
@given(message=st.dictionaries(KEYS, VALUES, max_size=3))
def test_a_message_arrives_as_it_was_sent(packed: Any, unpacked: Any, message: Any) -> None:
    """Bytes stay bytes and text text, at any depth; a key may be what bytes are written with."""
    assert unpacked(packed(message)) == message


@pytest.mark.parametrize(("packed", "unpacked"), WAYS, ids=["fastest", "json"])
def test_tuples_arrive_as_lists(packed: Any, unpacked: Any) -> None:
    """The specification has it so; other bytes-like values arrive as bytes."""
    message = {"point": (1, 2), "data": bytearray(b"x"), "view": memoryview(b"y")}
    assert unpacked(packed(message)) == {"point": [1, 2], "data": b"x", "view": b"y"}


@pytest.mark.parametrize(("packed", "unpacked"), WAYS, ids=["fastest", "json"])
def test_what_is_no_data_is_refused(packed: Any, unpacked: Any) -> None:
    """An object of a class of its own is an error for the one who sends it."""
    del unpacked
    with pytest.raises(TypeError):
        packed({"what": object()})


def test_json_has_no_keys_but_strings() -> None:
    """It would turn a number into a string without a word."""
    with pytest.raises(TypeError, match="keys of a message are strings, not int"):
        json_pack({"a": {1: 2}})


def test_json_takes_the_place_of_msgpack() -> None:
    """Where msgpack is not installed, the layer works as well."""

    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name)

    assert fastest(absent) == (json_pack, json_unpack)
    assert fastest() != (json_pack, json_unpack)
    assert messages.pack({}) == b"\x80"
