"""What every framework for WebSocket has to do; each application has the same paths for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.frameworks.http_stories import text
from tests.frameworks.notes import CODE, PATIENCE
from tests.frameworks.site import Site, story

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["WEBSOCKET_STORIES", "denied", "denied_with_a_response", "headers"]


@story("WebSocket: text, bytes and JSON")
def websocket(site: Site) -> None:
    """Echoed, large and empty ones too, compressed as the library asks for it."""
    with site.websocket("/ws") as socket:
        for message in ("text", "é" * 20_000, b"\x00\xff", b"x" * 100_000):
            socket.send(message)
            assert socket.recv(PATIENCE) == message
        socket.send("json")
        assert json.loads(socket.recv(PATIENCE)) == {"a": ["é", 1]}


@story("WebSocket: subprotocol and headers of the handshake")
def headers(site: Site) -> None:
    """The application chooses one, and sees what the client has sent."""
    with site.websocket(
        "/ws", subprotocols=["one", "two"], additional_headers={"X-Asked": "é"}
    ) as socket:
        assert socket.subprotocol == "two"
        assert socket.response is not None
        assert socket.response.headers["x-answered"] == "yes"


@story("WebSocket: the application closes, with code and reason")
def closing(site: Site) -> None:
    """They arrive."""
    with site.websocket("/ws") as socket:
        socket.send("close")
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(PATIENCE)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 4001


@story("WebSocket: the client closes, and the application hears of it")
def leaving(site: Site) -> None:
    """With the code."""
    with site.websocket("/ws") as socket:
        socket.send("leaving")
        assert socket.recv(PATIENCE) == "leaving"
        socket.close(CODE, "done")
    with site.http() as http:
        assert text(http.get("/left")) == str(CODE)


@story("WebSocket: a view that does not think of the end")
def careless(site: Site) -> None:
    """The end ends it."""
    for _ in range(3):
        with site.websocket("/ws/careless") as socket:
            socket.send("text")
            assert socket.recv(PATIENCE) == "text"
    websocket.tell(site)


@story("WebSocket: refused")
def denied(site: Site) -> None:
    """With 403."""
    with pytest.raises(InvalidStatus) as caught:
        site.websocket("/ws/denied")
    assert caught.value.response.status_code == 403


@story("WebSocket: refused with a response of the application's")
def denied_with_a_response(site: Site) -> None:
    """Status, headers and body (the extension `websocket.http.response`)."""
    with pytest.raises(InvalidStatus) as caught:
        site.websocket("/ws/unpaid")
    response = caught.value.response
    assert (response.status_code, response.headers["x-price"]) == (402, "5")
    assert response.body == b"pay first"


@story("WebSocket: closed with 1012 by a worker that leaves", parting=True)
def restarted(site: Site) -> Iterator[None]:
    """So that the client comes again, to another one."""
    with site.websocket("/ws") as socket:
        yield
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(PATIENCE)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1012


WEBSOCKET_STORIES = (
    websocket,
    headers,
    closing,
    leaving,
    careless,
    denied,
    denied_with_a_response,
    restarted,
)
