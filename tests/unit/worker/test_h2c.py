"""The upgrade from HTTP/1.1 to HTTP/2."""

from __future__ import annotations

import pytest

from daphne_supervisor.worker.h2c import for_http2, upgrade_settings
from daphne_supervisor.worker.head import Head, admit
from daphne_supervisor.worker.http1_lines import header_lines

LINES = [
    b"Host: test",
    b"Connection: Upgrade, HTTP2-Settings, TE",
    b"Upgrade: h2c",
    b"TE: trailers",
]


def asking(settings: bytes, *lines: bytes, method: str = "GET") -> Head:
    """Return the head of a request that asks for HTTP/2."""
    given = [*LINES, b"HTTP2-Settings: " + settings, *lines]
    return admit(method, b"/a?b", "1.1", header_lines("header", given))


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        (b"", []),
        (b"AAMAAABkAAQCAAAAAAIAAAAA", [(3, 100), (4, 2**25), (2, 0)]),
        (b"AAMAAABk_", None),
        (b"AAMAAABk====", None),
        (b"AAMA", None),
        (b"AAMAAAB+", None),
        (b"AAQ_____AAQ_____", [(4, 1073741823), (4, 1073741823)]),
        (b"AAT_____", None),
    ],
)
def test_the_settings_are_a_payload(settings: bytes, values: list[tuple[int, int]] | None) -> None:
    """In base64url, without padding; what is none, or out of range, is no upgrade."""
    assert upgrade_settings(asking(settings)) == values


def test_who_does_not_ask() -> None:
    """Most requests do not."""
    assert upgrade_settings(Head("GET", "1.1")) is None


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 1"],
        [b"Transfer-Encoding: chunked"],
        [b"HTTP2-Settings: "],
    ],
)
def test_who_cannot_be_upgraded(lines: list[bytes]) -> None:
    """A body is in the way, and two settings are none."""
    assert asking(b"", *lines).h2c is None


def test_the_request_becomes_a_stream_s() -> None:
    """What spoke of the connection is gone; the rest is as it was."""
    head = for_http2(asking(b"", b"X-Own: 1", method="HEAD"))
    assert (head.method, head.version, head.target, head.host) == ("HEAD", "2", "/a?b", b"test")
    assert head.headers == [(b"host", b"test"), (b"x-own", b"1")]
    assert (head.length, head.ordinary, head.has_body) == (0, False, False)
    assert "http.response.early_hint" in head.extensions
