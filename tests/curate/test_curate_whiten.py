"""Whitening: unit vectors, and strong directions no longer rule; few rows or none of any variance do no harm."""

import numpy as np

from omnisource.curate.whiten import fit_whitening


def test_directions_of_great_variance_no_longer_rule() -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(4000, 8)) * np.array([100, 30, 10, 3, 1, 1, 1, 1]) + 7
    white = fit_whitening(data.astype(np.float32))
    spread = np.sort(((data - white.mean) @ white.matrix).std(axis=0))[::-1]
    assert spread[0] / spread[1] < 2 and spread[0] < 1.2  # 3.3 and 100 before
    assert (np.diff(spread) <= 1e-6).all() and spread[-1] < 0.1  # weak ones are not blown up
    np.testing.assert_allclose(np.linalg.norm(white(data), axis=1), 1, atol=1e-5)


def test_few_rows_give_few_dimensions() -> None:
    rng = np.random.default_rng(0)
    assert fit_whitening(rng.normal(size=(40, 64))).matrix.shape == (64, 20)
    assert fit_whitening(rng.normal(size=(4000, 64)), dimensions=16).matrix.shape == (64, 16)
    assert fit_whitening(np.ones((1, 4))).matrix.shape == (4, 1)
    same = fit_whitening(np.ones((50, 4)))(np.ones((3, 4)))
    assert np.isfinite(same).all()
