"""What Strawberry has to do, with gql as its client."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from gql import Client, gql
from gql.transport.websockets import WebsocketsTransport

from tests.frameworks.http_stories import text
from tests.frameworks.notes import PATIENCE, digest
from tests.frameworks.site import HTTP, Site, story

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gql.client import AsyncClientSession

__all__ = ["STRAWBERRY_STORIES"]

#: The newer protocol of subscriptions, and the older one.
PROTOCOLS = ("graphql-transport-ws", "graphql-ws")
ENDLESS = "subscription { endless }"


@contextlib.asynccontextmanager
async def session(site: Site) -> AsyncIterator[AsyncClientSession]:
    """Return a session over a WebSocket."""
    transport = WebsocketsTransport(
        site.websocket_url("/"),
        subprotocols=[site.protocol],
        connect_timeout=int(PATIENCE),
        ack_timeout=PATIENCE,
        connect_args={"proxy": None},
    )
    async with Client(transport=transport, execute_timeout=PATIENCE) as opened:
        yield opened


async def counted(opened: AsyncClientSession, target: int) -> list[int]:
    """Return what a subscription says."""
    asked = gql(f"subscription {{ count(target: {target}) }}")
    return [answer["count"] async for answer in opened.subscribe(asked)]


@story("queries and mutations", over=HTTP)
def queries(site: Site) -> None:
    """An error among them is data."""
    with site.http() as http:

        def ask(query: str) -> Any:
            return http.post("/", json={"query": query}).json()

        before = ask("{ books }")["data"]["books"]
        assert ask('mutation { add(title: "é") }')["data"] == {"add": "é"}
        assert ask("{ books }")["data"]["books"] == [*before, "é"]
        assert ask("{ broken }")["errors"][0]["message"] == "it is broken"
        assert "<title>" in http.get("/", headers={"Accept": "text/html"}).text


@story("upload of a file in a mutation", over=HTTP)
def upload(site: Site) -> None:
    """By the specification of GraphQL multipart requests."""
    query = "mutation ($file: Upload!) { upload(file: $file) }"
    data = {
        "operations": json.dumps({"query": query, "variables": {"file": None}}),
        "map": json.dumps({"0": ["variables.file"]}),
    }
    content = b"0123456789abcdef" * 100_000
    with site.http() as http:
        answer = http.post("/", data=data, files={"0": ("large.bin", content)})
    assert answer.json() == {"data": {"upload": digest(content)}}


@story("subscriptions, several on one WebSocket", over=PROTOCOLS)
def subscriptions(site: Site) -> None:
    """Each to its end."""

    async def tell() -> None:
        async with session(site) as opened:
            answers = await asyncio.gather(*(counted(opened, target) for target in (3, 0, 50)))
            assert answers == [[0, 1, 2], [], list(range(50))]

    asyncio.run(tell())


@story("a subscription ends when nobody listens", over=PROTOCOLS)
def leaving(site: Site) -> None:
    """When it is given up, and when its client leaves."""

    async def give_up() -> None:
        async with session(site) as opened:
            heard = opened.subscribe(gql(ENDLESS))
            assert await anext(heard) == {"endless": 1}
            await heard.aclose()

    asyncio.run(give_up())
    with site.http() as http:
        assert text(http.get("/left")) == "endless"
    kind = "subscribe" if site.protocol == PROTOCOLS[0] else "start"
    with site.websocket("/", subprotocols=[site.protocol]) as socket:
        socket.send(json.dumps({"type": "connection_init"}))
        assert json.loads(socket.recv(PATIENCE))["type"] == "connection_ack"
        socket.send(json.dumps({"type": kind, "id": "1", "payload": {"query": ENDLESS}}))
        assert json.loads(socket.recv(PATIENCE))["payload"] == {"data": {"endless": 1}}
    with site.http() as http:
        assert text(http.get("/left")) == "endless"


@story("a subscription as parts of one response", over=HTTP)
def multipart(site: Site) -> None:
    """Without a WebSocket."""
    asked = {"query": "subscription { count(target: 3) }"}
    accept = {"Accept": "multipart/mixed;subscriptionSpec=1.0"}
    with site.http() as http:
        answer = http.post("/", json=asked, headers=accept)
    assert answer.headers["content-type"].startswith("multipart/mixed")
    for number in range(3):
        assert f'"count": {number}' in answer.text or f'"count":{number}' in answer.text


STRAWBERRY_STORIES = (queries, upload, subscriptions, leaving, multipart)
