"""Which interface an application has, and how each is called as ASGI 3 is.

It is told by the number of arguments that the application takes: `scope` for ASGI 2, `environ` and
`start_response` for WSGI, `scope`, `receive` and `send` for ASGI 3. Where that cannot be seen, a
coroutine function is ASGI 3 and anything else ASGI 2, as asgiref has it.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from asgiref.compatibility import double_to_single_callable, is_double_callable
from asgiref.sync import iscoroutinefunction

from daphne_supervisor.errors import BootError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["adapt", "make"]

_TAKES = {
    "asgi2": ("scope",),
    "wsgi": ("environ", "start_response"),
    "asgi3": ("scope", "receive", "send"),
}
_BY_COUNT = {len(names): interface for interface, names in _TAKES.items()}


def make(path: str, factory: Any) -> Any:
    """Return what `factory`, which `path` names, makes. Raises `BootError` if it is no factory.

    What the factory itself raises is passed on. It cannot wait for anything: it is called before
    there is an event loop, under --preload even in another process.
    """
    if _is_coroutine_function(factory):
        message = (
            f"--factory: {path!r} is a coroutine function; what has to be awaited belongs into the"
            " application's lifespan"
        )
        raise BootError(message)
    if not _accepts(factory, 0):
        message = f"--factory: {path!r} takes {_listed(factory)}; a factory is called without any"
        raise BootError(message)
    made = factory()
    if not callable(made):
        message = f"--factory: {path!r} has returned no application, but {type(made).__name__}"
        raise BootError(message)
    return made


def adapt(path: str, application: Any, interface: str) -> Any:
    """Return `application`, which `path` names, as one of ASGI 3; `auto` sees what it is.

    Raises `BootError` when it cannot be what `interface` says.
    """
    if interface == "auto":
        interface = _recognised(path, application)
    else:
        _check(path, application, interface)
    if interface == "asgi2":
        return double_to_single_callable(application)
    if interface == "wsgi":
        from daphne_supervisor.worker.wsgi import Wsgi  # noqa: PLC0415 - for those who need it

        return Wsgi(application)
    return application


def _recognised(path: str, application: Any) -> str:
    coroutine = _is_coroutine_function(application)
    single = getattr(application, "_asgi_single_callable", False)
    if single or (coroutine and _accepts(application, len(_TAKES["asgi3"]))):
        return "asgi3"
    needed = _needed(application)
    if needed is None or getattr(application, "_asgi_double_callable", False):
        return "asgi2" if is_double_callable(application) else "asgi3"
    if needed == 0:
        message = f"application {path!r} takes no arguments: is it a factory? (--factory)"
        raise BootError(message)
    interface = _BY_COUNT.get(needed)
    if interface is None or coroutine:
        message = (
            f"application {path!r} takes {_listed(application)}, which is no interface that"
            f" --interface knows: {_interfaces()}"
        )
        raise BootError(message)
    return interface


def _check(path: str, application: Any, interface: str) -> None:
    """Raise `BootError` when `application` is seen not to have the `interface`."""
    names = _TAKES[interface]
    if _accepts(application, len(names)) and (
        interface == "asgi3" or not _is_coroutine_function(application)
    ):
        return
    message = (
        f"--interface {interface}: application {path!r} takes {_listed(application)};"
        f" {interface} calls it with {', '.join(names)}"
    )
    raise BootError(message)


def _interfaces() -> str:
    return "; ".join(f"{interface} ({', '.join(names)})" for interface, names in _TAKES.items())


def _is_coroutine_function(target: Any) -> bool:
    called = target if inspect.isroutine(target) else getattr(target, "__call__", None)  # noqa: B004
    return not inspect.isclass(target) and (
        iscoroutinefunction(called) or iscoroutinefunction(target)
    )


def _signature(target: Callable[..., Any]) -> inspect.Signature | None:
    """Return how `target` is called, `None` where Python does not know."""
    try:
        return inspect.signature(target)
    except (TypeError, ValueError):
        return None


def _needed(target: Callable[..., Any]) -> int | None:
    """Return how many positional arguments `target` must have, `None` if that says nothing."""
    signature = _signature(target)
    if signature is None:
        return None
    kinds = [each.kind for each in signature.parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return None
    return sum(
        each.default is each.empty
        and each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD}
        for each in signature.parameters.values()
    )


def _accepts(target: Callable[..., Any], count: int) -> bool:
    """Say whether `target` can be called with `count` positional arguments, as far as is known."""
    signature = _signature(target)
    if signature is None:
        return True
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _listed(target: Callable[..., Any]) -> str:
    """Return in words what `target` takes."""
    kind = "a coroutine function's " if _is_coroutine_function(target) else ""
    signature = _signature(target)
    names = list(signature.parameters) if signature else []
    return f"{kind}arguments ({', '.join(names)})"
