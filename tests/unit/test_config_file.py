"""The configuration file: TOML, of its own or as a table in a pyproject.toml."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from daphne_supervisor import values
from daphne_supervisor.config_file import Entry, read, spelling
from daphne_supervisor.errors import UsageError
from daphne_supervisor.options import Option

if TYPE_CHECKING:
    from pathlib import Path

PORT = Option(flags=("-p", "--port"), parse=values.port, help="")
MODE = Option(flags=("--uds-mode",), parse=values.mode, help="")
MANY = Option(flags=("--endpoint",), parse=values.endpoint, help="", repeated=True)
SWITCH = Option(flags=("--proxy-headers",), parse=values.mark, help="", switch=True)
UNEVEN = Option(flags=("--websocket_timeout",), parse=values.seconds, help="")
OPTIONS = {spelling(each.key): each for each in (PORT, MODE, MANY, SWITCH, UNEVEN)}


def entries(path: Path, text: str) -> list[Entry]:
    """Write `text` to the file, and return what it says."""
    path.write_text(text)
    return list(read(str(path), "--config", OPTIONS))


def complaint(path: Path, text: str) -> str:
    """Return the one line that tells what is wrong with `text`, without the file's name."""
    with pytest.raises(UsageError) as caught:
        entries(path, text)
    assert str(caught.value).isprintable()
    return str(caught.value).removeprefix(str(path))


@pytest.mark.parametrize(
    ("text", "option", "texts"),
    [
        ("port = 9000", PORT, ("9000",)),
        ("port = '9000'", PORT, ("9000",)),
        ("websocket-timeout = 7.5", UNEVEN, ("7.5",)),
        ("websocket_timeout = 60", UNEVEN, ("60",)),
        ("proxy-headers = true", SWITCH, ("True",)),
        ("endpoint = 'tcp:1'", MANY, ("tcp:1",)),
        ("endpoint = ['tcp:1', 'tcp:2']", MANY, ("tcp:1", "tcp:2")),
        ("uds-mode = '0660'", MODE, ("0660",)),
    ],
)
def test_a_value_becomes_the_texts_of_the_command_line(
    tmp_path: Path, text: str, option: Option, texts: tuple[str, ...]
) -> None:
    """Numbers, strings, switches and lists are written as TOML has them."""
    [entry] = entries(tmp_path / "d.toml", text)
    assert (entry.option, entry.texts) == (option, texts)


def test_in_a_project_file_there_is_a_table_for_us(tmp_path: Path) -> None:
    """Other tools' tables in pyproject.toml are none of our business."""
    text = "[project]\nport = 'x'\n[tool.daphne-supervisor]\nport = 1\n[tool.other]\nport = 'y'\n"
    path = tmp_path / "pyproject.toml"
    assert entries(path, text) == [Entry(PORT, ("1",), f"{path}:4: port")]


@pytest.mark.parametrize("text", ["[tool.other]", "tool = 3", "", "tool.daphne-supervisor = 1"])
def test_a_project_file_without_our_table_is_a_mistake(tmp_path: Path, text: str) -> None:
    """Who names a file means that something is in it."""
    path = tmp_path / "pyproject.toml"
    assert complaint(path, text) == f"--config {path}: has no table [tool.daphne-supervisor]"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\nport = true", ":2: port: must be a string or a number"),
        ("port = [1]", ":1: port: must be a string or a number"),
        ("port = 2020-02-02", ":1: port: must be a string or a number"),
        ("proxy-headers = 'yes'", ":1: proxy-headers: must be true or false"),
        ("endpoint = [1]", ":1: endpoint: must be a string or a list of strings"),
        ("endpoint = false", ":1: endpoint: must be a string or a list of strings"),
        ("uds-mode = 0o660", ":1: uds-mode: must be a string of octal digits, as in '0660'"),
        ("# prot = 1\n  prot = 1", ":2: prot: no such option"),
        ("port = 1\n[http]\nkeep-alive = 1", ":2: http: no such option"),
        ("[http.more]\nport = 1", ":1: http: no such option"),
        ("[[http]]\nport = 1", ":1: http: no such option"),
        ("http.port = 1", ":1: http: no such option"),
        ("'prot' = 1", ":1: prot: no such option"),
        ('"prot" = 1', ":1: prot: no such option"),
        ('port = """\n1\nprot = 1\n"""\nprot = 2', ": prot: no such option"),
        ('"p\\u0072ot" = 1', ": prot: no such option"),
    ],
)
def test_a_mistake_names_file_line_and_key(tmp_path: Path, text: str, line: str) -> None:
    """One finds the place without searching; where it is in doubt no line is named."""
    assert complaint(tmp_path / "d.toml", text) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("port = 1\n[tool.daphne-supervisor]\nprot = 1", ":3: prot: no such option"),
        ("prot = 1\n[ tool . 'daphne-supervisor' ]\nprot = 1", ":3: prot: no such option"),
        ("[tool.daphne-supervisor.http]\nport = 1", ":1: http: no such option"),
        ("[tool]\ndaphne-supervisor = {prot = 1}", ": prot: no such option"),
    ],
)
def test_a_mistake_in_a_project_file_is_found_in_our_table(
    tmp_path: Path, text: str, line: str
) -> None:
    """The same key of another table is not taken for it."""
    assert complaint(tmp_path / "pyproject.toml", text) == line


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The flag or the variable that named it stands before it."""
    with pytest.raises(UsageError) as caught:
        list(read(f"{tmp_path}/none.toml", "DAPHNE_SUPERVISOR_CONFIG", OPTIONS))
    assert str(caught.value) == (
        f"DAPHNE_SUPERVISOR_CONFIG {tmp_path}/none.toml: cannot be read: No such file or directory"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\nport =", "is no TOML: Invalid value (at end of document)"),
        (b"\nport = ?\n", "is no TOML: Invalid value (at line 2, column 8)"),
        (b"\xff", "is no TOML: invalid start byte at byte 1"),
    ],
)
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    """The parser's own words say where it stumbled."""
    path = tmp_path / "d.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        list(read(str(path), "--config", OPTIONS))
    assert str(caught.value) == f"--config {path}: {words}"
