"""Functions of the user's that are called at turns of the processes' lives: --hooks.

The module is imported once, by the master, before anything is forked. Where each function runs is
as important as when, so each is a method here that says both. What a function may want to know is
passed by keyword; it takes what it wants and `**rest`.

A function that fails is named in the log and changes nothing; only `on_boot` is asked whether the
master may start.
"""

from __future__ import annotations

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
        sys.path.insert(0, os.path.abspath(directory))
        try:
            module = importlib.import_module(name)
        # SystemExit among them: a module that leaves is a module that fails.
        except BaseException as error:  # noqa: BLE001
            message = f"--hooks {name}: cannot be imported: {_described(error)}"
            raise BootError(message) from None
        finally:
            sys.path.pop(0)
        return cls(module)

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
        """In the master: every worker is gone, the listeners are still open."""
        self._call("on_exit", code=code)

    def _call(self, name: str, **facts: object) -> None:
        function = self._functions.get(name)
        if function is None:
            return
        try:
            function(**facts)
        except BaseException:
            _log.exception("--hooks %s: %s failed", self._name, name)


def _described(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
