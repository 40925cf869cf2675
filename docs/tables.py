"""Writes the generated tables of the README: `python docs/tables.py`, also `make docs`."""

from __future__ import annotations

import re
from pathlib import Path

from daphne_supervisor.master.signals import markdown_table
from daphne_supervisor.reference import option_table

README = Path(__file__).parents[1] / "README.md"
TABLES = {"signals": markdown_table, "options": option_table}


def filled(text: str) -> str:
    """Return `text` with each table between its two marks made anew."""
    for name, table in TABLES.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        content = table().strip()
        text, count = pattern.subn(lambda mark: f"{mark[1]}\n{content}\n\n{mark[2]}", text)  # noqa: B023
        if count != 1:
            message = f"README.md has {count} places for the table {name!r}, not one"
            raise ValueError(message)
    return text


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))
