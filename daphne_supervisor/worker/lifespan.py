"""The lifespan of an application (ASGI specification, "Lifespan Protocol" 2.0).

An application that does not know the protocol raises or returns before it has said
`startup.complete`: it is then served without. One that says `startup.failed` cannot be served.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from daphne_supervisor.errors import BootError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Lifespan"]

logger = logging.getLogger("daphne_supervisor.worker")


class Lifespan:
    """The one lifespan call of a worker; `state` is what the application leaves for requests."""

    def __init__(self, application: Callable[..., Awaitable[None]]) -> None:
        """Prepare the call of `application`."""
        self._application = application
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answer: asyncio.Future[dict[str, Any]] | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = False
        self.state: dict[str, Any] = {}

    async def startup(self) -> bool:
        """Start the application; return whether it knows the protocol. Raises `BootError`."""
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        self._task = asyncio.ensure_future(self._run(scope))
        answer = await self._ask("lifespan.startup")
        if answer["type"] == "lifespan.startup.failed":
            message = answer.get("message") or "the application says so, without a message"
            error = f"lifespan startup failed: {message}"
            raise BootError(error)
        self._started = answer["type"] == "lifespan.startup.complete"
        return self._started

    async def _run(self, scope: dict[str, Any]) -> None:
        try:
            await self._application(scope, self._inbox.get, self._send)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - any failure means "not supported"
            logger.debug("the application has no lifespan: %r", error)

    async def _send(self, message: dict[str, Any]) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(message)

    async def _ask(self, event: str) -> dict[str, Any]:
        """Send `event` and return the answer, `{"type": ""}` from an application that has ended."""
        if self._task is None or self._task.done():
            return {"type": ""}
        self._answer = answer = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait({"type": event})
        await asyncio.wait({answer, self._task}, return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else {"type": ""}

    async def shutdown(self, patience: float) -> None:
        """Let the application clean up, for `patience` seconds at the most.

        One that has not completed its startup is not asked (ASGI specification, "Lifespan").
        """
        if self._started:
            await self._shut_down(patience)
        if self._task is not None:
            self._task.cancel()

    async def _shut_down(self, patience: float) -> None:
        try:
            answer = await asyncio.wait_for(self._ask("lifespan.shutdown"), patience)
        except TimeoutError:
            logger.warning("lifespan shutdown took longer than %g s", patience)
            return
        if answer["type"] == "lifespan.shutdown.failed":
            logger.error("lifespan shutdown failed: %s", answer.get("message", ""))
