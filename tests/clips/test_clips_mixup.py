"""Mixing is the textbook sum, for any pair, for clips and labels alike."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omnisource.clips import mix, smooth, soft_labels


@given(st.integers(1, 6), st.integers(0, 2**31))
def test_mix_is_the_weighted_sum(count: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, 2, 4, 4, generator=draw)
    partner = torch.randint(count, (count,), generator=draw)
    weight = torch.rand(count, generator=draw)
    weight[0] = 1.0
    before = x.clone()
    mixed = mix(x, partner, weight)
    for i in range(count):
        assert torch.allclose(mixed[i], weight[i] * x[i] + (1 - weight[i]) * x[partner[i]], atol=1e-6)
    assert torch.equal(x, before)  # partners are read from the unmixed batch


def test_labels_mix_as_clips_do() -> None:
    labels = mix(soft_labels(torch.tensor([0, 2]), 3), torch.tensor([1, 0]), torch.tensor([0.75, 1.0]))
    assert labels.tolist() == [[0.75, 0.0, 0.25], [0.0, 0.0, 1.0]]


def test_nothing_to_mix_costs_nothing() -> None:
    x = torch.randn(4, 2)
    assert mix(x, torch.arange(4), torch.ones(4)) is x


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothing_spreads_its_share_evenly(smoothing: float) -> None:
    labels = soft_labels(torch.tensor([1, 0]), 4, smoothing)
    assert torch.allclose(labels.sum(1), torch.ones(2))
    assert labels[0, 1] == pytest.approx(1 - smoothing * 3 / 4)
    assert labels[0, 0] == pytest.approx(smoothing / 4)
    assert torch.allclose(smooth(labels, 0.0), labels)
