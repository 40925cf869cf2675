"""One request against one application call."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived

from daphne_supervisor.config import Http
from daphne_supervisor.worker.exchange import ClientDisconnected
from daphne_supervisor.worker.http_exchange import HIGH_WATER, HttpExchange
from tests.support.transports import Call, Line, Records, Stage, Transport, on_loop, service, turn

if TYPE_CHECKING:
    from pathlib import Path

    from daphne_supervisor.worker.service import Service

START: dict[str, Any] = {"type": "http.response.start", "status": 200}
BODY: dict[str, Any] = {"type": "http.response.body", "body": b"x"}
MORE = BODY | {"more_body": True}

#: How each state is reached, and which message it takes.
STATES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "the response has not been started": ([], "http.response.start"),
    "the response waits for its body": ([START], "http.response.body"),
    "the response is being sent": ([START, MORE], "http.response.body"),
    "the response is complete": ([START, BODY], ""),
}
KINDS = (
    "http.response.start",
    "http.response.body",
    "http.response.trailers",
    "http.disconnect",
    "websocket.accept",
    "websocket.close",
    "websocket.send",
    "nonsense",
)


class Table:
    """A service, a connection to it and the application's calls."""

    def __init__(self, **http: Any) -> None:
        """Connect."""
        self.log = Records()
        self.stage = Stage()
        self.service: Service = service(self.stage, self.log, http=Http(**http))
        self.line = Line(self.service)

    @property
    def call(self) -> Call:
        """The latest call."""
        return self.stage.call

    @property
    def counters(self) -> tuple[int, int, int]:
        """Requests so far, calls that run, exchanges that are left."""
        return self.service.requests, self.service.in_flight, len(self.service.exchanges)


async def asked(*lines: bytes, method: bytes = b"GET", **http: Any) -> Table:
    """Return a table with a request whose application runs."""
    table = Table(**http)
    await table.line.ask(b"/path?q", method, *lines)
    return table


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", KINDS)
@on_loop
async def test_what_may_be_sent_is_a_table(state: str, kind: str) -> None:
    """Each pair of state and message: taken, or an error that names both and harms nothing."""
    table = await asked()
    before, wanted = STATES[state]
    for message in before:
        await table.call.send(message)
    message = {"type": kind, "status": 200, "body": b"y"}
    if kind == wanted:
        await table.call.send(message)
        return
    sent = table.line.sent
    with pytest.raises(ValueError, match=f"unexpected ASGI message '{kind}': {state}"):
        await table.call.send(message)
    assert table.line.sent == sent


@on_loop
async def test_a_request_is_answered() -> None:
    """The scope describes it; the response, the log and the counters say that it is done."""
    table = await asked(b"X-One: 1")
    assert table.counters == (1, 1, 1)
    scope = table.call.scope
    assert (scope["type"], scope["path"], scope["query_string"]) == ("http", "/path", b"q")
    await table.call.start(201, (b"content-length", b"2"))
    assert table.line.take() == b""
    await table.call.body(b"ok")
    assert table.line.take().endswith(b"\r\n\r\nok")
    assert table.log.lines == [("GET", "/path?q", 201, 2)]
    await table.call.returns()
    assert table.counters == (1, 0, 0)
    assert not table.line.closed


@on_loop
async def test_a_head_request_sends_no_body() -> None:
    """And none is counted."""
    table = await asked(method=b"HEAD")
    await table.call.start()
    await table.call.body(b"body")
    head, end, body = table.line.take().partition(b"\r\n\r\n")
    assert b"Content-Length: 4" in head
    assert (end, body) == (b"\r\n\r\n", b"")
    assert table.log.lines == [("HEAD", "/path?q", 200, 0)]


@on_loop
async def test_a_body_arrives_as_it_comes() -> None:
    """Pieces that wait are joined; the last one says so; after the response comes the end."""
    table = await asked(b"Content-Length: 9", method=b"POST")
    receiving = asyncio.ensure_future(table.call.receive())
    await turn()
    await table.line.send(b"abc")
    assert await receiving == {"type": "http.request", "body": b"abc", "more_body": True}
    await table.line.send(b"def")
    await table.line.send(b"ghi")
    assert await table.call.receive() == {
        "type": "http.request",
        "body": b"defghi",
        "more_body": False,
    }
    waiting = asyncio.ensure_future(table.call.receive())
    await turn()
    assert not waiting.done()
    await table.call.start()
    await table.call.body()
    assert await waiting == {"type": "http.disconnect"}
    assert await table.call.receive() == {"type": "http.disconnect"}


@on_loop
async def test_an_empty_body_arrives_once() -> None:
    """A request without a body has one event."""
    table = await asked()
    assert await table.call.receive() == {"type": "http.request", "body": b"", "more_body": False}


@on_loop
async def test_a_client_that_waits_is_asked_for_its_body_once() -> None:
    """100 Continue is sent when the application first reads (RFC 9110 section 10.1.1)."""
    table = await asked(b"Content-Length: 1", b"Expect: 100-continue", method=b"POST")
    assert table.line.take() == b""
    first = asyncio.ensure_future(table.call.receive())
    second = asyncio.ensure_future(table.call.receive())
    await turn()
    assert table.line.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    await table.line.send(b"x")
    assert (await first)["body"] == b"x"
    second.cancel()


@on_loop
async def test_an_unread_body_stops_the_reading() -> None:
    """Above the high-water mark nothing more is read; when the application reads, it goes on."""
    table = await asked(b"Content-Length: 1000000", method=b"POST")
    await table.line.send(bytes(HIGH_WATER))
    assert table.line.reading
    await table.line.send(b"x")
    assert not table.line.reading
    assert len((await table.call.receive())["body"]) == HIGH_WATER + 1
    assert table.line.reading


# -- the client leaves --


@on_loop
async def test_a_client_leaves() -> None:
    """The application hears it at once, each time it asks; sending raises; the log has a line."""
    table = await asked()
    await table.call.receive()
    waiting = asyncio.ensure_future(table.call.receive())
    await turn()
    await table.line.leave()
    assert await waiting == {"type": "http.disconnect"}
    assert await table.call.receive() == {"type": "http.disconnect"}
    with pytest.raises(ClientDisconnected):
        await table.call.start()
    await table.call.returns()
    assert table.counters == (1, 0, 0)
    assert table.log.lines == [("GET", "/path?q", 0, 0)]


@on_loop
async def test_a_client_that_left_has_no_body() -> None:
    """What it had sent does not matter any more: the disconnect comes first."""
    table = await asked(b"Content-Length: 9", method=b"POST")
    await table.line.send(b"abc")
    await table.line.leave()
    assert await table.call.receive() == {"type": "http.disconnect"}


@on_loop
async def test_a_client_leaves_while_the_application_waits_for_it_to_read() -> None:
    """The waiting `send` ends, and says so."""
    table = await asked()
    await table.call.start()
    table.line.stall()
    sending = asyncio.ensure_future(table.call.body(b"x", more=True))
    await turn()
    assert not sending.done()
    await table.line.leave()
    with pytest.raises(ClientDisconnected):
        await sending


@on_loop
async def test_a_transport_that_is_closing_takes_nothing() -> None:
    """Its loss is not told yet, and never would be to an application that only sends."""
    table = await asked()
    await table.call.start()
    await table.call.body(b"x", more=True)
    table.line.transport.abortConnection()
    asyncio.get_running_loop().call_soon(table.line.connection.connectionLost)

    async def send_on() -> None:
        while True:
            await table.call.body(b"y", more=True)

    with pytest.raises(ClientDisconnected):
        await send_on()
    assert await table.call.receive() == {"type": "http.disconnect"}


@on_loop
async def test_a_client_reads_again() -> None:
    """`send` waits as long as it must."""
    table = await asked()
    await table.call.start()
    table.line.stall()
    sending = asyncio.ensure_future(table.call.body(b"x", more=True))
    await turn()
    table.line.catch_up()
    await sending
    await table.call.body(b"y", more=True)
    await table.call.body(b"z")
    assert table.line.take().endswith(b"1\r\nx\r\n1\r\ny\r\n1\r\nz\r\n0\r\n\r\n")


@on_loop
async def test_a_stream_that_waits_for_nothing_leaves_others_their_turn() -> None:
    """Though its client takes everything at once; a few pieces cost nobody a turn."""
    table = await asked()
    await table.call.send(START)
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 0)
    sent = 0
    while not turns and sent < 1000:
        await table.call.send(MORE)
        sent += 1
    assert 100 < sent < 500
    assert table.line.take().count(b"\r\nx\r\n") == sent


@on_loop
async def test_the_end_of_a_response_whose_client_leaves_is_no_error() -> None:
    """It was handed over completely: nobody can know better."""
    table = await asked()
    await table.call.start()
    table.line.stall()
    sending = asyncio.ensure_future(table.call.body(b"x"))
    await turn()
    await table.line.leave()
    await sending
    assert table.log.lines == [("GET", "/path?q", 200, 1)]


@on_loop
async def test_a_request_that_waits_its_turn_loses_its_client() -> None:
    """It never reaches the application, and no counter nor log has seen it."""
    table = await asked()
    await table.line.ask(b"/second")
    await table.line.leave()
    await table.call.returns()
    assert (len(table.stage.calls), table.counters) == (1, (1, 0, 0))
    assert table.log.lines == [("GET", "/path?q", 0, 0)]


@on_loop
async def test_an_exchange_that_is_lost_twice_is_logged_once() -> None:
    """The codec may give a request up, and then lose its connection."""
    table = await asked()
    (exchange,) = table.service.exchanges
    assert isinstance(exchange, HttpExchange)
    exchange.lost()
    exchange.lost()
    assert len(table.log.lines) == 1


# -- the application fails --


@pytest.mark.parametrize("started", [False, True])
@on_loop
async def test_an_application_fails_before_its_response(*, started: bool) -> None:
    """The client gets 500, even when a head waits for its body; the connection is kept."""
    table = await asked()
    if started:
        await table.call.start()
    await table.call.raises(RuntimeError())
    assert table.line.take().startswith(b"HTTP/1.1 500 ")
    assert table.counters == (1, 0, 0)
    assert table.log.lines[0][2] == 500
    assert not table.line.closed


@pytest.mark.parametrize("how", ["raises", "returns"])
@on_loop
async def test_an_application_ends_in_the_middle_of_its_response(how: str) -> None:
    """Only cutting the connection tells the client that something is missing."""
    table = await asked()
    await table.call.start()
    await table.call.body(b"half", more=True)
    await (table.call.raises(RuntimeError()) if how == "raises" else table.call.returns())
    assert table.line.aborted
    await table.line.leave()
    assert table.counters == (1, 0, 0)
    assert table.log.lines == [("GET", "/path?q", 200, 4)]


@on_loop
async def test_an_application_returns_without_a_response(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The client gets 500, and the log says what was wrong."""
    table = await asked()
    await table.call.returns()
    assert table.line.take().startswith(b"HTTP/1.1 500 ")
    assert "returned without a complete response" in caplog.text


@on_loop
async def test_an_application_fails_after_its_response() -> None:
    """The client has had its answer: nothing is cut."""
    table = await asked()
    await table.call.start()
    await table.call.body()
    await table.call.raises(RuntimeError())
    assert not table.line.closed
    assert table.counters == (1, 0, 0)


@on_loop
async def test_an_application_is_cancelled_before_its_response() -> None:
    """Its client, who is still there, gets 500."""
    table = await asked()
    (exchange,) = table.service.exchanges
    exchange.cancel()
    await turn()
    assert table.line.take().startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize("body", ["text", None, 7])
@pytest.mark.parametrize("more", [False, True])
@on_loop
async def test_a_body_that_is_not_bytes_is_an_error_of_the_application(
    body: Any, *, more: bool
) -> None:
    """Nothing of it is sent, and the client gets its 500 rather than no answer."""
    table = await asked()
    await table.call.start()
    with pytest.raises(TypeError):
        await table.call.body(body, more=more)
    assert table.line.take() == b""
    await table.call.raises(TypeError())
    assert table.line.take().startswith(b"HTTP/1.1 500 ")


@on_loop
async def test_a_later_body_that_is_not_bytes_breaks_off() -> None:
    """Half a response cannot become a 500."""
    table = await asked()
    await table.call.start()
    await table.call.body(b"x", more=True)
    with pytest.raises(TypeError):
        await table.call.body("text")  # type: ignore[arg-type]
    await table.call.raises(TypeError())
    assert table.line.aborted


@on_loop
async def test_a_head_that_cannot_be_sent_can_be_sent_anew() -> None:
    """An application that catches the error may answer something else."""
    table = await asked()
    await table.call.start(200, (b"x-one", b"1\r\nx-two: 2"))
    with pytest.raises(ValueError, match="x-one"):
        await table.call.body(b"x")
    assert table.line.take() == b""
    await table.call.start(503)
    await table.call.body(b"sorry")
    assert table.line.take().startswith(b"HTTP/1.1 503 ")


@on_loop
async def test_a_start_without_status_is_refused() -> None:
    """The error names what is missing, and the response can still be started."""
    table = await asked()
    with pytest.raises(ValueError, match="without status"):
        await table.call.send({"type": "http.response.start"})
    await table.call.send(START)


@on_loop
async def test_more_than_was_announced_is_refused() -> None:
    """The rest would be another response to the client."""
    table = await asked()
    await table.call.start(200, (b"content-length", b"3"))
    await table.call.body(b"ab", more=True)
    with pytest.raises(ValueError, match="Content-Length"):
        await table.call.body(b"cd")
    await table.call.returns()
    assert table.line.aborted


# -- the worker leaves --


@on_loop
async def test_a_stream_hears_that_its_client_leaves_and_may_still_send() -> None:
    """It comes to its end by itself, and the response is complete."""
    table = await asked()
    (exchange,) = table.service.exchanges
    await table.call.receive()
    await table.call.start()
    await table.call.body(b"x", more=True)
    waiting = asyncio.ensure_future(table.call.receive())
    await turn()
    assert exchange.dismiss()
    assert not exchange.dismiss()
    assert await waiting == {"type": "http.disconnect"}
    assert await table.call.receive() == {"type": "http.disconnect"}
    await table.call.body(b"bye")
    assert table.line.take().endswith(b"3\r\nbye\r\n0\r\n\r\n")
    await table.call.returns()
    assert table.counters == (1, 0, 0)


@pytest.mark.parametrize(
    "before", ["the response has not been started", "the response is complete"]
)
@on_loop
async def test_only_a_response_that_has_begun_is_dismissed(before: str) -> None:
    """One that is being made will have an end; one that is complete has had it."""
    table = await asked()
    (exchange,) = table.service.exchanges
    for message in STATES[before][0]:
        await table.call.send(message)
    assert not exchange.dismiss()
    assert (await table.call.receive())["type"] != "http.disconnect" or before.endswith("complete")


@on_loop
async def test_a_stream_that_is_dismissed_has_what_was_sent_to_it_before() -> None:
    """In order, and nobody waits for what has not come."""
    table = await asked(b"Content-Length: 10", method=b"POST")
    (exchange,) = table.service.exchanges
    await table.line.send(b"12345")
    await table.call.start()
    assert exchange.dismiss()
    assert (await table.call.receive())["body"] == b"12345"
    assert await table.call.receive() == {"type": "http.disconnect"}


@on_loop
async def test_a_stream_that_ends_because_it_was_told_to_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its response is cut all the same, or 503 if the client has seen nothing of it."""
    table = await asked()
    (exchange,) = table.service.exchanges
    await table.call.start()
    await table.call.body(b"x", more=True)
    exchange.dismiss()
    await table.call.returns()
    assert table.line.aborted
    silent = await asked()
    (exchange,) = silent.service.exchanges
    await silent.call.start()
    exchange.dismiss()
    await silent.call.returns()
    assert silent.line.take().startswith(b"HTTP/1.1 503 ")
    assert caplog.records == []


# -- time --


async def expired(table: Table) -> None:
    """Let --http-timeout pass."""
    table.line.connection.expire(table.line.connection.deadline)
    await turn()


@pytest.mark.parametrize("started", [False, True])
@on_loop
async def test_an_application_takes_too_long(
    caplog: pytest.LogCaptureFixture, *, started: bool
) -> None:
    """The client gets 503; the application hears that it has nobody to answer."""
    table = await asked(http_timeout=5)
    if started:
        await table.call.start()
    await expired(table)
    assert table.line.take().startswith(b"HTTP/1.1 503 ")
    assert "--http-timeout" in caplog.text
    assert await table.call.receive() == {"type": "http.disconnect"}
    with pytest.raises(ClientDisconnected):
        await table.call.start()
    await table.call.returns()
    await table.line.leave()
    assert table.counters == (1, 0, 0)
    assert len(table.log.lines) == 1


@on_loop
async def test_a_response_takes_too_long() -> None:
    """One that has begun is cut."""
    table = await asked(http_timeout=5)
    await table.call.start()
    await table.call.body(b"x", more=True)
    await expired(table)
    assert table.line.aborted
    with pytest.raises(ClientDisconnected):
        await table.call.body(b"y")


@on_loop
async def test_without_a_log_nothing_is_logged() -> None:
    """The access log may be off; whoever waits for the end of the response is told all the same."""
    stage = Stage()
    line = Line(service(stage))
    await line.ask()
    await stage.call.receive()
    waiting = asyncio.ensure_future(stage.call.receive())
    await turn()
    await stage.call.start()
    await stage.call.body(b"x", more=True)
    await turn()
    assert not waiting.done()
    await stage.call.body(b"y")
    assert await waiting == {"type": "http.disconnect"}
    assert line.take().endswith(b"1\r\nx\r\n1\r\ny\r\n0\r\n\r\n")
    await line.ask()
    await stage.call.start()
    await stage.call.body(b"z")
    assert line.take().endswith(b"z")
    await line.ask()
    await line.leave()
    assert await stage.call.receive() == {"type": "http.disconnect"}


@on_loop
async def test_a_scope_has_a_copy_of_the_state() -> None:
    """That the lifespan left, if it left any (ASGI lifespan specification, "Lifespan State")."""
    table = Table()
    await table.line.ask()
    assert "state" not in table.call.scope
    table.service.state = {"key": "value"}
    await Line(table.service).ask()
    assert table.call.scope["state"] == table.service.state
    assert table.call.scope["state"] is not table.service.state


# -- too many at once --


async def crowded(*lines: bytes, method: bytes = b"GET") -> tuple[Table, Line]:
    """Return a table whose request is all that may run, and a second connection that asks."""
    table = await asked(max_inflight=1)
    second = Line(table.service)
    await second.ask(b"/second", method, *lines)
    return table, second


@on_loop
async def test_beyond_max_inflight_a_request_is_turned_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """503 and when to come back, no call, no count; the connection goes on, and so does the log."""
    table, second = await crowded()
    answer = second.take()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 1\r\n" in answer.lower()
    assert b"--max-inflight" in answer
    assert "--max-inflight 1" in caplog.text
    assert table.log.lines[-1][:3] == ("GET", "/second", 503)
    assert table.counters == (1, 1, 1)
    await table.call.returns()
    await second.ask(b"/third")
    assert table.call.scope["path"] == "/third"


@on_loop
async def test_many_pipelined_requests_are_turned_away_in_order() -> None:
    """However many: none is answered from within another."""
    table = await asked(max_inflight=1)
    second = Line(table.service)
    await second.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n" * 2000)
    for _ in range(300):
        await turn()
    assert second.sent.count(b"HTTP/1.1 503 ") == 2000


@on_loop
async def test_the_body_of_a_request_that_was_turned_away_is_swallowed() -> None:
    """The connection can be used again."""
    table, second = await crowded(b"Content-Length: 3", method=b"POST")
    assert second.take().startswith(b"HTTP/1.1 503 ")
    await table.call.start()
    await table.call.body()
    await table.call.returns()
    await second.send(b"abc")
    await second.ask(b"/third")
    assert table.call.scope["path"] == "/third"


@on_loop
async def test_who_is_turned_away_costs_no_turn_of_the_loop() -> None:
    """The worker has enough to do."""
    table = await asked(max_inflight=1)
    second = Line(table.service)
    second.connection.dataReceived(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
    assert second.sent.startswith(b"HTTP/1.1 503 ")
    await second.leave()
    assert table.counters == (1, 1, 1)
    assert len(table.log.lines) == 1


# -- extensions --

TRAILED = START | {"trailers": True}
TRAILERS: dict[str, Any] = {
    "type": "http.response.trailers",
    "headers": [(b"x-sum", b"1")],
    "more_trailers": False,
}
HINT: dict[str, Any] = {"type": "http.response.early_hint", "links": [b"</a>; rel=preload"]}
OFFERED: dict[str, Any] = {"http.response.pathsend": {}, "http.response.zerocopysend": {}}
EXTENSIONS = OFFERED | {"http.response.trailers": {}, "http.response.early_hint": {}}


async def on_stream() -> tuple[Table, H2Connection]:
    """Return a table with a request on stream 1, whose application runs, and its client."""
    table = Table()
    table.line = Line(table.service, ("127.0.0.1", 1))
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
    client.send_headers(1, fields, end_stream=True)
    await table.line.send(client.data_to_send())
    client.receive_data(table.line.take())
    return table, client


async def heard(table: Table, client: H2Connection) -> list[str]:
    """Return what the client has heard, by kind of event."""
    await turn()
    return [type(event).__name__ for event in client.receive_data(table.line.take())]


@on_loop
async def test_trailers_over_http1() -> None:
    """For a client that takes them: behind the chunks, and logged with the response."""
    table = await asked(b"TE: trailers", b"Connection: TE")
    assert table.call.scope["extensions"] == OFFERED | {"http.response.trailers": {}}
    for message in (TRAILED, BODY):
        await table.call.send(message)
    assert table.log.lines == []
    await table.call.send(TRAILERS | {"more_trailers": True})
    assert not table.line.take().endswith(b"0\r\n\r\n")
    await table.call.send(TRAILERS | {"headers": [(b"x-two", b"2")]})
    assert table.line.take() == b"0\r\nx-sum: 1\r\nx-two: 2\r\n\r\n"
    assert table.log.lines == [("GET", "/path?q", 200, 1)]
    await table.call.returns()
    await table.line.ask()
    assert len(table.stage.calls) == 2


@on_loop
async def test_trailers_behind_a_length_are_left_out() -> None:
    """There is no place for them; the response is whole all the same."""
    table = await asked(b"TE: trailers", b"Connection: TE")
    await table.call.send(TRAILED | {"headers": [(b"content-length", b"2")]})
    for message in (MORE, BODY, TRAILERS):
        await table.call.send(message)
    assert table.line.take().endswith(b"\r\n\r\nxx")
    assert not table.line.closed


@on_loop
async def test_trailers_that_cannot_be_sent() -> None:
    """The application hears it, and may send others."""
    table = await asked(b"TE: trailers", b"Connection: TE")
    for message in (TRAILED, BODY):
        await table.call.send(message)
    with pytest.raises(ValueError, match="cannot stand in trailers"):
        await table.call.send(TRAILERS | {"headers": [(b"content-length", b"1")]})
    await table.call.returns()
    assert table.line.aborted


@on_loop
async def test_trailers_for_who_takes_none() -> None:
    """Without the extension in the scope the body is the end."""
    table = await asked()
    assert table.call.scope["extensions"] == OFFERED
    for message in (TRAILED, BODY):
        await table.call.send(message)
    with pytest.raises(ValueError, match="the response is complete"):
        await table.call.send(TRAILERS)


@on_loop
async def test_hints_for_who_takes_none() -> None:
    """Over HTTP/1.1 there are clients that take 103 for the response."""
    table = await asked()
    with pytest.raises(ValueError, match="the scope has no such extension"):
        await table.call.send(HINT)
    assert table.line.take() == b""


@on_loop
async def test_the_extensions_of_a_stream() -> None:
    """Hints come before the response, trailers behind it."""
    table, client = await on_stream()
    assert table.call.scope["extensions"] == EXTENSIONS
    for message in (HINT, TRAILED, HINT, MORE, BODY, TRAILERS):
        await table.call.send(message)
    assert await heard(table, client) == [
        "InformationalResponseReceived",
        "InformationalResponseReceived",
        "ResponseReceived",
        "DataReceived",
        "DataReceived",
        "TrailersReceived",
        "StreamEnded",
    ]
    assert table.log.lines == [("GET", "/", 200, 2)]
    await table.call.returns()
    await table.line.leave()


@pytest.mark.parametrize("how", ["raises", "returns", "dismissed", "expires"])
@on_loop
async def test_a_response_that_waits_for_its_trailers_is_not_complete(how: str) -> None:
    """Whatever keeps them from coming cuts it."""
    table, client = await on_stream()
    for message in (TRAILED, BODY):
        await table.call.send(message)
    (exchange,) = table.service.exchanges
    if how == "raises":
        await table.call.raises(RuntimeError())
    elif how == "expires":
        exchange.expire()  # type: ignore[attr-defined]
        await table.call.returns()
    else:
        if how == "dismissed":
            assert exchange.dismiss()
        await table.call.returns()
    assert (await heard(table, client))[-1] == "StreamReset"
    await table.line.leave()


# -- out of files: the extensions pathsend and zerocopysend --

PATH: dict[str, Any] = {"type": "http.response.pathsend"}
FILE: dict[str, Any] = {"type": "http.response.zerocopysend"}
SMALL, LARGE = 1000, 600_000


class Plain(Transport):
    """A transport of a plain socket, into which the kernel can send: both ends are real."""

    def __init__(self) -> None:
        """Connect the two."""
        super().__init__(("127.0.0.1", 1))
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.theirs.setblocking(False)
        self.limits: list[int | None] = []
        self._data = b""

    def read(self) -> None:
        """Take what is there."""
        with contextlib.suppress(BlockingIOError):
            while piece := self.theirs.recv(65536):
                self._data += piece

    def limit_unsent(self, most: int | None) -> None:
        """Note it."""
        self.limits.append(most)

    def get_extra_info(self, name: str) -> Any:
        """Return the socket."""
        return self.ours if name == "socket" else None

    def received(self) -> bytes:
        """Return what has come through the kernel, and close."""
        asyncio.get_running_loop().remove_reader(self.theirs)
        self.ours.close()
        self.read()
        self.theirs.close()
        return self._data


@pytest.fixture(params=[SMALL, LARGE])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a small file, then a large one."""
    found = tmp_path / "file"
    found.write_bytes(b"%09d\n" % 7 * (request.param // 10))
    return found


async def step() -> None:
    """Let everybody go one step: a file that is to be opened is not open yet."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    loop.call_soon(done.set_result, None)
    await done


def content(path: Path) -> bytes:
    """Return what is in the file."""
    return path.read_bytes()


async def plain(*lines: bytes, method: bytes = b"GET", reads: bool = True) -> tuple[Table, Plain]:
    """Return a table with a request over a plain socket, and its transport."""
    table, transport = Table(), Plain()
    if reads:
        asyncio.get_running_loop().add_reader(transport.theirs, transport.read)
    table.line = Line(table.service, transport=transport)
    await table.line.ask(b"/", method, *lines)
    return table, transport


def parts(sent: bytes) -> tuple[bytes, bytes]:
    """Return head and body."""
    head, _, body = sent.partition(b"\r\n\r\n")
    return head, body


@on_loop
async def test_a_path_is_sent_with_its_length(path: Path) -> None:
    """A small file leaves with its head, a large one is read in pieces, here behind a fake."""
    table = await asked()
    await table.call.start()
    await table.call.send(PATH | {"path": str(path)})
    head, body = parts(table.line.take())
    assert b"Content-Length: %d" % len(content(path)) in head
    assert body == content(path)
    assert table.log.lines == [("GET", "/path?q", 200, len(body))]
    with pytest.raises(ValueError, match="the response is complete"):
        await table.call.send(PATH | {"path": str(path)})
    await table.call.returns()
    await table.line.ask()
    assert len(table.stage.calls) == 2


@on_loop
async def test_the_kernel_sends_a_large_file(path: Path) -> None:
    """Into a plain socket; the head is written before, and the connection goes on behind."""
    table, transport = await plain()
    await table.call.start(200, (b"content-length", b"%d" % len(content(path))))
    await table.call.send(PATH | {"path": str(path)})
    await table.call.returns()
    _, body = parts(table.line.take())
    through = transport.received()
    assert body + through == content(path)
    assert bool(through) is (len(content(path)) == LARGE)
    assert transport.limits == ([0, None] if through else [])
    assert table.log.lines == [("GET", "/", 200, len(content(path)))]
    await table.line.ask()
    assert len(table.stage.calls) == 2


@on_loop
async def test_pieces_of_files_between_pieces_of_body(path: Path) -> None:
    """In chunks, each of a length that stands before it, whoever sends it."""
    table, transport = await plain()
    await table.call.start()
    await table.call.body(b"begin", more=True)
    with path.open("rb") as file:
        await table.call.send(FILE | {"file": file, "more_body": True})
        await table.call.body(b"middle", more=True)
        await table.call.send(FILE | {"file": file, "offset": 2, "count": 3})
    _, body = parts(table.line.take())
    whole, through = content(path), transport.received()
    assert body == (
        b"5\r\nbegin\r\n"
        + (b"%x\r\n" % len(whole))
        + (b"" if through else whole)
        + b"\r\n6\r\nmiddle\r\n3\r\n000\r\n0\r\n\r\n"
    )
    assert through in {b"", whole}
    assert table.log.lines == [("GET", "/", 200, 5 + len(whole) + 6 + 3)]
    await table.call.returns()


@pytest.mark.parametrize("status", [200, 204, 304])
@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
@on_loop
async def test_a_response_without_a_body(path: Path, method: bytes, status: int) -> None:
    """Has nothing of the file; that to HEAD has the length of it (RFC 9110 section 8.6)."""
    table, transport = await plain(method=method)
    await table.call.start(status)
    await table.call.send(PATH | {"path": str(path)})
    head, body = parts(table.line.take())
    assert (b"Content-Length: %d" % len(content(path)) in head) is (status == 200)
    assert (body + transport.received() == b"") is (method == b"HEAD" or status != 200)
    await table.call.returns()


@on_loop
async def test_the_length_that_an_application_gives_for_head_is_its_own(path: Path) -> None:
    """Nothing of the file is sent, so that nothing can be missing."""
    table = Table()
    await table.line.ask(b"/", b"HEAD")
    await table.call.start(200, (b"content-length", b"999999"))
    await table.call.send(PATH | {"path": str(path)})
    assert b"Content-Length: 999999" in table.line.take()
    await table.call.returns()


@on_loop
async def test_a_file_before_trailers(path: Path) -> None:
    """It is in chunks then, and the trailers end it."""
    table, transport = await plain(b"TE: trailers", b"Connection: TE")
    await table.call.send(TRAILED)
    await table.call.send(PATH | {"path": str(path)})
    await table.call.send(TRAILERS)
    _, body = parts(table.line.take())
    assert body.startswith(b"%x\r\n" % len(content(path)))
    assert body.endswith(b"\r\n0\r\nx-sum: 1\r\n\r\n")
    transport.received()
    await table.call.returns()


@on_loop
async def test_a_file_over_http2(path: Path) -> None:
    """It is read in pieces, since each of them is a frame."""
    table, client = await on_stream()
    client.increment_flow_control_window(2 * LARGE)
    client.increment_flow_control_window(2 * LARGE, 1)
    await table.line.send(client.data_to_send())
    await table.call.start()
    await table.call.send(PATH | {"path": str(path)})
    await turn()
    events = client.receive_data(table.line.take())
    body = b"".join(event.data for event in events if isinstance(event, DataReceived))
    assert body == content(path)
    await table.call.returns()
    await table.line.leave()


@on_loop
async def test_a_file_that_has_grown_is_sent_as_far_as_announced(path: Path) -> None:
    """A log file grows between the application's look at it and ours."""
    table = await asked()
    await table.call.start(200, (b"content-length", b"12"))
    await table.call.send(PATH | {"path": str(path)})
    assert parts(table.line.take())[1] == content(path)[:12]
    await table.call.returns()


@pytest.mark.parametrize(
    ("name", "length", "why"),
    [
        ("vanished", b"", "No such file or directory"),
        ("", b"", "is no regular file"),
        ("file", b"999999", "bytes, and not 999999, its Content-Length"),
    ],
)
@on_loop
async def test_a_file_that_cannot_be_read_before_the_head(
    path: Path, name: str, length: bytes, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets 500, the log one line, and the application goes on as with one who left."""
    table = await asked()
    await table.call.start(200, *([(b"content-length", length)] if length else []))
    await table.call.send(PATH | {"path": str(path.parent / name)})
    assert table.line.take().startswith(b"HTTP/1.1 500 ")
    (record,) = caplog.records
    assert record.exc_info is None
    assert record.getMessage().startswith("GET /path?q: http.response.pathsend: ")
    assert why in record.getMessage()
    with pytest.raises(ClientDisconnected):
        await table.call.body(b"more")
    await table.call.returns()
    assert table.log.lines[0][2] == 500


@on_loop
async def test_a_file_that_cannot_be_read_after_the_head(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The response is cut: nothing else tells the client that it is not whole."""
    table = await asked()
    await table.call.start()
    await table.call.body(b"begin", more=True)
    with path.open("rb") as file:
        await table.call.send(FILE | {"file": file, "offset": 0, "count": 10**6})
    assert table.line.aborted
    assert "and not 1000000" in caplog.text
    await table.call.returns()


@on_loop
async def test_a_file_that_becomes_shorter_cuts_the_response(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Bytes that were announced do not come."""
    path = tmp_path / "large"
    path.write_bytes(bytes(1_000_000))
    table, transport = await plain(reads=False)
    await table.call.start()
    sending = asyncio.ensure_future(table.call.send(PATH | {"path": str(path)}))
    while not table.line.connection.congested:
        await turn()
    os.truncate(path, 1)
    while not sending.done():
        transport.read()
        await turn()
    await sending
    assert table.line.aborted
    assert "has become shorter" in caplog.text
    assert len(transport.received()) == table.log.lines[0][3] < 1_000_000
    await table.call.returns()


@on_loop
async def test_mistakes_about_files_are_the_applications(path: Path) -> None:
    """They raise, and harm nothing."""
    table, transport = await plain()
    for message in (PATH | {"path": str(path)}, FILE | {"file": 1}):
        with pytest.raises(ValueError, match="the response has not been started"):
            await table.call.send(message)
    await table.call.start(200, (b"content-length", b"3"))
    with pytest.raises(ValueError, match="is no absolute path"):
        await table.call.send(PATH | {"path": "relative"})
    with pytest.raises(ValueError, match="is no open file"):
        await table.call.send(FILE | {"file": None})
    await table.call.body(b"a", more=True)
    with pytest.raises(ValueError, match="the response is being sent"):
        await table.call.send(PATH | {"path": str(path)})
    with path.open("rb") as file, pytest.raises(ValueError, match="more than its Content-Length"):
        await table.call.send(FILE | {"file": file})
    await table.call.body(b"bc")
    assert parts(table.line.take())[1] == b"abc"
    transport.received()
    await table.call.returns()


@on_loop
async def test_a_response_that_is_over_when_its_file_cannot_be_opened(path: Path) -> None:
    """--http-timeout has answered meanwhile: there is no second answer."""
    table = await asked()
    await table.call.start()
    missing = PATH | {"path": f"{path}.not"}
    sending = asyncio.ensure_future(table.call.send(missing))
    await step()
    (exchange,) = table.service.exchanges
    exchange.expire()  # type: ignore[attr-defined]
    await sending
    assert table.line.take().count(b"HTTP/1.1 ") == 1
    await table.call.returns()


@on_loop
async def test_who_leaves_while_a_file_is_opened(path: Path) -> None:
    """The application hears it as from any other `send`."""
    table = await asked()
    await table.call.start()
    sending = asyncio.ensure_future(table.call.send(PATH | {"path": str(path)}))
    await step()
    await table.line.leave()
    with pytest.raises(ClientDisconnected):
        await sending
    await table.call.returns()


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("http.response.push", "browsers take no pushes any more"),
        ("http.response.debug", "servers do not implement this extension"),
    ],
)
@on_loop
async def test_extensions_that_are_not_offered_are_refused(kind: str, why: str) -> None:
    """With the reason; and the response goes on."""
    table = await asked()
    with pytest.raises(ValueError, match=why):
        await table.call.send({"type": kind, "path": "/style.css", "headers": [], "info": {}})
    await table.call.start()
    with pytest.raises(ValueError, match=why):
        await table.call.send({"type": kind, "path": "/style.css", "headers": [], "info": {}})
    await table.call.body(b"x")
    assert table.line.take().endswith(b"\r\n\r\nx")
    await table.call.returns()
