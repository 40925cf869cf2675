"""A live server for tests: the contract of `daphne.testing`, with the supervisor behind it.

`DaphneProcess` is called by Channels' `ChannelsLiveServerTestCase`, whose attribute
`ProtocolServerProcess` it is to be. `LiveServer` is the same for everybody else.

The process that is started is a master, and what it forks serves; so whatever start method of
`multiprocessing` is in use, the reactor and the event loop of the process that tests are left
alone. Under `fork` the server has what the test has set up in memory until then; under `spawn` and
`forkserver` it has what can be pickled, and imports the rest.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import multiprocessing
import operator
import pickle
import queue
import sys
import time
import traceback
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from daphne_supervisor import cli, companion, endpoints, listeners
from daphne_supervisor.errors import BootError, SupervisorError, UsageError
from daphne_supervisor.hooks import Hooks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from daphne_supervisor.config import Config
    from daphne_supervisor.listeners import Listener
    from daphne_supervisor.master.zygote import Heritage, Seed
    from daphne_supervisor.messages import Assignment

__all__ = ["DaphneProcess", "LiveServer"]

_FLAGS = {
    "application_close_timeout": "--application-close-timeout",
    "http_timeout": "--http-timeout",
    "ping_interval": "--ping-interval",
    "ping_timeout": "--ping-timeout",
    "proxy_forwarded_address_header": "--proxy-headers-host",
    "proxy_forwarded_port_header": "--proxy-headers-port",
    "root_path": "--root-path",
    "server_name": "--server-name",
    "websocket_connect_timeout": "--websocket_connect_timeout",
    "websocket_handshake_timeout": "--websocket_connect_timeout",
    "websocket_max_frame_size": "--websocket-max-frame-size",
    "websocket_max_message_size": "--websocket-max-message-size",
    "websocket_timeout": "--websocket_timeout",
    "workers": "--workers",
}
"""The options of Daphne's `Server`, and ours."""

_WITHOUT_MEANING = {"proxy_forwarded_proto_header", "request_buffer_size", "signal_handlers"}
"""Options of Daphne's that change nothing: bodies are streamed, the scheme has but one header."""

_PLACE = "daphne_supervisor.testing:served.application"
"""Where a worker finds its application."""

_EXPLAINED = 0.2
"""Seconds to wait for the words of a server that has died."""


def _arguments(given: Mapping[str, Any]) -> list[str]:
    """Return Daphne's keyword arguments as ours; `options` are taken as they are."""
    unknown = sorted(given.keys() - _FLAGS.keys() - _WITHOUT_MEANING - {"options"})
    if unknown:
        message = f"kwargs: no such option: {', '.join(unknown)}"
        raise TypeError(message)
    known = {name: given[name] for name in given.keys() & _FLAGS.keys()}
    found = [f"{_FLAGS[name]}={value}" for name, value in known.items() if value is not None]
    if any(argument.startswith("--proxy-headers") for argument in found):
        found.append("--proxy-headers")
    return [*companion.BRIEF, "--verbosity=0", *sorted(found), *given.get("options", ())]


class DaphneProcess(multiprocessing.Process):
    """A server in a process of its own: `start`, wait for `ready`, ask for `port.value`."""

    def __init__(  # noqa: PLR0917 - the contract
        self,
        host: str,
        get_application: Callable[[], Any],
        kwargs: Mapping[str, Any] | None = None,
        setup: Callable[[], None] | None = None,
        teardown: Callable[[], None] | None = None,
        port: int | None = None,
    ) -> None:
        """Serve what `get_application` returns in the worker, on `host` and a free or given port.

        `kwargs` are those of Daphne's server, and besides `workers`, and `options`, a sequence of
        the command line's. `setup` is called in each worker once it has the application, `teardown`
        when it has served. `errors` is a queue of pairs: what went wrong, and the traceback.
        Raises `TypeError` or `UsageError` for `kwargs` that make no sense.
        """
        super().__init__()
        self.host = host
        self.get_application = get_application
        self.kwargs = dict(kwargs or {})
        self.setup = setup
        self.teardown = teardown
        self._configuration()
        self.port = multiprocessing.Value("i", port or 0)
        self.ready = multiprocessing.Event()
        self.errors: multiprocessing.Queue[tuple[BaseException, str]] = multiprocessing.Queue()

    def start(self) -> None:
        """Start it. It ends with the tests, also when nobody says so."""
        super().start()
        atexit.register(self.terminate)  # before `multiprocessing` waits for it, which it would

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, at most `timeout` seconds."""
        super().join(timeout)
        if not self.is_alive():
            atexit.unregister(self.terminate)

    def run(self) -> None:  # pragma: no cover - in the new process, as what it calls
        """Be the master, in the new process."""
        parent = multiprocessing.parent_process()
        try:
            if parent is not None and not companion.leave_with(parent.sentinel):
                return
            code = self._supervise(self._configuration())
        except SupervisorError as error:
            self.note(error)
            code = error.exit_code
        sys.exit(code)

    def note(self, error: BaseException) -> None:
        """Tell the tests what went wrong; for good, because the process may leave at once."""
        story = traceback.format_exc()
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
        except Exception:  # noqa: BLE001 - an error is a class of anybody's
            error = RuntimeError(f"{type(error).__name__}: {error}")
        self.errors.put((error, story))
        self.errors.close()
        self.errors.join_thread()

    def _configuration(self) -> Config:
        return companion.configuration([*_arguments(self.kwargs), _PLACE], {})

    def _supervise(self, config: Config) -> int:  # pragma: no cover - as above
        from daphne_supervisor.master.master import Master  # noqa: PLC0415 - not in the tests

        bind = replace(config.bind, host=self.host, port=self.port.value)
        found = [endpoints.parse(text, origin) for text, origin in endpoints.assemble(bind)]
        opened = listeners.open_all(found, bind)
        try:
            self.port.value = opened[0].socket.getsockname()[1]
            heritage = replace(
                cli.prepare(config, opened),
                hooks=self._hooks(config.process.workers),
                grow=self._grow,
            )
            return Master(heritage, _refuse_reload).run()
        finally:
            listeners.release(opened)

    def _hooks(self, workers: int) -> Hooks:
        """Return what notices, in the master, that all the `workers` are ready."""
        slots: set[int] = set()

        def worker_ready(slot: int, **_: object) -> None:
            slots.add(slot)
            if len(slots) == workers:
                self.ready.set()

        module = ModuleType(__name__)
        module.worker_ready = worker_ready  # type: ignore[attr-defined]
        return Hooks(module)

    def _grow(  # pragma: no cover - in a child of that
        self, config: Config, opened: tuple[Listener, ...]
    ) -> Seed:
        return _Seed(cli.grow(config, opened), self)


class _Seed:
    """What workers grow from: that of the command, with the functions of the tests around it."""

    def __init__(self, seed: Seed, process: DaphneProcess) -> None:
        """Serve for `process`."""
        self._seed = seed
        self._process = process

    def preload(self) -> None:
        """Do nothing: what `get_application` returns is each worker's own."""

    def run(self, assignment: Assignment) -> int:
        """Be a worker."""
        companion.hush_drain()
        # It came with the fork, and is the tests' own.
        sys.modules.pop("twisted.internet.reactor", None)
        served.process = self._process
        code = self._seed.run(assignment)
        if self._process.teardown is not None:
            self._process.teardown()
        return code


class _ApplicationError(BootError):
    """The tests' own code has failed; `traceback` is its story."""

    def __init__(self, message: str) -> None:
        """Describe what is being handled."""
        super().__init__(message)
        self.traceback = traceback.format_exc()


class _Served:
    """Stands in a worker for the process that it was started as."""

    process: DaphneProcess

    @property
    def application(self) -> Any:
        """What is to be served. Raises `BootError` when the tests' own functions fail."""
        try:
            application = self.process.get_application()
            if self.process.setup is not None:
                self.process.setup()
        except BaseException as error:  # noqa: BLE001 - the tests' own code, which may do anything
            self.process.note(error)
            message = f"the application cannot be had: {type(error).__name__}: {error}"
            raise _ApplicationError(message) from None
        return application


served = _Served()


def _refuse_reload(config: Config) -> Heritage:
    """Say that there is nothing to read anew. Raises `UsageError`."""
    message = f"{config.application}: a server of tests is not reloaded"
    raise UsageError(message)


def _find(path: str) -> Any:
    """Return what `module:attribute` names."""
    module, _, attribute = path.partition(":")
    return operator.attrgetter(attribute)(importlib.import_module(module))


def _same(application: Any) -> Any:
    return application


class LiveServer:
    """A running server, as a context manager: ready at entry, gone at exit."""

    def __init__(
        self,
        application: Any,
        *options: str,
        host: str = "127.0.0.1",
        get_application: Callable[[], Any] | None = None,
        setup: Callable[[], None] | None = None,
        teardown: Callable[[], None] | None = None,
        patience: float = 30.0,
    ) -> None:
        """Serve `application`, an ASGI application or where it is: `module:attribute`.

        With `get_application` it is what that returns, in the server. `options` are those of the
        command line, but for the listeners, which are `host` and a free port. It has `patience`
        seconds to start. Raises `UsageError` for options that make no sense.
        """
        if get_application is None:
            find = _find if isinstance(application, str) else _same
            get_application = functools.partial(find, application)
        self.host = host
        self._patience = patience
        self._process = DaphneProcess(
            host, get_application, {"options": options}, setup=setup, teardown=teardown
        )

    def __enter__(self) -> Self:
        """Start, and wait until every worker serves. Raises `RuntimeError` if that does not come.

        Its text has what the server says of it.
        """
        self._process.start()
        if not self._is_ready():
            self._stop()
            with contextlib.suppress(queue.Empty):
                _, story = self._process.errors.get(timeout=_EXPLAINED)
                message = f"the server has not started:\n{story}"
                raise RuntimeError(message)
            message = f"the server has not started within {self._patience:g} s, or has died"
            raise RuntimeError(message)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._stop()

    def _is_ready(self) -> bool:
        process, deadline = self._process, time.monotonic() + self._patience
        while (left := deadline - time.monotonic()) > 0 and process.is_alive():
            if process.ready.wait(min(left, 0.1)):
                return True
        return bool(process.ready.is_set())

    def _stop(self) -> None:
        self._process.terminate()
        self._process.join()

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self._process.port.value)

    @property
    def url(self) -> str:
        """Where a client finds it: `http://HOST:PORT`."""
        return f"http://{self.host}:{self.port}"

    @property
    def ws_url(self) -> str:
        """Where a WebSocket client finds it: `ws://HOST:PORT`."""
        return f"ws://{self.host}:{self.port}"
