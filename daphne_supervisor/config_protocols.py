"""The sections of the configuration that are about requests: HTTP, WebSocket, proxies.

As in `config`, every field carries its `Option`; times are in seconds, sizes in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from daphne_supervisor import values
from daphne_supervisor.options import duration, number, option, size

__all__ = ["Http", "Proxy", "WebSocket"]

_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Http:
    """HTTP."""

    http_timeout: float | None = duration(
        "-t",
        "--http-timeout",
        parse=values.seconds_or_none,
        standard="no limit",
        help="Time in which the application must have answered a request; then 503. 0: no limit.",
    )
    keep_alive: float = duration(
        "--keep-alive",
        parse=values.seconds,
        default=75.0,
        help="Time that an idle connection stays open; above load balancers' 60 s.",
    )
    head_timeout: float = duration(
        "--head-timeout",
        default=30.0,
        help="Time in which the whole head of a request must have arrived.",
    )
    body_min_rate: int = number(
        "--body-min-rate",
        parse=values.limit,
        default=240,
        help="Bytes a second that a request's body must come at, measured over 5 s; else 408."
        " 240 is what a modem of 1990 could do; 0: no limit.",
    )
    write_timeout: float = duration(
        "--write-timeout",
        parse=values.seconds,
        default=60.0,
        help="A client that takes no byte of a waiting response for so long is dropped. 0: never.",
    )
    max_request_line: int = size(
        "--max-request-line",
        default=8192,
        help="Longest request line; beyond it 414. RFC 9112 asks for at least 8000.",
    )
    max_header_count: int = number(
        "--max-header-count",
        default=128,
        help="Most headers of a request; beyond them 431.",
    )
    max_header_size: int = size(
        "--max-header-size",
        default=65536,
        help="Most bytes of headers in all; beyond them 431.",
    )
    max_body_size: int = size(
        "--max-body-size",
        parse=values.limit,
        default=0,
        help="Largest request body; beyond it 413. 0: no limit, since bodies are streamed.",
    )
    max_connections: int = number(
        "--max-connections",
        parse=values.limit,
        default=0,
        help="Connections of each worker; at that number it stops accepting, and others wait in"
        " the backlog. 0: no limit but that of file descriptors.",
    )
    max_inflight: int = number(
        "--max-inflight",
        parse=values.limit,
        default=0,
        help="Requests that run in each worker; beyond them 503 with Retry-After. 0: no limit,"
        " since only the application knows how many it can bear.",
    )
    server_name: str = option(
        "-s",
        "--server-name",
        parse=values.header_value,
        metavar="NAME",
        default="daphne",
        absence="--no-server-name",
        blank=True,
        help="Value of the Server header; --no-server-name sends none.",
    )
    application_close_timeout: float = duration(
        "--application-close-timeout",
        parse=values.seconds,
        default=10.0,
        help="Time that the application may go on after its client has left; then it is cancelled.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocket:
    """WebSocket."""

    websocket_timeout: float = duration(
        "--websocket_timeout",
        parse=values.seconds_or_negative,
        default=86400.0,
        help="Longest life of a WebSocket. Negative: no limit.",
    )
    connect_timeout: float = duration(
        "--websocket_connect_timeout",
        parse=values.seconds_or_negative,
        default=5.0,
        help="Time that the application has to accept a WebSocket. 0 or negative: no limit.",
    )
    ping_interval: float = duration(
        "--ping-interval",
        parse=values.seconds,
        default=20.0,
        help="Time that a WebSocket may be idle before a ping is sent. 0: no pings.",
    )
    ping_timeout: float = duration(
        "--ping-timeout",
        parse=values.seconds,
        default=30.0,
        help="Time for the answer to a ping before the connection is dropped. 0: it is kept.",
    )
    max_message_size: int = size(
        "--websocket-max-message-size",
        parse=values.limit,
        default=_MEBIBYTE,
        help="Largest message from a client. 0: no limit.",
    )
    max_frame_size: int = size(
        "--websocket-max-frame-size",
        parse=values.limit,
        default=_MEBIBYTE,
        help="Largest frame from a client. 0: no limit.",
    )
    max_queue: int = number(
        "--websocket-max-queue",
        default=32,
        help="Messages that may wait for the application before reading from the client pauses.",
    )
    max_fragments: int = number(
        "--websocket-max-fragments",
        parse=values.limit,
        default=1024,
        help="Most frames of one message from a client, the empty ones too. 0: no limit.",
    )
    compression: bool = option(
        "--websocket-compression",
        parse=values.mark,
        switch=True,
        default=False,
        help="Compress messages for clients that offer permessage-deflate (RFC 7692). Off: it"
        " costs processor time, and a secret beside what an attacker chooses shows in the size.",
    )
    compression_min_size: int = size(
        "--websocket-compression-min-size",
        parse=values.limit,
        default=1024,
        help="Smallest message that is sent compressed; a smaller one fits into one packet anyway.",
    )
    compression_max_ratio: int = number(
        "--websocket-compression-max-ratio",
        parse=values.limit,
        default=100,
        help="How many times its own size a compressed message may become, beyond 64 KiB; text"
        " reaches 20, bombs 1000. 0: no limit.",
    )
    compression_window_bits: int = number(
        "--websocket-compression-window-bits",
        parse=values.window_bits,
        default=12,
        help="Size of the window for messages that are sent, as a power of 2 (9 to 15), and of that"
        " asked of clients.",
    )
    compression_memory_level: int = number(
        "--websocket-compression-memory-level",
        parse=values.memory_level,
        default=5,
        help="Memory that compressing a message takes (1 to 9), on top of 4 windows: 512 B at 0,"
        " and twice that for each level.",
    )
    compression_context_takeover: bool = option(
        "--websocket-compression-context-takeover",
        parse=values.mark,
        switch=True,
        default=False,
        help="Compress a message by those before it. Off, since every connection then keeps two"
        " windows and what compressing takes: about 50 KiB.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """Proxies."""

    proxy_headers: bool = option(
        "--proxy-headers",
        parse=values.mark,
        switch=True,
        default=False,
        help="Take the client's address and the scheme from X-Forwarded-For, -Port and -Proto.",
    )
    proxy_headers_host: str = option(
        "--proxy-headers-host",
        parse=values.header_name,
        metavar="HEADER",
        default="X-Forwarded-For",
        help="Header to take the client's address from; needs --proxy-headers.",
    )
    proxy_headers_port: str = option(
        "--proxy-headers-port",
        parse=values.header_name,
        metavar="HEADER",
        default="X-Forwarded-Port",
        help="Header to take the client's port from; needs --proxy-headers.",
    )
    forwarded_allow_ips: tuple[str, ...] = option(
        "--forwarded-allow-ips",
        parse=values.allowed_peers,
        metavar="LIST",
        default=("127.0.0.1", "::1", "unix"),
        repeated=True,
        help="Peers whose proxy headers are believed: addresses, networks, unix, * for anybody.",
    )
    proxy_protocol: str = option(
        "--proxy-protocol",
        parse=values.proxy_protocol,
        metavar="WHEN",
        default="off",
        help="PROXY header (version 1 or 2) at the beginning of each connection: off, optional or"
        " required; read only from --forwarded-allow-ips. For one endpoint: haproxy:ENDPOINT.",
    )
