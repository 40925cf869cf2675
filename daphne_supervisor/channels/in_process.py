"""Where the broker is; without a master it is a thread of this process."""

from __future__ import annotations

import logging
import os
import socket
import threading

from daphne_supervisor.broker.address import VARIABLE, listen, text_of
from daphne_supervisor.broker.process import Broker
from daphne_supervisor.config import Channels

__all__ = ["BrokerThread", "broker_address"]

_NAME = "channel-broker"
_log = logging.getLogger("daphne_supervisor.channels")


class BrokerThread:
    """The broker of a process that has no master: made when it is wanted, and then kept."""

    def __init__(self) -> None:
        """Have none yet."""
        self.begin()

    def begin(self) -> None:
        """Have none: a child does not have its parent's."""
        self._lock = threading.Lock()
        self._address = ""
        self._kept: tuple[socket.socket, ...] = ()
        self._thread: threading.Thread | None = None

    def address(self) -> str:
        """Return its address."""
        with self._lock:
            if not self._address:
                _log.warning(
                    "LocalChannelLayer: not under daphne-supervisor, so messages reach this"
                    " process only"
                )
                listener, (near, far) = listen(), socket.socketpair()
                self._kept = (listener, near, far)
                broker = Broker(listener, far, Channels())
                self._thread = threading.Thread(target=broker.serve, name=_NAME, daemon=True)
                self._thread.start()
                self._address = text_of(listener)
            return self._address

    def end(self) -> None:
        """End it, when everybody has disconnected: for tests, which others come after."""
        if self._thread is not None:
            self._kept[1].close()
            self._thread.join()
            for one in self._kept:
                one.close()
        self.begin()


_thread = BrokerThread()
os.register_at_fork(after_in_child=_thread.begin)


def broker_address() -> str:
    """Return the address of the broker, which is there now."""
    return os.environ.get(VARIABLE) or _thread.address()
