"""WSGI applications (PEP 3333) as applications of ASGI.

asgiref has such a wrapper, which does not close what the application returns, has no `write`, and
holds a thread while a client reads. Here a thread is taken only while the application itself runs:
the body of the request is there, in memory or in a temporary file, before it is called; and each
piece of the response is sent by the event loop while the thread serves others. So a slow client
holds no thread, in either direction, and no more of a response is in memory than one piece.

All calls of a request run on one thread, its lease (`threads`), and in one context: what Flask
keeps in a context variable while it streams must be found, and taken away, where it was put.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async

from daphne_supervisor.worker.file_source import ZEROCOPYSEND, announced
from daphne_supervisor.worker.response import error_page
from daphne_supervisor.worker.wsgi_environ import FileWrapper, environ_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    _ExcInfo = tuple[type[BaseException], BaseException, TracebackType]
    _Environ = dict[str, Any]
    _WsgiApplication = Callable[[_Environ, Callable[..., Any]], Iterable[bytes]]

__all__ = ["Wsgi"]

logger = logging.getLogger("daphne_supervisor.worker")

#: Bytes of a request's body that stay in memory; asgiref's and Django's number is the same order.
IN_MEMORY = 262_144
_END = b""
"""Stands for the end of what an application returns; an empty piece is nothing to be sent."""


class Wsgi:
    """A WSGI application that can be called as ASGI 3."""

    def __init__(self, application: _WsgiApplication) -> None:
        """Serve `application`."""
        self._application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer a request; there are no WebSockets here, and no lifespan."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
        elif scope["type"] == "http":
            with _spooled() as body:
                try:
                    length = await _receive(body, receive)
                except OSError as error:
                    path = scope["raw_path"].decode("latin-1")
                    logger.error(  # noqa: TRY400 - a full disk has no traceback
                        "%s %s: no room for its body: %s", scope["method"], path, error
                    )
                    await _refuse(send)
                    return
                if length is not None:
                    call = _Call(scope, send)
                    await call.run(self._application, environ_of(scope, body, length))


@contextlib.contextmanager
def _spooled() -> Iterator[SpooledTemporaryFile[bytes]]:
    """Yield a file, in memory until it is large."""
    body: SpooledTemporaryFile[bytes] = SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115
    try:
        yield body
    finally:
        with contextlib.suppress(OSError):  # what did not fit on the disk is tried once more
            body.close()


async def _receive(body: SpooledTemporaryFile[bytes], receive: Any) -> int | None:
    """Fill `body` and return its length, `None` when the client has left before it was whole."""
    length = 0
    loop = asyncio.get_running_loop()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        data = message["body"]
        length += len(data)
        if length > IN_MEMORY:
            await loop.run_in_executor(None, body.write, data)
        else:
            body.write(data)
        if not message["more_body"]:
            body.seek(0)
            return length


async def _refuse(send: Any) -> None:
    headers, page = error_page(503, "No room for the body of the request.")
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": page})


class _Call:
    """One call of the application, and what it sends."""

    def __init__(self, scope: dict[str, Any], send: Any) -> None:
        self._send = send
        self._sends_files = ZEROCOPYSEND in scope.get("extensions", ())
        self._loop = asyncio.get_running_loop()
        self._on_thread = sync_to_async(
            _invoke, thread_sensitive=True, context=contextvars.copy_context()
        )
        self._head: dict[str, Any] | None = None
        self._head_sent = False
        self._left: int | None = None  # bytes of the body that are still to come, if that was said
        self._result: Iterable[bytes] = ()
        self._pieces: Iterator[bytes]

    async def run(self, application: _WsgiApplication, environ: _Environ) -> None:
        """Call `application`, and send what it returns."""
        try:
            piece = await self._on_thread(self._begin, application, environ)
            if isinstance(self._result, FileWrapper) and piece is None:
                await self._send_file(self._result)
                return
            await self._send_pieces(piece)
        finally:
            if hasattr(self._result, "close"):
                # Whatever becomes of this task: what it holds may be a database connection.
                closing = asyncio.ensure_future(self._on_thread(self._result.close))
                await asyncio.shield(closing)

    async def _send_pieces(self, piece: bytes | None) -> None:
        """Send `piece` and those that follow it."""
        while piece:
            whole = self._left == len(piece) or isinstance(self._result, (list, tuple))
            await self._send_piece(piece, more=not whole)
            if whole:
                return
            piece = await self._on_thread(self._next)
        await self._send_piece(_END, more=False)

    # -- on the thread --

    def _begin(self, application: _WsgiApplication, environ: _Environ) -> bytes | None:
        """Call the application; return the first piece, `None` for a file that can be sent."""
        self._result = result = application(environ, self.start_response)
        if isinstance(result, (list, tuple)):
            return b"".join(result)
        if isinstance(result, FileWrapper) and self._sends_files and _has_descriptor(result.file):
            return None
        self._pieces = iter(result)
        return self._next()

    def _next(self) -> bytes:
        """Return the next piece that is not empty, or `_END`."""
        return next((piece for piece in self._pieces if piece), _END)

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: _ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """Take the head of the response, which leaves with the first piece (PEP 3333).

        A head that has not left can be replaced by that of an error. Raises `ValueError` for one
        that cannot be sent, and the error itself if it comes too late.
        """
        if exc_info is not None and self._head_sent:
            raise exc_info[1].with_traceback(exc_info[2])
        if exc_info is None and self._head is not None:
            message = "start_response was called a second time, without exc_info"
            raise ValueError(message)
        try:
            fields = [(name.lower().encode("latin-1"), _line(value)) for name, value in headers]
            code = int(status[:3])
        except (AttributeError, TypeError, ValueError):
            message = f"start_response was called with {status!r} and {headers!r}"
            raise ValueError(message) from None
        self._head = {"type": "http.response.start", "status": code, "headers": fields}
        self._left = announced(fields)
        return self.write

    def write(self, data: bytes) -> None:
        """Send `data` before all that is returned, and wait for it: for old applications."""
        if data:
            sending = self._send_piece(data, more=True)
            asyncio.run_coroutine_threadsafe(sending, self._loop).result()

    # -- on the loop --

    async def _send_head(self) -> None:
        if not self._head_sent:
            if self._head is None:
                message = "the application has not called start_response"
                raise ValueError(message)
            self._head_sent = True
            await self._send(self._head)

    async def _send_piece(self, piece: bytes, *, more: bool) -> None:
        await self._send_head()
        if self._left is not None:
            self._left -= len(piece)
        await self._send({"type": "http.response.body", "body": piece, "more_body": more})

    async def _send_file(self, wrapper: FileWrapper) -> None:
        """Let the server send the file; no more of it than was announced."""
        await self._send_head()
        await self._send({"type": ZEROCOPYSEND, "file": wrapper.file})


def _invoke(call: Callable[..., Any], *args: Any) -> Any:
    return call(*args)


def _line(value: str) -> bytes:
    return value.encode("latin-1")


def _has_descriptor(file: Any) -> bool:
    try:
        return isinstance(file.fileno(), int) and file.tell() >= 0
    except (AttributeError, OSError, ValueError):
        return False
