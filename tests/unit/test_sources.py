"""Where the configuration comes from: the command line, the environment, a file, the defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from daphne_supervisor.config import SECTIONS, Bind, Channels, Config, Log, Process, Recycling
from daphne_supervisor.errors import UsageError
from daphne_supervisor.sources import (
    _UNCHANGEABLE,
    Recipe,
    doubts,
    every_option,
    keep,
    unchangeable,
    unknown_variables,
)
from daphne_supervisor.values import Memory

if TYPE_CHECKING:
    from pathlib import Path

APPLICATION = {"application": ("a:b",)}


def count() -> tuple[int, str]:
    """Count the processors of a machine with three."""
    return 3, "three of them"


def read(
    flags: dict[str, tuple[str, ...]] | None = None, environ: dict[str, str] | None = None
) -> Config:
    """Return the configuration for flags and variables, with an application given."""
    return Recipe({**APPLICATION, **(flags or {})}, environ or {}, count).read()


def complaint(
    flags: dict[str, tuple[str, ...]] | None = None, environ: dict[str, str] | None = None
) -> str:
    """Return the one line that tells what is wrong."""
    with pytest.raises(UsageError) as caught:
        read(flags, environ)
    assert str(caught.value).isprintable()
    return str(caught.value)


def toml(path: Path, text: str) -> dict[str, tuple[str, ...]]:
    """Write a configuration file and return the flag that names it."""
    path.write_text(text)
    return {"config": (str(path),)}


def test_nothing_given_is_every_default() -> None:
    """The application alone makes a configuration."""
    assert read() == Config(application="a:b", process=Process(threads=7))


def test_without_an_application_there_is_nothing_to_serve() -> None:
    """The line says what is missing and how it is written."""
    with pytest.raises(UsageError, match=r"^APPLICATION is missing"):
        Recipe({}, {}, count).read()


def test_nearer_sources_win(tmp_path: Path) -> None:
    """Flag before variable before file before the platform's variable before the default."""
    file = toml(tmp_path / "d.toml", "workers = 4\nthreads = 4\nbacklog = 4\nport = 4")
    environ = {
        "DAPHNE_SUPERVISOR_WORKERS": "3",
        "DAPHNE_SUPERVISOR_THREADS": "3",
        "WEB_CONCURRENCY": "5",
        "ASGI_THREADS": "5",
    }
    config = read({**file, "workers": ("2",)}, environ)
    assert config.process.workers == 2
    assert config.process.threads == 3
    assert config.bind.backlog == 4
    assert config.http.keep_alive == 75.0
    assert read(file, {"WEB_CONCURRENCY": "5"}).process.workers == 4
    assert read({}, {"WEB_CONCURRENCY": "5", "ASGI_THREADS": "6"}).process.threads == 6


def test_only_the_winner_is_read() -> None:
    """A bad value that a flag overrules does no harm."""
    assert read({"workers": ("2",)}, {"WEB_CONCURRENCY": "?"}).process.workers == 2


@pytest.mark.parametrize(
    ("flags", "environ", "line"),
    [
        ({"port": ("x",)}, {}, "--port: 'x' is not a port number (0 to 65535)"),
        (
            {},
            {"DAPHNE_SUPERVISOR_PORT": "x"},
            "DAPHNE_SUPERVISOR_PORT: 'x' is not a port number (0 to 65535)",
        ),
        (
            {},
            {"WEB_CONCURRENCY": "x"},
            "WEB_CONCURRENCY: 'x' is not a number of workers (1 or more, or auto)",
        ),
    ],
)
def test_a_mistake_is_reported_under_the_name_it_was_made_with(
    flags: dict[str, tuple[str, ...]], environ: dict[str, str], line: str
) -> None:
    """One knows where to look: at the flag or at the variable."""
    assert complaint(flags, environ) == line


def test_of_a_flag_given_twice_the_last_counts() -> None:
    """So that a wrapper's flags can be overruled by adding to them."""
    assert read({"port": ("1", "2")}).bind.port == 2


def test_repeated_options_add_up() -> None:
    """Endpoints and believed peers may be given one by one, or in a variable with blanks."""
    config = read(
        {"endpoint": ("tcp:1", "tcp:2"), "forwarded-allow-ips": ("10.0.0.1,10.0.0.2", "unix")}
    )
    assert config.bind.endpoints == ("tcp:1", "tcp:2")
    assert config.proxy.forwarded_allow_ips == ("10.0.0.1", "10.0.0.2", "unix")
    environ = {"DAPHNE_SUPERVISOR_ENDPOINT": " tcp:1 tcp:2 "}
    assert read({}, environ).bind.endpoints == ("tcp:1", "tcp:2")


def test_a_blank_variable_counts_as_not_set() -> None:
    """Platforms spell "no value" so; only where empty means something it is a value."""
    environ = {
        "DAPHNE_SUPERVISOR_PORT": "",
        "DAPHNE_SUPERVISOR_WORKERS": "  ",
        "WEB_CONCURRENCY": " ",
        "DAPHNE_SUPERVISOR_SERVER_NAME": "",
    }
    config = read({}, environ)
    assert config.bind.port is None
    assert config.process.workers == 1
    assert config.http.server_name == ""


def test_workers_may_be_counted() -> None:
    """The word auto asks for as many as there are processors, and the reason is kept."""
    for config in (read({"workers": ("auto",)}), read({}, {"WEB_CONCURRENCY": "auto"})):
        assert config.process.workers == 3
        assert config.process.workers_reason == "three of them"
    assert read({"workers": ("2",)}).process.workers_reason == ""


def test_threads_are_counted_unless_somebody_has_chosen() -> None:
    """Four more than processors, which mostly wait; 0 is a choice too."""
    assert read({}).process.threads == 7
    assert read({"workers": ("auto",)}).process.threads == 7
    assert read({"threads": ("0",), "workers": ("auto",)}).process.threads == 0
    assert read({"threads": ("9",)}).process.threads == 9
    many = Recipe(APPLICATION, {}, lambda: (64, ""))
    assert many.read().process.threads == 32


@pytest.mark.parametrize("key", ["proxy-headers-host", "proxy-headers-port"])
def test_a_header_for_proxies_needs_the_switch(key: str) -> None:
    """As with Daphne, naming the header alone is a mistake, and one line says so."""
    assert complaint({key: ("X-Real-IP",)}) == f"--{key}: needs --proxy-headers as well"
    config = read({key: ("X-Real-IP",), "proxy-headers": ("yes",)})
    assert config.proxy.proxy_headers
    assert "X-Real-IP" in {config.proxy.proxy_headers_host, config.proxy.proxy_headers_port}


@pytest.mark.parametrize(
    ("key", "value", "company", "given"),
    [
        ("keyfile", "k.pem", "--certfile", {"certfile": ("c.pem",)}),
        (
            "ca-certs",
            "ca.pem",
            "--client-certs optional or required",
            {"client-certs": ("optional",)},
        ),
        ("client-certs", "required", "--ca-certs", {"ca-certs": ("ca.pem",)}),
    ],
)
def test_what_does_nothing_alone_is_a_mistake(
    key: str, value: str, company: str, given: dict[str, tuple[str, ...]]
) -> None:
    """It would be taken for protection that is not there."""
    assert complaint({key: (value,)}) == f"--{key}: needs {company} as well"
    assert read({key: (value,), **given})
    assert read({"client-certs": ("none",)}).tls.client_certs == "none"


def test_daphnes_scopes_are_no_matter_of_wsgi() -> None:
    """Such an application sees no scope, whoever makes it."""
    compatible = {"daphne-compat": ("yes",)}
    expected = "--daphne-compat: needs --interface auto, asgi3 or asgi2 as well"
    assert complaint(compatible | {"interface": ("wsgi",)}) == expected
    assert read(compatible | {"interface": ("asgi2",)}).app.daphne_compat
    assert read(compatible).app.interface == "auto"


def test_without_http2_it_is_not_offered() -> None:
    """And a list on which it stands alone has nothing left."""
    assert read({}).tls.alpn == ("h2", "http/1.1")
    assert read({"http2": ("no",)}).tls.alpn == ("http/1.1",)
    assert read({"http2": ("no",), "alpn": ("h2,http/1.1",)}).tls.alpn == ("http/1.1",)
    expected = "--alpn: needs http/1.1, or --http2 as well"
    assert complaint({"http2": ("no",), "alpn": ("h2",)}) == expected


def test_variables_that_mean_nothing_are_found() -> None:
    """A typing error can be warned of; names of ours and of other programs are left out."""
    environ = {"DAPHNE_SUPERVISOR_PORT": "1", "DAPHNE_SUPERVISOR_PROT": "1", "PATH": "/bin"}
    assert unknown_variables(environ) == ["DAPHNE_SUPERVISOR_PROT"]


def test_all_options_are_known_by_name() -> None:
    """The application comes first, and no section is missing."""
    names = [option.name for option in every_option()]
    assert names[0] == "APPLICATION"
    assert {"--chdir", "--bind", "--workers", "--keep-alive", "--ping-interval"} < set(names)
    assert {"--proxy-headers", "--verbosity"} < set(names)


# The file


def test_a_file_has_the_long_names_as_keys(tmp_path: Path) -> None:
    """Numbers, strings, switches and lists are written as TOML has them."""
    path = tmp_path / "d.toml"
    text = """
        application = "c:d"
        port = 9000
        keep-alive = 7.5
        proxy-headers = true
        server-name = ""
        websocket-timeout = 60
        endpoint = ["tcp:1", "tcp:2"]
        forwarded-allow-ips = "10.0.0.1, unix"
    """
    config = Recipe(toml(path, text), {}, count).read()
    assert config.application == "c:d"
    assert config.bind.port == 9000
    assert config.http.keep_alive == 7.5
    assert config.proxy.proxy_headers is True
    assert config.http.server_name == ""
    assert config.websocket.websocket_timeout == 60
    assert config.bind.endpoints == ("tcp:1", "tcp:2")
    assert config.proxy.forwarded_allow_ips == ("10.0.0.1", "unix")
    assert config.app.config_file == str(path)


def test_a_variable_can_name_the_file(tmp_path: Path) -> None:
    """A container's image can bring its file without a command line."""
    (path,) = toml(tmp_path / "d.toml", "port = 1")["config"]
    assert read({}, {"DAPHNE_SUPERVISOR_CONFIG": path}).bind.port == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("port = 'x'", ":1: port: 'x' is not a port number (0 to 65535)"),
        ("\nport = 1.0", ":2: port: '1.0' is not a port number (0 to 65535)"),
        ("config = 'other.toml'", ":1: config: no such option"),
        ("proxy-headers-host = 'X'", ":1: proxy-headers-host: needs --proxy-headers as well"),
    ],
)
def test_a_mistake_in_a_file_names_file_line_and_key(tmp_path: Path, text: str, line: str) -> None:
    """One finds the place without searching."""
    assert complaint(toml(tmp_path / "d.toml", text)) == f"{tmp_path}/d.toml{line}"


@pytest.mark.parametrize("name", ["config", "env-file"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    """The flag or the variable that named it stands before it."""
    path = f"{tmp_path}/none"
    variable = f"DAPHNE_SUPERVISOR_{name.upper().replace('-', '_')}"
    for line, origin in (
        (complaint({name: (path,)}), f"--{name}"),
        (complaint({}, {variable: path}), variable),
    ):
        assert line == f"{origin} {path}: cannot be read: No such file or directory"


@pytest.mark.parametrize("name", ["config", "env-file", "chdir"])
def test_a_file_without_a_name_is_a_mistake(name: str) -> None:
    """What names nothing is refused before anything is opened."""
    assert complaint({"config": ("x",), name: ("",)}) == f"--{name}: '' is not a path"


def test_a_file_is_read_again_each_time(tmp_path: Path) -> None:
    """A recipe gives what the files say today, and a mistake in them breaks no later reading."""
    path = tmp_path / "d.toml"
    recipe = Recipe({**APPLICATION, **toml(path, "port = 1")}, {}, count)
    assert recipe.read().bind.port == 1
    path.write_text("port = ?")
    with pytest.raises(UsageError, match="is no TOML"):
        recipe.read()
    path.write_text("port = 2")
    assert recipe.read().bind.port == 2


# The environment file


def env(path: Path, text: str) -> dict[str, tuple[str, ...]]:
    """Write an environment file and return the flag that names it."""
    path.write_text(text)
    return {"env-file": (str(path),)}


def test_an_environment_file_is_for_the_application_and_for_us(tmp_path: Path) -> None:
    """The application gets its variables; those of ours count as if they were set."""
    config = read(env(tmp_path / "env", "SECRET=x y\nDAPHNE_SUPERVISOR_PORT=1\nASGI_THREADS=3"))
    assert dict(config.app.environment) == {
        "SECRET": "x y",
        "DAPHNE_SUPERVISOR_PORT": "1",
        "ASGI_THREADS": "3",
    }
    assert config.bind.port == 1
    assert config.process.threads == 3
    assert "x y" not in repr(config), "it may be logged"


def test_the_process_s_own_environment_wins(tmp_path: Path) -> None:
    """One variable can be overruled without writing a file; set to nothing it is set."""
    file = env(tmp_path / "env", "A=file\nB=file\nDAPHNE_SUPERVISOR_PORT=1\nWEB_CONCURRENCY=3")
    environ = {"A": "own", "B": "", "DAPHNE_SUPERVISOR_PORT": "2", "WEB_CONCURRENCY": "5"}
    config = read(file, environ)
    assert config.app.environment == ()
    assert config.bind.port == 2
    assert config.process.workers == 5


def test_where_the_own_environment_says_nothing_the_file_counts(tmp_path: Path) -> None:
    """A variable that is set to nothing is no value for an option."""
    file = env(tmp_path / "env", "DAPHNE_SUPERVISOR_PORT=1")
    assert read(file, {"DAPHNE_SUPERVISOR_PORT": ""}).bind.port == 1


def test_the_environment_file_wins_over_the_configuration_file(tmp_path: Path) -> None:
    """It is the environment, wherever it was read."""
    files = toml(tmp_path / "d.toml", "port = 1\nthreads = 2\nworkers = 4")
    files |= env(tmp_path / "env", "DAPHNE_SUPERVISOR_PORT=3\nWEB_CONCURRENCY=5")
    config = read(files)
    assert (config.bind.port, config.process.threads, config.process.workers) == (3, 2, 4)
    assert read({**files, "port": ("4",)}).bind.port == 4


def test_an_environment_file_can_name_the_configuration_file(tmp_path: Path) -> None:
    """Both orders work: here the environment is known first."""
    (path,) = toml(tmp_path / "d.toml", "port = 1")["config"]
    assert read(env(tmp_path / "env", f"DAPHNE_SUPERVISOR_CONFIG={path}")).bind.port == 1


def test_a_configuration_file_can_name_the_environment_file(tmp_path: Path) -> None:
    """Then the environment still wins over the file that named it."""
    env(tmp_path / "env", "A=1\nDAPHNE_SUPERVISOR_PORT=2\nDAPHNE_SUPERVISOR_CONFIG=/none")
    text = f"env-file = '{tmp_path}/env'\nport = 1"
    config = read(toml(tmp_path / "d.toml", text))
    assert dict(config.app.environment)["A"] == "1"
    assert config.bind.port == 2
    assert config.app.env_file == f"{tmp_path}/env"
    assert config.app.config_file == f"{tmp_path}/d.toml"


def test_an_environment_file_that_names_itself_is_read_once(tmp_path: Path) -> None:
    """A service manager may have read the same file; what has led to it is what counts."""
    file = env(tmp_path / "env", "DAPHNE_SUPERVISOR_ENV_FILE=/none\nA=1")
    config = read(file)
    assert config.app.environment == (("A", "1"),)
    assert config.app.env_file == f"{tmp_path}/env"


def test_a_mistake_in_an_environment_file_names_file_line_and_variable(tmp_path: Path) -> None:
    """One finds the place without searching."""
    assert complaint(env(tmp_path / "env", "\nDAPHNE_SUPERVISOR_PORT=x")) == (
        f"{tmp_path}/env:2: DAPHNE_SUPERVISOR_PORT: 'x' is not a port number (0 to 65535)"
    )
    assert (
        complaint(env(tmp_path / "env", "X")) == f"{tmp_path}/env:1: is not of the form NAME=value"
    )


# Where paths count from


def placed(directory: Path, **flags: str) -> Config:
    """Return the configuration for a process that was started in `directory`."""
    texts = {name.replace("_", "-"): (text,) for name, text in flags.items()}
    return Recipe({**APPLICATION, **texts}, {}, count, str(directory)).read()


def test_relative_paths_count_from_the_directory_of_the_start(tmp_path: Path) -> None:
    """By its name, whose links lead to a new release after a deploy."""
    for release in ("one", "two"):
        (tmp_path / release).mkdir()
        toml(tmp_path / release / "d.toml", f"server-name = '{release}'\nlog-config = 'log.ini'")
        env(tmp_path / release / "env", f"RELEASE={release}")
    current = tmp_path / "current"
    for release in ("one", "two"):
        current.unlink(missing_ok=True)
        current.symlink_to(release)
        config = placed(current, config="d.toml", env_file="env")
        assert config.http.server_name == release
        assert config.app.environment == (("RELEASE", release),)
        assert config.app.chdir == str(current)
        assert config.log == Log(log_config=f"{current}/log.ini")


def test_relative_paths_count_from_chdir(tmp_path: Path) -> None:
    """Whether a flag or a file says where; a file that says so is itself found without it."""
    (tmp_path / "app").mkdir()
    env(tmp_path / "app/env", "A=1")
    toml(tmp_path / "app/d.toml", "env-file = 'env'")
    toml(tmp_path / "up.toml", "chdir = 'app'\nenv-file = 'env'\nlog-config = 'log.ini'")
    for config in (
        placed(tmp_path, chdir="app", config="d.toml"),
        placed(tmp_path, chdir=f"{tmp_path}/app", env_file="env"),
        placed(tmp_path, config="up.toml"),
    ):
        assert config.app.environment == (("A", "1"),)
        assert config.app.chdir == f"{tmp_path}/app"
    assert config.log.log_config == f"{tmp_path}/app/log.ini"


# What does not go together, and what does not change


@pytest.mark.parametrize(
    ("max_memory", "limit"),
    [(None, 100), (Memory(50), None), (Memory(50), 100), (Memory(percent=90), 100)],
)
def test_limits_that_fit_raise_no_doubts(max_memory: Memory | None, limit: int | None) -> None:
    """A percentage is of what there is, so it always fits."""
    config = Config(
        application="a:b", process=Process(workers=2), recycling=Recycling(max_memory=max_memory)
    )
    assert doubts(config, limit) == []


def test_workers_that_may_use_more_than_the_cgroup_grants_are_doubted() -> None:
    """The kernel would kill before we recycle; the line has the option and the figures."""
    config = Config(
        application="a:b", process=Process(workers=2), recycling=Recycling(max_memory=Memory(51))
    )
    [doubt] = doubts(config, 100)
    assert doubt == (
        "--max-memory 51: for 2 workers that is 102 bytes, and the cgroup grants 100: the kernel"
        " may kill a worker before it is recycled"
    )


def test_what_only_a_restart_can_change_is_named_and_kept() -> None:
    """The rest of the new configuration holds."""
    old = Config(application="a:b", bind=Bind(port=1), process=Process(workers=1, user="a"))
    new = Config(application="c:d", bind=Bind(port=2), process=Process(workers=2, user="b"))
    assert unchangeable(old, new) == ["--port", "--user"]
    assert keep(old, new) == Config(
        application="c:d", bind=Bind(port=1), process=Process(workers=2, user="a")
    )
    assert unchangeable(old, old) == []
    assert keep(old, old) == old


def test_a_broker_that_lives_on_keeps_its_limits() -> None:
    """A reload says that others take a restart."""
    old, new = (Config(application="a:b", channels=Channels(stuck_after=each)) for each in (1, 2))
    assert unchangeable(old, new) == ["--channels-stuck-after"]
    assert keep(old, new) == old


def test_options_that_need_a_restart_exist() -> None:
    """The list cannot name a field that is gone."""
    defaults = {name: section() for name, _, section in SECTIONS}
    for section, names in _UNCHANGEABLE.items():
        assert all(hasattr(defaults[section], name) for name in names)
