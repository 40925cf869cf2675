"""Functions of the user's that are called at turns of the processes' lives: --hooks.

The module is imported once, by the master, before anything is forked. Where each function runs is
as important as when, so each is a method here that says both. What a function may want to know is
passed by keyword; it takes what it wants and `**rest`.

A function that fails is named in the log and changes nothing; only `on_boot` is asked whether the
master may start.

What the module has imported is in the master's memory, hence in everybody's who is forked. With a
module of the project's own that is some of the very code that a reload is to replace, if not the
package that all the rest is found by. So a zygote forgets it, and the application imports it anew.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from daphne_supervisor.errors import BootError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["NAMES", "Hooks"]

_log = logging.getLogger(__name__)

NAMES = (
    "on_boot",
    "before_fork",
    "after_fork",
    "worker_ready",
    "worker_exit",
    "on_reload",
    "on_exit",
)
"""Every function that is looked for in the module."""


class Hooks:
    """The functions that the module has."""

    def __init__(self, module: ModuleType | None = None) -> None:
        """Call the functions of `module`, or none.

        Raises `BootError` when one of the names stands for something that cannot be called.
        """
        self._name = "" if module is None else module.__name__
        self._imported: list[str] = []
        self._functions: dict[str, Any] = {}
        for name in NAMES:
            function = getattr(module, name, None)
            if function is not None and not callable(function):
                message = f"--hooks {self._name}: {name} is no function"
                raise BootError(message)
            if function is not None:
                self._functions[name] = function

    @classmethod
    def load(cls, name: str | None, directory: str) -> Hooks:
        """Import the module `name`, looked for in `directory` first. Raises `BootError`."""
        if name is None:
            return cls()
        before, directory = set(sys.modules), os.path.abspath(directory)
        sys.path.insert(0, directory)
        try:
            module = importlib.import_module(name)
        # SystemExit among them: a module that leaves is a module that fails.
        except BaseException as error:  # noqa: BLE001
            message = f"--hooks {name}: cannot be imported: {_described(error)}"
            raise BootError(message) from None
        finally:
            with contextlib.suppress(ValueError):  # the module may have done so itself
                sys.path.remove(directory)
        hooks = cls(module)
        hooks._imported = [
            one for one in sys.modules.keys() - before if _is_of_project(one, name, directory)
        ]
        return hooks

    def forget(self) -> None:
        """In a zygote: let the application import the project's modules anew."""
        for name in self._imported:
            sys.modules.pop(name, None)

    def on_boot(self, *, application: str) -> None:
        """In the master: the listeners are open, nothing is forked. Raises `BootError`."""
        function = self._functions.get("on_boot")
        if function is None:
            return
        try:
            function(application=application)
        except BaseException as error:  # noqa: BLE001 - as above
            message = f"--hooks {self._name}: on_boot failed: {_described(error)}"
            raise BootError(message) from None

    def before_fork(self, *, slot: int, generation: int) -> None:
        """In the zygote, with the application imported if --preload: before each worker."""
        self._call("before_fork", slot=slot, generation=generation)

    def after_fork(self, *, slot: int, generation: int, pid: int) -> None:
        """In the new worker, before it does anything else."""
        self._call("after_fork", slot=slot, generation=generation, pid=pid)

    def worker_ready(self, *, slot: int, generation: int, pid: int | None) -> None:
        """In the master: the worker accepts connections."""
        self._call("worker_ready", slot=slot, generation=generation, pid=pid)

    def worker_exit(self, *, slot: int, generation: int, pid: int | None, how: str) -> None:
        """In the master: the worker is dead and reaped; `how` is `exit code 0` or its like."""
        self._call("worker_exit", slot=slot, generation=generation, pid=pid, how=how)

    def on_reload(self, *, application: str) -> None:
        """In the master: a reload was asked for, and the configuration is sound."""
        self._call("on_reload", application=application)

    def on_exit(self, *, code: int) -> None:
        """In the master: every worker is gone, and the listeners are closed."""
        self._call("on_exit", code=code)

    def _call(self, name: str, **facts: object) -> None:
        function = self._functions.get(name)
        if function is None:
            return
        try:
            function(**facts)
        except BaseException:  # noqa: BLE001 - as above
            _log.exception("--hooks %s: %s failed", self._name, name)


def _is_of_project(module: str, hooks: str, directory: str) -> bool:
    """Say whether `module` is of the package of the `hooks`, or else lives in `directory`.

    What is installed does not change with a release, and may not stand being imported twice.
    """
    if module.partition(".")[0] == hooks.partition(".")[0]:
        return True
    file = getattr(sys.modules[module], "__file__", None) or ""
    return file.startswith(os.path.join(directory, "")) and "site-packages" not in file


def _described(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
