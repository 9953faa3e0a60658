"""The faster routes against torch's own convolution: values and all gradients, in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from routes import ROUTES, clip, same_gradients, weights

from omnisource.networks import create, freeze_norm, fused, kernels, layers


@pytest.mark.parametrize("frames", [1, 3, 4])
@pytest.mark.parametrize(("kernel", "stride", "groups"), ROUTES)
def test_every_route_of_convolve(kernel: kernels.Triple, stride: kernels.Triple, groups: int, frames: int) -> None:
    x, (weight, bias) = clip(2, 6, frames, 8, 7), weights(6, 6 // groups, *kernel)
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    ours = layers.convolve(x, weight, bias, stride, padding, groups)
    same_gradients(ours, F.conv3d(x, weight, bias, stride, padding, groups=groups), (x, weight, bias))


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (4, 3), (7, 8), (16, 16)])
def test_small_maps_take_another_route_to_the_same_values(size: tuple[int, int], stride: int, frames: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 256, frames, *size).contiguous(memory_format=torch.channels_last_3d)
    weight = torch.randn(256, 256, 1, 3, 3) / 48  # as large as kernels are that a cache does not hold
    x, weight = x.requires_grad_(), weight.requires_grad_()
    strides = (1, stride, stride)
    height, width = ((side - 1) // stride + 1 for side in size)
    assert kernels.small_maps(x, weight, strides, (0, 1, 1)) == (min(height, width) > 1 and height * width <= 16)
    ours = layers.convolve(x, weight, None, strides, (0, 1, 1), 1)
    theirs = F.conv3d(x.double(), weight.double(), None, strides, (0, 1, 1))
    torch.testing.assert_close(ours.double(), theirs, atol=1e-4, rtol=1e-4)
    for mine, other in zip(
        torch.autograd.grad(ours.square().sum(), (x, weight)),
        torch.autograd.grad(theirs.square().sum(), (x, weight)),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 2, 2)])
def test_a_large_kernel_of_one_point_is_a_product_of_matrices(stride: kernels.Triple) -> None:
    x, (weight, bias) = clip(2, 256, 3, 5, 4), weights(2048, 256, 1, 1, 1)
    assert kernels.point(x, weight, stride, (0, 0, 0))
    ours = layers.convolve(x, weight, bias, stride, (0, 0, 0), 1)
    same_gradients(ours, F.conv3d(x, weight, bias, stride), (x, weight, bias))


@pytest.mark.parametrize("stride", [1, 2])
def test_pooling_frame_by_frame(stride: int) -> None:
    x = clip(2, 3, 5, 9, 8)
    ours = layers.max_pool(x, (1, 3, 3), (stride, 2, 2), (0, 1, 1))
    same_gradients(ours, F.max_pool3d(x, (1, 3, 3), (stride, 2, 2), (0, 1, 1)), (x,))


@given(size=st.integers(1, 40), kernel=st.integers(1, 7), stride=st.integers(1, 3))
def test_same_padding_gives_the_size_divided_by_the_stride(size: int, kernel: int, stride: int) -> None:
    x = torch.zeros(1, 1, 1, 1, size)
    padded = layers.pad_same(x, torch.Size((1, 1, kernel)), (1, 1, stride))
    assert (padded.shape[4] - kernel) // stride + 1 == -(-size // stride)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (9, 7), (8, 9)])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_layer_that_pads_as_tensorflow_equals_its_plain_form(
    kernel: int, stride: int, size: tuple[int, int], frozen: bool
) -> None:
    torch.manual_seed(0)
    layer = layers.ConvNorm(6, 6, (1, kernel, kernel), (1, stride, stride), groups=6, same=True).double()
    layer.norm.running_mean, layer.norm.running_var = torch.randn(6).double(), torch.rand(6).double() + 0.5
    layer.norm.train(not frozen)
    x = clip(2, 6, 3, *size)
    inputs = (x, layer.conv.weight, layer.norm.weight, layer.norm.bias)
    ours = layer(x)
    layer.plain = True
    same_gradients(ours, layer(x), inputs)


def test_gradients_of_small_clips_are_finite() -> None:
    """Whatever lay in the memory that they are written to: hence several draws."""
    for seed in range(8):
        torch.manual_seed(seed)
        network = create("i3d_inception", 3).train()
        with torch.autocast("cpu", torch.bfloat16):
            loss = network(torch.randn(4, 3, 8, 32, 32)).float().square().sum()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_kernels_made_beforehand_are_kept_and_forgotten() -> None:
    network = create("tsn_efficientnet_lite0", 3)
    freeze_norm(network)
    network.train().dropout.eval()
    x = torch.randn(2, 3, 1, 64, 64)
    with torch.no_grad():
        wanted = network(x)  # by kernels that are made in every pass
        before = network.eval()(x)
        with fused(network):
            inside = network(x)
            assert torch.equal(inside, wanted)
            torch.testing.assert_close(inside, before)
            network.stem.norm.bias.add_(1)  # not seen: the kernels were made before
            assert torch.equal(network(x), inside)
        assert not torch.allclose(network(x), before, rtol=0.01, atol=0)
