"""Draws follow from their key alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from omnisource.clips import rng


@given(st.integers(0, 2**64 - 1))
def test_same_key_same_draws(key: int) -> None:
    assert np.array_equal(rng(key).random(5), rng(key).random(5))


def test_keys_and_streams_differ_and_are_uniform() -> None:
    first = np.array([rng(key).random() for key in range(4000)])
    assert len(set(first)) == len(first)
    # Neighbouring keys must not give neighbouring numbers: mean, variance and correlation as of a uniform sample.
    assert abs(first.mean() - 0.5) < 0.02 and abs(first.var() - 1 / 12) < 0.005
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.06
    other = np.array([rng(key, stream=1).random() for key in range(4000)])
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.06


def test_a_known_draw_stays_what_it_is() -> None:
    # A change here would make checkpoints resume with other samples.
    assert rng(12345).integers(10**9, size=3).tolist() == [57962737, 646380188, 774267597]
    assert rng(12345, stream=2**63 + 1).integers(10**9, size=3).tolist() == [98118562, 126894482, 387720646]
