"""One WebSocket against one application call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from daphne_supervisor.config import Http
from daphne_supervisor.config import WebSocket as Limits
from daphne_supervisor.worker.exchange import ClientDisconnected
from daphne_supervisor.worker.websocket_exchange import HIGH_WATER
from tests.support.transports import (
    HANDSHAKE,
    Call,
    Line,
    Records,
    Stage,
    frame,
    handshake,
    on_loop,
    service,
    turn,
)

if TYPE_CHECKING:
    from daphne_supervisor.worker.service import Service

TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9

ACCEPT: dict[str, Any] = {"type": "websocket.accept"}
SEND: dict[str, Any] = {"type": "websocket.send", "text": "x"}
SHUT: dict[str, Any] = {"type": "websocket.close"}
DENY: dict[str, Any] = {"type": "websocket.http.response.start", "status": 401}
DENIAL: dict[str, Any] = {"type": "websocket.http.response.body", "body": b"no"}
MORE = DENIAL | {"more_body": True}

#: How each state is reached, and which messages it takes.
STATES: dict[str, tuple[list[dict[str, Any]], set[str]]] = {
    "the handshake has not been answered": (
        [],
        {"websocket.accept", "websocket.close", "websocket.http.response.start"},
    ),
    "the denial waits for its body": ([DENY], {"websocket.http.response.body"}),
    "the handshake is being denied": ([DENY, MORE], {"websocket.http.response.body"}),
    "the WebSocket is open": ([ACCEPT], {"websocket.send", "websocket.close"}),
}
#: States in which there is nobody any more: whatever is sent, the application is told so.
ENDS: dict[str, list[dict[str, Any]]] = {
    "rejected": [SHUT],
    "denied": [DENY, DENIAL],
    "closed": [ACCEPT, SHUT],
}
KINDS = (
    "websocket.accept",
    "websocket.close",
    "websocket.send",
    "websocket.http.response.start",
    "websocket.http.response.body",
    "websocket.disconnect",
    "http.response.start",
    "nonsense",
)


class Table:
    """A service, a WebSocket's connection to it, and the application's call."""

    def __init__(self, http: Http | None = None, **limits: Any) -> None:
        """Connect."""
        self.log = Records()
        self.stage = Stage()
        self.service: Service = service(
            self.stage, self.log, http=http or Http(), websocket=Limits(**limits)
        )
        self.line = Line(self.service)

    @property
    def call(self) -> Call:
        """The application's call."""
        return self.stage.call

    @property
    def counters(self) -> tuple[int, int, int]:
        """Handshakes so far, WebSockets, exchanges that are left."""
        return self.service.requests, self.service.websockets, len(self.service.exchanges)

    @property
    def actions(self) -> list[str]:
        """What the access log tells of it."""
        return [line[0] for line in self.log.lines]

    async def expire(self) -> None:
        """Let the next deadline pass."""
        self.line.connection.expire(self.line.connection.deadline)
        await turn()


async def shaken(**options: Any) -> Table:
    """Return a table whose handshake waits for the application."""
    table = Table(**options)
    await table.line.send(HANDSHAKE)
    return table


async def opened(**options: Any) -> Table:
    """Return a table whose WebSocket is open."""
    table = await shaken(**options)
    assert await table.call.receive() == {"type": "websocket.connect"}
    await table.call.send(ACCEPT)
    assert table.line.take().startswith(b"HTTP/1.1 101 ")
    return table


@on_loop
async def test_who_sends_without_waiting_leaves_others_their_turn() -> None:
    """Though the client takes everything at once; a few messages cost nobody a turn."""
    table = await opened()
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 0)
    sent = 0
    while not turns and sent < 1000:
        await table.call.send({"type": "websocket.send", "text": "x"})
        sent += 1
    assert 100 < sent < 500
    assert table.line.take() == b"\x81\x01x" * sent


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", KINDS)
@on_loop
async def test_what_may_be_sent_is_a_table(state: str, kind: str) -> None:
    """Each pair of state and message: taken, or an error that names both and harms nothing."""
    table = await shaken()
    before, wanted = STATES[state]
    for message in before:
        await table.call.send(message)
    message = {"type": kind, "status": 401, "body": b"", "text": "y"}
    if kind in wanted:
        await table.call.send(message)
        return
    sent = table.line.sent
    with pytest.raises(ValueError, match=f"unexpected ASGI message '{kind}': {state}"):
        await table.call.send(message)
    assert table.line.sent == sent


@pytest.mark.parametrize("state", ENDS)
@pytest.mark.parametrize("kind", KINDS)
@on_loop
async def test_behind_the_end_nothing_may_be_sent(state: str, kind: str) -> None:
    """Every message meets the error that says that nobody is there."""
    table = await shaken()
    for message in ENDS[state]:
        await table.call.send(message)
    sent = table.line.sent
    with pytest.raises(ClientDisconnected):
        await table.call.send({"type": kind, "status": 401, "text": "y"})
    assert table.line.sent == sent


# -- the handshake --


@on_loop
async def test_a_websocket_is_accepted() -> None:
    """With a subprotocol that was offered and headers of the application's."""
    table = await shaken()
    assert table.counters == (1, 1, 1)
    scope = table.call.scope
    assert (scope["type"], scope["scheme"]) == ("websocket", "ws")
    assert scope["subprotocols"] == ["soap", "wamp"]
    await table.call.send(ACCEPT | {"subprotocol": "wamp", "headers": [(b"x-one", b"1")]})
    answer = table.line.take()
    assert b"\r\nSec-WebSocket-Protocol: wamp\r\nx-one: 1\r\n" in answer
    assert table.log.lines == [("WSCONNECTING", "/chat"), ("WSCONNECT", "/chat")]


@pytest.mark.parametrize(
    "wrong",
    [
        {"subprotocol": "mqtt"},
        {"headers": [(b"x-one", b"1\r\n")]},
        {"headers": [(b"Upgrade", b"h2c")]},
        {"headers": [("x-one", "1")]},
    ],
)
@on_loop
async def test_an_accept_that_cannot_be_sent_leaves_the_handshake_open(
    wrong: dict[str, Any],
) -> None:
    """Nothing was sent: the application may accept anew, and if it fails, the client hears."""
    table = await shaken()
    with pytest.raises(ValueError, match=r"."):
        await table.call.send(ACCEPT | wrong)
    with pytest.raises(ValueError, match="has not been answered"):
        await table.call.send(SEND)
    assert table.line.take() == b""
    await table.call.raises(ValueError())
    assert table.line.take().startswith(b"HTTP/1.1 500 ")
    assert table.line.closed
    assert table.actions == ["WSCONNECTING", "WSREJECT"]
    assert table.counters == (1, 0, 0)


@on_loop
async def test_a_websocket_is_refused() -> None:
    """`websocket.close` before the acceptance is 403 to the client."""
    table = await shaken()
    await table.call.receive()
    await table.call.send(SHUT)
    assert table.line.take().startswith(b"HTTP/1.1 403 ")
    assert table.line.closed
    assert await table.call.receive() == {
        "type": "websocket.disconnect",
        "code": 1006,
        "reason": "",
    }
    await table.call.returns()
    await table.line.leave()
    assert table.counters == (1, 0, 0)
    assert table.actions == ["WSCONNECTING", "WSREJECT"]


@on_loop
async def test_a_websocket_is_denied_with_a_response() -> None:
    """The application may say why, in pieces (ASGI extension "WebSocket Denial Response")."""
    table = await shaken()
    await table.call.send(DENY | {"headers": [(b"x-why", b"1")]})
    assert table.line.take() == b""
    await table.call.send(MORE)
    await table.call.send(MORE)
    await table.call.send(DENIAL)
    head, _, body = table.line.take().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 Unauthorized\r\nx-why: 1\r\n")
    assert body == b"2\r\nno\r\n" * 3 + b"0\r\n\r\n"
    assert table.line.closed
    await table.call.returns()
    assert table.counters == (1, 0, 0)
    assert table.actions == ["WSCONNECTING", "WSREJECT"]


@pytest.mark.parametrize(
    ("start", "body"),
    [
        ({"status": 99}, {}),
        ({"headers": [(b"content-length", b"1")]}, {}),
        ({}, {"body": "text"}),
    ],
)
@on_loop
async def test_a_denial_that_cannot_be_sent_becomes_500(
    start: dict[str, Any], body: dict[str, Any]
) -> None:
    """Never half of it is on the wire."""
    table = await shaken()
    await table.call.send(DENY | start)
    with pytest.raises((ValueError, TypeError)):
        await table.call.send(DENIAL | body)
    assert table.line.take() == b""
    await table.call.raises(RuntimeError())
    assert table.line.take().count(b"HTTP/1.1 500 ") == 1


@on_loop
async def test_a_denial_without_status_is_refused() -> None:
    """The error names what is missing."""
    table = await shaken()
    with pytest.raises(ValueError, match="without status"):
        await table.call.send({"type": "websocket.http.response.start"})


@pytest.mark.parametrize("how", ["returns", "raises", "wrong"])
@on_loop
async def test_a_denial_that_is_not_completed_is_cut(how: str) -> None:
    """Only so does the client learn that something is missing."""
    table = await shaken()
    await table.call.send(DENY)
    await table.call.send(MORE)
    if how == "wrong":
        with pytest.raises(TypeError):
            await table.call.send(DENIAL | {"body": "text"})
    await (table.call.returns() if how == "returns" else table.call.raises(RuntimeError()))
    assert table.line.aborted
    await table.line.leave()
    assert table.counters == (1, 0, 0)


@on_loop
async def test_a_client_leaves_while_it_is_denied() -> None:
    """The application hears it."""
    table = await shaken()
    await table.call.send(DENY)
    await table.call.send(MORE)
    await table.line.leave()
    with pytest.raises(ClientDisconnected):
        await table.call.send(DENIAL)
    await table.call.returns()
    assert table.counters == (1, 0, 0)


@pytest.mark.parametrize("before", [[], [DENY]])
@on_loop
async def test_an_application_that_does_not_answer_is_answered_for(
    before: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """After --websocket_connect_timeout the client gets 403, the application a disconnect."""
    table = await shaken()
    for message in before:
        await table.call.send(message)
    await table.expire()
    assert table.line.take().startswith(b"HTTP/1.1 403 ")
    assert "--websocket_connect_timeout" in caplog.text
    with pytest.raises(ClientDisconnected):
        await table.call.send(ACCEPT)
    await table.call.returns()
    assert table.counters == (1, 0, 0)


@on_loop
async def test_a_client_leaves_before_the_answer() -> None:
    """`connect` comes first, then the disconnect; nothing is written."""
    table = await shaken()
    await table.line.leave()
    assert await table.call.receive() == {"type": "websocket.connect"}
    assert (await table.call.receive())["code"] == 1006
    with pytest.raises(ClientDisconnected):
        await table.call.send(ACCEPT)
    await table.call.raises(ClientDisconnected())
    assert (table.line.take(), table.counters) == (b"", (1, 0, 0))


@on_loop
async def test_an_acceptance_while_the_worker_leaves_is_closed_at_once() -> None:
    """The log tells it in order, and the application hears the code."""
    table = await shaken()
    table.service.closing_websockets = True
    table.line.connection.drain()
    await table.call.receive()
    await table.call.send(ACCEPT)
    assert table.line.take().endswith(b"\x88\x11\x03\xf4service restart")
    assert table.actions == ["WSCONNECTING", "WSCONNECT", "WSDISCONNECT"]
    assert (await table.call.receive())["code"] == 1012


@on_loop
async def test_a_close_that_comes_with_the_handshake_is_heard() -> None:
    """Frames behind the handshake are read when it is answered."""
    table = Table()
    await table.line.send(HANDSHAKE + frame(TEXT, b"hi") + frame(CLOSE, b"\x0f\xa0"))
    await table.call.receive()
    await table.call.send(ACCEPT)
    assert await table.call.receive() == {"type": "websocket.receive", "text": "hi"}
    assert (await table.call.receive())["code"] == 4000
    assert table.actions == ["WSCONNECTING", "WSCONNECT", "WSDISCONNECT"]


# -- messages --


@on_loop
async def test_messages_arrive_in_order() -> None:
    """Text as `str`, the rest as `bytes`, empty ones too."""
    table = await opened()
    waiting = asyncio.ensure_future(table.call.receive())
    await turn()
    await table.line.send(frame(TEXT, "é".encode()) + frame(BINARY, b"\xff") + frame(TEXT))
    assert await waiting == {"type": "websocket.receive", "text": "é"}
    assert await table.call.receive() == {"type": "websocket.receive", "bytes": b"\xff"}
    assert await table.call.receive() == {"type": "websocket.receive", "text": ""}


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        ({"text": "é"}, b"\x81\x02\xc3\xa9"),
        ({"text": ""}, b"\x81\x00"),
        ({"bytes": b"\xff", "text": None}, b"\x82\x01\xff"),
        ({"bytes": bytearray(b"ab")}, b"\x82\x02ab"),
    ],
)
@on_loop
async def test_messages_are_sent(message: dict[str, Any], sent: bytes) -> None:
    """Each as one frame."""
    table = await opened()
    await table.call.send({"type": "websocket.send", **message})
    assert table.line.take() == sent


@pytest.mark.parametrize(
    "message",
    [{}, {"text": "x", "bytes": b"x"}, {"bytes": "x" * 20_000}, {"text": b"x"}, {"text": "\ud800"}],
)
@on_loop
async def test_a_message_that_cannot_be_sent_is_refused(message: dict[str, Any]) -> None:
    """With an error for the application, and not a byte for the client."""
    table = await opened()
    with pytest.raises((ValueError, TypeError, AttributeError)):
        await table.call.send({"type": "websocket.send", **message})
    assert table.line.take() == b""


@on_loop
async def test_unread_messages_stop_the_reading() -> None:
    """By their number; when the application has read half of them, it goes on."""
    table = await opened(max_queue=4)
    await table.line.send(frame(TEXT, b"1") + frame(TEXT, b"2") + frame(TEXT, b"3"))
    assert table.line.reading
    await table.line.send(b"".join(frame(TEXT, b"%d" % number) for number in range(4, 9)))
    for number in (1, 2, 3):
        assert not table.line.reading
        assert (await table.call.receive())["text"] == str(number)
    # What was received already is enough to stop it again.
    for number in (4, 5, 6, 7, 8):
        assert (await table.call.receive())["text"] == str(number)
    await turn()
    assert table.line.reading


@on_loop
async def test_an_application_that_never_waits_lets_others_have_their_turn() -> None:
    """It gets what waits, and the rest of what was received in a later turn of the loop."""
    table = await opened(max_queue=4)
    table.line.connection.dataReceived(frame(TEXT, b"x") * 1000)
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    for _ in range(5):
        assert (await table.call.receive())["text"] == "x"
    assert turns == [1]


@on_loop
async def test_a_flood_between_messages_that_wait_goes_on_when_they_are_read() -> None:
    """The turn of the others and the room for messages are waited for, both."""
    table = await opened(max_queue=1)
    table.line.connection.dataReceived(frame(PING) * 256 + frame(TEXT, b"1"))
    await turn()
    table.line.connection.dataReceived(frame(PING) * 256 + frame(TEXT, b"2"))
    await turn()
    assert not table.line.reading
    for number in (b"1", b"2"):
        assert (await table.call.receive())["text"] == number.decode()
    await turn()
    assert table.line.reading


@on_loop
async def test_no_more_is_read_of_a_flood_until_others_had_their_turn() -> None:
    """Then it goes on by itself, and the message behind it arrives."""
    table = await opened()
    table.line.connection.dataReceived(frame(PING, b"") * 1000 + frame(TEXT, b"end"))
    assert not table.line.reading
    pongs = len(table.line.take())
    assert 0 < pongs < 1000
    await turn()
    assert table.line.reading
    assert len(table.line.take()) == 2000 - pongs
    assert (await table.call.receive())["text"] == "end"


@on_loop
async def test_a_flood_that_fills_the_queue_stops_the_reading() -> None:
    """Until the application has read, not only until others had their turn."""
    table = await opened(max_queue=1)
    await table.line.send(frame(PING, b"") * 300 + frame(TEXT, b"1") + frame(TEXT, b"2"))
    assert not table.line.reading
    assert (await table.call.receive())["text"] == "1"
    assert (await table.call.receive())["text"] == "2"
    await turn()
    assert table.line.reading


@on_loop
async def test_a_flood_goes_on_while_we_close() -> None:
    """The peer's close frame stands behind it."""
    table = await opened()
    table.line.connection.dataReceived(frame(PING, b"") * 1000 + frame(CLOSE, b""))
    await table.call.send(SHUT)
    assert not table.line.closed
    assert not table.line.reading
    await turn()
    assert table.line.closed


@on_loop
async def test_large_unread_messages_stop_the_reading() -> None:
    """By their size in all."""
    table = await opened()
    await table.line.send(frame(BINARY, bytes(HIGH_WATER // 2)))
    assert table.line.reading
    await table.line.send(frame(BINARY, bytes(HIGH_WATER // 2)))
    assert not table.line.reading


@on_loop
async def test_a_peer_that_cannot_be_heard_is_not_dropped() -> None:
    """While an application reads nothing, silence is not the client's."""
    table = await opened(max_queue=1, ping_interval=20, ping_timeout=30, websocket_timeout=-1)
    await table.line.send(frame(TEXT, b"1"))
    for _ in range(5):
        await table.expire()
    assert not table.line.closed
    assert not table.line.aborted
    assert table.line.take() == b""


@on_loop
async def test_the_end_lets_the_reading_go_on() -> None:
    """The peer's close frame must be read, and what it has sent before is still delivered."""
    table = await opened(max_queue=1)
    await table.line.send(frame(TEXT, b"1"))
    await table.call.send(SHUT)
    assert table.line.reading
    assert (await table.call.receive())["text"] == "1"
    assert (await table.call.receive())["code"] == 1000


@on_loop
async def test_a_client_reads_slowly() -> None:
    """`send` waits until it has caught up."""
    table = await opened()
    table.line.stall()
    sending = asyncio.ensure_future(table.call.send(SEND))
    await turn()
    assert not sending.done()
    table.line.catch_up()
    await sending


@on_loop
async def test_a_client_leaves_while_the_application_waits_for_it_to_read() -> None:
    """Every waiting `send` ends, and says so."""
    table = await opened()
    table.line.stall()
    sending = [asyncio.ensure_future(table.call.send(SEND)) for _ in range(3)]
    await turn()
    await table.line.leave()
    ends = await asyncio.gather(*sending, return_exceptions=True)
    assert [type(end) for end in ends] == [ClientDisconnected] * 3


@on_loop
async def test_a_transport_that_is_closing_takes_nothing() -> None:
    """Its loss is not told yet, and never would be to an application that only sends."""
    table = await opened()
    table.line.transport.abortConnection()
    asyncio.get_running_loop().call_soon(table.line.connection.connectionLost)

    async def send_on() -> None:
        while True:
            await table.call.send(SEND)

    with pytest.raises(ClientDisconnected):
        await send_on()
    assert (await table.call.receive())["code"] == 1006


# -- the end --


@on_loop
async def test_the_client_closes() -> None:
    """The application hears code and reason each time it asks; sending raises."""
    table = await opened()
    waiting = asyncio.ensure_future(table.call.receive())
    await turn()
    await table.line.send(frame(CLOSE, b"\x0f\xa0bye"))
    expected = {"type": "websocket.disconnect", "code": 4000, "reason": "bye"}
    assert await waiting == expected
    assert await table.call.receive() == expected
    with pytest.raises(ClientDisconnected):
        await table.call.send(SEND)
    assert table.line.closed
    await table.call.returns()
    await table.line.leave()
    assert table.counters == (1, 0, 0)
    assert table.actions == ["WSCONNECTING", "WSCONNECT", "WSDISCONNECT"]


@on_loop
async def test_the_client_vanishes() -> None:
    """1006, once."""
    table = await opened()
    await table.line.leave()
    assert (await table.call.receive())["code"] == 1006
    await table.call.returns()
    assert table.counters == (1, 0, 0)
    assert table.actions[-1] == "WSDISCONNECT"


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        ({}, b"\x88\x02\x03\xe8"),
        ({"code": None, "reason": None}, b"\x88\x02\x03\xe8"),
        ({"code": 1013}, b"\x88\x02\x03\xf5"),
        ({"code": 4999, "reason": "bye"}, b"\x88\x05\x13\x87bye"),
    ],
)
@on_loop
async def test_the_application_closes(message: dict[str, Any], sent: bytes) -> None:
    """With its code and reason; it hears of its own close what it said."""
    table = await opened()
    await table.call.send({"type": "websocket.close", **message})
    assert table.line.take() == sent
    assert (await table.call.receive())["code"] == int.from_bytes(sent[2:4])
    await table.call.returns()
    await table.line.send(frame(CLOSE, sent[2:]))
    assert (table.line.take(), table.line.closed) == (b"", True)
    await table.line.leave()
    assert table.counters == (1, 0, 0)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2000, 5000, 65_536, "1000"])
@on_loop
async def test_a_code_that_may_not_be_sent_is_refused(code: Any) -> None:
    """It is the application's mistake; the WebSocket stays open (RFC 6455 section 7.4)."""
    table = await opened()
    with pytest.raises(ValueError, match="close code"):
        await table.call.send({"type": "websocket.close", "code": code})
    await table.call.send(SEND)
    assert table.line.take() == b"\x81\x01x"


@on_loop
async def test_both_sides_close() -> None:
    """Whoever was first is heard; the connection ends once."""
    table = await opened()
    await table.call.send(SHUT | {"code": 4001})
    await table.line.send(frame(CLOSE, b"\x0f\xa2"))
    assert (await table.call.receive())["code"] == 4001
    assert table.line.closed
    await table.line.leave()
    await table.call.returns()
    assert table.counters == (1, 0, 0)
    assert table.actions.count("WSDISCONNECT") == 1


@on_loop
async def test_an_application_that_returns_has_closed() -> None:
    """1000, as everywhere."""
    table = await opened()
    await table.call.returns()
    assert table.line.take() == b"\x88\x02\x03\xe8"
    assert table.counters == (1, 0, 0)


@pytest.mark.parametrize("error", [RuntimeError(), SystemExit(1)])
@on_loop
async def test_an_application_that_fails_is_an_internal_error(error: BaseException) -> None:
    """1011 (RFC 6455 section 7.4.1), and the worker goes on."""
    table = await opened()
    await table.call.raises(error)
    assert table.line.take() == b"\x88\x02\x03\xf3"
    assert table.counters == (1, 0, 0)


@pytest.mark.parametrize("how", ["returns", "raises"])
@on_loop
async def test_an_application_that_ends_before_its_answer(how: str) -> None:
    """The client gets 500."""
    table = await shaken()
    await (table.call.returns() if how == "returns" else table.call.raises(RuntimeError()))
    assert table.line.take().startswith(b"HTTP/1.1 500 ")
    assert table.line.closed
    assert table.counters == (1, 0, 0)


@on_loop
async def test_an_application_that_overstays_is_cancelled() -> None:
    """The counters return to zero without its help."""
    table = await opened(http=Http(application_close_timeout=0))
    await table.line.leave()
    await turn()
    assert table.counters == (1, 0, 0)


@on_loop
async def test_a_worker_that_cuts_the_call_off_tells_it_once() -> None:
    """At the end of a drain the application hears a disconnect, whatever the client does."""
    table = await opened()
    (exchange,) = table.service.exchanges
    exchange.leave()
    assert (await table.call.receive())["code"] == 1006
    await table.call.returns()
    assert table.line.take() == b"\x88\x02\x03\xe8"
    assert table.counters == (1, 0, 0)


@on_loop
async def test_without_a_log_nothing_is_logged() -> None:
    """The access log may be off."""
    stage = Stage()
    line = Line(service(stage))
    await line.send(HANDSHAKE)
    await stage.call.send(ACCEPT)
    assert line.take().startswith(b"HTTP/1.1 101 ")


# -- what is counted --


@on_loop
async def test_messages_are_counted_both_ways() -> None:
    """Text and binary alike, and nothing else."""
    table = await opened()
    assert table.service.messages == 0
    await table.line.send(frame(TEXT, b"one") + frame(BINARY, b"two"))
    assert table.service.messages == 2
    await table.call.send(SEND)
    assert table.service.messages == 3
    await table.line.send(frame(CLOSE, b"\x03\xe8"))
    assert table.service.messages == 3


@pytest.mark.parametrize("answer", [[SHUT], [DENY, DENIAL], []])
@on_loop
async def test_a_handshake_is_in_flight_until_its_call_ends(answer: list[dict[str, Any]]) -> None:
    """Whatever the application answers, or if it answers nothing."""
    table = await shaken()
    assert table.service.in_flight == 1
    for message in answer:
        await table.call.send(message)
    await table.call.returns()
    assert table.service.in_flight == 0


@on_loop
async def test_an_open_websocket_is_not_in_flight() -> None:
    """It may stay for hours: only its handshake takes a place of --max-inflight."""
    table = await opened()
    assert table.service.in_flight == 0
    await table.call.returns()
    assert table.service.in_flight == 0


@on_loop
async def test_beyond_max_inflight_a_handshake_is_turned_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """503 and when to come back; the application is not called."""
    table = await shaken(http=Http(max_inflight=1))
    second = Line(table.service)
    await second.send(HANDSHAKE)
    answer = second.take()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 1\r\n" in answer.lower()
    assert "--max-inflight 1" in caplog.text
    assert len(table.stage.calls) == 1
    await table.call.send(ACCEPT)
    third = Line(table.service)
    await third.send(HANDSHAKE)
    assert len(table.stage.calls) == 2


@on_loop
async def test_a_handshake_that_nobody_looked_at_before_is_turned_away_too() -> None:
    """No application call begins beyond the limit, and what has not begun is not counted."""
    table = await shaken(http=Http(max_inflight=1))
    counters = vars(table.service).copy()
    second = Line(table.service)
    second.connection.upgrade(handshake(), b"")
    assert second.take().startswith(b"HTTP/1.1 503 ")
    assert second.closed
    await turn()
    assert len(table.stage.calls) == 1
    for name in ("requests", "handshakes", "websockets", "in_flight"):
        assert getattr(table.service, name) == counters[name] == 1
    await second.leave()


@on_loop
async def test_a_scope_has_a_copy_of_the_state() -> None:
    """That the lifespan left, if it left any (ASGI lifespan specification, "Lifespan State")."""
    table = await shaken()
    assert "state" not in table.call.scope
    table.service.state = {"key": "value"}
    await Line(table.service).send(HANDSHAKE)
    assert table.call.scope["state"] == table.service.state
    assert table.call.scope["state"] is not table.service.state


@on_loop
async def test_the_end_does_not_take_the_others_turn_away() -> None:
    """Nothing is read before they had it, though the application has no room to wait for."""
    table = await opened(max_queue=1)
    table.line.connection.dataReceived(frame(PING) * 256 + frame(TEXT, b"1"))
    table.line.connection.dataReceived(frame(TEXT, b"2"))
    await table.call.send(SHUT)
    assert not table.line.reading
    await turn()
    assert table.line.reading
