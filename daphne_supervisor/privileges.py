"""User, group and umask of the workers: looked up once, given up for good.

Theory. The master stays what it was started as, so that it can bind ports below 1024 again and
reopen the logs; what runs the application is somebody else. Giving up goes from the outside in:
first the supplementary groups, then the group, then the user, because each step takes the right to
do the one before. Real, effective and saved ids all change, and then we try to return: a process
that still could (it has kept a capability) must not go on.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from daphne_supervisor.errors import BootError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daphne_supervisor.config import Process

__all__ = ["Privileges", "drop", "group_id", "resolve"]

_HIGHEST = 2**32 - 2
"""The highest id: the number above it means "leave it as it is" to the system."""


@dataclass(frozen=True, slots=True)
class Privileges:
    """What workers run as; None leaves a thing as the master has it."""

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None
    umask: int | None = None


class System(Protocol):
    """What is asked of the system, as `os` has it."""

    def setgroups(self, groups: Sequence[int], /) -> None:
        """Set the supplementary groups."""
        ...

    def setresgid(self, rgid: int, egid: int, sgid: int, /) -> None:
        """Set the real, effective and saved group."""
        ...

    def setresuid(self, ruid: int, euid: int, suid: int, /) -> None:
        """Set the real, effective and saved user."""
        ...

    def umask(self, mask: int, /) -> int:
        """Set the umask and return the one before."""
        ...


def resolve(process: Process) -> Privileges:
    """Return what --user, --group and --umask stand for.

    A user brings his groups along, the supplementary ones too; --group replaces the first of them.
    Raises `UsageError` for who does not exist, `BootError` when only root could do it.
    """
    gid = None if process.group is None else group_id(process.group, "--group")
    if process.user is None:
        wanted = Privileges(None, gid, None if gid is None else (gid,), process.umask)
    else:
        uid, gid, groups = _user(process.user, gid)
        wanted = Privileges(uid, gid, groups, process.umask)
    if os.geteuid() == 0:
        return wanted
    if _changes(wanted.uid, os.getresuid()) or _changes(wanted.gid, os.getresgid()):
        option = "--group" if process.user is None else "--user"
        message = f"{option} {process.user or process.group}: only root can run workers as another"
        raise BootError(message)
    return Privileges(umask=process.umask)


def drop(privileges: Privileges, system: System = os) -> None:
    """Become what `privileges` says. Raises `BootError` when that fails, or could be undone.

    `system` is for tests.
    """
    try:
        if privileges.groups is not None:
            system.setgroups(privileges.groups)
        if privileges.gid is not None:
            system.setresgid(privileges.gid, privileges.gid, privileges.gid)
        if privileges.uid is not None:
            system.setresuid(privileges.uid, privileges.uid, privileges.uid)
    except OSError as error:
        message = f"--user, --group: the system does not allow it: {error.strerror}"
        raise BootError(message) from None
    if privileges.uid and _can_return(system):
        message = "--user: the process keeps the capability CAP_SETUID, and could become root again"
        raise BootError(message)
    if privileges.umask is not None:
        system.umask(privileges.umask)


def group_id(group: str, option: str) -> int:
    """Return the number of `group`, a name or a number. Raises `UsageError`."""
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        return _number(group, f"{option} {group!r}: there is no such group")


def _user(user: str, gid: int | None) -> tuple[int, int, tuple[int, ...]]:
    """Return number, group and all groups of `user`, a name or a number."""
    entry = _entry(user)
    if entry is not None:
        gid = entry.pw_gid if gid is None else gid
        return entry.pw_uid, gid, tuple(os.getgrouplist(entry.pw_name, gid))
    uid = _number(user, f"--user {user!r}: there is no such user")
    if gid is None:
        message = f"--user {user}: is in no group, as no user has this number; --group is needed"
        raise UsageError(message)
    return uid, gid, (gid,)


def _entry(user: str) -> pwd.struct_passwd | None:
    with contextlib.suppress(KeyError, ValueError):
        return pwd.getpwnam(user)
    with contextlib.suppress(KeyError, ValueError, OverflowError):
        return pwd.getpwuid(int(user))
    return None


def _number(given: str, complaint: str) -> int:
    if given.isascii() and given.isdecimal() and int(given) <= _HIGHEST:
        return int(given)
    raise UsageError(complaint)


def _changes(wanted: int | None, present: tuple[int, int, int]) -> bool:
    return wanted is not None and set(present) != {wanted}


def _can_return(system: System) -> bool:
    """Try to become root again."""
    try:
        system.setresuid(0, 0, 0)
    except PermissionError:
        return False
    return True
