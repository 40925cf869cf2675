"""The configuration: frozen data, one section for each concern.

Every field that a user can set carries an `Option`: how it is spelled, how its text is read, and
why its default is what it is. Times are in seconds, sizes in bytes. The defaults are those of
Daphne 4.2, except where one is a weakness.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field
from typing import Any

from daphne_supervisor import values
from daphne_supervisor.config_channels import Channels
from daphne_supervisor.config_http2 import Http2
from daphne_supervisor.config_protocols import Http, Proxy, WebSocket
from daphne_supervisor.config_tls import Tls
from daphne_supervisor.options import duration, number, option, path

__all__ = [
    "SECTIONS",
    "App",
    "Bind",
    "Channels",
    "Config",
    "Drain",
    "Http",
    "Http2",
    "Log",
    "Process",
    "Proxy",
    "Recycling",
    "Tls",
    "WebSocket",
]


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
    env_file: str | None = path(
        "--env-file",
        metavar="FILE",
        help="File of NAME=value lines for the environment; what is set already wins.",
    )
    # What the file sets and the process's own environment does not. It may hold secrets.
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    hooks: str | None = option(
        "--hooks",
        parse=values.module,
        metavar="MODULE",
        help="Python module of functions to call at turns of the processes' lives: docs/hooks.md.",
    )
    preload: bool = option(
        "--preload",
        parse=values.mark,
        switch=True,
        default=False,
        help="Import the application once for each generation, before its workers are forked:"
        " they share its memory. A reload still takes up new code.",
    )
    chdir: str = path(
        "--chdir",
        metavar="DIR",
        default="",
        standard="the present one",
        help="Directory to change to before anything else; relative paths count from there. Links"
        " in it are followed anew by each reload.",
    )
    root_path: str = option(
        "--root-path",
        parse=values.text,
        metavar="PATH",
        default="",
        blank=True,
        help="Value of root_path in the ASGI scope.",
    )
    interface: str = option(
        "--interface",
        parse=values.interface,
        metavar="auto|asgi3|asgi2|wsgi",
        default="auto",
        help="How the application is called: auto sees it from the arguments that it takes.",
    )
    factory: bool = option(
        "--factory",
        parse=values.mark,
        switch=True,
        default=False,
        help="APPLICATION names what is called, without arguments, to make the application.",
    )
    daphne_compat: bool = option(
        "--daphne-compat",
        parse=values.mark,
        switch=True,
        default=False,
        help="Give the scope exactly the keys that Daphne gives it, for code that asserts on them:"
        " no extensions, no state; of a WebSocket no scheme and no http_version.",
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
        help="Unix socket to listen on; one that nobody listens on is replaced.",
    )
    uds_mode: int = option(
        "--uds-mode",
        parse=values.mode,
        metavar="MODE",
        default=0o666,
        standard="0666",
        help="Octal file mode of the unix socket; 0666 is Daphne's, and lets every user connect.",
    )
    uds_group: str | None = option(
        "--uds-group",
        parse=values.text,
        metavar="GROUP",
        help="Group of the unix socket, by name or number.",
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
        help="Twisted server endpoint: tcp:, ssl:, tls:, unix:, fd:, systemd:, haproxy: or a"
        " plug-in's. May be repeated.",
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
    threads: int | None = number(  # None is for `sources` to count
        "--threads",
        parse=values.threads,
        standard="min(32, processors + 4)",
        fallback="ASGI_THREADS",
        help="Threads of each worker for synchronous code, which mostly waits: so there are more"
        " than processors. 0: as asgiref does by itself, without a bound under Django.",
    )
    thread_wait_warning: float = duration(
        "--thread-wait-warning",
        parse=values.seconds,
        default=5.0,
        help="Time that synchronous code waits for a thread before the log says who waits for whom,"
        " with their stacks: longer than a queue that moves, and before clients give up. 0: never.",
    )
    reload_surge: int = number(
        "--reload-surge",
        default=1,
        help="Workers that a reload replaces at a time: that many more run meanwhile.",
    )
    ready_timeout: float = duration(
        "--ready-timeout",
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
    status_file: str | None = path(
        "--status-file",
        metavar="FILE",
        help="File that the master keeps up to date with all it knows of itself, as JSON.",
    )
    user: str | None = option(
        "--user",
        parse=values.text,
        metavar="USER",
        help="User that the workers run as, by name or number; needs a master that is root.",
    )
    group: str | None = option(
        "--group",
        parse=values.text,
        metavar="GROUP",
        standard="that of --user",
        help="Group that the workers run as, by name or number; needs a master that is root.",
    )
    umask: int | None = option(
        "--umask",
        parse=values.mode,
        metavar="MODE",
        standard="inherited",
        help="Octal file mode creation mask of the workers.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recycling:
    """Recycling."""

    max_requests: int = number(
        "--max-requests",
        parse=values.limit,
        default=0,
        help="Requests, WebSockets and messages after which a worker is replaced. 0: no limit.",
    )
    max_lifetime: float = duration(
        "--max-lifetime",
        parse=values.seconds,
        default=0.0,
        help="Time after which a worker is replaced. 0: no limit.",
    )
    max_memory: values.Memory | None = option(  # noqa: RUF009 - it returns a field
        "--max-memory",
        parse=values.memory,
        metavar="SIZE|PERCENT",
        standard="no limit",
        help="Memory (PSS) at which a worker is replaced: bytes with K, M or G, or a percentage of"
        " the cgroup's limit for all workers together.",
    )
    jitter: float = option(
        "--recycle-jitter",
        parse=values.percentage,
        metavar="PERCENT",
        default=10.0,
        unit="%",
        help="By how much at most each worker's own limits are lowered, at random, so that workers"
        " of one age are not replaced at one time.",
    )
    min_lifetime: float = duration(
        "--min-lifetime",
        parse=values.seconds,
        default=60.0,
        help="Time that a worker serves before it is recycled, so that a limit set too low costs"
        " little.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Leaving."""

    graceful_timeout: float = duration(
        "--graceful-timeout",
        parse=values.seconds,
        default=25.0,
        help="Time that a leaving worker has for its requests; below container platforms' 30 s.",
    )
    shutdown_delay: float = duration(
        "--shutdown-delay",
        parse=values.seconds,
        default=0.0,
        help="Time between TERM and the end of accepting, for load balancers to notice; answers"
        " carry Connection: close. Ctrl-C does not wait.",
    )
    websockets: str = option(
        "--ws-drain",
        parse=values.websocket_drain,
        metavar="close|wait",
        default="close",
        help="What becomes of WebSockets when a worker leaves: close them with 1012 over"
        " --ws-drain-time, or let them live until --graceful-timeout is about to end.",
    )
    websocket_time: float = duration(
        "--ws-drain-time",
        parse=values.seconds,
        default=10.0,
        help="Time over which a leaving worker closes its WebSockets, evenly, so that they do not"
        " all come back at once; few are closed faster.",
    )
    disconnect_delay: float | None = duration(
        "--disconnect-delay",
        parse=values.seconds,
        standard="--graceful-timeout",
        help="Time after which a leaving worker tells streaming responses http.disconnect; they may"
        " still send until --graceful-timeout.",
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
    log_config: str | None = path(
        "--log-config",
        metavar="FILE",
        help="Configuration of Python's logging: a dictionary as TOML or JSON, or the older INI"
        " form; instead of --log-fmt and the level of --verbosity.",
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
    tls: Tls = field(default_factory=Tls)
    process: Process = field(default_factory=Process)
    recycling: Recycling = field(default_factory=Recycling)
    drain: Drain = field(default_factory=Drain)
    http: Http = field(default_factory=Http)
    http2: Http2 = field(default_factory=Http2)
    websocket: WebSocket = field(default_factory=WebSocket)
    proxy: Proxy = field(default_factory=Proxy)
    channels: Channels = field(default_factory=Channels)
    log: Log = field(default_factory=Log)


SECTIONS: tuple[tuple[str, str, type[Any]], ...] = (
    ("app", "Application", App),
    ("bind", "Listeners", Bind),
    ("tls", "TLS", Tls),
    ("process", "Processes", Process),
    ("recycling", "Recycling", Recycling),
    ("drain", "Leaving", Drain),
    ("http", "HTTP", Http),
    ("http2", "HTTP/2", Http2),
    ("websocket", "WebSocket", WebSocket),
    ("proxy", "Proxies", Proxy),
    ("channels", "Channel layer", Channels),
    ("log", "Logs", Log),
)
"""The sections of `Config`: field, title, class; in the order in which people read them."""
