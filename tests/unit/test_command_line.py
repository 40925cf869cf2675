"""The command line: flags in, texts out, and the help."""

from __future__ import annotations

import pytest

from daphne_supervisor.command_line import Request, parse
from daphne_supervisor.errors import UsageError
from daphne_supervisor.sources import every_option


def flags(*arguments: str) -> dict[str, tuple[str, ...]]:
    """Return what stands on a command line, without the application."""
    found = parse([*arguments, "a:b"]).flags
    assert found.pop("application") == ("a:b",)
    return found


def complaint(*arguments: str) -> str:
    """Return the one line that tells what is wrong."""
    with pytest.raises(UsageError) as caught:
        parse(arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {}),
        (["-p", "8000"], {"port": ("8000",)}),
        (["-p8000"], {"port": ("8000",)}),
        (["--port=8000"], {"port": ("8000",)}),
        (["--port", ""], {"port": ("",)}),
        (["-v", "2", "-v0"], {"verbosity": ("2", "0")}),
        (["-e", "tcp:1", "-e", "tcp:2"], {"endpoint": ("tcp:1", "tcp:2")}),
        (["--websocket_timeout", "-1"], {"websocket_timeout": ("-1",)}),
        (["--proxy-headers"], {"proxy-headers": ("yes",)}),
        (["-s", "x"], {"server-name": ("x",)}),
        (["--no-server-name"], {"server-name": ("",)}),
        (["-s", "x", "--no-server-name"], {"server-name": ("",)}),
    ],
)
def test_flags_are_split_from_their_values(
    arguments: list[str], expected: dict[str, tuple[str, ...]]
) -> None:
    """Every form that Daphne's users write is understood."""
    assert flags(*arguments) == expected


def test_the_application_may_stand_anywhere_or_be_missing() -> None:
    """It may come from elsewhere, so its absence is not for the command line to judge."""
    assert parse(["a:b", "-p", "1"]).flags == {"application": ("a:b",), "port": ("1",)}
    assert parse([]) == Request({})


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ("--unix", "unix-socket"),
        ("--access", "access-log"),
        ("--websocket-timeout", "websocket_timeout"),
        ("--websocket_con", "websocket_connect_timeout"),
        ("--http_timeout", "http-timeout"),
        ("--proxy-headers-h", "proxy-headers-host"),
    ],
)
def test_the_beginning_of_a_flag_is_enough(given: str, key: str) -> None:
    """As with Daphne; and underscores and dashes are the same."""
    assert flags(given, "1") == {key: ("1",)}


def test_a_whole_flag_is_not_taken_for_the_beginning_of_another() -> None:
    """--proxy-headers is itself, though others begin so."""
    assert flags("--proxy-headers") == {"proxy-headers": ("yes",)}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--nothing-like-it"], "--nothing-like-it: no such option"),
        (["--ws-protocol", "x"], "--ws-protocol: no such option"),
        (["-Z"], "-Z: no such option"),
        (["--prot", "1"], "--prot: no such option; did you mean --port"),
        (
            ["--ping", "1"],
            "--ping: no such option, but several begin so: --ping-interval, --ping-timeout",
        ),
        (["--port"], "--port: a value is missing"),
        (["-p"], "-p: a value is missing"),
        (["--proxy-headers=1"], "--proxy-headers: takes no value"),
        (["a:b", "c:d"], "'c:d': unexpected argument; there is one APPLICATION"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_option(arguments: list[str], line: str) -> None:
    """No block of usage, no traceback."""
    assert complaint(*arguments).startswith(line)


@pytest.mark.parametrize("flag", ["-h", "--help", "--hel"])
def test_the_help_shows_every_option(flag: str) -> None:
    """Options stand in groups, with what they take and what holds without them."""
    text = parse([flag]).help
    assert text.startswith("Usage: daphne-supervisor [OPTIONS] APPLICATION\n")
    for option in every_option():
        assert ", ".join(option.flags) in text
    assert "Listeners:\n" in text
    assert "-p, --port PORT" in text
    assert "[8000 when needed]" in text
    assert "--version" in text


def test_the_version_can_be_asked_for() -> None:
    """Daphne could not tell its own."""
    assert parse(["--version"]).version
    assert not parse(["a:b"]).version
