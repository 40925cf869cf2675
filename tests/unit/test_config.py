"""The configuration: frozen data, one section for each concern."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest

from daphne_supervisor.config import SECTIONS, Bind, Config, Process
from daphne_supervisor.options import Option, options_of

# What Daphne 4.2.3 takes (its command-line reference), and the default it gives. Deviations from it
# are in the second table.
DAPHNE = {
    "--bind": None,
    "--port": None,
    "--unix-socket": None,
    "--fd": None,
    "--endpoint": (),
    "--verbosity": 1,
    "--http-timeout": None,
    "--access-log": None,
    "--log-fmt": "%(asctime)-15s %(levelname)-8s %(message)s",
    "--websocket_timeout": 86400,
    "--websocket_connect_timeout": 5,
    "--ping-interval": 20,
    "--ping-timeout": 30,
    "--websocket-max-message-size": 1048576,
    "--websocket-max-frame-size": 1048576,
    "--application-close-timeout": 10,
    "--root-path": "",
    "--proxy-headers": False,
    "--proxy-headers-host": "X-Forwarded-For",
    "--proxy-headers-port": "X-Forwarded-Port",
    "--server-name": "daphne",
}
OURS = {
    "--certfile": None,
    "--keyfile": None,
    "--keyfile-password": None,
    "--ca-certs": None,
    "--client-certs": "none",
    "--tls-min": "1.2",
    "--ciphers": "",
    "--alpn": ("h2", "http/1.1"),
    "--tls-handshake-timeout": 10,
    "--workers": 1,
    "--threads": None,
    "--thread-wait-warning": 5.0,
    "--graceful-timeout": 25,
    "--ready-timeout": 60,
    "--worker-timeout": 30,
    "--keep-alive": 75,
    "--backlog": 2048,
    "--proxy-protocol": "off",
    "--forwarded-allow-ips": ("127.0.0.1", "::1", "unix"),
    "--pid-file": None,
    "--chdir": "",
    "--app-dir": ".",
    "--config": None,
    "--env-file": None,
    "--log-config": None,
    "--status-file": None,
    "--hooks": None,
    "--preload": False,
    "--interface": "auto",
    "--factory": False,
    "--daphne-compat": False,
    "--reload-surge": 1,
    "--user": None,
    "--group": None,
    "--umask": None,
    "--uds-mode": 0o666,
    "--uds-group": None,
    "--max-requests": 0,
    "--max-lifetime": 0,
    "--max-memory": None,
    "--recycle-jitter": 10,
    "--min-lifetime": 60,
    "--shutdown-delay": 0,
    "--ws-drain": "close",
    "--ws-drain-time": 10,
    "--disconnect-delay": None,
    "--head-timeout": 30,
    "--body-min-rate": 240,
    "--write-timeout": 60,
    "--max-request-line": 8192,
    "--max-header-count": 128,
    "--max-header-size": 65536,
    "--max-body-size": 0,
    "--max-connections": 0,
    "--max-inflight": 0,
    "--http2": True,
    "--h2c": "trusted",
    "--http2-max-streams": 100,
    "--http2-max-running": 200,
    "--http2-max-resets": 300,
    "--http2-max-control-frames": 1000,
    "--http2-max-continuations": 64,
    "--http2-max-requests": 0,
    "--http2-stream-window": 131072,
    "--websocket-max-queue": 32,
    "--websocket-max-fragments": 1024,
    "--websocket-compression": False,
    "--websocket-compression-min-size": 1024,
    "--websocket-compression-max-ratio": 100,
    "--websocket-compression-window-bits": 12,
    "--websocket-compression-memory-level": 5,
    "--websocket-compression-context-takeover": False,
    "--channels-max-queue": 67_108_864,
    "--channels-max-unread": 33_554_432,
    "--channels-stuck-after": 1,
}
SHORT = {
    "-b": "--bind",
    "-p": "--port",
    "-u": "--unix-socket",
    "-e": "--endpoint",
    "-v": "--verbosity",
    "-t": "--http-timeout",
    "-s": "--server-name",
    "-w": "--workers",
}


def described() -> list[tuple[Option, object]]:
    """Return every option with its default."""
    sections: list[type] = [Config, *(section for _, _, section in SECTIONS)]
    return [(each, default) for section in sections for _, each, default in options_of(section)]


def test_every_option_of_daphne_is_there_with_its_default() -> None:
    """A command line written for Daphne means the same here."""
    defaults = {each.name: default for each, default in described()}
    assert {name: defaults[name] for name in DAPHNE} == DAPHNE
    assert {name: defaults[name] for name in OURS} == OURS
    assert defaults.keys() == {"APPLICATION", *DAPHNE, *OURS}, "an option without a test"


def test_short_flags_are_daphnes_and_one_more() -> None:
    """The one-letter flags are those people have in their fingers."""
    short = {each.flags[0]: each.name for each, _ in described() if len(each.flags) > 1}
    assert short == SHORT


@pytest.mark.parametrize("each", [each for each, _ in described()], ids=lambda each: each.name)
def test_every_option_explains_itself(each: Option) -> None:
    """Each option has a sentence, and a name for its value where it takes one."""
    assert each.help.endswith(".")
    assert bool(each.metavar) != (each.switch or each.name == "APPLICATION")


def test_no_two_options_share_a_name() -> None:
    """No flag, key or variable means two things."""
    options = [each for each, _ in described()]
    flags = [flag for each in options for flag in each.flags]
    keys = [each.key.replace("_", "-") for each in options]
    assert len(flags) == len(set(flags))
    assert len(keys) == len(set(keys))


def test_the_sections_are_those_of_the_configuration() -> None:
    """What is listed is what there is: no section is forgotten in help or files."""
    names = [name for name, _, _ in SECTIONS]
    assert names == [each.name for each in fields(Config) if each.name != "application"]
    assert [type(getattr(Config(application="a:b"), name)) for name in names] == [
        section for _, _, section in SECTIONS
    ]


def test_every_default_is_what_its_own_parser_could_give() -> None:
    """A default written out on the command line changes nothing."""
    for each, default in described():
        if isinstance(default, str | int | float) and not each.switch and default != "":
            assert each.parse(each.standard or str(default)) == default, each.name


def test_a_configuration_does_not_change() -> None:
    """All processes may trust what they have read."""
    config = Config(application="a:b", bind=Bind(port=1), process=Process(workers=2))
    with pytest.raises(FrozenInstanceError):
        config.bind.port = 2  # type: ignore[misc]


def test_the_application_is_required() -> None:
    """There is no configuration without something to serve."""
    with pytest.raises(TypeError, match="application"):
        Config()
