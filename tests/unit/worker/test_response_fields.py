"""The headers that applications give."""

from __future__ import annotations

from typing import Any

import pytest

from daphne_supervisor.worker import response_fields
from daphne_supervisor.worker.response_fields import (
    blame,
    field,
    learn,
    length_of,
    line,
    same_length,
    trailer_fields,
)


def test_known_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that makes up names fills no memory; the names are still checked."""
    monkeypatch.setattr(response_fields, "names", {})
    monkeypatch.setattr(response_fields, "_MAX_NAMES", 2)
    names = [b"x-%d" % number for number in range(4)]
    assert [learn(name) for name in names] == [None] * 4
    assert learn(b"Date") == b"date"
    assert response_fields.names == dict.fromkeys(names[:2])
    with pytest.raises(ValueError, match="not a token"):
        learn(b"a b")


def test_known_lines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is never sent twice does not push out for ever what is; nothing secret, or long, stays.

    A line that is known is sent as it was the first time.
    """
    lines: dict[tuple[bytes, bytes], bytes] = {}
    monkeypatch.setattr(response_fields, "sent_lines", lines)
    monkeypatch.setattr(response_fields, "_MAX_LINES", 2)
    for header in ((b"X-One", b"1"), (b"Set-Cookie", b"secret"), (b"x-long", bytes(256).hex())):
        value: Any = header[1]
        line(header[0], value if isinstance(value, bytes) else value.encode())
    assert lines == {(b"X-One", b"1"): b"X-One: 1\r\n"}
    for number in range(4):
        line(b"x", b"%d" % number)
    assert len(lines) <= 2
    assert lines[b"x", b"3"] == b"x: 3\r\n"


def test_fields_of_http2() -> None:
    """In lower case, without blanks around the value."""
    assert field(b"X-Own", b" a b\t") == (b"x-own", b"a b")


@pytest.mark.parametrize("check", [line, field])
def test_a_value_is_one_line_of_bytes(check: Any) -> None:
    """Whatever carries it."""
    with pytest.raises(ValueError, match="control byte"):
        check(b"a", b"b\r\nc: d")
    with pytest.raises(TypeError):
        check(b"a", "text")


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ([1], "not a pair"),
        ([(b"a", b"b", b"c")], "not a pair"),
        ([("a", b"b")], "Header name 'a' expected to be `bytes`"),
        ([(b"a", "b")], "Header value 'b' expected to be `bytes`"),
        ([], "cannot be encoded"),
    ],
)
def test_who_is_to_blame(headers: list[Any], words: str) -> None:
    """The error names the header."""
    assert words in str(blame(headers))


def test_lengths() -> None:
    """A number, and the same one if it is said twice."""
    assert same_length(b"05", length_of(b"5")) == 5
    with pytest.raises(ValueError, match="differ"):
        same_length(b"6", 5)
    for wrong in (b"", b"-1", b"1" * 20):
        with pytest.raises(ValueError, match="not a number"):
            length_of(wrong)
    text: Any = "5"
    with pytest.raises(TypeError):
        length_of(text)


def test_trailers() -> None:
    """Fields like others."""
    assert trailer_fields([(b"X-Sum", b" 1 ")]) == [(b"x-sum", b"1")]


@pytest.mark.parametrize(
    "header",
    [
        (b"Content-Length", b"1"),
        (b"Transfer-Encoding", b"x"),
        (b"Content-Type", b"x"),
        (b"Set-Cookie", b"x"),
        (b":status", b"200"),
        (b"a", b"\n"),
        (b"a", "text"),
        b"a",
    ],
)
def test_what_cannot_stand_in_trailers(header: Any) -> None:
    """What is needed before the body, and what could not be sent anywhere."""
    with pytest.raises(ValueError):  # noqa: PT011 - the words are each rule's own
        trailer_fields([header])
