"""A framework under test, what is told of it, and the clients that tell it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
from websockets.sync.client import connect

from tests.frameworks.notes import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from websockets.sync.client import ClientConnection

    from tests.support.daphne import Daphne

__all__ = ["HTTP", "Framework", "Site", "Story", "story"]

#: What HTTP stories are told over; HTTP/2 begins at once, without TLS.
HTTP = ("HTTP/1.1", "HTTP/2")
#: One that is never used: httpx would read all certificates of the system for each client.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass(frozen=True)
class Story:
    """One thing that has to work, with the function that sees whether it does.

    `over` names the protocols that it is told over, once for each. A story of parting is a
    generator: it is begun, the server is told to stop, and then it is told to its end.
    """

    title: str
    tell: Callable[[Site], Any]
    over: Sequence[str] = ("",)
    parting: bool = False

    @property
    def name(self) -> str:
        """What a test calls it."""
        return self.tell.__name__


def story(
    title: str, *, over: Sequence[str] = ("",), parting: bool = False
) -> Callable[[Callable[[Site], Any]], Story]:
    """Make a `Story` of the function below."""
    return lambda tell: Story(title, tell, over, parting)


@dataclass(frozen=True)
class Framework:
    """One application of this folder, and the stories that it has to pass.

    `packages` are those of the dependency group that it is made of. `lacks` says, for a story
    that all of its kind tell and it does not, why.
    """

    name: str
    module: str
    packages: Sequence[str]
    stories: Sequence[Story]
    lacks: Mapping[Story, str] = field(default_factory=dict)
    lifespan: bool = True
    failures: int = 0  # tracebacks that its stories ask for

    @property
    def application(self) -> str:
        """What the server is told to serve."""
        return f"tests.frameworks.{self.module}:application"

    def told(self, *, parting: bool = False) -> list[Story]:
        """Return the stories that are told of it, those of `parting` or the others."""
        return [each for each in self.stories if each.parting is parting and each not in self.lacks]

    def __repr__(self) -> str:
        """Return the name, short enough for a test's."""
        return self.module.removesuffix("_app")


class Site:
    """A running server with clients for it; all that they wait for is bounded."""

    def __init__(self, framework: Framework, server: Daphne, protocol: str = "") -> None:
        """Be `server`, which serves `framework`; speak `protocol`, over which a story is told."""
        self.framework = framework
        self.server = server
        self.protocol = protocol

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""
        return self.server.url

    def websocket_url(self, path: str) -> str:
        """Return where a WebSocket is."""
        return f"ws://127.0.0.1:{self.server.port}{path}"

    def http(self, **options: Any) -> httpx.Client:
        """Return a client whose connections are its own."""
        return httpx.Client(
            base_url=self.url,
            http1=self.protocol != "HTTP/2",
            http2=self.protocol == "HTTP/2",
            timeout=PATIENCE,
            trust_env=False,
            verify=_NO_TLS,
            **options,
        )

    def websocket(self, path: str, **options: Any) -> ClientConnection:
        """Open a WebSocket."""
        return connect(
            self.websocket_url(path),
            open_timeout=PATIENCE,
            close_timeout=PATIENCE,
            proxy=None,
            **options,
        )
