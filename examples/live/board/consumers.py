"""The WebSocket echo."""

import os

from channels.generic.websocket import AsyncJsonWebsocketConsumer


class EchoConsumer(AsyncJsonWebsocketConsumer):
    """Greets with the worker's pid, then sends back whatever JSON it is sent.

    It needs no channel layer. An in-memory layer would reach only the visitors of this one worker
    process; talking to all of them takes a layer between processes, such as Redis.
    """

    async def connect(self) -> None:
        """Accept, and say who did."""
        await self.accept()
        await self.send_json({"type": "hello", "worker": os.getpid()})

    async def receive_json(self, content: object) -> None:
        """Send the message back."""
        await self.send_json({"type": "echo", "worker": os.getpid(), "content": content})
