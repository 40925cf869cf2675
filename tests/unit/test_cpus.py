"""How many processors this process may use, for `--workers auto`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from daphne_supervisor import cpus
from tests.support.machine import machine

if TYPE_CHECKING:
    from pathlib import Path


def test_this_process_may_run_somewhere() -> None:
    """The number of processors is never zero."""
    assert cpus.affinity() >= 1


def test_without_a_quota_the_affinity_counts(tmp_path: Path) -> None:
    """On a plain machine there are as many workers as processors, and the reason says so."""
    assert cpus.count(4, str(tmp_path)) == (4, "4 by CPU affinity, no cgroup quota")


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("200000 100000", (2, "8 by CPU affinity, 2 by cgroup quota")),
        ("350000 100000", (3, "8 by CPU affinity, 3.5 by cgroup quota")),
        ("50000 100000", (1, "8 by CPU affinity, 0.5 by cgroup quota")),
        ("1600000 100000", (8, "8 by CPU affinity, 16 by cgroup quota")),
        ("max 100000", (8, "8 by CPU affinity, no cgroup quota")),
        ("", (8, "8 by CPU affinity, no cgroup quota")),
        ("100 0", (8, "8 by CPU affinity, no cgroup quota")),
    ],
)
def test_a_quota_of_version_two_binds(
    tmp_path: Path, quota: str, expected: tuple[int, str]
) -> None:
    """The quota counts rounded down, and at least one worker starts."""
    root = machine(tmp_path, "0::/\n", {"cpu.max": quota})
    assert cpus.count(8, root) == expected


def test_the_tightest_group_above_binds(tmp_path: Path) -> None:
    """A quota of a parent group holds for its children."""
    root = machine(
        tmp_path,
        "0::/pod/container\n",
        {"pod/cpu.max": "150000 100000", "pod/container/cpu.max": "max 100000"},
    )
    assert cpus.count(8, root)[0] == 1


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_a_quota_of_version_one_binds(tmp_path: Path, mount: str) -> None:
    """Both names under which the controller is mounted are looked at; -1 is no quota."""
    root = machine(
        tmp_path,
        "9:name=systemd:/x\n4:cpu,cpuacct:/docker/abc\n1:memory:/x\n",
        {
            f"{mount}/cpu.cfs_quota_us": "300000\n",
            f"{mount}/cpu.cfs_period_us": "100000\n",
            f"{mount}/docker/abc/cpu.cfs_quota_us": "-1\n",
            f"{mount}/docker/abc/cpu.cfs_period_us": "100000\n",
        },
    )
    assert cpus.count(8, root) == (3, "8 by CPU affinity, 3 by cgroup quota")


def test_a_hybrid_machine_is_understood(tmp_path: Path) -> None:
    """Version two is found where it stands beside version one."""
    root = machine(tmp_path, "0::/\n", {"unified/cpu.max": "200000 100000"})
    assert cpus.count(8, root)[0] == 2


def test_there_is_a_most(tmp_path: Path) -> None:
    """A huge host without limits does not get a worker for each of its processors."""
    assert cpus.count(192, str(tmp_path)) == (
        64,
        "192 by CPU affinity, no cgroup quota, at most 64",
    )
