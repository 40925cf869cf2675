"""The configuration file: TOML, of its own or as a table in a pyproject.toml.

Values become the texts that would say the same on the command line, so that they go through the
same parsers. TOML is parsed without places, so the line of a key is looked up for messages in the
text itself; where the text is not plain enough for that, the key alone has to do.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from daphne_supervisor import values
from daphne_supervisor.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daphne_supervisor.options import Option

__all__ = ["Entry", "read", "spelling"]

_TOOL = "daphne-supervisor"


class Entry(NamedTuple):
    """What a file says for an option: the texts, and what a message calls the place."""

    option: Option
    texts: tuple[str, ...]
    origin: str


def spelling(key: str) -> str:
    """Return the form in which keys are compared: Daphne's flags mix underscores and dashes."""
    return key.replace("_", "-")


def read(path: str, origin: str, options: dict[str, Option]) -> Iterator[Entry]:
    """Yield what the file says. `origin` is what named it; `options` are by the `spelling` of keys.

    Raises `UsageError`.
    """
    text = _text(path, origin)
    table = _table(text, path, origin)
    for key, value in table.items():
        line = _line(text, key, _TOOL if _is_project(path) else "")
        place = f"{path}:{line}: {key}" if line else f"{path}: {key}"
        option = options.get(spelling(key))
        if option is None:
            message = f"{place}: no such option"
            raise UsageError(message)
        yield Entry(option, _texts(option, value, place), place)


def _is_project(path: str) -> bool:
    return os.path.basename(path) == "pyproject.toml"


def _text(path: str, origin: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        message = f"{origin} {path}: cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        message = f"{origin} {path}: is no TOML: {error.reason} at byte {error.start + 1}"
    raise UsageError(message)


def _table(text: str, path: str, origin: str) -> dict[str, Any]:
    """Return the table of options in the file: all of it, or our part of a pyproject.toml."""
    import tomllib  # noqa: PLC0415 - only for those who have a file

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = f"{origin} {path}: is no TOML: {error}"
        raise UsageError(message) from None
    if not _is_project(path):
        return table
    tools = table.get("tool")
    found = tools.get(_TOOL) if isinstance(tools, dict) else None
    if not isinstance(found, dict):
        message = f"{origin} {path}: has no table [tool.{_TOOL}]"
        raise UsageError(message)
    return found


def _line(text: str, key: str, tool: str) -> int | None:
    """Return the number of the only line that can set `key`; below [tool.`tool`] if one is named.

    Lines of a string may look like keys: of two candidates neither is named.
    """
    name = rf"""["']?{re.escape(key)}["']?"""
    header = rf"""\s*\[\s*tool\s*\.\s*["']?{re.escape(tool)}["']?\s*"""
    ours, found = not tool, []
    for number, line in enumerate(text.split("\n"), 1):
        inside = re.match(
            rf"{header}\.\s*{name}\s*\]" if tool else rf"\s*\[+\s*{name}\s*[.\]]", line
        )
        if inside or (ours and re.match(rf"\s*{name}\s*[.=]", line)):
            found.append(number)
        if re.match(r"\s*\[", line):
            ours = bool(tool and re.match(rf"{header}\]", line))
    return found[0] if len(found) == 1 else None


def _texts(option: Option, value: object, origin: str) -> tuple[str, ...]:
    """Return a TOML value as the texts that would say the same on the command line."""
    if option.repeated and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    # A number in octal notation would have become another one by now.
    allowed = str if option.parse is values.mode else str | int | float
    if isinstance(value, bool) == option.switch and isinstance(value, allowed):
        return (str(value),)
    wanted = "true or false" if option.switch else "a string or a number"
    if option.parse is values.mode:
        wanted = "a string of octal digits, as in '0660'"
    if option.repeated:
        wanted = "a string or a list of strings"
    message = f"{origin}: must be {wanted}"
    raise UsageError(message)
