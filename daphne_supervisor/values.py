"""Text to value: one function for each kind of value that an option takes.

Each returns the value or raises `ValueError` with a sentence that lacks its subject, because only
the caller knows whether the text came from a flag, a variable or a file. Texts of the user's are
shown by their `repr`, which keeps every message on one line.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "AUTO",
    "allowed_peers",
    "application",
    "backlog",
    "count",
    "descriptor",
    "endpoint",
    "header_name",
    "header_value",
    "limit",
    "log_format",
    "mark",
    "path",
    "port",
    "positive_seconds",
    "seconds",
    "seconds_or_negative",
    "seconds_or_none",
    "text",
    "verbosity",
    "workers",
]

AUTO = 0
"""The number of workers that stands for "as many as there are processors to run them"."""

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
# RFC 9110 section 5.6.2, the characters of a token.
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_HIGHEST_PORT = 65535
_HIGHEST_DESCRIPTOR = 2**31 - 1  # a C int
_HIGHEST_BACKLOG = 65535  # what every kernel takes: Linux once kept it in 16 bits
_HIGHEST_VERBOSITY = 3


def _refuse(given: str, wanted: str) -> ValueError:
    return ValueError(f"{given!r} is not {wanted}")


def _whole(given: str, wanted: str) -> int:
    # int() would also take "1_000", " 5" and digits of other scripts.
    digits = given.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()):
        raise _refuse(given, wanted)
    return int(given)


def _ranged(wanted: str, lowest: int, highest: float = math.inf) -> Callable[[str], int]:
    def parse(given: str) -> int:
        value = _whole(given, wanted)
        if not lowest <= value <= highest:
            raise _refuse(given, wanted)
        return value

    return parse


port = _ranged("a port number (0 to 65535)", 0, _HIGHEST_PORT)
descriptor = _ranged("the number of a file descriptor (0 or more)", 0, _HIGHEST_DESCRIPTOR)
backlog = _ranged("a number of waiting connections (1 to 65535)", 1, _HIGHEST_BACKLOG)
verbosity = _ranged("a verbosity (0 to 3)", 0, _HIGHEST_VERBOSITY)
count = _ranged("a whole number above 0", 1)
limit = _ranged("a whole number (0 for no limit)", 0)


def workers(given: str) -> int:
    """Return a number of processes, or `AUTO` for the text "auto"."""
    if given.strip().lower() == "auto":
        return AUTO
    wanted = "a number of workers (1 or more, or auto)"
    value = _whole(given.strip(), wanted)
    if value < 1:
        raise _refuse(given, wanted)
    return value


def _number(given: str, wanted: str) -> float:
    try:
        value = float(given)
    except ValueError:
        raise _refuse(given, wanted) from None
    if not math.isfinite(value):
        raise _refuse(given, wanted)
    return value


def seconds_or_negative(given: str) -> float:
    """Return a time in seconds; negative ones mean "for ever" to the options that take them."""
    return _number(given, "a number of seconds")


def seconds(given: str) -> float:
    """Return a time in seconds, 0 or more."""
    wanted = "a number of seconds (0 or more)"
    value = _number(given, wanted)
    if value < 0:
        raise _refuse(given, wanted)
    return value


def seconds_or_none(given: str) -> float | None:
    """Return a time in seconds, or None for 0: no limit."""
    return seconds(given) or None


def positive_seconds(given: str) -> float:
    """Return a time in seconds, above 0."""
    wanted = "a number of seconds above 0"
    value = _number(given, wanted)
    if value <= 0:
        raise _refuse(given, wanted)
    return value


def mark(given: str) -> bool:
    """Return what a switch is set to in the environment or in a file."""
    word = given.strip().lower()
    if word not in _TRUE | _FALSE:
        raise _refuse(given, "yes or no (1, true, yes, on; 0, false, no, off)")
    return word in _TRUE


def text(given: str) -> str:
    """Return `given` as it is."""
    return given


def endpoint(given: str) -> tuple[str, ...]:
    """Return one endpoint string; what it says is looked into when it is its turn."""
    if not given:
        raise _refuse(given, "an endpoint string, as in tcp:8000")
    return (given,)


def path(given: str) -> str:
    """Return `given`, which must be something that a file can be called."""
    if not given or "\0" in given:
        raise _refuse(given, "a path")
    return given


def application(given: str) -> str:
    """Return `given`, which must be of the form module:attribute."""
    module, _, attribute = given.partition(":")
    if not (module and attribute):
        raise _refuse(given, "of the form module:attribute, as in myproject.asgi:application")
    return given


def header_name(given: str) -> str:
    """Return the name of a header field (RFC 9110 section 5.1)."""
    if not given or not _TOKEN.issuperset(given):
        raise _refuse(given, "the name of a header")
    return given


def header_value(given: str) -> str:
    """Return what can stand as a header's value: printable ASCII on one line."""
    if not (given.isascii() and given.isprintable()):
        raise _refuse(given, "the value of a header (printable ASCII)")
    return given


def log_format(given: str) -> str:
    """Return a format of `logging` in the percent style, which must work on a record."""
    import logging  # noqa: PLC0415 - only for those who bring their own format

    try:
        logging.Formatter(given).format(logging.makeLogRecord({}))
    except (KeyError, TypeError, ValueError):
        raise _refuse(given, "a log format (percent style, fields of a LogRecord)") from None
    return given


def allowed_peers(given: str) -> tuple[str, ...]:
    """Return the addresses, networks and words of a list with commas or blanks between them."""
    peers = tuple(given.replace(",", " ").split())
    for peer in peers:
        if peer not in {"*", "unix"}:
            _check_network(peer)
    return peers


def _check_network(given: str) -> None:
    import ipaddress  # noqa: PLC0415 - 10 ms, and most people use the default

    try:
        ipaddress.ip_network(given, strict=False)
    except ValueError:
        raise _refuse(given, "an IP address, a network in CIDR notation, unix or *") from None
