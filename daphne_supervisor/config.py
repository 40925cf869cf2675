"""The configuration: frozen data, one section for each concern.

Every field that a user can set carries an `Option`: how it is spelled, how its text is read, and
why its default is what it is. Times are in seconds, sizes in bytes. The defaults are those of
Daphne 4.2, except where one is a weakness.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field
from typing import Any

from daphne_supervisor import values
from daphne_supervisor.options import duration, number, option, path, size

__all__ = ["SECTIONS", "App", "Bind", "Config", "Http", "Log", "Process", "Proxy", "WebSocket"]

_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """Application."""

    config_file: str | None = path(
        "--config",
        metavar="FILE",
        in_file=False,
        help="TOML file with options, or a pyproject.toml with them in [tool.daphne-supervisor].",
    )
    app_dir: str = path(
        "--app-dir",
        metavar="DIR",
        default=".",
        help="Directory that is put first on sys.path.",
    )
    chdir: str = path(
        "--chdir",
        metavar="DIR",
        default="",
        help="Directory to change to before anything else; relative paths count from there.",
    )
    root_path: str = option(
        "--root-path",
        parse=values.text,
        metavar="PATH",
        default="",
        blank=True,
        help="Value of root_path in the ASGI scope.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """Listeners."""

    host: str | None = option(
        "-b",
        "--bind",
        parse=values.text,
        metavar="HOST",
        standard="127.0.0.1 when needed",
        help="TCP interface to listen on: an IPv4 or IPv6 address, or a name.",
    )
    port: int | None = option(
        "-p",
        "--port",
        parse=values.port,
        metavar="PORT",
        standard="8000 when needed",
        help="TCP port to listen on; 0 takes a free one, which is logged.",
    )
    unix_socket: str | None = path(
        "-u",
        "--unix-socket",
        metavar="PATH",
        help="Unix socket to listen on, with mode 0666; one that nobody listens on is replaced.",
    )
    fd: int | None = option(
        "--fd",
        parse=values.descriptor,
        metavar="NUMBER",
        help="Inherited file descriptor of a listening TCP or unix socket.",
    )
    endpoints: tuple[str, ...] = option(
        "-e",
        "--endpoint",
        parse=values.endpoint,
        metavar="STRING",
        default=(),
        repeated=True,
        help="Twisted server endpoint: tcp:, ssl:, unix:, fd: or systemd:. May be repeated.",
    )
    backlog: int = number(
        "--backlog",
        parse=values.backlog,
        default=2048,
        help="Connections that may wait to be accepted, per listener; a burst must not be refused.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """Processes."""

    workers: int = option(
        "-w",
        "--workers",
        parse=values.workers,
        metavar="NUMBER|auto",
        default=1,
        fallback="WEB_CONCURRENCY",
        help="Worker processes. auto: the processors granted by CPU affinity and cgroup quota.",
    )
    workers_reason: str = ""
    threads: int = number(
        "--threads",
        default=8,
        fallback="ASGI_THREADS",
        help="Threads of each worker for synchronous code.",
    )
    graceful_timeout: float = duration(
        "--graceful-timeout",
        parse=values.seconds,
        default=25.0,
        help="Time that a leaving worker has for its requests; below container platforms' 30 s.",
    )
    boot_timeout: float = duration(
        "--boot-timeout",
        default=60.0,
        help="Time that a worker has to import the application and start its lifespan.",
    )
    worker_timeout: float = duration(
        "--worker-timeout",
        default=30.0,
        help="A worker whose event loop is blocked for longer is replaced; its stacks are logged.",
    )
    pid_file: str | None = path(
        "--pid-file",
        metavar="FILE",
        help="File that holds the process id of the master while it runs.",
    )


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Logs."""

    verbosity: int = option(
        "-v",
        "--verbosity",
        parse=values.verbosity,
        metavar="0|1|2|3",
        default=1,
        help="0: warnings, 1: and what happens, 2: and debugging, 3: and that of asyncio.",
    )
    access_log: str | None = path(
        "--access-log",
        metavar="FILE",
        standard="- from verbosity 1 on",
        help="File to append the access log to; - for the standard output.",
    )
    log_fmt: str = option(
        "--log-fmt",
        parse=values.log_format,
        metavar="FORMAT",
        default="%(asctime)-15s %(levelname)-8s %(message)s",
        help="Format of log lines, in the percent style of Python's logging.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All that can be configured."""

    application: str = option(
        "APPLICATION",
        parse=values.application,
        default=MISSING,
        standard="required",
        help="The ASGI application as module:attribute, for example myproject.asgi:application.",
    )
    app: App = field(default_factory=App)
    bind: Bind = field(default_factory=Bind)
    process: Process = field(default_factory=Process)
    http: Http = field(default_factory=Http)
    websocket: WebSocket = field(default_factory=WebSocket)
    proxy: Proxy = field(default_factory=Proxy)
    log: Log = field(default_factory=Log)


SECTIONS: tuple[tuple[str, str, type[Any]], ...] = (
    ("app", "Application", App),
    ("bind", "Listeners", Bind),
    ("process", "Processes", Process),
    ("http", "HTTP", Http),
    ("websocket", "WebSocket", WebSocket),
    ("proxy", "Proxies", Proxy),
    ("log", "Logs", Log),
)
"""The sections of `Config`: field, title, class; in the order in which people read them."""
