"""State dicts with the keys and shapes of other projects' networks, written down from their sources' module trees.

Each function lists keys as the project itself names them, with random values; nothing of the converter is used.
"""

import torch
from torch import Tensor

State = dict[str, Tensor]
BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def _fill(state: State, conv: str, norm: str, shape: tuple[int, ...]) -> None:
    state[f"{conv}.weight"] = torch.randn(shape) * (2 / (shape[0] * shape[2] ** 2)) ** 0.5
    state[f"{norm}.weight"], state[f"{norm}.bias"] = torch.rand(shape[0]) + 0.5, torch.randn(shape[0]) * 0.1
    state[f"{norm}.running_mean"] = torch.randn(shape[0]) * 0.1
    state[f"{norm}.running_var"] = torch.rand(shape[0]) + 0.5
    state[f"{norm}.num_batches_tracked"] = torch.tensor(7)


def _classifier(state: State, key: str, classes: int, width: int, *ones: int) -> None:
    state[f"{key}.weight"], state[f"{key}.bias"] = torch.randn(classes, width, *ones) * 0.05, torch.randn(classes) * 0.1


def torchvision_resnet(depth: int = 18, classes: int = 1000) -> State:
    state: State = {}
    _fill(state, "conv1", "bn1", (64, 3, 7, 7))
    channels = 64
    for stage, count in enumerate(BLOCKS[depth]):
        width = 64 * 2**stage
        out = width if depth < 50 else 4 * width
        for block in range(count):
            here = f"layer{stage + 1}.{block}"
            shapes = [(width, channels, 3, 3), (width, width, 3, 3)]
            if depth >= 50:
                shapes = [(width, channels, 1, 1), (width, width, 3, 3), (out, width, 1, 1)]
            for i, shape in enumerate(shapes, 1):
                _fill(state, f"{here}.conv{i}", f"{here}.bn{i}", shape)
            if block == 0 and channels != out:
                _fill(state, f"{here}.downsample.0", f"{here}.downsample.1", (out, channels, 1, 1))
            channels = out
    _classifier(state, "fc", classes, channels)
    return state


def vmz_csn(preserve: bool, classes: int = 359) -> State:
    """ir/ip CSN of depth 50; without `num_batches_tracked`, as converted from Caffe2."""
    state: State = {}
    _fill(state, "stem.0", "stem.1", (64, 3, 3, 7, 7))
    channels = 64
    for stage, count in enumerate(BLOCKS[50]):
        width = 64 * 2**stage
        for block in range(count):
            here = f"layer{stage + 1}.{block}"
            _fill(state, f"{here}.conv1.0", f"{here}.conv1.1", (width, channels, 1, 1, 1))
            if preserve:
                _fill(state, f"{here}.conv2.0.0", f"{here}.conv2.0.1", (width, width, 1, 1, 1))
                _fill(state, f"{here}.conv2.0.2", f"{here}.conv2.1", (width, 1, 3, 3, 3))
            else:
                _fill(state, f"{here}.conv2.0", f"{here}.conv2.1", (width, 1, 3, 3, 3))
            _fill(state, f"{here}.conv3.0", f"{here}.conv3.1", (4 * width, width, 1, 1, 1))
            if block == 0:
                _fill(state, f"{here}.downsample.0", f"{here}.downsample.1", (4 * width, channels, 1, 1, 1))
            channels = 4 * width
    _classifier(state, "fc", classes, channels)
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def mmaction_csn(preserve: bool) -> State:
    """ir/ip CSN of depth 50 in mmaction2's layout; the head holds 400 classes."""
    state: State = {}
    _fill(state, "backbone.conv1.conv", "backbone.conv1.bn", (64, 3, 3, 7, 7))
    channels = 64
    for stage, count in enumerate(BLOCKS[50]):
        width = 64 * 2**stage
        for block in range(count):
            here = f"backbone.layer{stage + 1}.{block}"
            _fill(state, f"{here}.conv1.conv", f"{here}.conv1.bn", (width, channels, 1, 1, 1))
            if preserve:
                _fill(state, f"{here}.conv2.0.conv", f"{here}.conv2.0.bn", (width, width, 1, 1, 1))
            last = 1 if preserve else 0
            _fill(state, f"{here}.conv2.{last}.conv", f"{here}.conv2.{last}.bn", (width, 1, 3, 3, 3))
            _fill(state, f"{here}.conv3.conv", f"{here}.conv3.bn", (4 * width, width, 1, 1, 1))
            if block == 0:
                _fill(state, f"{here}.downsample.conv", f"{here}.downsample.bn", (4 * width, channels, 1, 1, 1))
            channels = 4 * width
    _classifier(state, "cls_head.fc_cls", 400, channels)
    return state


def pytorchvideo(depth: int, csn: bool) -> State:
    """`slow_r50` (or, with `csn`, a CSN) as PyTorchVideo's hub gives it."""
    state: State = {}
    _fill(state, "blocks.0.conv", "blocks.0.norm", (64, 3, 3 if csn else 1, 7, 7))
    channels = 64
    for stage, count in enumerate(BLOCKS[depth]):
        width = 64 * 2**stage
        time = 3 if stage >= 2 and not csn else 1
        for block in range(count):
            here = f"blocks.{stage + 1}.res_blocks.{block}"
            if block == 0:
                _fill(state, f"{here}.branch1_conv", f"{here}.branch1_norm", (4 * width, channels, 1, 1, 1))
            middle = (width, 1, 3, 3, 3) if csn else (width, width, 1, 3, 3)
            _fill(state, f"{here}.branch2.conv_a", f"{here}.branch2.norm_a", (width, channels, time, 1, 1))
            _fill(state, f"{here}.branch2.conv_b", f"{here}.branch2.norm_b", middle)
            _fill(state, f"{here}.branch2.conv_c", f"{here}.branch2.norm_c", (4 * width, width, 1, 1, 1))
            channels = 4 * width
    _classifier(state, "blocks.5.proj", 400, channels)
    return state


def pytorch_i3d(in_channels: int = 3) -> State:
    state: State = {}

    def unit(name: str, out: int, inside: int, kernel: int) -> None:
        _fill(state, f"{name}.conv3d", f"{name}.bn", (out, inside, kernel, kernel, kernel))

    unit("Conv3d_1a_7x7", 64, in_channels, 7)
    unit("Conv3d_2b_1x1", 64, 64, 1)
    unit("Conv3d_2c_3x3", 192, 64, 3)
    channels = 192
    for name, a, b, c, d, e, f in (
        ("3b", 64, 96, 128, 16, 32, 32),
        ("3c", 128, 128, 192, 32, 96, 64),
        ("4b", 192, 96, 208, 16, 48, 64),
        ("4c", 160, 112, 224, 24, 64, 64),
        ("4d", 128, 128, 256, 24, 64, 64),
        ("4e", 112, 144, 288, 32, 64, 64),
        ("4f", 256, 160, 320, 32, 128, 128),
        ("5b", 256, 160, 320, 32, 128, 128),
        ("5c", 384, 192, 384, 48, 128, 128),
    ):
        unit(f"Mixed_{name}.b0", a, channels, 1)
        unit(f"Mixed_{name}.b1a", b, channels, 1)
        unit(f"Mixed_{name}.b1b", c, b, 3)
        unit(f"Mixed_{name}.b2a", d, channels, 1)
        unit(f"Mixed_{name}.b2b", e, d, 3)
        unit(f"Mixed_{name}.b3b", f, channels, 1)
        channels = a + c + e + f
    _classifier(state, "logits.conv3d", 400, 1024, 1, 1, 1)
    return state


_B0 = ((1, 16, 1, 3), (6, 24, 2, 3), (6, 40, 2, 5), (6, 80, 3, 3), (6, 112, 3, 5), (6, 192, 4, 5), (6, 320, 1, 3))


def efficientnet_b0(project: str) -> State:
    """EfficientNet-B0 of "torchvision", "timm" or "efficientnet-pytorch"."""
    state: State = {}
    names = {
        "torchvision": (("features.0.0", "features.0.1"), ("features.8.0", "features.8.1"), "classifier.1"),
        "timm": (("conv_stem", "bn1"), ("conv_head", "bn2"), "classifier"),
        "efficientnet-pytorch": (("_conv_stem", "_bn0"), ("_conv_head", "_bn1"), "_fc"),
    }
    stem, last, head = names[project]
    _fill(state, *stem, (32, 3, 3, 3))
    channels, flat = 32, 0
    for stage, (expansion, out, count, kernel) in enumerate(_B0):
        for block in range(count):
            wide, squeezed, widens = channels * expansion, channels // 4, expansion > 1
            if project == "torchvision":
                here, i = f"features.{stage + 1}.{block}.block", int(widens)
                parts = (f"{here}.0.0", f"{here}.0.1"), (f"{here}.{i}.0", f"{here}.{i}.1")
                gates = f"{here}.{i + 1}.fc1", f"{here}.{i + 1}.fc2"
                project_out = f"{here}.{i + 2}.0", f"{here}.{i + 2}.1"
            elif project == "timm":
                here = f"blocks.{stage}.{block}"
                parts = (f"{here}.conv_pw", f"{here}.bn1"), (f"{here}.conv_dw", f"{here}.bn{2 if widens else 1}")
                gates = f"{here}.se.conv_reduce", f"{here}.se.conv_expand"
                project_out = (f"{here}.conv_pwl", f"{here}.bn3") if widens else (f"{here}.conv_pw", f"{here}.bn2")
            else:
                here = f"_blocks.{flat}"
                parts = (f"{here}._expand_conv", f"{here}._bn0"), (f"{here}._depthwise_conv", f"{here}._bn1")
                gates = f"{here}._se_reduce", f"{here}._se_expand"
                project_out = f"{here}._project_conv", f"{here}._bn2"
            if widens:
                _fill(state, *parts[0], (wide, channels, 1, 1))
            _fill(state, *parts[1], (wide, 1, kernel, kernel))
            _classifier(state, gates[0], squeezed, wide, 1, 1)
            _classifier(state, gates[1], wide, squeezed, 1, 1)
            _fill(state, *project_out, (out, wide, 1, 1))
            channels, flat = out, flat + 1
    _fill(state, *last, (1280, 320, 1, 1))
    _classifier(state, head, 1000, 1280)
    return state
