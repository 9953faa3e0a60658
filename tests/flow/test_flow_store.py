"""Flow videos hold what was written, with its time stamps, and read like any video."""

from pathlib import Path

import numpy as np
import pytest

from omnisource.flow import write_flow
from omnisource.media import decode_frames, iter_frames


def smooth_fields(count: int) -> list[np.ndarray]:
    y, x = np.mgrid[0:48, 0:64]
    return [
        np.stack([128 + 60 * np.sin(x / 9 + n / 3), 128 + 50 * np.cos(y / 7 - n / 4)], axis=2).round().astype(np.uint8)
        for n in range(count)
    ]


def test_without_loss_bytes_come_back_as_they_were(tmp_path: Path) -> None:
    fields = smooth_fields(20)
    times = [n / 12.5 for n in range(20)]
    assert write_flow(tmp_path / "f.mp4", zip(times, fields, strict=True), 0) == 20
    found = decode_frames(tmp_path / "f.mp4", range(20))
    assert (found[..., :2] == np.array(fields)).all()
    assert (found[..., 2] == 128).all()
    assert [seconds for seconds, _ in iter_frames(tmp_path / "f.mp4")] == pytest.approx(times, abs=1e-4)
    assert not list(tmp_path.glob(".*"))


def test_the_default_quality_errs_by_less_than_a_step_on_average(tmp_path: Path) -> None:
    fields = smooth_fields(16)
    write_flow(tmp_path / "f.mp4", ((n / 25, field) for n, field in enumerate(fields)), 10)
    found = decode_frames(tmp_path / "f.mp4", range(16))[..., :2].astype(int)
    assert np.abs(found - np.array(fields)).mean() < 1
    raw = np.array(fields).nbytes
    assert (tmp_path / "f.mp4").stat().st_size < raw / 4


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.2, 0.21, 1.0]
    write_flow(tmp_path / "f.mp4", zip(times, smooth_fields(5), strict=True), 0)
    assert [seconds for seconds, _ in iter_frames(tmp_path / "f.mp4")] == pytest.approx(times, abs=1e-4)
    late = decode_frames(tmp_path / "f.mp4", [0], start_s=0.15)
    assert (late[0, ..., :2] == smooth_fields(5)[2]).all()


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken():
        yield 0.0, smooth_fields(1)[0]
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="broke"):
        write_flow(tmp_path / "f.mp4", broken(), 0)
    assert list(tmp_path.iterdir()) == []
