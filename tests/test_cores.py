"""The cores that this process may use: its affinity, and what control groups leave of it."""

import os
from pathlib import Path

import pytest

from omnisource import cores


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 8 usable cores whose control groups are files below this folder."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(cores, "_MINE", tmp_path / "mine")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def test_without_control_groups_the_affinity_counts(groups: Path) -> None:
    assert cores.usable_cores() == 8


@pytest.mark.parametrize(("quota", "usable"), [("max", 8), ("300000", 3), ("50000", 1), ("6400000", 8), ("?", 8)])
def test_the_least_quota_on_the_way_up_holds(groups: Path, quota: str, usable: int) -> None:
    write(groups / "mine", "0::/pod/box")
    write(groups / "groups/pod/cpu.max", f"{quota} 100000")
    write(groups / "groups/pod/box/cpu.max", "max 100000")
    assert cores.usable_cores() == usable


def test_a_container_sees_its_own_quota_at_the_root(groups: Path) -> None:
    write(groups / "mine", "0::/named/outside")
    write(groups / "groups/cpu.max", "200000 100000")
    assert cores.usable_cores() == 2


def test_the_first_version_of_control_groups_is_read_too(groups: Path) -> None:
    write(groups / "mine", "4:cpu,cpuacct:/box\n0::/")
    write(groups / "groups/cpu/box/cpu.cfs_quota_us", "400000")
    write(groups / "groups/cpu/box/cpu.cfs_period_us", "100000")
    assert cores.usable_cores() == 4
