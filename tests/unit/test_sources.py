"""Where the configuration comes from: the command line, the environment, a file, the defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from daphne_supervisor.config import Config
from daphne_supervisor.errors import UsageError
from daphne_supervisor.sources import configuration, every_option, unknown_variables

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
    return configuration({**APPLICATION, **(flags or {})}, environ or {}, count)


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
    assert read() == Config(application="a:b")


def test_without_an_application_there_is_nothing_to_serve() -> None:
    """The line says what is missing and how it is written."""
    with pytest.raises(UsageError, match=r"^APPLICATION is missing"):
        configuration({}, {}, count)


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


@pytest.mark.parametrize("key", ["proxy-headers-host", "proxy-headers-port"])
def test_a_header_for_proxies_needs_the_switch(key: str) -> None:
    """As with Daphne, naming the header alone is a mistake, and one line says so."""
    assert complaint({key: ("X-Real-IP",)}) == f"--{key}: needs --proxy-headers as well"
    config = read({key: ("X-Real-IP",), "proxy-headers": ("yes",)})
    assert config.proxy.proxy_headers
    assert "X-Real-IP" in {config.proxy.proxy_headers_host, config.proxy.proxy_headers_port}


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
    config = configuration(toml(path, text), {}, count)
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


def test_in_a_project_file_there_is_a_table_for_us(tmp_path: Path) -> None:
    """Other tools' tables in pyproject.toml are none of our business."""
    text = "[project]\nname = 'x'\n[tool.daphne-supervisor]\nport = 1"
    assert read(toml(tmp_path / "pyproject.toml", text)).bind.port == 1


@pytest.mark.parametrize("text", ["[tool.other]", "tool = 3", "", "tool.daphne-supervisor = 1"])
def test_a_project_file_without_our_table_is_a_mistake(tmp_path: Path, text: str) -> None:
    """Who names a file means that something is in it."""
    file = toml(tmp_path / "pyproject.toml", text)
    assert complaint(file) == (
        f"--config {tmp_path}/pyproject.toml: has no table [tool.daphne-supervisor]"
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("port = 'x'", "port: 'x' is not a port number (0 to 65535)"),
        ("port = 1.0", "port: '1.0' is not a port number (0 to 65535)"),
        ("port = true", "port: must be a string or a number"),
        ("port = [1]", "port: must be a string or a number"),
        ("port = 2020-02-02", "port: must be a string or a number"),
        ("proxy-headers = 'yes'", "proxy-headers: must be true or false"),
        ("endpoint = [1]", "endpoint: must be a string or a list of strings"),
        ("endpoint = false", "endpoint: must be a string or a list of strings"),
        ("prot = 1", "prot: no such option"),
        ("config = 'other.toml'", "config: no such option"),
        ("[http]\nkeep-alive = 1", "http: no such option"),
        ("proxy-headers-host = 'X'", "proxy-headers-host: needs --proxy-headers as well"),
    ],
)
def test_a_mistake_in_a_file_names_file_and_key(tmp_path: Path, text: str, line: str) -> None:
    """One finds the place without searching."""
    assert complaint(toml(tmp_path / "d.toml", text)) == f"{tmp_path}/d.toml: {line}"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The flag or the variable that named it stands before it."""
    path = str(tmp_path / "none.toml")
    for line, name in (
        (complaint({"config": (path,)}), "--config"),
        (complaint({}, {"DAPHNE_SUPERVISOR_CONFIG": path}), "DAPHNE_SUPERVISOR_CONFIG"),
    ):
        assert line == f"{name} {path}: cannot be read: No such file or directory"


@pytest.mark.parametrize("content", [b"port =", b"\xff"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    """The parser's own words say where it stumbled."""
    path = tmp_path / "d.toml"
    path.write_bytes(content)
    assert complaint({"config": (str(path),)}).startswith(f"--config {path}: is no TOML: ")
