"""Synchronous code that waits in the ways which a bound on threads could turn into a deadlock.

Each path or WebSocket is one case. What does get stuck goes on when /release is asked for, which
needs no thread.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import django
from asgiref.sync import async_to_sync, sync_to_async
from channels.consumer import SyncConsumer
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import path

__all__ = ["application"]

PATIENCE = 50.0

settings.configure(
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()


def leaf() -> int:
    """Be the innermost synchronous code."""
    return threading.get_native_id()


class Cases:
    """The cases over HTTP, each a coroutine that returns the body."""

    def __init__(self) -> None:
        """Have nothing that waits."""
        self._events: set[threading.Event] = set()
        self._lock = threading.Semaphore()
        self._takers = 0
        self._both = asyncio.Event()
        self._together = threading.Barrier(2)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer with what the case of the path says."""
        del receive
        body = await getattr(self, scope["path"].strip("/") or "quick")()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(body).encode()})

    async def quick(self) -> str:
        """Need no thread."""
        return "quick"

    async def stuck(self) -> int:
        """Say how many wait for that."""
        return len(self._events)

    async def release(self) -> int:
        """Let everybody go on who is stuck."""
        count = len(self._events)
        for event in list(self._events):
            event.set()
        return count

    # -- what must always come to its end --

    async def bridge(self) -> bool:
        """Go from synchronous code to asynchronous, and back, three times over."""

        def outer(depth: int) -> set[int]:
            return {leaf()} | async_to_sync(middle)(depth)

        async def middle(depth: int) -> set[int]:
            await asyncio.sleep(0)
            if depth:
                return await sync_to_async(outer)(depth - 1)
            return {await sync_to_async(leaf)()}

        return len(await sync_to_async(outer)(3)) == 1

    async def tasks(self) -> bool:
        """Start tasks within that bridge which need the thread that waits for them."""

        async def middle() -> list[int]:
            return await asyncio.gather(*(sync_to_async(leaf)() for _ in range(4)))

        def outer() -> set[int]:
            return {leaf(), *async_to_sync(middle)()}

        return len(await sync_to_async(outer)()) == 1

    async def gather(self) -> bool:
        """Begin with several calls at once, while other requests want the same threads."""
        calls = (sync_to_async(leaf)() for _ in range(5))
        return len(set(await asyncio.gather(*calls))) == 1

    async def free(self) -> bool:
        """Wait, on the request's thread, for code that is not thread-sensitive, and the reverse."""

        async def elsewhere() -> int:
            return await sync_to_async(leaf, thread_sensitive=False)()

        async def here() -> int:
            return await sync_to_async(leaf)()

        one = await sync_to_async(lambda: async_to_sync(elsewhere)() != leaf())()
        two = await sync_to_async(lambda: bool(async_to_sync(here)()), thread_sensitive=False)()
        return bool(one and two)

    # -- what can get stuck --

    def _stuck(self) -> bool:
        event = threading.Event()
        self._events.add(event)
        try:
            return event.wait(PATIENCE)
        finally:
            self._events.discard(event)

    async def waits_for_another_request(self) -> bool:
        """Wait, in synchronous code, for what another request's synchronous code would do."""
        return await sync_to_async(self._stuck)()

    async def other_request(self) -> int:
        """Be that one."""
        return await sync_to_async(self.let_go)()

    def let_go(self) -> int:
        """Let who waits go on, from a thread."""
        for event in list(self._events):
            event.set()
        return leaf()

    async def own_task(self) -> int:
        """Wait, on the request's thread, for a task of the request's that needs this thread."""
        begun = asyncio.Event()

        async def needs_the_thread() -> int:
            await begun.wait()
            return await sync_to_async(leaf)()

        task = asyncio.ensure_future(needs_the_thread())

        async def wait_for_task() -> int:
            begun.set()
            return await task

        def has_the_thread() -> int:
            return async_to_sync(wait_for_task)()

        return await sync_to_async(has_the_thread)()

    async def free_in_free(self) -> bool:
        """Wait, in code that is not thread-sensitive, for more of it."""

        async def inner() -> bool:
            return bool(await sync_to_async(leaf, thread_sensitive=False)())

        def holds_a_free_thread() -> bool:
            self._together.wait(PATIENCE)  # all threads of the pool are here
            return async_to_sync(inner)()

        return await sync_to_async(holds_a_free_thread, thread_sensitive=False)()

    async def lock(self) -> bool:
        """Keep a lock from one synchronous step to the next."""
        loop = asyncio.get_running_loop()

        def takes_the_lock() -> bool:
            self._takers += 1
            if self._takers == 2:
                loop.call_soon_threadsafe(self._both.set)
            return self._lock.acquire(timeout=PATIENCE)

        got = await sync_to_async(takes_the_lock)()
        await self._both.wait()
        await sync_to_async(self._lock.release)()
        return got

    async def unlock(self) -> str:
        """Release it from outside, as nobody should."""
        self._lock.release()
        return "unlocked"


class Consumer(AsyncWebsocketConsumer):
    """Go to the database for each message, from several tasks at once."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Answer with how many threads it took."""
        del bytes_data
        threads = set(await asyncio.gather(*(database_sync_to_async(leaf)() for _ in range(3))))
        await self.send(text_data=f"{text_data} {len(threads)}")


class Synchronous(SyncConsumer):
    """Go to the channel layer and back for each message, as synchronous consumers do."""

    def websocket_connect(self, event: Any) -> None:
        """Accept."""
        del event
        self.send({"type": "websocket.accept"})

    def websocket_receive(self, event: Any) -> None:
        """Send oneself a message through the layer, and answer what comes."""
        layer = get_channel_layer()

        async def there_and_back() -> dict[str, Any]:
            channel = await layer.new_channel()
            await layer.send(channel, {"type": "x", "text": event["text"]})
            await database_sync_to_async(leaf)()
            message: dict[str, Any] = await layer.receive(channel)
            return message

        self.send({"type": "websocket.send", "text": async_to_sync(there_and_back)()["text"]})


application = ProtocolTypeRouter(
    {
        "http": Cases(),
        "websocket": URLRouter(
            [path("consumer", Consumer.as_asgi()), path("synchronous", Synchronous.as_asgi())]
        ),
    }
)
