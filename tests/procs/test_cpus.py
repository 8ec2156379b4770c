"""Cores that may really be used."""

import os
from pathlib import Path

import pytest

from freehold.procs.cpus import usable_cores


def _tree(root: Path, cgroup: str, **files: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_cgroups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("text", ["max 100000", "garbage", "", "100000 0"])
def test_no_quota_or_an_unreadable_one_limits_nothing(tmp_path: Path, text: str) -> None:
    root = _tree(tmp_path, "0::/a\n", **{"a/cpu.max": text})
    assert usable_cores(root) == len(os.sched_getaffinity(0))


def test_a_version_2_quota_of_an_ancestor_holds_and_rounds_down_to_no_less_than_one(tmp_path: Path) -> None:
    root = _tree(tmp_path, "0::/a/b\n", **{"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"})
    assert usable_cores(root) == 1


def test_a_version_1_quota_holds_under_either_name_of_the_mount(tmp_path: Path) -> None:
    files = {"cpu,cpuacct/x/cpu.cfs_quota_us": "100000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"}
    assert usable_cores(_tree(tmp_path, "3:cpu,cpuacct:/x\n2:memory:/y\n", **files)) == 1


def test_the_affinity_wins_over_a_generous_quota(tmp_path: Path) -> None:
    root = _tree(tmp_path, "0::/\n", **{"cpu.max": "6400000 100000"})
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cores(root) == 1
    finally:
        os.sched_setaffinity(0, before)
