"""The head of an HTTP/2 request: what is admitted, and what of it is seen."""

from __future__ import annotations

import pytest

from daphne_supervisor.config import Http
from daphne_supervisor.worker import head_http2
from daphne_supervisor.worker.head import Head, Refused
from daphne_supervisor.worker.head_http2 import Malformed, admit, check_trailers

Fields = list[tuple[bytes, bytes]]

METHOD, SCHEME = (b":method", b"GET"), (b":scheme", b"https")
AUTHORITY, PATH = (b":authority", b"test"), (b":path", b"/a?b=c")
GET = [METHOD, SCHEME, AUTHORITY, PATH]
CONNECT = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), SCHEME, AUTHORITY, PATH]
VERSION = (b"sec-websocket-version", b"13")


def head_of(*more: tuple[bytes, bytes], end: bool = True, limits: Http | None = None) -> Head:
    """Return the head of a GET with `more` fields."""
    return admit([*GET, *more], limits or Http(), end=end)


def test_a_request_is_what_it_says() -> None:
    """Pseudo-header fields become what a request line would be; :authority becomes Host."""
    head = head_of((b"x-own", b"1"))
    assert (head.method, head.version, head.target) == ("GET", "2", "/a?b=c")
    assert (head.path, head.raw_path, head.query) == ("/a", b"/a", b"b=c")
    assert head.headers == [(b"host", b"test"), (b"x-own", b"1")]
    assert (head.length, head.ordinary, head.websocket) == (0, True, False)
    assert head.extensions == ("http.response.trailers", "http.response.early_hint")


def test_who_has_no_authority_has_a_host() -> None:
    """A proxy may translate HTTP/1.1 so; both may be there if they say the same."""
    bare = [METHOD, SCHEME, PATH]
    assert admit([*bare, (b"host", b"a:1")], Http(), end=True).host == b"a:1"
    assert head_of((b"host", b"TEST")).headers == [(b"host", b"test")]


def test_options_may_be_about_the_server() -> None:
    """The one request whose path is a star."""
    fields = [(b":method", b"OPTIONS"), SCHEME, AUTHORITY, (b":path", b"*")]
    assert admit(fields, Http(), end=True).target == "*"


def test_crumbs_become_one_cookie() -> None:
    """Clients send them apart, so that they pack better."""
    head = head_of((b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2"))
    assert head.values(b"cookie") == [b"a=1; b=2"]


def test_a_body_is_announced_or_not() -> None:
    """With a length, without one, or not at all."""
    assert head_of((b"content-length", b"5"), end=False).length == 5
    assert head_of(end=False).length is None
    assert head_of((b"content-length", b"0")).length == 0


def test_a_client_may_want_to_be_asked() -> None:
    """For a body; where there is none there is nothing to ask for."""
    assert head_of((b"expect", b"100-continue"), end=False).expects_continue
    assert not head_of((b"expect", b"100-continue")).expects_continue


def test_what_the_server_looks_at() -> None:
    """The priority is read; what has an underscore is dropped; te may say trailers."""
    head = head_of((b"priority", b"u=1, i"), (b"x_y", b"1"), (b"te", b"trailers"))
    assert head.priority == (1, True)
    assert head.headers[1:] == [(b"priority", b"u=1, i"), (b"te", b"trailers")]
    assert head_of().priority is None
    assert not admit([(b":method", b"HEAD"), *GET[1:]], Http(), end=True).ordinary


@pytest.mark.parametrize(
    "fields",
    [
        GET[1:],
        [METHOD, AUTHORITY, PATH],
        [METHOD, SCHEME, AUTHORITY],
        [METHOD, SCHEME, AUTHORITY, (b":path", b"")],
        [METHOD, SCHEME, AUTHORITY, (b":path", b"a")],
        [METHOD, SCHEME, AUTHORITY, (b":path", b"*")],
        [METHOD, SCHEME, PATH],
        [*GET, METHOD],
        [*GET, (b":status", b"200")],
        [*GET, (b"a", b"b"), (b":path", b"/")],
        [(b":method", b"G T"), *GET[1:]],
        [(b":method", b""), *GET[1:]],
        [(b":authority", b"te\rst"), METHOD, SCHEME, PATH],
        [(b":protocol", b"websocket"), *GET],
        [(b":method", b"CONNECT"), SCHEME, AUTHORITY],
        [(b":method", b"CONNECT"), AUTHORITY, PATH],
        [(b":method", b"CONNECT")],
        [(b":method", b"CONNECT"), (b":protocol", b"websocket"), SCHEME, PATH, VERSION],
    ],
)
def test_pseudo_header_fields_in_disorder(fields: Fields) -> None:
    """Each rule of RFC 9113 section 8.3 makes the request malformed."""
    with pytest.raises(Malformed) as caught:
        admit(fields, Http(), end=True)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "field",
    [
        (b"Upper", b"1"),
        (b"", b"1"),
        (b"a b", b"1"),
        (b"a:", b"1"),
        (b"a\x80", b"1"),
        (b"a", b"b\0"),
        (b"a", b"b\r\nc"),
        (b"a", b" b"),
        (b"a", b"b\t"),
        (b"connection", b"close"),
        (b"keep-alive", b"1"),
        (b"proxy-connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"websocket"),
        (b"te", b"trailers, deflate"),
        (b"host", b"other"),
        (b"content-length", b"x"),
        (b"content-length", b"1"),
    ],
)
def test_fields_that_make_a_request_malformed(field: tuple[bytes, bytes]) -> None:
    """Names and values of RFC 9113 section 8.2, and lengths that cannot be."""
    with pytest.raises(Malformed):
        head_of(field)


@pytest.mark.parametrize("end", [True, False])
def test_two_lengths(*, end: bool) -> None:
    """Even the same one twice is malformed, as for HTTP/1.1."""
    with pytest.raises(Malformed):
        head_of((b"content-length", b"1"), (b"content-length", b"1"), end=end)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([METHOD, (b":scheme", b"ftp"), AUTHORITY, PATH], 400),
        ([METHOD, SCHEME, (b":authority", b"a@b"), PATH], 400),
        ([METHOD, SCHEME, (b":authority", b""), PATH], 400),
        ([METHOD, SCHEME, PATH, (b"host", b"")], 400),
        ([METHOD, SCHEME, AUTHORITY, (b":path", b"/\x80")], 400),
        ([METHOD, SCHEME, AUTHORITY, (b":path", b"/#x")], 400),
        ([METHOD, SCHEME, AUTHORITY, (b":path", b"/" * 8200)], 414),
        ([*GET, *[(b"a", b"b")] * 128], 431),
        ([*GET, (b"a", bytes(65_536))], 431),
        ([*GET, (b"expect", b"else")], 417),
        ([(b":method", b"CONNECT"), AUTHORITY], 501),
        ([CONNECT[0], (b":protocol", b"other"), *CONNECT[2:]], 501),
        (CONNECT, 426),
        ([*CONNECT, VERSION, (b"sec-websocket-extensions", b"=")], 400),
    ],
)
def test_what_is_refused_as_it_is_over_http1(fields: Fields, status: int) -> None:
    """The same limits, the same statuses."""
    with pytest.raises(Refused) as caught:
        admit(fields, Http(), end=False)
    assert not isinstance(caught.value, Malformed)
    assert caught.value.status == status


def test_a_body_that_is_too_large_is_refused_by_its_announcement() -> None:
    """--max-body-size."""
    with pytest.raises(Refused, match="--max-body-size") as caught:
        head_of((b"content-length", b"11"), end=False, limits=Http(max_body_size=10))
    assert caught.value.status == 413
    assert head_of((b"content-length", b"10"), end=False, limits=Http(max_body_size=10)).length


def test_a_handshake_is_a_connect() -> None:
    """RFC 8441: no key, no upgrade."""
    head = admit([*CONNECT, VERSION], Http(), end=False)
    assert (head.websocket, head.method, head.path) == (True, "CONNECT", "/a")


@pytest.mark.parametrize(("end", "more"), [(True, []), (False, [(b"content-length", b"0")])])
def test_a_handshake_has_no_body(*, end: bool, more: Fields) -> None:
    """Its DATA are the WebSocket's."""
    with pytest.raises(Malformed):
        admit([*CONNECT, VERSION, *more], Http(), end=end)


def test_trailers_are_checked() -> None:
    """Nobody is told of them; they have to be fields all the same."""
    check_trailers([(b"x-sum", b"1"), (b"x_y", b"1")], Http())


@pytest.mark.parametrize(
    "field",
    [
        (b":path", b"/"),
        (b"Upper", b""),
        (b"connection", b""),
        (b"a", b"\0"),
        (b"a", bytes(65_536)),
    ],
)
def test_trailers_that_are_malformed(field: tuple[bytes, bytes]) -> None:
    """The rules of a head hold for them, but that there is no pseudo-header field."""
    with pytest.raises(Refused):
        check_trailers([field], Http())


def test_known_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that makes up names fills no memory; they are still checked."""
    monkeypatch.setattr(head_http2, "_names", {})
    monkeypatch.setattr(head_http2, "_MAX_NAMES", 2)
    names = [b"x-%d" % number for number in range(4)]
    head = head_of(*((name, b"1") for name in [b"y" * 65, *names]))
    assert len(head.headers) == 6
    assert list(head_http2._names) == names[:2]
