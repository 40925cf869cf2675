"""The composition root: arguments to configuration to listeners to master.

This is the one module that knows both the master and the worker, and it knows the worker only
inside a function that runs in the zygote, a forked child: what a worker needs (a reactor, an event
loop, TLS) must not be loaded, let alone started, in the master.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from daphne_supervisor import (
    __version__,
    activation,
    cgroups,
    command_line,
    cpus,
    endpoints,
    here,
    listeners,
    logs,
    privileges,
    sources,
    tls_files,
)
from daphne_supervisor.broker import address
from daphne_supervisor.errors import BootError, ExitCode, SupervisorError
from daphne_supervisor.hooks import Hooks
from daphne_supervisor.scoreboard import Scoreboard

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, MutableMapping, Sequence

    from daphne_supervisor.config import App, Config
    from daphne_supervisor.endpoints import Endpoint
    from daphne_supervisor.listeners import Listener
    from daphne_supervisor.master.successor import Inheritance
    from daphne_supervisor.master.zygote import Heritage, Seed

    Supervise = Callable[[Heritage, Callable[[Config], Heritage], Inheritance | None, str], int]

__all__ = ["grow", "main", "prepare"]

_STANDARD_INPUT = 0
_STANDARD_OUTPUT = 1
_STANDARD_ERROR = 2
_log = logging.getLogger(__name__)


def _supervise(  # pragma: no cover - forks: every integration test goes through here
    heritage: Heritage,
    reread: Callable[[Config], Heritage],
    inherited: Inheritance | None,
    directory: str,
) -> int:
    from daphne_supervisor.master.master import Master  # noqa: PLC0415 - not for --help

    return Master(heritage, reread, inherited, directory=directory).run()


def grow(  # pragma: no cover - runs in forked children only
    config: Config, opened: tuple[Listener, ...]
) -> Seed:
    """Return what workers that serve `opened` grow from. Raises `BootError`."""
    from daphne_supervisor.worker.seed import Seed  # noqa: PLC0415 - only in the zygote

    return Seed(config, opened)


def _survey(  # pragma: no cover - runs in a child only
    app: App, rights: privileges.Privileges, text: str
) -> dict[str, Any]:
    os.environ.update(app.environment)
    try:
        privileges.drop(rights)  # a plug-in may be the application's, and is asked as its user
    except BootError as error:
        return {"refused": str(error), "usage": False}
    from daphne_supervisor.worker import application, survey  # noqa: PLC0415 - not in the master

    application.put_first_on_path(os.path.abspath(app.app_dir))
    return survey.survey(text)


def main(
    arguments: Sequence[str] | None = None,
    environ: MutableMapping[str, str] | None = None,
    supervise: Supervise = _supervise,
) -> int:
    """Do what the command line says, and return what to exit with.

    Without `arguments` and `environ` those of the process are taken. `supervise` gets
    what the first workers are born with, and returns when all is over.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    environ = os.environ if environ is None else environ
    _open_standard_descriptors()
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


def _open_standard_descriptors() -> None:
    """Open those that were closed: else the next file or socket would be taken for them."""
    descriptor = _STANDARD_INPUT
    while descriptor <= _STANDARD_ERROR:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)


def _show(text: str, descriptor: int) -> None:
    """Write `text` as a line; whoever has closed the other end does not want it."""
    with contextlib.suppress(OSError):
        os.write(descriptor, f"{text.rstrip()}\n".encode(errors="backslashreplace"))


def _obey(arguments: Sequence[str], environ: MutableMapping[str, str], supervise: Supervise) -> int:
    request = command_line.parse(arguments)
    if request.help or request.version:
        version = f"{command_line.PROGRAM} {__version__}"
        _show(request.help or version, _STANDARD_OUTPUT)
        return ExitCode.STOPPED
    from daphne_supervisor.master import successor  # noqa: PLC0415 - not for --help

    inherited = successor.inheritance(environ)
    directory = here.logical(environ)
    recipe = sources.Recipe(request.flags, environ, _count_processors, directory)
    config = recipe.read()
    here.enter(config.app.chdir)
    logs.configure(config.log)
    for name in sources.unknown_variables({**dict(config.app.environment), **environ}):
        _log.warning("%s: no such option, ignored", name)
    found = _find(config, activation.names(environ, os.getpid()))
    opened = _open(config, found, inherited)
    try:
        heritage = prepare(config, opened)
        with heritage.broker or contextlib.nullcontext():
            heritage.hooks.on_boot(application=config.application)
            return supervise(heritage, _rereading(recipe, heritage), inherited, directory)
    finally:
        listeners.release(opened)


def _count_processors() -> tuple[int, str]:
    return cpus.count(cpus.affinity())


def _find(config: Config, names: tuple[str, ...]) -> list[Endpoint]:
    """Return the endpoints to listen on; `names` are those of descriptors handed over."""
    found: list[Endpoint] = []
    for text, origin in endpoints.assemble(config.bind, names):
        if endpoints.native(text):
            found.append(endpoints.parse(text, origin, names))
        else:
            from daphne_supervisor import plugin_endpoints  # noqa: PLC0415 - few need it

            rights = privileges.resolve(config.process)
            survey = functools.partial(_survey, config.app, rights)
            found += plugin_endpoints.resolve(text, origin, survey)
    return found


def _open(
    config: Config, found: list[Endpoint], inherited: Inheritance | None
) -> tuple[Listener, ...]:
    _log.info("Starting server at %s", ", ".join(endpoint.text for endpoint in found))
    for endpoint in found:
        _log.info("Configuring endpoint %s", endpoint.text)
    if inherited is None:
        opened = listeners.open_all(found, config.bind)
    else:
        opened = listeners.open_all(found, config.bind, inherited.listeners)
    for listener in opened:
        _log.info("Listening on %s", listener.description)
    return opened


def prepare(config: Config, opened: tuple[Listener, ...]) -> Heritage:
    """Return what workers are born with. Raises `UsageError` or `BootError`."""
    from daphne_supervisor.master.zygote import Heritage  # noqa: PLC0415 - not for --help

    tls_files.check(opened, config.tls)
    for doubt in sources.doubts(config, cgroups.memory_limit()):
        _log.warning("%s", doubt)
    if config.process.workers_reason:
        _log.info("--workers auto: %s (%s)", config.process.workers, config.process.workers_reason)
    rights = privileges.resolve(config.process)
    return Heritage(
        config=config,
        listeners=opened,
        access_log=_access_log(config, rights),
        scoreboard=Scoreboard(),
        privileges=rights,
        hooks=Hooks.load(config.app.hooks, config.app.app_dir),
        grow=grow,
        broker=_broker(),
    )


def _broker() -> socket.socket | None:
    """Return where channel layers will meet; without it each process has its own."""
    try:
        return address.listen()
    except OSError as error:
        _log.warning("no socket for the broker of LocalChannelLayer: %s", error.strerror)
        return None


def _access_log(config: Config, rights: privileges.Privileges) -> logs.AccessLog | None:
    path = logs.access_log_path(config.log)
    return None if path is None else logs.AccessLog.open(path, rights.uid)


def _rereading(recipe: sources.Recipe, first: Heritage) -> Callable[[Config], Heritage]:
    """Return what a reload calls for its heritage, given the present configuration."""
    heritage = first

    def reread(present: Config) -> Heritage:
        nonlocal heritage
        config = recipe.read()
        for name in sources.unchangeable(present, config):
            _log.warning("%s: has changed, which takes a restart or an upgrade; not changed", name)
        config = sources.keep(present, config)
        tls_files.check(heritage.listeners, config.tls)
        here.enter(config.app.chdir)
        access_log = heritage.access_log
        if logs.access_log_path(config.log) != logs.access_log_path(present.log):
            access_log = _access_log(config, heritage.privileges)
        logs.configure(config.log)
        heritage = replace(heritage, config=config, access_log=access_log)
        return heritage

    return reread
