"""A layer of evaluation as one operator against the plain form, in float32 and bfloat16."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from routes import ROUTES
from torch import Tensor, nn

from omnisource.networks import base, create, freeze_norm, fused, kernels, layers, use_plain_form


def _layer(width: int, kernel: kernels.Triple, stride: kernels.Triple, groups: int, act: nn.Module | None) -> nn.Module:
    layer = layers.ConvNorm(width, width, kernel, stride, groups=groups, act=act)
    norm = layer.norm
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    norm.running_mean, norm.running_var = torch.randn(width), torch.rand(width) + 0.5
    norm.eval()  # frozen, in a layer that trains
    return layer.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def _plain(layer: nn.Module, x: Tensor, shortcut: Tensor | None) -> Tensor:
    layer.plain = True
    y: Tensor = layer(x, None if shortcut is None else shortcut.clone())
    layer.plain = False
    return y


@pytest.mark.parametrize("act", [None, nn.ReLU(inplace=True), nn.ReLU6(inplace=True), nn.SiLU(inplace=True)], ids=str)
@pytest.mark.parametrize("with_shortcut", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "groups"), ROUTES)
def test_every_layer_equals_its_plain_form(
    kernel: kernels.Triple, stride: kernels.Triple, groups: int, with_shortcut: bool, act: nn.Module | None
) -> None:
    torch.manual_seed(0)
    layer = _layer(6, kernel, stride, groups, act)
    with torch.no_grad():
        for n, t in ((1, 4), (2, 3), (2, 1)):
            x = torch.randn(n, 6, t, 8, 7)  # contiguous, as a network's input is
            shortcut = torch.randn_like(_plain(layer, x, None)) if with_shortcut else None
            wanted = _plain(layer, x, shortcut)
            for like in (x, x.contiguous(memory_format=torch.channels_last_3d)):
                torch.testing.assert_close(layer(like, None if shortcut is None else shortcut.clone()), wanted)
                layer.eval()
                with fused(layer):  # twice: the second time with the kernel that was kept
                    for _ in range(2):
                        other = None if shortcut is None else shortcut.clone()
                        torch.testing.assert_close(layer(like, other), wanted)
                layer.train().norm.eval()


@pytest.mark.parametrize("with_shortcut", [False, True])
def test_a_layer_of_small_maps_equals_its_plain_form(with_shortcut: bool) -> None:
    torch.manual_seed(0)
    layer = _layer(256, (1, 3, 3), (1, 1, 1), 1, nn.ReLU(inplace=True)).eval()
    x = torch.randn(2, 256, 3, 4, 4)
    assert kernels.small_maps(x, layer.conv.weight, (1, 1, 1), (0, 1, 1))
    with torch.no_grad():
        shortcut = torch.randn_like(x) if with_shortcut else None
        wanted = _plain(layer, x, shortcut)
        with fused(layer):
            for _ in range(2):
                other = None if shortcut is None else shortcut.contiguous(memory_format=torch.channels_last_3d)
                torch.testing.assert_close(layer(x, other), wanted, atol=1e-4, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 3), c=st.integers(1, 6), t=st.integers(1, 9), size=st.integers(1, 6), stride=st.integers(1, 2))
def test_depthwise_of_any_size(n: int, c: int, t: int, size: int, stride: int) -> None:
    layer = _layer(c, (3, 3, 3), (stride, stride, stride), c, nn.ReLU(inplace=True))
    x = torch.randn(n, c, t, size, size)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), _plain(layer, x, None))


def test_training_without_gradients_takes_the_statistics_of_all_snippets(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(base, "_CACHED", 1)
    network, plain = (create("tsn_r18", 3, dropout=0.0, base_width=8).double() for _ in range(2))
    plain.load_state_dict(network.state_dict())
    use_plain_form(plain)
    clips = torch.randn(2, 3, 3, 48, 48, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(network(clips), plain(clips))
    torch.testing.assert_close(dict(network.named_buffers()), dict(plain.named_buffers()))


@pytest.mark.parametrize("name", ["tsn_r18", "slowonly_r18"])
def test_no_clips_give_no_logits(name: str) -> None:
    with torch.no_grad():
        assert create(name, 3, base_width=8).eval()(torch.zeros(0, 3, 4, 32, 32)).shape == (0, 3)


@pytest.mark.parametrize("name", ["tsn_efficientnet_lite0", "tsn_efficientnet_b0", "tsn_r18"])
def test_a_2d_network_run_in_parts_equals_its_plain_form(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, plain = create(name, 5).eval(), create(name, 5).eval()
    plain.load_state_dict(network.state_dict())
    use_plain_form(plain)
    # The sides follow one another on the kernels that were kept: odd and even ones pad differently.
    clips = [torch.randn(2, 3, t, side, side) for side in (64, 33, 47) for t in (1, 5)]
    with torch.no_grad(), fused(network):
        for clip in clips:
            wanted = plain.features(clip)
            for at_once in (1, 3 * 3 * clip.shape[3] ** 2, 10**9):  # values: one snippet, three of the first block, all
                monkeypatch.setattr(base, "_CACHED", at_once)
                found = network.features(clip)
                torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
                assert torch.equal(network.features(clip), found)


@pytest.mark.parametrize(
    ("name", "frames", "clips"), [("ircsn_r50", 9, 1), ("i3d_r50", 19, 2), ("slowonly_r50", 7, 2), ("tsn_r18", 3, 2)]
)
def test_a_stem_run_in_parts_gives_the_same_bits(
    name: str, frames: int, clips: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = create(name, 5, base_width=8).eval()
    x = torch.randn(clips, 3, frames, 34, 38)
    found = []
    with torch.no_grad(), fused(network):
        for frames_at_once in (1, 2, 5, 100):
            monkeypatch.setattr(layers, "_CACHED", frames_at_once * clips * 8 * 17 * 19)
            found.append(network.features(x))
        assert all(torch.equal(one, found[-1]) for one in found)
    torch.testing.assert_close(found[0], network.features(x))


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="no bfloat16 on this CPU")
@pytest.mark.parametrize("name", ["ircsn_r50", "slowonly_r50", "i3d_inception", "tsn_efficientnet_b0"])
def test_bfloat16_is_near(name: str) -> None:
    torch.manual_seed(0)
    options = {"base_width": 8} if "_r" in name else {}
    network = create(name, 5, **options).eval()
    x = torch.randn(2, 3, 4, 64, 64)
    with torch.no_grad():
        wanted = network.features(x)
        with torch.autocast("cpu", torch.bfloat16), fused(network):
            found = network.features(x).float()
    assert (found - wanted).norm() < 0.03 * wanted.norm()


def test_gradients_flow_through_frozen_norms() -> None:
    layer = _layer(4, (1, 1, 1), (1, 1, 1), 1, nn.ReLU(inplace=True))
    x = torch.randn(1, 4, 2, 5, 5, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None and layer.conv.weight.grad is not None


@pytest.mark.filterwarnings("ignore:TF32")
def test_without_onednn_the_network_computes_the_same() -> None:
    torch.manual_seed(0)
    network = create("ircsn_r50", 3, base_width=8)
    freeze_norm(network)
    network.train().dropout.eval()
    x = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        wanted = network(x)
        with torch.backends.mkldnn.flags(enabled=False):
            torch.testing.assert_close(network(x), wanted)
        use_plain_form(network)
        torch.testing.assert_close(network(x), wanted)


def test_the_first_tap_reaches_every_output() -> None:
    for frames in range(1, 9):
        for stride in (1, 2):
            tap, read, write = kernels.taps(frames, stride)[0]
            assert (tap, read.start, write) == (1, 0, slice(0, (frames - 1) // stride + 1))
