"""Where the configuration comes from: the command line, the environment, files, the defaults.

Each source gives texts, the first source that has one for an option wins, and only the winner is
parsed. So every value goes through the same parser wherever it was written, and a mistake is
reported under the name it was made with: a flag, a variable, or a line of a file.

The order is: flag, DAPHNE_SUPERVISOR_*, the same in the environment file, the configuration file,
the variables that platforms set (WEB_CONCURRENCY, ASGI_THREADS), default. A variable that is set to
nothing counts as not set, because that is how container platforms spell "no value".

Flags and environment stay what they are while the process lives; the files are read again at each
reload. So what is kept is a recipe, and a configuration is what it gives today.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from daphne_supervisor import config_file, env_file, values
from daphne_supervisor.config import SECTIONS, Bind, Channels, Config
from daphne_supervisor.env_file import Variable
from daphne_supervisor.errors import UsageError
from daphne_supervisor.options import ENVIRONMENT_PREFIX, Option, options_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from daphne_supervisor.config import Process

__all__ = ["Recipe", "doubts", "every_option", "keep", "unchangeable", "unknown_variables"]

_UNCHANGEABLE = {
    "app": {"hooks"},
    "bind": {name for name, _, _ in options_of(Bind)},
    "channels": {name for name, _, _ in options_of(Channels)},
    "process": {"group", "pid_file", "status_file", "user"},
}
"""The fields, by section, that the master has acted upon when it started, or its broker, which
outlives reloads."""


@dataclass(frozen=True, slots=True)
class _Given:
    """What a user wrote for an option: the texts, and the name to complain to."""

    texts: tuple[str, ...]
    origin: str


_Choices = dict[str, _Given]
"""What was given, by the key of the option."""

_Variables = dict[str, Variable]
"""Environment variables, by name."""


def every_option() -> Iterator[Option]:
    """Yield every option: the application first, then section by section."""
    sections: list[type[Any]] = [Config, *(section for _, _, section in SECTIONS)]
    for section in sections:
        yield from (option for _, option, _ in options_of(section))


_OPTIONS = {option.key: option for option in every_option()}
_UNSET = Variable("", "")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the configuration is made; it can be made again whenever a file may have changed.

    `flags` holds the texts of each option that stands on the command line, by its key.
    `count_processors` returns a number of workers and the reason for it; it is called for "auto".
    `directory` is where relative paths count from: the working directory, by its name at the start.
    """

    flags: Mapping[str, tuple[str, ...]]
    environ: Mapping[str, str]
    count_processors: Callable[[], tuple[int, str]]
    directory: str = ""

    def read(self) -> Config:
        """Return the configuration that the user asks for. Raises `UsageError`."""
        choices, variables = self._gather()
        if "application" not in choices:
            message = (
                "APPLICATION is missing: give module:attribute, as in myproject.asgi:application"
            )
            raise UsageError(message)
        sections = {name: section(**_parsed(section, choices)) for name, _, section in SECTIONS}
        _check_company(sections, choices)
        sections["process"] = _counted(sections["process"], self.count_processors)
        if not sections["http2"].enabled:
            sections["tls"] = replace(sections["tls"], alpn=("http/1.1",))
        return self._placed(Config(**_parsed(Config, choices), **sections), variables)

    def _gather(self) -> tuple[_Choices, _Variables]:
        """Return what was given, and what the environment file sets.

        The environment file may name the configuration file, or the other way round: whichever is
        known first is read first.
        """
        own = {name: Variable(value, name) for name, value in self.environ.items()}
        near = _environment(own) | _command_line(self.flags)
        variables = self._variables(near)
        near = _environment(variables) | near
        far = self._file(near)
        if "env-file" not in near:
            variables = self._variables(far | near)
            near = _environment(variables) | near
        return _platform(variables) | _platform(own) | far | near, variables

    def _variables(self, choices: _Choices) -> _Variables:
        if "env-file" not in choices:
            return {}
        path = self._path("env-file", choices)
        variables = env_file.read(path, choices["env-file"].origin)
        # It would name itself, or be overruled by what has led here.
        variables.pop(_OPTIONS["env-file"].variable, None)
        return variables

    def _file(self, choices: _Choices) -> _Choices:
        if "config" not in choices:
            return {}
        path = self._path("config", choices)
        keys = {config_file.spelling(key): each for key, each in _OPTIONS.items() if each.in_file}
        entries = config_file.read(path, choices["config"].origin, keys)
        return {entry.option.key: _Given(entry.texts, entry.origin) for entry in entries}

    def _path(self, key: str, choices: _Choices) -> str:
        """Return where the file is that was given for `key`, as far as --chdir is known yet."""
        path = _value(_OPTIONS[key], choices[key])
        chdir = _value(_OPTIONS["chdir"], choices["chdir"]) if "chdir" in choices else ""
        return os.path.join(self.directory, chdir, path)

    def _placed(self, config: Config, variables: _Variables) -> Config:
        """Return `config` with the environment, and with paths that outlive a change of directory.

        Links are left in them: one that points elsewhere after a deploy is followed anew.
        """
        app, log = config.app, config.log
        chdir = os.path.join(self.directory, app.chdir) if app.chdir else self.directory
        environment = tuple(
            (name, variable.value)
            for name, variable in variables.items()
            if name not in self.environ
        )
        if log.log_config is not None:
            log = replace(log, log_config=os.path.join(chdir, log.log_config))
        return replace(config, app=replace(app, chdir=chdir, environment=environment), log=log)


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the variables with our prefix that mean nothing to us, sorted.

    They are no error: a container platform makes such names of its own for a service of our name.
    """
    known = {option.variable for option in _OPTIONS.values()}
    return sorted(
        name for name in environ if name.startswith(ENVIRONMENT_PREFIX) and name not in known
    )


def doubts(config: Config, memory_limit: int | None) -> list[str]:
    """Return warnings about values that are right each for itself but not together.

    `memory_limit` is that of the control group, in bytes, None where there is none.
    """
    limit, workers = config.recycling.max_memory, config.process.workers
    if limit is None or memory_limit is None or limit.size * workers <= memory_limit:
        return []
    doubt = (
        f"--max-memory {limit}: for {workers} workers that is {limit.size * workers} bytes, and the"
        f" cgroup grants {memory_limit}: the kernel may kill a worker before it is recycled"
    )
    return [doubt]


def unchangeable(old: Config, new: Config) -> list[str]:
    """Return the names of the options that differ and that only a restart can change."""
    return [option.name for _, _, option in _differences(old, new)]


def keep(old: Config, new: Config) -> Config:
    """Return `new` with what only a restart can change as it is in `old`."""
    for section, field, _ in _differences(old, new):
        kept = {field: getattr(getattr(old, section), field)}
        new = replace(new, **{section: replace(getattr(new, section), **kept)})
    return new


def _differences(old: Config, new: Config) -> Iterator[tuple[str, str, Option]]:
    """Yield (section, field, option) of what has changed and cannot."""
    for name, _, section in SECTIONS:
        for field, option, _ in options_of(section):
            before, after = (getattr(getattr(each, name), field) for each in (old, new))
            if field in _UNCHANGEABLE.get(name, ()) and before != after:
                yield name, field, option


def _parsed(section: type[Any], choices: _Choices) -> dict[str, Any]:
    return {
        name: _value(option, choices[option.key])
        for name, option, _ in options_of(section)
        if option.key in choices
    }


def _value(option: Option, given: _Given) -> Any:
    try:
        parsed = [option.parse(text) for text in given.texts]
    except ValueError as error:
        message = f"{given.origin}: {error}"
        raise UsageError(message) from None
    return tuple(chain.from_iterable(parsed)) if option.repeated else parsed[-1]


def _check_company(sections: Mapping[str, Any], choices: _Choices) -> None:
    """Refuse an option that does nothing without another one."""
    proxy, tls, http2 = sections["proxy"], sections["tls"], sections["http2"]
    asks = tls.client_certs != "none"
    asgi = sections["app"].interface != "wsgi"
    needs = {
        "daphne-compat": (asgi, "--interface auto, asgi3 or asgi2"),
        "proxy-headers-host": (proxy.proxy_headers, "--proxy-headers"),
        "proxy-headers-port": (proxy.proxy_headers, "--proxy-headers"),
        "alpn": (http2.enabled or "http/1.1" in tls.alpn, "http/1.1, or --http2"),
        "keyfile": (tls.certfile is not None, "--certfile"),
        "ca-certs": (asks, "--client-certs optional or required"),
        "client-certs": (tls.ca_certs is not None or not asks, "--ca-certs"),
    }
    for key, (present, company) in needs.items():
        if key in choices and not present:
            message = f"{choices[key].origin}: needs {company} as well"
            raise UsageError(message)


def _counted(process: Process, count_processors: Callable[[], tuple[int, str]]) -> Process:
    """Return `process` with the figures that depend on the number of processors."""
    if process.threads is not None and process.workers != values.AUTO:
        return process
    processors, reason = count_processors()
    if process.threads is None:
        # What the standard library chooses (concurrent.futures.ThreadPoolExecutor).
        process = replace(process, threads=min(32, processors + 4))
    if process.workers == values.AUTO:
        process = replace(process, workers=processors, workers_reason=reason)
    return process


def _command_line(flags: Mapping[str, tuple[str, ...]]) -> _Choices:
    return {
        option.key: _Given(flags[option.key], option.name)
        for option in _OPTIONS.values()
        if option.key in flags
    }


def _environment(variables: _Variables) -> _Choices:
    choices = {}
    for option in _OPTIONS.values():
        value, origin = variables.get(option.variable, _UNSET)
        if value.strip() or (option.blank and option.variable in variables):
            texts = tuple(value.split()) if option.repeated else (value,)
            choices[option.key] = _Given(texts, origin)
    return choices


def _platform(variables: _Variables) -> _Choices:
    found = {key: variables.get(each.fallback, _UNSET) for key, each in _OPTIONS.items()}
    return {
        key: _Given((value,), origin) for key, (value, origin) in found.items() if value.strip()
    }
