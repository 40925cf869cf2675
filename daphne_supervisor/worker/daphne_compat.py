"""The scopes of Daphne, key by key, for --daphne-compat.

Daphne 4.2 gives less than ASGI allows, and there is code, its own tests among it, that asserts on
just these keys. Only what is there is taken away: no value changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["DaphneScopes"]

#: What Daphne's scopes do not have, by type.
_UNKNOWN = {
    "http": ("extensions", "state"),
    "websocket": ("extensions", "state", "http_version", "scheme"),
}


class DaphneScopes:
    """An application whose `http` and `websocket` scopes are those of Daphne."""

    def __init__(self, application: Callable[..., Awaitable[None]]) -> None:
        """Stand before `application`."""
        self._application = application

    def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Awaitable[None]:
        """Call the application with fewer keys; the scope of a lifespan stays as it is."""
        unknown = _UNKNOWN.get(scope["type"])
        if unknown is not None:
            for key in unknown:
                scope.pop(key, None)
            del scope["asgi"]["spec_version"]
        return self._application(scope, receive, send)
