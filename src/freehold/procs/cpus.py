"""How many cores this process may really use: affinity and cgroup quota, not what the machine has.

Why: a container with a quota of two cores on a machine of 64 that starts 64 threads runs slower than with two. The
quota is looked for in every cgroup from the own one up to the root, version 2 (`cpu.max`) and version 1
(`cpu.cfs_quota_us`). It does not watch for changes: ask again when it matters.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cores(root: Path = Path("/")) -> int:
    """At least 1: the lesser of the affinity and of the cgroups' quotas, rounded down; `root` holds `proc` and `sys`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = min(_quotas(root), default=float(cores))
    return max(1, min(cores, int(quota)))


def _quotas(root: Path) -> Iterator[float]:
    """Every quota that holds for this process, in cores."""
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, own = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        relative = PurePosixPath(own.lstrip("/"))
        for folder in (relative, *relative.parents):
            if ".." in folder.parts:
                continue
            if not controllers:
                yield from _version2(mounts / folder)
            else:
                for mount in (controllers, "cpu"):
                    yield from _version1(mounts / mount / folder)


def _version2(folder: Path) -> Iterator[float]:
    try:
        quota, _, period = (folder / "cpu.max").read_text("ascii").strip().partition(" ")
        if quota != "max":
            yield int(quota) / int(period or 100_000)
    except (OSError, ValueError, ZeroDivisionError):
        return


def _version1(folder: Path) -> Iterator[float]:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text("ascii"))
        period = int((folder / "cpu.cfs_period_us").read_text("ascii"))
        if quota > 0:
            yield quota / period
    except (OSError, ValueError, ZeroDivisionError):
        return
