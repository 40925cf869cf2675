r"""The environment file: lines of NAME=value, as shells, containers and service managers have them.

    # a comment
    DATABASE_URL=postgres://db/shop   # after a blank, a comment too
    export GREETING="two words, and \" is a quote"
    PATTERN='as it is: \ " $HOME'

Blanks around a value are dropped. Nothing is expanded, so that a password may hold a dollar sign;
between double quotes a backslash escapes a quote, a backslash and a dollar sign, and the letters n,
r and t after it stand for what they do in most languages. A name that is given twice means the
last one.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from daphne_supervisor.errors import UsageError

__all__ = ["Variable", "read"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # POSIX.1-2017 section 8.1
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"')
_SINGLE = re.compile(r"'([^']*)'")
_ESCAPE = re.compile(r'\\([\\"$nrt])')
_COMMENT = re.compile(r"(?:^|\s+)#.*")
_MEANINGS = {"n": "\n", "r": "\r", "t": "\t"}


class Variable(NamedTuple):
    """The value of a variable, and what a message calls the place where it was set."""

    value: str
    origin: str


def read(path: str, origin: str = "--env-file") -> dict[str, Variable]:
    """Return the variables that the file sets, by their names.

    `origin` is what named the file. Raises `UsageError`, which names the file and the line.
    """
    variables = {}
    for number, line in enumerate(_lines(path, origin), 1):
        try:
            assigned = _assignment(line.strip())
        except ValueError as error:
            message = f"{path}:{number}: {error}"
            raise UsageError(message) from None
        if assigned is not None:
            name, value = assigned
            variables[name] = Variable(value, f"{path}:{number}: {name}")
    return variables


def _lines(path: str, origin: str) -> list[str]:
    try:
        # Editors of some systems put a byte order mark first, which utf-8-sig takes away.
        with open(path, encoding="utf-8-sig") as file:
            return file.read().split("\n")
    except OSError as error:
        message = f"{origin} {path}: cannot be read: {error.strerror}"
        raise UsageError(message) from None
    except UnicodeDecodeError as error:
        message = f"{origin} {path}: is no UTF-8: {error.reason} at byte {error.start + 1}"
        raise UsageError(message) from None


def _assignment(line: str) -> tuple[str, str] | None:
    """Return (name, value), or None for a line that says nothing.

    No message shows what may be a value: it may be a secret.
    """
    if not line or line.startswith("#"):
        return None
    left, equals, right = line.partition("=")
    name = re.sub(r"^export\s+", "", left)
    if not equals:
        message = "is not of the form NAME=value"
        raise ValueError(message)
    if not _NAME.fullmatch(name):
        message = f"{name!r} is not the name of a variable (letters, digits and _)"
        raise ValueError(message)
    if "\0" in right:
        message = f"{name}: holds a zero byte, which no variable can"
        raise ValueError(message)
    return name, _value(name, right.strip())


def _value(name: str, text: str) -> str:
    """Return what `text`, as it stands after the equals sign, means."""
    if text[:1] not in {'"', "'"}:
        return _COMMENT.sub("", text)
    quoted = (_DOUBLE if text.startswith('"') else _SINGLE).match(text)
    if quoted is None:
        message = f"{name}: the quote is not closed on its line"
        raise ValueError(message)
    if _COMMENT.sub("", text[quoted.end() :]).strip():
        message = f"{name}: something follows the closing quote"
        raise ValueError(message)
    if text.startswith("'"):
        return quoted[1]
    return _ESCAPE.sub(lambda found: _MEANINGS.get(found[1], found[1]), quoted[1])
