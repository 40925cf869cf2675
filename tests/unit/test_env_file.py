"""The environment file: lines of NAME=value, as shells and containers have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daphne_supervisor.env_file import Variable, read
from daphne_supervisor.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of an environment file that does not exist yet."""
    return tmp_path / "env"


def values(path: Path, text: str) -> dict[str, str]:
    """Write `text` to the file, and return what it sets."""
    path.write_text(text)
    return {name: variable.value for name, variable in read(str(path)).items()}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("X=1", "1"),
        ("X=", ""),
        ("X=a=b", "a=b"),
        ("  X= a b \t", "a b"),
        ("X=1\r", "1"),
        ("export X=1", "1"),
        ("export\tX=1", "1"),
        ("X=$HOME/${Y}`z`", "$HOME/${Y}`z`"),
        ("X=http://h/p#fragment", "http://h/p#fragment"),
        ("X=1 # one", "1"),
        ("X=# nothing", ""),
        ("X=a\\nb", "a\\nb"),
        ('X="a b"', "a b"),
        ('X=" a # b "  # c', " a # b "),
        (r'X="\" \\ \$ \n\r\t \x"', '" \\ $ \n\r\t \\x'),
        (r'X="a\\"', "a\\"),
        (r"X='\n " + "\" $Y '", '\\n " $Y '),
        ("X=''", ""),
        ("X=it's", "it's"),
        ("X=Zoë", "Zoë"),
    ],
)
def test_a_value_is_what_a_reader_of_the_line_expects(file: Path, line: str, value: str) -> None:
    """Blanks around it are dropped, quotes keep them, and nothing is expanded."""
    assert values(file, line) == {"X": value}


def test_blank_lines_and_comments_say_nothing(file: Path) -> None:
    """The rest counts, in its order; of one name the last."""
    text = "\ufeff# all\n\n  # indented\n \t\nA=1\n#A=2\nB=2\nA=3"
    assert list(values(file, text).items()) == [("A", "3"), ("B", "2")]


def test_each_variable_knows_its_line(file: Path) -> None:
    """So that a mistake in a value can be found."""
    file.write_text("\nA=1\n")
    assert read(str(file)) == {"A": Variable("1", f"{file}:2: A")}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("hunter2", "is not of the form NAME=value"),
        ("export", "is not of the form NAME=value"),
        ("=1", "'' is not the name of a variable (letters, digits and _)"),
        ("1X=1", "'1X' is not the name of a variable (letters, digits and _)"),
        ("X =1", "'X ' is not the name of a variable (letters, digits and _)"),
        ("X\x1b=1", "'X\\x1b' is not the name of a variable (letters, digits and _)"),
        ("X=a\0b", "X: holds a zero byte, which no variable can"),
        ('X="hunter2', "X: the quote is not closed on its line"),
        ('X="hunter2\\"', "X: the quote is not closed on its line"),
        ("X='hunter2", "X: the quote is not closed on its line"),
        ("X='a'b", "X: something follows the closing quote"),
        ('X="a" b', "X: something follows the closing quote"),
    ],
)
def test_a_mistake_names_file_and_line_and_no_secret(file: Path, line: str, complaint: str) -> None:
    """What may be a value is not shown."""
    file.write_text(f"A=1\n{line}\nB=2")
    with pytest.raises(UsageError) as caught:
        read(str(file))
    assert str(caught.value) == f"{file}:2: {complaint}"
    assert "hunter2" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(file: Path) -> None:
    """With what named it: a flag, a variable or a file."""
    with pytest.raises(UsageError) as caught:
        read(str(file), "DAPHNE_SUPERVISOR_ENV_FILE")
    assert str(caught.value) == (
        f"DAPHNE_SUPERVISOR_ENV_FILE {file}: cannot be read: No such file or directory"
    )


def test_a_file_that_is_no_text_is_named(file: Path) -> None:
    """The place of the first wrong byte is told."""
    file.write_bytes(b"A=1\nB=\xff")
    with pytest.raises(UsageError) as caught:
        read(str(file))
    assert str(caught.value) == f"--env-file {file}: is no UTF-8: invalid start byte at byte 7"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_no_text_is_answered_with_anything_but_a_complaint(file: Path, text: str) -> None:
    """Whatever is in the file sets variables or gives one line, never another exception."""
    file.write_text(text)
    try:
        read(str(file))
    except UsageError as error:
        assert str(error).isprintable()  # noqa: PT017 - most texts raise nothing


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n")))
def test_every_value_can_be_written(file: Path, value: str) -> None:
    """Between double quotes anything can stand, once quotes and backslashes are escaped."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    assert values(file, f'X="{escaped}"') == {"X": value}
