"""What an option is: the metadata that a configuration field carries.

An option is described once, on the field that holds its value. The command line, the environment
variables, the keys of the configuration file, `--help` and the option table of the README are all
read from that description, so they cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from daphne_supervisor import values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "ENVIRONMENT_PREFIX",
    "Option",
    "duration",
    "number",
    "option",
    "options_of",
    "path",
    "size",
]

ENVIRONMENT_PREFIX = "DAPHNE_SUPERVISOR_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """How one field of the configuration is spelled by its users.

    `flags` are the spellings on the command line, short one first; a name without dashes is the
    positional argument. `parse` turns one text into the value, or raises `ValueError` with what is
    wrong ("'x' is not a port number"). With `repeated` every text counts, and `parse`
    returns tuples that are joined; a `switch` takes no value on the command line. `absence` is the
    flag that stands for the empty value, `blank` tells that an empty environment variable does too.
    `fallback` is a foreign environment variable that is asked last. `standard` says in words what
    holds when nothing is given and the default alone does not tell.
    """

    flags: tuple[str, ...]
    parse: Callable[[str], Any]
    help: str
    metavar: str = ""
    unit: str = ""
    standard: str = ""
    absence: str = ""
    fallback: str = ""
    repeated: bool = False
    switch: bool = False
    blank: bool = False
    in_file: bool = True

    @property
    def name(self) -> str:
        """The long flag, as error messages write it."""
        return self.flags[-1]

    @property
    def key(self) -> str:
        """The key in a configuration file: the long flag without its dashes."""
        return self.name.lstrip("-").lower()

    @property
    def variable(self) -> str:
        """The environment variable."""
        return ENVIRONMENT_PREFIX + self.key.upper().replace("-", "_")


def option(
    *flags: str,
    parse: Callable[[str], object],
    help: str,  # noqa: A002 - the word of argparse and click
    default: object = None,
    **more: Any,
) -> Any:
    """Return a dataclass field that is set by the option described.

    The type is Any, as that of `dataclasses.field` is: the annotation of the field is what counts.
    """
    described = Option(flags=flags, parse=parse, help=help, **more)
    return field(default=default, metadata={"option": described})


def number(*flags: str, **more: Any) -> Any:
    """Return an option that is a whole number above 0, unless `parse` says otherwise."""
    return option(*flags, **{"parse": values.count, "metavar": "NUMBER", **more})


def size(*flags: str, **more: Any) -> Any:
    """Return an option that is a number of bytes above 0, unless `parse` says otherwise."""
    return option(*flags, **{"parse": values.count, "metavar": "BYTES", "unit": "B", **more})


def path(*flags: str, **more: Any) -> Any:
    """Return an option that is the name of a file or a directory."""
    return option(*flags, **{"parse": values.path, **more})


def duration(*flags: str, **more: Any) -> Any:
    """Return an option that is a number of seconds above 0, unless `parse` says otherwise."""
    words = {"parse": values.positive_seconds, "metavar": "SECONDS", "unit": "s"}
    return option(*flags, **{**words, **more})


def options_of(section: type[Any]) -> Iterator[tuple[str, Option, object]]:
    """Yield (field name, option, default) of every field of `section` that is an option."""
    for each in fields(section):
        if "option" in each.metadata:
            yield each.name, each.metadata["option"], each.default
