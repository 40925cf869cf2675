"""WebSocket: what a stream of frames means depends on nothing but the stream.

Cut anywhere, and whatever happens in between, the application hears the same messages, and of one
end; the client is sent frames that any reader takes. A second reader says what the messages are.
With permessage-deflate or without.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from daphne_supervisor.config import WebSocket as Limits
from daphne_supervisor.worker.framing import INVALID_PAYLOAD
from daphne_supervisor.worker.websocket import Phase, WebSocket
from tests.fuzz import frames_reference
from tests.fuzz.choices import pieces, split
from tests.fuzz.frames_reference import Inflater, Reading
from tests.support.transports import Listener, Port, frame, handshake

if TYPE_CHECKING:
    from tests.fuzz.choices import Choices

__all__ = ["DICTIONARY", "check"]

DICTIONARY = [
    frame(1, b"hello"),
    frame(1, b"hello", mask=b"\0\0\0\0"),
    frame(2, b"\xff"),
    frame(1, b"\xc3", last=False, mask=b"\0\0\0\0"),
    frame(0, b"\xa4", mask=b"\0\0\0\0"),
    frame(1, b"\xed\xa0\x80"),
    frame(1, b"\xf0\x9f\x98", last=False),
    frame(0, b""),
    frame(0, b"", last=False),
    frame(8, b""),
    frame(8, b"\x03\xe8bye"),
    frame(8, b"\x03\xed"),
    frame(8, b"\x0f"),
    frame(9, b"are you there?"),
    frame(10, b""),
    frame(9, b"", last=False),
    frame(9, b"x" * 126),
    frame(2, b"x" * 126),
    frame(2, b"x" * 300),
    frame(1, b"hello", mask=None),
    frame(1, b"hello", reserved=4),
    # RFC 7692 section 7.2.3: "Hello" compressed, in two frames, stored, final, and empty.
    frame(1, b"\xf2\x48\xcd\xc9\xc9\x07\x00", reserved=4),
    frame(1, b"\xf2\x48\xcd", reserved=4, last=False) + frame(0, b"\xc9\xc9\x07\x00"),
    frame(1, b"\x00\x05\x00\xfa\xffHello\x00", reserved=4),
    frame(1, b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", reserved=4),
    frame(1, b"\xf2\x00\x11\x00\x00", reserved=4),  # refers to the message before
    frame(1, b"\x00", reserved=4),
    frame(2, b"\x02\x00", reserved=4),
    frame(9, b"", reserved=4),
    b"\x81\xfe\x00\x05",
    b"\x82\xff\x00\x00\x00\x00\x00\x00\x00\x05",
    b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00",
    b"\x82\xff\x00\x00\x00\x00\x00\x10\x00\x01",
    b"\x83\x80",
    b"\x8b\x80",
    b"\xc1",
    b"\x00\x00\xff\xff",
    b"permessage-deflate",
    b"; client_max_window_bits",
    b"; server_max_window_bits=",
    b"; client_no_context_takeover",
    b"; server_no_context_takeover",
    b'="15"',
    b", ",
    b"=8",
]

#: What a client offers, besides nothing.
OFFERS = (
    b"permessage-deflate",
    b"permessage-deflate; client_max_window_bits",
    b"permessage-deflate; client_max_window_bits=9; server_max_window_bits=9",
    b"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
)
FAR = {"websocket_timeout": 40.0, "ping_interval": 10.0, "ping_timeout": 15.0}
NEAR = {**FAR, "max_message_size": 60, "max_frame_size": 40, "max_fragments": 3}
DEFLATE = {"compression": True, "compression_min_size": 20}
#: What the server ends a connection with that breaks a rule or a limit.
FAILURES = {1002, 1003, 1007, 1008, 1009}
LIMITED = {1008, 1009}
#: The choice that makes the wire an offer of extensions.
OFFER = 255
#: What RFC 7692 section 7.1 lets a server answer.
ANSWER = re.compile(
    r"permessage-deflate(; (server_no_context_takeover|client_no_context_takeover"
    r"|(server|client)_max_window_bits=(8|9|1[0-5])))*"
)
NORMAL = 1000


def check(data: bytes) -> None:
    """Fail if an input breaks what this module promises."""
    wire, choices = split(data)
    form = choices.number()
    if form == OFFER:
        check_offer(wire)
        return
    settings = NEAR if form & 1 else FAR
    offer = b""
    if form & 2:
        settings = {**settings, **DEFLATE, "compression_context_takeover": bool(form & 4)}
        offer = OFFERS[(form >> 3) % len(OFFERS)]
    limits = Limits(**settings)  # type: ignore[arg-type]
    whole = Peer(limits, offer).feed(wire)
    cut = Peer(limits, offer).feed(*pieces(wire, choices.rest()))
    assert cut.outcome == whole.outcome
    whole.agrees(frames_reference.read(wire, masked=True, inflater=whole.inflater()))
    chaos = Chaos(limits, offer, choices).play(wire)
    assert whole.listener.messages[: len(chaos.listener.messages)] == chaos.listener.messages
    whole.leave()
    cut.leave()


def check_offer(offer: bytes) -> None:
    """Offer anything, and check that the answer is one to it."""
    offer = bytes(byte for byte in offer if byte == 9 or 32 <= byte != 127).strip()
    peer = Peer(Limits(compression=True), offer).feed()
    found = re.findall(r"sec-websocket-extensions: (.*)\r\n", peer.answer.decode())
    for answer in found:
        assert len(found) == 1
        assert ANSWER.fullmatch(answer)
        parameters = [word.partition("=")[0] for word in answer.split("; ")]
        assert len(set(parameters)) == len(parameters)
        assert b"permessage-deflate" in offer
        assert "client_max_window_bits" not in answer or b"client_max_window_bits" in offer
        assert b"server_no_context_takeover" not in offer or "server_no" in answer


class Peer:
    """A connection whose application says nothing."""

    def __init__(self, limits: Limits, offer: bytes) -> None:
        """Open it with `limits`, the client offering an extension."""
        self.port, self.listener = Port(), Listener()
        head = handshake()
        if offer:
            head.headers.append((b"sec-websocket-extensions", offer))
        self.limits = limits
        self.codec = WebSocket(self.port, head, b"", limits)
        self.codec.attach(self.listener)
        self.answer = b""

    def accept(self) -> None:
        """Accept the handshake."""
        self.codec.accept(None, [])
        self.answer = self.port.take().lower()
        self.codec.catch_up()

    def feed(self, *stream: bytes) -> Peer:
        """Let `stream` arrive in these pieces."""
        self.accept()
        for piece in stream:
            self.codec.receive(piece)
            self.holds()
        return self

    @property
    def outcome(self) -> tuple[object, ...]:
        """All that has come of what was fed."""
        told = (self.listener.messages, self.listener.ends)
        return (*told, self.port.sent, self.port.end, self.codec.phase)

    def _agreed(self, side: bytes) -> tuple[int, bool] | None:
        """Return window bits and forgetfulness of a `side`, if there is an extension."""
        if b"permessage-deflate" not in self.answer:
            return None
        bits = re.search(side + rb"_max_window_bits=(\d+)", self.answer)
        return int(bits[1]) if bits else 15, side + b"_no_context_takeover" in self.answer

    def inflater(self, side: bytes = b"client") -> Inflater | None:
        """Return what reads the messages of a side."""
        agreed = self._agreed(side)
        return Inflater(*agreed) if agreed else None

    def holds(self) -> None:
        """Check what holds at any time."""
        assert len(self.listener.ends) <= 1
        phase = self.codec.phase
        assert bool(self.listener.ends) == (phase >= Phase.CLOSING)
        assert math.isfinite(self.codec.deadline) or phase in {Phase.CONNECTING, Phase.CLOSED}
        limit = self.limits.max_message_size
        for message in self.listener.messages:
            assert len(message if isinstance(message, bytes) else message.encode()) <= limit

    def agrees(self, reading: Reading) -> None:
        """Check what was heard against another reading of the same stream."""
        messages, ends = self.listener.messages, self.listener.ends
        common = min(len(messages), len(reading.messages))
        assert messages[:common] == reading.messages[:common]
        if reading.unsure or (ends and ends[0][0] in LIMITED and ends[0] != reading.close):
            return
        assert messages == reading.messages
        if reading.broken:
            assert ends
            assert ends[0][0] in FAILURES
        elif reading.close is not None:
            # A message that is not whole may be wrong already, before the close behind its piece.
            hopeless = bool(reading.unfinished and ends and ends[0][0] == INVALID_PAYLOAD)
            assert hopeless or ends == [reading.close]
        elif not reading.unfinished:
            assert not ends
        elif ends:
            assert ends[0][0] in FAILURES

    def leave(self) -> None:
        """Lose the client, and check that everybody has heard of the end."""
        self.codec.lost()
        self.holds()
        assert self.codec.phase is Phase.CLOSED
        assert len(self.listener.ends) == 1


class Chaos(Peer):
    """A connection where the choices say what happens between the pieces of a stream."""

    def __init__(self, limits: Limits, offer: bytes, choices: Choices) -> None:
        """Let `choices` say it."""
        super().__init__(limits, offer)
        self.choices = choices
        self.said: list[str | bytes] = []

    def play(self, wire: bytes) -> Chaos:
        """Feed `wire`, end the connection, and return what came of it."""
        if not self.choices.number(4):
            self.accept()
        while wire and self.port.end not in {"close", "abort"}:
            count = self.choices.number() + 1 if self.choices else len(wire)
            self.codec.receive(wire[:count])
            wire = wire[count:]
            self.holds()
            if self.choices:
                Chaos.ACTIONS[self.choices.number(len(Chaos.ACTIONS))](self)
                self.holds()
        self.codec.lost()
        self.holds()
        sent = frames_reference.read(
            self.port.sent, masked=False, inflater=self.inflater(b"server")
        )
        assert (sent.broken, sent.unfinished, sent.unsure, sent.behind) == (False,) * 3 + (b"",)
        assert sent.messages == self.said
        assert self.port.end != "close" or sent.close is not None
        return self

    # what may happen

    def nothing(self) -> None:
        """Let the next piece come."""

    def answer_it(self) -> None:
        """Accept, if that is still to do."""
        if self.codec.phase is Phase.CONNECTING:
            self.accept()

    def say(self) -> None:
        """Send a message."""
        self._say("ä" * self.choices.number())

    def say_bytes(self) -> None:
        """Send bytes."""
        self._say(bytes(self.choices.number()))

    def _say(self, message: str | bytes) -> None:
        if self.codec.phase is Phase.OPEN:
            self.said.append(message)
            text = isinstance(message, str)
            payload = message.encode() if isinstance(message, str) else message
            self.codec.send(payload, text=text)

    def close(self) -> None:
        """Close, with a reason of any length."""
        if self.codec.phase is Phase.OPEN:
            self.codec.close(NORMAL, "ä" * self.choices.number())

    def drain(self) -> None:
        """Let the worker leave."""
        if self.codec.phase is Phase.OPEN:
            self.codec.drain()

    def expire(self) -> None:
        """Let time pass."""
        if math.isfinite(self.codec.deadline) and self.port.end not in {"close", "abort"}:
            self.port.time = self.codec.deadline
            self.codec.expire(self.port.time)

    def congest(self) -> None:
        """Let the client read slowly, or no longer."""
        self.port.congested = not self.port.congested

    def pause(self) -> None:
        """Let too much wait for the application, or no longer."""
        self.listener.paused = not self.listener.paused

    ACTIONS = (nothing, answer_it, say, say_bytes, close, drain, expire, congest, pause)
