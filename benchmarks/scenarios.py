"""What is measured: one record each, so that another is a few lines.

The reach says how fast this project means to be. The factors were set from prototypes, against the
releases of 2026; they are goals to be met, and every table prints whether they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import checks
from benchmarks.loads import Client, H2load
from benchmarks.servers import HELLO, Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.loads import Load

__all__ = ["BEST", "SCENARIOS", "Bound", "Scenario"]

BEST = "the best"
"""As `Bound.peer`: whichever other server spends least."""


class Bound(NamedTuple):
    """We may spend at most `factor` times what `peer` does."""

    factor: float
    peer: str


@dataclass(frozen=True)
class Scenario:
    """One kind of work: how the servers are run, what is asked of them, what we mean to reach."""

    name: str
    title: str
    load: Load
    check: Callable[[int], list[str]]
    """Asks the server on a port once. Returns remarks; raises `checks.WrongAnswer`."""
    reach: tuple[Bound, ...]
    mode: Mode = Mode.PLAIN
    unit: str = "request"
    application: str = HELLO
    without: Mapping[str, str] = field(default_factory=dict)
    """Servers that do not take part, each with the reason."""


_KIB = 1024

SCENARIOS = (
    Scenario(
        "hello",
        "hello, 64 connections kept alive",
        H2load(),
        checks.hello,
        (Bound(0.60, "uvicorn"), Bound(0.90, "granian")),
    ),
    Scenario(
        "unlike",
        "hello, another target each time",
        H2load(targets=500),
        checks.hello,
        (),
    ),
    Scenario(
        "connect",
        "hello, a new connection each",
        Client("reconnect", connections=16),
        checks.hello,
        (Bound(0.75, "uvicorn"),),
    ),
    Scenario(
        "echo",
        "echo of a 10 KiB body",
        H2load("/echo", body=10 * _KIB),
        checks.echo,
        (Bound(0.60, "uvicorn"),),
    ),
    Scenario(
        "stream",
        "1 MiB streamed in 64 KiB chunks",
        H2load("/stream", connections=16),
        checks.stream,
        (Bound(0.85, BEST),),
    ),
    Scenario(
        "log",
        "hello with access log",
        H2load(),
        checks.hello,
        (Bound(0.75, "granian"),),
        mode=Mode.ACCESS_LOG,
    ),
    Scenario(
        "tls",
        "hello over TLS",
        H2load(tls=True),
        checks.hello_tls,
        (Bound(0.65, "uvicorn"),),
        mode=Mode.TLS,
    ),
    Scenario(
        "h2",
        "hello over HTTP/2 and TLS, 16 × 16 streams",
        H2load(connections=16, streams=16),
        checks.hello_http2,
        (Bound(0.55, "gunicorn"),),
        mode=Mode.HTTP2,
        without={"uvicorn": "speaks no HTTP/2"},
    ),
    Scenario(
        "django",
        "Django, a synchronous view",
        H2load(),
        checks.hello,
        (Bound(0.70, "uvicorn"),),
        application="benchmarks.django_application:application",
    ),
    Scenario(
        "ws32",
        "WebSocket echo of 32 B, text",
        Client("text", size=32),
        checks.websocket_text,
        (Bound(0.65, "uvicorn"),),
        unit="message",
    ),
    Scenario(
        "ws16k",
        "WebSocket echo of 16 KiB, binary",
        Client("binary", size=16 * _KIB),
        checks.websocket_binary,
        (Bound(0.85, "uvicorn"),),
        unit="message",
    ),
)
