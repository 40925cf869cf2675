"""An HTTP/2 client of frames: it hides nothing that the server does, and repairs nothing.

What the server says is read by `http2_judge`, which fails at the first thing that no server may
say; what the client says may be as wrong as a test wants.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from typing import TYPE_CHECKING, Self

import trustme

from tests.support import http2_frames as frames
from tests.support.http2_judge import Answer, GoAway, Judge

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Http2Client", "Secure", "shut_out"]

PATIENCE = 10.0
"""Seconds that the server gets for each step. Far more than any of them needs."""
_READ = 262_144
_FIRST_WINDOW = 65_535
_LARGEST = 16_384


class Http2Client:
    """One connection, by prior knowledge or over TLS. Every wait is bounded."""

    def __init__(
        self,
        port: int | str,
        *,
        tls: ssl.SSLContext | None = None,
        settings: tuple[tuple[int, int], ...] = (),
        window: int | None = None,
        credits_: bool = True,
        keeps: bool = True,
        pongs: bool = True,
    ) -> None:
        """Connect to `port` of 127.0.0.1 or to a unix socket, and say the preface.

        `window` bytes are opened for the connection and for each stream beside the first 65,535. If
        it `credits_`, what comes is asked for again; unless it `keeps` bodies, they are counted; it
        answers pings with `pongs`.
        """
        family = socket.AF_UNIX if isinstance(port, str) else socket.AF_INET
        raw = socket.socket(family)
        raw.settimeout(PATIENCE)
        try:
            raw.connect(port if isinstance(port, str) else ("127.0.0.1", port))
            if family == socket.AF_INET:
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket = raw if tls is None else tls.wrap_socket(raw, server_hostname="localhost")
        except OSError:
            raw.close()
            raise
        self.judge = Judge(keeps=keeps)
        self.ended = False
        """Whether the server has ended the connection."""
        self.stalled: set[int] = set()
        """Streams whose windows are not opened again."""
        self._credits = credits_
        self._pongs = pongs
        self._answered = 0  # pings
        self._sent: dict[int, int] = {}
        self._next = 1
        if window is not None:
            settings = (*settings, (frames.Setting.INITIAL_WINDOW_SIZE, _FIRST_WINDOW + window))
        self.write(frames.PREFACE + frames.settings(*settings))
        if window is not None:
            self.write(frames.window_update(0, window))

    def __enter__(self) -> Self:
        """Be connected."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close, without a word."""
        self.socket.close()

    # -- out --

    def write(self, data: bytes) -> None:
        """Send bytes, which are mostly frames."""
        self.socket.sendall(data)

    def open(
        self,
        path: str,
        *fields: tuple[str, str],
        method: str | None = None,
        end: bool = True,
    ) -> int:
        """Send the head of a request, which is all of it at the `end`; return its stream."""
        stream = self._next
        self._next += 2
        pseudo = [
            (":method", method or ("GET" if end else "POST")),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
        ]
        lines = [(name.encode(), value.encode()) for name, value in (*pseudo, *fields)]
        self.write(frames.headers(stream, lines, end=end))
        return stream

    def room(self, stream: int) -> int:
        """Return the bytes that may be sent on `stream` now (RFC 9113 section 6.9.1)."""
        judge = self.judge
        first = judge.settings.get(frames.Setting.INITIAL_WINDOW_SIZE, _FIRST_WINDOW)
        own = first + judge.updates.get(stream, 0) - self._sent.get(stream, 0)
        shared = _FIRST_WINDOW + judge.updates.get(0, 0) - self._sent.get(0, 0)
        return min(own, shared)

    def data(self, stream: int, content: bytes, *, end: bool = False) -> None:
        """Send one DATA frame, whether or not there is room for it."""
        for each in (0, stream):
            self._sent[each] = self._sent.get(each, 0) + len(content)
        self.write(frames.data(stream, content, end=end))

    def send(self, stream: int, content: bytes, *, end: bool = True) -> None:
        """Send a body as the server makes room for it."""
        at = 0
        while at < len(content):
            self.until(lambda: self.room(stream) > 0)
            piece = content[at : at + min(self.room(stream), _LARGEST)]
            at += len(piece)
            self.data(stream, piece, end=end and at == len(content))
        if end and not content:
            self.data(stream, b"", end=True)

    # -- in --

    def hear(self, patience: float = PATIENCE) -> bool:
        """Read once, for at most so many seconds; return whether there was something."""
        if self.ended:
            return False
        pending = self.socket.pending() if isinstance(self.socket, ssl.SSLSocket) else 0
        if not pending and not select.select([self.socket], [], [], patience)[0]:
            return False
        try:
            received = self.socket.recv(_READ)
        except (ConnectionError, ssl.SSLEOFError):
            received = b""
        if not received:
            self.ended = True
            return True
        self.judge.hear(received)
        if self._pongs:
            for ping in self.judge.pings[self._answered :]:
                self._try(frames.ping(ping, ack=True))
            self._answered = len(self.judge.pings)
        if self._credits:
            self.credit()
        return True

    def _try(self, data: bytes) -> None:
        """Send what the server may be gone for."""
        try:
            self.write(data)
        except (ConnectionError, ssl.SSLError):
            self.ended = True

    def credit(self) -> None:
        """Ask for as much again as has come; on `stalled` streams for nothing more."""
        owed = {stream: size for stream, size in self.judge.uncredited.items() if size}
        self.judge.uncredited = {}
        if not owed:
            return
        updates = [frames.window_update(0, sum(owed.values()))]
        updates += [
            frames.window_update(stream, size)
            for stream, size in owed.items()
            if stream not in self.stalled and not self.judge.answer(stream).ended
        ]
        self._try(b"".join(updates))

    def until(self, wanted: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Read until something holds."""
        deadline = time.monotonic() + patience
        while not wanted():
            assert not self.ended, f"the server has left: {self.judge.goaways}"
            assert time.monotonic() < deadline, "it does not come"
            self.hear(deadline - time.monotonic())

    def answer(self, stream: int, patience: float = PATIENCE) -> Answer:
        """Return the answer on `stream` when it has ended, one way or another."""
        self.until(lambda: self.judge.answer(stream).ended, patience)
        return self.judge.answer(stream)

    def get(self, path: str, *fields: tuple[str, str]) -> Answer:
        """Ask and return the answer."""
        return self.answer(self.open(path, *fields))

    def round_trip(self) -> None:
        """Wait until the server has read everything that was sent."""
        heard = len(self.judge.pongs)
        self.write(frames.ping())
        self.until(lambda: len(self.judge.pongs) > heard)

    def end(self, patience: float = PATIENCE) -> GoAway | None:
        """Wait for the end of the connection; return the last GOAWAY, if there was one."""
        deadline = time.monotonic() + patience
        while not self.ended:
            assert time.monotonic() < deadline, "the server does not leave"
            self.hear(deadline - time.monotonic())
        return self.judge.goaways[-1] if self.judge.goaways else None


class Secure:
    """A certificate for `localhost` on the disk, and who believes it."""

    def __init__(self, folder: Path) -> None:
        """Write certificate and key into `folder`."""
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        self.certificate, self.key = folder / "cert.pem", folder / "key.pem"
        self.authority = folder / "ca.pem"
        issued.cert_chain_pems[0].write_to_path(str(self.certificate))
        issued.private_key_pem.write_to_path(str(self.key))
        authority.cert_pem.write_to_path(str(self.authority))

    @property
    def endpoint(self) -> str:
        """The endpoint of a server, on a free port."""
        return f"ssl:0:interface=127.0.0.1:privateKey={self.key}:certKey={self.certificate}"

    def context(self, *protocols: str) -> ssl.SSLContext:
        """Return what a client needs to connect, and to ask for `protocols` by ALPN."""
        context = ssl.create_default_context(cafile=str(self.authority))
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context


def shut_out(received: bytes) -> frames.Code | None:
    """Return the code of the GOAWAY frame that ends `received`, `None` if none is there."""
    found = received.rfind(b"\x07\x00\x00\x00\x00\x00")
    return None if found < 0 else frames.Code(int.from_bytes(received[found + 10 : found + 14]))
