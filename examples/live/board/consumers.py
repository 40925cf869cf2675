"""The chat: a room is a group of the channel layer, and so has visitors on every worker."""

import contextlib
import os
from urllib.parse import parse_qsl

from channels.exceptions import ChannelFull
from channels.generic.websocket import AsyncJsonWebsocketConsumer

from board.forms import EnterForm, MessageForm, problems

REFUSED = 4000
"""The close code that tells the page not to come back with the same room and name."""


class ChatConsumer(AsyncJsonWebsocketConsumer):
    """One visitor in one room, for as long as the connection lasts.

    Whatever is told in a room carries the pid of the worker that its author is connected to.
    """

    room = None

    async def connect(self) -> None:
        """Let the visitor in, if room and name will do.

        "hello" is sent when the channel is in the group: from then on nothing is missed.
        """
        await self.accept()
        query = self.scope["query_string"].decode("latin-1")
        form = EnterForm(dict(parse_qsl(query)))
        if not form.is_valid():
            await self.close(REFUSED, reason=problems(form))
            return
        self.author = {key: form.cleaned_data[key] for key in ("tab", "name")}
        self.room = f"chat.{form.cleaned_data['room']}"
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.send_json(self.by_me("hello"))
        enter = {"type": "chat.enter", "channel": self.channel_name}
        await self.channel_layer.group_send(self.room, enter | {"content": self.by_me("here")})

    async def disconnect(self, code: int) -> None:  # noqa: ARG002 - all the same here
        """Tell the room that the visitor has left it."""
        if self.room is not None:
            await self.channel_layer.group_discard(self.room, self.channel_name)
            await self.tell(self.by_me("left"))

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:  # noqa: ARG002
        """Take no frame that is not JSON, where the base class would fail over it."""
        try:
            content = await self.decode_json(text_data or "")
        except (ValueError, RecursionError):
            content = None
        await self.receive_json(content)

    async def receive_json(self, content: object) -> None:
        """Tell the room what the visitor says, or the visitor what is wrong with it."""
        if self.room is None:  # it is being closed
            return
        form = MessageForm.of(content)
        if form.is_valid():
            await self.tell(self.by_me("said") | {"text": form.cleaned_data["text"]})
        else:
            await self.send_json(self.by_me("refused") | {"text": problems(form)})

    def by_me(self, kind: str) -> dict[str, object]:
        """Return the beginning of a message: what it is, and whom and which worker it is from."""
        return {"type": kind, "worker": os.getpid(), **self.author}

    async def tell(self, content: dict[str, object]) -> None:
        """Send `content` to everybody in the room, its author too."""
        await self.channel_layer.group_send(self.room, {"type": "chat.tell", "content": content})

    async def chat_tell(self, event: dict[str, object]) -> None:
        """Hand on to the visitor what was told in the room."""
        await self.send_json(event["content"])

    async def chat_enter(self, event: dict[str, object]) -> None:
        """Hand on that somebody has come, and tell that one alone that we are here."""
        await self.send_json(event["content"])
        if event["channel"] != self.channel_name:
            here = {"type": "chat.tell", "content": self.by_me("here")}
            with contextlib.suppress(ChannelFull):  # so many are here that one more is no news
                await self.channel_layer.send(event["channel"], here)
