"""What one request of an application tells another one, and what all applications answer with."""

import asyncio
import hashlib
from collections import defaultdict
from pathlib import Path

__all__ = ["CODE", "EVENTS", "FILE", "FOLDER", "PATIENCE", "PIECES", "Notes", "digest"]

PATIENCE = 20.0
"""Seconds until something has to have happened: far more than a loaded machine needs."""

FOLDER = Path(__file__).parent / "static"
FILE = FOLDER / "site.css"

#: A streamed response: 160 KiB in pieces that differ.
PIECES = [bytes([number]) * 4096 for number in range(40)]
#: The data of server-sent events. Each but the first waits until `/now` is asked for.
EVENTS = ["1", "2", "3"]
#: A WebSocket that its client closes with this code leaves a note.
CODE = 4002


def digest(data: bytes) -> str:
    """Return what stands for `data` in an answer."""
    return hashlib.sha256(data).hexdigest()


class Notes:
    """Notes on a board: whoever reads one waits until it is there, and takes it down."""

    def __init__(self) -> None:
        """Hold none."""
        self._notes: defaultdict[str, asyncio.Queue[str]] = defaultdict(asyncio.Queue)

    def leave(self, name: str, text: str) -> None:
        """Leave a note called `name`; on the event loop only."""
        self._notes[name].put_nowait(text)

    async def take(self, name: str) -> str:
        """Return the oldest note called `name`. Raises TimeoutError when none comes."""
        return await asyncio.wait_for(self._notes[name].get(), PATIENCE)
