"""Socket activation: which descriptors a service manager hands over, and what they are called.

Theory. Descriptors are handed over by being open, from number 3 on, when the process starts. Three
variables describe them (sd_listen_fds(3)): how many there are, what each is called, and the id of
the process that they are meant for, because an environment is inherited further than was meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["names"]


def names(environ: Mapping[str, str], process: int) -> tuple[str, ...]:
    """Return the names of the descriptors that are meant for the process with this id.

    The first name belongs to descriptor 3, and so on. LISTEN_FDNAMES may be missing or short, as it
    is with other programs that speak this protocol.
    """
    number = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(process) or not number.isdecimal():
        return ()
    given = environ.get("LISTEN_FDNAMES", "").split(":")
    return tuple((given + [""] * int(number))[: int(number)])
