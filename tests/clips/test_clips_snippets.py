"""One positive and the rest negatives, in the order of the video, with its fallbacks."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisource.clips import rng, snippet_times

keys = st.integers(0, 2**64 - 1)
times = st.lists(st.integers(0, 60).map(lambda i: i + 0.5), unique=True)


@given(keys, times, times, st.integers(1, 12), st.sampled_from(["positive-negative", "positives-only", "random"]))
def test_every_result_holds_the_positive_and_known_times(key, positives, negatives, segments, kind) -> None:
    negatives = [t for t in negatives if t not in positives and t != 99.0]
    result = snippet_times(kind, 99.0, [*positives, 99.0], negatives, segments, rng(key))
    assert len(result) == segments and result == sorted(result) and 99.0 in result
    assert set(result) <= {*positives, *negatives, 99.0}
    rest = Counter(result)
    rest[99.0] -= 1
    pool = {"positive-negative": negatives or positives, "positives-only": positives or negatives}.get(
        kind, [*positives, *negatives]
    ) or [99.0]
    assert +rest == Counter({t: n for t, n in rest.items() if t in pool and n})
    # As even as possible: no frame is taken twice before all were taken once.
    used = [rest[t] for t in pool]
    assert max(used) - min(used) <= 1


def test_the_papers_three_snippets() -> None:
    seen = Counter()
    for key in range(3000):
        result = snippet_times("positive-negative", 5.5, [4.5, 5.5], [0.5, 1.5, 9.5, 10.5], 3, rng(key))
        assert 5.5 in result and 4.5 not in result and len(set(result)) == 3
        seen.update(set(result) - {5.5})
    assert all(1350 < seen[t] < 1650 for t in (0.5, 1.5, 9.5, 10.5))  # each of four in half of the draws


@pytest.mark.parametrize("kind", ["positive-negative", "positives-only", "random"])
def test_same_key_same_snippets_whatever_the_order_of_the_pool(kind) -> None:
    positives, negatives = ([at / 7 for at in range(first, 80, 2)] for first in (0, 1))
    one = snippet_times(kind, 8 / 7, positives, negatives, 9, rng(7))
    two = snippet_times(kind, 8 / 7, positives[::-1], negatives[::-1], 9, rng(7))
    assert one == two


def test_a_video_without_other_frames_repeats_the_positive() -> None:
    assert snippet_times("positive-negative", 0.5, [0.5], [], 3, rng(0)) == [0.5, 0.5, 0.5]


def test_no_segments_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        snippet_times("random", 0.5, [], [], 0, rng(0))
