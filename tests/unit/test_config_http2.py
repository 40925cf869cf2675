"""The section of the configuration that is about HTTP/2."""

from __future__ import annotations

from dataclasses import fields

import pytest

from daphne_supervisor import config
from daphne_supervisor.command_line import parse
from daphne_supervisor.config_http2 import Http2
from daphne_supervisor.options import options_of


def test_every_field_is_an_option() -> None:
    """Nothing that steers HTTP/2 is out of reach of the user."""
    assert config.Http2 is Http2
    assert [name for name, _, _ in options_of(Http2)] == [each.name for each in fields(Http2)]


@pytest.mark.parametrize(("flag", "text"), [("--http2", "yes"), ("--no-http2", "no")])
def test_it_can_be_switched_off_and_on(flag: str, text: str) -> None:
    """What a file or the environment has said, too."""
    assert parse(["a:b", flag]).flags["http2"] == (text,)


def test_the_limits_fit_together() -> None:
    """A connection may have all its streams running, and those of the page before."""
    limits = Http2()
    assert limits.max_running >= limits.max_streams
    assert limits.max_resets > limits.max_streams
    assert limits.stream_window >= 65_535
