"""The composition root: arguments to configuration to listeners to master.

This is the one module that knows both the master and the worker, and it knows the worker only
inside a function that runs in the forked child: what a worker needs (a reactor, an event loop, TLS)
must not be loaded, let alone started, in the process that forks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING

from daphne_supervisor import __version__, command_line, cpus, endpoints, listeners, logs, sources
from daphne_supervisor.errors import BootError, ExitCode, SupervisorError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from daphne_supervisor.config import Config
    from daphne_supervisor.endpoints import Endpoint
    from daphne_supervisor.listeners import Listener
    from daphne_supervisor.messages import Assignment

    Supervise = Callable[[Config, tuple[Listener, ...], logs.AccessLog | None], int]

__all__ = ["main"]

_STANDARD_OUTPUT = 1
_STANDARD_ERROR = 2
_log = logging.getLogger(__name__)


def _supervise(  # pragma: no cover - forks: every integration test goes through here
    config: Config, opened: tuple[Listener, ...], access_log: logs.AccessLog | None
) -> int:
    from daphne_supervisor.master.master import Master  # noqa: PLC0415 - not for --help

    return Master(config, opened, _run_worker, access_log).run()


def _run_worker(assignment: Assignment) -> int:  # pragma: no cover - runs in forked children only
    from daphne_supervisor.worker.main import run  # noqa: PLC0415 - only in the forked child

    return run(assignment)


def main(
    arguments: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    supervise: Supervise = _supervise,
) -> int:
    """Do what the command line says, and return what to exit with.

    Without `arguments` and `environ` those of the process are taken. `supervise` gets the
    configuration, the open listeners and the access log, and returns when all is over.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    environ = os.environ if environ is None else environ
    try:
        return _obey(arguments, environ, supervise)
    except SupervisorError as error:
        _show(f"{command_line.PROGRAM}: {error}", _STANDARD_ERROR)
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.STOPPED  # the user was faster than the master's own signal handlers
    except Exception:  # noqa: BLE001 - what nobody foresaw is a bug, to be reported as one
        found = f"this is a bug in {command_line.PROGRAM}\n{traceback.format_exc()}"
        _show(f"{command_line.PROGRAM}: {found}", _STANDARD_ERROR)
        return ExitCode.CRASHED


def _show(text: str, descriptor: int) -> None:
    """Write `text` as a line; whoever has closed the other end does not want it."""
    with contextlib.suppress(OSError):
        os.write(descriptor, f"{text.rstrip()}\n".encode(errors="backslashreplace"))


def _obey(arguments: Sequence[str], environ: Mapping[str, str], supervise: Supervise) -> int:
    request = command_line.parse(arguments)
    if request.help or request.version:
        version = f"{command_line.PROGRAM} {__version__}"
        _show(request.help or version, _STANDARD_OUTPUT)
        return ExitCode.STOPPED
    config = sources.configuration(request.flags, environ, _count_processors)
    inherited = endpoints.inherited_names(environ, os.getpid())
    found = [
        endpoints.parse(text, origin, inherited) for text, origin in endpoints.assemble(config.bind)
    ]
    config = _change_directory(config)
    logs.configure(config.log)
    for name in sources.unknown_variables(environ):
        _log.warning("%s: no such option, ignored", name)
    return _serve(config, found, supervise)


def _count_processors() -> tuple[int, str]:
    return cpus.count(cpus.affinity())


def _change_directory(config: Config) -> Config:
    """Enter --chdir; return the configuration with it as an absolute path.

    Symbolic links are left in it: one that points elsewhere after a deploy can be followed anew.
    """
    if not config.app.chdir:
        return config
    directory = os.path.abspath(config.app.chdir)
    try:
        os.chdir(directory)
    except OSError as error:
        message = f"--chdir {directory}: cannot be entered: {error.strerror}"
        raise BootError(message) from None
    return replace(config, app=replace(config.app, chdir=directory))


def _serve(config: Config, found: list[Endpoint], supervise: Supervise) -> int:
    path = logs.access_log_path(config.log)
    access_log = None if path is None else logs.AccessLog.open(path)
    if config.process.workers_reason:
        _log.info("--workers auto: %s (%s)", config.process.workers, config.process.workers_reason)
    _log.info("Starting server at %s", ", ".join(endpoint.text for endpoint in found))
    for endpoint in found:
        _log.info("Configuring endpoint %s", endpoint.text)
    opened = listeners.open_all(found, config.bind.backlog)
    try:
        for listener in opened:
            _log.info("Listening on %s", listener.description)
        return supervise(config, opened, access_log)
    finally:
        listeners.release(opened)
