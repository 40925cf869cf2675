"""What an option is: the metadata that a configuration field carries."""

from __future__ import annotations

from dataclasses import dataclass

from daphne_supervisor.options import (
    Option,
    duration,
    number,
    option,
    options_of,
    path,
    size,
)


@dataclass(frozen=True)
class Section:
    """A section with an option of each sort, and a field that is none."""

    plain: int = option("-p", "--plain", parse=int, help="A number.", default=3)
    number: int = number("--a-number", help="Another.", default=1)
    size: int = size("--a_size", help="Bytes.", default=2)
    duration: float = duration("--wait", help="Seconds.", default=2.0, parse=float)
    path: str = path("--file", metavar="FILE", help="A file.", default="x")
    derived: str = "no option"


def found() -> dict[str, Option]:
    """Return the options of the section by the names of their fields."""
    return {name: each for name, each, _ in options_of(Section)}


def test_the_fields_of_a_section_are_its_options() -> None:
    """Options come in the order of the fields, with their defaults; other fields are none."""
    assert [(name, default) for name, _, default in options_of(Section)] == [
        ("plain", 3),
        ("number", 1),
        ("size", 2),
        ("duration", 2.0),
        ("path", "x"),
    ]


def test_every_spelling_follows_from_the_long_flag() -> None:
    """The key of the file and the variable are the flag in other letters."""
    described = found()["size"]
    assert (described.name, described.key) == ("--a_size", "a_size")
    assert described.variable == "DAPHNE_SUPERVISOR_A_SIZE"
    assert found()["number"].variable == "DAPHNE_SUPERVISOR_A_NUMBER"


def test_the_argument_has_a_key_and_a_variable_too() -> None:
    """What stands without dashes on the command line can be set elsewhere as well."""
    argument = Option(flags=("APPLICATION",), parse=str, help="It.")
    assert (argument.key, argument.variable) == ("application", "DAPHNE_SUPERVISOR_APPLICATION")


def test_the_sorts_of_options_bring_their_words() -> None:
    """A sort of option gives its unit and what it is called, and leaves the parser open."""
    words = {name: (each.metavar, each.unit) for name, each in found().items()}
    assert words == {
        "plain": ("", ""),
        "number": ("NUMBER", ""),
        "size": ("BYTES", "B"),
        "duration": ("SECONDS", "s"),
        "path": ("FILE", ""),
    }
    assert found()["number"].parse("7") == 7
    assert found()["duration"].parse("-7") == -7.0


def test_the_default_is_the_fields_own() -> None:
    """A section can be made without naming anything."""
    assert Section().plain == 3
    assert Section().derived == "no option"
