"""The narrow waist: all that codecs, exchanges and connections know of each other.

A codec turns bytes into requests and messages; an exchange turns those into one application call; a
connection owns the transport that carries them. N codecs and M exchanges meet here, so that neither
side knows the other. Methods with a stream id rather than event objects: at this speed one
allocation a step is visible. HTTP/1.1 has one stream at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daphne_supervisor.worker.head import Head, Headers, Refused
    from daphne_supervisor.worker.response import Identity

__all__ = ["Codec", "Handler", "Message", "Messages", "Port", "Request", "Wire", "Worker"]

Message = str | bytes
"""A WebSocket message: text or binary."""


class Port(Protocol):
    """What a codec may ask of its connection."""

    def write(self, data: bytes) -> None:
        """Send `data`, in order."""

    def write_all(self, pieces: Sequence[bytes]) -> None:
        """Send `pieces` as if they were one, without joining them."""

    def pause_reading(self) -> None:
        """Stop the flow of received bytes."""

    def resume_reading(self) -> None:
        """Let received bytes flow again."""

    def close(self) -> None:
        """Close once everything written is sent."""

    def abort(self) -> None:
        """Close at once."""

    def shut(self) -> None:
        """Send FIN once everything written is sent; go on reading."""

    def broken(self, error: Exception) -> None:
        """Log an error of ours, and close at once."""

    def soon(self, call: Callable[[], None]) -> None:
        """Do `call` when everybody else has had a turn."""

    def now(self) -> float:
        """Return the monotonic time in seconds."""

    def identity(self) -> Identity:
        """Return the `Date` and `Server` header lines of this second."""

    @property
    def worker(self) -> Worker:
        """The worker that the connection belongs to."""

    @property
    def congested(self) -> bool:
        """Say whether the client reads slower than we write."""


class Worker(Protocol):
    """How far the worker has come in leaving.

    While `lingering` every answer should be its connection's last, while `draining` nothing new is
    begun, and WebSockets are told to leave from `closing_websockets` on.
    """

    lingering: bool
    draining: bool
    closing_websockets: bool


class Request(Protocol):
    """The exchange of one request, as its codec sees it."""

    head: Head
    stream: int

    @property
    def full(self) -> bool:
        """Say whether so much of the body waits that no more should be read."""

    @property
    def waits_for_continue(self) -> bool:
        """Say whether the client was asked for its body, when it wanted to be asked."""

    def start(self) -> None:
        """Call the application."""

    def receive_body(self, data: bytes) -> None:
        """Take a piece of the request body."""

    def end_body(self) -> None:
        """Note that the request body is complete, unless the head has said that there is none."""

    def lost(self) -> None:
        """Note that the client has left."""

    def expire(self) -> None:
        """The application has taken longer than --http-timeout."""


class Handler(Protocol):
    """What a codec tells its connection."""

    def begin(self, head: Head, stream: int) -> Request:
        """Return the exchange for a request that has arrived."""

    def overload(self) -> Refused | None:
        """Return the answer to a handshake while too many requests run; it counts as given."""

    def upgrade(self, head: Head, rest: bytes) -> None:
        """Take the connection over as a WebSocket; `rest` was received behind the head."""

    def refused(self, reason: Refused) -> None:
        """Log that a request was refused."""


class Wire(Protocol):
    """What the exchange of a request may ask of its codec."""

    def taken(self, stream: int) -> None:
        """The application has read what was received."""

    def proceed(self, stream: int) -> None:
        """The application waits for the body: a client that waits for us may send it."""

    def respond(
        self, stream: int, status: int, headers: Headers, body: bytes, *, more: bool
    ) -> None:
        """Send the head and the first piece of the body. Raises `ValueError` if they are wrong."""

    def send(self, stream: int, body: bytes, *, more: bool) -> None:
        """Send a further piece of the body. Raises `ValueError` if it is more than announced."""

    def give_up(self, stream: int) -> None:
        """End a response that has begun and cannot be completed."""


class Messages(Protocol):
    """The exchange of a WebSocket, as its codec sees it."""

    @property
    def paused(self) -> bool:
        """Say whether reading pauses because too much waits for the application."""

    def receive_message(self, message: Message) -> None:
        """Take a message from the client."""

    def breathe(self) -> None:
        """Read no more of this client until others had their turn; then resume the codec."""

    def expire(self) -> None:
        """The application has taken longer than --websocket_connect_timeout to answer."""

    def closed(self, code: int, reason: str) -> None:
        """Note, once, that no message can be sent or received any more (RFC 6455 section 7.4)."""


class Codec(Protocol):
    """What a connection may ask of the codec that speaks on it.

    `deadline` is the monotonic time in seconds at which `expire` wants to be called.
    """

    deadline: float

    def receive(self, data: bytes) -> None:
        """Take what the client sent."""

    def relieved(self) -> None:
        """The client has taken most of what was written: `congested` is no more."""

    def lost(self) -> None:
        """The connection is gone."""

    def expire(self, now: float) -> None:
        """Act on the deadline, which has passed."""

    def drain(self) -> None:
        """The worker is leaving."""
