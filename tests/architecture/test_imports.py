"""Who may import whom: the three laws of the architecture, read from the source and from processes.

The source is read with `ast`, functions' bodies included, because a late import is an import too.
What stands under `if TYPE_CHECKING:` never runs and is left out.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.daphne import Daphne

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "daphne_supervisor"
PURE = (
    "activation",
    "broker.frames",
    "broker.peers",
    "broker.queues",
    "broker.switchboard",
    "channels.letters",
    "channels.mailboxes",
    "channels.messages",
    "endpoints",
    "messages",
    "notation",
    "master.fates",
    "master.herald",
    "master.model",
    "master.orders",
    "master.policy",
    "master.pool",
    "master.reloads",
    "master.rollout",
    "master.roster",
    "master.snapshot",
    "master.stopping",
    "master.succession",
    "master.supervisor",
    "worker.fairness",
    "worker.h2c",
    "worker.head",
    "worker.head_http2",
    "worker.http1",
    "worker.http1_parser",
    "worker.http2",
    "worker.http2_fields",
    "worker.http2_frames",
    "worker.http2_limits",
    "worker.http2_reader",
    "worker.http2_requests",
    "worker.http2_response",
    "worker.http2_responses",
    "worker.http2_sender",
    "worker.http2_tunnel",
    "worker.proxy_protocol",
    "worker.response",
    "worker.response_fields",
    "worker.scope",
    "worker.waist",
)
WORLD = {
    "asyncio",
    "logging",
    "os",
    "random",
    "selectors",
    "signal",
    "socket",
    "threading",
    "time",
    "twisted",
}
VENDORS = ("autobahn", "cryptography", "h2", "hpack", "uvloop")
FOR_DJANGO = {
    "apps",
    "checks",
    "development",
    "django_site",
    "management.commands.runserver",
    "management.commands.serve",
    "watching",
}
"""What Django, or a project's own test, asks for; nothing else of the package may need Django."""
NOT_IN_MASTER = ("asyncio", "autobahn", "ssl", "twisted", "uvloop")


def _name(path: Path) -> str:
    """Return the dotted name of the module at `path`, without the package in front."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


SOURCES = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the import statements below `node` that can run."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif _is_type_checking(child):
            for rest in child.orelse:
                yield from _statements(rest)
        else:
            yield from _statements(child)


def _imports(source: str) -> set[str]:
    """Return every dotted name that `source` may import, `from a import b` as `a` and `a.b`."""
    names: set[str] = set()
    for node in _statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        else:
            assert node.level == 0, f"relative import in line {node.lineno}"
            assert node.module is not None
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def _graph() -> dict[str, set[str]]:
    return {name: _imports(path.read_text()) for name, path in SOURCES.items()}


def _tops(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def _knows(names: set[str], half: str) -> bool:
    own = f"daphne_supervisor.{half}"
    return any(name == own or name.startswith(f"{own}.") for name in names)


def test_imports_are_read_as_meant() -> None:
    """The reader itself sees late imports and both spellings, and passes over TYPE_CHECKING."""
    source = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import socket
def late():
    from a.b import c
    import d.e
"""
    assert _imports(source) == {"typing", "typing.TYPE_CHECKING", "a.b", "a.b.c", "d.e"}


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_do_not_know_the_world(name: str) -> None:
    """A pure module has no clock, socket, process or reactor, so its test needs none."""
    assert not _tops(_imports(SOURCES[name].read_text())) & WORLD


def test_only_the_command_line_knows_both_halves() -> None:
    """The master knows processes, the worker protocols; they meet in `cli` and nowhere else."""
    graph = _graph()
    masters = {name for name, names in graph.items() if _knows(names, "master")}
    workers = {name for name, names in graph.items() if _knows(names, "worker")}
    assert masters & workers == {"cli"}
    assert not {name for name in masters if name.startswith("worker.")}
    assert not {name for name in workers if name.startswith("master.")}


def test_each_foreign_protocol_library_has_one_door() -> None:
    """A library that could be replaced one day is imported by exactly one module."""
    doors = defaultdict(set)
    for name, names in _graph().items():
        for vendor in _tops(names) & set(VENDORS):
            doors[vendor].add(name)
    assert {vendor: names for vendor, names in doors.items() if len(names) != 1} == {}


def test_only_what_django_asks_for_imports_django() -> None:
    """The package works without it; `pytest_plugin` asks for it inside a function, when told to."""
    own = {f"daphne_supervisor.{name}" for name in FOR_DJANGO}
    graph = _graph()
    assert {name for name, names in graph.items() if "django" in _tops(names)} == FOR_DJANGO
    assert {name for name, names in graph.items() if names & own} - FOR_DJANGO == {"pytest_plugin"}


def test_no_module_has_a_name_that_says_nothing() -> None:
    """A module is named by what it is; a drawer for the rest attracts the rest."""
    drawers = {"base", "common", "helpers", "misc", "utils"}
    assert not {name for name in SOURCES if name.rpartition(".")[2] in drawers}


def _closure(*modules: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter holds after importing `modules`."""
    code = f"import sys, json, {', '.join(modules)}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return _tops(set(json.loads(done.stdout)))


def test_the_command_line_and_the_master_load_no_network_stack() -> None:
    """Whatever the master imports, directly or not, is without reactor, event loop and TLS."""
    loaded = _closure("daphne_supervisor.cli", "daphne_supervisor.master.master")
    assert not loaded & set(NOT_IN_MASTER)


def _mapped(pid: int) -> set[str]:
    """Return the names of the shared objects in the memory of process `pid`."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.rpartition("/")[2].partition(".")[0] for line in lines if ".so" in line}


def _extensions() -> set[str]:
    """Return the extension modules to look for: those that are files of their own here.

    Some builds of Python link `_ssl` and `_asyncio` into the executable, where no map shows them.
    """
    found = {"loop"}  # uvloop's
    for name in ("_asyncio", "_ssl"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.has_location:
            found.add(name)
    return found


def test_the_running_master_has_no_network_stack_in_its_memory() -> None:
    """A live master with ready workers maps none of the libraries that its workers map."""
    with Daphne("tests.support.apps:hello", "--workers", "1") as server:
        wanted = _extensions()
        children = psutil.Process(server.pid).children()
        assert any(wanted <= _mapped(child.pid) for child in children), "they cannot be seen here"
        assert not wanted & _mapped(server.pid)
