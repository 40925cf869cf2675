"""The user's functions: found, called with what they may want to know, and harmless."""

from __future__ import annotations

import logging
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from daphne_supervisor.errors import BootError
from daphne_supervisor.hooks import NAMES, Hooks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FACTS: dict[str, dict[str, Any]] = {
    "on_boot": {"application": "shop.asgi:application"},
    "before_fork": {"slot": 1, "generation": 2},
    "after_fork": {"slot": 1, "generation": 2, "pid": 3},
    "worker_ready": {"slot": 1, "generation": 2, "pid": 3},
    "worker_exit": {"slot": 1, "generation": 2, "pid": None, "how": "exit code 0"},
    "on_reload": {"application": "shop.asgi:application"},
    "on_exit": {"code": 0},
}


@pytest.fixture(autouse=True)
def same_modules() -> Iterator[None]:
    """Forget what a test has imported."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    assert sys.path == path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def module(**attributes: object) -> ModuleType:
    """Return a module with these attributes."""
    made = ModuleType("shop_hooks")
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def test_every_name_is_tried() -> None:
    """The table of the tests is the table of the module."""
    assert tuple(FACTS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_function_is_called_with_all_the_facts(name: str) -> None:
    """By keyword, so that it takes what it wants."""
    heard: list[dict[str, Any]] = []
    hooks = Hooks(module(**{name: lambda **facts: heard.append(facts)}))
    for each, facts in FACTS.items():
        getattr(hooks, each)(**facts)
    assert heard == [FACTS[name]]


def test_without_a_module_nothing_is_called() -> None:
    """Hooks are for people who need them."""
    hooks = Hooks.load(None, ".")
    for name, facts in FACTS.items():
        getattr(hooks, name)(**facts)
    hooks.forget()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "on_boot"])
@pytest.mark.parametrize("error", [ValueError("spilt milk"), SystemExit(1), KeyboardInterrupt()])
def test_a_function_that_fails_is_named_and_changes_nothing(
    name: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the module, the function and the traceback; nobody else notices."""

    def fail(**_: object) -> None:
        raise error

    with caplog.at_level(logging.ERROR):
        getattr(Hooks(module(**{name: fail})), name)(**FACTS[name])
    assert f"--hooks shop_hooks: {name} failed" in caplog.text
    assert type(error).__name__ in caplog.text


def test_a_function_that_does_not_take_the_facts_fails_like_any_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A missing `**rest` is told, too."""
    Hooks(module(on_exit=lambda: None)).on_exit(code=0)
    assert "on_exit failed" in caplog.text
    assert "unexpected keyword argument 'code'" in caplog.text


@pytest.mark.parametrize("error", [ValueError("no\nlicence"), SystemExit("no licence")])
def test_on_boot_may_refuse(error: BaseException) -> None:
    """It is asked whether the master may start, and its reason is one line."""

    def refuse(**_: object) -> None:
        raise error

    with pytest.raises(BootError) as caught:
        Hooks(module(on_boot=refuse)).on_boot(application="shop.asgi:application")
    assert str(caught.value) == (
        f"--hooks shop_hooks: on_boot failed: {type(error).__name__}: no licence"
    )


def test_a_name_that_stands_for_something_else_is_refused() -> None:
    """A slip is found at the start, not when a worker dies at night."""
    with pytest.raises(BootError, match="--hooks shop_hooks: worker_exit is no function"):
        Hooks(module(worker_exit="page somebody"))


# Loading


def test_a_module_is_found_in_the_directory_first(tmp_path: Path) -> None:
    """And the path is as it was before."""
    (tmp_path / "shop_hooks.py").write_text(
        "def on_exit(*, code):\n    said.append(code)\nsaid = []"
    )
    hooks = Hooks.load("shop_hooks", str(tmp_path))
    hooks.on_exit(code=7)
    assert sys.modules["shop_hooks"].said == [7]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(4)", "SystemExit: 4"),
        ("def f(:", "SyntaxError: "),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("on_exit = 5", "on_exit is no function"),
    ],
)
def test_a_module_that_cannot_be_used_is_one_line(tmp_path: Path, code: str, words: str) -> None:
    """The option is named, and the reason."""
    (tmp_path / "shop_hooks.py").write_text(code)
    with pytest.raises(BootError) as caught:
        Hooks.load("shop_hooks", str(tmp_path))
    assert str(caught.value).startswith("--hooks shop_hooks: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_may_change_the_path_itself(tmp_path: Path) -> None:
    """What it has put there stays, and our entry goes, wherever it is then."""
    (tmp_path / "shop_hooks.py").write_text("import sys\nsys.path.insert(0, '/somewhere')\n")
    Hooks.load("shop_hooks", str(tmp_path))
    assert sys.path.pop(0) == "/somewhere"
    assert str(tmp_path) not in sys.path
    (tmp_path / "other_hooks.py").write_text(f"import sys\nsys.path.remove({str(tmp_path)!r})\n")
    Hooks.load("other_hooks", str(tmp_path))
    assert str(tmp_path) not in sys.path


# What a zygote forgets


def test_a_reload_brings_new_code_of_what_the_hooks_have_imported(tmp_path: Path) -> None:
    """The package of the hooks, and modules beside it; hooks go on with what they have."""
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("version = 1\n")
    (package / "hooks.py").write_text(
        "import shop, shop_settings\ndef on_exit(**_):\n    raise ValueError(shop.version)\n"
    )
    (tmp_path / "shop_settings.py").write_text("")
    hooks = Hooks.load("shop.hooks", str(tmp_path))
    assert {"shop", "shop.hooks", "shop_settings"} <= set(sys.modules)
    hooks.forget()
    assert not {"shop", "shop.hooks", "shop_settings"} & set(sys.modules)
    hooks.forget()


def test_hooks_work_after_their_module_was_forgotten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A function keeps its own globals."""
    (tmp_path / "shop_hooks.py").write_text(
        "import logging\ndef on_exit(*, code):\n    logging.error('left with %d', code)\n"
    )
    hooks = Hooks.load("shop_hooks", str(tmp_path))
    hooks.forget()
    hooks.on_exit(code=7)
    assert "left with 7" in caplog.text


def test_what_is_installed_and_what_was_there_is_kept(tmp_path: Path) -> None:
    """A library may not stand being imported twice, and does not change with a release."""
    installed = tmp_path / ".venv" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "shop_library.py").write_text("")
    (tmp_path / "shop_hooks.py").write_text(
        "import sys, wave\n"
        f"sys.path.insert(0, {str(installed)!r})\nimport shop_library\nsys.path.pop(0)\n"
    )
    sys.modules.pop("wave", None)
    Hooks.load("shop_hooks", str(tmp_path)).forget()
    assert {"shop_library", "wave", "logging"} <= set(sys.modules)
    assert "shop_hooks" not in sys.modules
