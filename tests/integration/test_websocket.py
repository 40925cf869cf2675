"""WebSockets through the real master and a real worker, with the `websockets` library and without.

The library hides what a client should not do; where that is the question, raw frames are sent.
"""

from __future__ import annotations

import json
import select
import socket
import zlib
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import CloseCode
from websockets.sync.client import connect

from tests.support.client import Client, get
from tests.support.daphne import Daphne
from tests.support.transports import frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.sync.client import ClientConnection

APPLICATION = "tests.integration.websocket_app:application"
PATIENCE = 10.0
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

_MEBIBYTE = 1024 * 1024
#: What no compression makes much smaller.
NOISE = b"".join(zlib.crc32(b"%d" % number).to_bytes(4) for number in range(200_000))


@pytest.fixture(scope="module")
def server() -> Iterator[Daphne]:
    """Return a server whose application has little time to answer."""
    with Daphne(APPLICATION, "--websocket_connect_timeout", "1") as running:
        yield running


def opened(server: Daphne, path: str, **options: Any) -> ClientConnection:
    """Return a WebSocket to `path`, whose every wait is bounded."""
    return connect(
        f"ws://127.0.0.1:{server.port}/{path}",
        open_timeout=PATIENCE,
        close_timeout=PATIENCE,
        max_size=None,
        proxy=None,
        **{"compression": None, **options},
    )


def raw(server: Daphne, path: str) -> Client:
    """Return a connection that has become a WebSocket to `path`."""
    client = Client(server.port)
    client.ask(
        f"/{path}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    )
    assert client.head().status == 101
    return client


def ended(server: Daphne) -> dict[str, Any]:
    """Return what the application has heard at the end of a WebSocket."""
    end: dict[str, Any] = json.loads(get(server.port, "/ended").body)
    return end


def closed(websocket: ClientConnection) -> tuple[int, str]:
    """Wait for the end; return the code and the reason that the server gave."""
    with pytest.raises(ConnectionClosed) as caught:
        websocket.recv(PATIENCE)
    close = caught.value.rcvd
    assert close is not None, "cut without a close frame"
    return close.code, close.reason


# -- messages --


@pytest.mark.parametrize(
    "message",
    ["text", "é\N{SNOWMAN}", "", b"\x00\xff", b"", "x" * 65_535, b"x" * 65_536, b"x" * _MEBIBYTE],
    ids=lambda message: f"{type(message).__name__}-{len(message)}",
)
def test_messages_are_echoed(server: Daphne, message: str | bytes) -> None:
    """Text and bytes, empty and as large as the default allows."""
    with opened(server, "echo") as websocket:
        websocket.send(message)
        assert websocket.recv(PATIENCE) == message
    assert ended(server) == {"type": "websocket.disconnect", "code": 1000, "reason": ""}


def test_fragments_are_put_together(server: Daphne) -> None:
    """Each message once, in order, with a ping answered in between."""
    with opened(server, "echo") as websocket:
        websocket.send(["he", "ll", "", "o"])
        assert websocket.ping().wait(PATIENCE)
        websocket.send([b"x" * 400_000, b"y" * 400_000])
        websocket.send("last")
        assert websocket.recv(PATIENCE) == "hello"
        assert websocket.recv(PATIENCE) == b"x" * 400_000 + b"y" * 400_000
        assert websocket.recv(PATIENCE) == "last"
    ended(server)


def test_many_messages_keep_their_order(server: Daphne) -> None:
    """More of them than may wait for the application."""
    with opened(server, "echo") as websocket:
        for number in range(500):
            websocket.send(str(number))
        assert [websocket.recv(PATIENCE) for _ in range(500)] == [str(n) for n in range(500)]
    ended(server)


# -- the handshake --


def test_the_application_chooses_subprotocol_and_headers(server: Daphne) -> None:
    """Both arrive, a repeated header twice."""
    with opened(server, "greet", subprotocols=["soap", "wamp"]) as websocket:
        assert websocket.subprotocol == "wamp"
        assert websocket.response is not None
        assert websocket.response.headers["x-one"] == "1"
        assert websocket.response.headers.get_all("set-cookie") == ["a=b", "c=d"]
        assert websocket.response.headers["server"] == "daphne"
    ended(server)


@pytest.mark.parametrize(("path", "status"), [("refuse", 403), ("forge", 500), ("silent", 403)])
def test_a_handshake_is_refused(server: Daphne, path: str, status: int) -> None:
    """By the application, for its mistake, or for its silence."""
    with pytest.raises(InvalidStatus) as caught:
        opened(server, path)
    assert caught.value.response.status_code == status
    assert "x-two" not in caught.value.response.headers
    if path == "silent":
        assert ended(server)["code"] == 1006
        assert "--websocket_connect_timeout" in server.log()


def test_a_handshake_is_denied_with_a_response(server: Daphne) -> None:
    """Status, headers and body are the application's."""
    with pytest.raises(InvalidStatus) as caught:
        opened(server, "deny")
    response = caught.value.response
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Basic")
    assert response.body == b"who are you?"


# -- the end --


def test_the_client_s_code_and_reason_arrive(server: Daphne) -> None:
    """And are echoed."""
    with opened(server, "echo") as websocket:
        websocket.close(4321, "för nu")
        assert websocket.close_code == 4321
    assert ended(server) == {"type": "websocket.disconnect", "code": 4321, "reason": "för nu"}


def test_a_close_without_code_is_1005(server: Daphne) -> None:
    """There was none (RFC 6455 section 7.1.5)."""
    with raw(server, "echo") as client:
        client.send(frame(CLOSE))
        assert client.rest() == b"\x88\x00"
    assert ended(server)["code"] == 1005


def test_the_application_s_code_and_reason_arrive(server: Daphne) -> None:
    """And it hears them itself as the end."""
    with opened(server, "close") as websocket:
        websocket.send("x")
        assert closed(websocket) == (4001, "enough")
    assert ended(server) == {"type": "websocket.disconnect", "code": 4001, "reason": "enough"}


@pytest.mark.parametrize(("path", "code"), [("return", 1000), ("raise", 1011), ("exit", 1011)])
def test_the_end_of_the_application_is_the_end(server: Daphne, path: str, code: int) -> None:
    """In order or not; the worker lives on, even after `SystemExit`."""
    before = server.worker_pids()
    with opened(server, path) as websocket:
        assert closed(websocket)[0] == code
    assert server.worker_pids() == before


def test_a_client_that_vanishes_is_1006(server: Daphne) -> None:
    """Whether it ends its connection in order or resets it."""
    for linger in (False, True):
        with raw(server, "echo") as client:
            client.send(frame(TEXT, b"x"))
            assert client.socket.recv(100) == b"\x81\x01x"
            if linger:
                client.socket.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" + bytes(4)
                )
        assert ended(server)["code"] == 1006


def test_a_client_that_vanishes_while_it_is_written_to_stops_the_application(
    server: Daphne,
) -> None:
    """`send` raises an `OSError` (ASGI 2.4), `receive` tells of the end."""
    with raw(server, "flood") as client:
        assert client.socket.recv(10_000)
    end = ended(server)
    assert (end["raised"], end["code"]) == ("ClientDisconnected", 1006)


# -- violations --


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"x", mask=None), CloseCode.PROTOCOL_ERROR),
        (frame(TEXT, b"x", reserved=4), CloseCode.PROTOCOL_ERROR),
        (frame(0, b"x"), CloseCode.PROTOCOL_ERROR),
        (frame(CLOSE, b"\x03\xed"), CloseCode.PROTOCOL_ERROR),
        (frame(TEXT, b"\xc3\x28"), CloseCode.INVALID_DATA),
        (frame(TEXT, b"\xc3", last=False) + frame(0, b"\x28"), CloseCode.INVALID_DATA),
        (frame(CLOSE, b"\x03\xe8\xff"), CloseCode.INVALID_DATA),
    ],
)
def test_a_violation_has_its_code(server: Daphne, data: bytes, code: CloseCode) -> None:
    """The client is told, then everything is over at once; so is the application."""
    with raw(server, "echo") as client:
        client.send(data + frame(TEXT, b"behind it"))
        said = client.rest()
    assert said[0] == 0x88
    assert int.from_bytes(said[2:4]) == code
    assert len(said) == 2 + said[1]
    assert ended(server)["code"] == code


def test_a_message_too_large_is_1009(server: Daphne) -> None:
    """Whoever runs the server reads the names of the options."""
    with opened(server, "echo") as websocket:
        websocket.send(b"x" * (_MEBIBYTE + 1))
        assert closed(websocket)[0] == 1009
    assert ended(server)["code"] == 1009
    assert "--websocket-max-message-size" in server.log()


def test_a_message_too_large_in_pieces_is_1009(server: Daphne) -> None:
    """Each fragment is small enough, all together are not."""
    with raw(server, "echo") as client:
        client.send(frame(BINARY, bytes(600_000), last=False) + frame(0, bytes(600_000)))
        assert int.from_bytes(client.rest()[2:4]) == 1009
    assert ended(server)["code"] == 1009


def test_a_flood_of_fragments_is_1008() -> None:
    """Empty ones have no size to be limited by."""
    with Daphne(APPLICATION, "--websocket-max-fragments", "100") as server:
        with raw(server, "echo") as client:
            client.send(frame(BINARY, last=False) + frame(0, last=False) * 100)
            assert int.from_bytes(client.rest()[2:4]) == 1008
        assert ended(server)["code"] == 1008
        assert "--websocket-max-fragments" in server.log()


# -- compression --


@pytest.fixture(scope="module")
def dense(request: pytest.FixtureRequest) -> Iterator[Daphne]:
    """Return a server that compresses, with the further options of the test."""
    with Daphne(APPLICATION, "--websocket-compression", *getattr(request, "param", ())) as running:
        yield running


@pytest.mark.parametrize(
    "dense",
    [(), ("--websocket-compression-context-takeover", "--websocket-compression-window-bits", "9")],
    ids=["forgetful", "takeover"],
    indirect=True,
)
def test_messages_are_compressed_for_a_client_that_offers_it(dense: Daphne) -> None:
    """Text and bytes, small, large and in fragments, one after another; not all are worth it."""
    with opened(dense, "echo", compression="deflate") as websocket:
        assert websocket.response is not None
        answer = websocket.response.headers["sec-websocket-extensions"]
        assert answer.startswith("permessage-deflate")
        messages: list[str | bytes] = ["", "text", "no end of text " * 4000, NOISE]
        for message in [*messages, *messages]:
            websocket.send(message)
            assert websocket.recv(PATIENCE) == message
        websocket.send(["once ", "upon " * 5000, "a time"])
        assert websocket.recv(PATIENCE) == "once " + "upon " * 5000 + "a time"
    ended(dense)


def test_a_client_that_offers_nothing_gets_nothing_compressed(dense: Daphne) -> None:
    """Nor does one that is served by default."""
    with opened(dense, "echo") as websocket:
        websocket.send("x" * 5000)
        assert websocket.recv(PATIENCE) == "x" * 5000
        assert websocket.response is not None
        assert "sec-websocket-extensions" not in websocket.response.headers
    ended(dense)


def test_a_bomb_is_found_while_it_is_small(dense: Daphne) -> None:
    """By the ratio, and the log names the option."""
    (worker,) = dense.worker_pids()
    with opened(dense, "echo", compression="deflate") as websocket:
        before = psutil.Process(worker).memory_info().rss
        websocket.send(bytes(500_000_000 // 8), text=False)
        assert closed(websocket)[0] == 1008
    assert psutil.Process(worker).memory_info().rss - before < 16 * _MEBIBYTE
    assert ended(dense)["code"] == 1008
    assert "--websocket-compression-max-ratio" in dense.log()


def test_a_large_message_is_refused_by_what_it_becomes() -> None:
    """However small it is on its way."""
    options = ("--websocket-compression", "--websocket-compression-max-ratio", "0")
    with Daphne(APPLICATION, *options) as server:
        with opened(server, "echo", compression="deflate") as websocket:
            websocket.send(bytes(_MEBIBYTE))
            assert websocket.recv(PATIENCE) == bytes(_MEBIBYTE)
            websocket.send(bytes(_MEBIBYTE + 1))
            assert closed(websocket)[0] == 1009
        assert ended(server)["code"] == 1009
        assert "--websocket-max-message-size" in server.log()


# -- back-pressure --


def test_unread_messages_stay_with_the_client(server: Daphne) -> None:
    """A client may send what it likes to an application that does not read: the worker stays small.

    When the application reads again, not a byte is missing.
    """
    piece = frame(BINARY, bytes(60_000))
    (worker,) = server.worker_pids()
    with raw(server, "deaf") as client:
        before = psutil.Process(worker).memory_info().rss
        sent, most, left = 0, 2000, b""
        client.socket.setblocking(False)
        while sent < most and select.select([], [client.socket], [], 1.0)[1]:
            left = left or piece
            left = left[client.socket.send(left) :]
            sent += not left
        assert sent < most, "everything was read"
        assert psutil.Process(worker).memory_info().rss - before < 16 * _MEBIBYTE
        assert get(server.port, "/release").status == 200
        client.socket.settimeout(PATIENCE)
        client.send(left + frame(BINARY))
        total = str((sent + bool(left)) * 60_000).encode()
        said = client.rest()
        assert said[:2] == bytes([0x81, len(total)])
        assert said[2 : 2 + len(total)] == total
        assert said[2 + len(total) :] == b"\x88\x02\x03\xe8"


# -- time --


def test_a_client_that_answers_no_ping_is_dropped() -> None:
    """One that does is kept."""
    with (
        Daphne(APPLICATION, "--ping-interval", "1", "--ping-timeout", "1") as server,
        opened(server, "echo") as polite,
        raw(server, "echo") as rude,
    ):
        assert rude.rest() == b"\x89\x00"
        assert ended(server)["code"] == 1006
        assert "--ping-timeout" in server.log()
        polite.send("still here")
        assert polite.recv(PATIENCE) == "still here"


def test_a_websocket_has_an_age() -> None:
    """At --websocket_timeout it is closed in order."""
    with Daphne(APPLICATION, "--websocket_timeout", "1") as server:
        websocket = opened(server, "echo")
        with websocket:
            assert closed(websocket) == (1000, "")
        assert ended(server)["code"] == 1000
