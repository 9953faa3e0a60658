"""Windows cover an untrimmed video; frame times lie in it."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisource.clips import frame_times, windows

seconds = st.floats(0.04, 20000)


@given(seconds, st.floats(0.5, 60))
def test_windows_cover_the_video_once(duration: float, window: float) -> None:
    cuts = windows(duration, window, window)
    assert cuts[0][0] == 0 and cuts[-1][1] == pytest.approx(duration)
    for (_, end), (start, _) in itertools.pairwise(cuts):
        assert start == pytest.approx(end)
    if duration > 1.5 * window:
        assert all(window / 2 * 0.999 <= end - start <= window * 1.501 for start, end in cuts)
    else:
        assert duration < window * 1.501 and len(cuts) <= 2


@given(seconds, st.floats(0.5, 60), st.floats(0.1, 1))
def test_overlapping_windows_cover_too(duration: float, window: float, share: float) -> None:
    hop = max(window * share, duration / 5000)
    cuts = windows(duration, window, hop)
    assert cuts[0][0] == 0
    assert all(start < end <= duration + 1e-6 for start, end in cuts)
    if hop <= window:
        reached = 0.0
        for start, end in cuts:
            assert start <= reached + 1e-6
            reached = max(reached, end)
        assert reached == pytest.approx(duration)


@pytest.mark.parametrize(
    ("duration", "cuts"),
    [
        (3, [(0, 3)]),
        (10, [(0, 10)]),
        (14, [(0, 14)]),
        (15, [(0, 10), (10, 15)]),
        (20, [(0, 10), (10, 20)]),
        (24.9, [(0, 10), (10, 24.9)]),
    ],
)
def test_known_cuts(duration: float, cuts: list[tuple[float, float]]) -> None:
    assert windows(duration) == cuts


def test_gaps_between_sparse_windows_stay_out() -> None:
    assert windows(50, window_s=10, hop_s=20) == [(0, 10), (20, 30), (40, 50)]
    assert windows(55, window_s=10, hop_s=20) == [(0, 10), (20, 30), (40, 50)]


@given(st.floats(0.04, 5000), st.floats(0.2, 4))
def test_frame_times(duration: float, fps: float) -> None:
    times = frame_times(duration, fps)
    assert all(0 < time < duration + 1e-6 for time in times)
    assert len(times) == max(1, int(duration * fps + 1e-9))
    assert times[0] == pytest.approx(duration / 2 if duration * fps < 1 else 0.5 / fps)


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf")])
def test_nonsense_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        windows(bad)
    with pytest.raises(ValueError, match="positive"):
        frame_times(5, bad)
