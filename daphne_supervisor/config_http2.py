"""The section of the configuration that is about HTTP/2. Sizes are in bytes."""

from __future__ import annotations

from dataclasses import dataclass

from daphne_supervisor import values
from daphne_supervisor.options import number, option, size

__all__ = ["Http2"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Http2:
    """HTTP/2."""

    enabled: bool = option(
        "--http2",
        parse=values.mark,
        switch=True,
        default=True,
        absence="--no-http2",
        help="Speak HTTP/2 with clients that choose it: over TLS by ALPN, and as --h2c says."
        " --no-http2: HTTP/1.1 only.",
    )
    h2c: str = option(
        "--h2c",
        parse=values.h2c,
        metavar="WHO",
        default="trusted",
        help="Who may speak HTTP/2 without TLS, at once or by an upgrade: any, trusted (peers of"
        " --forwarded-allow-ips: proxies), or off. A proxy that does not know of the upgrade can be"
        " led past its own rules by it.",
    )
    max_streams: int = number(
        "--http2-max-streams",
        default=100,
        help="Requests that a connection may have open at once; others are turned away and may be"
        " sent again. RFC 9113 asks for at least 100.",
    )
    max_running: int = number(
        "--http2-max-running",
        default=200,
        help="Application calls that may run for a connection, those whose client has lost interest"
        " among them: a page that is left and the next one fit in.",
    )
    max_resets: int = number(
        "--http2-max-resets",
        parse=values.limit,
        default=300,
        help="Streams of a connection that may be reset in 10 s, by the client or because of it;"
        " then it is closed. Browsers cancel some dozens when a page is left. 0: no limit.",
    )
    max_control_frames: int = number(
        "--http2-max-control-frames",
        parse=values.limit,
        default=1000,
        help="Frames that carry nothing (SETTINGS, PING, PRIORITY, empty DATA, idle WINDOW_UPDATE)"
        " of a connection in 10 s; then it is closed. 0: no limit.",
    )
    max_continuations: int = number(
        "--http2-max-continuations",
        default=64,
        help="CONTINUATION frames of one head; beyond them the connection is closed. The largest"
        " head of the default --max-header-size needs 4.",
    )
    max_requests: int = number(
        "--http2-max-requests",
        parse=values.limit,
        default=0,
        help="Requests of a connection; after them it is closed as if the worker left, and its"
        " client comes back to any worker. 0: no limit, since a connection grows with no request.",
    )
    stream_window: int = size(
        "--http2-stream-window",
        parse=values.stream_window,
        default=131072,
        help="Bytes of a body that a client may send before the application reads: so much for each"
        " stream, and all of it for the connection, so that no stream stalls another.",
    )
