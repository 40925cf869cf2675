"""Endpoint strings: Twisted's notation, read without Twisted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor

from daphne_supervisor.config import Bind
from daphne_supervisor.endpoints import Endpoint, TlsFiles, assemble, native, parse, unwrapped
from daphne_supervisor.errors import BootError, SupervisorError, UsageError

NO_KIND = (
    "is of no kind that is known: tcp:, tcp6:, ssl:, tls:, unix:, fd:, systemd:, haproxy: or that"
    " of an installed plug-in of Twisted"
)
DEFAULT = ("tcp:port=8000:interface=127.0.0.1", "--port")


@pytest.mark.parametrize(
    ("bind", "expected"),
    [
        (Bind(), [DEFAULT]),
        (Bind(host="0.0.0.0"), [("tcp:port=8000:interface=0.0.0.0", "--port")]),
        (Bind(port=0), [("tcp:port=0:interface=127.0.0.1", "--port")]),
        (Bind(host="[::1]", port=1), [(r"tcp:port=1:interface=\:\:1", "--port")]),
        (Bind(host=""), [DEFAULT]),
        (Bind(unix_socket="/tmp/x.sock"), [("unix:/tmp/x.sock", "--unix-socket")]),
        (Bind(unix_socket="a:b=c\\d"), [(r"unix:a\:b\=c\\d", "--unix-socket")]),
        (Bind(fd=0), [("fd:fileno=0", "--fd")]),
        (Bind(endpoints=("tcp:1",)), [("tcp:1", "--endpoint")]),
        (
            Bind(port=9, unix_socket="x", fd=3, endpoints=("unix:y", "ssl:443", "ssl:443")),
            [
                ("fd:fileno=3", "--fd"),
                ("ssl:443", "--endpoint"),
                ("ssl:443", "--endpoint"),
                ("tcp:port=9:interface=127.0.0.1", "--port"),
                ("unix:x", "--unix-socket"),
                ("unix:y", "--endpoint"),
            ],
        ),
    ],
)
def test_listeners_are_assembled_as_daphne_does(
    bind: Bind, expected: list[tuple[str, str]]
) -> None:
    """Only a half-given TCP pair is completed, and the list is sorted and keeps duplicates."""
    assert assemble(bind) == expected


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("web", "admin"), ["LISTEN_FDS web", "LISTEN_FDS admin"]),
        (("", "a\nb"), ["LISTEN_FDS 3", "LISTEN_FDS 'a\\nb'"]),
    ],
)
def test_without_an_option_what_systemd_hands_over_is_listened_on(
    names: tuple[str, ...], labels: list[str]
) -> None:
    """All of it, with names or without; complaints name what stands in the unit file."""
    found = [parse(text, origin, names) for text, origin in assemble(Bind(), names)]
    assert [each.fileno for each in found] == [3, 4]
    assert [each.label for each in found] == labels


@pytest.mark.parametrize(
    "bind",
    [
        Bind(host="::1"),
        Bind(port=0),
        Bind(unix_socket="x"),
        Bind(fd=0),
        Bind(endpoints=("systemd:INET:index=0",)),
    ],
)
def test_with_an_option_what_systemd_hands_over_is_only_what_is_asked_for(bind: Bind) -> None:
    """Who says where to listen means it."""
    assert assemble(bind, ("web",)) == assemble(bind)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp:80", {"port": 80}),
        ("tcp:80:127.0.0.1:5", {"port": 80, "host": "127.0.0.1", "backlog": 5}),
        ("tcp:port=80:backlog=5", {"port": 80, "backlog": 5}),
        (r"tcp:interface=\:\:1:port=80", {"port": 80, "host": "::1"}),
        (r"t\cp:8\0", {"port": 80}),
        ("tcp6:80", {"kind": "tcp", "port": 80, "host": "::"}),
        (r"tcp6:80:7:\:\:1", {"kind": "tcp", "port": 80, "host": "::1", "backlog": 7}),
        ("unix:/x", {"path": "/x", "mode": None}),
        ("unix:/x:660", {"path": "/x", "mode": 0o660}),
        (
            "unix:/x:mode=0o600:lockfile=0:backlog=9",
            {"path": "/x", "mode": 0o600, "backlog": 9},
        ),
        ("unix:/x:mode=000", {"path": "/x", "mode": 0}),
        (r"unix:address=a\:b=c", {"path": "a:b=c"}),
        (r"unix:a\=b", {"path": "a=b"}),
        ("ssl:443", {"port": 443, "tls": TlsFiles("server.pem", "server.pem")}),
        ("ssl:443:privateKey=k", {"port": 443, "tls": TlsFiles("k", "k")}),
        ("ssl:443:k:c:TLS_METHOD", {"port": 443, "tls": TlsFiles("k", "c", method="TLS_METHOD")}),
        (
            "ssl:443:privateKey=k:certKey=c:extraCertChain=h:dhParameters=d:interface=1.2.3.4",
            {"port": 443, "host": "1.2.3.4", "tls": TlsFiles("k", "c", "h", "d")},
        ),
        (
            "ssl:443:backlog=3:sslmethod=TLSv1_2_METHOD",
            {
                "port": 443,
                "backlog": 3,
                "tls": TlsFiles("server.pem", "server.pem", method="TLSv1_2_METHOD"),
            },
        ),
        ("tls:d", {"port": 443, "host": "::", "tls": TlsFiles(directory="d")}),
        (
            "tls:d:8443:5:interface=1.2.3.4",
            {"port": 8443, "host": "1.2.3.4", "backlog": 5, "tls": TlsFiles(directory="d")},
        ),
        ("fd:0", {"fileno": 0}),
        ("fd:fileno=7:domain=2", {"fileno": 7}),
    ],
)
def test_every_form_of_the_notation_is_read(text: str, expected: dict[str, object]) -> None:
    """Parameters go by position or name, and a backslash takes a character as it is."""
    kind = text.partition(":")[0].replace("\\", "")
    wanted: dict[str, object] = {"kind": kind, "text": text, "origin": "--endpoint", **expected}
    assert parse(text, "--endpoint") == Endpoint(**wanted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", NO_KIND),
        ("8000", NO_KIND),
        ("tcp=1", NO_KIND),
        ("haproxy:", NO_KIND),
        (
            "haproxy:haproxy:tcp:80",
            "haproxy: stands once, before another endpoint string, as in haproxy:tcp:8000",
        ),
        ("haproxy:tcp:x", "'x' is not a port number (0 to 65535)"),
        ("tcp:80\\", "a backslash at the end escapes nothing"),
        ("tcp:", "port is missing"),
        ("tls:", "path is missing"),
        ("tcp:interface=::1", r"interface is given twice (a colon in a value is written \:)"),
        ("tcp:1:2:3:4", "tcp: takes at most 3 parameters: port, interface, backlog"),
        ("tcp:1:speed=2", "tcp: has no parameter 'speed'; there are port, interface, backlog"),
        ("tcp:1:port=2", r"port is given twice (a colon in a value is written \:)"),
        ("tcp:x", "'x' is not a port number (0 to 65535)"),
        ("tcp:1:backlog=0", "'0' is not a number of waiting connections (1 to 65535)"),
        ("unix:", "address is missing"),
        ("unix:/x:mode=9", "'9' is not a file mode (octal, as 660)"),
        ("unix:/x:mode=7777", "'7777' is not a file mode (octal, as 660)"),
        (
            "unix:/x:lockfile=maybe",
            "'maybe' is not yes or no (1, true, yes, on; 0, false, no, off)",
        ),
        ("fd:x", "'x' is not the number of a file descriptor (0 or more)"),
        ("systemd:INET", "exactly one of index and name is needed"),
        ("systemd:INET:0:web", "exactly one of index and name is needed"),
    ],
)
def test_a_mistake_names_the_option_and_the_string(text: str, complaint: str) -> None:
    """The user is told which endpoint is meant and what is wrong with it."""
    with pytest.raises(UsageError) as caught:
        parse(text, "--endpoint")
    assert str(caught.value) == f"--endpoint {text}: {complaint}"


def test_an_unknown_method_is_answered_with_those_there_are() -> None:
    """A method is OpenSSL's name of a range of protocols."""
    with pytest.raises(UsageError) as caught:
        parse("ssl:1:sslmethod=NONE", "--endpoint")
    assert str(caught.value) == (
        "--endpoint ssl:1:sslmethod=NONE: 'NONE' is no sslmethod; there are SSLv23_METHOD,"
        " TLS_METHOD, TLS_SERVER_METHOD, TLSv1_1_METHOD, TLSv1_2_METHOD, TLSv1_METHOD"
    )


def test_a_string_with_control_characters_stays_on_one_line() -> None:
    """What is shown of a user's text cannot break the line that shows it."""
    with pytest.raises(UsageError, match=r"^--endpoint 'a\\nb': is of no kind") as caught:
        parse("a\nb", "--endpoint")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "origin", "label"),
    [
        ("tcp:port=80:interface=0.0.0.0", "--port", "--port 80"),
        ("unix:a\\:b", "--unix-socket", "--unix-socket a:b"),
        ("fd:fileno=0", "--fd", "--fd 0"),
        ("tcp:80", "--endpoint", "--endpoint tcp:80"),
        ("unix:a\tb", "--endpoint", "--endpoint 'unix:a\\tb'"),
    ],
)
def test_an_endpoint_is_called_what_the_user_called_it(text: str, origin: str, label: str) -> None:
    """Later complaints name the option that was used, not what we made of it."""
    assert parse(text, origin).label == label


@pytest.mark.parametrize(
    ("text", "fileno", "name"),
    [
        ("systemd:domain=INET:index=0", 3, "web"),
        ("systemd:UNIX:1", 4, "admin"),
        ("systemd:INET:name=admin", 4, "admin"),
    ],
)
def test_a_systemd_endpoint_is_a_descriptor(text: str, fileno: int, name: str) -> None:
    """The first socket handed over is descriptor 3; a name finds its own."""
    found = parse(text, "--endpoint", ("web", "admin"))
    assert (found.kind, found.fileno, found.name) == ("fd", fileno, name)


@pytest.mark.parametrize("text", ["systemd:INET:index=2", "systemd:INET:name=ftp"])
def test_a_socket_that_systemd_did_not_hand_over_is_missed(text: str) -> None:
    """That is a mistake of the unit file, not of the command line: it cannot boot."""
    with pytest.raises(BootError, match=r"systemd has handed over \(LISTEN_FDS\): 2$"):
        parse(text, "--endpoint", ("web", "admin"))


def test_an_endpoint_is_refused_by_its_name() -> None:
    """The line begins with the option, and hides where it came from."""
    with pytest.raises(BootError, match=r"^--port 80: is too low$") as caught:
        parse("tcp:80", "--port").refuse("is too low")
    assert caught.value.__suppress_context__


WORDS = st.text(st.characters(exclude_characters=":=\\\0", codec="utf-8"), min_size=1)


def listened_to(text: str) -> Any:
    """Return a reactor on which Twisted listens as `text` says."""
    reactor: Any = MemoryReactor()  # type: ignore[no-untyped-call]
    serverFromString(reactor, text).listen(Factory())  # type: ignore[no-untyped-call]
    return reactor


@given(
    port=st.integers(0, 65535),
    interface=st.ip_addresses().map(str),
    backlog=st.integers(1, 65535),
    escape=st.booleans(),
)
def test_tcp_is_read_as_twisted_reads_it(
    *, port: int, interface: str, backlog: int, escape: bool
) -> None:
    """Twisted, given the same string, would listen on the same address."""
    host = interface.replace(":", r"\:")
    name = r"inter\face" if escape else "interface"
    text = f"tcp:{port}:{name}={host}:backlog={backlog}"
    reactor = listened_to(text)
    found = parse(text, "--endpoint")
    assert reactor.tcpServers[0][0] == found.port
    assert reactor.tcpServers[0][2:] == (found.backlog, found.host)


@given(path=WORDS, mode=st.integers(0, 0o777))
def test_unix_is_read_as_twisted_reads_it(path: str, mode: int) -> None:
    """Twisted, given the same string, would make the same file with the same mode."""
    text = f"unix:{path}:mode={mode:o}:backlog=5"
    reactor = listened_to(text)
    found = parse(text, "--endpoint")
    assert reactor.unixServers[0][0] == found.path
    assert reactor.unixServers[0][2:4] == (found.backlog, found.mode)


@given(st.text(st.sampled_from("tcpunixfsl:=\\0189x")))
def test_any_text_gives_an_endpoint_or_one_line(text: str) -> None:
    """Whatever is typed, the answer is never a traceback."""
    try:
        parse(text, "--endpoint")
    except SupervisorError as error:
        assert "\n" not in str(error)  # noqa: PT017 - some texts are endpoints


@pytest.mark.parametrize(
    "inner", ["tcp:80", r"unix:/run/a\:b:mode=660", "fd:3", "ssl:443:interface=10.0.0.1"]
)
def test_haproxy_before_an_endpoint_asks_for_a_header(inner: str) -> None:
    """In all else it is the endpoint that it stands before."""
    endpoint = parse(f"haproxy:{inner}", "--endpoint")
    assert endpoint.proxied
    assert endpoint.label == f"--endpoint haproxy:{inner}"
    plain = parse(inner, "--endpoint")
    assert replace(endpoint, proxied=False, text=inner) == plain
    assert unwrapped(f"haproxy:{inner}") == (inner, True)
    assert unwrapped(inner) == (inner, False)


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("tcp:80", True),
        ("tcp6", True),
        ("haproxy:tcp:80", True),
        ("haproxy", True),
        ("haproxy:haproxy:", True),
        ("8000", True),
        ("", True),
        ("tcp\\", True),
        ("[::1]:80", True),
        ("txsni:/certificates:tcp:443", False),
        ("haproxy:box:1", False),
        ("two-of:1", False),
        ("stdio:", False),
    ],
)
def test_what_may_be_a_plug_in_s_is_not_ours(text: str, ours: bool) -> None:  # noqa: FBT001
    """What cannot be a kind at all is a mistake, of which we say what it is."""
    assert native(text) is ours
