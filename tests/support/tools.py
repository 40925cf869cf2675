"""The programs of other packages that tests drive: proxies, supervisors, clients.

`.ci/packages` installs them. On a machine where it could not, a test that needs one is skipped and
says which package is missing; in CI nothing may be skipped, so there it fails.
"""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

__all__ = ["tool", "unavailable"]

_ADMIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def tool(name: str, package: str) -> str:
    """Return the path of the program `name`, which Debian's `package` installs.

    Skips the test when it is missing, or fails it when the environment says `CI=true`.
    """
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *_ADMIN]))
    if path is None:
        unavailable(f"{name} is missing: install the package {package}")
    return path


def unavailable(reason: str) -> NoReturn:
    """Skip the test because of what this machine lacks; fail it when it says `CI=true`."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
