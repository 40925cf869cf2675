"""A connection: who is there, what it owes, and how it ends."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from daphne_supervisor.config import Http, Http2, Proxy, Tls
from daphne_supervisor.config import WebSocket as Limits
from daphne_supervisor.worker.connection import Connection
from daphne_supervisor.worker.response import RETRY_AFTER
from tests.support.certificates import Authority
from tests.support.garbage import no_garbage
from tests.support.http2_lines import FIELDS, chosen, h2_client
from tests.support.transports import (
    HANDSHAKE,
    Line,
    Stage,
    Transport,
    deflated,
    frame,
    on_loop,
    service,
    turn,
)

if TYPE_CHECKING:
    from pathlib import Path


GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.mark.parametrize(
    ("peer", "client", "text"),
    [
        (("10.1.2.3", 99), ["10.1.2.3", 99], "10.1.2.3:99"),
        (("::1", 99, 0, 0), ["::1", 99], "[::1]:99"),
        ("", None, "None"),
    ],
)
@on_loop
async def test_the_client_is_known(peer: object, client: object, text: str) -> None:
    """To the application and to the log; behind a unix socket there is nobody to name."""
    stage = Stage()
    line = Line(service(stage), peer)
    await line.ask()
    assert stage.call.scope["client"] == client
    assert stage.call.scope["server"] == (client and ["10.0.0.1", 80])
    assert line.connection.peer.text == text


@on_loop
async def test_tls_is_known(tmp_path: Path) -> None:
    """The scope says which scheme the client has used, and with TLS what it has agreed upon."""
    authority = Authority(tmp_path)
    _, server = authority.shake(authority.credentials())
    for secure, scheme in ((False, "http"), (True, "https")):
        stage, transport = Stage(), Transport()
        transport.ssl_object = server
        await Line(service(stage), secure=secure, transport=transport).ask()
        assert stage.call.scope["scheme"] == scheme
        assert ("tls" in stage.call.scope["extensions"]) is secure


@on_loop
async def test_tls_that_somebody_else_has_spoken_is_not_described() -> None:
    """A proxy may say that it has; the scheme is all that is known then."""
    stage = Stage()
    await Line(service(stage), secure=True).ask()
    assert stage.call.scope["scheme"] == "https"
    assert "tls" not in stage.call.scope["extensions"]


@pytest.mark.parametrize(
    ("secure", "plain", "sends"),
    [(False, True, True), (True, True, False), (False, False, False)],
)
@on_loop
async def test_files_are_sent_into_plain_sockets_only(
    *, secure: bool, plain: bool, sends: bool
) -> None:
    """What TLS or a plug-in stands before has to see the bytes."""
    transport = Transport()
    if plain:
        transport.limit_unsent = lambda most: None  # type: ignore[attr-defined]  # noqa: ARG005
    line = Line(service(Stage()), secure=secure, transport=transport)
    assert line.connection.sends_files is sends


class Resumed:
    """A connection whose session has another certificate of the client's."""

    def __init__(self, connection: ssl.SSLObject, certificate: str) -> None:
        """Be `connection`, but for the `certificate`."""
        self._connection = connection
        self._certificate = certificate

    def __getattr__(self, name: str) -> Any:
        """Return what the connection has."""
        return getattr(self._connection, name)

    def getpeercert(self, *, binary_form: bool) -> bytes:
        """Return the certificate."""
        assert binary_form
        return ssl.PEM_cert_to_DER_cert(self._certificate)


@on_loop
async def test_who_is_not_to_be_believed_any_more_is_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A client whose certificate has expired may still have a session to resume."""
    caplog.set_level("INFO")
    authority = Authority(tmp_path)
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    expired = authority.issue("client.example", until=yesterday)
    tls = Tls(client_certs="optional", ca_certs=str(tmp_path / "ca.pem"))
    authority.issue()
    client = authority.client(tmp_path / "all.pem")
    _, server = authority.shake(authority.credentials(tls), client)
    transport = Transport()
    transport.ssl_object = Resumed(server, expired)
    line = Line(service(Stage()), transport=transport, secure=True)
    assert line.aborted
    assert caplog.messages == [
        (
            "192.168.1.1:54321: the certificate of its resumed session is refused:"
            " certificate has expired"
        )
    ]


@on_loop
async def test_it_is_counted_from_its_beginning_to_its_end() -> None:
    """The worker waits for every connection when it leaves: none may be forgotten."""
    served = service(Stage())
    line = Line(served)
    assert served.connections == {line.connection}
    await line.leave()
    assert served.connections == set()


@pytest.mark.parametrize("reads", [True, False])
@on_loop
async def test_what_is_lost_is_freed_at_once(*, reads: bool) -> None:
    """The collector need not come by for the connections of clients that make one a request."""
    stage = Stage()
    with no_garbage():
        line = Line(service(stage))
        await line.ask()
        if not reads:
            line.stall()
        await line.leave()
        await stage.call.returns()
        stage.calls.clear()
        del line


@pytest.mark.parametrize(("ratio", "code"), [(0, 1009), (100, 1008)])
@on_loop
async def test_of_a_bomb_nothing_waits_for_the_collector(ratio: int, code: int) -> None:
    """A megabyte that was inflated in vain would be kept until it comes by."""
    stage = Stage()
    limits = Limits(compression=True, compression_max_ratio=ratio)
    with no_garbage():
        line = Line(service(stage, websocket=limits))
        await line.send(HANDSHAKE[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
        await stage.call.send({"type": "websocket.accept"})
        line.take()
        await line.send(frame(2, deflated(bytes(30_000_000)), reserved=4))
        assert code.to_bytes(2) in line.take()
        await line.leave()
        await stage.call.returns()
        stage.calls.clear()
        del line


@on_loop
async def test_it_becomes_a_websocket() -> None:
    """And is one from then on."""
    line = Line(service(Stage()))
    assert not line.connection.is_websocket
    await line.send(HANDSHAKE)
    assert line.connection.is_websocket


class Broken(Transport):
    """A transport with bugs."""

    def write(self, data: bytes) -> None:
        """Raise."""
        raise AssertionError(data)

    def unsent(self) -> int:
        """Raise."""
        raise AssertionError


class Stuck(Transport):
    """A transport that cannot be reset."""

    def resetConnection(self) -> None:  # noqa: N802
        """Raise."""
        raise OSError


@on_loop
async def test_what_breaks_in_us_costs_one_connection(caplog: pytest.LogCaptureFixture) -> None:
    """An error of ours is logged with its traceback, and nobody is left to wait."""
    line = Line(service(Stage()), transport=Broken())
    await line.send(b"GET / HTTP/1.1\r\n\r\n")
    assert line.aborted
    assert "internal error" in caplog.text


@on_loop
async def test_what_breaks_in_us_at_the_end_costs_one_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The drain of all connections goes on behind a broken one."""
    line = Line(service(Stage()))
    line.connection.now = None  # type: ignore[assignment]
    line.connection.drain()
    assert line.aborted
    assert "internal error" in caplog.text


@on_loop
async def test_what_breaks_in_us_as_time_passes_costs_one_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The sweep over all connections goes on behind a broken one."""
    line = Line(service(Stage()), transport=Broken())
    line.connection.expire(line.connection.deadline)
    assert line.aborted
    assert "internal error" in caplog.text


@on_loop
async def test_what_breaks_in_us_as_a_client_is_judged_costs_one_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The same, where it is not the codec that breaks."""
    line = Line(service(Stage()), transport=Stuck())
    await line.ask()
    line.stall()
    line.connection.expire(line.connection.deadline)
    assert line.aborted
    assert "internal error" in caplog.text


@on_loop
async def test_what_breaks_in_us_as_a_client_catches_up_costs_one_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Who waits for the client goes on all the same."""
    stage = Stage()
    line = Line(service(stage))
    await line.send(GET + b"GET / HTTP/1.1\r\n\r\n")
    await stage.call.start()
    line.stall()
    sending = asyncio.ensure_future(stage.call.body(b"x"))
    await turn()
    line.connection.service.identity = None  # type: ignore[assignment]
    line.catch_up()
    await sending
    assert line.aborted
    assert "internal error" in caplog.text


@on_loop
async def test_what_is_put_off_is_done_when_others_had_their_turn(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And if it breaks, it costs this connection only."""
    line = Line(service(Stage()))
    done: list[str] = []
    asyncio.get_running_loop().call_soon(done.append, "others")
    line.connection.soon(lambda: done.append("own"))
    assert done == []
    await turn()
    assert done == ["others", "own"]
    line.connection.soon(lambda: done.remove("nobody"))
    await turn()
    assert line.aborted
    assert "internal error" in caplog.text


@on_loop
async def test_what_is_refused_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With status and rule, for those who wonder."""
    caplog.set_level("INFO")
    line = Line(service(Stage()))
    await line.send(b"GET / HTTP/1.1\r\n\r\n")
    assert line.take().startswith(b"HTTP/1.1 400 ")
    assert "refused 400, no Host" in caplog.text


@on_loop
async def test_what_a_codec_asks_for_is_asked_of_the_transport() -> None:
    """Each way to stop, to go on and to end."""
    line = Line(service(Stage()))
    line.connection.pause_reading()
    assert not line.reading
    line.connection.resume_reading()
    assert line.reading
    line.connection.shut()
    assert (line.transport.shut, line.closed) == (True, False)
    line.connection.abort()
    assert line.aborted


# -- a client that reads slowly --


@on_loop
async def test_who_waits_for_a_slow_client_goes_on_when_it_reads() -> None:
    """Everybody who waits; and nobody waits for a client that reads."""
    line = Line(service(Stage()))
    await line.connection.drained()
    line.stall()
    assert line.connection.congested
    waiting = [asyncio.ensure_future(line.connection.drained()) for _ in range(3)]
    await turn()
    assert not any(task.done() for task in waiting)
    line.catch_up()
    await asyncio.gather(*waiting)
    assert not line.connection.congested
    await line.connection.drained()


@on_loop
async def test_who_waits_for_a_slow_client_goes_on_when_it_leaves() -> None:
    """Now and later."""
    line = Line(service(Stage()))
    line.stall()
    waiting = asyncio.ensure_future(line.connection.drained())
    await turn()
    await line.leave()
    await waiting
    await line.connection.drained()
    assert not line.connection.congested
    assert line.connection.deadline == math.inf


@on_loop
async def test_a_client_that_takes_nothing_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """After --write-timeout seconds without a byte; one that takes some gets as long again."""
    caplog.set_level("INFO")
    stage = Stage()
    line = Line(service(stage, http=Http(write_timeout=5)))
    await line.ask()
    line.stall(100_000)
    first = line.connection.deadline
    line.transport.waiting = 99_999
    line.connection.expire(first)
    assert line.connection.deadline > first
    assert not line.aborted
    line.connection.expire(line.connection.deadline)
    assert line.transport.reset, "a FIN would wait behind what it does not take"
    assert "--write-timeout" in caplog.text


@pytest.mark.parametrize(("taken", "dropped"), [(0, True), (1, False)])
@on_loop
async def test_what_is_written_meanwhile_is_not_what_the_client_left(
    *, taken: int, dropped: bool
) -> None:
    """More may wait than before, although the client has taken some of it."""
    line = Line(service(Stage(), http=Http(write_timeout=5)))
    await line.ask()
    line.stall(100_000)
    for _ in range(2):  # what is written is counted anew each time
        line.connection.write(bytes(200))
        line.connection.write_all((bytes(100), bytes(200)))
        line.transport.waiting += 500 - taken
        line.connection.expire(line.connection.deadline)
        assert line.transport.reset is dropped


@on_loop
async def test_what_a_client_that_had_caught_up_leaves_is_counted_anew() -> None:
    """What it was sent before does not count when it falls back once more."""
    line = Line(service(Stage(), http=Http(write_timeout=5)))
    await line.ask()
    line.stall()
    line.connection.write_all((bytes(80_000), bytes(10_000)))
    line.catch_up()
    assert line.connection.write == line.transport.write, "nothing is counted for who reads"
    line.connection.write_all((b"x", b"y"))
    line.connection.write(b"z")
    line.stall(100_000)
    line.transport.waiting = 100_000
    line.connection.expire(line.connection.deadline)
    assert line.transport.reset
    assert line.sent.endswith(bytes(90_000) + b"xyz")


@on_loop
async def test_a_slow_client_s_next_request_waits_until_it_reads() -> None:
    """What it makes us keep is bounded; the codec hears when it has caught up."""
    stage = Stage()
    line = Line(service(stage))
    await line.send(GET * 2)
    await stage.call.start()
    line.stall()
    sending = asyncio.ensure_future(stage.call.body(b"x"))
    await turn()
    assert len(stage.calls) == 1
    line.catch_up()
    await sending
    await turn()
    assert len(stage.calls) == 2


@on_loop
async def test_without_a_write_timeout_a_slow_client_is_kept() -> None:
    """0 means never."""
    line = Line(service(Stage(), http=Http(write_timeout=0)))
    await line.ask()
    line.stall()
    line.connection.close()
    assert line.connection.deadline == math.inf


@on_loop
async def test_a_client_that_reads_again_is_not_watched() -> None:
    """The deadline goes with the reason."""
    line = Line(service(Stage()))
    await line.ask()
    line.stall()
    line.catch_up()
    assert line.connection.deadline == math.inf


@on_loop
async def test_a_transport_may_say_twice_that_it_goes_on() -> None:
    """Nobody waits, so nobody is woken."""
    line = Line(service(Stage()))
    line.connection.resumeProducing()
    assert not line.connection.congested


@on_loop
async def test_a_closed_connection_whose_client_takes_nothing_is_cut() -> None:
    """What is left of a response may be below every mark: it must be taken all the same."""
    stage = Stage()
    line = Line(service(stage, http=Http(write_timeout=5)))
    await line.ask(b"/", b"GET", b"Connection: close")
    line.transport.waiting = 1000
    await stage.call.start()
    await stage.call.body(b"x")
    assert line.closed
    line.connection.expire(line.connection.deadline)
    assert line.aborted


@on_loop
async def test_a_closed_connection_is_watched_until_all_is_taken() -> None:
    """Also when a client that was slow has caught up with all but the last bytes."""
    line = Line(service(Stage(), http=Http(write_timeout=5)))
    await line.ask()
    line.stall()
    line.connection.close()
    line.transport.waiting = 1000
    line.connection.resumeProducing()
    assert line.connection.deadline < math.inf
    line.connection.expire(line.connection.deadline)
    line.connection.expire(line.connection.deadline)
    assert line.aborted


@on_loop
async def test_the_transport_may_say_that_it_stops() -> None:
    """The end of the connection follows by itself."""
    line = Line(service(Stage()))
    line.connection.stopProducing()
    assert not line.aborted


# -- leaving --


@on_loop
async def test_a_connection_that_comes_while_the_worker_leaves() -> None:
    """It was accepted before, and gets a moment rather than a closed door."""
    served = service(Stage())
    calm = Line(served).connection.deadline
    served.draining = True
    line = Line(served)
    assert line.connection.deadline < calm


@on_loop
async def test_an_idle_connection_is_told_that_the_worker_leaves() -> None:
    """Its codec knows what to do."""
    line = Line(service(Stage()))
    before = line.connection.deadline
    line.connection.drain()
    assert line.connection.deadline < before


# -- limits --


@on_loop
async def test_a_connection_that_ends_is_counted_no_more() -> None:
    """By the worker's share of the pool's connections."""
    served = service(Stage())
    line = Line(served)
    assert served.share.connections == 1
    await line.leave()
    assert served.share.connections == 0


@on_loop
async def test_a_handshake_beyond_max_inflight_is_refused_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With when to come back; below the limit there is nothing to say."""
    served = service(Stage(), http=Http(max_inflight=1))
    connection = Line(served).connection
    assert connection.overload() is None
    assert caplog.text == ""
    served.in_flight = 1
    refusal = connection.overload()
    assert refusal is not None
    assert (refusal.status, refusal.headers) == (503, [RETRY_AFTER])
    assert "--max-inflight 1" in caplog.text


# -- whom to believe --


@on_loop
async def test_a_proxy_that_was_not_declared_is_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its headers are ignored, and the log names the option, not once a request."""
    proxy = Proxy(proxy_headers=True, forwarded_allow_ips=("127.0.0.1",))
    served = service(Stage(), proxy=proxy, websocket=Limits())
    for peer in (None, ""):
        line = Line(served, peer)
        await line.ask(b"/", b"GET", b"X-Forwarded-For: 10.9.8.7")
    assert caplog.text.count("--forwarded-allow-ips") == 1
    quiet = Line(served)
    await quiet.ask()
    assert caplog.text.count("--forwarded-allow-ips") == 1


@on_loop
async def test_a_handshake_of_an_undeclared_proxy_is_named_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A worker may serve nothing but WebSockets."""
    proxy = Proxy(proxy_headers=True, forwarded_allow_ips=("127.0.0.1",))
    served = service(Stage(), proxy=proxy)
    handshake = HANDSHAKE[:-2] + b"X-Forwarded-For: 10.9.8.7\r\n\r\n"
    await Line(served, ("127.0.0.1", 99)).send(handshake)
    assert caplog.text == ""
    await Line(served).send(handshake)
    assert "x-forwarded-for is ignored: its sender 192.168.1.1" in caplog.text


@on_loop
async def test_an_undeclared_proxy_behind_a_unix_socket_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """There is no address to show; the words of the option are shown instead."""
    proxy = Proxy(proxy_headers=True, forwarded_allow_ips=("127.0.0.1",))
    line = Line(service(Stage(), proxy=proxy), "")
    await line.ask(b"/", b"GET", b"X-Forwarded-For: 10.9.8.7")
    assert "on the unix socket" in caplog.text


@on_loop
async def test_the_log_shows_the_client_behind_a_proxy() -> None:
    """If the proxy is trusted and says who it is; otherwise the peer itself."""
    proxy = Proxy(proxy_headers=True, forwarded_allow_ips=("192.168.1.1",))
    stage, own = Stage(), "192.168.1.1:54321"
    for trust, lines, text in (
        (proxy, (b"X-Forwarded-For: 10.9.8.7",), "10.9.8.7:0"),
        (proxy, (), own),
        (Proxy(), (b"X-Forwarded-For: 10.9.8.7",), own),
    ):
        line = Line(service(stage, proxy=trust))
        await line.ask(b"/", b"GET", *lines)
        (exchange,) = line.connection.service.exchanges
        assert line.connection.client_text(exchange.head) == text  # type: ignore[attr-defined]


@on_loop
async def test_a_transport_is_asked_for_nothing_it_does_not_have() -> None:
    """Any Twisted transport with `unsent` will do."""
    connection = Connection(service(Stage()), "http")
    connection.makeConnection(Transport())
    connection.dataReceived(GET)
    await turn()
    assert len(connection.service.exchanges) == 1


# -- HTTP/2 --


@pytest.mark.parametrize(("protocol", "version"), [("h2", "2"), ("http/1.1", "1.1"), (None, "1.1")])
@on_loop
async def test_the_client_chooses_its_protocol(protocol: str | None, version: str) -> None:
    """With TLS by ALPN (RFC 7301)."""
    stage = Stage()
    line = chosen(service(stage), protocol)
    if version == "2":
        client = h2_client()
        client.send_headers(1, FIELDS, end_stream=True)
        await line.send(client.data_to_send())
    else:
        await line.ask()
    assert (stage.call.scope["http_version"], stage.call.scope["scheme"]) == (version, "https")
    await line.leave()
    await stage.call.returns()


@pytest.mark.parametrize(
    ("who", "peer", "spoken"),
    [
        ("trusted", ("127.0.0.1", 1), True),
        ("trusted", ("192.168.1.1", 1), False),
        ("trusted", "", True),
        ("any", ("192.168.1.1", 1), True),
        ("off", ("127.0.0.1", 1), False),
    ],
)
@pytest.mark.parametrize("way", ["at once", "upgrade"])
@on_loop
async def test_http2_without_tls(who: str, peer: Any, way: str, *, spoken: bool) -> None:
    """--h2c: for whom; others are refused, or stay with HTTP/1.1."""
    stage = Stage()
    line, client = Line(service(stage, http2=Http2(h2c=who)), peer), h2_client()
    if way == "at once":
        client.send_headers(1, FIELDS, end_stream=True)
        await line.send(client.data_to_send())
        if not spoken:
            assert b" 505 " in line.take()
            await line.leave()
            return
    else:
        await line.ask(
            b"/",
            b"GET",
            b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: h2c",
            b"HTTP2-Settings: AAMAAABk",
        )
        assert line.take().startswith(b"HTTP/1.1 101 Switching Protocols\r\n") is spoken
    assert stage.call.scope["http_version"] == ("2" if spoken else "1.1")
    await line.leave()
    await stage.call.returns()


@on_loop
async def test_what_comes_behind_an_upgrade_is_read() -> None:
    """A client may be faster than our answer."""
    stage = Stage()
    line, client = Line(service(stage), ("127.0.0.1", 1)), h2_client()
    await line.send(
        b"GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: \r\n\r\n" + client.data_to_send()
    )
    assert line.take().count(b"\0\0\0\4\1\0\0\0\0") == 1
    await line.leave()
    await stage.call.returns()


@on_loop
async def test_http2_without_tls_can_be_off_altogether() -> None:
    """--no-http2."""
    line = Line(service(Stage(), http2=Http2(enabled=False)), ("127.0.0.1", 1))
    await line.send(h2_client().data_to_send())
    assert b" 505 " in line.take()
    await line.leave()


@on_loop
async def test_a_connection_that_begins_while_the_worker_leaves() -> None:
    """It is told at once, whichever way it came to HTTP/2."""
    served = service(Stage())
    served.draining = served.lingering = True
    for line in (chosen(served), Line(served, ("127.0.0.1", 1))):
        await line.send(h2_client().data_to_send())
        assert b"\7\0\0\0\0\0\x7f\xff\xff\xff" in line.take()
        await line.leave()


@on_loop
async def test_whom_to_tell_when_websockets_leave() -> None:
    """Nobody on HTTP/1.1, the connection itself once it is one."""
    line = Line(service(Stage()))
    assert line.connection.websockets == []
    await line.send(HANDSHAKE)
    assert line.connection.websockets == [line.connection]
