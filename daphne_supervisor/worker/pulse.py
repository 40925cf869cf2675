"""What time does to a WebSocket: answers that are awaited, pings, age.

Nothing here is a timer: `deadline` says when `expire` wants to be called, and every change of what
is awaited moves it.
"""

from __future__ import annotations

import enum
import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from daphne_supervisor.worker.framing import NORMAL, PING, PONG, header

if TYPE_CHECKING:
    from daphne_supervisor.config import WebSocket as Limits
    from daphne_supervisor.worker.waist import Messages, Port

__all__ = ["CLOSE_TIMEOUT", "Phase", "Pulse"]

#: Seconds for the peer's half of the closing handshake before the connection is cut.
CLOSE_TIMEOUT = 5.0

_PING = header(PING, 0)


class Phase(enum.IntEnum):
    """Where the connection is."""

    CONNECTING = 0  # the application has not answered the handshake
    DENYING = 1  # it answers with an HTTP response
    OPEN = 2
    CLOSING = 3  # our close frame is sent, the peer's is awaited
    CLOSED = 4


class Pulse(ABC):
    """A WebSocket as the clock sees it.

    `limits` are those of the configuration. Every phase change stops or starts what `deadline`
    watches: the application's answer, the ping, its pong, the connection's age, the closing.
    """

    __slots__ = (
        "_born",
        "_exchange",
        "_heard",
        "_limits",
        "_owed",
        "_pinged",
        "_port",
        "deadline",
        "phase",
    )

    def __init__(self, port: Port, limits: Limits) -> None:
        """Begin to wait for the application's answer."""
        self._port = port
        self._limits = limits
        self._exchange: Messages
        self._pinged = 0.0  # when a ping was sent that has not been answered
        self._owed: bytes | None = None  # the last ping's payload, while its pong would only wait
        self._born = self._heard = port.now()
        self.phase = Phase.CONNECTING
        patience = limits.connect_timeout
        self.deadline = self._born + patience if patience > 0 else math.inf

    @abstractmethod
    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake, if none has begun."""

    @abstractmethod
    def abort(self) -> None:
        """Cut the connection."""

    @abstractmethod
    def _drop(self, reason: str) -> None:
        """Cut the connection, and say why in the log."""

    def pinged(self, payload: bytes) -> None:
        """Answer a ping.

        A peer that does not read what we send gets one answer once it does: RFC 6455 section 5.5.3
        lets us forget all pings but the last. Otherwise what it can make us keep had no bound.
        """
        if self.phase is not Phase.OPEN:
            return
        if self._port.congested:
            self._owed = payload
        else:
            self._port.write(header(PONG, len(payload)) + payload)

    def relieved(self) -> None:
        """The client has taken most of what was written: answer what was left unanswered."""
        if self._owed is not None:
            owed, self._owed = self._owed, None
            self.pinged(owed)

    def expire(self, now: float) -> None:
        """Act on the deadline, which has passed."""
        if self.phase is Phase.CONNECTING:
            self.deadline = math.inf
            self._exchange.expire()
        elif self.phase is Phase.OPEN:
            self._expire_open(now)
        elif self.phase is Phase.CLOSING and self._port.congested:
            # Our close frame waits behind messages that are being taken: --write-timeout watches.
            self.deadline = now + CLOSE_TIMEOUT
        else:
            self.abort()

    def _expire_open(self, now: float) -> None:
        limits, port = self._limits, self._port
        if 0 <= limits.websocket_timeout <= now - self._born:
            self.close(NORMAL, "")
            return
        if self._exchange.paused or port.congested:
            # Its pong would wait behind unread messages, or our ping behind unsent ones: silence
            # says nothing about the peer.
            self._heard, self._pinged = now, 0.0
        if self._pinged and 0 < limits.ping_timeout <= now - self._pinged:
            self._drop("ping timeout (--ping-timeout)")
            return
        if not self._pinged and 0 < limits.ping_interval <= now - self._heard:
            self._pinged = now
            port.write(_PING)
        self._watch(now)

    def _watch(self, now: float) -> None:
        """Set the deadline of an open connection."""
        limits = self._limits
        due = [math.inf]
        if limits.websocket_timeout >= 0:
            due.append(self._born + limits.websocket_timeout)
        if self._pinged:
            if limits.ping_timeout > 0:
                due.append(self._pinged + limits.ping_timeout)
        elif limits.ping_interval > 0:
            due.append(max(self._heard + limits.ping_interval, now))
        self.deadline = min(due)
