"""Endpoints of Twisted's plug-ins: where they listen.

Theory. Only the plug-in knows what it makes of its endpoint string, and it needs Twisted, which the
master must not have. So a child that lives for a moment asks it: it lets the endpoint listen on a
reactor that only writes down what is asked of it, and tells the master, which opens those listeners
as it opens all others. What the endpoint puts around a connection (TLS, a protocol of its own) is
done by the workers, each of which asks the plug-in again.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from typing import TYPE_CHECKING, Any

from daphne_supervisor import endpoints, values
from daphne_supervisor.endpoints import Endpoint
from daphne_supervisor.errors import BootError, UsageError
from daphne_supervisor.master import birth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Fork = Callable[..., int]

__all__ = ["PATIENCE", "resolve"]

PATIENCE = 15.0
"""Seconds for a plug-in to say where it listens. It should do nothing but say so; importing it,
with what it needs, may take a few."""

_TWISTED_S_BACKLOG = 50
"""What Twisted listens with where nobody has chosen; then it is --backlog that was."""


def resolve(
    text: str,
    origin: str,
    survey: Callable[[str], dict[str, Any]],
    *,
    patience: float = PATIENCE,
    fork: Fork = birth.fork,
) -> list[Endpoint]:
    """Return the endpoints that the plug-in for `text` listens on; `origin` is the option.

    `survey` is called in a child, which may import Twisted, with the endpoint string; it returns
    `{"listens": [{"kind": "tcp", "host": "", "port": 80, "backlog": 50}, ...]}`, or why not:
    `{"refused": "...", "usage": False}`, where `usage` says that the endpoint string is wrong.
    Raises `UsageError` or `BootError`.
    """
    plugin, proxied = endpoints.unwrapped(text)
    label = Endpoint(kind="tcp", text=text, origin=origin).label
    answer = _ask(lambda: survey(plugin), patience, fork)
    if "refused" in answer:
        message = f"{label}: {answer['refused']}"
        raise (UsageError if answer["usage"] else BootError)(message)
    try:
        return [
            Endpoint(
                **_where(**listen),
                text=text,
                origin=origin,
                proxied=proxied,
                plugin=plugin,
                place=place,
            )
            for place, listen in enumerate(answer["listens"])
        ]
    except ValueError as error:
        message = f"{label}: its plug-in listens where nobody can: {error}"
        raise BootError(message) from None


def _where(kind: str, **listen: Any) -> dict[str, Any]:
    """Return the fields of an endpoint for what a plug-in has asked of the reactor."""
    if kind == "fd":
        return {"kind": kind, "fileno": values.descriptor(str(listen["fileno"]))}
    chosen = listen["backlog"] != _TWISTED_S_BACKLOG
    backlog = values.backlog(str(listen["backlog"])) if chosen else None
    if kind == "unix":
        path = values.path(listen["path"])
        return {"kind": kind, "path": path, "mode": listen["mode"], "backlog": backlog}
    port = values.port(str(listen["port"]))
    return {"kind": kind, "host": listen["host"], "port": port, "backlog": backlog}


def _ask(survey: Callable[[], dict[str, Any]], patience: float, fork: Fork) -> dict[str, Any]:
    """Return what `survey` returns in a child of its own, which has `patience` seconds."""
    receiving, sending = os.pipe()
    try:
        try:
            child = fork(lambda: _answer(survey, sending), abandon=lambda: os.close(receiving))
        finally:
            os.close(sending)
        try:
            said = b"".join(_hear(receiving, time.monotonic() + patience))
        finally:
            os.kill(child, signal.SIGKILL)  # it is not reaped: the number is still its own
            os.waitpid(child, 0)
    except TimeoutError:
        return _refusal(f"its plug-in has not said where it listens within {patience:g} s")
    except OSError as error:
        return _refusal(f"its plug-in cannot be asked: {error.strerror}")
    finally:
        os.close(receiving)
    if not said.endswith(b"\n"):
        return _refusal("its plug-in has ended the process that asked it where it listens")
    answer: dict[str, Any] = json.loads(said)
    return answer


def _refusal(reason: str) -> dict[str, Any]:
    return {"refused": reason, "usage": False}


def _answer(  # pragma: no cover - runs in a child only
    survey: Callable[[], dict[str, Any]], sending: int
) -> int:
    data = json.dumps(survey()).encode() + b"\n"
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(sending, data) :]
    return 0


def _hear(receiving: int, deadline: float) -> Iterator[bytes]:
    """Yield what comes until the line, or the child, ends. Raises `TimeoutError`."""
    while select.select([receiving], [], [], max(0.0, deadline - time.monotonic()))[0]:
        data = os.read(receiving, 65536)
        yield data
        if not data or data.endswith(b"\n"):
            return
    raise TimeoutError
