"""The narrow waist: all that codecs, exchanges and connections know of each other.

A codec turns bytes into requests and messages; an exchange turns those into one application call; a
connection owns the transport that carries them. N codecs and M exchanges meet here, so that neither
side knows the other. Methods with a stream id rather than event objects: at this speed one
allocation a step is visible. HTTP/1.1 has one stream at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from daphne_supervisor.worker.head import Head, Headers, Refused
    from daphne_supervisor.worker.http2_frames import ConnectionFault
    from daphne_supervisor.worker.http2_stream import Stream
    from daphne_supervisor.worker.http2_tunnel import Tunnel
    from daphne_supervisor.worker.response import Identity
    from daphne_supervisor.worker.scope import Peer
    from daphne_supervisor.worker.service import Service

__all__ = [
    "Client",
    "Codec",
    "FileWire",
    "Handler",
    "InformingWire",
    "Message",
    "Messages",
    "Port",
    "Request",
    "Running",
    "StreamHandler",
    "Throttled",
    "Wire",
    "Worker",
]

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

    @property
    def worker(self) -> Worker:
        """The worker that the connection belongs to."""

    @property
    def congested(self) -> bool:
        """Say whether the client reads slower than we write."""


class Worker(Protocol):
    """Who answers, and how far it has come in leaving.

    `identity` are the `Date` and `Server` header lines of this second. While `lingering` every
    answer should be its connection's last, while `draining` nothing new is begun, and WebSockets
    are told to leave from `closing_websockets` on.
    """

    identity: Identity
    lingering: bool
    draining: bool
    closing_websockets: bool


class Client(Protocol):
    """Whom an exchange serves: the connection, or the stream of one that is its own.

    `congested` says that the client takes less than we send, and `peer` who it is.
    """

    service: Service
    peer: Peer

    @property
    def congested(self) -> bool:
        """Say whether the client reads slower than we write."""

    @property
    def is_closing(self) -> Callable[[], bool]:
        """What says whether what is sent goes nowhere."""

    @property
    def client_text(self) -> Callable[[Head], str]:
        """What returns the client of a request as the access log writes it."""

    async def drained(self) -> None:
        """Wait until the client has caught up or left."""


class Throttled(Client, Protocol):
    """A client whose messages can be held back, as a WebSocket's are."""

    def pause_reading(self) -> None:
        """Stop the flow of received bytes."""

    def resume_reading(self) -> None:
        """Let received bytes flow again."""

    def soon(self, call: Callable[[], None]) -> None:
        """Do `call` when everybody else has had a turn."""


class Running(Protocol):
    """An application call."""

    @property
    def running(self) -> bool:
        """Say whether it has begun and not ended."""


class Request(Running, Protocol):
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

    def receive_whole(self, body: bytes) -> None:
        """Take all of the request body at once, before `start`."""

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

    def speak_http2(self, data: bytes) -> bool:
        """Go on as HTTP/2 with `data`, which begins with its preface; return whether we do."""

    def upgrade_http2(self, head: Head, values: list[tuple[int, int]], rest: bytes) -> bool:
        """Go on as HTTP/2, with `head` as the first request; return whether we do."""

    def refused(self, reason: Refused) -> None:
        """Log that a request was refused."""


class StreamHandler(Protocol):
    """What a codec of many streams tells its connection."""

    def begin_stream(self, head: Head, stream: Stream) -> Request:
        """Return the exchange for a request that has arrived on `stream`."""

    def open_tunnel(self, head: Head, tunnel: Tunnel) -> None:
        """Run a WebSocket on `tunnel`, whose codec becomes its `socket`."""

    def overload(self) -> Refused | None:
        """Return the answer to a handshake while too many requests run; it counts as given."""

    def refused(self, reason: Refused) -> None:
        """Log that a request was refused."""

    def crowded(self) -> None:
        """Log, once, that a stream was turned away: too many are open, or run."""

    def broke(self, fault: ConnectionFault) -> None:
        """Log that the client has broken a rule that ends its connection."""

    def forget(self) -> None:
        """Close at once with RST: nobody listens, and what was written is given up."""


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

    def trailers(self, stream: int, headers: Headers) -> None:
        """End the response with a trailer section. Raises `ValueError` if it cannot be sent."""

    def give_up(self, stream: int) -> None:
        """End a response that has begun and cannot be completed."""


class InformingWire(Wire, Protocol):
    """A wire on which interim responses are understood."""

    def inform(self, stream: int, status: int, headers: Headers) -> None:
        """Send an interim response. Raises `ValueError` when it cannot be sent."""


class FileWire(Wire, Protocol):
    """A wire over which the kernel can send files."""

    async def send_file(self, stream: int, size: int, send: Callable[[], Awaitable[None]]) -> None:
        """Send a piece of the body, the `size` bytes that `send` sends; more follows.

        Raises `ValueError` if it is more than announced, and what `send` raises.
        """


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

    @property
    def deadline(self) -> float:
        """Return when `expire` wants to be called."""

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
