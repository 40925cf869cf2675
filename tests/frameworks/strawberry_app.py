"""Strawberry: GraphQL with subscriptions."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, AsyncIterator

import strawberry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from strawberry.asgi import GraphQL
from strawberry.file_uploads import Upload

from tests.frameworks.notes import Notes, digest

notes = Notes()
books: list[str] = []


@strawberry.type
class Query:
    """What can be asked."""

    @strawberry.field
    async def books(self) -> list[str]:
        """Return the titles."""
        return books

    @strawberry.field
    async def broken(self) -> str:
        """Fail."""
        message = "it is broken"
        raise ValueError(message)


@strawberry.type
class Mutation:
    """What can be changed."""

    @strawberry.mutation
    async def add(self, title: str) -> str:
        """Add a book."""
        books.append(title)
        return title

    @strawberry.mutation
    async def upload(self, file: Upload) -> str:
        """Say what was uploaded."""
        return digest(await file.read())


@strawberry.type
class Subscription:
    """What can be listened to."""

    @strawberry.subscription
    async def count(self, target: int) -> AsyncGenerator[int, None]:
        """Count."""
        for number in range(target):
            yield number
            await asyncio.sleep(0)

    @strawberry.subscription
    async def endless(self) -> AsyncGenerator[int, None]:
        """Say something, and wait until nobody listens."""
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            notes.leave("left", "endless")


async def left(request: Request) -> JSONResponse:
    """Say who has left."""
    del request
    return JSONResponse(await notes.take("left"))


@contextlib.asynccontextmanager
async def lifespan(application: Starlette) -> AsyncIterator[None]:
    """Say so at the end."""
    del application
    yield
    sys.stderr.write("lifespan ended\n")


schema = strawberry.Schema(Query, Mutation, Subscription)
application = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/left", left),
        Mount(
            "/",
            GraphQL(
                schema,
                multipart_uploads_enabled=True,
                subscription_protocols=(
                    "graphql-transport-ws",
                    "graphql-ws",
                    "multipart-subscription",
                ),
            ),
        ),
    ],
)
