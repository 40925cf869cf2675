"""What the control groups of this process grant, and what they have done to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from daphne_supervisor import cgroups
from tests.support.machine import machine

if TYPE_CHECKING:
    from pathlib import Path

# What version 1 says where nothing is limited.
ENDLESS = "9223372036854771712\n"
V1 = "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n"
V2 = "0::/pod/container\n"


def test_our_own_group_comes_before_those_above_it(tmp_path: Path) -> None:
    """Both versions are looked at, wherever they may be mounted, up to the top."""
    root = machine(tmp_path, "2:cpu,cpuacct:/a\n0::/b/c\n", {})
    mounts = f"{tmp_path}/sys/fs/cgroup"
    assert list(cgroups.directories("cpu", root)) == [
        (1, f"{mounts}/cpu,cpuacct/a"),
        (1, f"{mounts}/cpu/a"),
        (1, f"{mounts}/cpu,cpuacct/"),
        (1, f"{mounts}/cpu/"),
        (2, f"{mounts}/b/c"),
        (2, f"{mounts}/unified/b/c"),
        (2, f"{mounts}/b"),
        (2, f"{mounts}/unified/b"),
        (2, f"{mounts}/"),
        (2, f"{mounts}/unified/"),
    ]


def test_another_controller_s_group_is_none_of_ours(tmp_path: Path) -> None:
    """In version 1 a process may be in as many groups as there are controllers."""
    root = machine(tmp_path, "2:cpu:/a\n", {"memory/a/memory.limit_in_bytes": "1"})
    assert cgroups.memory_limit(root) is None


def test_a_machine_without_groups_limits_nothing(tmp_path: Path) -> None:
    """Nothing to read is no limit, and nobody is known to have been killed."""
    assert list(cgroups.directories("memory", str(tmp_path))) == []
    assert cgroups.memory_limit(str(tmp_path)) is None
    assert cgroups.oom_kills(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        (V2, {"pod/container/memory.max": "1000\n"}, 1000),
        (V2, {"pod/container/memory.max": "max\n"}, None),
        (V2, {"pod/container/memory.max": "max\n", "pod/memory.max": "700\n"}, 700),
        (V2, {"pod/container/memory.max": "500\n", "pod/memory.max": "700\n"}, 500),
        (V2, {"memory.max": "700\n"}, 700),
        (V1, {"memory/docker/abc/memory.limit_in_bytes": "1000\n"}, 1000),
        (V1, {"memory/docker/abc/memory.limit_in_bytes": ENDLESS}, None),
        (V1, {"memory/docker/memory.limit_in_bytes": "2000\n"}, 2000),
        (V1, {"memory/memory.limit_in_bytes": "3000\n"}, 3000),
    ],
)
def test_the_tightest_limit_of_memory_binds(
    tmp_path: Path, groups: str, files: dict[str, str], limit: int | None
) -> None:
    """Our own group's limit or that of one above it, in either version; "max" is none."""
    assert cgroups.memory_limit(machine(tmp_path, groups, files)) == limit


@pytest.mark.parametrize(
    ("groups", "files", "kills"),
    [
        (V2, {"pod/container/memory.events": "low 0\noom 3\noom_kill 2\n"}, 2),
        (
            V2,
            {
                "pod/container/memory.events": "oom 9\noom_kill 9\n",
                "pod/container/memory.events.local": "oom 1\noom_kill 1\noom_group_kill 0\n",
            },
            1,
        ),
        (V2, {"memory.events": "oom_kill 4\n", "pod/memory.events": "oom_kill 5\n"}, 5),
        (V1, {"memory/docker/abc/memory.oom_control": "under_oom 0\noom_kill 7\n"}, 7),
        (V1, {"memory/docker/abc/memory.oom_control": "under_oom 0\n"}, None),
        (V2, {"pod/container/memory.events": "nonsense\noom_kill many\n"}, None),
    ],
)
def test_kills_for_want_of_memory_are_those_of_our_own_group(
    tmp_path: Path, groups: str, files: dict[str, str], kills: int | None
) -> None:
    """The nearest group that counts at all, and its own count where it has one."""
    assert cgroups.oom_kills(machine(tmp_path, groups, files)) == kills


def test_this_machine_can_be_read() -> None:
    """Whatever stands in the real files, it is understood."""
    assert cgroups.memory_limit() is None or cgroups.memory_limit() > 0  # type: ignore[operator]
    assert cgroups.oom_kills() is None or cgroups.oom_kills() >= 0  # type: ignore[operator]
