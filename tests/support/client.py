"""An HTTP/1.1 client of raw bytes: it hides nothing that the server does, and repairs nothing."""

from __future__ import annotations

import select
import socket
import ssl
from dataclasses import dataclass
from typing import Self

__all__ = ["Client", "CutError", "Response", "get"]

PATIENCE = 10.0
"""Seconds that the server gets for each step. Far more than any of them needs."""
_BODILESS = (100, 204, 304)


class CutError(ConnectionError):
    """The server has closed the connection in the middle; the text is what came until then."""


@dataclass(frozen=True)
class Response:
    """What the server has answered; header names are in lower case, in the order sent."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""

    def values(self, name: str) -> list[str]:
        """Return the values of every header called `name`."""
        return [value for key, value in self.headers if key == name]

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def closes(self) -> bool:
        """Whether the server says that this is the last response of the connection."""
        return "close" in self.values("connection")


class Client:
    """One connection. Every wait is bounded; `TimeoutError` says that nothing came."""

    def __init__(
        self,
        port: int | str,
        *,
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
        name: str = "localhost",
    ) -> None:
        """Connect to `port` of 127.0.0.1, or to the unix socket whose path it is.

        A small `receive_buffer` makes a slow reader. With `tls` a handshake follows that asks for
        the server `name`, and offers the `session` of an earlier one.
        """
        family = socket.AF_UNIX if isinstance(port, str) else socket.AF_INET
        self.socket = socket.socket(family)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self._data = b""
        try:
            self.socket.connect(port if isinstance(port, str) else ("127.0.0.1", port))
            if tls is not None:
                # Else a request waits for the answer to the end of the handshake, 40 ms.
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.socket = tls.wrap_socket(self.socket, server_hostname=name, session=session)
        except OSError:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        """Be connected."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    @property
    def port(self) -> int:
        """The client's own port, 0 on a unix socket, where nobody has one."""
        name = self.socket.getsockname()
        return int(name[1]) if name else 0

    @property
    def secured(self) -> ssl.SSLSocket:
        """The socket of a connection with TLS."""
        assert isinstance(self.socket, ssl.SSLSocket)
        return self.socket

    @property
    def certificate(self) -> str:
        """What the server has shown, in PEM."""
        return ssl.DER_cert_to_PEM_cert(self.secured.getpeercert(binary_form=True) or b"")

    def close(self) -> None:
        """Leave."""
        self.socket.close()

    # -- out --

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self.socket.sendall(data)

    def ask(self, target: str, *lines: str, method: str = "GET", body: bytes = b"") -> None:
        """Send a request with the header `lines`, and the length of a `body` if there is one."""
        framing = [f"Content-Length: {len(body)}"] if body else []
        head = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: test", *framing, *lines])
        self.send(head.encode() + b"\r\n\r\n" + body)

    def stuff(self, most: int, patience: float) -> int:
        """Send zeros until nothing goes for `patience` seconds, or `most` have gone; say how many.

        That is how an upload ends that nobody reads: in full buffers, not in an error.
        """
        piece, sent = bytes(65536), 0
        self.socket.setblocking(False)
        while sent < most and select.select([], [self.socket], [], patience)[1]:
            sent += self.socket.send(piece[: most - sent])
        self.socket.settimeout(PATIENCE)
        return sent

    # -- in --

    def get(self, target: str, *lines: str) -> Response:
        """Ask and return the response."""
        self.ask(target, *lines)
        return self.response()

    def response(self, method: str = "GET") -> Response:
        """Return the next response, one with status 100 too; it answers a request of `method`.

        Raises `CutError` when the connection ends before the response does.
        """
        head = self._until(b"\r\n\r\n").decode("latin-1")
        first, *lines = head.split("\r\n")[:-2]
        pairs = [line.partition(":") for line in lines]
        headers = [(name.lower(), value.strip()) for name, _, value in pairs]
        found = Response(int(first.split(" ")[1]), headers)
        if method == "HEAD" or found.status in _BODILESS:
            return found
        return Response(found.status, headers, self._body(found))

    def piece(self) -> bytes:
        """Return the next chunk of a body whose head was read by `head`."""
        size = int(self._until(b"\r\n"), 16)
        chunk = self._take(size + 2)
        return chunk[:-2]

    def head(self) -> Response:
        """Return the next response without its body, which is left to be read."""
        return self.response("HEAD")

    def rest(self) -> bytes:
        """Return all that still comes until the server closes in order."""
        while self._more():
            pass
        rest, self._data = self._data, b""
        return rest

    def _body(self, found: Response) -> bytes:
        if lengths := found.values("content-length"):
            return self._take(int(lengths[0]))
        if "chunked" not in found.values("transfer-encoding"):
            return self.rest()
        body = b""
        while piece := self.piece():
            body += piece
        return body

    def _until(self, end: bytes) -> bytes:
        """Return what comes up to `end`, which is included."""
        while end not in self._data:
            self._need_more()
        return self._take(self._data.index(end) + len(end))

    def _take(self, size: int) -> bytes:
        while len(self._data) < size:
            self._need_more()
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def _need_more(self) -> None:
        if not self._more():
            raise CutError(self._data.decode("latin-1"))

    def _more(self) -> bool:
        data = self.socket.recv(65536)
        self._data += data
        return bool(data)


def get(port: int | str, target: str, *lines: str) -> Response:
    """Return the answer to one request on a connection of its own."""
    with Client(port) as client:
        return client.get(target, *lines)
