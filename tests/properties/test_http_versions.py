"""One policy for both versions: a request means the same over HTTP/1.1 and over HTTP/2."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daphne_supervisor.config import Http
from tests.support.http2_frames import PREFACE, data, headers, settings
from tests.support.http2_judge import Judge
from tests.support.transports import PATIENCE, Line, Stage, on_loop, service, turn

PEER = ("127.0.0.1", 54321)
#: What HTTP/2 does not have, by its nature (RFC 9113 section 8.2.2), or says in another way.
_OF_HTTP1 = {
    "connection",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
}
_KNOWN = [
    "accept",
    "content-length",
    "content-type",
    "daphne-root-path",
    "expect",
    "forwarded",
    "http2-settings",
    "origin",
    "priority",
    "sec-websocket-key",
    "user-agent",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-real-ip",
    "x_real_ip",
]
_VALUES = [
    "",
    "0",
    "5",
    "05",
    "+5",
    "5, 5",
    "100-continue",
    "1.2.3.4",
    "https",
    "for=1.2.3.4",
]
_TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Asked:
    """A request that both versions can say."""

    method: str = "GET"
    target: str = "/"
    host: str = "test"
    lines: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @property
    def all_lines(self) -> list[tuple[bytes, bytes]]:
        """Return the header lines; a body has a length, since HTTP/1.1 cannot do without."""
        lines = list(self.lines)
        if self.body:
            lines.append(("content-length", str(len(self.body))))
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in lines]

    def http1(self) -> bytes:
        """Return it as HTTP/1.1."""
        first = f"{self.method} {self.target} HTTP/1.1\r\nHost: {self.host}\r\n".encode("latin-1")
        rest = b"".join(name + b": " + value + b"\r\n" for name, value in self.all_lines)
        return first + rest + b"\r\n" + self.body

    def http2(self) -> bytes:
        """Return it as HTTP/2, with all that a connection begins with."""
        pseudo = [
            (b":method", self.method.encode("latin-1")),
            (b":scheme", b"http"),
            (b":path", self.target.encode("latin-1")),
            (b":authority", self.host.encode("latin-1")),
        ]
        head = headers(1, [*pseudo, *self.all_lines], end=not self.body)
        return PREFACE + settings() + head + (data(1, self.body) if self.body else b"")


def _text(alphabet: str, most: int, least: int = 0) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=least, max_size=most)


_latin = "".join(map(chr, (*range(0x20, 0x7F), *range(0xA1, 0x100))))
names = st.sampled_from(_KNOWN) | _text(_TOKEN, 12, 1).filter(lambda name: name not in _OF_HTTP1)
values = st.sampled_from(_VALUES) | _text(_latin + "\t", 20).map(lambda text: text.strip(" \t"))
targets = st.one_of(
    st.just("*"),
    st.sampled_from(["/%2e%2e/", "/a//b", "/?", "/?a=b?c", "/%", "/%zz", "/%C3%A9", "/a;b=c"]),
    _text("/abc?&=%2fE.~-_;:@!$'()*+,", 20).map("/".__add__),
    _text('/ab"<>\\^`{|}#\u00fc', 8).map("/".__add__),
)
hosts = st.sampled_from(
    ["test", "a:80", "[::1]:8000", "a:99999", "[x]", "a_b", "a/b", "a@b", "a,b"]
)
methods = st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "BREW", "get", "A!", "G(T"])


def _fits(line: tuple[str, str]) -> bool:
    """Leave out crumbs of a cookie, which HTTP/2 only has, and bodies that never come."""
    name, value = line
    return name != "cookie" and not (name == "content-length" and value.strip("0").isdigit())


lines = st.lists(st.tuples(names, values), max_size=6).map(
    lambda found: tuple(line for line in found if _fits(line))
)
requests = st.builds(
    Asked, method=methods, target=targets, host=hosts, lines=lines, body=st.binary(max_size=8)
)


async def _ask(line: Line, stage: Stage, what: bytes) -> tuple[dict[str, Any], bytes] | None:
    """Let `what` arrive; return scope and body if the application was called."""
    await line.send(what)
    await turn()
    if not stage.calls:
        return None
    call = stage.calls[0]
    body, more = b"", True
    while more:
        message = await asyncio.wait_for(call.receive(), PATIENCE)
        assert message["type"] == "http.request"
        body += message["body"]
        more = message["more_body"]
    await call.start(204)
    await call.body()
    await call.returns()
    return call.scope, body


def _status(sent: bytes) -> int:
    """Return the status of an HTTP/1.1 answer, or the last of several."""
    return int(sent.split(b"HTTP/1.1 ")[-1][:3])


def _told(scope: dict[str, Any]) -> dict[str, Any]:
    """Return what both versions have to tell the application alike."""
    kept = {key: scope[key] for key in scope if key not in {"http_version", "extensions", "state"}}
    return kept | {"headers": Counter(scope["headers"])}


async def _compare(asked: Asked) -> None:
    first_stage, second_stage = Stage(), Stage()
    first, second = Line(service(first_stage), PEER), Line(service(second_stage), PEER)
    judge = Judge()
    one = await _ask(first, first_stage, asked.http1())
    two = await _ask(second, second_stage, asked.http2())
    judge.hear(second.sent)
    answer = judge.answer(1)
    assert not judge.goaways
    if one is None or two is None:
        assert (one, two) == (None, None), (asked, one, two)
        assert _status(first.sent) >= 400
        # Of several faults each version may meet another one first, and HTTP/2 resets for some.
        assert answer.reset is not None or (answer.status or 0) >= 400, (asked, answer)
    else:
        assert _told(one[0]) == _told(two[0])
        assert one[1] == two[1]
        assert (one[0]["http_version"], two[0]["http_version"]) == ("1.1", "2")
        assert answer.status == _status(first.sent) == 204
    await first.leave()
    await second.leave()


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (Asked(method="BREW"), 501),
        (Asked(lines=(("expect", "something"),)), 417),
        (Asked(target="/" + "a" * 200), 414),
        (Asked(lines=(("x-a", "a" * 2000),)), 431),
        (Asked(lines=(("x-a", "1"),) * 200), 431),
        (Asked(method="POST", body=bytes(20)), 413),
        (Asked(host="a/b"), 400),
        (Asked(target="/<"), None),
    ],
    ids=lambda value: None if isinstance(value, Asked) else str(value),
)
@on_loop
async def test_one_fault_has_one_status(asked: Asked, status: int | None) -> None:
    """A request that breaks one rule is answered with the same status in both versions.

    `None`: it is served, as both are lax about it.
    """
    answers = []
    for speak in (Asked.http1, Asked.http2):
        stage = Stage()
        line = Line(
            service(stage, http=Http(max_body_size=10, max_header_size=1000, max_request_line=100)),
            PEER,
        )
        await line.send(speak(asked))
        assert bool(stage.calls) == (status is None)
        answers.append(line.sent)
        await line.leave()
    judge = Judge()
    judge.hear(answers[1])
    if status is not None:
        assert _status(answers[0]) == judge.answer(1).status == status


@given(requests)
@example(Asked(lines=(("x_y", "1"), ("x-y", "2"))))
@example(Asked(lines=(("daphne-root-path", "/a"),)))
@example(Asked(lines=(("content-length", "0"),)))
@example(Asked(lines=(("content-length", "0"), ("content-length", "0"))))
@example(Asked(method="POST", lines=(("expect", "100-continue"),), body=b"hello"))
@example(Asked(lines=(("expect", "something"),)))
@example(Asked(host="a,b"))
@example(Asked(target="/a b"))
@example(Asked(target="*"))
@example(Asked(method="OPTIONS", target="*"))
def test_a_request_means_the_same_in_both_versions(asked: Asked) -> None:
    """Both serve it with the same scope and body, or both refuse it."""
    asyncio.run(asyncio.wait_for(_compare(asked), PATIENCE))
