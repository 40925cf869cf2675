"""Twisted's notation, read and written."""

from __future__ import annotations

import pytest

from daphne_supervisor import notation


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("", [[""]]),
        ("tcp", [["tcp"]]),
        ("tcp:80", [["tcp"], ["80"]]),
        ("tcp:port=80:", [["tcp"], ["port", "80"], [""]]),
        (r"tcp:80:interface=\:\:1", [["tcp"], ["80"], ["interface", "::1"]]),
        (r"unix:a\=b=c=d", [["unix"], ["a=b", "c=d"]]),
        (r"unix:\\", [["unix"], ["\\"]]),
    ],
)
def test_parameters_are_read_as_twisted_reads_them(text: str, parameters: list[list[str]]) -> None:
    """A colon divides, the first equals sign names, a backslash takes away both meanings."""
    assert list(notation.parameters(text)) == parameters


def test_a_backslash_at_the_end_is_a_mistake() -> None:
    """There is nothing that it could escape."""
    with pytest.raises(ValueError, match="a backslash at the end"):
        list(notation.parameters("unix:a\\"))


@pytest.mark.parametrize("value", ["", "plain", "::1", "a=b", "\\", "a\\:b"])
def test_what_is_escaped_is_one_value(value: str) -> None:
    """What was written is what is read."""
    assert list(notation.parameters(f"x:{notation.escape(value)}")) == [["x"], [value]]


def test_the_kind_stands_in_front() -> None:
    """Even if it makes no sense."""
    assert [notation.kind(text) for text in ("tcp:80", "", "a=b:c")] == ["tcp", "", "a"]
