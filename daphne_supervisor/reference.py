"""The options as a table, for people: what the README shows, made from the fields themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daphne_supervisor.config import SECTIONS, Config
from daphne_supervisor.options import Option, options_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["default_text", "option_table"]


def default_text(option: Option, default: object) -> str:
    """Return the default in words, "" where there is nothing to say."""
    if option.standard or default is None or option.switch:
        text = option.standard
    elif isinstance(default, tuple):
        text = ",".join(default)
    elif isinstance(default, float):
        text = f"{default:g}"
    else:
        text = str(default)
    return f"${option.fallback} or {text}" if option.fallback else text


def option_table() -> str:
    """Return every option as Markdown: a heading and a table for each section."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    for title, section in [("Argument", Config), *((each[1], each[2]) for each in SECTIONS)]:
        yield f"### {title}\n"
        yield "| Option | Variable | Default | Meaning |"
        yield "|---|---|---|---|"
        for _, option, default in options_of(section):
            yield _row(option, default)
        yield ""


def _row(option: Option, default: object) -> str:
    flags = ", ".join(f"`{flag}`" for flag in (*option.flags, option.absence) if flag)
    standard = default_text(option, default)
    if standard and not option.standard:
        standard = f"`{standard}`"
    unit = f" {option.unit}" if option.unit and standard and not option.standard else ""
    cells = [flags, f"`{option.variable}`", standard + unit, option.help]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
