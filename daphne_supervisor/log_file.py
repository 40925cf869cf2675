"""The file named by --log-config: a configuration of Python's `logging`, in one of its two forms.

A name that ends in .toml or .json holds a dictionary for `logging.config.dictConfig`; any other
holds what `logging.config.fileConfig` reads. Unlike there, loggers that exist already stay enabled
unless the file says otherwise: ours exist by then, and without them the log tells of no worker.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from daphne_supervisor.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["load"]


def load(path: str) -> Callable[[], None]:
    """Read the file and return what puts it into effect; both raise `UsageError`."""
    reader = _READERS.get(os.path.splitext(path)[1].lower(), _from_ini)
    try:
        with open(path, encoding="utf-8") as file:
            put = reader(file.read())
    except OSError as error:
        message = f"--log-config {path}: cannot be read: {error.strerror}"
        raise UsageError(message) from None
    except ValueError as error:
        raise UsageError(_complaint(path, error)) from None

    def put_into_effect() -> None:
        try:
            put()
        except Exception as error:  # noqa: BLE001 - handlers are classes of anybody's
            raise UsageError(_complaint(path, error)) from None

    return put_into_effect


def _from_toml(text: str) -> Callable[[], None]:
    import tomllib  # noqa: PLC0415 - only for those who have such a file

    return _dictionary(tomllib.loads(text))


def _from_json(text: str) -> Callable[[], None]:
    import json  # noqa: PLC0415 - as above

    return _dictionary(json.loads(text))


def _dictionary(settings: Any) -> Callable[[], None]:
    from logging.config import dictConfig  # noqa: PLC0415 - as above

    if not isinstance(settings, dict):
        message = "is no dictionary"
        raise ValueError(message)  # noqa: TRY004 - the file is wrong, not our caller
    settings.setdefault("disable_existing_loggers", False)
    return lambda: dictConfig(settings)


def _from_ini(text: str) -> Callable[[], None]:
    import configparser  # noqa: PLC0415 - as above
    from logging.config import fileConfig  # noqa: PLC0415 - as above

    parser = configparser.ConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise ValueError(str(error)) from None
    return lambda: fileConfig(parser, disable_existing_loggers=False)


_READERS = {".toml": _from_toml, ".json": _from_json}


def _complaint(path: str, error: BaseException) -> str:
    """Return one line with all that is known: `logging` tells what it did, and why in the cause."""
    words = ""
    for each in _causes(error):
        if each not in words:
            words += f": {each}"
    return f"--log-config {path}{words}"


def _causes(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        told = " ".join(str(error).split())
        yield f"no {told}" if isinstance(error, KeyError) else told or type(error).__name__
        error = error.__cause__
