"""WSGI applications as applications of ASGI (PEP 3333), played on a real loop and real threads."""

from __future__ import annotations

import asyncio
import contextvars
import io
import resource
import sys
import threading
from typing import TYPE_CHECKING, Any
from wsgiref.validate import validator

import pytest

from daphne_supervisor.worker.exchange import ClientDisconnected
from daphne_supervisor.worker.threads import Threads
from daphne_supervisor.worker.wsgi import IN_MEMORY, Wsgi
from daphne_supervisor.worker.wsgi_environ import FileWrapper
from tests.support.transports import on_loop, turn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCOPE: dict[str, Any] = {
    "type": "http",
    "http_version": "1.1",
    "method": "POST",
    "scheme": "http",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "root_path": "",
    "headers": [],
    "client": ["192.0.2.1", 4711],
    "server": ["127.0.0.1", 8000],
    "extensions": {"http.response.zerocopysend": {}},
}
PLAIN = [("Content-Type", "text/plain")]


class Played:
    """The server's side of one call: what it receives, and what was sent to it."""

    def __init__(self, *pieces: bytes, whole: bool = True) -> None:
        """Send `pieces` of a body, and then leave unless they are the `whole`."""
        self._pieces = list(pieces) or [b""]
        self._whole = whole
        self.sent: list[dict[str, Any]] = []
        self.fails: BaseException | None = None
        self.gate: asyncio.Event | None = None

    async def receive(self) -> dict[str, Any]:
        """Return the next piece."""
        if not self._pieces:
            return {"type": "http.disconnect"}
        piece = self._pieces.pop(0)
        more = bool(self._pieces) or not self._whole
        return {"type": "http.request", "body": piece, "more_body": more}

    async def send(self, message: dict[str, Any]) -> None:
        """Keep it; wait at the gate if there is one."""
        if self.fails is not None:
            raise self.fails
        self.sent.append(message)
        if self.gate is not None:
            await self.gate.wait()

    async def call(self, application: Any, **scope: Any) -> None:
        """Call `application` with a lease on one of the worker's threads."""
        threads = Threads(2)
        call = threads.begin()
        task = asyncio.get_running_loop().create_task(
            Wsgi(application)(SCOPE | scope, self.receive, self.send),
            context=call.context.copy(),
        )
        try:
            await task
        finally:
            threads.end(call)
            threads.shutdown()

    @property
    def head(self) -> dict[str, Any]:
        """The head that was sent."""
        return self.sent[0]

    @property
    def pieces(self) -> list[tuple[bytes, bool]]:
        """The pieces of body that were sent, and whether more follows each."""
        return [(message["body"], message["more_body"]) for message in self.sent[1:]]


def fail() -> None:
    """Raise."""
    raise KeyError


def streaming(*pieces: bytes, headers: list[tuple[str, str]] | None = None) -> Any:
    """Return an application that yields `pieces`."""

    def application(_: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN if headers is None else headers)
        yield from pieces

    return application


@on_loop
async def test_a_list_is_one_response() -> None:
    """Which has a length, since all of it is there."""
    played = Played()

    def application(_: Any, start_response: Any) -> list[bytes]:
        start_response("404 Not Found", [("X-A", "\xe9")])
        return [b"a", b"", b"b"]

    await played.call(application)
    assert played.head == {
        "type": "http.response.start",
        "status": 404,
        "headers": [(b"x-a", b"\xe9")],
    }
    assert played.pieces == [(b"ab", False)]


@on_loop
async def test_pieces_are_sent_as_they_come() -> None:
    """Empty ones are none, and the end is said when it is known."""
    played = Played()
    await played.call(streaming(b"", b"a", b"", b"b", b""))
    assert played.pieces == [(b"a", True), (b"b", True), (b"", False)]


@on_loop
async def test_the_announced_length_is_the_end() -> None:
    """Nothing is asked for beyond it (PEP 3333)."""
    played, closed = Played(), []

    class Result:
        def __iter__(self) -> Iterator[bytes]:
            yield b"ab"
            yield b"cd"
            pytest.fail("asked for more")

        def close(self) -> None:
            closed.append(threading.current_thread().name)

    def application(_: Any, start_response: Any) -> Result:
        start_response("200 OK", [("Content-Length", "4")])
        return Result()

    await played.call(application)
    assert played.pieces == [(b"ab", True), (b"cd", False)]
    assert len(closed) == 1


@pytest.mark.parametrize("result", [[], [b""], iter(())])
@on_loop
async def test_an_empty_response_has_a_head(result: Any) -> None:
    """It leaves at the end."""
    played = Played()

    def application(_: Any, start_response: Any) -> Any:
        start_response("204 No Content", [])
        return result

    await played.call(application)
    assert played.head["status"] == 204
    assert played.pieces == [(b"", False)]


@pytest.mark.parametrize("size", [0, 10, IN_MEMORY - 1, IN_MEMORY + 1, 3 * IN_MEMORY])
@on_loop
async def test_a_body_is_there_before_the_application(size: int) -> None:
    """In memory, or in a file when it is large: no thread waits for a slow client."""
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    pieces = [body[at : at + 60_000] for at in range(0, size, 60_000)]
    played, seen = Played(*pieces), []

    def application(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(environ["wsgi.input"]._rolled)
        start_response("200 OK", PLAIN)
        assert environ.get("CONTENT_LENGTH", "0") == str(size)
        return [environ["wsgi.input"].read()]

    await played.call(application)
    assert played.pieces == [(body, False)]
    assert seen == [size > IN_MEMORY]


@on_loop
async def test_who_leaves_in_the_middle_of_the_body() -> None:
    """The application hears nothing of it."""
    played = Played(b"half", whole=False)
    await played.call(pytest.fail)
    assert played.sent == []


@on_loop
async def test_a_disk_that_is_full(caplog: pytest.LogCaptureFixture) -> None:
    """Is an answer and a line in the log, and no traceback: a client has brought it about."""
    played = Played(*[bytes(60_000)] * 20)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * IN_MEMORY, hard))
    try:
        await played.call(pytest.fail, raw_path=b"/a%0Ab", path="/a\nb")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert played.head["status"] == 503
    (record,) = caplog.records
    assert record.exc_info is None
    assert record.getMessage() == "POST /a%0Ab: no room for its body: [Errno 27] File too large"


@on_loop
async def test_one_thread_and_one_context_for_all_of_a_request() -> None:
    """A database connection belongs to a thread, and Flask's request to a context."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    played, names = Played(), []

    class Result:
        def __init__(self) -> None:
            self.token = variable.set("request")
            self.left = 3

        def __iter__(self) -> Result:
            return self

        def __next__(self) -> bytes:
            names.append(threading.current_thread().name)
            self.left -= 1
            if not self.left:
                raise StopIteration
            return variable.get().encode()

        def close(self) -> None:
            names.append(threading.current_thread().name)
            variable.reset(self.token)

    def application(_: Any, start_response: Any) -> Result:
        names.append(threading.current_thread().name)
        start_response("200 OK", PLAIN)
        return Result()

    await played.call(application)
    assert played.pieces == [(b"request", True), (b"request", True), (b"", False)]
    assert len(names) == 5
    assert len(set(names)) == 1
    assert names[0] != threading.current_thread().name


@on_loop
async def test_a_slow_client_holds_no_thread() -> None:
    """While a piece is being sent the application's thread serves somebody else."""
    played = Played()
    played.gate = asyncio.Event()
    threads = Threads(1)
    call, other = threads.begin(), threads.begin()
    task = asyncio.get_running_loop().create_task(
        Wsgi(streaming(b"a", b"b"))(SCOPE, played.receive, played.send),
        context=call.context.copy(),
    )
    while not played.sent:
        await turn()
    assert await asyncio.wrap_future(other.lease.submit(threading.current_thread)) is not None
    assert not task.done()
    played.gate.set()
    await task
    assert played.pieces == [(b"a", True), (b"b", True), (b"", False)]
    threads.shutdown()


@on_loop
async def test_write_sends_before_what_is_returned() -> None:
    """And waits until it is sent, as old applications expect."""
    played = Played()

    def application(_: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", PLAIN)
        write(b"one")
        write(b"")
        write(b"two")
        return [b"three"]

    await played.call(application)
    assert played.pieces == [(b"one", True), (b"two", True), (b"three", False)]


@on_loop
async def test_an_error_replaces_a_head_that_has_not_left() -> None:
    """With exc_info, as frameworks do."""
    played = Played()

    def application(_: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "9")])
        try:
            fail()
        except KeyError:
            start_response("500 Oops", PLAIN, sys.exc_info())
        return [b"sorry"]

    await played.call(application)
    assert played.head["status"] == 500
    assert played.pieces == [(b"sorry", False)]


@on_loop
async def test_an_error_that_comes_too_late_is_raised() -> None:
    """The head has left: the response can only be cut."""
    played = Played()

    def application(_: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"x"
        try:
            fail()
        except KeyError:
            start_response("500 Oops", PLAIN, sys.exc_info())

    with pytest.raises(KeyError):
        await played.call(application)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, []),
        ("OK", []),
        ("", []),
        ("200 OK", [(b"a", b"b")]),
        ("200 OK", [("a", "\u20ac")]),
        ("200 OK", [("a",)]),
        ("200 OK", None),
    ],
)
@on_loop
async def test_a_head_that_is_none(status: Any, headers: Any) -> None:
    """Raises where the application has called, and says what was given."""
    played = Played()

    def application(_: Any, start_response: Any) -> list[bytes]:
        with pytest.raises(ValueError, match="start_response was called with") as caught:
            start_response(status, headers)
        assert repr(status) in str(caught.value)
        start_response("200 OK", [])
        with pytest.raises(ValueError, match="a second time, without exc_info"):
            start_response("200 OK", [])
        return [b"x"]

    await played.call(application)
    assert played.head["status"] == 200


@on_loop
async def test_a_response_without_a_head() -> None:
    """Is a mistake that is said."""
    with pytest.raises(ValueError, match="has not called start_response"):
        await Played().call(lambda environ, start_response: [b"x"])  # noqa: ARG005


@pytest.mark.parametrize("where", ["call", "iteration"])
@on_loop
async def test_what_an_application_raises_is_raised(where: str) -> None:
    """What it has returned is closed nevertheless."""
    closed = []

    class Result:
        def __iter__(self) -> Iterator[bytes]:
            yield b"x"
            raise KeyError

        def close(self) -> None:
            closed.append(where)

    def application(_: Any, start_response: Any) -> Result:
        if where == "call":
            raise KeyError
        start_response("200 OK", PLAIN)
        return Result()

    with pytest.raises(KeyError):
        await Played().call(application)
    assert closed == ([where] if where == "iteration" else [])


@pytest.mark.parametrize("how", ["leaves", "is cancelled"])
@on_loop
async def test_what_is_returned_is_closed_when_the_client(how: str) -> None:
    """It may hold a transaction or a file."""
    played, closed = Played(), threading.Event()

    class Result:
        def __iter__(self) -> Iterator[bytes]:
            while True:
                yield b"x"

        def close(self) -> None:
            closed.set()

    def application(_: Any, start_response: Any) -> Result:
        start_response("200 OK", PLAIN)
        return Result()

    if how == "leaves":
        played.fails = ClientDisconnected()
        with pytest.raises(ClientDisconnected):
            await played.call(application)
    else:
        played.gate = asyncio.Event()
        task = asyncio.ensure_future(played.call(application))
        while not played.sent:
            await turn()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await asyncio.get_running_loop().run_in_executor(None, closed.wait, 10)


@pytest.mark.parametrize("offered", [True, False])
@on_loop
async def test_a_file_is_sent_out_of_its_descriptor(tmp_path: Path, *, offered: bool) -> None:
    """If the server offers that; it is closed behind it in any case."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    played, file = Played(), path.open("rb")

    def application(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", PLAIN)
        return environ["wsgi.file_wrapper"](file, 4)

    await played.call(application, extensions={"http.response.zerocopysend": {}} if offered else {})
    if offered:
        assert played.sent[1:] == [{"type": "http.response.zerocopysend", "file": file}]
    else:
        assert played.pieces == [(b"cont", True), (b"ent", True), (b"", False)]
    assert file.closed


@on_loop
async def test_a_file_without_a_descriptor_is_read() -> None:
    """Nobody can send it otherwise."""
    played = Played()

    def application(_: Any, start_response: Any) -> Any:
        start_response("200 OK", PLAIN)
        return FileWrapper(io.BytesIO(b"content"))

    await played.call(application)
    assert played.pieces == [(b"content", True), (b"", False)]


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
@on_loop
async def test_there_is_neither_a_websocket_nor_a_lifespan(kind: str) -> None:
    """A WebSocket is refused, which is a 403; the lifespan is served without."""
    played = Played()
    await played.call(pytest.fail, type=kind)
    assert played.sent == ([{"type": "websocket.close"}] if kind == "websocket" else [])


@on_loop
async def test_the_python_library_finds_nothing_to_complain_about() -> None:
    """Its validator looks at everything that PEP 3333 says."""
    played = Played(b"body")

    def application(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", PLAIN)
        write(b"first ")
        environ["wsgi.errors"].flush()
        return [environ["wsgi.input"].read(4)]

    await played.call(validator(application))
    assert played.pieces[0] == (b"first ", True)
    assert b"".join(piece for piece, _ in played.pieces) == b"first body"
