"""Text to value: what each kind of option takes, and how it refuses the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daphne_supervisor import values

if TYPE_CHECKING:
    from collections.abc import Callable

NO_SECRET = "what is given is not the path of a file, nor env: and the name of a variable"
NO_MEMORY = "is not an amount of memory above 0 (as in 400M, 1.5G or 80%)"
EXPORTED = [getattr(values, name) for name in values.__all__]
PARSERS = [each for each in EXPORTED if callable(each) and not isinstance(each, type)]


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (values.port, "0", 0),
        (values.port, "65535", 65535),
        (values.descriptor, "0", 0),
        (values.verbosity, "3", 3),
        (values.count, "1", 1),
        (values.limit, "0", 0),
        (values.threads, "0", 0),
        (values.threads, "40", 40),
        (values.window_bits, "9", 9),
        (values.window_bits, "15", 15),
        (values.memory_level, "1", 1),
        (values.memory_level, "9", 9),
        (values.workers, "4", 4),
        (values.workers, " Auto ", values.AUTO),
        (values.seconds, "0", 0.0),
        (values.seconds, "2.5", 2.5),
        (values.seconds_or_none, "0", None),
        (values.seconds_or_none, "30", 30.0),
        (values.seconds_or_negative, "-1", -1.0),
        (values.positive_seconds, "0.1", 0.1),
        (values.percentage, "0", 0.0),
        (values.percentage, " 12.5% ", 12.5),
        (values.percentage, "100", 100.0),
        (values.mode, "0660", 0o660),
        (values.mode, "0", 0),
        (values.mode, "777", 0o777),
        (values.memory, "300000000", values.Memory(300_000_000)),
        (values.memory, "1", values.Memory(1)),
        (values.memory, "1k", values.Memory(1024)),
        (values.memory, " 400 M ", values.Memory(400 * 2**20)),
        (values.memory, "400MB", values.Memory(400 * 2**20)),
        (values.memory, "1.5GiB", values.Memory(3 * 2**29)),
        (values.memory, "80%", values.Memory(percent=80.0)),
        (values.h2c, "off", "off"),
        (values.h2c, "trusted", "trusted"),
        (values.h2c, "any", "any"),
        (values.stream_window, "65535", 65_535),
        (values.websocket_drain, "close", "close"),
        (values.websocket_drain, "wait", "wait"),
        (values.client_certs, "none", "none"),
        (values.client_certs, "optional", "optional"),
        (values.client_certs, "required", "required"),
        (values.tls_version, "1.2", "1.2"),
        (values.tls_version, "1.3", "1.3"),
        (values.protocols, "h2,http/1.1", ("h2", "http/1.1")),
        (values.protocols, "http/1.1", ("http/1.1",)),
        (values.secret, "/run/secret", "/run/secret"),
        (values.secret, "env:SECRET", "env:SECRET"),
        (values.interface, "auto", "auto"),
        (values.interface, "wsgi", "wsgi"),
        (values.proxy_protocol, "off", "off"),
        (values.proxy_protocol, "optional", "optional"),
        (values.proxy_protocol, "required", "required"),
        (values.module, "hooks", "hooks"),
        (values.module, "project.hooks", "project.hooks"),
        (values.mark, "Yes", True),
        (values.mark, "0", False),
        (values.text, "", ""),
        (values.path, "a b", "a b"),
        (values.endpoint, "tcp:1", ("tcp:1",)),
        (values.application, "a.b:c.d", "a.b:c.d"),
        (values.header_name, "X-Real-IP", "X-Real-IP"),
        (values.header_value, "", ""),
        (values.header_value, "my server/1", "my server/1"),
        (values.log_format, "%(message)s", "%(message)s"),
        (values.allowed_peers, "", ()),
        (values.allowed_peers, "*", ("*",)),
        (values.allowed_peers, "10.0.0.0/8, ::1 unix", ("10.0.0.0/8", "::1", "unix")),
    ],
)
def test_what_is_meant_is_understood(
    parse: Callable[[str], object], text: str, value: object
) -> None:
    """Every spelling that the documentation mentions gives the value it stands for."""
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "complaint"),
    [
        (values.port, "x", "'x' is not a port number (0 to 65535)"),
        (values.port, "65536", "'65536' is not a port number (0 to 65535)"),
        (values.port, "-1", "'-1' is not a port number (0 to 65535)"),
        (values.port, "1_0", "'1_0' is not a port number (0 to 65535)"),
        (values.port, "٣", "'٣' is not a port number (0 to 65535)"),
        (
            values.descriptor,
            "2147483648",
            "'2147483648' is not the number of a file descriptor (0 or more)",
        ),
        (values.backlog, "65536", "'65536' is not a number of waiting connections (1 to 65535)"),
        (values.verbosity, "4", "'4' is not a verbosity (0 to 3)"),
        (values.count, "0", "'0' is not a whole number above 0"),
        (values.workers, "0", "'0' is not a number of workers (1 or more, or auto)"),
        (values.workers, "many", "'many' is not a number of workers (1 or more, or auto)"),
        (values.seconds, "-1", "'-1' is not a number of seconds (0 or more)"),
        (values.seconds, "nan", "'nan' is not a number of seconds (0 or more)"),
        (values.seconds, "soon", "'soon' is not a number of seconds (0 or more)"),
        (values.positive_seconds, "0", "'0' is not a number of seconds above 0"),
        (values.percentage, "101", "'101' is not a percentage (0 to 100)"),
        (values.percentage, "-1%", "'-1%' is not a percentage (0 to 100)"),
        (values.percentage, "%", "'%' is not a percentage (0 to 100)"),
        (values.mode, "", "'' is not an octal file mode (0 to 777)"),
        (values.mode, "1777", "'1777' is not an octal file mode (0 to 777)"),
        (values.mode, "0o660", "'0o660' is not an octal file mode (0 to 777)"),
        (values.mode, "8", "'8' is not an octal file mode (0 to 777)"),
        (values.memory, "", f"'' {NO_MEMORY}"),
        (values.memory, "M", f"'M' {NO_MEMORY}"),
        (values.memory, "0", f"'0' {NO_MEMORY}"),
        (values.memory, "0.5", f"'0.5' {NO_MEMORY}"),
        (values.memory, "0%", f"'0%' {NO_MEMORY}"),
        (values.memory, "4T", f"'4T' {NO_MEMORY}"),
        (values.memory, "1e308G", f"'1e308G' {NO_MEMORY}"),
        (values.memory, "120%", "'120%' is not a percentage (0 to 100)"),
        (values.h2c, "all", "'all' is not off, trusted or any"),
        (values.stream_window, "65534", "'65534' is not a window (65535 to 2147483647)"),
        (values.websocket_drain, "Wait", "'Wait' is not close or wait"),
        (values.client_certs, "yes", "'yes' is not none, optional or required"),
        (values.tls_version, "1.1", "'1.1' is not 1.2 or 1.3"),
        (values.protocols, "", "'' is not a list of h2 and http/1.1"),
        (values.protocols, "h3", "'h3' is not a list of h2 and http/1.1"),
        (values.secret, "", NO_SECRET),
        (values.secret, "env:", NO_SECRET),
        (values.secret, "hush\0", NO_SECRET),
        (values.proxy_protocol, "on", "'on' is not off, optional or required"),
        (values.interface, "asgi", "'asgi' is not auto, asgi3, asgi2 or wsgi"),
        (values.module, "a.b:c", "'a.b:c' is not the name of a Python module"),
        (values.module, "hooks.", "'hooks.' is not the name of a Python module"),
        (values.mark, "2", "'2' is not yes or no (1, true, yes, on; 0, false, no, off)"),
        (values.path, "", "'' is not a path"),
        (values.path, "a\0b", "'a\\x00b' is not a path"),
        (values.endpoint, "", "'' is not an endpoint string, as in tcp:8000"),
        (
            values.application,
            "app",
            "'app' is not of the form module:attribute, as in myproject.asgi:application",
        ),
        (values.header_name, "", "'' is not the name of a header"),
        (values.header_name, "X Y", "'X Y' is not the name of a header"),
        (
            values.header_value,
            "a\r\nb",
            "'a\\r\\nb' is not the value of a header (printable ASCII)",
        ),
        (
            values.allowed_peers,
            "10.0.0.300",
            "'10.0.0.300' is not an IP address, a network in CIDR notation, unix or *",
        ),
    ],
)
def test_a_mistake_is_said_in_one_sentence(
    parse: Callable[[str], object], text: str, complaint: str
) -> None:
    """The complaint shows the text and says what would be right."""
    with pytest.raises(ValueError, match="is not") as caught:
        parse(text)
    assert str(caught.value) == complaint


@pytest.mark.parametrize("text", ["80%", "12.5%", "400"])
def test_an_amount_of_memory_can_be_written_back(text: str) -> None:
    """In a message it stands as it may be given."""
    assert str(values.memory(text)) == text


@pytest.mark.parametrize("text", ["%(nothing)s", "%(message)", "%(message)d", "no field"])
def test_a_format_that_cannot_log_is_refused(text: str) -> None:
    """A wrong format would cost every log line, so it is tried before it is used."""
    with pytest.raises(ValueError, match="is not a log format"):
        values.log_format(text)


@pytest.mark.parametrize("parse", PARSERS)
@given(text=st.text())
def test_no_text_is_answered_with_anything_but_a_complaint(
    parse: Callable[[str], object], text: str
) -> None:
    """Whatever is typed gives a value or one line, never another exception."""
    try:
        parse(text)
    except ValueError as error:
        assert str(error).isprintable()  # noqa: PT017 - most texts raise nothing
