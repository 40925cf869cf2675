"""What is published installs into an empty environment, is complete, and starts quickly."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import daphne_supervisor

ROOT = Path(__file__).parents[2]
OF_A_WORKER = 0.5
"""The most CPU for --version and --help, of what it takes to load a worker: it is a third."""

# Building and installing takes about a minute, and the first test here pays for it.
pytestmark = pytest.mark.timeout(300)


def _run(*command: str | Path) -> str:
    """Run `command` away from the checkout; fail with its output unless it succeeds."""
    done = subprocess.run(
        command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@dataclass(frozen=True)
class Distributions:
    """The two files that a release consists of."""

    wheel: Path
    sdist: Path


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """Build both: the wheel from the sdist, as `build` does, so the sdist is known to be enough."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return Distributions(wheel, sdist)


@pytest.fixture(scope="module")
def environment(distributions: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the `bin` folder of an environment that holds the wheel and what it asks for.

    Our own pip installs there: nothing is compiled that nobody imports, and no other pip either.
    """
    folder = tmp_path_factory.mktemp("environment")
    _run(sys.executable, "-m", "venv", "--without-pip", folder)
    _pip(folder / "bin", "install", "--quiet", "--no-compile", distributions.wheel)
    return folder / "bin"


def _pip(environment: Path, *arguments: str | Path) -> str:
    """Let our pip work on another environment."""
    there = ("--python", environment / "python")
    return _run(sys.executable, "-m", "pip", *there, *arguments)


def test_the_package_index_would_take_it(distributions: Distributions) -> None:
    """Metadata and README are such that an index accepts and shows them."""
    files = (distributions.wheel, distributions.sdist)
    _run(sys.executable, "-m", "twine", "--no-color", "check", "--strict", *files)


def test_the_wheel_holds_the_package_and_nothing_else(distributions: Distributions) -> None:
    """Every module is in the wheel, with the mark that it is typed; no test, no example."""
    names = set(zipfile.ZipFile(distributions.wheel).namelist())
    package = {name for name in names if ".dist-info/" not in name}
    modules = {str(path.relative_to(ROOT)) for path in ROOT.glob("daphne_supervisor/**/*.py")}
    assert package == modules | {"daphne_supervisor/py.typed"}
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_the_sdist_holds_what_a_packager_needs(distributions: Distributions) -> None:
    """Sources, tests, documentation and deployment files are in it; nothing of a working copy."""
    with tarfile.open(distributions.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        "CHANGELOG.md",
        "LICENSE",
        "Makefile",
        "README.md",
        "daphne_supervisor/cli.py",
        "deploy/nginx.conf",
        "examples/live/manage.py",
        "pyproject.toml",
        "tests/conftest.py",
    }
    assert wanted <= names
    litter = (".pyc", ".sqlite3", ".sqlite3-wal", ".sqlite3-shm", ".git/", ".venv/")
    assert not {name for name in names if name.endswith(litter) or name.startswith(litter)}


def test_the_requirements_agree(environment: Path) -> None:
    """The wheel's requirements can all be met at once, and are."""
    assert "No broken requirements" in _pip(environment, "check")


def test_it_runs_with_its_runtime_requirements_alone(environment: Path) -> None:
    """The console script and `-m` answer alike, with the version of the source."""
    version = _run(environment / "daphne-supervisor", "--version")
    assert daphne_supervisor.__version__ in version
    assert _run(environment / "python", "-m", "daphne_supervisor", "--version") == version


_IMPORT = """
import importlib
for name in {modules}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        print(name, "wants", error.name.partition(".")[0])
"""


def test_every_module_imports_with_the_runtime_requirements_alone(environment: Path) -> None:
    """But for those that Django, Channels or pytest ask for: who has no such thing has no use."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in ROOT.glob("daphne_supervisor/**/*.py")
        if path.stem not in {"__init__", "__main__"}
    ]
    assert len(modules) > 100
    said = _run(environment / "python", "-c", _IMPORT.format(modules=sorted(modules)))
    wants = dict(line.split(" wants ") for line in said.splitlines())
    assert set(wants.values()) == {"channels", "django", "pytest"}
    for_others = [  # tests/architecture says which want Django
        name
        for name in wants
        if not name.startswith(("daphne_supervisor.channels.", "daphne_supervisor.management."))
        and name.count(".") > 1
    ]
    assert for_others == []


def _cpu(*command: str | Path) -> float:
    """Return the seconds of CPU, user and system, that `command` took."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_a_question_is_answered_at_once(environment: Path, option: str) -> None:
    """Neither question loads the server: the best of three runs takes far less CPU than that."""
    asked: tuple[str | Path, ...] = (environment / "daphne-supervisor", option)
    loaded = (environment / "python", "-c", "import daphne_supervisor.worker.main")
    pairs = [(_cpu(*asked), _cpu(*loaded)) for _ in range(3)]  # in turn: the machine's pace varies
    assert min(a for a, _ in pairs) < OF_A_WORKER * min(b for _, b in pairs)
