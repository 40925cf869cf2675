"""The master's side of the broker, which the workers' channel layers speak through.

Theory. The listening socket is the master's, made before the first worker, and costs nothing else:
a project without channels never has a broker. When somebody connects, the master sees it and forks
the broker, which takes the connection; from then on the master does not look at the socket. When
the broker dies the master looks again, so whoever connects meanwhile waits and is not refused. One
that dies again and again is started after the back-off of a worker.

It ends with the master, after the last worker: the channel layers need it until then.
"""

from __future__ import annotations

import enum
import faulthandler
import logging
import selectors
import signal
import socket
from typing import TYPE_CHECKING

from daphne_supervisor import privileges
from daphne_supervisor.broker.address import text_of
from daphne_supervisor.errors import ExitCode
from daphne_supervisor.master.announce import set_title
from daphne_supervisor.master.policy import Restarts, charge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from daphne_supervisor.master.model import Event
    from daphne_supervisor.master.zygote import Heritage

__all__ = ["BrokerHandle", "BrokerState", "live"]

_log = logging.getLogger("daphne_supervisor.master")


class BrokerState(enum.Enum):
    """DORMANT: to be started when somebody connects. RESTING: that, but not before a moment.

    OVER: the master ends, or there is no socket to meet at.
    """

    DORMANT = enum.auto()
    RUNNING = enum.auto()
    RESTING = enum.auto()
    OVER = enum.auto()


_MOVES: dict[BrokerState, frozenset[BrokerState]] = {
    BrokerState.DORMANT: frozenset({BrokerState.RUNNING, BrokerState.RESTING, BrokerState.OVER}),
    BrokerState.RUNNING: frozenset({BrokerState.DORMANT, BrokerState.RESTING, BrokerState.OVER}),
    BrokerState.RESTING: frozenset({BrokerState.DORMANT, BrokerState.OVER}),
    BrokerState.OVER: frozenset({BrokerState.OVER}),
}


class BrokerHandle:
    """The broker as the master knows it: started when it is wanted, and again when it has died."""

    def __init__(
        self,
        listener: socket.socket | None,
        start: Callable[[socket.socket], int],
        end: Callable[[int], None],
        clock: Callable[[], float],
    ) -> None:
        """Own `listener`; without one there will be no broker.

        `start` forks the broker with its end of the lifeline, and returns the pid; it raises
        `OSError`. `end` kills and reaps it.
        """
        self._listener = listener
        self._start = start
        self._end = end
        self._clock = clock
        self._selector: selectors.BaseSelector
        self._state = BrokerState.OVER if listener is None else BrokerState.DORMANT
        self._restarts = Restarts()
        self._lifeline: socket.socket | None = None
        self._pid = 0
        self._since = 0.0

    def __repr__(self) -> str:
        """Tell how it goes."""
        return f"<BrokerHandle {self._state.name} pid {self._pid}>"

    def begin(self, selector: selectors.BaseSelector) -> None:
        """Start the broker when the socket becomes readable."""
        self._selector = selector
        self._look_out()

    def deadline(self) -> float | None:
        """Return when to call `wake`, in seconds of the clock; None: never."""
        return self._restarts.not_before if self._state is BrokerState.RESTING else None

    def wake(self) -> None:
        """Look out for connections again, if the time has come."""
        if self._state is BrokerState.RESTING and self._clock() >= self._restarts.not_before:
            self._move(BrokerState.DORMANT)
            self._look_out()

    def recognise(self, dead: Mapping[int, str]) -> None:
        """Note the end of the broker if it is among the `dead`."""
        if self._state is not BrokerState.RUNNING or self._pid not in dead:
            return
        _log.warning("broker pid %d: gone, %s", self._pid, dead[self._pid])
        self._hang_up()
        self._rest(self._clock() - self._since)

    def close(self) -> None:
        """End the broker, and close the sockets."""
        if self._state is BrokerState.RUNNING:
            self._end(self._pid)  # it keeps nothing that outlives it
        self._move(BrokerState.OVER)
        self._hang_up()
        if self._listener is not None:
            self._listener.close()

    def leave_alone(self) -> None:
        """Close, in a forked child, what would hide the master's death from the broker."""
        self._hang_up()

    def _look_out(self) -> None:
        if self._listener is not None:
            self._selector.register(self._listener, selectors.EVENT_READ, self._wanted)

    def _wanted(self) -> list[Event]:
        """Start the broker: somebody has connected."""
        assert self._listener is not None  # noqa: S101 - it is what has become readable
        self._selector.unregister(self._listener)
        self._lifeline, far = socket.socketpair()
        try:
            with far:
                self._pid = self._start(far)
        except OSError as error:
            _log.warning("broker: could not be forked: %s", error.strerror)
            self._hang_up()
            self._rest(0.0)
            return []
        self._since = self._clock()
        self._move(BrokerState.RUNNING)
        _log.info("broker pid %d: started, at %s", self._pid, text_of(self._listener))
        return []

    def _rest(self, lived: float) -> None:
        self._restarts = charge(self._restarts, lived=lived, now=self._clock())
        self._move(BrokerState.RESTING)
        self.wake()  # the first time there is no wait

    def _hang_up(self) -> None:
        if self._lifeline is not None:
            self._lifeline.close()
            self._lifeline = None

    def _move(self, state: BrokerState) -> None:
        if state not in _MOVES[self._state]:
            message = f"{self} cannot be {state.name}"
            raise LookupError(message)
        self._state = state


def live(  # pragma: no cover - runs in a forked child only
    heritage: Heritage, lifeline: socket.socket
) -> int:
    """Be the broker, in a process of its own, and return the exit code."""
    from daphne_supervisor.broker.process import Broker  # noqa: PLC0415 - not in the master

    faulthandler.enable(2, all_threads=True)
    set_title("broker", heritage.config.application)
    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # they are for the whole service, as it is now
    for one in heritage.listeners:
        one.socket.close()  # a copy would keep clients in a queue that nobody empties
    heritage.hooks.forget()
    privileges.drop(heritage.privileges)
    assert heritage.broker is not None  # noqa: S101 - somebody has connected to it
    Broker(heritage.broker, lifeline, heritage.config.channels).serve()
    return ExitCode.STOPPED
