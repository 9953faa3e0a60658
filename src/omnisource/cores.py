"""How many CPU cores this process may use."""

import os
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_MINE = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Cores that the system lets this process use: its affinity, and no more than its container's quota; at least 1.

    A machine's own count says little: under a quota of two cores, 64 processes are throttled and take longer than two.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return max(1, min(cores, int(quota)) if quota is not None else cores)


def _quota() -> float | None:
    """Cores' worth of time that the control groups grant: the least of this process's group and those above it."""
    try:
        lines = _MINE.read_text().splitlines()
    except OSError:
        return None  # not Linux
    found = []
    for line in lines:
        number, controllers, name = line.split(":", 2)
        if number == "0":  # version 2
            found += [_of_one(folder) for folder in _upwards(_GROUPS, name)]
        elif "cpu" in controllers.split(","):
            found += [_of_one_v1(folder) for folder in _upwards(_GROUPS / "cpu", name)]
    return min((quota for quota in found if quota is not None), default=None)


def _upwards(root: Path, name: str) -> list[Path]:
    """The folder of a group and of those around it; inside a container its name may be that outside: then the root."""
    folder = root / name.strip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]


def _of_one(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _of_one_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return None if quota <= 0 else quota / int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError, ZeroDivisionError):
        return None
