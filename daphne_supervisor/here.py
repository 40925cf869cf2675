"""The working directory, by the name under which it was entered.

The kernel knows a working directory without the symbolic links that led to it. A release is often
such a link, `current`, which a deploy points elsewhere: who wants to follow it has to remember its
name. Shells leave that name in PWD. The variable is believed only while it names the directory
that we are in, because whoever changes the directory without being a shell leaves it as it was.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from daphne_supervisor.errors import BootError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["enter", "logical"]


def logical(environ: Mapping[str, str]) -> str:
    """Return the working directory as an absolute path, with the links in it where they are known.

    It is "" where no name leads back: the directory has been deleted, or lies below one that is
    closed to us. Relative paths stay what they are then.
    """
    named = environ.get("PWD", "")
    if os.path.isabs(named) and _is_here(named):
        return named
    try:
        named = os.getcwd()
    except FileNotFoundError:
        return ""
    return named if _is_here(named) else ""


def _is_here(directory: str) -> bool:
    try:
        return os.path.samefile(directory, ".")
    except OSError:
        return False


def enter(directory: str) -> None:
    """Enter `directory` by its name once more: a link in it may lead elsewhere by now.

    "" stays where we are. Raises `BootError`.
    """
    # Who is there already may lack the right to come in: sudo keeps the directory.
    if not directory or _is_here(directory):
        return
    try:
        os.chdir(directory)
    except OSError as error:
        message = f"--chdir {directory}: cannot be entered: {error.strerror}"
        raise BootError(message) from None
