"""The section of the configuration that is about the channel layer's broker."""

from __future__ import annotations

from dataclasses import fields

from daphne_supervisor import config
from daphne_supervisor.broker.connection import BUSY
from daphne_supervisor.broker.frames import LARGEST
from daphne_supervisor.config_channels import Channels
from daphne_supervisor.options import options_of


def test_every_field_is_an_option() -> None:
    """Nothing that steers the broker is out of reach of the user."""
    assert config.Channels is Channels
    assert Channels in [each for _, _, each in config.SECTIONS]
    assert [name for name, _, _ in options_of(Channels)] == [each.name for each in fields(Channels)]


def test_the_limits_fit_together() -> None:
    """The largest message that there may be does not make a worker stuck, and can wait."""
    limits = Channels()
    assert limits.max_unread > LARGEST + BUSY
    assert limits.max_queue > LARGEST
