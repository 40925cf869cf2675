"""WebSocket frames beyond the plain ones, by autobahn.

This is the only module that knows autobahn.
"""

from __future__ import annotations

import weakref
from collections import deque
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from autobahn.exception import PayloadCorruptError
from autobahn.websocket import xormasker
from autobahn.websocket.protocol import TrafficStats, WebSocketServerProtocol
from autobahn.websocket.utf8validator import Utf8Validator

from daphne_supervisor.worker.framing import (
    CODES,
    INVALID_PAYLOAD,
    POLICY,
    PROTOCOL_ERROR,
    SHORTEST_HEADER,
    TEXT,
    TOO_BIG,
    TWO_BYTES,
    Violation,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from daphne_supervisor.config import WebSocket as Limits
    from daphne_supervisor.worker.compression import Deflate

__all__ = [
    "BUDGET",
    "NOT_TEXT",
    "Machine",
    "Owner",
    "is_hopeless",
    "unmask",
    "unmask_by_autobahn",
]

#: Up to this many bytes Python's integers take a mask off in less time than it takes to call C.
_SMALL = 128
BUDGET = 256
"""Frames, other than plain messages, of one client that are read before others have their turn."""
#: Autobahn takes one step for the header of a frame and one for what has come of its payload.
_STEPS = 2 * BUDGET
#: It copies all that it has not read behind every step: so it is given no more than this at once.
_PIECE = 16_384

NOT_TEXT = "text message is not UTF-8"
"""Why a text message is refused, wherever that is found out."""


def unmask(payload: bytes, mask: bytes) -> bytes:
    """Return `payload` with the client's mask taken off (RFC 6455 section 5.3)."""
    size = len(payload)
    if size <= _SMALL:
        key = int.from_bytes((mask * (size // 4 + 1))[:size])
        return (int.from_bytes(payload) ^ key).to_bytes(size)
    return _unmask_large(payload, mask)


def unmask_by_autobahn(payload: bytes, mask: bytes) -> bytes:
    """Return the same by autobahn's own object, of which each message needs another."""
    masker = xormasker.create_xor_masker(mask, len(payload))  # type: ignore[attr-defined, no-untyped-call]
    unmasked: bytes = masker.process(payload)
    return unmasked


def _in_c(ffi: Any, lib: Any) -> Callable[[bytes, bytes], bytes]:
    """Return what does the same in a third of the time: the steps in C, without objects between.

    It has a buffer of its own each time, since the interpreter's lock is free meanwhile.
    """
    octets = ffi.typeof("uint8_t[]")
    allocate = ffi.new_allocator(should_clear_after_alloc=False)
    copy, view = ffi.memmove, ffi.buffer
    begin, process, end = lib.nvx_xormask_new, lib.nvx_xormask_process, lib.nvx_xormask_free

    def unmask_in_c(payload: bytes, mask: bytes) -> bytes:
        room = allocate(octets, len(payload))
        copy(room, payload, len(payload))
        masker = begin(mask)
        process(masker, room, len(payload))
        end(masker)
        unmasked: bytes = view(room)[:]
        return unmasked

    return unmask_in_c


try:
    _nvx = import_module("_nvx_xormasker")  # autobahn's, but not of its interface
    _unmask_large = _in_c(_nvx.ffi, _nvx.lib)
except (AttributeError, ImportError):  # pragma: no cover - its wheels have it
    _unmask_large = unmask_by_autobahn


def _may_become_text(payload: bytes) -> bool:
    """Say whether `payload` is the beginning of UTF-8."""
    # Not codecs.utf_8_decode: it waits for the third byte of a surrogate.
    valid: bool = Utf8Validator().validate(payload)[0]
    return valid


def is_hopeless(data: bytes, at: int) -> bool:
    """Say whether the incomplete frame at `at` is text that no further byte makes UTF-8.

    RFC 6455 section 8.1 has it failed; there is no need to wait for the rest.
    """
    if data[at] != TEXT or len(data) - at <= SHORTEST_HEADER:
        return False
    start = at + (8 if data[at + 1] == TWO_BYTES else 6)
    return len(data) > start and not _may_become_text(unmask(data[start:], data[start - 4 : start]))


class Owner(Protocol):
    """What the machine reports to."""

    def message(self, payload: bytes, *, binary: bool) -> None:
        """Take a whole message."""

    def pinged(self, payload: bytes) -> None:
        """Take a ping."""

    def write(self, data: bytes) -> None:
        """Send half of the closing handshake."""

    def failed(self, code: int, reason: str, option: str = "") -> None:
        """The peer broke a rule: fail the connection with `code`. `option` names the limit."""

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


class _Inflation:
    """What autobahn calls an extension: it inflates messages by our own `Deflate`."""

    EXTENSION_NAME = "permessage-deflate"

    def __init__(self, machine: Machine, deflate: Deflate) -> None:
        """Inflate for `machine`, which holds this, by `deflate`."""
        self._machine = weakref.proxy(machine)
        self._deflate = deflate
        self.start_decompress_message = deflate.begin

    def decompress_message_data(self, data: bytes, max_output_len: int | None) -> bytes:  # noqa: ARG002 - ours is exact
        """Inflate some more, and keep it from autobahn, which knows not how to stop in between.

        Raises what makes autobahn read no further, the connection being failed.
        """
        try:
            for piece in self._deflate.feed(data):
                self._machine.add(piece)
        except Violation as violation:
            self._machine.fail(violation)
            raise PayloadCorruptError from violation
        return b""

    def end_decompress_message(self) -> None:
        """Inflate the rest, which autobahn does not expect here. Raises as the former."""
        try:
            self._machine.add(self._deflate.finish())
        except Violation as violation:
            self._machine.fail(violation)
            raise PayloadCorruptError from violation


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
    maxFramePayloadSize = maxMessagePayloadSize = 0
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

    def __init__(self, owner: Owner, limits: Limits, deflate: Deflate | None = None) -> None:
        """Report to `owner`, refuse what `limits` do not allow, inflate by `deflate`."""
        # Not super().__init__(): it makes futures for an event system that is not used here.
        self._owner = owner
        self._limits = limits
        self._deflate = deflate
        if deflate is not None:
            self._perMessageCompress = _Inflation(self, deflate)
        self.utf8validator = Utf8Validator()
        self.send_queue = deque()
        self.state = self.STATE_OPEN
        self.data = b""
        self.exhausted = False

    @property
    def occupied(self) -> bool:
        """Say whether it stands inside a frame or a fragmented message."""
        return self.inside_message or self.current_frame is not None

    def feed(self, data: bytes) -> bytes:
        """Read on until it stands between two messages; return what is behind that.

        What is returned may also be a header that is not complete, or what is beyond `BUDGET`: then
        it is `exhausted`. Either wants to be fed again. Behind the end there is nothing.
        """
        at, steps = 0, _STEPS
        while at < len(data) and steps:
            self.data += data[at : at + _PIECE]
            at += _PIECE
            steps = self._read(steps)
            if not self.occupied:
                break
        self.exhausted = not steps
        rest, self.data = self.data + data[at:], b""
        return b"" if self.state == self.STATE_CLOSED else rest

    def _read(self, steps: int) -> int:
        """Read in so many steps at most; return how many of them are left."""
        while self.state != self.STATE_CLOSED and self.processData():
            steps -= 1
            if not (steps and self.occupied):
                break
        return steps

    def fail(self, violation: Violation) -> None:
        """Fail the connection, for a rule of ours."""
        self.state = self.STATE_CLOSED
        self.failedByMe = True
        self._owner.failed(violation.code, violation.reason, violation.option)

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:  # noqa: ARG002, FBT001, FBT002 - autobahn's signature
        """Send a frame."""
        self._owner.write(data)

    def onMessageBegin(self, isBinary: bool) -> None:  # noqa: FBT001, N803
        """Begin to count the frames of a message."""
        super().onMessageBegin(isBinary)
        self._fragments = 0

    def onMessageFrameBegin(self, length: int) -> None:
        """Hold the header of a frame against the limits: autobahn knows of none.

        What a compressed message becomes is for `Deflate` to limit.
        """
        super().onMessageFrameBegin(length)
        self._fragments += 1
        limits = self._limits
        total = 0 if self._isMessageCompressed else self.message_data_total_length
        if 0 < limits.max_message_size < total:
            reason = f"message of {total} bytes or more"
            self.fail(Violation(TOO_BIG, reason, "--websocket-max-message-size"))
        elif 0 < limits.max_frame_size < length:
            self.fail(Violation(TOO_BIG, f"frame of {length} bytes", "--websocket-max-frame-size"))
        elif 0 < limits.max_fragments < self._fragments:
            reason = f"message of more than {limits.max_fragments} frames"
            self.fail(Violation(POLICY, reason, "--websocket-max-fragments"))

    def add(self, payload: bytes) -> None:
        """Add `payload` to the message. Raises `Violation` for text that is none."""
        self.message_data.append(payload)
        if self.utf8validateIncomingCurrentMessage:
            self.utf8validateLast = self.utf8validator.validate(payload)
            if not self.utf8validateLast[0]:
                raise Violation(INVALID_PAYLOAD, NOT_TEXT)

    def _fail_connection(self, code: int, reason: str) -> None:  # type: ignore[override]
        """The peer broke a rule: look at nothing more of it (RFC 6455 section 7.1.7)."""
        if code == INVALID_PAYLOAD and self.inside_message:
            reason = NOT_TEXT  # as the lane calls it: who fails depends on how the network cuts
        self.fail(Violation(code, reason))

    def dropConnection(self, abort: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        """The closing handshake is complete."""
        self.state = self.STATE_CLOSED
        self._owner.ended(self.remoteCloseCode, self.remoteCloseReason)

    def onMessageEnd(self) -> None:
        """Hand the message on."""
        self._owner.message(b"".join(self.message_data), binary=self.message_is_binary)
        self.message_data = []

    def onCloseFrame(self, code: int | None, reasonRaw: bytes | None) -> bool:  # noqa: N803
        """Answer a close frame in kind, if it is not the answer to ours; return to read no further.

        Not autobahn's: its list of codes ends before the last one that was registered, 1014.
        """
        if code is not None and code not in CODES:
            self.fail(Violation(PROTOCOL_ERROR, f"invalid close code {code}"))
            return True
        try:
            self.remoteCloseReason = (reasonRaw or b"").decode("utf-8")
        except UnicodeDecodeError:
            self.fail(Violation(INVALID_PAYLOAD, "close reason is not UTF-8"))
            return True
        self.remoteCloseCode = code
        self.sendCloseFrame(code, reasonRaw, isReply=True)
        self.dropConnection()
        return True

    def onPing(self, payload: bytes) -> None:
        """Hand a ping on."""
        self._owner.pinged(payload)

    _onMessageBegin = onMessageBegin
    _onMessageFrameBegin = onMessageFrameBegin
    _onMessageFrameData = WebSocketServerProtocol.onMessageFrameData
    _onMessageFrameEnd = WebSocketServerProtocol.onMessageFrameEnd
    _onMessageFrame = WebSocketServerProtocol.onMessageFrame
    _onMessageEnd = onMessageEnd
    _onPing = onPing
    _onPong = WebSocketServerProtocol.onPong
