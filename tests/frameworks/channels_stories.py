"""What Channels has to do beyond what all do."""

from __future__ import annotations

import json

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.frameworks.notes import PATIENCE
from tests.frameworks.site import HTTP, Site, story

__all__ = ["CHANNELS_STORIES"]


@story("`WebsocketConsumer`, on a thread")
def synchronous(site: Site) -> None:
    """Each WebSocket on one thread that is not the event loop's."""
    with site.websocket("/ws/sync") as socket:
        assert socket.recv(PATIENCE) != "MainThread"
        for message in ("text", b"bytes"):
            socket.send(message)
            assert socket.recv(PATIENCE) == message


@story("`SyncConsumer` and `AsyncConsumer`")
def plain(site: Site) -> None:
    """With a method for each event."""
    for path in ("/ws/plain-sync", "/ws/plain"):
        with site.websocket(path) as socket:
            socket.send("text")
            assert socket.recv(PATIENCE) == "text"


@story("`JsonWebsocketConsumer` and `AsyncJsonWebsocketConsumer`, in one group")
def room(site: Site) -> None:
    """Who speaks is heard by all."""
    with site.websocket("/ws/json") as one, site.websocket("/ws/async-json") as two:
        for speaker, kind in ((one, "sync"), (two, "async")):
            speaker.send('{"a": "é"}')
            for hearer in (one, two):
                assert json.loads(hearer.recv(PATIENCE)) == [kind, {"a": "é"}]


@story("`AsyncHttpConsumer`, a long poll that a WebSocket ends", over=HTTP)
def poll(site: Site) -> None:
    """The response begins at once, and ends when somebody has spoken."""
    with site.http() as http, http.stream("POST", "/poll", content=b"asked ") as answer:
        pieces = answer.iter_bytes()
        assert next(pieces) == b"asked "
        with site.websocket("/ws/json") as socket:
            socket.send("17")
            assert b"".join(pieces) == b"17"


@story("`AllowedHostsOriginValidator`")
def origin(site: Site) -> None:
    """A page from elsewhere is refused, one of ours is not."""
    with site.websocket("/ws/ours", origin=f"http://127.0.0.1:{site.server.port}"):
        pass
    with pytest.raises(InvalidStatus) as caught:
        site.websocket("/ws/ours", origin="https://elsewhere.example")
    assert caught.value.response.status_code == 403


@story("a consumer that fails")
def failing(site: Site) -> None:
    """Ends its WebSocket with 1011, and nothing else."""
    with site.websocket("/ws") as other:
        with site.websocket("/ws/fail") as socket:
            socket.send("x")
            with pytest.raises(ConnectionClosed) as caught:
                socket.recv(PATIENCE)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1011
        other.send("still here")
        assert other.recv(PATIENCE) == "still here"


CHANNELS_STORIES = (synchronous, plain, room, poll, origin, failing)
