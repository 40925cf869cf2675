"""Listeners: the sockets that the master opens once and every worker inherits."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import socket
import stat
import struct
from typing import TYPE_CHECKING, Any

import pytest

from daphne_supervisor import listeners
from daphne_supervisor.config import Bind
from daphne_supervisor.endpoints import TlsFiles, parse
from daphne_supervisor.errors import BootError
from daphne_supervisor.listeners import (
    Listener,
    abandon,
    descriptors,
    export,
    open_all,
    release,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def opened(*texts: str, origin: str = "--endpoint", backlog: int = 16) -> Iterator[Any]:
    """Open listeners for endpoint strings, and release them at the end."""
    found = open_all([parse(text, origin) for text in texts], Bind(backlog=backlog))
    try:
        yield found
    finally:
        release(found)


def complaint(*texts: str, origin: str = "--endpoint") -> str:
    """Return the line that tells why the endpoints cannot be opened."""
    with pytest.raises(BootError) as caught, opened(*texts, origin=origin):
        pytest.fail("they were opened")
    return str(caught.value)


def reachable(family: int, address: Any) -> bool:
    """Return whether somebody listens there."""
    with socket.socket(family) as client:
        return client.connect_ex(address) == 0


# TCP


def test_a_listener_is_ready_to_be_inherited() -> None:
    """It listens, does not block, closes on exec, and knows its real port."""
    with opened("tcp:0:127.0.0.1") as [listener]:
        sock = listener.socket
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
        assert not sock.getblocking()
        assert not sock.get_inheritable()
        port = sock.getsockname()[1]
        assert port > 0
        assert listener.description == f"TCP address 127.0.0.1:{port}"
        assert listener.tls is None
        assert reachable(socket.AF_INET, ("127.0.0.1", port))


def test_no_interface_means_every_ipv4_interface() -> None:
    """As with Twisted, an endpoint without interface is open to the network."""
    with opened("tcp:0") as [listener]:
        assert listener.socket.getsockname()[0] == "0.0.0.0"


def test_the_ipv6_wildcard_takes_ipv4_too() -> None:
    """Whatever the system's default, a client of 127.0.0.1 reaches a listener on ::."""
    with opened(r"tcp:0:\:\:") as [six]:
        port = six.socket.getsockname()[1]
        assert six.socket.family == socket.AF_INET6
        assert six.description == f"TCP address [::]:{port}"
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            connection, _ = six.socket.accept()
            connection.close()


def test_a_name_is_resolved_to_ipv4_first() -> None:
    """Localhost means 127.0.0.1, as it does for Twisted, even where it means ::1 too."""
    with opened("tcp:0:localhost") as [listener]:
        assert listener.socket.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("text", "origin", "expected"),
    [
        (
            "tcp:port=1:interface=no.such.invalid",
            "--port",
            "--bind no.such.invalid: cannot be resolved: ",
        ),
        (
            "tcp:1:no.such.invalid",
            "--endpoint",
            "--endpoint tcp:1:no.such.invalid: interface 'no.such.invalid' cannot be resolved: ",
        ),
        (f"tcp:1:{'x' * 64}.invalid", "--port", f"--bind {'x' * 64}.invalid: cannot be resolved: "),
    ],
)
def test_a_host_that_is_not_found_is_named(text: str, origin: str, expected: str) -> None:
    """The option that holds the host is blamed, not the one with the port."""
    assert complaint(text, origin=origin).startswith(expected)


def test_an_address_of_another_machine_is_named() -> None:
    """192.0.2.1 is reserved for documentation (RFC 5737): nobody has it."""
    line = complaint("tcp:port=0:interface=192.0.2.1", origin="--port")
    assert line == "--bind 192.0.2.1: is no address of this machine"


def test_a_port_that_a_stranger_has_is_named() -> None:
    """The line says which address is taken."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        line = complaint(f"tcp:port={port}:interface=127.0.0.1", origin="--port")
    assert line == f"--port {port}: 127.0.0.1:{port} is in use by another process"


def test_a_port_that_we_have_ourselves_is_said_to_be_ours() -> None:
    """A duplicate on the command line is not blamed on a stranger; what was open is closed."""
    with opened(r"tcp:0:\:\:1", "tcp:0:127.0.0.1") as [_, listener]:
        port = listener.socket.getsockname()[1]
    text = f"tcp:{port}:127.0.0.1"
    assert complaint(r"tcp:0:\:\:1", text, text) == (
        f"--endpoint {text}: 127.0.0.1:{port} is in use by --endpoint {text}"
    )
    assert not reachable(socket.AF_INET, ("127.0.0.1", port))


@pytest.mark.parametrize(
    ("port", "code", "expected"),
    [
        (80, errno.EACCES, "--port 80: permission denied; a port below 1024 needs root"),
        (8000, errno.EACCES, "--port 8000: h:8000 cannot be listened on: Permission denied"),
        (80, errno.ENOBUFS, "--port 80: h:80 cannot be listened on: No buffer space available"),
    ],
)
def test_a_refusal_of_the_kernel_is_explained(port: int, code: int, expected: str) -> None:
    """A privileged port gets advice; what is rarer gets the kernel's own words.

    Tests may run as root, who is refused nothing: the error is made by hand.
    """
    endpoint = parse(f"tcp:{port}", "--port")
    with pytest.raises(BootError) as caught:
        listeners._refuse_address(endpoint, ("h", port), OSError(code, os.strerror(code)), [])
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize(("text", "expected"), [("tcp:0:127.0.0.1", 16), ("tcp:0::5", 5)])
def test_the_backlog_of_an_endpoint_goes_before_the_general_one(text: str, expected: int) -> None:
    """An endpoint string may bring its own backlog.

    Of a listening socket the kernel tells the backlog in tcpi_sacked, the sixth number after eight
    bytes (struct tcp_info in linux/tcp.h).
    """
    with opened(text, backlog=16) as [listener]:
        told = listener.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
        assert struct.unpack_from("=6I", told, 8)[5] == expected


# TLS


def test_a_tls_listener_has_its_files(tmp_path: Path) -> None:
    """The files are opened by the master, so that a typing error shows before any worker."""
    (tmp_path / "k.pem").write_text("no matter what")
    with opened(f"ssl:0:privateKey={tmp_path}/k.pem:interface=127.0.0.1") as [listener]:
        assert listener.tls == TlsFiles(f"{tmp_path}/k.pem", f"{tmp_path}/k.pem")
        assert listener.description.startswith("TCP address 127.0.0.1:")


@pytest.mark.parametrize("name", ["privateKey", "certKey", "extraCertChain", "dhParameters"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    """The line names the endpoint, the parameter, the file and the cause."""
    files = dict.fromkeys(("privateKey", "certKey", "extraCertChain", "dhParameters"), "k.pem")
    files[name] = "none.pem"
    (tmp_path / "k.pem").touch()
    text = "ssl:0" + "".join(f":{each}={tmp_path}/{file}" for each, file in files.items())
    assert complaint(text) == (
        f"--endpoint {text}: {name} '{tmp_path}/none.pem' cannot be read: No such file or directory"
    )


def test_a_file_name_that_is_none_is_named() -> None:
    """A null byte in a path is a mistake like any other."""
    assert complaint("ssl:0:privateKey=a\0b").endswith(
        "privateKey 'a\\x00b' cannot be read: embedded null byte"
    )


# Unix sockets


def test_a_unix_socket_is_described_by_its_path(tmp_path: Path) -> None:
    """Not by the name that it was bound to; at the end the file is gone."""
    path = tmp_path / "x.sock"
    with opened(f"unix:{path}", backlog=7) as [listener]:
        assert listener.description == f"UNIX socket {path}"
        assert not listener.socket.getblocking()
        assert not listener.socket.get_inheritable()
        assert reachable(socket.AF_UNIX, str(path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("more", "room"), [("", 3), (":backlog=1", 2)])
def test_a_unix_socket_has_the_backlog_asked_for(tmp_path: Path, more: str, room: int) -> None:
    """One more than the backlog may wait, as Linux counts."""
    path = tmp_path / "x.sock"
    with opened(f"unix:{path}{more}", backlog=2), contextlib.ExitStack() as stack:
        waiting = 0
        while True:
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            if client.connect_ex(str(path)):
                break
            waiting += 1
    assert waiting == room


def test_a_live_servers_socket_is_left_alone(tmp_path: Path) -> None:
    """A second start by mistake neither steals nor removes the first one's socket."""
    path = tmp_path / "x.sock"
    with opened(f"unix:{path}"):
        line = complaint(f"unix:{path}", origin="--unix-socket")
        assert line == f"--unix-socket {path}: is in use by another process"
        assert reachable(socket.AF_UNIX, str(path))


def test_releasing_twice_does_nothing_more(tmp_path: Path) -> None:
    """The socket of a server that came after us survives a second release."""
    path = tmp_path / "x.sock"
    with opened(f"unix:{path}") as found:
        release(found)
        assert not path.exists()
        with opened(f"unix:{path}"):
            release(found)
            assert reachable(socket.AF_UNIX, str(path))


def test_half_a_set_is_not_left_open(tmp_path: Path) -> None:
    """When one listener fails, those before it are closed and their files removed."""
    (tmp_path / "b.sock").touch()
    complaint(f"unix:{tmp_path}/a.sock", f"unix:{tmp_path}/b.sock")
    assert list(tmp_path.iterdir()) == [tmp_path / "b.sock"]


def test_a_child_that_has_abandoned_the_listeners_still_serves(tmp_path: Path) -> None:
    """It holds the sockets, and no lock that says that the master lives."""
    path = tmp_path / "x.sock"
    orphaned = open_all([parse(f"unix:{path}", "-e"), parse("tcp:0:127.0.0.1", "-e")], Bind())
    abandon(orphaned)
    abandon(orphaned)
    assert reachable(socket.AF_UNIX, str(path))
    with opened(f"unix:{path}"):
        assert all(listener.socket.fileno() >= 0 for listener in orphaned)
        for listener in orphaned:
            listener.socket.close()


# Descriptors handed over


@contextlib.contextmanager
def descriptor(sock: socket.socket) -> Iterator[int]:
    """Hand over the descriptor of `sock`, and close it if nobody has."""
    number = sock.detach()
    try:
        yield number
    finally:
        with contextlib.suppress(OSError):
            os.close(number)


def unix_server(path: Path) -> socket.socket:
    """Return a listening unix socket."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


@pytest.mark.parametrize(
    ("family", "address", "shown"),
    [
        (socket.AF_INET, "127.0.0.1", "TCP address 127.0.0.1:"),
        (socket.AF_INET6, "::1", "TCP address [::1]:"),
    ],
)
def test_a_tcp_descriptor_is_adopted(family: int, address: str, shown: str) -> None:
    """The family is the socket's own, and the socket is made ready to be inherited."""
    server = socket.create_server((address, 0), family=family)
    server.set_inheritable(True)
    port = server.getsockname()[1]
    with descriptor(server) as number, opened(f"fd:{number}") as [listener]:
        assert listener.socket.fileno() == number
        assert listener.socket.family == family
        assert not listener.socket.getblocking()
        assert not listener.socket.get_inheritable()
        assert listener.description == f"{shown}{port}"


def test_an_adopted_unix_socket_keeps_its_file(tmp_path: Path) -> None:
    """What systemd made, systemd removes: mode and file stay as they are."""
    path = tmp_path / "x.sock"
    server = unix_server(path)
    path.chmod(0o640)
    with descriptor(server) as number, opened(f"fd:{number}") as [listener]:
        assert listener.description == f"UNIX socket {path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.exists()


@pytest.mark.parametrize(("family", "kind"), [(socket.AF_INET, "TCP"), (socket.AF_UNIX, "UNIX")])
def test_a_socket_that_systemd_has_named_is_called_so(
    tmp_path: Path, family: int, kind: str
) -> None:
    """The log tells which socket unit it came from."""
    if family == socket.AF_INET:
        server = socket.create_server(("127.0.0.1", 0))
    else:
        server = unix_server(tmp_path / "x.sock")
    with descriptor(server) as number:
        endpoint = dataclasses.replace(parse(f"fd:{number}", "LISTEN_FDS"), name="web.socket")
        found = open_all([endpoint], Bind())
        assert found[0].description.startswith(f"{kind} ")
        assert found[0].description.endswith(" (web.socket)")
        release(found)


def test_an_abstract_unix_socket_can_be_shown() -> None:
    """Its name begins with a null byte, which is written as @, as in /proc/net/unix."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"\0daphne-supervisor-{os.getpid()}")
        shown = listeners._describe(sock, parse("fd:3", "--fd"))
    assert shown == f"UNIX socket @daphne-supervisor-{os.getpid()}"


def test_a_standard_stream_gets_its_place_back() -> None:
    """A listener on descriptor 0 moves up, and what reads standard input finds it empty."""
    kept = os.dup(0)
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    try:
        with server:
            os.dup2(server.fileno(), 0)
        with opened("fd:fileno=0", origin="--fd") as [listener]:
            assert listener.socket.fileno() > 2
            assert listener.socket.getsockname()[1] == port
            assert os.read(0, 1) == b""
        assert not reachable(socket.AF_INET, ("127.0.0.1", port))
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def test_a_descriptor_that_is_not_open_is_named() -> None:
    """The line names --fd and the number."""
    with socket.socket() as sock:
        number = sock.fileno()
    assert complaint(f"fd:{number}", origin="--fd") == (
        f"--fd {number}: descriptor {number} is not open"
    )


def test_a_descriptor_that_is_no_socket_is_named(tmp_path: Path) -> None:
    """A file is no listener."""
    with (tmp_path / "file").open("w") as file:
        assert complaint(f"fd:{file.fileno()}").endswith(f"descriptor {file.fileno()} is no socket")


@pytest.mark.parametrize(
    ("family", "sort", "expected"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, "is a socket that does not listen"),
        (socket.AF_INET, socket.SOCK_DGRAM, "is no stream socket"),
        (socket.AF_NETLINK, socket.SOCK_RAW, "is neither a TCP nor a unix socket"),
    ],
)
def test_a_socket_of_another_sort_is_refused_and_left_open(
    family: int, sort: int, expected: str
) -> None:
    """What was handed over by mistake is not closed: it is not ours."""
    with socket.socket(family, sort) as sock:
        assert complaint(f"fd:{sock.fileno()}").endswith(expected)
        os.fstat(sock.fileno())


def test_a_descriptor_is_adopted_once() -> None:
    """Two listeners on one descriptor would close it under each other."""
    with descriptor(socket.create_server(("127.0.0.1", 0))) as number:
        text = f"fd:{number}"
        assert complaint("tcp:0:127.0.0.1", text, text) == (
            f"--endpoint {text}: descriptor {number} is already used by --endpoint {text}"
        )


def test_a_listener_is_a_value() -> None:
    """Listeners are handed to workers by inheritance, and nobody changes them."""
    with opened("tcp:0:127.0.0.1") as [listener]:
        assert isinstance(listener, Listener)
        with pytest.raises(AttributeError):
            listener.description = "other"  # type: ignore[misc]


# An upgrade


@contextlib.contextmanager
def handed_over(*texts: str) -> Iterator[tuple[tuple[Listener, ...], str]]:
    """Open listeners; yield them, and what a new master is told, with copies as it has them."""
    with opened(*texts) as found:
        numbers = {number: os.dup(number) for number in descriptors(found)}
        told = json.loads(export(found))
        for one in told:
            one["socket"] = numbers[one["socket"]]
            if one["made"]:
                one["made"]["lock"] = numbers[one["made"]["lock"]]
        yield found, json.dumps(told)


def test_a_new_master_takes_over_what_it_would_open(tmp_path: Path) -> None:
    """The same sockets, whatever order and options; port 0 is the port it was."""
    path = tmp_path / "x.sock"
    server = socket.create_server(("127.0.0.1", 0))
    with (
        descriptor(server) as number,
        handed_over(f"fd:{number}", "tcp:0:127.0.0.1", "tcp:0:127.0.0.1", f"unix:{path}") as old,
    ):
        texts = [f"unix:{path}:mode=600", "tcp:0:127.0.0.1", f"fd:{number}", "tcp:0:127.0.0.1"]
        new = open_all([parse(text, "--endpoint") for text in texts], Bind(), old[1])
        (fd, first, second, unix) = (listener.socket.getsockname() for listener in old[0])
        assert [listener.socket.getsockname() for listener in new] == [unix, first, fd, second]
        assert {listener.description for listener in new} == {
            listener.description for listener in old[0]
        }
        for listener in new:
            assert not listener.socket.getblocking()
            assert not listener.socket.get_inheritable()
        release(old[0])
        assert reachable(socket.AF_UNIX, str(path))
        release(new)
    assert list(tmp_path.iterdir()) == []


def test_a_new_master_that_fails_leaves_everything_to_the_old_one(tmp_path: Path) -> None:
    """Its own descriptors are closed, and no file is removed."""
    path = tmp_path / "x.sock"
    (tmp_path / "bad").touch()
    with handed_over(f"unix:{path}") as (_, told):
        before = set(os.listdir("/proc/self/fd"))
        endpoints = [parse(f"unix:{tmp_path}/{name}", "-e") for name in ("x.sock", "bad")]
        with pytest.raises(BootError, match="exists and is no socket"):
            open_all(endpoints, Bind(), told)
        assert len(set(os.listdir("/proc/self/fd"))) == len(before) - 2
        assert reachable(socket.AF_UNIX, str(path))
    assert list(tmp_path.iterdir()) == [tmp_path / "bad"]


def test_what_nobody_asks_for_is_closed_and_what_is_new_is_opened(tmp_path: Path) -> None:
    """The old master may still need its file, and removes it when it leaves."""
    path = tmp_path / "x.sock"
    with handed_over(f"unix:{path}", "tcp:0:127.0.0.1") as (old, told):
        old_port = old[1].socket.getsockname()[1]
        new = open_all([parse(r"tcp:0:\:\:1", "--endpoint")], Bind(), told)
        [listener] = new
        assert listener.socket.family == socket.AF_INET6
        assert reachable(socket.AF_UNIX, str(path))
        release(old)
        assert not reachable(socket.AF_INET, ("127.0.0.1", old_port))
        release(new)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_certificates_has_to_be_there(tmp_path: Path) -> None:
    """What is in it, only a worker's TLS library can say."""
    with opened(f"tls:{tmp_path}:0:interface=127.0.0.1") as [listener]:
        assert listener.tls == TlsFiles(directory=str(tmp_path))
    text = f"tls:{tmp_path}/missing:0"
    with pytest.raises(BootError, match=rf"^-e {text}: directory '.*' cannot be read: No such"):
        open_all([parse(text, "-e")], Bind())


def test_the_files_of_a_handed_over_tls_listener_are_checked(tmp_path: Path) -> None:
    """They may have changed since the old master looked."""
    key = tmp_path / "key.pem"
    key.touch()
    text = f"ssl:0:privateKey={key}:interface=127.0.0.1"
    with handed_over(text) as (_, told):
        key.unlink()
        with pytest.raises(BootError, match=r"privateKey .* cannot be read"):
            open_all([parse(text, "--endpoint")], Bind(), told)


def test_descriptors_are_all_that_a_new_master_inherits(tmp_path: Path) -> None:
    """The sockets, and the locks of their files."""
    with opened("tcp:0:127.0.0.1", f"unix:{tmp_path}/x.sock") as found:
        numbers = descriptors(found)
        assert len(set(numbers)) == 3
        assert {listener.socket.fileno() for listener in found} <= set(numbers)
        links = {os.readlink(f"/proc/self/fd/{number}") for number in numbers}
        assert f"{tmp_path}/x.sock.lock" in links
