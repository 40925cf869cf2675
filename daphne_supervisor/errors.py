"""The mistakes a user can make, and what the process exits with.

Every expected failure is a `SupervisorError` whose text is the one line that the user reads. The
line names the option, variable or file key at fault, so that it can be acted upon without a
traceback. What is wrong in itself (an unknown option, a bad value) is a `UsageError`; what is wrong
with the world (a taken port, a missing module) is a `BootError`. Anything else that escapes is a
bug of ours and is reported as one, with its traceback and `ExitCode.CRASHED`.
"""

from __future__ import annotations

import enum
from typing import ClassVar

__all__ = ["BootError", "ExitCode", "SupervisorError", "UsageError"]


class ExitCode(enum.IntEnum):
    """What the process tells its parent when it ends."""

    STOPPED = 0
    """Asked to stop, and stopped."""
    USAGE = 2
    """The command line, the environment or the configuration file is wrong; argparse says 2 too."""
    BOOT_FAILED = 3
    """Nothing could be served: a listener or the application did not come up."""
    CRASHED = 70
    """A bug of ours. 70 is EX_SOFTWARE of sysexits.h."""


class SupervisorError(Exception):
    """A failure that its text explains completely, in one line."""

    exit_code: ClassVar[ExitCode]


class UsageError(SupervisorError):
    """What was asked for makes no sense."""

    exit_code = ExitCode.USAGE


class BootError(SupervisorError):
    """What was asked for cannot be done here and now."""

    exit_code = ExitCode.BOOT_FAILED
