"""HTTP/1.1 as a client sees it, byte for byte, through the real server."""

from __future__ import annotations

import email.utils
import json
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.client import Client, get
from tests.support.daphne import APPS, Daphne

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = (
    *("--max-body-size", "1000"),
    *("--max-request-line", "200"),
    *("--max-header-count", "8"),
    *("--max-header-size", "500"),
    *("--head-timeout", "1"),
    *("--http-timeout", "1"),
)


@pytest.fixture(scope="module")
def server() -> Iterator[Daphne]:
    """Return a server with defaults, that all tests of this module share."""
    with Daphne(f"{APPS}:probe") as server:
        yield server


@pytest.fixture(scope="module")
def strict() -> Iterator[Daphne]:
    """Return a server with narrow limits, that all tests of this module share."""
    with Daphne(f"{APPS}:probe", *LIMITS) as server:
        yield server


@pytest.fixture
def client(server: Daphne) -> Iterator[Client]:
    """Return a connection to the server with defaults."""
    with Client(server.port) as client:
        yield client


@pytest.fixture
def limited(strict: Daphne) -> Iterator[Client]:
    """Return a connection to the server with narrow limits."""
    with Client(strict.port) as client:
        yield client


# -- connections --


def test_a_connection_is_kept(client: Client) -> None:
    """Requests of all kinds follow each other on one connection."""
    for number in range(3):
        assert client.get("/").status == 200
        client.ask("/echo", method="POST", body=b"%d" % number)
        assert client.response().body == b"%d" % number
    client.ask("/echo", "Transfer-Encoding: chunked", method="POST")
    client.send(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
    assert client.response().body == b"onetwo"
    assert not client.get("/").closes


def test_a_client_that_wants_to_close_is_told_so(client: Client) -> None:
    """`Connection: close` is answered with the same, and the connection ends."""
    assert client.get("/", "Connection: close").closes
    assert client.rest() == b""


def test_http_1_0_ends_after_one_response_unless_asked(server: Daphne) -> None:
    """An old client gets one response; it keeps the connection only if it says keep-alive."""
    with Client(server.port) as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert client.response().status == 200
        assert client.rest() == b""
    with Client(server.port) as client:
        for _ in range(2):
            client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert client.response().values("connection") == ["keep-alive"]


def test_pipelined_requests_are_answered_in_order(client: Client) -> None:
    """Quick responses wait for the slow one in front, bodies included."""
    client.ask("/slow?0.4")
    client.ask("/echo", method="POST", body=b"second")
    client.ask("/status?200-third")
    client.ask("/stream?100")
    client.ask("/status?404-last")
    bodies = [client.response() for _ in range(5)]
    assert bodies[0].body.isdigit()
    assert [each.body for each in bodies[1:3]] == [b"second", b"third"]
    assert bodies[3].body == b"x" * 102_400
    assert (bodies[4].status, bodies[4].body) == (404, b"last")


def test_httpx_is_content(server: Daphne) -> None:
    """A client library that many use gets what it asked for, on one kept connection."""
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/").text in [str(pid) for pid in server.worker_pids()]
        assert client.post("/echo", content=iter([b"a" * 100_000, b"b"])).content[-2:] == b"ab"
        with client.stream("GET", "/stream?1024") as response:
            assert sum(map(len, response.iter_bytes())) == 1024 * 1024
        assert client.head("/").headers["content-length"] == str(len(str(server.worker_pids()[0])))


# -- 100-continue --


def test_100_continue_is_sent_when_the_application_reads(client: Client) -> None:
    """The client is asked for its body by the application's first receive."""
    client.ask("/echo", "Expect: 100-continue", "Content-Length: 4", method="POST")
    assert client.response().status == 100
    client.send(b"body")
    assert client.response().body == b"body"
    assert client.get("/").status == 200


def test_100_continue_is_not_sent_for_an_application_that_does_not_read(limited: Client) -> None:
    """Nobody asks for the body, and the first that the client hears is the end of its time."""
    limited.ask("/deaf", "Expect: 100-continue", "Content-Length: 4", method="POST")
    response = limited.response()
    assert (response.status, response.closes) == (503, True)


def test_an_early_answer_saves_the_body(client: Client) -> None:
    """Answered without a 100, the client may keep its body; the connection cannot go on."""
    client.ask("/status?403-no", "Expect: 100-continue", "Content-Length: 4", method="POST")
    response = client.response()
    assert (response.status, response.body, response.closes) == (403, b"no", True)
    assert client.rest() == b""


def test_an_early_answer_reaches_a_client_that_goes_on_sending(client: Client) -> None:
    """The answer is not lost because the server closes while a large body is on its way."""
    client.ask("/status?403-no", "Content-Length: 10000000", method="POST")
    client.stuff(2_000_000, 0.2)
    response = client.response()
    assert (response.status, response.body, response.closes) == (403, b"no", True)


# -- responses --


def test_head_is_get_without_body(client: Client) -> None:
    """The headers are those of the GET, and the next response follows at once."""
    whole = client.get("/status?200-five5")
    client.ask("/status?200-five5", method="HEAD")
    head = client.response("HEAD")
    assert [line for line in head.headers if line[0] != "date"] == [
        line for line in whole.headers if line[0] != "date"
    ]
    assert whole.values("content-length") == ["5"]
    assert client.get("/status?200-next").body == b"next"


def test_head_of_a_stream_has_no_body(client: Client) -> None:
    """What the application streams is dropped, with its framing."""
    client.ask("/stream?200", method="HEAD")
    assert client.response("HEAD").status == 200
    assert client.get("/status?200-next").body == b"next"


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_no_body(client: Client, status: int) -> None:
    """What the application sends as their body is dropped, and the next response follows."""
    response = client.get(f"/status?{status}-dropped")
    assert response.status == status
    assert response.values("transfer-encoding") == []
    assert client.get("/status?200-next").body == b"next"


def test_204_has_no_length(client: Client) -> None:
    """RFC 9110 section 8.6: a server must not send Content-Length with 204."""
    assert client.get("/status?204-").values("content-length") == []


def test_every_response_has_one_date_of_now(client: Client, limited: Client) -> None:
    """Ours and the application's responses carry the time in the format of RFC 9110."""
    limited.send(b"nonsense\r\n\r\n")
    for response in (client.get("/"), client.get("/raise"), limited.response()):
        (date,) = response.values("date")
        assert date.endswith(" GMT")
        assert abs(email.utils.parsedate_to_datetime(date).timestamp() - time.time()) < 5
        assert response.values("server") == ["daphne"]


# -- limits --


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        (413, ["POST /echo HTTP/1.1", "Host: test", "Content-Length: 1001"]),
        (414, ["GET /" + "x" * 300 + " HTTP/1.1", "Host: test"]),
        (431, ["GET / HTTP/1.1", "Host: test", "X: " + "x" * 600]),
        (431, ["GET / HTTP/1.1", "Host: test", *(f"X{number}: x" for number in range(8))]),
        (408, ["GET / HTTP/1.1", "Host: test", "X"]),
        (400, ["GET / HTTP/1.1", "Host: test", "nonsense"]),
        (501, ["BREW / HTTP/1.1", "Host: test"]),
    ],
    ids=["body", "target", "header", "headers", "head-timeout", "nonsense", "method"],
)
def test_a_request_beyond_a_limit_is_refused(
    limited: Client, status: int, lines: list[str]
) -> None:
    """The client is told by the status, and that the connection ends; then it does."""
    end = "" if status == 408 else "\r\n\r\n"
    limited.send(("\r\n".join(lines) + end).encode())
    response = limited.response()
    assert (response.status, response.closes) == (status, True)
    assert limited.rest() == b""


def test_a_chunked_body_beyond_the_limit_is_refused(limited: Client) -> None:
    """A body of unknown size is counted as it comes."""
    limited.ask("/echo", "Transfer-Encoding: chunked", method="POST")
    limited.send(b"3e9\r\n" + b"x" * 1001 + b"\r\n")
    assert limited.response().status == 413


def test_requests_at_the_limits_are_served(limited: Client) -> None:
    """A limit is the last value that is allowed."""
    limited.ask("/echo", method="POST", body=b"x" * 1000)
    assert limited.response().body == b"x" * 1000
    assert limited.get("/?" + "x" * (198 - len("GET  HTTP/1.1"))).status == 200
    assert limited.get("/", *(f"X{number}: x" for number in range(7))).status == 200


def test_an_idle_connection_is_closed_after_keep_alive() -> None:
    """Without another request the server closes in order after --keep-alive, and not before."""
    with Daphne(f"{APPS}:probe", "--keep-alive", "1") as server, Client(server.port) as client:
        client.get("/")
        begun = time.monotonic()
        assert client.rest() == b""
        assert 0.9 < time.monotonic() - begun < 5


# -- applications that are slow, or fail --


def test_http_timeout_answers_503(limited: Client, strict: Daphne) -> None:
    """With -t an application that has not answered in time is answered for, and the log says so."""
    begun = time.monotonic()
    assert limited.get("/slow?30").status == 503
    assert 0.9 < time.monotonic() - begun < 5
    assert "GET /slow?30: no response within --http-timeout" in strict.log()


def test_an_application_that_fails_before_its_response_is_a_500(
    client: Client, server: Daphne
) -> None:
    """The client gets a 500 and keeps its connection; the log has the traceback and the request."""
    response = client.get("/raise?loudly")
    assert (response.status, response.closes) == (500, False)
    assert client.get("/").status == 200
    said = server.log().partition("Exception inside application: GET /raise?loudly")[2]
    assert "in path_raise" in said
    assert "RuntimeError: deliberate" in said
    assert b"deliberate" not in response.body


def test_an_application_that_fails_in_its_response_cuts_the_connection(client: Client) -> None:
    """Half a response is not made to look whole: the connection ends at once, out of order."""
    begun = time.monotonic()
    client.ask("/break")
    assert client.head().status == 200
    assert client.piece() == b"half"
    with pytest.raises(ConnectionError):
        client.piece()
    assert time.monotonic() - begun < 5


def test_an_application_that_returns_without_a_response_is_a_500(
    client: Client, server: Daphne
) -> None:
    """The client does not wait for what will never come, and the log names the request."""
    assert client.get("/silent").status == 500
    assert "GET /silent: the application returned without a complete response" in server.log()


def _wait_for_events(server: Daphne, label: str, wanted: list[str]) -> float:
    """Ask what the application has heard until it is `wanted`; return how many seconds it took."""
    begun = time.monotonic()
    heard: list[str] = []
    with Client(server.port) as client:
        while time.monotonic() - begun < 10:
            heard = json.loads(client.get(f"/events?{label}").text)
            if heard == wanted:
                return time.monotonic() - begun
    message = f"heard {heard}, not {wanted}"
    raise AssertionError(message)


def test_an_application_hears_of_a_disconnect_promptly(server: Daphne) -> None:
    """A client that leaves is http.disconnect to a waiting application, at once and one time."""
    with Client(server.port) as client:
        client.ask("/wait?gone")
        _wait_for_events(server, "gone", ["http.request"])
    assert _wait_for_events(server, "gone", ["http.request", "http.disconnect"]) < 5


def test_a_disconnect_behind_other_requests_is_heard(server: Daphne) -> None:
    """A client may leave with requests, and a handshake, still in the queue: they never begin."""
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    with Client(server.port) as client:
        client.ask("/wait?front")
        client.ask("/wait?behind")
        client.ask("/", *upgrade, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    _wait_for_events(server, "front", ["http.request", "http.disconnect"])
    assert get(server.port, "/events?behind").body == b"[]"


def test_sending_after_a_disconnect_raises(server: Daphne) -> None:
    """An application that goes on is told by an OSError (ASGI 2.4), which is nobody's failure."""
    with Client(server.port) as client:
        client.ask("/insist?on")
    _wait_for_events(server, "on", ["ClientDisconnected"])
    assert "Exception inside application: GET /insist?on" not in server.log()


# -- kinds of applications --


def test_an_application_of_asgi_2_is_served() -> None:
    """One that is called twice, scope first, works as it is."""
    with Daphne(f"{APPS}:legacy") as server:
        assert get(server.port, "/").body == b"http"


def test_requests_have_the_state_of_the_lifespan(client: Client) -> None:
    """What the application put into its lifespan's state is in every request's scope."""
    assert json.loads(client.get("/scope").text)["state"] == {"started": "yes"}


def test_the_scope_is_what_was_sent(client: Client) -> None:
    """Path, query, root path, headers, client and server are those of the request."""
    scope = json.loads(client.get("/scope/caf%C3%A9?a=%20b", "X-One: 1", "X-One: 2").text)
    assert scope["path"] == "/scope/café"
    assert scope["raw_path"] == repr(b"/scope/caf%C3%A9")
    assert scope["query_string"] == repr(b"a=%20b")
    assert scope["root_path"] == ""
    assert scope["method"] == "GET"
    assert scope["http_version"] == "1.1"
    assert scope["scheme"] == "http"
    assert scope["headers"] == [
        [repr(b"host"), repr(b"test")],
        [repr(b"x-one"), repr(b"1")],
        [repr(b"x-one"), repr(b"2")],
    ]
    assert scope["client"] == list(client.socket.getsockname())
    assert scope["server"] == list(client.socket.getpeername())


def test_a_server_without_a_name_does_not_say_one() -> None:
    """--no-server-name leaves the Server header out."""
    with Daphne(f"{APPS}:probe", "--no-server-name", "--root-path", "/app") as server:
        response = get(server.port, "/scope")
        assert response.values("server") == []
        assert json.loads(response.text)["root_path"] == "/app"


def test_half_a_request_is_no_request(server: Daphne) -> None:
    """A client that leaves in the middle of a head disturbs nobody and starts no application."""
    with Client(server.port) as client:
        client.send(b"GET /wait?half HTTP/1.1\r\nHost: te")
    assert get(server.port, "/events?half").body == b"[]"
