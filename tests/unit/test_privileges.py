"""User, group and umask of the workers."""

from __future__ import annotations

import grp
import os
import pwd
import re
from typing import TYPE_CHECKING

import pytest

from daphne_supervisor.config import Process
from daphne_supervisor.errors import BootError, UsageError
from daphne_supervisor.privileges import Privileges, drop, group_id, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NOBODY = pwd.getpwnam("nobody")
DAEMON = pwd.getpwnam("daemon")
NAMELESS = 54321  # neither a user's nor a group's number


@pytest.fixture
def as_root() -> None:
    """Skip where the test is not root."""
    if os.geteuid() != 0:
        pytest.skip("only root may change users")


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Be nobody for a moment; who is not root is somebody already."""
    if os.geteuid() != 0:
        yield
        return
    os.setresgid(NOBODY.pw_gid, NOBODY.pw_gid, 0)
    os.setresuid(NOBODY.pw_uid, NOBODY.pw_uid, 0)
    yield
    os.setresuid(0, 0, 0)
    os.setresgid(0, 0, 0)


class Records:
    """A system that notes what it is asked; `refuse` names calls that fail."""

    def __init__(self, *refuse: str, capable: bool = False) -> None:
        """Let nobody become root again unless `capable`."""
        self.calls: list[tuple[object, ...]] = []
        self._refuse = refuse
        self._capable = capable

    def _note(self, name: str, *values: object) -> None:
        if name in self._refuse:
            raise PermissionError(1, "Operation not permitted")
        self.calls.append((name, *values))

    def setgroups(self, groups: Sequence[int], /) -> None:
        """Note the groups."""
        self._note("groups", *groups)

    def setresgid(self, *ids: int) -> None:
        """Note the group, which must be one."""
        assert len(ids) == 3
        self._note("gid", *set(ids))

    def setresuid(self, *ids: int) -> None:
        """Note the user, who must be one; nobody comes back."""
        assert len(ids) == 3
        if ids == (0, 0, 0) and not self._capable:
            raise PermissionError(1, "Operation not permitted")
        self._note("uid", *set(ids))

    def umask(self, mask: int, /) -> int:
        """Note the umask."""
        self._note("umask", mask)
        return 0


def test_nothing_asked_for_is_nothing_to_do() -> None:
    """Without options workers are what the master is."""
    assert resolve(Process()) == Privileges()
    records = Records()
    drop(Privileges(), records)
    assert records.calls == []


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("user", ["nobody", str(NOBODY.pw_uid)])
def test_a_user_brings_all_groups(user: str) -> None:
    """By name or by number; the supplementary groups are the user's own, and none of root's."""
    found = resolve(Process(user=user, umask=0o027))
    groups = tuple(os.getgrouplist("nobody", NOBODY.pw_gid))
    assert found == Privileges(NOBODY.pw_uid, NOBODY.pw_gid, groups, 0o027)


@pytest.mark.usefixtures("as_root")
def test_a_group_replaces_the_users_first_one() -> None:
    """The other groups of the user stay."""
    found = resolve(Process(user="nobody", group="daemon"))
    assert (found.uid, found.gid) == (NOBODY.pw_uid, DAEMON.pw_gid)
    assert found.groups is not None
    assert DAEMON.pw_gid in found.groups
    assert 0 not in found.groups


@pytest.mark.usefixtures("as_root")
def test_a_group_alone_leaves_the_user() -> None:
    """Files are then made for that group, by root."""
    assert resolve(Process(group="daemon")) == Privileges(
        None, DAEMON.pw_gid, (DAEMON.pw_gid,), None
    )


@pytest.mark.usefixtures("as_root")
def test_a_number_that_nobody_has_will_do_with_a_group() -> None:
    """Containers run as numbers that no file of theirs knows."""
    found = resolve(Process(user=str(NAMELESS), group=str(NAMELESS)))
    assert found == Privileges(NAMELESS, NAMELESS, (NAMELESS,), None)


@pytest.mark.parametrize(
    ("process", "complaint"),
    [
        (Process(user="no-such"), "--user 'no-such': there is no such user"),
        (Process(user="-1"), "--user '-1': there is no such user"),
        (Process(user=""), "--user '': there is no such user"),
        (Process(user="a\0b"), "--user 'a\\x00b': there is no such user"),
        (Process(user=str(2**32 - 1)), "--user '4294967295': there is no such user"),
        (Process(user=str(2**70)), f"--user '{2**70}': there is no such user"),
        (
            Process(user=str(NAMELESS)),
            f"--user {NAMELESS}: is in no group, as no user has this number; --group is needed",
        ),
        (Process(group="no-such"), "--group 'no-such': there is no such group"),
        (Process(user="nobody", group="4294967295"), "--group '4294967295': there is no such gro"),
    ],
)
def test_who_does_not_exist_is_named(process: Process, complaint: str) -> None:
    """One line, with the option; a number that means "nobody else" to the system is no number."""
    with pytest.raises(UsageError, match=re.escape(complaint)):
        resolve(process)


@pytest.mark.usefixtures("as_nobody")
@pytest.mark.parametrize(
    ("process", "option"),
    [
        (Process(user="root"), "--user root"),
        (Process(group="daemon"), "--group daemon"),
        (Process(user="nobody", group="daemon"), "--user nobody"),
    ],
)
def test_only_root_can_be_somebody_else(process: Process, option: str) -> None:
    """The line names the option, and says who could."""
    with pytest.raises(BootError, match=f"^{option}: only root can run workers as another$"):
        resolve(process)


@pytest.mark.usefixtures("as_nobody")
def test_everybody_has_a_umask() -> None:
    """It takes no root to change it."""
    assert resolve(Process(umask=0o027)) == Privileges(umask=0o027)


@pytest.mark.usefixtures("as_root")
def test_who_is_that_user_already_needs_no_root() -> None:
    """A unit file may name the user too: nothing is left to do but the umask."""
    process = Process(user="nobody", group=grp.getgrgid(NOBODY.pw_gid).gr_name, umask=0o077)
    wanted = Privileges(umask=0o077)
    assert in_a_child(lambda: resolve(process) == wanted, before=_be_nobody) == b"True"


def _be_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY.pw_gid, NOBODY.pw_gid, NOBODY.pw_gid)
    os.setresuid(NOBODY.pw_uid, NOBODY.pw_uid, NOBODY.pw_uid)


def in_a_child(ask: Callable[[], object], before: Callable[[], None]) -> bytes:
    """Return what `ask` says in a process that `before` has changed for good."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            before()
            os.write(writing, str(ask()).encode())
        except BaseException as error:  # noqa: BLE001 - the parent shows it
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


def test_rights_are_given_up_from_the_outside_in() -> None:
    """Each step takes the right to do the one before."""
    records = Records()
    drop(Privileges(7, 8, (8, 9), 0o022), records)
    assert records.calls == [("groups", 8, 9), ("gid", 8), ("uid", 7), ("umask", 0o022)]


def test_who_becomes_root_is_not_asked_to_stay_away() -> None:
    """Root may be asked for, and may then do what root may do."""
    records = Records(capable=True)
    drop(Privileges(0, 0, (0,)), records)
    assert records.calls == [("groups", 0), ("gid", 0), ("uid", 0)]


@pytest.mark.parametrize("call", ["groups", "gid", "uid"])
def test_a_step_that_fails_is_the_end(call: str) -> None:
    """Half dropped is not dropped."""
    with pytest.raises(BootError, match=r"^--user, --group: .*: Operation not permitted$"):
        drop(Privileges(7, 8, (8,)), Records(call))


def test_who_could_come_back_must_not_go_on() -> None:
    """A capability that was kept on purpose or by mistake is found out."""
    with pytest.raises(BootError, match="CAP_SETUID"):
        drop(Privileges(7, 8, (8,)), Records(capable=True))


@pytest.mark.usefixtures("as_root")
def test_the_kernel_agrees() -> None:
    """All four ids of user and group, the supplementary groups and the umask are the new ones."""

    def status() -> str:
        with open("/proc/self/status", encoding="utf-8") as file:
            lines = dict(line.rstrip().split(":", 1) for line in file)
        wanted = ("Uid", "Gid", "Groups", "Umask", "CapEff")
        return " | ".join(lines[name].replace("\t", " ").strip() for name in wanted)

    said = in_a_child(status, before=lambda: drop(Privileges(65534, 1, (1, 65534), 0o027)))
    assert said.decode().split(" | ") == [
        " ".join(["65534"] * 4),
        " ".join(["1"] * 4),
        "1 65534",
        "0027",
        "0" * 16,
    ]


@pytest.mark.parametrize(("group", "number"), [("root", 0), ("0", 0), (str(NAMELESS), NAMELESS)])
def test_a_group_is_a_name_or_a_number(group: str, number: int) -> None:
    """A number needs no name."""
    assert group_id(group, "--uds-group") == number


@pytest.mark.parametrize("group", ["", "no-such", "-1", "a\0b", "\N{SUPERSCRIPT TWO}"])
def test_a_group_that_does_not_exist_is_named(group: str) -> None:
    """With the option that asked for it."""
    with pytest.raises(UsageError, match=r"^--uds-group .*: there is no such group$"):
        group_id(group, "--uds-group")


def test_the_real_system_is_what_drop_asks() -> None:
    """Without an argument it is `os`, and a umask can be changed by everybody."""
    before = os.umask(0o022)
    try:
        drop(Privileges(umask=0o077))
        assert os.umask(0o022) == 0o077
    finally:
        os.umask(before)
