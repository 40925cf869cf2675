"""The waist: what codecs, exchanges and connections promise each other, and who keeps it."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from daphne_supervisor.worker import waist
from daphne_supervisor.worker.connection import Connection
from daphne_supervisor.worker.http1 import Http1
from daphne_supervisor.worker.http2 import Http2
from daphne_supervisor.worker.http2_stream import Stream
from daphne_supervisor.worker.http2_tunnel import Tunnel
from daphne_supervisor.worker.http_exchange import HttpExchange
from daphne_supervisor.worker.streams import Streams
from daphne_supervisor.worker.websocket import WebSocket
from daphne_supervisor.worker.websocket_exchange import WebSocketExchange
from tests.support.streams import FakeStreams
from tests.support.transports import Listener, Port, Stage, on_loop, service
from tests.support.wire import FakeHandler, FakePort, FakeRequest

PROTOCOLS = [
    waist.Client,
    waist.Codec,
    waist.FileWire,
    waist.Handler,
    waist.InformingWire,
    waist.Messages,
    waist.Port,
    waist.Request,
    waist.Running,
    waist.StreamHandler,
    waist.Throttled,
    waist.Wire,
]


def methods(kind: type[Any]) -> dict[str, list[tuple[str, Any]]]:
    """Return name and kind of every method's parameters."""
    return {
        name: [(each.name, each.kind) for each in inspect.signature(method).parameters.values()]
        for name, method in vars(kind).items()
        if inspect.isfunction(method) and not name.startswith("_")
    }


@pytest.mark.parametrize(
    ("kind", "protocol"),
    [
        (Http1, waist.Codec),
        (Http1, waist.Wire),
        (Http1, waist.FileWire),
        (Http2, waist.Codec),
        (Http2, waist.Wire),
        (Http2, waist.InformingWire),
        (Streams, waist.StreamHandler),
        (Connection, waist.Client),
        (Connection, waist.Throttled),
        (Stream, waist.Client),
        (Tunnel, waist.Port),
        (Tunnel, waist.Throttled),
        (FakeStreams, waist.StreamHandler),
        (WebSocket, waist.Codec),
        (HttpExchange, waist.Request),
        (WebSocketExchange, waist.Messages),
        (FakePort, waist.Port),
        (FakeHandler, waist.Handler),
        (FakeRequest, waist.Request),
        (Port, waist.Port),
        (Listener, waist.Messages),
    ],
)
def test_both_sides_keep_the_promise(kind: type[Any], protocol: type[Any]) -> None:
    """Each method of a protocol is there, with its parameters, in the real thing and the fake."""
    wanted = methods(protocol)
    assert wanted
    for name, parameters in wanted.items():
        method = inspect.signature(getattr(kind, name))
        assert [(each.name, each.kind) for each in method.parameters.values()] == parameters


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_promise_is_explained(protocol: type[Any]) -> None:
    """Each member of a protocol says what it is for: this file is the only place that does."""
    explained = [
        inspect.getdoc(member)
        for name, member in vars(protocol).items()
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
    ]
    assert explained
    assert all(explained)


@on_loop
async def test_both_sides_know_how_far_the_worker_has_come() -> None:
    """Codecs read what the service sets; both it and the fakes stay until they are told to go."""
    steps = inspect.get_annotations(waist.Worker)
    assert steps.pop("identity")
    assert steps
    for worker in (service(Stage()), Port().worker, FakePort().worker):
        assert [getattr(worker, step) for step in steps] == [False] * len(steps)


def test_the_waist_is_named() -> None:
    """Everything public is exported, and nothing else."""
    assert {protocol.__name__ for protocol in PROTOCOLS} | {"Message", "Worker"} == set(
        waist.__all__
    )
