"""The section of the configuration that is about TLS."""

from __future__ import annotations

from dataclasses import fields

from daphne_supervisor import config
from daphne_supervisor.config_tls import Tls
from daphne_supervisor.options import options_of


def test_it_is_a_section_like_the_others() -> None:
    """Who reads the configuration need not know in which module a section is written."""
    assert config.Tls is Tls
    assert Tls in [each for _, _, each in config.SECTIONS]
    assert [name for name, _, _ in options_of(Tls)] == [each.name for each in fields(Tls)]


def test_nothing_of_it_is_asked_for() -> None:
    """Plain text is the default: most servers stand behind something that terminates TLS."""
    assert Tls().certfile is None
    assert Tls().client_certs == "none"


def test_a_handshake_does_not_have_the_time_of_a_request() -> None:
    """It needs two round trips, and nothing of the client's but a few hundred bytes."""
    assert 0 < Tls().handshake_timeout < config.Http().head_timeout
