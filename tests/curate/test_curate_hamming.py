"""Pairs of like hashes against comparing everything with everything."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisource.curate.hamming import keep_first, near_pairs


def brute(words: list[int], distance: int) -> set[tuple[int, int]]:
    return {(a, b) for b in range(len(words)) for a in range(b) if (words[a] ^ words[b]).bit_count() <= distance}


def flipped(draw: tuple[int, list[int]]) -> int:
    word, bits = draw
    for bit in bits:
        word ^= 1 << bit
    return word


# A few centres and words near them, so that there are pairs to find at every distance.
NEAR = st.tuples(st.sampled_from([0, 2**64 - 1, 0x123456789ABCDEF0]), st.lists(st.integers(0, 63), max_size=12))


@given(st.lists(NEAR.map(flipped), max_size=40), st.integers(0, 12))
def test_exactly_the_near_pairs(words: list[int], distance: int) -> None:
    found = [
        (int(a), int(b)) for x, y in near_pairs(np.array(words, np.uint64), distance) for a, b in zip(x, y, strict=True)
    ]
    assert len(found) == len(set(found))
    assert set(found) == brute(words, distance)


def test_blocks_see_what_came_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnisource.curate.hamming._BLOCK", 7)
    rng = np.random.default_rng(0)
    words = rng.integers(0, 16, 100).astype(np.uint64)
    found = {(int(a), int(b)) for x, y in near_pairs(words, 1) for a, b in zip(x, y, strict=True)}
    assert found == brute([int(word) for word in words], 1)


def test_the_best_copy_stays_and_likeness_is_not_passed_on() -> None:
    # 0 - 1 - 2 - 3 is a chain: 1 is dropped for 0, so it can't take 2 with it; 3 is dropped for 2.
    pairs = [(np.array([0, 1, 2]), np.array([1, 2, 3]))]
    assert keep_first(5, pairs).tolist() == [-1, 0, -1, 2, -1]


@given(st.lists(NEAR.map(flipped), max_size=40), st.integers(0, 8))
def test_what_stays_is_far_apart_and_what_goes_has_a_twin_that_stays(words: list[int], distance: int) -> None:
    twin = keep_first(len(words), near_pairs(np.array(words, np.uint64), distance))
    kept = [at for at in range(len(words)) if twin[at] < 0]
    assert not any((words[a] ^ words[b]).bit_count() <= distance for a in kept for b in kept if a < b)
    for at, other in enumerate(twin.tolist()):
        assert other < 0 or (twin[other] < 0 and other < at and (words[at] ^ words[other]).bit_count() <= distance)


def test_many_equal_words_stay_within_memory() -> None:
    words = np.zeros(30_000, np.uint64)
    twin = keep_first(len(words), near_pairs(words[:3000], 2))
    assert twin[0] == -1 and (twin[1:3000] == 0).all()
