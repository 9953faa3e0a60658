"""Depthwise 3x3x3 convolutions, tap by tap, against torch's own."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from routes import clip, same_gradients, weights

from omnisource.networks.depthwise import depthwise

sizes = st.integers(1, 6)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 3), c=sizes, t=st.integers(1, 9), h=sizes, w=sizes, stride=st.integers(1, 2))
def test_values_and_gradients(n: int, c: int, t: int, h: int, w: int, stride: int) -> None:
    x, (weight, bias) = clip(n, c, t, h, w), weights(c, 1, 3, 3, 3)
    ours = depthwise(x, weight, bias, stride)
    same_gradients(ours, F.conv3d(x, weight, bias, stride, 1, groups=c), (x, weight, bias))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_in_single_precision_too(frames: int, stride: int) -> None:
    """There oneDNN computes, on machines that have it."""
    torch.manual_seed(0)
    x, weight = (torch.randn(shape, requires_grad=True) for shape in ((2, 8, frames, 9, 7), (8, 1, 3, 3, 3)))
    ours = depthwise(x, weight, None, stride)
    theirs = F.conv3d(x, weight, None, stride, 1, groups=8)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    towards = torch.randn_like(theirs)
    found, right = (torch.autograd.grad(y, (x, weight), towards) for y in (ours, theirs))
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-3)
