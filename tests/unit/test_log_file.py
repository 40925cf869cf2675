"""The file named by --log-config: a configuration of Python's `logging`, in its two forms."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from daphne_supervisor import log_setup
from daphne_supervisor.errors import UsageError
from daphne_supervisor.log_file import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOML = """
version = 1
[formatters.plain]
format = "TOML %(name)s %(message)s"
[handlers.file]
class = "logging.FileHandler"
filename = "{directory}/log"
formatter = "plain"
[loggers."tests.log_file"]
level = "DEBUG"
handlers = ["file"]
"""
JSON = {
    "version": 1,
    "formatters": {"plain": {"format": "JSON %(name)s %(message)s"}},
    "handlers": {"file": {"class": "logging.FileHandler", "formatter": "plain"}},
    "loggers": {"tests.log_file": {"level": "DEBUG", "handlers": ["file"]}},
}
INI = """
[loggers]
keys = root, ours
[handlers]
keys = file
[formatters]
keys = plain
[logger_root]
handlers =
[logger_ours]
qualname = tests.log_file
level = DEBUG
handlers = file
[handler_file]
class = FileHandler
args = ("{directory}/log",)
formatter = plain
[formatter_plain]
format = INI %(name)s %(message)s
"""


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Leave logging as it was."""
    yield
    log_setup.replace(lambda: None)


def written(path: Path, text: str) -> str:
    """Write the file and return its path."""
    path.write_text(text)
    return str(path)


def complaint(path: Path, text: str) -> str:
    """Return the one line that tells what is wrong with `text`, without the file's name."""
    written(path, text)
    with pytest.raises(UsageError) as caught:
        log_setup.replace(load(str(path)))
    assert str(caught.value).isprintable()
    return str(caught.value).removeprefix(f"--log-config {path}: ")


@pytest.mark.parametrize("form", ["TOML", "JSON", "INI"])
def test_each_form_says_where_the_log_goes(tmp_path: Path, form: str) -> None:
    """The name's ending tells the form; loggers that exist go on."""
    below, unnamed = (logging.getLogger(f"tests.{name}") for name in ("log_file.below", "unnamed"))
    described = json.loads(json.dumps(JSON))
    described["handlers"]["file"]["filename"] = f"{tmp_path}/log"
    texts = {
        "TOML": ("d.toml", TOML.format(directory=tmp_path)),
        "JSON": ("d.JSON", json.dumps(described)),
        "INI": ("logging.conf", INI.replace("{directory}", str(tmp_path))),
    }
    name, text = texts[form]
    log_setup.replace(load(written(tmp_path / name, text)))
    logging.getLogger("tests.log_file").debug("one")
    below.debug("two")
    assert (tmp_path / "log").read_text() == (
        f"{form} tests.log_file one\n{form} tests.log_file.below two\n"
    )
    assert not unnamed.disabled


def test_loggers_are_silenced_by_whoever_says_so(tmp_path: Path) -> None:
    """The dictionary's own word for it keeps its meaning."""
    logger = logging.getLogger("tests.log_file.silenced")
    text = "version = 1\ndisable_existing_loggers = true"
    log_setup.replace(load(written(tmp_path / "d.toml", text)))
    assert logger.disabled


def test_reading_alone_changes_nothing(tmp_path: Path) -> None:
    """What is read takes effect when it is called, not before."""
    load(written(tmp_path / "d.toml", TOML.format(directory=tmp_path)))
    assert not (tmp_path / "log").exists()
    assert logging.getLogger("tests.log_file").handlers == []


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("d.toml", "version = 1\nx = ?", "Invalid value (at line 2, column 5)"),
        (
            "d.json",
            "{\n 1",
            "Expecting property name enclosed in double quotes: line 2 column 2 (char 3)",
        ),
        ("d.json", "[1]", "is no dictionary"),
        (
            "d.ini",
            "a = 1",
            "File contains no section headers. file: '<string>', line: 1 'a = 1'",
        ),
        (
            "d.ini",
            "[a]\nb",
            "Source contains parsing errors: '<string>' [line 2]: 'b'",
        ),
    ],
)
def test_a_file_that_cannot_be_parsed_is_named(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    """The parser's own words, on one line, say where it stumbled."""
    assert complaint(tmp_path / name, text) == words


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("d.toml", "", "dictionary doesn't specify a version"),
        (
            "d.toml",
            "version = 1\n[root]\nlevel = 'LOUD'",
            "Unable to configure root logger: Unknown level: 'LOUD'",
        ),
        (
            "d.toml",
            "version = 1\n[root]\nhandlers = ['x']",
            "Unable to configure root logger: Unable to add handler 'x': no 'x'",
        ),
        (
            "d.toml",
            "version = 1\n[handlers.x]\nclass = 'none.X'",
            "Unable to configure handler 'x': Cannot resolve 'none.X': No module named 'none'",
        ),
        (
            "d.toml",
            "version = 1\n[handlers.x]\nclass = 'logging.FileHandler'\nfilename = '/none/x'",
            "Unable to configure handler 'x': [Errno 2] No such file or directory: '/none/x'",
        ),
        ("d.toml", "version = 1\nloggers = 3", "'int' object is not iterable"),
        ("d.ini", "", "no 'formatters'"),
    ],
)
def test_what_the_file_asks_for_in_vain_is_told_with_its_cause(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    """One line: what `logging` was doing, and why it could not."""
    assert complaint(tmp_path / name, text) == words


def test_an_error_without_words_is_told_by_its_kind(tmp_path: Path) -> None:
    """Handlers are anybody's classes, and so are their mistakes."""
    text = """
[loggers]
keys = root
[handlers]
keys = x
[formatters]
keys =
[logger_root]
handlers = x
[handler_x]
class = logging.Handler
args = [][0:{}.fromkeys([]).popitem()]
"""
    assert complaint(tmp_path / "d.ini", text) == "no 'popitem(): dictionary is empty'"
    text = text.replace("[][0:{}.fromkeys([]).popitem()]", "(next(iter(())),)")
    assert complaint(tmp_path / "d.ini", text) == "StopIteration"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """In the words of the system."""
    with pytest.raises(UsageError) as caught:
        load(f"{tmp_path}/none.toml")
    assert str(caught.value) == (
        f"--log-config {tmp_path}/none.toml: cannot be read: No such file or directory"
    )
