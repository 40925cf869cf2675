"""What python-socketio has to do, with its own client over each transport."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import socketio
from socketio.exceptions import ConnectionError as RefusedError

from tests.frameworks.notes import PATIENCE
from tests.frameworks.site import Site, story

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["SOCKETIO_STORIES"]

#: What stories are told over: long polls alone, WebSocket alone, and from one to the other.
TRANSPORTS = ("polling", "websocket", "polling,websocket")
WORD = {"word": "sesame"}


@contextlib.asynccontextmanager
async def client(site: Site, **options: Any) -> AsyncIterator[socketio.AsyncSimpleClient]:
    """Return a client that is connected.

    Over long polls it leaves in the middle of one: its server would not end it for a goodbye.
    """
    transports = site.protocol.split(",")
    given: dict[str, Any] = {"auth": WORD, "wait_timeout": PATIENCE, **options}
    async with aiohttp.ClientSession() as session:
        connected = socketio.AsyncSimpleClient(http_session=session, reconnection=False)
        try:
            await connected.connect(site.url, transports=transports, **given)
            yield connected
        finally:
            if connected.client is not None:
                await connected.client.eio.disconnect(abort=True)


@story("events and acknowledgements, text and bytes, large ones too", over=TRANSPORTS)
def acknowledged(site: Site) -> None:
    """They come back as they were."""

    async def tell() -> None:
        async with client(site) as one:
            assert (await one.receive(PATIENCE))[0] == "welcome"
            assert one.transport == site.protocol.rpartition(",")[2]
            for sent in ("é", b"\x00\xff", "x" * 200_000, {"b": b"y" * 50_000}, [1, None]):
                assert await one.call("echo", sent, timeout=PATIENCE) == sent

    asyncio.run(tell())


@story("rooms", over=TRANSPORTS)
def rooms(site: Site) -> None:
    """Everybody else in it hears what is said."""

    async def tell() -> None:
        async with client(site) as one, client(site) as two:
            for each in (one, two):
                assert (await each.receive(PATIENCE))[0] == "welcome"
                await each.call("enter", "kitchen", timeout=PATIENCE)
            for speaker, hearer in ((one, two), (two, one)):
                await speaker.emit("say", ("kitchen", "hello"))
                assert await hearer.receive(PATIENCE) == ["said", "hello"]

    asyncio.run(tell())


@story("namespaces", over=TRANSPORTS)
def namespaces(site: Site) -> None:
    """Each has its own events."""

    async def tell() -> None:
        async with client(site, namespace="/other") as one:
            assert await one.call("count", b"12345", timeout=PATIENCE) == 5

    asyncio.run(tell())


@story("a client that is refused", over=TRANSPORTS[1:])
def refused(site: Site) -> None:
    """By the application.

    Over long polls alone the client itself waits half a minute before it says so.
    """

    async def tell() -> None:
        with pytest.raises(RefusedError, match="failed to connect"):
            async with client(site, auth={}):
                pass  # never

    asyncio.run(tell())


SOCKETIO_STORIES = (acknowledged, rooms, namespaces, refused)
