"""Frame indices: equal to the reference's in testing, uniform and inside in training."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisource.clips import dense_test, dense_train, piece_frames, rng, segment_test, segment_train, stride_in

counts = st.integers(1, 400)
small = st.integers(1, 40)


def test_equal_to_the_reference_in_every_row(shared: Path) -> None:
    rows = json.loads((shared / "parity" / "views.json").read_text())["frames"]
    assert len(rows) == 144
    for row in rows:
        if row["frames"] == 1:
            ours = segment_test(row["total"], row["clips"])
        else:
            ours = dense_test(row["total"], row["frames"], row["stride"], row["clips"])
        assert ours.ravel().tolist() == row["indices"], row


@given(counts, small, small, small, st.integers(0, 2**64 - 1))
def test_always_inside(num_frames: int, frames: int, stride: int, clips: int, key: int) -> None:
    for indices, shape in (
        (dense_train(num_frames, frames, stride, rng(key)), (frames,)),
        (dense_test(num_frames, frames, stride, clips), (clips, frames)),
        (segment_train(num_frames, clips, rng(key)), (clips,)),
        (segment_test(num_frames, clips), (clips,)),
    ):
        assert indices.shape == shape
        assert indices.min() >= 0 and indices.max() < num_frames


@given(counts, small, small, st.integers(0, 2**64 - 1))
def test_dense_frames_are_one_stride_apart_and_loop(num_frames: int, frames: int, stride: int, key: int) -> None:
    clip = dense_train(num_frames, frames, stride, rng(key))
    assert ((clip[1:] - clip[:-1]) % num_frames == stride % num_frames).all()
    if (frames - 1) * stride < num_frames:
        assert (np.diff(clip) == stride).all()
    else:
        assert clip[0] == 0


@given(small, small, st.sampled_from([12.5, 15.0, 24.0, 30000 / 1001, 60.0]), st.sampled_from([10.0, 25.0, 30.0]))
def test_clips_at_a_rate_last_alike_in_files_of_any_rate(frames: int, stride: int, file_fps: float, fps: float) -> None:
    step = stride_in(file_fps, stride, fps)
    for clip in (dense_train(10**6, frames, step, rng(1)), dense_test(10**6, frames, step, 1)[0]):
        late = np.arange(frames) * stride / fps - (clip - clip[0]) / file_fps  # seconds after the frame that is shown
        assert (late > -1e-6).all() and (late < 1 / file_fps).all()
    assert stride_in(file_fps, stride, None) == stride_in(None, stride, fps) == stride_in(fps, stride, fps) == stride


@given(counts, small, st.integers(0, 2**64 - 1))
def test_segments_lie_in_their_parts(num_frames: int, segments: int, key: int) -> None:
    part = num_frames / segments
    for places in (segment_train(num_frames, segments, rng(key)), segment_test(num_frames, segments)):
        edges = np.arange(segments + 1) * part
        assert (places >= np.floor(edges[:-1])).all() and (places <= edges[1:]).all()
        assert (np.diff(places) >= 0).all()


def test_every_frame_is_drawn_about_equally_often() -> None:
    starts = np.bincount([dense_train(20, 4, 3, rng(key))[0] for key in range(5500)], minlength=11)
    assert len(starts) == 11 and starts.min() > 420 and starts.max() < 580  # 11 places, 500 each
    frames = np.bincount(np.concatenate([segment_train(11, 3, rng(key)) for key in range(4400)]), minlength=11)
    assert frames.min() > 1050 and frames.max() < 1350  # 11 frames, 1200 each, the last ones too


def test_the_last_of_all_draws_is_a_frame_still() -> None:
    """Just below 1 a draw rounds up to the border of its part."""

    class Highest:
        def random(self, count: int) -> np.ndarray:
            return np.full(count, np.nextafter(1.0, 0.0))

    assert segment_train(10, 3, Highest()).max() == 9  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "call",
    [
        lambda: dense_train(0, 8, 8, rng(0)),
        lambda: dense_test(0, 8, 8, 1),
        lambda: segment_train(0, 3, rng(0)),
        lambda: segment_test(5, 0),
    ],
)
def test_nonsense_is_refused(call) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        call()


@pytest.mark.parametrize("stride", [0, -1, float("nan"), float("inf")])
def test_strides_are_positive(stride: float) -> None:
    with pytest.raises(ValueError, match="strides must be positive"):
        dense_test(5, 8, stride, 1)


@pytest.mark.parametrize(
    ("start", "end", "fps", "total", "frames"),
    [
        (None, None, 25.0, 100, 100),
        (1.0, 3.0, 25.0, 100, 50),
        (1.01, 2.99, 25.0, 100, 49),  # frames 26 (1.04 s) to 74 (2.96 s)
        (3.0, 9.0, 25.0, 100, 25),
        (0.1 + 0.2, 0.5, 10.0, 100, 2),  # rounding of 0.3 loses no frame
        (9.0, 10.0, 25.0, 100, 1),
        (0.0, 2.0, None, 100, 100),
        (0.0, 2.0, 25.0, None, 1),
    ],
)
def test_frames_of_a_piece(start, end, fps, total, frames) -> None:
    assert piece_frames(start, end, fps, total) == frames


@given(st.integers(1, 300), st.sampled_from([5.0, 12.5, 25.0, 30000 / 1001]), st.floats(0, 1), st.floats(0, 1))
def test_pieces_that_touch_share_no_frame(total: int, fps: float, one: float, two: float) -> None:
    duration = total / fps
    cuts = [0.0, *sorted([one * duration, two * duration]), duration]
    inside = sum(1 for i in range(total) if cuts[1] <= i / fps < cuts[2])
    assert abs(piece_frames(cuts[1], cuts[2], fps, total) - max(inside, 1)) <= (1 if inside else 0)
    parts = [piece_frames(a, b, fps, total) for a, b in itertools.pairwise(cuts)]
    empty = sum(1 for a, b in itertools.pairwise(cuts) if b - a < 1 / fps)
    assert total <= sum(parts) <= total + empty
