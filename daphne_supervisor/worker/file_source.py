"""What an application wants to have sent out of a file: by its path, or by a descriptor of its own.

The ASGI extensions `http.response.pathsend` and `http.response.zerocopysend`. A disk may take its
time, so everything that could wait for one runs in a thread; what is in memory is read at once,
which costs less than to hand it over. A thread cannot be cancelled: a
source that is closed meanwhile lets its descriptors go when the thread is done with them, or the
number might be somebody else's by then.
"""

from __future__ import annotations

import os
import stat
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from daphne_supervisor.worker.head import Headers

__all__ = ["PATHSEND", "ZEROCOPYSEND", "FileSource", "UnreadableError", "announced", "of_message"]

PATHSEND = "http.response.pathsend"
ZEROCOPYSEND = "http.response.zerocopysend"


class UnreadableError(Exception):
    """A file that cannot be read, or not as much of it as was to be sent: nobody's mistake."""


class FileSource:
    """Bytes of a file that is open: `left` of them, from `offset` on."""

    def __init__(self, loop: asyncio.AbstractEventLoop, what: str) -> None:
        """Read in threads of `loop`; `what` is said of the file when it cannot be read."""
        self._loop = loop
        self._what = what
        self._lock = threading.Lock()
        self._in_use = self._closed = False
        self._numbers: list[int] = []
        self.offset = self.left = 0

    @property
    def number(self) -> int:
        """The descriptor."""
        return self._numbers[0]

    def keep(self, number: int) -> None:
        """Close the descriptor `number` as well, when it is time; the first is the file's own."""
        self._numbers.append(number)

    async def open(self, path: str) -> None:
        """Open the whole of a regular file. Raises `UnreadableError`."""
        await self.use(self._open, path)

    def _open(self, path: str) -> None:
        # A fifo would not be opened before somebody writes.
        self.keep(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        self._measure()

    def _measure(self) -> None:
        found = os.fstat(self.number)
        if not stat.S_ISREG(found.st_mode):
            why = "is no regular file"
            raise self.unreadable(why)
        self.left = found.st_size

    def cut_out(self, offset: int, count: int | None) -> None:
        """Take `count` bytes, or all there are, from `offset` on. Raises `UnreadableError`."""
        self._measure()
        there = max(0, self.left - offset)
        self.offset, self.left = offset, there if count is None else count
        if self.left > there:
            why = f"has {there} bytes from {offset} on, and not {count}"
            raise self.unreadable(why)

    def limit(self, length: int) -> None:
        """Take no more than `length` bytes, which must be there. Raises `UnreadableError`."""
        if self.left < length:
            why = f"has {self.left} bytes, and not {length}, its Content-Length"
            raise self.unreadable(why)
        self.left = length

    def take(self, count: int) -> None:
        """Note that `count` bytes were read; none means that the file has become shorter."""
        if not count:
            why = "has become shorter while it was sent"
            raise self.unreadable(why)
        self.offset += count
        self.left -= count

    async def read(self, most: int) -> bytes:
        """Return the next bytes, `most` at the most. Raises `UnreadableError`."""
        count = min(most, self.left)
        if self.cached(count):
            data = os.pread(self.number, count, self.offset)
        else:
            data = await self.use(os.pread, self.number, count, self.offset)
        self.take(len(data))
        return data

    def cached(self, count: int) -> bool:
        """Say whether the next `count` bytes seem to be in memory: the first and the last are."""
        byte = bytearray(1)
        try:
            for at in (self.offset, self.offset + count - 1):
                os.preadv(self.number, [byte], at, os.RWF_NOWAIT)
        except OSError:
            return False
        return True

    async def use(self, call: Callable[..., Any], *args: Any) -> Any:
        """Return what `call` does with our descriptors, in a thread. Raises `UnreadableError`."""
        try:
            return await self._loop.run_in_executor(None, self._use, call, *args)
        except OSError as error:
            raise self.unreadable(error) from None

    def _use(self, call: Callable[..., Any], *args: Any) -> Any:
        with self._lock:
            if self._closed:
                return None
            self._in_use = True
        try:
            return call(*args)
        finally:
            self._end_use()

    def _end_use(self) -> None:
        with self._lock:
            self._in_use = False
            if self._closed:
                self._let_go()

    def close(self) -> None:
        """Let the descriptors go, as soon as no thread uses them."""
        with self._lock:
            self._closed = True
            if not self._in_use:
                self._let_go()

    def _let_go(self) -> None:
        numbers, self._numbers = self._numbers, []
        for number in numbers:
            os.close(number)

    def unreadable(self, why: str | OSError) -> UnreadableError:
        """Return the error that the file cannot be read, because of `why`."""
        text = why if isinstance(why, str) else why.strerror or str(why)
        return UnreadableError(f"{self._what}: {text}")


async def of_message(loop: asyncio.AbstractEventLoop, message: dict[str, Any]) -> FileSource:
    """Return what a `http.response.pathsend` or `http.response.zerocopysend` wants to have sent.

    Raises `ValueError` for a mistake of the application's, `UnreadableError` when the file cannot
    be read.
    """
    if message["type"] == PATHSEND:
        path = message.get("path")
        if not isinstance(path, str) or not os.path.isabs(path) or "\0" in path:
            error = f"{PATHSEND}: {path!r} is no absolute path"
            raise ValueError(error)
        source = FileSource(loop, f"{PATHSEND}: {path!r}")
        take = source.open(path)
    else:
        file, offset, count = (message.get(key) for key in ("file", "offset", "count"))
        for key, value in (("offset", offset), ("count", count)):
            if value is not None and not (isinstance(value, int) and value >= 0):
                error = f"{ZEROCOPYSEND}: {key} {value!r} is no number of bytes"
                raise ValueError(error)
        source = FileSource(loop, f"{ZEROCOPYSEND}: {getattr(file, 'name', file)!r}")
        take = _borrow(source, file, offset, count)
    try:
        await take
    except BaseException:
        source.close()
        raise
    return source


async def _borrow(source: FileSource, file: Any, offset: int | None, count: int | None) -> None:
    """Take a copy of the descriptor of `file`: the application may close its own at any time.

    Without an `offset` it is read from where it stands, and stands behind what is read then. What
    is written through it and still waits in Python's buffer is not seen.
    """
    try:
        source.keep(os.dup(file if isinstance(file, int) else file.fileno()))
        if offset is None:
            start = os.lseek(file, 0, os.SEEK_CUR) if isinstance(file, int) else file.tell()
    except (AttributeError, OSError, TypeError, ValueError):
        error = f"{ZEROCOPYSEND}: {file!r} is no open file with a descriptor that can be read"
        raise ValueError(error) from None
    source.cut_out(start if offset is None else offset, count)
    if offset is None:
        end = source.offset + source.left
        os.lseek(file, end, os.SEEK_SET) if isinstance(file, int) else file.seek(end)


def announced(headers: Sequence[Any] | Headers) -> int | None:
    """Return the Content-Length among `headers`, `None` if there is none, or no right one."""
    try:
        found = [value for name, value in headers if name.lower() == b"content-length"]
        return int(found[0]) if found else None
    except (AttributeError, TypeError, ValueError):  # it is judged when the head is sent
        return None
