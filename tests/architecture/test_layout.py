"""Where things stand, and what every test keeps to."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "daphne_supervisor"
TESTS = ROOT / "tests"
# They hold no logic: a version, a call. The line count below keeps them so.
WITHOUT_OWN_TEST = {"__init__.py", "__main__.py"}
LONGEST_WITHOUT_OWN_TEST = 20

WORLD = {"os", "signal", "socket", "time"}

FILES = sorted(TESTS.rglob("test_*.py"))
SOURCES = sorted(TESTS.rglob("*.py"))


def _relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _expected() -> dict[Path, Path]:
    """Return for each module the one unit test file that is its own."""
    return {
        path: TESTS / "unit" / path.relative_to(PACKAGE).with_name(f"test_{path.name}")
        for path in PACKAGE.rglob("*.py")
        if path.name not in WITHOUT_OWN_TEST
    }


def _functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return the test functions and methods in the file at `path`."""
    return [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    ]


def _calls(path: Path) -> list[tuple[str, str]]:
    """Return what the file at `path` calls, and with which first argument, as they are written."""
    return [
        (ast.unparse(node.func), ast.unparse(node.args[0]) if node.args else "")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]


def test_every_module_has_its_own_unit_test() -> None:
    """The unit tests mirror the package, so it is always known where a test belongs."""
    assert [_relative(own) for own in _expected().values() if not own.is_file()] == []


def test_every_unit_test_has_its_module() -> None:
    """A unit test whose module is gone or renamed is found, not forgotten."""
    stale = set((TESTS / "unit").rglob("test_*.py")) - set(_expected().values())
    assert [_relative(path) for path in sorted(stale)] == []


def test_modules_without_a_test_hold_no_logic() -> None:
    """What needs no test of its own stays too small to need one."""
    long = {
        _relative(path)
        for path in PACKAGE.rglob("*.py")
        if path.name in WITHOUT_OWN_TEST
        and len(path.read_text().splitlines()) > LONGEST_WITHOUT_OWN_TEST
    }
    assert long == set()


@pytest.mark.parametrize("path", FILES, ids=_relative)
def test_every_test_says_what_it_promises(path: Path) -> None:
    """A test's docstring is the promise that it keeps."""
    assert [node.name for node in _functions(path) if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("path", SOURCES, ids=_relative)
def test_no_test_sleeps(path: Path) -> None:
    """Tests wait for an announcement, never for a time that is hoped to be enough.

    The applications that tests serve may be slow on purpose.
    """
    if path.stem.startswith("apps") or path.stem.endswith("_app"):
        return
    assert [called for called, _ in _calls(path) if called.rpartition(".")[2] == "sleep"] == []


@pytest.mark.parametrize("path", SOURCES, ids=_relative)
def test_no_test_patches_the_world(path: Path) -> None:
    """Fakes are code behind our own ports; nobody rewrites `os` or `socket` from a test."""
    tree = ast.parse(path.read_text())
    names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not {name for name in names if "mock.patch" in name}
    patched = {what for called, what in _calls(path) if called.endswith("monkeypatch.setattr")}
    assert not {what for what in patched if what.strip("\"'").partition(".")[0] in WORLD}


def _tools(path: Path) -> set[str]:
    """Return the programs that the file at `path` asks for, as `program:package`."""
    return {
        ":".join(ast.literal_eval(argument) for argument in node.args)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "tool"
    }


def test_the_packages_of_every_program_are_installed() -> None:
    """What a test runs and what `.ci/packages` installs is the same list."""
    listed = re.search(r'needed="(.*?)"', (ROOT / ".ci" / "packages").read_text(), re.DOTALL)
    assert listed is not None
    assert set().union(*(_tools(path) for path in SOURCES)) == set(listed.group(1).split())
