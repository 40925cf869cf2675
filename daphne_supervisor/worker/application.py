"""From `module:attribute` to a single-callable ASGI application."""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import TYPE_CHECKING, Any

from daphne_supervisor.config import App
from daphne_supervisor.errors import BootError
from daphne_supervisor.worker import interface
from daphne_supervisor.worker.daphne_compat import DaphneScopes

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ApplicationError", "load"]


class ApplicationError(BootError):
    """The application's own code has failed; `traceback` is its story."""

    def __init__(self, message: str, error: BaseException) -> None:
        """Describe the failure `error` in the line `message`."""
        super().__init__(message)
        self.traceback = "".join(
            traceback.format_exception(type(error), error, _own_frames(error.__traceback__))
        )


_OURS = {__file__, importlib.__file__, interface.__file__}


def _own_frames(frames: TracebackType | None) -> TracebackType | None:
    """Return the frames from the first that is neither ours nor the import system's."""
    while frames is not None and (
        frames.tb_frame.f_code.co_filename.startswith("<frozen importlib")
        or frames.tb_frame.f_code.co_filename in _OURS
    ):
        frames = frames.tb_next
    return frames


def load(path: str, app: App | None = None) -> Any:
    """Return the application that `path`, `module:attribute.path`, names, as one of ASGI 3.

    `app` says what it is: which interface it has, whether a factory makes it, whether its scopes
    are to be Daphne's. Raises `BootError` when there is no such module, attribute or callable, or
    when it is something else, `ApplicationError` when its own code fails.
    """
    app = App() if app is None else app
    target = _find(path)
    if app.factory:
        target = _made(path, target)
    application = interface.adapt(path, target, app.interface)
    return DaphneScopes(application) if app.daphne_compat else application


def _find(path: str) -> Any:
    module_name, _, attributes = path.partition(":")
    target = _import(path, module_name)
    for attribute in attributes.split("."):
        try:
            target = getattr(target, attribute)
        except AttributeError:
            message = f"application {path!r}: {module_name!r} has no attribute {attributes!r}"
            raise BootError(message) from None
    if not callable(target):
        message = (
            f"application {path!r}: {attributes!r} is not callable, but {type(target).__name__}"
        )
        raise BootError(message)
    return target


def _made(path: str, factory: Any) -> Any:
    try:
        return interface.make(path, factory)
    except BootError:
        raise
    except BaseException as error:  # noqa: BLE001 - as for a module: what leaves has failed
        failure = f"--factory: {path!r} has failed"
        raise _blamed(failure, error) from None


def _import(path: str, name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(missing + "."):
            message = f"application {path!r}: no module named {missing!r} (--app-dir, --chdir)"
            raise BootError(message) from None
        raise _blamed(_unimportable(path), error) from None
    # SystemExit among them: a module that leaves is a module that fails.
    except BaseException as error:  # noqa: BLE001
        raise _blamed(_unimportable(path), error) from None


def _unimportable(path: str) -> str:
    return f"application {path!r} cannot be imported"


def _blamed(failure: str, error: BaseException) -> ApplicationError:
    what = traceback.format_exception_only(type(error), error)[-1].strip()
    return ApplicationError(f"{failure}: {what}", error)


def put_first_on_path(directory: str) -> None:
    """Let modules be found in `directory` before anywhere else."""
    sys.path.insert(0, directory)
