"""What HTTP/2 costs without sockets and application: the server's half of `h2`, and ours.

Run `python -m benchmarks.http2_codec`. Each reads the same request and writes the same small
response, over and over on one connection; what is printed is microseconds of CPU time a request.
"""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

from daphne_supervisor.config import Http, Http2
from daphne_supervisor.worker.http2 import Http2 as Codec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from daphne_supervisor.worker.waist import Worker

REQUESTS = 5000
_FIELDS = [(":method", "GET"), (":scheme", "https"), (":authority", "test"), (":path", "/")]
_HEADERS = [(b"content-type", b"text/plain")]
_DATE, _SERVER = b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n", b"server: x\r\n"
_IDENTITY = (_DATE, _SERVER, _SERVER + _DATE + b"\r\n")
_BODY = b"Hello, world!"


class _Nowhere:
    """Port and handler of our codec: writes are dropped, requests answered at once."""

    congested = False
    worker: Worker = SimpleNamespace(
        identity=_IDENTITY, lingering=False, draining=False, closing_websockets=False
    )
    codec: Codec

    def __init__(self) -> None:
        self._due: list[Callable[[], None]] = []

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)  # nothing else is asked for by a request like this

    def write(self, data: bytes) -> None:
        """Drop it."""

    def soon(self, call: Callable[[], None]) -> None:
        """Remember the call."""
        self._due.append(call)

    def turn(self) -> None:
        """Do what was to be done soon."""
        while self._due:
            self._due.pop()()

    def now(self) -> float:
        """Return the time."""
        return time.monotonic()

    def begin_stream(self, _head: Any, stream: Any) -> Any:
        """Return an exchange that answers when it is started."""

        def start() -> None:
            self.codec.respond(stream.id, 200, _HEADERS, _BODY, more=False)

        return SimpleNamespace(start=start, running=False)


def _requests() -> Iterator[bytes]:
    """Yield what a client sends: its beginning, then a request each."""
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    client.increment_flow_control_window(2**30)
    yield client.data_to_send()
    for number in range(1, 2 * REQUESTS, 2):
        client.send_headers(number, _FIELDS, end_stream=True)
        yield client.data_to_send()
        client.reset_stream(number)  # the client's half is over: it keeps no more of it
        client.data_to_send()


def _h2(pieces: Sequence[bytes]) -> None:
    server = H2Connection(H2Configuration(client_side=False, header_encoding=None))
    server.initiate_connection()
    date = [(b"server", b"x"), (b"date", _DATE[6:-2]), (b"content-length", b"13")]
    for piece in pieces:
        for event in server.receive_data(piece):
            if isinstance(event, RequestReceived):
                server.send_headers(event.stream_id, [(b":status", b"200"), *_HEADERS, *date])
                server.send_data(event.stream_id, _BODY, end_stream=True)
        server.data_to_send()


def _ours(pieces: Sequence[bytes]) -> None:
    nowhere = _Nowhere()
    nowhere.codec = Codec(nowhere, nowhere, Http(), Http2())
    for piece in pieces:
        nowhere.codec.receive(piece)
        nowhere.turn()


def main() -> None:
    """Print both figures."""
    pieces = list(_requests())
    for name, serve in (("h2", _h2), ("ours", _ours)):
        begun = time.process_time()
        serve(pieces)
        spent = time.process_time() - begun
        print(f"{name:5} {spent / REQUESTS * 1e6:6.1f} us a request")


if __name__ == "__main__":
    main()
