"""The options as a table, for people."""

from __future__ import annotations

import pytest

from daphne_supervisor.options import Option
from daphne_supervisor.reference import default_text, option_table
from daphne_supervisor.sources import every_option


def described(**more: object) -> Option:
    """Return an option with something particular about it."""
    return Option(flags=("--x",), parse=str, help="It.", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "default", "text"),
    [
        (described(), None, ""),
        (described(), "", ""),
        (described(), 8, "8"),
        (described(), 75.0, "75"),
        (described(), ("a", "b"), "a,b"),
        (described(standard="when needed"), None, "when needed"),
        (described(switch=True), False, ""),
        (described(fallback="THREADS"), 8, "$THREADS or 8"),
    ],
)
def test_a_default_is_told_in_words(option: Option, default: object, text: str) -> None:
    """A reader sees what holds if nothing is given."""
    assert default_text(option, default) == text


def test_every_option_stands_in_the_table() -> None:
    """The table cannot forget an option, because it is made of them."""
    table = option_table()
    for option in every_option():
        assert f"`{option.name}`" in table
        assert f"`{option.variable}`" in table


def test_a_row_tells_all_about_its_option() -> None:
    """Flags, variable, default with its unit, and meaning."""
    rows = option_table().splitlines()
    assert (
        "| `-p`, `--port` | `DAPHNE_SUPERVISOR_PORT` | 8000 when needed |"
        " TCP port to listen on; 0 takes a free one, which is logged. |"
    ) in rows
    assert any("| `DAPHNE_SUPERVISOR_KEEP_ALIVE` | `75` s |" in row for row in rows)
    assert any("`-s`, `--server-name`, `--no-server-name`" in row for row in rows)


def test_the_table_is_markdown() -> None:
    """Every line of a table has the same columns, and a heading stands above it."""
    lines = option_table().splitlines()
    assert lines[0] == "### Argument"
    assert "### WebSocket" in lines
    columns = {line.replace("\\|", "").count("|") for line in lines if line.startswith("|")}
    assert columns == {5}
