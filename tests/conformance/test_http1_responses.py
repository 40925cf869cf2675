"""Responses on the wire, by section of RFC 9110 and 9112, whatever an application sends.

Each goes through a whole connection in memory and is read by h11, on a connection that has to be
ready for the next request afterwards unless it says that it closes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h11
import pytest

from tests.support import judge
from tests.support.transports import HANDSHAKE, Line, on_loop, service

if TYPE_CHECKING:
    from tests.support.judge import Answer

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = GET.replace(b"GET", b"HEAD")
OLD = b"GET / HTTP/1.0\r\n\r\n"
OLD_KEPT = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"

Headers = list[tuple[Any, Any]]


def head(status: Any, *headers: tuple[Any, Any]) -> dict[str, Any]:
    """Return the message that starts a response."""
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    """Return the message with a piece of its body."""
    return {"type": "http.response.body", "body": data, "more_body": more}


@dataclass
class Served:
    """A connection on which each request was answered with the same messages."""

    line: Line

    @property
    def raw(self) -> bytes:
        """What was sent."""
        return self.line.sent

    @property
    def ended(self) -> bool:
        """Whether the server has ended the connection, in whichever way."""
        return self.line.transport.disconnecting or self.line.transport.shut

    def answers(self, *methods: str) -> list[Answer]:
        """Return the responses to requests of `methods`."""
        return judge.read(self.raw, [(each, False) for each in methods], ended=self.ended)

    def answer(self, method: str = "GET") -> Answer:
        """Return the only response."""
        [answer] = self.answers(method)
        return answer


async def serve(request: bytes, *messages: dict[str, Any]) -> Served:
    """Send `request` to an application that reads nothing and sends `messages`."""

    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    line = Line(service(application))
    await line.send(request)
    return Served(line)


# -- content: RFC 9110 sections 6.4, 8.6, 9.3.2, 15 --


@pytest.mark.parametrize("pieces", [[body(b"hello")], [body(b"hel", more=True), body(b"lo")]])
@on_loop
async def test_an_answer_to_head_has_no_content(pieces: list[dict[str, Any]]) -> None:
    """HEAD gets no octet of the body, and the next answer begins where the head ended."""
    served = await serve(HEAD + GET, head(200, (b"content-length", b"5")), *pieces)
    first, second = served.answers("HEAD", "GET")
    assert (first.body, second.body) == (b"", b"hello")
    assert first.values(b"content-length") == second.values(b"content-length") == [b"5"]


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("headers", [[], [(b"content-length", b"5")]])
@pytest.mark.parametrize("pieces", [[body(b"hello")], [body(b"hel", more=True), body(b"lo")]])
@on_loop
async def test_some_statuses_have_no_content(
    status: int, headers: Headers, pieces: list[dict[str, Any]]
) -> None:
    """What an application sends as the body of a 204 or 304 is not sent; the connection is kept."""
    served = await serve(GET + GET, head(status, *headers), *pieces)
    assert [(each.status, each.body) for each in served.answers()] == [(status, b"")] * 2
    assert served.raw.endswith(b"\r\n\r\n")
    assert not served.ended


@on_loop
async def test_no_length_where_there_is_no_content() -> None:
    """A 204 has neither Content-Length nor Transfer-Encoding (RFC 9110 section 8.6)."""
    served = await serve(GET, head(204, (b"content-length", b"0")), body())
    answer = served.answer()
    assert answer.values(b"content-length") == answer.values(b"transfer-encoding") == []


@on_loop
async def test_a_reset_has_no_content() -> None:
    """A 205 tells of zero octets (RFC 9110 section 15.3.6), whatever the application sends."""
    served = await serve(GET + GET, head(205), body(b"hello"))
    assert [(each.status, each.body) for each in served.answers()] == [(205, b"")] * 2


# -- framing: RFC 9112 sections 6, 7 --


@on_loop
async def test_a_stream_is_chunked() -> None:
    """A body of unknown length is chunked to HTTP/1.1; an empty piece does not end it."""
    pieces = [body(b"hel", more=True), body(b"", more=True), body(b"lo", more=True), body()]
    served = await serve(GET + GET, head(200), *pieces)
    assert [each.body for each in served.answers()] == [b"hello"] * 2
    assert served.answers()[0].values(b"transfer-encoding") == [b"chunked"]
    assert not served.ended


@pytest.mark.parametrize("request_", [OLD, OLD_KEPT])
@on_loop
async def test_nothing_is_chunked_to_an_old_client(request_: bytes) -> None:
    """HTTP/1.0 knows no chunks: the body ends with the connection, and is said to."""
    served = await serve(request_, head(200), body(b"hel", more=True), body(b"lo"))
    answer = served.answer()
    assert answer.body == b"hello"
    assert answer.values(b"transfer-encoding") == []
    assert answer.options == {b"close"}
    assert served.ended


@on_loop
async def test_an_old_client_that_wants_it_is_kept() -> None:
    """HTTP/1.0 with keep-alive is kept when the length is known, and told so each time."""
    served = await serve(OLD_KEPT + OLD_KEPT, head(200), body(b"hello"))
    assert [each.options for each in served.answers()] == [{b"keep-alive"}] * 2
    assert not served.ended


@pytest.mark.parametrize(
    "headers",
    [
        [(b"transfer-encoding", b"chunked")],
        [(b"Transfer-Encoding", b"gzip, chunked")],
        [(b"transfer-encoding", b"chunked"), (b"content-length", b"5")],
        [(b"content-length", b"5"), (b"Content-Length", b"5")],
        [(b"connection", b"keep-alive, upgrade"), (b"keep-alive", b"timeout=5")],
    ],
)
@on_loop
async def test_the_server_frames_not_the_application(headers: Headers) -> None:
    """What belongs to the connection is the server's to say: framed once, and read as meant."""
    served = await serve(GET + GET, head(200, *headers), body(b"hello"))
    answers = served.answers()
    assert [each.body for each in answers] == [b"hello"] * 2
    assert answers[0].options == set()
    assert not served.ended


@pytest.mark.parametrize("pieces", [[body(b"hello!")], [body(b"hello", more=True), body(b"!")]])
@on_loop
async def test_more_than_announced_is_never_sent(pieces: list[dict[str, Any]]) -> None:
    """Octets beyond Content-Length would be the beginning of another response."""
    served = await serve(GET + GET, head(200, (b"content-length", b"5")), *pieces)
    sent, _, _ = served.raw.partition(b"hello!")
    assert sent == served.raw
    if b"200 OK" in served.raw:
        assert served.raw.count(b"HTTP/1.1") == 1
        assert served.line.aborted
    else:
        assert [each.status for each in served.answers()] == [500, 500]


@pytest.mark.parametrize("pieces", [[body(b"hell")], [body(b"he", more=True), body(b"ll")]])
@on_loop
async def test_less_than_announced_is_seen_by_the_client(pieces: list[dict[str, Any]]) -> None:
    """The connection ends, so that nobody takes the next response for the rest of this one."""
    served = await serve(GET + GET, head(200, (b"content-length", b"5")), *pieces)
    assert served.raw.count(b"HTTP/1.1") == 1
    assert served.ended
    with pytest.raises(h11.RemoteProtocolError, match="received 4 bytes, expected 5"):
        served.answers()


@pytest.mark.parametrize("value", [b"", b"+5", b"-5", b"5, 5", b"0x5", b" 5", b"5 ", b"\xb2"])
@on_loop
async def test_an_announced_length_is_a_number(value: bytes) -> None:
    """An application's Content-Length that is none does not leave the server."""
    served = await serve(GET, head(200, (b"content-length", value)), body(b"hello"))
    assert served.answer().status == 500


@on_loop
async def test_two_lengths_do_not_leave() -> None:
    """An application that announces two lengths gets 500 for its client."""
    lengths = [(b"content-length", b"5"), (b"content-length", b"6")]
    served = await serve(GET, head(200, *lengths), body(b"hello"))
    assert served.answer().status == 500


# -- header lines: RFC 9110 sections 5, 6.6.1; RFC 9112 section 5 --


@pytest.mark.parametrize(
    "value",
    [b"a\r\nX-Evil: b", b"a\nX-Evil: b", b"a\rX-Evil: b", b"a\0", b"a\r\n b", b"\r\n\r\nbody"],
)
@pytest.mark.parametrize("name", [b"x", b"date", b"server", b"location", b"set-cookie"])
@on_loop
async def test_a_value_is_one_line(name: bytes, value: bytes) -> None:
    """A value with a line end would be another header, or a body: response splitting."""
    served = await serve(GET, head(200, (name, value)), body(b"hello"))
    assert served.answer().status == 500
    assert b"Evil" not in served.raw


@pytest.mark.parametrize("octet", [1, 8, 11, 12, 27, 31, 127])
@on_loop
async def test_control_octets_do_not_leave(octet: int) -> None:
    """What RFC 9110 section 5.5 has no place for is not sent on for others to trip over."""
    served = await serve(GET, head(200, (b"x", b"a" + bytes([octet]) + b"b")), body())
    assert served.answer().status == 500


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a\r\nb", b"\xe9", b"a\0", b" a", b"(a)"])
@on_loop
async def test_a_name_is_a_token(name: bytes) -> None:
    """A name that is no token does not leave the server."""
    served = await serve(GET, head(200, (name, b"x")), body(b"hello"))
    assert served.answer().status == 500


@pytest.mark.parametrize("status", [None, "200", 20, 100, 101, 103, 199, 1000, -1])
@on_loop
async def test_a_status_is_final(status: Any) -> None:
    """An application answers with a final status of three digits; for others there is 500."""
    served = await serve(GET, head(status), body(b"hello"))
    assert served.answer().status == 500


@on_loop
async def test_the_date_is_said_once() -> None:
    """There is a Date, the application's if it sets one."""
    date = b"Tue, 15 Nov 1994 08:12:31 GMT"
    served = await serve(GET, head(200, (b"Date", date)), body())
    assert served.answer().values(b"date") == [date]


@on_loop
async def test_text_of_other_alphabets_is_passed_on() -> None:
    """Octets above 127 and tabs are allowed in a value (RFC 9110 section 5.5)."""
    served = await serve(GET, head(200, (b"x", b"caf\xe9\t\xc3\xa9")), body())
    assert served.answer().values(b"x") == [b"caf\xe9\t\xc3\xa9"]


# -- the connection: RFC 9112 section 9; RFC 9110 sections 7.8, 10.1.1 --


@on_loop
async def test_the_application_may_close() -> None:
    """`Connection: close` from an application ends the connection behind its answer."""
    served = await serve(GET + GET, head(200, (b"connection", b"close")), body(b"hello"))
    assert served.answer().options == {b"close"}
    assert served.ended


@on_loop
async def test_a_body_that_nobody_asked_for_is_not_waited_for() -> None:
    """Who answers without asking for the body closes, since it may come or not."""
    expecting = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    served = await serve(expecting, head(401), body(b"no"))
    answer = served.answer("POST")
    assert (answer.status, answer.options) == (401, {b"close"})
    assert served.ended


@on_loop
async def test_a_body_that_nobody_reads_is_not_the_next_request() -> None:
    """A short body that was not read is swallowed, and the connection goes on behind it."""
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(GET), GET)
    served = await serve(post + GET, head(200), body(b"hello"))
    assert len(served.answers("POST", "GET")) == 2
    assert not served.ended


@on_loop
async def test_a_refused_websocket_is_a_plain_answer() -> None:
    """A handshake that the application closes gets a well-formed 403."""
    served = await serve(HANDSHAKE, {"type": "websocket.close"})
    answer = served.answer()
    assert answer.status == 403
    assert answer.values(b"upgrade") == []


@pytest.mark.parametrize("value", [b"a\r\nX-Evil: b", b"a\nb", b"a\0"])
@on_loop
async def test_a_switch_is_not_split_either(value: bytes) -> None:
    """Header injection into a 101 is refused as in any other answer."""
    served = await serve(HANDSHAKE, {"type": "websocket.accept", "headers": [(b"x", value)]})
    assert b"101" not in served.raw
    assert b"Evil" not in served.raw
