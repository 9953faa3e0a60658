"""Pairs of like hashes against comparing everything with everything."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisource.curate.hamming import I64, U64, Bools, keep_first, near_pairs


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


def words_at(*distances: int) -> U64:
    """Words of which each differs from the one before in so many bits, never the same ones."""
    words, bit = [0], 0
    for distance in distances:
        words.append(words[-1] ^ (2**distance - 1) << bit)
        bit += distance
    return np.array(words, np.uint64)


def test_the_best_copy_stays_and_likeness_is_not_passed_on() -> None:
    # 0 - 1 - 2 - 3 is a chain: 1 is dropped for 0, so it can't take 2 with it; 3 is dropped for 2.
    assert keep_first(words_at(2, 2, 2, 20), 3).tolist() == [-1, 0, -1, 2, -1]


def small_blocks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("omnisource.curate.hamming._BLOCK", 7)


@given(st.lists(NEAR.map(flipped), max_size=40), st.integers(0, 8))
def test_what_stays_is_far_apart_and_what_goes_has_a_twin_that_stays(words: list[int], distance: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        small_blocks(patch)
        twin = keep_first(np.array(words, np.uint64), distance)
    kept = [at for at in range(len(words)) if twin[at] < 0]
    assert not any((words[a] ^ words[b]).bit_count() <= distance for a in kept for b in kept if a < b)
    for at, other in enumerate(twin.tolist()):
        assert other < 0 or (twin[other] < 0 and other < at and (words[at] ^ words[other]).bit_count() <= distance)


class Parity:
    """Says that even items are like even ones, and odd ones like odd ones; counts what it is asked."""

    def __init__(self, always: bool | None = None) -> None:
        self.always, self.held, self.asked = always, set[int](), 0

    def read(self, places: I64) -> None:
        self.held |= set(places.tolist())

    def agree(self, earlier: int, later: int) -> bool:
        assert {earlier, later} <= self.held
        self.asked += 1
        return self.always if self.always is not None else (earlier - later) % 2 == 0

    def forget(self, places: I64) -> None:
        self.held -= set(places.tolist())


def test_pairs_that_disagree_stay_and_those_that_are_impossible_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch)
    words, question = np.zeros(50, np.uint64), Parity()
    assert keep_first(words, 2, question=question).tolist() == [-1, -1, *[0, 1] * 24]
    assert question.held <= {0, 1} and question.asked <= 100
    near = Parity()
    twin = keep_first(words, 2, lambda a, b: np.abs(a - b) < 4, near)
    assert twin[:6].tolist() == [-1, -1, 0, 1, -1, -1]  # 4 could be one with 2 only, which is gone


def test_many_like_words_cost_neither_memory_nor_time() -> None:
    words = np.zeros(6000, np.uint64)
    twin = keep_first(words, 2, question=(same := Parity(True)))
    assert twin[0] == -1 and not twin[1:].any()
    assert same.asked == len(words) - 1 and same.held == {0}
    twin = keep_first(words, 2, question=(other := Parity(False)))  # a hash that says nothing: all stay
    assert (twin == -1).all() and len(other.held) == 100
    assert other.asked <= len(words) * 100  # not all with all


def test_pairs_of_many_like_words_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnisource.curate.hamming._BLOCK", 100)
    hidden = np.zeros(3000, bool)
    for earlier, later in near_pairs(np.zeros(3000, np.uint64), 2, hidden):
        assert len(later) < 100 * 200  # at most a hundred that stayed and those of the block itself
        hidden[earlier[earlier >= 100]] = hidden[later[later >= 100]] = True


def test_impossible_pairs_of_like_words_cost_no_memory() -> None:
    words, lengths = np.zeros(12_000, np.uint64), np.exp(np.random.default_rng(0).uniform(0, 8, 12_000))
    largest = 0

    def possible(earlier: I64, later: I64) -> Bools:
        nonlocal largest
        largest = max(largest, len(later))
        return np.abs(lengths[earlier] - lengths[later]) < 0.0001 * lengths[later]

    twin = keep_first(words, 2, possible)
    assert 10_000 < (twin < 0).sum() < 12_000  # so all that stays is found by each that comes
    assert largest < 10_000_000  # the last blocks have 20 million
