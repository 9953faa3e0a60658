"""Winograd's method against torch's own convolution: values and all gradients."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from routes import clip, same_gradients, weights

from omnisource.networks import layers, winograd

sizes = st.integers(1, 6)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 3), c=sizes, o=sizes, tiles=st.integers(1, 3), h=sizes, w=sizes)
def test_along_time(n: int, c: int, o: int, tiles: int, h: int, w: int) -> None:
    x, (weight, bias) = clip(n, c, 4 * tiles, h, w), weights(o, c, 3, 1, 1)
    ours = winograd.temporal(x, weight, bias)
    same_gradients(ours, F.conv3d(x, weight, bias, 1, (1, 0, 0)), (x, weight, bias))


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 2), c=sizes, o=sizes, t=st.integers(1, 3), h=st.integers(1, 9), w=st.integers(1, 9))
def test_over_maps(n: int, c: int, o: int, t: int, h: int, w: int) -> None:
    x, (weight, bias) = clip(n, c, t, h, w), weights(o, c, 1, 3, 3)
    ours = winograd.spatial(x, weight, bias)
    same_gradients(ours, F.conv3d(x, weight, bias, 1, (0, 1, 1)), (x, weight, bias))


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last_3d])
def test_in_single_precision_it_is_near_the_convolution_that_it_stands_for(order: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 128, 4, 14, 14).relu().contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    weight = (torch.randn(160, 128, 1, 3, 3) / 48).contiguous(memory_format=order).requires_grad_()
    assert winograd.spatial_pays(x, weight, (1, 1, 1), (0, 1, 1))
    ours = layers.convolve(x, weight, None, (1, 1, 1), (0, 1, 1), 1)
    theirs = F.conv3d(x.double(), weight.double(), None, 1, (0, 1, 1))
    towards = torch.randn_like(theirs)
    pairs = zip(
        (ours, *torch.autograd.grad(ours, (x, weight), towards.float())),
        (theirs, *torch.autograd.grad(theirs, (x, weight), towards)),
        strict=True,
    )
    for mine, other in pairs:
        assert (mine - other).abs().max() < 5e-5 * other.abs().max()


@pytest.mark.parametrize(
    ("shape", "outputs", "stride", "why"),
    [
        ((1, 128, 8, 14, 14), 64, 1, "too few channels to be worth it"),
        ((1, 128, 7, 14, 14), 128, 1, "too few tiles"),
        ((1, 128, 99, 6, 6), 128, 1, "of four tiles little more than two are used"),
        ((1, 128, 8, 14, 14), 128, 2, "every other pixel"),
    ],
)
def test_where_it_does_not_pay(shape: tuple[int, ...], outputs: int, stride: int, why: str) -> None:
    x, weight = torch.zeros(shape), torch.zeros(outputs, 128, 1, 3, 3)
    assert winograd.spatial_pays(torch.zeros(1, 128, 8, 14, 14), torch.zeros(128, 128, 1, 3, 3), (1, 1, 1), (0, 1, 1))
    assert not winograd.spatial_pays(x, weight, (1, stride, stride), (0, 1, 1)), why


@pytest.mark.parametrize("pays", [winograd.temporal_pays, winograd.spatial_pays])
def test_half_precision_is_left_to_the_vendor(pays: Callable[..., bool]) -> None:
    taps, padding = ((3, 1, 1), (1, 0, 0)) if pays is winograd.temporal_pays else ((1, 3, 3), (0, 1, 1))
    x, weight = torch.zeros(1, 128, 8, 14, 14), torch.zeros(128, 128, *taps)
    assert pays(x, weight, (1, 1, 1), padding)
    assert not pays(x.bfloat16(), weight.bfloat16(), (1, 1, 1), padding)
    with torch.autocast("cpu", torch.bfloat16):
        assert not pays(x, weight, (1, 1, 1), padding)
