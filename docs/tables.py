"""Writes the generated tables of the README and of frameworks.md: `make docs`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from daphne_supervisor.master.signals import markdown_table
from daphne_supervisor.reference import option_table
from tests.frameworks.table import markdown as frameworks

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"signals": markdown_table, "options": option_table},
    "docs/frameworks.md": {"frameworks": frameworks},
}


def filled(page: str) -> str:
    """Return the text of `page` with each table between its two marks made anew."""
    text = (ROOT / page).read_text()
    for name, table in PAGES[page].items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        content = table().strip()
        text, count = pattern.subn(lambda mark: f"{mark[1]}\n{content}\n\n{mark[2]}", text)  # noqa: B023
        if count != 1:
            message = f"{page} has {count} places for the table {name!r}, not one"
            raise ValueError(message)
    return text


if __name__ == "__main__":
    for page in PAGES:
        (ROOT / page).write_text(filled(page))
