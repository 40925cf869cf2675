"""What the workers of `benchmarks.channel_layers` run: receivers, from the start of the lifespan.

The variable BENCH names a folder with `layer.json`, how the layer is made, and `counters`, one
number for each worker: how many messages its receivers have had. A message with a time is counted
and its age kept; one without ends a round, and the ages go into a file.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import mmap
import os
import time
from importlib import import_module
from typing import Any

__all__ = ["GROUP", "RECEIVERS", "application", "make_layer"]

RECEIVERS = 250
GROUP = "everybody"


def make_layer(text: str) -> Any:
    """Return the channel layer that `text`, in JSON, describes: module, class and CONFIG."""
    module, name, config = json.loads(text)
    return getattr(import_module(module), name)(**config)


class Worker:
    """The receivers of one worker."""

    def __init__(self, place: str) -> None:
        """Take the first counter in folder `place` that nobody has."""
        self._place = place
        self._slot = next(slot for slot in range(1000) if self._take(slot))
        with open(f"{place}/counters", "r+b") as file:
            self._counters = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
        with open(f"{place}/layer.json", encoding="ascii") as layer:
            self._layer = make_layer(layer.read())
        self._ages = array.array("d")
        self._ended = 0
        self._tasks: list[asyncio.Task[None]] = []

    def _take(self, slot: int) -> bool:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(f"{self._place}/slot-{slot}", os.O_CREAT | os.O_EXCL))
            return True
        return False

    async def start(self) -> None:
        """Put everybody into the group, and let them receive."""
        for _ in range(RECEIVERS):
            channel = await self._layer.new_channel()
            await self._layer.group_add(GROUP, channel)
            self._tasks.append(asyncio.create_task(self._receive(channel)))

    async def _receive(self, channel: str) -> None:
        receive = self._layer.receive
        while True:
            message = await receive(channel)
            if message["sent"]:
                self._ages.append(time.monotonic() - message["sent"])
            else:
                self._end()
            self._counters[self._slot] += 1

    def _end(self) -> None:
        """Write down the ages when all receivers have had the last message of a round."""
        self._ended += 1
        if self._ended == RECEIVERS:
            self._ended = 0
            with open(f"{self._place}/ages-{self._slot}", "wb") as file:
                self._ages.tofile(file)
            del self._ages[:]


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Start the receivers with the worker; there is nothing else to serve."""
    if scope["type"] != "lifespan":
        raise ValueError(scope["type"])
    await receive()
    worker = Worker(os.environ["BENCH"])
    await worker.start()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
