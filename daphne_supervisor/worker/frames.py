"""WebSocket frames beyond the plain ones, by autobahn.

This is the only module that knows autobahn.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from autobahn.websocket import xormasker
from autobahn.websocket.protocol import TrafficStats, WebSocketServerProtocol
from autobahn.websocket.utf8validator import Utf8Validator

if TYPE_CHECKING:
    from daphne_supervisor.config import WebSocket as Limits

__all__ = ["Machine", "Owner", "unmask"]


def unmask(payload: bytes, mask: bytes) -> bytes:
    """Return `payload` with the client's mask taken off (RFC 6455 section 5.3)."""
    masker = xormasker.create_xor_masker(mask, len(payload))  # type: ignore[attr-defined, no-untyped-call]
    unmasked: bytes = masker.process(payload)
    return unmasked


class Owner(Protocol):
    """What the machine reports to."""

    def message(self, payload: bytes, *, binary: bool) -> None:
        """Take a whole message."""

    def write(self, data: bytes) -> None:
        """Send a frame: a pong, or half of the closing handshake."""

    def failed(self, code: int, reason: str) -> None:
        """The peer broke a rule: the connection is to be failed with `code`."""

    def ended(self, code: int | None, reason: str | None) -> None:
        """The closing handshake is complete; the peer gave `code` and `reason`."""


class _QuietLog:
    """Autobahn's logger: what is worth a line is logged by us."""

    def debug(self, *args: Any, **kwargs: Any) -> None:
        """Say nothing."""

    warn = error = info = debug


class _Factory:
    """All that autobahn's protocol asks of its factory."""

    isServer = True


class Machine(WebSocketServerProtocol):
    """Autobahn's frame machine, set up as behind a completed handshake.

    The handshake is ours: autobahn would parse the request a second time, and two parsers over the
    same bytes are how requests are smuggled (CVE-2026-44546). So its set-up, which begins before
    the handshake, is replaced by these attributes. No timer of its own ever runs.
    """

    factory = _Factory()
    log = _QuietLog()
    peer = ""
    logFrames = logOctets = False
    trackedTimings: Any = None
    trafficStats = TrafficStats()
    websocket_version = 13
    utf8validateIncoming = True
    applyMask = requireMaskedClientFrames = True
    maskServerFrames = False
    failByDrop = True  # read nothing behind a violation
    echoCloseCodeReason = True
    closeHandshakeTimeout = 0
    autoFragmentSize = 0
    autoPingInterval = 0
    closeHandshakeTimeoutCall = autoPingTimeoutCall = autoPingPending = None
    wasClean = wasMaxFramePayloadSizeExceeded = wasMaxMessagePayloadSizeExceeded = False
    closedByMe = failedByMe = droppedByMe = False
    wasNotCleanReason: Any = None
    localCloseCode: Any = None
    localCloseReason: Any = None
    remoteCloseCode = remoteCloseReason = None
    _perMessageCompress = None
    _isMessageCompressed = False
    inside_message = False
    current_frame: Any = None

    def __init__(self, owner: Owner, limits: Limits) -> None:
        """Report to `owner`, refuse what is larger than `limits` allow."""
        # Not super().__init__(): it makes futures for an event system that is not used here.
        self._owner = owner
        self.maxFramePayloadSize = limits.max_frame_size
        self.maxMessagePayloadSize = limits.max_message_size
        self.utf8validator = Utf8Validator()
        self.send_queue = deque()
        self.state = self.STATE_OPEN
        self.data = b""

    @property
    def occupied(self) -> bool:
        """Say whether it stands inside a frame or a fragmented message."""
        return self.inside_message or self.current_frame is not None

    def feed(self, data: bytes) -> None:
        """Read `data`."""
        self.data += data
        self.consumeData()

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:  # noqa: ARG002, FBT001, FBT002 - autobahn's signature
        """Send a frame."""
        self._owner.write(data)

    def _fail_connection(self, code: int, reason: str) -> None:  # type: ignore[override]
        """The peer broke a rule: look at nothing more of it (RFC 6455 section 7.1.7)."""
        self.state = self.STATE_CLOSED
        self.failedByMe = True
        self._owner.failed(code, reason)

    def dropConnection(self, abort: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        """The closing handshake is complete."""
        self.state = self.STATE_CLOSED
        self._owner.ended(self.remoteCloseCode, self.remoteCloseReason)

    def onMessageEnd(self) -> None:
        """Hand the message on."""
        self._owner.message(b"".join(self.message_data), binary=self.message_is_binary)
        self.message_data = []

    _onMessageBegin = WebSocketServerProtocol.onMessageBegin
    _onMessageFrameBegin = WebSocketServerProtocol.onMessageFrameBegin
    _onMessageFrameData = WebSocketServerProtocol.onMessageFrameData
    _onMessageFrameEnd = WebSocketServerProtocol.onMessageFrameEnd
    _onMessageFrame = WebSocketServerProtocol.onMessageFrame
    _onMessageEnd = onMessageEnd
    _onPing = WebSocketServerProtocol.onPing
    _onPong = WebSocketServerProtocol.onPong
