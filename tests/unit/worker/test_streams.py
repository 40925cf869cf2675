"""The streams of a connection: whose they are, what runs on them, what is said of them."""

from __future__ import annotations

import pytest
from h2.events import DataReceived

from daphne_supervisor.config import Http2, Proxy
from tests.support.garbage import no_garbage
from tests.support.http2_lines import FIELDS, chosen, h2_client
from tests.support.transports import Records, Stage, frame, on_loop, service, turn


@on_loop
async def test_streams_are_answered_side_by_side() -> None:
    """Each has its application call, its client and its line in the log."""
    stage, log = Stage(), Records()
    served = service(stage, log)
    line, client = chosen(served), h2_client()
    for number in (1, 3):
        client.send_headers(number, FIELDS, end_stream=True)
    await line.send(client.data_to_send())
    first, second = stage.calls
    assert second.scope["client"] == ["192.168.1.1", 54321]
    assert set(second.scope["extensions"]) == {
        "http.response.trailers",
        "http.response.early_hint",
        "http.response.pathsend",
        "http.response.zerocopysend",
        "tls",
    }
    await second.start()
    await second.body(b"two")
    await first.start()
    await first.body(b"one")
    await turn()
    events = client.receive_data(line.take())
    bodies = [(each.stream_id, each.data) for each in events if isinstance(each, DataReceived)]
    assert bodies == [(3, b"two"), (1, b"one")]
    assert log.lines == [("GET", "/a", 200, 3)] * 2
    await first.returns()
    await second.returns()
    assert served.in_flight == 0
    await line.leave()


@on_loop
async def test_a_lost_connection_of_streams_is_freed_at_once() -> None:
    """As one of HTTP/1.1 is."""
    stage, client = Stage(), h2_client()
    client.send_headers(1, FIELDS, end_stream=True)
    with no_garbage():
        line = chosen(service(stage))
        await line.send(client.data_to_send())
        await line.leave()
        await stage.call.returns()
        stage.calls.clear()
        del line


@on_loop
async def test_a_stream_s_client_may_leave_alone() -> None:
    """Its application hears it, and who sends is told; the others go on."""
    stage = Stage()
    line, client = chosen(service(stage)), h2_client()
    for number in (1, 3):
        client.send_headers(number, FIELDS, end_stream=True)
    client.reset_stream(1)
    await line.send(client.data_to_send())
    await stage.calls[0].receive()
    assert (await stage.calls[0].receive())["type"] == "http.disconnect"
    with pytest.raises(OSError):  # noqa: PT011 - what ASGI promises
        await stage.calls[0].start()
    await stage.calls[1].start()
    await stage.calls[1].body(b"x")
    await stage.calls[0].returns()
    await stage.calls[1].returns()
    await line.leave()


@on_loop
async def test_an_undeclared_proxy_is_named_for_streams_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As for HTTP/1.1."""
    stage = Stage()
    line, client = chosen(service(stage, proxy=Proxy(proxy_headers=True))), h2_client()
    client.send_headers(1, [*FIELDS, ("x-forwarded-for", "1.2.3.4")], end_stream=True)
    await line.send(client.data_to_send())
    assert "x-forwarded-for is ignored" in caplog.text
    await line.leave()
    await stage.call.returns()


@on_loop
async def test_a_websocket_on_a_stream() -> None:
    """The same exchange; the connection says whom to tell when the worker leaves."""
    stage, log = Stage(), Records()
    served = service(stage, log)
    line, client = chosen(served), h2_client()
    client.send_headers(
        1,
        [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            *FIELDS[1:],
            ("sec-websocket-version", "13"),
        ],
    )
    await line.send(client.data_to_send())
    assert (stage.call.scope["type"], stage.call.scope["scheme"]) == ("websocket", "wss")
    await stage.call.receive()
    await stage.call.send({"type": "websocket.accept"})
    await turn()
    client.receive_data(line.take())
    client.send_data(1, frame(1, b"hello"))
    await line.send(client.data_to_send())
    assert (await stage.call.receive())["text"] == "hello"
    await stage.call.send({"type": "websocket.send", "text": "you"})
    await turn()
    (data,) = [each for each in client.receive_data(line.take()) if isinstance(each, DataReceived)]
    assert data.data == b"\x81\x03you"
    assert not line.connection.is_websocket
    (tunnel,) = line.connection.websockets
    tunnel.drain()
    await turn()
    assert b"service restart" in line.take()
    assert (await stage.call.receive())["code"] == 1012
    await stage.call.returns()
    assert log.lines[:2] == [("WSCONNECTING", "/a"), ("WSCONNECT", "/a")]
    await line.leave()
    assert served.websockets == 0


@on_loop
async def test_the_end_of_a_connection_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With its code and the rule; who is turned away is logged once."""
    caplog.set_level("INFO")
    stage = Stage()
    line = chosen(service(stage, http2=Http2(max_streams=1)))
    client = h2_client()
    for number in (1, 3, 5):
        client.send_headers(number, FIELDS, end_stream=True)
    await line.send(client.data_to_send() + b"\0\0\0\0\0\0\0\0\0")
    assert caplog.text.count("--http2-max-streams") == 1
    assert "connection ended, PROTOCOL_ERROR: DATA without a stream" in caplog.text
    assert line.transport.shut
    await line.leave()
    await stage.call.returns()


@on_loop
async def test_a_client_that_is_not_awaited_any_more_is_reset() -> None:
    """What it has not taken is not kept for it."""
    line = chosen(service(Stage()))
    await line.send(b"nonsense" * 4)
    line.connection.expire(line.connection.deadline)
    assert line.transport.reset
    await line.leave()


@on_loop
async def test_refusals_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With their rule, as for HTTP/1.1."""
    caplog.set_level("INFO")
    line, client = chosen(service(Stage())), h2_client()
    client.send_headers(1, [*FIELDS, ("content-length", "7")], end_stream=True)
    await line.send(client.data_to_send())
    assert "refused 400, Content-Length without a body" in caplog.text
    await line.leave()
