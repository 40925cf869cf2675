"""Waiting in an event loop without sleeping: turn by turn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["turns", "until"]

PATIENCE = 10.0
"""Seconds for what takes milliseconds."""


async def turns(number: int = 1) -> None:
    """Let the running loop turn so many times."""
    loop = asyncio.get_running_loop()
    for _ in range(number):
        turned = loop.create_future()
        loop.call_soon(turned.set_result, None)
        await turned


async def until(condition: Callable[[], object]) -> None:
    """Let the running loop turn until there is something."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await turns()
