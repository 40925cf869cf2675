"""Which interface an application has: seen from the arguments that it takes."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest

from daphne_supervisor.errors import BootError
from daphne_supervisor.worker.interface import adapt, make
from daphne_supervisor.worker.wsgi import Wsgi


async def asgi3(scope: Any, receive: Any, send: Any) -> None:
    """Be an application of ASGI 3."""
    await send((scope, receive))


def plain_asgi3(scope: Any, receive: Any, send: Any) -> Any:
    """Be one that is no coroutine function, but returns what can be awaited."""
    return asgi3(scope, receive, send)


def asgi2(scope: Any) -> Any:
    """Be an application of ASGI 2."""
    return functools.partial(asgi3, scope)


class Legacy:
    """An application of ASGI 2, as a class."""

    def __init__(self, scope: Any) -> None:
        """Take the scope."""
        self.scope = scope

    async def __call__(self, receive: Any, send: Any) -> None:
        """Take the rest."""
        await asgi3(self.scope, receive, send)


class Awaited:
    """An application of ASGI 3, as a class whose instances are awaited."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        """Take everything."""
        self.call = asgi3(scope, receive, send)

    def __await__(self) -> Any:
        """Run."""
        return self.call.__await__()


class Instance:
    """An instance that is an application, as those of frameworks are."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Be called."""
        await asgi3(scope, receive, send)


def decorated(function: Any) -> Any:
    """Return `function` behind a wrapper that does not show its arguments."""

    def call(*args: Any) -> Any:
        return function(*args)

    return call


async def decorated_asgi3(*args: Any) -> None:
    """Be an application whose arguments cannot be seen, of ASGI 3 because it is a coroutine."""
    await asgi3(*args)


def hinted(*args: Any) -> Any:
    """Be an application that says of itself what asgiref asks."""
    return asgi3(*args)


hinted._asgi_single_callable = True  # type: ignore[attr-defined]


def double(scope: Any, more: Any = None) -> Any:
    """Be an application that says of itself that it is of ASGI 2."""
    assert more is None
    return asgi2(scope)


double._asgi_double_callable = True  # type: ignore[attr-defined]


def wsgi(environ: Any, start_response: Any) -> Any:
    """Be a WSGI application."""
    start_response("200 OK", [])
    return [environ]


async def with_defaults(scope: Any, receive: Any = None, send: Any = None) -> None:
    """Be an application of ASGI 3 that could be called with less."""
    await asgi3(scope, receive, send)


class Blind:
    """Something callable of which Python does not know how."""

    __signature__ = "none"

    def __call__(self, scope: Any) -> Any:
        """Be called."""
        return asgi2(scope)


def called(application: Any) -> Any:
    """Return what `application` has sent for its call."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def call() -> None:
        await application("scope", "receive", send)

    asyncio.run(call())
    return sent


@pytest.mark.parametrize(
    "application",
    [
        *(asgi3, plain_asgi3, asgi2, Legacy, Awaited, Instance(), decorated(asgi2)),
        *(decorated_asgi3, with_defaults, hinted, double, Blind()),
    ],
)
def test_every_asgi_application_is_recognised(application: Any) -> None:
    """Whatever its form, it gets scope, receive and send."""
    assert called(adapt("m:a", application, "auto")) == [("scope", "receive")]


@pytest.mark.parametrize("application", [wsgi, functools.partial(wsgi)])
@pytest.mark.parametrize("interface", ["auto", "wsgi"])
def test_a_wsgi_application_is_recognised(application: Any, interface: str) -> None:
    """By its two arguments."""
    assert isinstance(adapt("m:a", application, interface), Wsgi)


@pytest.mark.parametrize(
    ("application", "interface"), [(asgi3, "asgi3"), (asgi2, "asgi2"), (plain_asgi3, "asgi3")]
)
def test_an_interface_can_be_asked_for(application: Any, interface: str) -> None:
    """Then nothing is guessed."""
    assert called(adapt("m:a", application, interface)) == [("scope", "receive")]


def test_what_cannot_be_seen_is_believed() -> None:
    """Who hides the arguments says what they are."""
    assert called(adapt("m:a", decorated(asgi3), "asgi3")) == [("scope", "receive")]
    assert isinstance(adapt("m:a", decorated(wsgi), "wsgi"), Wsgi)
    assert called(adapt("m:a", Blind(), "asgi2")) == [("scope", "receive")]


def nothing() -> Any:
    """Take no arguments."""
    return asgi3


async def two(environ: Any, start_response: Any) -> None:
    """Be a mistake: a coroutine function with the arguments of WSGI."""


async def one(scope: Any) -> None:
    """Be a mistake of another kind."""


def four(a: Any, b: Any, c: Any, d: Any) -> None:
    """Take too much."""


@pytest.mark.parametrize(
    ("application", "interface", "text"),
    [
        (nothing, "auto", r"'m:a' takes no arguments: is it a factory\? \(--factory\)"),
        (two, "auto", r"a coroutine function's arguments \(environ, start_response\), which is no"),
        (one, "auto", r"a coroutine function's arguments \(scope\), which is no interface"),
        (four, "auto", r"takes arguments \(a, b, c, d\), which is no interface that --interface"),
        (asgi3, "wsgi", r"--interface wsgi: .* \(scope, receive, send\); wsgi calls it with env"),
        (two, "wsgi", "--interface wsgi: .* a coroutine function's arguments"),
        (asgi3, "asgi2", "--interface asgi2: application 'm:a' takes a coroutine function's"),
        (one, "asgi2", "--interface asgi2: .* a coroutine function's"),
        (wsgi, "asgi3", "--interface asgi3: .*; asgi3 calls it with scope, receive, send"),
        (wsgi, "asgi2", "--interface asgi2: .*; asgi2 calls it with scope"),
        (asgi2, "asgi3", r"--interface asgi3: .* takes arguments \(scope\)"),
    ],
)
def test_what_does_not_fit_is_one_line(application: Any, interface: str, text: str) -> None:
    """It names the option, what the application takes and what it would be called with."""
    with pytest.raises(BootError, match=text) as caught:
        adapt("m:a", application, interface)
    assert "\n" not in str(caught.value)


def returns_nothing() -> None:
    """Be a factory that has forgotten to return."""


async def awaited() -> Any:
    """Be a factory that wants to be awaited."""
    return asgi3


def test_a_factory_is_called_without_arguments() -> None:
    """Any that it has must have defaults."""
    assert make("m:a", nothing) is asgi3
    assert make("m:a", lambda settings=None: (settings, asgi3)[1]) is asgi3
    assert isinstance(make("m:a", Instance), Instance)


@pytest.mark.parametrize(
    ("factory", "text"),
    [
        (returns_nothing, "--factory: 'm:a' has returned no application, but NoneType"),
        (awaited, "--factory: 'm:a' is a coroutine function; what has to be awaited belongs into"),
        (wsgi, r"--factory: 'm:a' takes arguments \(environ, start_response\); a factory is"),
        (Instance(), "--factory: 'm:a' is a coroutine function"),
    ],
)
def test_what_is_no_factory_is_one_line(factory: Any, text: str) -> None:
    """It says what a factory is."""
    with pytest.raises(BootError, match=text):
        make("m:a", factory)
