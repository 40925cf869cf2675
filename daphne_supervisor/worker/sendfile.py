"""A file's way into a socket without passing through this process: sendfile(2).

Neither uvloop nor Twisted has one. The loop watches the socket's own descriptor for its transport
and lets nobody else wait for it; a copy of the descriptor is another number, so we wait with that.

What is in memory is sent by the loop itself: to hand it to a thread would cost more than to send
it. What has to come from a disk first is left to a thread.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from daphne_supervisor.worker.exchange import ClientDisconnected
from daphne_supervisor.worker.file_source import UnreadableError

if TYPE_CHECKING:
    from daphne_supervisor.worker.connection import Connection
    from daphne_supervisor.worker.file_source import FileSource

__all__ = ["send_file"]

#: Bytes that are sent at a time, then others have their turn. It takes a tenth of a millisecond.
MOST = 1_048_576
_FULL, _GONE = -1, -2


async def send_file(connection: Connection, source: FileSource) -> None:
    """Send all that is left of `source`, behind what was written to the `connection` before.

    While the client takes nothing the connection is congested, and --write-timeout watches. Raises
    `ClientDisconnected`, or `UnreadableError` when the file ends before its time.
    """
    transport = connection.transport
    if connection.is_closing():
        raise ClientDisconnected
    transport.limit_unsent(0)
    try:
        await connection.drained()
        if connection.is_closing():
            raise ClientDisconnected
        await _Sendfile(connection, source).send()
    finally:
        if not connection.is_closing():
            transport.limit_unsent(None)


class _Sendfile:
    """One file on its way."""

    def __init__(self, connection: Connection, source: FileSource) -> None:
        self._connection = connection
        self._source = source
        self._error: ClientDisconnected | UnreadableError | None = None
        self._number = os.dup(connection.transport.get_extra_info("socket").fileno())
        source.keep(self._number)

    async def send(self) -> None:
        """Send all of it."""
        source = self._source
        while source.left:
            asked = min(source.left, MOST)
            if not source.cached(asked):
                sent = await source.use(self._sendfile, asked)
                if self._connection.is_closing():
                    raise ClientDisconnected
                self._note(sent)
                if sent == asked:
                    continue
            await self._send_cached()

    async def _send_cached(self) -> None:
        """Send what is in memory, whenever the socket takes some.

        Meanwhile the client is one who reads too slowly, for all who write to it.
        """
        connection, loop = self._connection, self._connection.service.loop
        connection.pauseProducing()
        loop.add_writer(self._number, self._step)
        try:
            await connection.drained()
        finally:
            loop.remove_writer(self._number)
            if connection.congested:
                connection.resumeProducing()
        if self._error is not None:
            raise self._error
        if connection.is_closing():
            raise ClientDisconnected

    def _step(self) -> None:
        """Send some, or say that there is nothing to be sent from here."""
        source, connection = self._source, self._connection
        asked = min(source.left, MOST)
        if asked and source.cached(asked):
            try:
                self._note(self._sendfile(asked))
                connection.note_progress()
            except (ClientDisconnected, UnreadableError) as error:
                self._error = error
            except OSError as error:
                self._error = source.unreadable(error)
            else:
                return
        connection.resumeProducing()

    def _sendfile(self, most: int) -> int:
        """Return how many bytes the socket has taken, or why it has not."""
        source = self._source
        try:
            return os.sendfile(self._number, source.number, source.offset, most)
        except BlockingIOError:
            return _FULL
        except ConnectionError:
            return _GONE

    def _note(self, sent: int) -> None:
        """Raise `ClientDisconnected` if it is gone, `UnreadableError` if nothing was left."""
        if sent == _GONE:
            raise ClientDisconnected
        if sent != _FULL:
            self._source.take(sent)
