"""The scopes of the ASGI specification, and whom to believe about the client."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from daphne_supervisor.config import Proxy
from daphne_supervisor.worker.head import Head, admit
from daphne_supervisor.worker.scope import (
    Peer,
    Proxies,
    address_text,
    http_scope,
    subprotocols,
    websocket_scope,
)

CLIENT = ("10.0.0.9", 4711)
SERVER = ("10.0.0.1", 80)
OFFERED: dict[str, dict[str, Any]] = {
    "http.response.pathsend": {},
    "http.response.zerocopysend": {},
}


def head(*lines: tuple[bytes, bytes], target: bytes = b"/a%20b?c=d") -> Head:
    """Return an admitted head with `lines` and no others but Host."""
    return admit("GET", target, "1.1", [(b"host", b"example.org"), *lines])


def forwarded(*values: bytes) -> Head:
    """Return a head with one X-Forwarded-For line for each of `values`."""
    return head(*((b"x-forwarded-for", value) for value in values))


def proxies(*allowed: str, enabled: bool = True) -> Proxies:
    """Return the trust in `allowed`, the standard when there is none."""
    if not allowed:
        return Proxies(Proxy(proxy_headers=enabled))
    return Proxies(Proxy(proxy_headers=enabled, forwarded_allow_ips=allowed))


def peer(*, trusted: bool = True, secure: bool = False) -> Peer:
    """Return the ends of a TCP connection."""
    ends = Peer(CLIENT, SERVER, "https" if secure else "http")
    ends.trusted = trusted
    return ends


# -- scopes --


@pytest.mark.parametrize("scope", [http_scope, websocket_scope])
def test_what_is_known_of_tls_is_an_extension(scope: Any) -> None:
    """For TLS only, and each request may do with it what it likes."""
    ends = peer()
    assert "tls" not in scope(head(), ends, proxies(), "")["extensions"]
    ends.tls = {"tls_version": 0x0304}
    first, second = (scope(head(), ends, proxies(), "")["extensions"]["tls"] for _ in range(2))
    assert first == second == ends.tls
    assert first is not second


def test_the_http_scope_has_every_key() -> None:
    """The scope is that of the ASGI HTTP specification 2.5, with lists for addresses."""
    request = head((b"x-y", b"z"))
    assert http_scope(request, peer(trusted=False), proxies(), "/root") == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"c=d",
        "root_path": "/root",
        "headers": [(b"host", b"example.org"), (b"x-y", b"z")],
        "client": ["10.0.0.9", 4711],
        "server": ["10.0.0.1", 80],
        "extensions": OFFERED,
    }


@pytest.mark.parametrize("secure", [False, True])
def test_a_scope_is_one_call_s_own(*, secure: bool) -> None:
    """What middleware adds to it, the next calls do not see, though all have the same head."""
    request, ends = head(), peer(secure=secure)
    if secure:
        ends.tls = {"cipher_suite": 1}
    for _ in range(4):
        scope = http_scope(request, ends, proxies(), "")
        assert scope["headers"] == request.headers == [(b"host", b"example.org")]
        assert (scope["client"], scope["server"]) == (list(CLIENT), list(SERVER))
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
        known = {"tls": {"cipher_suite": 1}} if secure else {}
        assert scope["extensions"] == OFFERED | known
        scope["path"] = "/elsewhere"
        for name in ("asgi", "headers", "client", "server"):
            scope[name].clear()
        scope["extensions"].get("tls", {}).clear()
        scope["extensions"].clear()


def test_another_head_has_another_scope() -> None:
    """And the first one has its own again, also on a unix socket, which has no ends."""
    ends = Peer(None, None, "http")
    ends.trusted = True
    one, other = forwarded(b"9.9.9.9"), head((b"te", b"trailers"))
    for request, extensions in 3 * [
        (one, []),
        (one, []),
        (one, []),
        (other, ["http.response.trailers"]),
    ]:
        scope = http_scope(request, ends, proxies(), "")
        assert scope["headers"] == request.headers
        assert scope["client"] == (["9.9.9.9", 0] if request is one else None)
        assert scope["server"] is None
        assert scope["extensions"] == OFFERED | {key: {} for key in extensions}


def test_a_head_that_others_send_too_says_of_each_what_is_true_of_it() -> None:
    """Whoever came before with the same bytes: each has its own ends, and is believed or not."""

    def request() -> Head:
        head_ = head((b"x-forwarded-for", b"9.9.9.9"), (b"x-forwarded-proto", b"https"))
        head_.root_path = b"/mounted"
        return head_

    secured = Peer(("10.2.2.2", 3), SERVER, "https")
    secured.tls = {"cipher_suite": 1}
    nobody = Peer(None, None, "http")
    nobody.trusted = True
    ends = [peer(), peer(trusted=False), peer(secure=True), secured, nobody]
    shared = request()
    for one, other in itertools.product(ends, ends):
        for who in (one, other):
            scope = http_scope(shared, who, proxies(), "/root")
            assert scope == http_scope(request(), who, proxies(), "/root")
            for value in (*scope["extensions"].values(), scope["client"] or [], scope["headers"]):
                value.clear()


def test_the_websocket_scope_has_every_key() -> None:
    """A WebSocket has its own type, schemes, subprotocols and extension, and no method."""
    scope = websocket_scope(head(), peer(), proxies(), "")
    assert (scope["type"], scope["scheme"], scope["subprotocols"]) == ("websocket", "ws", [])
    assert scope["extensions"] == {"websocket.http.response": {}}
    assert "method" not in scope
    assert websocket_scope(head(), peer(secure=True), proxies(), "")["scheme"] == "wss"
    assert http_scope(head(), peer(secure=True), proxies(), "")["scheme"] == "https"


def test_a_unix_socket_has_no_addresses() -> None:
    """Neither end of a unix socket has a host and a port."""
    nobody = Peer(None, None, "http")
    scope = http_scope(head(), nobody, proxies(), "")
    assert (scope["client"], scope["server"], nobody.text) == (None, None, "None")


def test_addresses_are_written_for_the_log() -> None:
    """An IPv6 address is bracketed, or nobody could tell its port."""
    assert peer().text == "10.0.0.9:4711"
    assert address_text(["::1", 80]) == "[::1]:80"
    assert address_text(None) == "None"


def test_subprotocols_are_read_from_every_line() -> None:
    """The client's order is kept, empty elements are skipped (RFC 6455 section 4.1)."""
    name = b"sec-websocket-protocol"
    offer = head((name, b"chat, superchat"), (name, b" ,json,"))
    assert subprotocols(offer) == ["chat", "superchat", "json"]
    assert subprotocols(head()) == []


# -- whom to believe --


@pytest.mark.parametrize(
    ("allowed", "host", "trusted"),
    [
        ((), "127.0.0.1", True),
        ((), "::1", True),
        ((), "::ffff:127.0.0.1", True),
        ((), None, True),
        ((), "127.0.0.2", False),
        (("10.0.0.0/8",), "10.255.0.1", True),
        (("10.0.0.0/8",), "11.0.0.1", False),
        (("10.0.0.0/8",), "::1", False),
        (("10.0.0.0/8",), None, False),
        (("10.0.0.1/8",), "10.2.3.4", True),
        (("fd00::/8",), "fd00::1", True),
        (("unix",), None, True),
        (("unix",), "127.0.0.1", False),
        (("*",), "203.0.113.7", True),
        (("*",), None, True),
        (("*",), "no address", False),
    ],
)
def test_peers_are_trusted_by_address(
    allowed: tuple[str, ...], host: str | None, *, trusted: bool
) -> None:
    """Addresses, networks, `unix` and `*` mean what they say; loopback and unix are standard."""
    assert proxies(*allowed).trusts(host) is trusted


@pytest.mark.parametrize(
    ("values", "client"),
    [
        ([], None),
        ([b"203.0.113.7"], "203.0.113.7"),
        ([b"6.6.6.6, 203.0.113.7"], "203.0.113.7"),
        ([b"6.6.6.6, 203.0.113.7, 10.1.1.1,10.2.2.2"], "203.0.113.7"),
        ([b"6.6.6.6", b"203.0.113.7", b"10.1.1.1"], "203.0.113.7"),
        ([b"203.0.113.7, 6.6.6.6"], "6.6.6.6"),
        ([b"10.3.3.3, 10.1.1.1"], "10.3.3.3"),
        ([b"203.0.113.7:1234"], "203.0.113.7"),
        ([b"2001:db8::1"], "2001:db8::1"),
        ([b"[2001:db8::1]"], "2001:db8::1"),
        ([b'"[2001:db8::1]:47011"'], "2001:db8::1"),
        ([b"::ffff:203.0.113.7"], "203.0.113.7"),
        ([b"6.6.6.6, ::ffff:10.1.1.1"], "6.6.6.6"),
        ([b""], None),
        ([b"unknown"], None),
        ([b"203.0.113.7,"], None),
        ([b"6.6.6.6, unknown, 10.1.1.1"], "10.1.1.1"),
        ([b"6.6.6.6, 10.1.1.256"], None),
        ([b"6.6.6.6, \xb2.1.1.1"], None),
        ([b"6.6.6.6, <script>"], None),
    ],
)
def test_the_client_is_the_last_that_nobody_could_forge(
    values: list[bytes], client: str | None
) -> None:
    """From the right over all lines: past our proxies, to the first stranger, and no further.

    An entry that is no address ends the walk: what stands left of it is hearsay.
    """
    named = proxies("10.0.0.0/8").client(forwarded(*values))
    assert named == (None if client is None else [client, 0])


def test_everybody_trusted_means_the_leftmost() -> None:
    """With `*` the whole list is believed, as whoever writes it asked for."""
    assert proxies("*").client(forwarded(b"6.6.6.6, 203.0.113.7")) == ["6.6.6.6", 0]


@pytest.mark.parametrize(
    ("ports", "port"),
    [
        ([b"443"], 443),
        ([b"1", b"2"], 2),
        ([b"1", b"x"], 1),
        ([b"65535"], 65535),
        ([b"65536"], 0),
        ([b""], 0),
        ([b"-1"], 0),
        ([b"1, 2"], 0),
        ([b"\xb2"], 0),
        ([b"9" * 5000], 0),
    ],
)
def test_the_port_is_the_nearest_that_is_one(ports: list[bytes], port: int) -> None:
    """What is no port is passed over, also one of thousands of digits, which int() refuses."""
    lines = [(b"x-forwarded-for", b"203.0.113.7")]
    lines += [(b"x-forwarded-port", value) for value in ports]
    assert proxies().client(head(*lines)) == ["203.0.113.7", port]


@pytest.mark.parametrize(
    ("values", "scheme"),
    [
        ([], None),
        ([b"https"], "https"),
        ([b"HTTP"], "http"),
        ([b"wss"], "https"),
        ([b"ws"], "http"),
        ([b"http, https"], "https"),
        ([b"https", b"http"], "http"),
        ([b"https,"], None),
        ([b"ftp"], None),
        ([b"\xff"], None),
    ],
)
def test_the_scheme_is_the_nearest_proxys(values: list[bytes], scheme: str | None) -> None:
    """The last word counts, and only when it is a scheme of ours."""
    assert proxies().scheme(head(*((b"x-forwarded-proto", value) for value in values))) == scheme


FORWARDED = (
    (b"x-forwarded-for", b"203.0.113.7"),
    (b"x-forwarded-port", b"1234"),
    (b"x-forwarded-proto", b"https"),
)


def test_a_trusted_proxy_is_believed() -> None:
    """Client and scheme are those that the proxy names, in both kinds of scope."""
    scope = http_scope(head(*FORWARDED), peer(), proxies(), "")
    assert (scope["client"], scope["scheme"]) == (["203.0.113.7", 1234], "https")
    scope = websocket_scope(head(*FORWARDED), peer(), proxies(), "")
    assert (scope["client"], scope["scheme"]) == (["203.0.113.7", 1234], "wss")


def test_a_proxy_that_says_nothing_changes_nothing() -> None:
    """Without the headers the connection's own facts stand."""
    scope = http_scope(head(), peer(secure=True), proxies(), "")
    assert (scope["client"], scope["scheme"]) == (list(CLIENT), "https")


@pytest.mark.parametrize(("trusted", "enabled"), [(False, True), (True, False), (False, False)])
def test_nobody_else_is_believed(*, trusted: bool, enabled: bool) -> None:
    """Without --proxy-headers or from an untrusted peer the headers are only headers."""
    scope = http_scope(head(*FORWARDED), peer(trusted=trusted), proxies(enabled=enabled), "")
    assert (scope["client"], scope["scheme"]) == (list(CLIENT), "http")
    assert (b"x-forwarded-for", b"203.0.113.7") in scope["headers"]


def test_the_headers_may_have_other_names() -> None:
    """--proxy-headers-host and --proxy-headers-port name them, in any case."""
    config = Proxy(
        proxy_headers=True, proxy_headers_host="X-Real-IP", proxy_headers_port="X-Real-Port"
    )
    named = head((b"x-real-ip", b"203.0.113.7"), (b"x-real-port", b"9"), *FORWARDED)
    assert Proxies(config).client(named) == ["203.0.113.7", 9]


def test_the_root_path_is_a_trusted_proxys_word() -> None:
    """Daphne-Root-Path replaces --root-path, decoded, when its sender is trusted, else not."""
    request = head((b"daphne-root-path", b"/a%20%C3%A9%ff"))
    for enabled in (True, False):
        scope = http_scope(request, peer(), proxies(enabled=enabled), "/root")
        assert scope["root_path"] == "/a é�"
    assert http_scope(request, peer(trusted=False), proxies(), "/root")["root_path"] == "/root"


def test_what_is_ignored_is_named() -> None:
    """The warning can name the header that an untrusted peer sent, if it sent any."""
    assert proxies().ignored(head(*FORWARDED)) == "x-forwarded-for"
    assert proxies().ignored(head(FORWARDED[2])) == "x-forwarded-proto"
    assert proxies().ignored(head()) is None
    assert proxies(enabled=False).ignored(head(*FORWARDED)) is None
    rooted = head((b"daphne-root-path", b""))
    assert proxies(enabled=False).ignored(rooted) == "daphne-root-path"
