"""Text to value: one function for each kind of value that an option takes.

Each returns the value or raises `ValueError` with a sentence that lacks its subject, because only
the caller knows whether the text came from a flag, a variable or a file. Texts of the user's are
shown by their `repr`, which keeps every message on one line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "AUTO",
    "Memory",
    "allowed_peers",
    "application",
    "backlog",
    "client_certs",
    "count",
    "descriptor",
    "endpoint",
    "h2c",
    "header_name",
    "header_value",
    "limit",
    "log_format",
    "mark",
    "memory",
    "memory_level",
    "mode",
    "module",
    "path",
    "percentage",
    "port",
    "positive_seconds",
    "protocols",
    "proxy_protocol",
    "seconds",
    "seconds_or_negative",
    "seconds_or_none",
    "secret",
    "stream_window",
    "text",
    "threads",
    "tls_version",
    "verbosity",
    "websocket_drain",
    "window_bits",
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
_HIGHEST_MODE = 0o777
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


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
threads = _ranged("a number of threads (0 or more)", 0)
# What zlib's deflateInit2 takes for raw streams: RFC 7692 allows 8 bits too, zlib does not.
window_bits = _ranged("a window size in bits (9 to 15)", 9, 15)
# RFC 9113 section 6.9.2: clients begin with 65535 before they know better, and no more is a window.
stream_window = _ranged("a window (65535 to 2147483647)", 65535, 2**31 - 1)
memory_level = _ranged("a memory level of zlib (1 to 9)", 1, 9)


def workers(given: str) -> int:
    """Return a number of processes, or `AUTO` for the text "auto"."""
    if given.strip().lower() == "auto":
        return AUTO
    wanted = "a number of workers (1 or more, or auto)"
    value = _whole(given.strip(), wanted)
    if value < 1:
        raise _refuse(given, wanted)
    return value


def _number(given: str, wanted: str, digits: str | None = None) -> float:
    """Return the number that `given` is, or `digits`, the part of it that should be one."""
    try:
        value = float(given if digits is None else digits)
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


def percentage(given: str) -> float:
    """Return a part of a hundred, from 0 to 100; a percent sign may follow it."""
    wanted = "a percentage (0 to 100)"
    value = _number(given, wanted, given.strip().removesuffix("%"))
    if not 0 <= value <= 100:  # noqa: PLR2004 - what a percentage is
        raise _refuse(given, wanted)
    return value


def mode(given: str) -> int:
    """Return the file mode that octal digits stand for."""
    if not given or not set(given) <= set("01234567") or int(given, 8) > _HIGHEST_MODE:
        raise _refuse(given, "an octal file mode (0 to 777)")
    return int(given, 8)


@dataclass(frozen=True, slots=True)
class Memory:
    """An amount of memory: `size` in bytes, or `percent` of what there is for all workers."""

    size: int = 0
    percent: float = 0.0

    def __str__(self) -> str:
        """Return it as it may be written."""
        return f"{self.percent:g}%" if self.percent else str(self.size)


def memory(given: str) -> Memory:
    """Return an amount of memory: `400M`, `1.5G`, `300000000`, or `80%`."""
    wanted = "an amount of memory above 0 (as in 400M, 1.5G or 80%)"
    text = given.strip().lower()
    if text.endswith("%"):
        percent = percentage(text)
        if percent > 0:
            return Memory(percent=percent)
        raise _refuse(given, wanted)
    number = text.removesuffix("b").removesuffix("i")
    unit = number[-1:] if number[-1:] in _UNITS else ""
    size = _number(given, wanted, number.removesuffix(unit)) * _UNITS[unit]
    if not 1 <= size < math.inf:
        raise _refuse(given, wanted)
    return Memory(int(size))


def websocket_drain(given: str) -> str:
    """Return `close` or `wait`."""
    if given not in {"close", "wait"}:
        raise _refuse(given, "close or wait")
    return given


def h2c(given: str) -> str:
    """Return `off`, `trusted` or `any`."""
    if given not in {"off", "trusted", "any"}:
        raise _refuse(given, "off, trusted or any")
    return given


def client_certs(given: str) -> str:
    """Return `none`, `optional` or `required`."""
    if given not in {"none", "optional", "required"}:
        raise _refuse(given, "none, optional or required")
    return given


def tls_version(given: str) -> str:
    """Return `1.2` or `1.3`."""
    if given not in {"1.2", "1.3"}:
        raise _refuse(given, "1.2 or 1.3")
    return given


def protocols(given: str) -> tuple[str, ...]:
    """Return the protocols of a list with commas or blanks between them, by their ALPN names."""
    names = tuple(given.replace(",", " ").split())
    if not names or not {"h2", "http/1.1"}.issuperset(names):
        raise _refuse(given, "a list of h2 and http/1.1")
    return names


def secret(given: str) -> str:
    """Return where a secret stands, a path or `env:NAME`. What is wrong is not repeated.

    Somebody may have given the secret itself; then it must not be in the log as well.
    """
    if not given or "\0" in given or given == "env:":
        message = "what is given is not the path of a file, nor env: and the name of a variable"
        raise ValueError(message)
    return given


def proxy_protocol(given: str) -> str:
    """Return `off`, `optional` or `required`."""
    if given not in {"off", "optional", "required"}:
        raise _refuse(given, "off, optional or required")
    return given


def interface(given: str) -> str:
    """Return `auto`, `asgi3`, `asgi2` or `wsgi`."""
    if given not in {"auto", "asgi3", "asgi2", "wsgi"}:
        raise _refuse(given, "auto, asgi3, asgi2 or wsgi")
    return given


def module(given: str) -> str:
    """Return `given`, which must be the dotted name of a Python module."""
    if not all(part.isidentifier() for part in given.split(".")):
        raise _refuse(given, "the name of a Python module")
    return given


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
