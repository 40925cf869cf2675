"""The admission of request heads, rule by rule.

Header lines come as `http1_lines` reads them: names in lower case, no blanks around values.
"""

from __future__ import annotations

import pytest

from daphne_supervisor.worker import head as head_module
from daphne_supervisor.worker.head import Head, Refused, admit, valid_host

HOST = (b"host", b"example.org")
KEY = (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")
VERSION = (b"sec-websocket-version", b"13")
UPGRADE = ((b"connection", b"keep-alive, Upgrade"), (b"upgrade", b"WebSocket"))

Line = tuple[bytes, bytes]


def get(*lines: Line, target: bytes = b"/", method: str = "GET", version: str = "1.1") -> Head:
    """Admit a request with `lines` behind its Host."""
    return admit(method, target, version, [HOST, *lines])


def refusal(
    *lines: Line, target: bytes = b"/", method: str = "GET", version: str = "1.1"
) -> Refused:
    """Return why a request with exactly `lines` is refused."""
    with pytest.raises(Refused) as caught:
        admit(method, target, version, lines)
    assert str(caught.value) == caught.value.rule
    return caught.value


def test_an_ordinary_request_is_admitted() -> None:
    """A head comes out as it went in: order and values kept."""
    head = get((b"x-one", b"1"), (b"x-one", b"2"), target=b"/a%20b/%C3%A9?q=%20")
    assert (head.method, head.version) == ("GET", "1.1")
    assert (head.path, head.raw_path, head.query) == ("/a b/é", b"/a%20b/%C3%A9", b"q=%20")
    assert head.headers == [(b"host", b"example.org"), (b"x-one", b"1"), (b"x-one", b"2")]
    assert head.values(b"x-one") == [b"1", b"2"]
    assert head.target == "/a%20b/%C3%A9?q=%20"
    assert (head.length, head.chunked, head.has_body) == (0, False, False)
    marks = (head.close, head.upgrade, head.websocket, head.expects_continue)
    assert marks == (False,) * 4
    assert head.root_path is None


def test_nobody_tunnels_through() -> None:
    """CONNECT is for proxies: 501."""
    assert refusal(HOST, target=b"example.org:443", method="CONNECT").status == 501


# -- the request target, RFC 9112 section 3.2 --


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", b""),
        (b"//a", "//a", b""),
        (b"/?", "/", b""),
        (b"/a?b?c", "/a", b"b?c"),
        (b"/%", "/%", b""),
        (b"/%ff", "/�", b""),
        (b"/a+b", "/a+b", b""),
        (b"http://example.com", "/", b""),
        (b"HTTP://example.com/a%41?x", "/aA", b"x"),
        (b"https://example.com?x", "/", b"x"),
    ],
)
def test_paths_are_decoded_once(target: bytes, path: str, query: bytes) -> None:
    """Origin and absolute form give the decoded path, and the query as it was sent."""
    head = get(target=target)
    assert (head.path, head.query) == (path, query)
    assert head.raw_path.startswith(b"/")


def test_the_asterisk_is_for_options() -> None:
    """`OPTIONS *` asks about the server; `*` with another method is no path."""
    head = get(target=b"*", method="OPTIONS")
    assert (head.path, head.raw_path, head.query, head.target) == ("*", b"*", b"", "*")
    assert refusal(HOST, target=b"*").status == 400
    assert refusal(HOST, target=b"x", method="OPTIONS").status == 400


@pytest.mark.parametrize(
    "target",
    [
        b"a",
        b"",
        b"example.org:80",
        b"ftp://example.org/",
        b"http://",
        b"http:///path",
        b"http://:80/",
        b"http://?x",
        b"http://user@example.org/",
        b"http://user:word@example.org/",
        b"http://exa mple.org/",
        b"http://[::1/",
        b"http://a\\b/",
        b"/a#b",
        b"http://example.org/#b",
        b"http://example.org/a b",
        b"/a b",
        b"/a\x00",
        b"/a\x7f",
        b"/\xc3\xa9",
        b"/a\r\nX: y",
    ],
)
def test_targets_that_are_none_are_refused(target: bytes) -> None:
    """No other form, no bytes that must be encoded, no fragment, and no URL without a host."""
    assert refusal(HOST, target=target).status == 400


def test_the_authority_of_a_url_stands_for_host() -> None:
    """An absolute target's host replaces Host, so that everybody reads the same one (3.2.2)."""
    head = admit("GET", b"http://a.example:8000/x", "1.1", [(b"x", b"y"), HOST])
    assert head.headers == [(b"host", b"a.example:8000"), (b"x", b"y")]
    assert admit("GET", b"http://a/", "1.0", []).headers == [(b"host", b"a")]
    assert refusal(target=b"http://a.example/").rule.startswith("no Host")


# -- Host, RFC 9112 section 3.2 and RFC 9110 section 7.2 --


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"example.org",
        b"example.org:8000",
        b"example.org:",
        b"127.0.0.1",
        b"[::1]:80",
        b"[::ffff:1.2.3.4]",
        b"my_service",
        b"a%20b",
        b"a" * 255 + b":65535",
    ],
)
def test_hosts_are_hosts(value: bytes) -> None:
    """Names, addresses and ports are taken, also an empty Host, which the RFC provides for."""
    assert valid_host(value)
    assert admit("GET", b"/", "1.1", [(b"host", value)]).headers == [(b"host", value)]


@pytest.mark.parametrize(
    "value",
    [
        b"a b",
        b"a/b",
        b"a,b/",
        b"user@host",
        b"a#b",
        b"a?b",
        b"a\\b",
        b"[::1",
        b"::1",
        b"[::g]",
        b"[1::2::3]",
        b"[1.2.3.4]",
        b"a:b",
        b"a:123456",
        b"a:80:80",
        b"\xff",
        b"a\n",
        b'"a"',
        b"a" * 256 + b":65535",
    ],
)
def test_what_is_no_host_is_refused(value: bytes) -> None:
    """Applications build URLs from Host; nothing else gets into them."""
    assert not valid_host(value)
    assert refusal((b"host", value)).status == 400


def test_there_is_one_host() -> None:
    """None is refused in HTTP/1.1, two always, even when they agree."""
    assert refusal().rule.startswith("no Host")
    assert admit("GET", b"/", "1.0", []).headers == []
    for version in ("1.0", "1.1"):
        assert refusal(HOST, (b"host", b"example.org"), version=version).rule.startswith("more")


# -- the length of the body, RFC 9110 section 8.6 and RFC 9112 section 6 --


@pytest.mark.parametrize(
    ("value", "length"),
    [(b"0", 0), (b"7", 7), (b"007", 7), (b"9223372036854775807", 2**63 - 1)],
)
def test_content_length_is_a_number(value: bytes, length: int) -> None:
    """Digits are a length, also behind noughts."""
    head = get((b"content-length", value))
    assert head.length == length
    assert head.has_body is bool(length)


@pytest.mark.parametrize(
    "value",
    [b"", b"+7", b"-7", b"7.0", b"0x7", b"7 7", b"7,7", b"7, 7", b"1_0", b"\xb2", b"1" * 20],
)
def test_content_length_is_nothing_else(value: bytes) -> None:
    """Two servers that read a length differently see different requests, so it is refused."""
    assert refusal(HOST, (b"content-length", value)).status == 400


def test_there_is_one_content_length() -> None:
    """A second one is refused, even when it agrees."""
    lines = [(b"content-length", b"7"), (b"content-length", b"7")]
    assert refusal(HOST, *lines).rule.startswith("more than one Content-Length")


def test_chunked_has_no_length() -> None:
    """A chunked body is one of unknown length."""
    head = get((b"transfer-encoding", b"CHUNKED"))
    assert (head.chunked, head.length, head.has_body) == (True, None, True)


@pytest.mark.parametrize(
    "values", [[b"gzip, chunked"], [b"gzip,CHUNKED"], [b"gzip", b"chunked"], [b"identity, chunked"]]
)
def test_no_other_coding_is_understood(values: list[bytes]) -> None:
    """One that cannot be read gets 501 (RFC 9112 section 6.1), on however many lines it is said."""
    lines = [(b"transfer-encoding", value) for value in values]
    reason = refusal(HOST, *lines)
    assert (reason.status, reason.rule[:27]) == (501, "Transfer-Encoding other tha")


@pytest.mark.parametrize(
    "values",
    [
        [b"gzip"],
        [b""],
        [b"xchunked"],
        [b"chunked, gzip"],
        [b"chunked", b"gzip"],
        [b"chunked,"],
        [b"\x0bchunked"],
        [b"chunked;q=1"],
        [b"chunked, chunked"],
        [b"chunked", b"chunked"],
        [b"chunked, gzip, chunked"],
    ],
)
def test_a_body_without_an_end_is_refused(values: list[bytes]) -> None:
    """What does not end with chunked, said once, ends nowhere (RFC 9112 section 6.3)."""
    lines = [(b"transfer-encoding", value) for value in values]
    reason = refusal(HOST, *lines)
    assert (reason.status, reason.rule[:25]) == (400, "Transfer-Encoding without")


@pytest.mark.parametrize("reverse", [False, True])
def test_two_framings_are_refused(*, reverse: bool) -> None:
    """Content-Length beside Transfer-Encoding is how requests are smuggled: 400."""
    lines = [(b"content-length", b"7"), (b"transfer-encoding", b"chunked")]
    reason = refusal(HOST, *(reversed(lines) if reverse else lines))
    assert reason.status == 400
    assert reason.rule.startswith("Content-Length beside")


def test_an_old_client_cannot_chunk() -> None:
    """Transfer-Encoding in HTTP/1.0 is faulty framing (RFC 9112 section 6.1)."""
    assert refusal(HOST, (b"transfer-encoding", b"chunked"), version="1.0").status == 400


# -- the other steering headers --


def test_what_steers_is_still_a_header() -> None:
    """Applications see all that the client has sent, also what the server acts upon."""
    lines = [
        (b"connection", b"keep-alive, upgrade"),
        (b"upgrade", b"h2c"),
        (b"expect", b"100-continue"),
    ]
    for framing in ((b"content-length", b"7"), (b"transfer-encoding", b"chunked")):
        assert get(*lines, framing).headers == [(b"host", b"example.org"), *lines, framing]


@pytest.mark.parametrize(
    ("version", "value", "close"),
    [
        ("1.1", None, False),
        ("1.1", b"close", True),
        ("1.1", b"Keep-Alive , CLOSE", True),
        ("1.1", b"closed", False),
        ("1.0", None, True),
        ("1.0", b"Keep-Alive", False),
        ("1.0", b"x,\tkeep-alive", False),
        ("1.0", b"keep-alive, close", True),
    ],
)
def test_who_closes(version: str, value: bytes | None, *, close: bool) -> None:
    """`close` always ends it, keep-alive keeps HTTP/1.0, and else the version decides (9.3)."""
    lines = [] if value is None else [(b"connection", value)]
    assert get(*lines, version=version).close is close


def test_names_with_an_underscore_are_dropped() -> None:
    """`X_Forwarded_For` must not pass for `X-Forwarded-For` behind CGI's spelling."""
    head = get((b"x_forwarded-for", b"1.2.3.4"), (b"content_length", b"x"), (b"_", b""))
    assert head.headers == [(b"host", b"example.org")]
    assert head.length == 0
    assert refusal((b"ho_st", b"a")).rule.startswith("no Host")


def test_the_only_expectation_is_100_continue() -> None:
    """100-continue is noted from HTTP/1.1 clients, another expectation gets 417 (10.1.1)."""
    assert get((b"expect", b"100-Continue")).expects_continue
    assert not get((b"expect", b"100-continue"), version="1.0").expects_continue
    assert refusal(HOST, (b"expect", b"200-ok")).status == 417


def test_the_root_path_is_no_header() -> None:
    """Daphne-Root-Path speaks to the server: an application never sees it among the headers."""
    head = get((b"daphne-root-path", b"/app"))
    assert head.root_path == b"/app"
    assert head.headers == [(b"host", b"example.org")]


# -- the WebSocket handshake, RFC 6455 section 4.2.1 --


def test_a_handshake_is_recognised() -> None:
    """A complete handshake asks for a WebSocket, whatever else it offers."""
    assert get(*UPGRADE, KEY, VERSION).websocket
    both = ((b"connection", b"upgrade"), (b"upgrade", b"h2c"), (b"upgrade", b"foo, websocket"))
    assert get(*both, KEY, VERSION).websocket


def test_what_asks_for_no_websocket_is_a_request() -> None:
    """Without both headers, with another protocol or from HTTP/1.0 it is an ordinary request."""
    assert not get(UPGRADE[0], KEY, VERSION).websocket
    assert not get((b"connection", b"keep-alive, x"), UPGRADE[1], KEY, VERSION).websocket
    assert not get(UPGRADE[1], KEY, VERSION).websocket
    assert not get(UPGRADE[0], (b"upgrade", b"h2c"), method="POST").websocket
    assert not get(*UPGRADE, KEY, VERSION, version="1.0").websocket


def test_a_handshake_is_a_get() -> None:
    """A handshake by POST is refused."""
    reason = refusal(HOST, *UPGRADE, KEY, VERSION, method="POST")
    assert (reason.status, reason.headers) == (400, [])


@pytest.mark.parametrize("versions", [[], [b"8"], [b"13, 8"], [b"13", b"13"], [b""]], ids=repr)
def test_another_version_learns_ours(versions: list[bytes]) -> None:
    """426 names the version that is spoken, and the protocol, as both RFCs ask."""
    lines = [(b"sec-websocket-version", version) for version in versions]
    reason = refusal(HOST, *UPGRADE, KEY, *lines)
    assert reason.status == 426
    assert reason.headers == [(b"Sec-WebSocket-Version", b"13"), (b"Upgrade", b"websocket")]


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [b""],
        [b"short"],
        [b"dGhlIHNhbXBsZSBub25jZQ="],
        [b"dGhlIHNhbXBsZSBub25jZ!=="],
        [KEY[1], KEY[1]],
    ],
    ids=repr,
)
def test_a_handshake_has_one_key(keys: list[bytes]) -> None:
    """The key is one nonce of 16 bytes in base64."""
    lines = [(b"sec-websocket-key", key) for key in keys]
    assert refusal(HOST, *UPGRADE, VERSION, *lines).status == 400


@pytest.mark.parametrize("offer", [b"", b"x", b"permessage-deflate; a=b, foo;c", b'x;y="z"'])
def test_a_handshake_may_offer_extensions(offer: bytes) -> None:
    """Any, also those that nobody knows (RFC 6455 section 9.1)."""
    assert get(*UPGRADE, KEY, VERSION, (b"sec-websocket-extensions", offer)).websocket


@pytest.mark.parametrize("offer", [b"x y", b";", b"x;=", b'x;y="z'])
def test_what_offers_no_extensions_is_no_handshake(offer: bytes) -> None:
    """RFC 6455 section 9.1 has the connection failed, rather than the extension left out."""
    reason = refusal(HOST, *UPGRADE, KEY, VERSION, (b"sec-websocket-extensions", offer))
    assert reason.status == 400
    assert reason.rule.startswith("Sec-WebSocket-Extensions")


# -- what is remembered --


def test_known_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that makes up names fills no memory, and gets nothing past the rules by it."""
    monkeypatch.setattr(head_module, "_names", {})
    monkeypatch.setattr(head_module, "_MAX_NAMES", 2)
    lines = [(b"x-%d" % number, b"") for number in range(4)]
    for _ in range(2):
        assert admit("GET", b"/", "1.0", [*lines, (b"a_b", b""), HOST]).headers == [*lines, HOST]
    assert len(head_module._names) == 2
    assert refusal(*lines, HOST, HOST).rule.startswith("more than one Host")


def test_long_names_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor long targets: what is kept for the next request has its bounds."""
    monkeypatch.setattr(head_module, "_names", {})
    lines = [(b"x" * 64, b""), (b"x" * 65, b"")]
    target = b"/" + b"a" * head_module._SHORT
    kept = head_module._split.cache_info().currsize
    head = admit("GET", target, "1.0", lines)
    assert (head.headers, head.raw_path) == (lines, target)
    assert list(head_module._names) == [b"x" * 64]
    assert head_module._split.cache_info().currsize == kept


def test_one_head_does_not_change_another() -> None:
    """What was read once is read again as it was."""
    lines = [HOST, (b"transfer-encoding", b"chunked"), (b"connection", b"close")]
    first = admit("POST", b"/a%20b?c", "1.1", lines)
    first.headers.clear()
    second = admit("POST", b"/a%20b?c", "1.1", lines)
    assert (second.headers, second.codings, second.close) == (lines, [b"chunked"], True)
    assert (second.path, second.raw_path, second.query) == ("/a b", b"/a%20b", b"c")
    plain = admit("GET", b"/", "1.1", [HOST])
    assert (plain.codings, plain.close, plain.chunked, plain.length) == ((), False, False, 0)


# -- what asks for more than a response --


@pytest.mark.parametrize(
    ("version", "value", "extensions"),
    [
        ("1.1", b"trailers", ("http.response.trailers",)),
        ("1.1", b"gzip, Trailers", ("http.response.trailers",)),
        ("1.1", b"gzip", ()),
        ("1.0", b"trailers", ()),
    ],
)
def test_a_client_may_take_trailers(version: str, value: bytes, extensions: tuple[str]) -> None:
    """It says so, and HTTP/1.1 has a place for them (RFC 9110 section 10.1.4)."""
    head = admit("GET", b"/", version, [(b"host", b"a"), (b"te", value)])
    assert head.extensions == extensions
    assert head.headers[-1] == (b"te", value)


@pytest.mark.parametrize(
    ("lines", "asks"),
    [
        ([], True),
        ([(b"content-length", b"0")], True),
        ([(b"content-length", b"1")], False),
        ([(b"http2-settings", b"")], False),
        ([(b"upgrade", b"websocket")], None),
    ],
)
def test_a_client_may_ask_for_http2(lines: list[tuple[bytes, bytes]], *, asks: bool | None) -> None:
    """With its settings, which are bound to the connection, and without a body."""
    given = [
        (b"host", b"a"),
        (b"connection", b"Upgrade, HTTP2-Settings"),
        (b"upgrade", b"h2c"),
        (b"http2-settings", b"AAMAAABk"),
        *lines,
    ]
    if asks is None:
        with pytest.raises(Refused):
            admit("GET", b"/", "1.1", given)
        return
    assert (admit("GET", b"/", "1.1", given).h2c == b"AAMAAABk") is asks


@pytest.mark.parametrize(
    ("connection", "upgrade"), [(b"upgrade", b"h2c"), (b"upgrade, http2-settings", b"other")]
)
def test_half_a_wish_for_http2_is_none(connection: bytes, upgrade: bytes) -> None:
    """RFC 7540 section 3.2.1."""
    lines = [(b"host", b"a"), (b"connection", connection), (b"upgrade", upgrade)]
    assert admit("GET", b"/", "1.1", [*lines, (b"http2-settings", b"")]).h2c is None
