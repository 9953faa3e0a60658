"""A 1x1x1 convolution to many channels with the norm of training, against the separate layers."""

import math
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from routes import clip, same_gradients
from torch import nn

from omnisource.networks import create, expand
from omnisource.networks.layers import ConvNorm

ACTIVATIONS = {"none": None, "relu": nn.ReLU(inplace=True), "relu6": nn.ReLU6(inplace=True)}


def _layer(channels: int, act: str, stride: int = 1, dtype: torch.dtype = torch.double) -> ConvNorm:
    strides = (stride, stride, stride)
    layer = ConvNorm(channels, 4 * channels, (1, 1, 1), strides, act=ACTIVATIONS[act]).to(dtype).train()
    nn.init.uniform_(layer.norm.weight, -1, 2)
    nn.init.normal_(layer.norm.bias)
    return layer


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 3),
    c=st.integers(1, 4),
    t=st.integers(2, 4),
    stride=st.integers(1, 2),
    act=st.sampled_from(sorted(ACTIVATIONS)),
    joined=st.booleans(),
    momentum=st.sampled_from([0.1, None]),
)
def test_values_gradients_and_statistics(
    n: int, c: int, t: int, stride: int, act: str, joined: bool, momentum: float | None
) -> None:
    torch.manual_seed(0)
    x, layer = clip(n, c, t, 25, 24), _layer(c, act, stride)
    layer.norm.momentum = momentum
    plain = deepcopy(layer)
    plain.plain = True
    shortcut = torch.randn_like(layer.conv(x)).requires_grad_() if joined else None
    assert expand.pays(x, layer.conv, layer.norm)
    ours, theirs = layer(x, shortcut), plain(x, shortcut)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(layer.norm, name), getattr(plain.norm, name))
    same_gradients(
        ours,
        theirs,
        (x, *(() if shortcut is None else (shortcut,))),
        (layer.conv.weight, layer.norm.weight, layer.norm.bias),
        (plain.conv.weight, plain.norm.weight, plain.norm.bias),
    )


def test_in_single_precision() -> None:
    """Where channels lie far from zero and hardly vary, a variance is a small difference of large numbers."""
    torch.manual_seed(0)
    layer = _layer(16, "none", dtype=torch.float32)
    exact = deepcopy(layer).double()
    exact.plain = True
    x = (torch.randn(2, 16, 4, 14, 14) * 0.05 + 3).contiguous(memory_format=torch.channels_last_3d)
    assert expand.pays(x, layer.conv, layer.norm)
    torch.testing.assert_close(layer(x).double(), exact(x.double()), rtol=0, atol=2e-4)
    torch.testing.assert_close(layer.norm.running_var.double(), exact.norm.running_var, rtol=1e-5, atol=0)


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_one_broken_number_breaks_everything(number: float, joined: bool) -> None:
    """As with separate layers: a training that has diverged must see it in its loss."""
    layer = _layer(16, "relu", dtype=torch.float32)
    x = torch.ones(2, 16, 4, 14, 14).contiguous(memory_format=torch.channels_last_3d)
    x[1, 3, 2, 5, 6] = number
    shortcut = torch.ones(2, 64, 4, 14, 14).contiguous(memory_format=torch.channels_last_3d) if joined else None
    assert expand.pays(x, layer.conv, layer.norm)
    assert layer(x, shortcut).isnan().all()


def test_a_network_keeps_the_shortcut_that_it_joins() -> None:
    torch.manual_seed(0)
    network = create("slowonly_r50", 3, base_width=8).train()
    x = torch.randn(2, 3, 4, 64, 64)
    grads = []
    for recompute in (False, True):
        network.recompute = recompute
        network.zero_grad()
        torch.manual_seed(1)
        network(x).square().sum().backward()
        grads.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize(("channels", "points"), [(64, 4), (4, 1)])
def test_few_points_take_the_separate_layers(channels: int, points: int) -> None:
    layer = _layer(channels, "none")
    assert not expand.pays(torch.zeros(1, channels, points, 4, 4, dtype=torch.double), layer.conv, layer.norm)
