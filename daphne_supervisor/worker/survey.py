"""Asks a plug-in of Twisted's where its endpoint listens, in a process that ends afterwards.

Theory. An endpoint tells what it listens on by listening. So it is given a reactor that writes down
what is asked of it and does nothing. What is written down can be done once for all workers; what
else the endpoint wants of a reactor, or does by itself, cannot, and is refused by name.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

from twisted.internet import endpoints, main
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IListeningPort,
    IReactorCore,
    IReactorSocket,
    IReactorSSL,
    IReactorTCP,
    IReactorTime,
    IReactorUNIX,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogBeginner
from twisted.plugin import getPlugins
from twisted.python.failure import Failure
from zope.interface import implementer

from daphne_supervisor.endpoints import NATIVE
from daphne_supervisor.errors import BootError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Listening", "Recorder", "listen", "note_failure", "path_of", "record", "survey"]

_NO_SERVER = "cannot be shared by workers"
_REFUSED = {
    "adoptDatagramPort": "wants datagrams (UDP), which do not carry HTTP",
    "adoptStreamConnection": f"takes over a connection, which {_NO_SERVER}",
    "addReader": f"reads from a descriptor of its own, which {_NO_SERVER}",
    "addWriter": f"writes to a descriptor of its own, which {_NO_SERVER}",
    "connectSSL": f"connects to another server, which {_NO_SERVER}",
    "connectTCP": f"connects to another server, which {_NO_SERVER}",
    "connectUNIX": f"connects to another server, which {_NO_SERVER}",
    "connectUNIXDatagram": "wants datagrams, which do not carry HTTP",
    "listenMulticast": "wants datagrams (UDP), which do not carry HTTP",
    "listenUDP": "wants datagrams (UDP), which do not carry HTTP",
    "listenUNIXDatagram": "wants datagrams, which do not carry HTTP",
    "run": f"runs the reactor, which {_NO_SERVER}",
    "spawnProcess": f"starts a process, which {_NO_SERVER}",
}
"""What some reactors do and ours cannot do for all workers, and how that is said."""
_SOCKETS_OF_ITS_OWN = f"opens a socket by itself, which {_NO_SERVER}"
_GLOBAL = f"listens on twisted.internet.reactor and not on the one it is given, which {_NO_SERVER}"


class _RefusedError(Exception):
    """What the endpoint wants cannot be had; the text completes "its plug-in"."""


@implementer(IListeningPort)
class Listening:
    """What an endpoint gets for its listening: somebody else accepts, and closes."""

    def __init__(self, address: Any) -> None:
        """Be the port that listens at `address`."""
        self._address = address

    def getHost(self) -> Any:
        """Return where it listens."""
        return self._address

    def startListening(self) -> None:
        """Do nothing: it is others who listen."""

    def stopListening(self) -> Deferred[None]:
        """Do nothing, as above."""
        return succeed(None)


@implementer(IReactorCore, IReactorTCP, IReactorSSL, IReactorUNIX, IReactorSocket, IReactorTime)
class Recorder(Clock):
    """A reactor that writes down what it is asked to listen on.

    Time stands still, and what is to be done when the reactor runs is never done.
    """

    running = False

    def __init__(self, refusal: str = "") -> None:
        """Write down what is asked; with a `refusal` refuse it."""
        super().__init__()
        self.listens: list[dict[str, Any]] = []
        self._refusal = refusal
        self.before = _listening_sockets()

    def _note(self, kind: str, **listen: Any) -> Listening:
        if self._refusal:
            raise _RefusedError(self._refusal)
        self.listens.append({"kind": kind, **listen})
        return Listening(IPv4Address("TCP", listen.get("host", ""), listen.get("port", 0)))

    def listenTCP(
        self, port: int, factory: Any, backlog: int = 50, interface: str = ""
    ) -> Listening:
        """Note a TCP port."""
        del factory
        return self._note("tcp", host=interface, port=int(port), backlog=int(backlog))

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> Listening:
        """Note a TCP port, over which the workers will speak TLS."""
        del contextFactory
        return self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(
        self,
        address: str | bytes,
        factory: Any,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,  # noqa: FBT001, FBT002 - Twisted's
    ) -> Listening:
        """Note a unix socket. There always is a lock file."""
        del factory, wantPID
        return self._note("unix", path=path_of(address), mode=mode, backlog=int(backlog))

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Listening:
        """Note a listening socket that was handed over to the master."""
        del factory, addressFamily
        if _identity(fileDescriptor) not in self.before:
            raise _RefusedError(_SOCKETS_OF_ITS_OWN)
        return self._note("fd", fileno=fileDescriptor)

    def callWhenRunning(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: it does not run."""

    addSystemEventTrigger = removeSystemEventTrigger = callWhenRunning
    callFromThread = callInThread = suggestThreadPoolSize = callWhenRunning

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return what refuses, with the reason, what some reactors do."""
        if name not in _REFUSED:
            message = f"a reactor's {name!r}, which {_NO_SERVER}"
            raise AttributeError(message)

        def refuse(*args: Any, **kwargs: Any) -> None:
            del args, kwargs
            raise _RefusedError(_REFUSED[name])

        return refuse


def path_of(address: str | bytes) -> str:
    """Return where a unix socket is, as an `Endpoint` has it."""
    return os.fsdecode(address)


def survey(text: str) -> dict[str, Any]:  # pragma: no cover - spoils its process
    """Return what the endpoint `text` listens on, or why that cannot be had.

    The answer is as `plugin_endpoints.resolve` wants it. This process is spoiled afterwards: it
    has a reactor that does nothing.
    """
    unloaded: list[str] = []
    globalLogBeginner.beginLoggingTo(
        [lambda event: note_failure(event, unloaded)],  # type: ignore[list-item]
        redirectStandardIO=False,
    )
    sys.modules.pop("twisted.internet.reactor", None)  # of a plug-in that was imported already
    main.installReactor(Recorder(_GLOBAL))
    return record(text, unloaded)


def record(text: str, unloaded: list[str]) -> dict[str, Any]:
    """Return what `survey` returns; `unloaded` are the failures of plug-ins, in words."""
    recorder = Recorder()
    try:
        endpoint = listen(text, recorder, Factory.forProtocol(Protocol), unloaded)
        _check(recorder)
        del endpoint  # with it went what it has opened itself
    except UsageError as error:
        return {"refused": str(error), "usage": True}
    except BootError as error:
        return {"refused": str(error), "usage": False}
    return {"listens": recorder.listens}


def note_failure(event: Any, failures: list[str]) -> None:
    """Keep what Twisted says of plug-ins that cannot be imported."""
    failure = event.get("log_failure")
    if failure is not None and event["log_level"] >= LogLevel.error:
        failures.append(_words(failure.value))


def listen(
    text: str, reactor: Any, factory: Factory[Any], unloaded: list[str] | None = None
) -> Any:
    """Let the endpoint `text` listen on `reactor` for connections to `factory`, and return it.

    `unloaded` are the failures of plug-ins, as far as they are known. Raises `UsageError` when the
    text is wrong, and `BootError` when the endpoint does not listen.
    """
    kind = text.partition(":")[0].lower()
    if kind == "stdio":
        message = "is one connection, on which nobody can listen"
        raise UsageError(message)
    if kind not in {each.prefix.lower() for each in getPlugins(IStreamServerEndpointStringParser)}:
        raise UsageError(_unknown(unloaded or []))
    try:
        endpoint = endpoints.serverFromString(reactor, text)
    except (TypeError, ValueError) as error:
        message = f"its plug-in does not understand it: {_words(error)}"
        raise UsageError(message) from None
    except BaseException as error:  # noqa: BLE001 - a plug-in may raise anything
        raise BootError(_blame(error)) from None
    if not IStreamServerEndpoint.providedBy(endpoint):
        message = "its plug-in makes something of it that is no stream server endpoint"
        raise BootError(message)
    _listen(endpoint, factory)
    return endpoint


def _listen(endpoint: Any, factory: Factory[Any]) -> None:
    outcome: list[Any] = []
    try:
        endpoint.listen(factory).addBoth(outcome.append)
    except BaseException as error:  # noqa: BLE001 - as above
        raise BootError(_blame(error)) from None
    if not outcome:
        message = "its plug-in does not listen at once, and workers do not wait for it"
        raise BootError(message)
    if isinstance(outcome[0], Failure):
        raise BootError(_blame(outcome[0].value))  # type: ignore[arg-type]


def _unknown(unloaded: list[str]) -> str:
    message = f"is of no kind that is known: {', '.join(_kinds())}"
    return (
        f"{message} (a plug-in could not be loaded: {'; '.join(unloaded)})" if unloaded else message
    )


def _kinds() -> list[str]:
    plugins = {each.prefix for each in getPlugins(IStreamServerEndpointStringParser)}
    return [f"{each}:" for each in sorted(plugins.union(NATIVE) - {"stdio"})]


def _blame(error: BaseException) -> str:
    if isinstance(error, BootError):
        return str(error)
    if isinstance(error, _RefusedError):
        return f"its plug-in {error}"
    return f"its plug-in fails: {_words(error)}"


def _words(error: BaseException) -> str:
    """Return an exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _check(recorder: Recorder) -> None:
    """Refuse what has listened to nobody, or to somebody whom nobody could share."""
    if _listening_sockets() - recorder.before:
        message = f"its plug-in {_SOCKETS_OF_ITS_OWN}"
        raise BootError(message)
    if not recorder.listens:
        message = "its plug-in listens on nothing that can be shared"
        raise BootError(message)


def _identity(descriptor: int) -> str:
    """Return what the kernel calls an open file, "" if it is none."""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/self/fd/{descriptor}")
    return ""


def _listening_sockets() -> frozenset[str]:
    """Return the identities of all sockets of this process that listen."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        identity = _identity(int(name))
        if not identity.startswith("socket:"):
            continue
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as copy:
            if copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found.add(identity)
    return frozenset(found)
