"""Django Channels: consumers of every kind, on a channel layer within the worker."""

import asyncio
import threading
from typing import Any

import django
from django.conf import settings

from tests.frameworks.notes import CODE, EVENTS, PIECES, Notes

settings.configure(
    SECRET_KEY="not of any use",
    ALLOWED_HOSTS=["127.0.0.1"],
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
)
django.setup()

from asgiref.sync import async_to_sync  # noqa: E402 - all that needs settings
from channels.consumer import AsyncConsumer, SyncConsumer  # noqa: E402
from channels.exceptions import DenyConnection, StopConsumer  # noqa: E402
from channels.generic.http import AsyncHttpConsumer  # noqa: E402
from channels.generic.websocket import (  # noqa: E402
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.urls import path  # noqa: E402

notes = Notes()
ROOM = "room"


class Echo(AsyncWebsocketConsumer):
    """Echoes, or does as the message says."""

    async def connect(self) -> None:
        """Choose the second subprotocol."""
        protocol = "two" if "two" in self.scope["subprotocols"] else None
        await self.accept(protocol, headers=[(b"x-answered", b"yes")])

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Answer."""
        if text_data == "json":
            await self.send('{"a": ["é", 1]}')
        elif text_data == "close":
            await self.close(4001, "enough")
        else:
            await self.send(text_data, bytes_data)

    async def disconnect(self, code: int) -> None:
        """Leave a note."""
        if code == CODE:
            notes.leave("left", str(code))


class Careless(AsyncWebsocketConsumer):
    """Echoes, and has no word for the end."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Answer."""
        await self.send(text_data, bytes_data)


class Denying(AsyncWebsocketConsumer):
    """Refuses."""

    async def connect(self) -> None:
        """Refuse."""
        raise DenyConnection


class Synchronous(WebsocketConsumer):
    """Echoes on a thread, and names it."""

    def connect(self) -> None:
        """Say where."""
        self.accept()
        self.send(threading.current_thread().name)

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Echo."""
        self.send(text_data, bytes_data)


class Json(JsonWebsocketConsumer):
    """A room, on threads."""

    groups = (ROOM,)

    def receive_json(self, content: Any, **_: Any) -> None:
        """Tell the room."""
        event = {"type": "room.said", "from": "sync", "content": content}
        async_to_sync(self.channel_layer.group_send)(ROOM, event)

    def room_said(self, event: dict[str, Any]) -> None:
        """Hear what was said in it."""
        self.send_json([event["from"], event["content"]])


class AsyncJson(AsyncJsonWebsocketConsumer):
    """The same room, on the event loop."""

    groups = (ROOM,)

    async def receive_json(self, content: Any, **_: Any) -> None:
        """Tell the room."""
        event = {"type": "room.said", "from": "async", "content": content}
        await self.channel_layer.group_send(ROOM, event)

    async def room_said(self, event: dict[str, Any]) -> None:
        """Hear what was said in it."""
        await self.send_json([event["from"], event["content"]])


class PlainSync(SyncConsumer):
    """One method for each event."""

    def websocket_connect(self, event: dict[str, Any]) -> None:
        """Accept."""
        del event
        self.send({"type": "websocket.accept"})

    def websocket_receive(self, event: dict[str, Any]) -> None:
        """Echo."""
        self.send({"type": "websocket.send", "text": event["text"]})

    def websocket_disconnect(self, event: dict[str, Any]) -> None:
        """End."""
        del event
        raise StopConsumer


class Plain(AsyncConsumer):
    """The same on the event loop."""

    async def websocket_connect(self, event: dict[str, Any]) -> None:
        """Accept."""
        del event
        await self.send({"type": "websocket.accept"})

    async def websocket_receive(self, event: dict[str, Any]) -> None:
        """Echo."""
        await self.send({"type": "websocket.send", "text": event["text"]})

    async def websocket_disconnect(self, event: dict[str, Any]) -> None:
        """End."""
        del event
        raise StopConsumer


class Failing(AsyncWebsocketConsumer):
    """Fails."""

    async def receive(self, **_: Any) -> None:
        """Fail."""
        raise ValueError


class Left(AsyncHttpConsumer):
    """Says who has left."""

    async def handle(self, body: bytes) -> None:
        """Wait for it."""
        del body
        await self.send_response(200, (await notes.take("left")).encode())


class Now(AsyncHttpConsumer):
    """Lets somebody go on."""

    async def handle(self, body: bytes) -> None:
        """Leave the note."""
        del body
        notes.leave("now", "done")
        await self.send_response(204, b"")


class Events(AsyncHttpConsumer):
    """Sends events."""

    async def handle(self, body: bytes) -> None:
        """One after the other."""
        del body
        await self.send_headers(headers=[(b"Content-Type", b"text/event-stream")])
        for event in EVENTS:
            await self.send_body(f"data: {event}\n\n".encode(), more_body=True)
            await notes.take("now")
        await self.send_body(b"")


class Endless(AsyncHttpConsumer):
    """Sends until the client leaves."""

    async def handle(self, body: bytes) -> None:
        """Send, and perhaps wait."""
        del body
        await self.send_headers()
        try:
            while True:
                await self.send_body(PIECES[1], more_body=True)
                if self.scope["path"] == "/waiting":
                    await asyncio.Event().wait()
        finally:
            notes.leave("left", self.scope["path"])


class Poll(AsyncHttpConsumer):
    """Answers when something is said in the room: a long poll."""

    async def handle(self, body: bytes) -> None:
        """Begin, and wait."""
        await self.channel_layer.group_add(ROOM, self.channel_name)
        await self.send_headers(headers=[(b"Content-Type", b"text/plain")])
        await self.send_body(body, more_body=True)

    async def http_request(self, message: dict[str, Any]) -> None:
        """Stay after the request has been read, until somebody speaks."""
        self.body.append(message.get("body", b""))
        if not message.get("more_body"):
            await self.handle(b"".join(self.body))

    async def room_said(self, event: dict[str, Any]) -> None:
        """Answer with it."""
        await self.send_body(str(event["content"]).encode())
        raise StopConsumer

    async def disconnect(self) -> None:
        """Leave the room."""
        await self.channel_layer.group_discard(ROOM, self.channel_name)


application = ProtocolTypeRouter(
    {
        "http": URLRouter(
            [
                path("left", Left.as_asgi()),
                path("now", Now.as_asgi()),
                path("events", Events.as_asgi()),
                path("endless", Endless.as_asgi()),
                path("waiting", Endless.as_asgi()),
                path("poll", Poll.as_asgi()),
            ],
        ),
        "websocket": URLRouter(
            [
                path("ws", Echo.as_asgi()),
                path("ws/careless", Careless.as_asgi()),
                path("ws/denied", Denying.as_asgi()),
                path("ws/sync", Synchronous.as_asgi()),
                path("ws/json", Json.as_asgi()),
                path("ws/async-json", AsyncJson.as_asgi()),
                path("ws/plain-sync", PlainSync.as_asgi()),
                path("ws/plain", Plain.as_asgi()),
                path("ws/fail", Failing.as_asgi()),
                path("ws/ours", AllowedHostsOriginValidator(Echo.as_asgi())),
            ],
        ),
    },
)
