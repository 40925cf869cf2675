"""Where the configuration comes from: the command line, the environment, a file, the defaults.

Each source gives texts, the first source that has one for an option wins, and only the winner is
parsed. So every value goes through the same parser wherever it was written, and a mistake is
reported under the name it was made with: a flag, a variable, or a key of a file.

The order is: flag, DAPHNE_SUPERVISOR_*, file, the variables that platforms set (WEB_CONCURRENCY,
ASGI_THREADS), default. A variable that is set to nothing counts as not set, because that is how
container platforms spell "no value".
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from daphne_supervisor import values
from daphne_supervisor.config import SECTIONS, Config
from daphne_supervisor.errors import UsageError
from daphne_supervisor.options import ENVIRONMENT_PREFIX, Option, options_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from daphne_supervisor.config import Process, Proxy

__all__ = ["configuration", "every_option", "unknown_variables"]

_TABLE = "daphne-supervisor"


@dataclass(frozen=True, slots=True)
class _Given:
    """What a user wrote for an option: the texts, and the name to complain to."""

    texts: tuple[str, ...]
    origin: str


_Choices = dict[str, _Given]
"""What was given, by the key of the option."""


def every_option() -> Iterator[Option]:
    """Yield every option: the application first, then section by section."""
    sections: list[type[Any]] = [Config, *(section for _, _, section in SECTIONS)]
    for section in sections:
        yield from (option for _, option, _ in options_of(section))


def configuration(
    flags: Mapping[str, tuple[str, ...]],
    environ: Mapping[str, str],
    count_processors: Callable[[], tuple[int, str]],
) -> Config:
    """Return the configuration that the user asked for.

    `flags` holds the texts of each option that stands on the command line, by its key.
    `count_processors` returns a number of workers and the reason for it; it is called for "auto".
    Raises `UsageError`.
    """
    choices = _platform(environ)
    nearer = _environment(environ) | _command_line(flags)
    if "config" in nearer:
        choices |= _file(nearer["config"])
    choices |= nearer
    if "application" not in choices:
        message = "APPLICATION is missing: give module:attribute, as in myproject.asgi:application"
        raise UsageError(message)
    sections = {name: section(**_parsed(section, choices)) for name, _, section in SECTIONS}
    _check_proxy(sections["proxy"], choices)
    sections["process"] = _counted(sections["process"], count_processors)
    return Config(**_parsed(Config, choices), **sections)


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the variables with our prefix that mean nothing to us, sorted.

    They are no error: a container platform makes such names of its own for a service of our name.
    """
    known = {option.variable for option in every_option()}
    return sorted(
        name for name in environ if name.startswith(ENVIRONMENT_PREFIX) and name not in known
    )


def _parsed(section: type[Any], choices: _Choices) -> dict[str, Any]:
    return {
        name: _value(option, choices[option.key])
        for name, option, _ in options_of(section)
        if option.key in choices
    }


def _value(option: Option, given: _Given) -> Any:
    try:
        parsed = [option.parse(text) for text in given.texts]
    except ValueError as error:
        message = f"{given.origin}: {error}"
        raise UsageError(message) from None
    return tuple(chain.from_iterable(parsed)) if option.repeated else parsed[-1]


def _check_proxy(proxy: Proxy, choices: _Choices) -> None:
    for key in ("proxy-headers-host", "proxy-headers-port"):
        if key in choices and not proxy.proxy_headers:
            message = f"{choices[key].origin}: needs --proxy-headers as well"
            raise UsageError(message)


def _counted(process: Process, count_processors: Callable[[], tuple[int, str]]) -> Process:
    if process.workers != values.AUTO:
        return process
    workers, reason = count_processors()
    return replace(process, workers=workers, workers_reason=reason)


def _command_line(flags: Mapping[str, tuple[str, ...]]) -> _Choices:
    return {
        option.key: _Given(flags[option.key], option.name)
        for option in every_option()
        if option.key in flags
    }


def _environment(environ: Mapping[str, str]) -> _Choices:
    choices = {}
    for option in every_option():
        text = environ.get(option.variable, "")
        if text.strip() or (option.blank and option.variable in environ):
            texts = tuple(text.split()) if option.repeated else (text,)
            choices[option.key] = _Given(texts, option.variable)
    return choices


def _platform(environ: Mapping[str, str]) -> _Choices:
    return {
        option.key: _Given((environ[option.fallback],), option.fallback)
        for option in every_option()
        if environ.get(option.fallback, "").strip()
    }


def _file(given: _Given) -> _Choices:
    path = given.texts[-1]
    options = {_spelling(option.key): option for option in every_option() if option.in_file}
    choices = {}
    for key, value in _table(path, given.origin).items():
        option = options.get(_spelling(key))
        if option is None:
            message = f"{path}: {key}: no such option"
            raise UsageError(message)
        origin = f"{path}: {key}"
        choices[option.key] = _Given(_texts(option, value, origin), origin)
    return choices


def _spelling(key: str) -> str:
    """Return the form in which keys are compared: Daphne's flags mix underscores and dashes."""
    return key.replace("_", "-")


def _table(path: str, origin: str) -> dict[str, Any]:
    """Return the table of options in the file: all of it, or our part of a pyproject.toml."""
    import tomllib  # noqa: PLC0415 - only for those who have a file

    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        message = f"{origin} {path}: cannot be read: {error.strerror}"
        raise UsageError(message) from None
    except ValueError as error:
        message = f"{origin} {path}: is no TOML: {error}"
        raise UsageError(message) from None
    if os.path.basename(path) != "pyproject.toml":
        return table
    tools = table.get("tool")
    found = tools.get(_TABLE) if isinstance(tools, dict) else None
    if not isinstance(found, dict):
        message = f"{origin} {path}: has no table [tool.{_TABLE}]"
        raise UsageError(message)
    return found


def _texts(option: Option, value: object, origin: str) -> tuple[str, ...]:
    """Return a TOML value as the texts that would say the same on the command line."""
    if option.repeated and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    if isinstance(value, bool) == option.switch and isinstance(value, str | int | float):
        return (str(value),)
    wanted = "true or false" if option.switch else "a string or a number"
    if option.repeated:
        wanted = "a string or a list of strings"
    message = f"{origin}: must be {wanted}"
    raise UsageError(message)
