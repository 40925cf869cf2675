"""The command line: flags in, texts out, and the help.

Click splits the arguments; what they mean is not its business, so that a value from a variable or a
file is read in the same way as one from a flag. Its messages are replaced by lines of our own
form. As with Daphne, the beginning of a long flag is enough if no other flag begins so; an
underscore and a dash in it are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from daphne_supervisor.config import SECTIONS, Config
from daphne_supervisor.errors import UsageError
from daphne_supervisor.options import options_of
from daphne_supervisor.reference import default_text
from daphne_supervisor.sources import every_option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daphne_supervisor.options import Option

__all__ = ["PROGRAM", "Request", "parse"]

PROGRAM = "daphne-supervisor"

_SUMMARY = "Serve an ASGI application from several worker processes."
_EPILOGUE = (
    "Every option may also be set by the variable DAPHNE_SUPERVISOR_ and its long name in capitals,"
    " or in the file named by --config. Flags win over variables, variables over the file."
)
_GENERAL = [
    ("--version", "Show the version and exit."),
    ("-h, --help", "Show this text and exit."),
]


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line says: the texts of each option by its key, or a text to be shown."""

    flags: dict[str, tuple[str, ...]]
    help: str = ""
    version: bool = False


def parse(arguments: Sequence[str]) -> Request:
    """Return what `arguments`, without the program's name, ask for. Raises `UsageError`."""
    options = list(every_option())
    names = _long_names(options)
    command = _Command(
        PROGRAM,
        params=_parameters(options),
        help=_SUMMARY,
        epilog=_EPILOGUE,
        add_help_option=False,
        options_metavar="[OPTIONS]",
        context_settings={"token_normalize_func": _completion(names)},
    )
    try:
        context = command.make_context(PROGRAM, list(arguments))
    except (click.NoSuchOption, click.BadOptionUsage) as error:
        raise UsageError(_sentence(error, names)) from None
    if context.params["help"]:
        return Request({}, help=context.get_help())
    return Request(_flags(options, context.params), version=context.params["version"])


def _identifier(option: Option) -> str:
    return option.key.replace("-", "_")


def _parameters(options: list[Option]) -> list[click.Parameter]:
    parameters: list[click.Parameter] = [
        click.Option(["--version"], is_flag=True, default=False),
        click.Option(["-h", "--help"], is_flag=True, default=False),
    ]
    for option in options:
        parameters.append(_parameter(option))
        if option.absence:
            parameters.append(click.Option([option.absence], is_flag=True, default=False))
    return parameters


def _parameter(option: Option) -> click.Parameter:
    name = _identifier(option)
    if not option.name.startswith("-"):
        # Any number is taken, so that the complaint about a second one is ours.
        return click.Argument([name], nargs=-1, type=click.UNPROCESSED, metavar=option.name)
    if option.switch:
        return click.Option([*option.flags, name], is_flag=True, default=False)
    return click.Option([*option.flags, name], multiple=True, type=click.UNPROCESSED)


def _long_names(options: list[Option]) -> list[str]:
    """Return the long flags without their dashes, in the form in which they are compared."""
    flags = ["--help", "--version"]
    for option in options:
        flags += [each for each in (option.name, option.absence) if each.startswith("--")]
    return [flag.removeprefix("--").replace("_", "-") for flag in flags]


def _completion(names: list[str]) -> Callable[[str], str]:
    """Return what click calls for each flag: it completes those that can be only one."""

    def complete(given: str) -> str:
        name = given.replace("_", "-")
        found = [each for each in names if each.startswith(name)]
        # One letter is a short flag, which is never the beginning of a long one.
        if name in names or len(name) == 1 or len(found) != 1:
            return name
        return found[0]

    return complete


def _sentence(error: click.NoSuchOption | click.BadOptionUsage, names: list[str]) -> str:
    if isinstance(error, click.NoSuchOption):
        return f"{error.option_name}: no such option{_suggestion(error, names)}"
    takes_none = "does not take a value" in error.message
    return f"{error.option_name}: {'takes no value' if takes_none else 'a value is missing'}"


def _suggestion(error: click.NoSuchOption, names: list[str]) -> str:
    given = error.option_name.removeprefix("--")
    meant = [f"--{name}" for name in names if given and name.startswith(given)]
    if not error.option_name.startswith("--"):
        return ""
    if meant:
        return f", but several begin so: {', '.join(meant)}"
    return f"; did you mean {' or '.join(error.possibilities)}?" if error.possibilities else ""


def _flags(options: list[Option], given: dict[str, object]) -> dict[str, tuple[str, ...]]:
    flags = {}
    for option in options:
        texts = given[_identifier(option)]
        if isinstance(texts, tuple) and texts:
            flags[option.key] = texts
        elif texts is True:
            flags[option.key] = ("yes",)
        if option.absence and given[option.absence.lstrip("-").replace("-", "_")]:
            flags[option.key] = ("no" if option.switch else "",)
    if len(flags.get("application", ())) > 1:
        message = f"{flags['application'][1]!r}: unexpected argument; there is one APPLICATION"
        raise UsageError(message)
    return flags


class _Command(click.Command):
    """A command whose help is grouped as the configuration is."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the argument, and each section with its options."""
        del ctx  # the options are ours, not the context's
        for title, section in [("Argument", Config), *((each[1], each[2]) for each in SECTIONS)]:
            with formatter.section(title):
                formatter.write_dl(
                    [_row(option, value) for _, option, value in options_of(section)]
                )
        with formatter.section("General"):
            formatter.write_dl(_GENERAL)


def _row(option: Option, default: object) -> tuple[str, str]:
    spelling = ", ".join(option.flags)
    names = f"{spelling} {option.metavar}" if option.metavar else spelling
    standard = default_text(option, default)
    return names, f"{option.help}  [{standard}]" if standard else option.help
