"""How other people's checkpoints name their weights.

A layout is a list of rules, each a pattern for a foreign key and the key that it has here; the first match
counts.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from omnisource.networks.base import Network
from omnisource.networks.checkpoint import RGB_MEAN, RGB_STD

Name = str | Callable[[re.Match[str], Network], str]


@dataclass(frozen=True)
class Layout:
    """`rules`: (pattern, key here). `drops`: (pattern, reason).

    `options`: what `create` needs for networks that have such an option, so that the weights give the numbers that
    they gave where they come from. `mean`, `std`: the input's normalisation there, RGB, in units of the uint8 pixel.
    """

    name: str
    rules: tuple[tuple[str, Name], ...]
    drops: tuple[tuple[str, str], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = RGB_MEAN
    std: tuple[float, ...] = RGB_STD

    def rename(self, key: str, network: Network) -> str | None:
        """The key here of a foreign key; None when no rule knows it."""
        for pattern, name in self.rules:
            match = re.fullmatch(pattern, key)
            if match:
                return match.expand(name) if isinstance(name, str) else name(match, network)
        return None

    def why_dropped(self, key: str) -> str | None:
        """The reason why a foreign key has no use here; None when it is no such key."""
        return next((reason for pattern, reason in self.drops if re.fullmatch(pattern, key)), None)


# Foreign names of a norm's or a convolution's own tensors.
_C = r"(weight)"
_N = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_P = r"(weight|bias)"


def _stage(match: re.Match[str], rest: str) -> str:
    """Stages count from 1 elsewhere and from 0 here."""
    return f"stages.{int(match[1]) - 1}.{match[2]}.{match.expand(rest)}"


def _in_stage(rest: str) -> Name:
    return lambda match, network: _stage(match, rest)


def _in_flat_block(rest: str) -> Name:
    """Blocks are numbered through all stages elsewhere, per stage here."""

    def name(match: re.Match[str], network: Network) -> str:
        index = int(match[1])
        stages = network.get_submodule("stages")
        for i, stage in enumerate(stages.children()):
            count = len(list(stage.children()))
            if index < count:
                return f"stages.{i}.{index}.{match.expand(rest)}"
            index -= count
        return ""  # more blocks than the network has

    return name


def _csn_conv2(rest: str) -> Name:
    """The reference numbers the convolutions between the two 1x1x1 ones; an ipCSN has two, the first
    1x1x1."""

    def name(match: re.Match[str], network: Network) -> str:
        preserve = network.name.startswith("ipcsn")
        part = "interact" if preserve and match[3] == "0" else "conv2"
        return "" if match[3] == "1" and not preserve else _stage(match, f"{part}.{rest}")

    return name


_MM = r"(?:backbone\.)?"
_MM_BLOCK = _MM + r"layer(\d)\.(\d+)\."
_MM_INPUT = (r"data_preprocessor\.(mean|std)", "the input's normalisation, which the checkpoint's metadata holds")
MMACTION = Layout(
    "mmaction",
    (
        (_MM + rf"conv1\.conv\.{_C}", r"stem.conv.\1"),
        (_MM + rf"conv1\.bn\.{_N}", r"stem.norm.\1"),
        (_MM_BLOCK + rf"conv2\.(\d)\.conv\.{_C}", _csn_conv2(r"conv.\4")),
        (_MM_BLOCK + rf"conv2\.(\d)\.bn\.{_N}", _csn_conv2(r"norm.\4")),
        (_MM_BLOCK + rf"(conv\d)\.conv\.{_C}", _in_stage(r"\3.conv.\4")),
        (_MM_BLOCK + rf"(conv\d)\.bn\.{_N}", _in_stage(r"\3.norm.\4")),
        (_MM_BLOCK + rf"downsample\.conv\.{_C}", _in_stage(r"shortcut.conv.\3")),
        (_MM_BLOCK + rf"downsample\.bn\.{_N}", _in_stage(r"shortcut.norm.\3")),
        (rf"cls_head\.fc_cls\.{_P}", r"head.\1"),
    ),
    (_MM_INPUT,),
)

TORCHVISION_RESNET = Layout(
    "torchvision-resnet",  # timm's resnets have the same keys, and so has mmaction2's OmniResNet behind `backbone.`
    (
        (_MM + rf"conv1\.{_C}", r"stem.conv.\1"),
        (_MM + rf"bn1\.{_N}", r"stem.norm.\1"),
        (_MM_BLOCK + rf"(conv\d)\.{_C}", _in_stage(r"\3.conv.\4")),
        (_MM_BLOCK + rf"bn(\d)\.{_N}", _in_stage(r"conv\3.norm.\4")),
        (_MM_BLOCK + rf"downsample\.0\.{_C}", _in_stage(r"shortcut.conv.\3")),
        (_MM_BLOCK + rf"downsample\.1\.{_N}", _in_stage(r"shortcut.norm.\3")),
        (rf"(?:fc|cls_head\.fc_cls)\.{_P}", r"head.\1"),
    ),
    (
        _MM_INPUT,
        (r"cls_head\.fc[23]d\..+", "a classifier with norms, of images or of clips, which ours has no place for"),
    ),
)

_TV_FIRST = r"features\.(1)\.(\d+)\.block\."  # the first stage does not expand: its blocks have one part less
_TV_BLOCK = r"features\.([2-7])\.(\d+)\.block\."
TORCHVISION_EFFICIENTNET = Layout(
    "torchvision-efficientnet",
    (
        (rf"features\.0\.0\.{_C}", r"stem.conv.\1"),
        (rf"features\.0\.1\.{_N}", r"stem.norm.\1"),
        (_TV_FIRST + rf"0\.0\.{_C}", _in_stage(r"depthwise.conv.\3")),
        (_TV_FIRST + rf"0\.1\.{_N}", _in_stage(r"depthwise.norm.\3")),
        (_TV_FIRST + rf"1\.fc1\.{_P}", _in_stage(r"gate.reduce.\3")),
        (_TV_FIRST + rf"1\.fc2\.{_P}", _in_stage(r"gate.expand.\3")),
        (_TV_FIRST + rf"2\.0\.{_C}", _in_stage(r"project.conv.\3")),
        (_TV_FIRST + rf"2\.1\.{_N}", _in_stage(r"project.norm.\3")),
        (_TV_BLOCK + rf"0\.0\.{_C}", _in_stage(r"expand.conv.\3")),
        (_TV_BLOCK + rf"0\.1\.{_N}", _in_stage(r"expand.norm.\3")),
        (_TV_BLOCK + rf"1\.0\.{_C}", _in_stage(r"depthwise.conv.\3")),
        (_TV_BLOCK + rf"1\.1\.{_N}", _in_stage(r"depthwise.norm.\3")),
        (_TV_BLOCK + rf"2\.fc1\.{_P}", _in_stage(r"gate.reduce.\3")),
        (_TV_BLOCK + rf"2\.fc2\.{_P}", _in_stage(r"gate.expand.\3")),
        (_TV_BLOCK + rf"3\.0\.{_C}", _in_stage(r"project.conv.\3")),
        (_TV_BLOCK + rf"3\.1\.{_N}", _in_stage(r"project.norm.\3")),
        (rf"features\.8\.0\.{_C}", r"last.conv.\1"),
        (rf"features\.8\.1\.{_N}", r"last.norm.\1"),
        (rf"classifier\.1\.{_P}", r"head.\1"),
    ),
)

TIMM_EFFICIENTNET = Layout(
    "timm-efficientnet",
    (
        (rf"conv_stem\.{_C}", r"stem.conv.\1"),
        (rf"bn1\.{_N}", r"stem.norm.\1"),
        (
            rf"blocks\.0\.(\d+)\.conv_dw\.{_C}",
            r"stages.0.\1.depthwise.conv.\2",
        ),  # the first stage does not expand
        (rf"blocks\.0\.(\d+)\.bn1\.{_N}", r"stages.0.\1.depthwise.norm.\2"),
        (rf"blocks\.0\.(\d+)\.conv_pw\.{_C}", r"stages.0.\1.project.conv.\2"),
        (rf"blocks\.0\.(\d+)\.bn2\.{_N}", r"stages.0.\1.project.norm.\2"),
        (rf"blocks\.(\d)\.(\d+)\.conv_pw\.{_C}", r"stages.\1.\2.expand.conv.\3"),
        (rf"blocks\.(\d)\.(\d+)\.bn1\.{_N}", r"stages.\1.\2.expand.norm.\3"),
        (rf"blocks\.(\d)\.(\d+)\.conv_dw\.{_C}", r"stages.\1.\2.depthwise.conv.\3"),
        (rf"blocks\.(\d)\.(\d+)\.bn2\.{_N}", r"stages.\1.\2.depthwise.norm.\3"),
        (rf"blocks\.(\d)\.(\d+)\.conv_pwl\.{_C}", r"stages.\1.\2.project.conv.\3"),
        (rf"blocks\.(\d)\.(\d+)\.bn3\.{_N}", r"stages.\1.\2.project.norm.\3"),
        (rf"blocks\.(\d)\.(\d+)\.se\.conv_(reduce|expand)\.{_P}", r"stages.\1.\2.gate.\3.\4"),
        (rf"conv_head\.{_C}", r"last.conv.\1"),
        (rf"bn2\.{_N}", r"last.norm.\1"),
        (rf"classifier\.{_P}", r"head.\1"),
    ),
)

_EP_BLOCK = r"_blocks\.(\d+)\."
EFFICIENTNET_PYTORCH = Layout(
    "efficientnet-pytorch",  # also the lite0 package
    (
        (rf"_conv_stem\.{_C}", r"stem.conv.\1"),
        (rf"_bn0\.{_N}", r"stem.norm.\1"),
        (_EP_BLOCK + rf"_(expand|depthwise|project)_conv\.{_C}", _in_flat_block(r"\2.conv.\3")),
        (_EP_BLOCK + rf"_bn0\.{_N}", _in_flat_block(r"expand.norm.\2")),
        (_EP_BLOCK + rf"_bn1\.{_N}", _in_flat_block(r"depthwise.norm.\2")),
        (_EP_BLOCK + rf"_bn2\.{_N}", _in_flat_block(r"project.norm.\2")),
        (_EP_BLOCK + rf"_se_(reduce|expand)\.{_P}", _in_flat_block(r"gate.\2.\3")),
        (rf"_conv_head\.{_C}", r"last.conv.\1"),
        (rf"_bn1\.{_N}", r"last.norm.\1"),
        (rf"_fc\.{_P}", r"head.\1"),
    ),
    options={"padding": "same"},
)

_VMZ_BLOCK = r"layer(\d)\.(\d+)\."
VMZ = Layout(
    "vmz",
    (
        (rf"stem\.0\.{_C}", r"stem.conv.\1"),
        (rf"stem\.1\.{_N}", r"stem.norm.\1"),
        (_VMZ_BLOCK + rf"conv2\.0\.0\.{_C}", _in_stage(r"interact.conv.\3")),
        (_VMZ_BLOCK + rf"conv2\.0\.1\.{_N}", _in_stage(r"interact.norm.\3")),
        (_VMZ_BLOCK + rf"conv2\.0\.2\.{_C}", _in_stage(r"conv2.conv.\3")),
        (_VMZ_BLOCK + rf"(conv\d)\.0\.{_C}", _in_stage(r"\3.conv.\4")),
        (_VMZ_BLOCK + rf"(conv\d)\.1\.{_N}", _in_stage(r"\3.norm.\4")),
        (_VMZ_BLOCK + rf"downsample\.0\.{_C}", _in_stage(r"shortcut.conv.\3")),
        (_VMZ_BLOCK + rf"downsample\.1\.{_N}", _in_stage(r"shortcut.norm.\3")),
        (rf"fc\.{_P}", r"head.\1"),
    ),
    mean=(110.2008, 100.63983, 95.99475),
    std=(58.14765, 56.46975, 55.332),
)

_CONV_OF = {"a": "conv1", "b": "conv2", "c": "conv3"}


def _lettered(rest: str) -> Name:
    return lambda match, network: _stage(match, f"{_CONV_OF[match[3]]}.{rest}")


_PTV_BLOCK = r"blocks\.([1-4])\.res_blocks\.(\d+)\."
PYTORCHVIDEO = Layout(
    "pytorchvideo",
    (
        (rf"blocks\.0\.conv\.{_C}", r"stem.conv.\1"),
        (rf"blocks\.0\.norm\.{_N}", r"stem.norm.\1"),
        (_PTV_BLOCK + rf"branch2\.conv_([abc])\.{_C}", _lettered(r"conv.\4")),
        (_PTV_BLOCK + rf"branch2\.norm_([abc])\.{_N}", _lettered(r"norm.\4")),
        (_PTV_BLOCK + rf"branch1_conv\.{_C}", _in_stage(r"shortcut.conv.\3")),
        (_PTV_BLOCK + rf"branch1_norm\.{_N}", _in_stage(r"shortcut.norm.\3")),
        (rf"blocks\.5\.proj\.{_P}", r"head.\1"),
    ),
    options={"norm_eps": 1e-5},
    mean=(114.75,) * 3,
    std=(57.375,) * 3,
)

_BRANCH_OF = {"b0": "point", "b1a": "reduce1", "b1b": "conv1", "b2a": "reduce2", "b2b": "conv2", "b3b": "pooled"}


def _branch(rest: str) -> Name:
    return lambda match, network: f"blocks.{match[1]}.{_BRANCH_OF[match[2]]}.{match.expand(rest)}"


_MIXED = r"Mixed_(\d[a-f])\.(b0|b1a|b1b|b2a|b2b|b3b)\."
PYTORCH_I3D = Layout(
    "pytorch-i3d",
    (
        (rf"Conv3d_(1a|2b|2c)_\dx\d\.conv3d\.{_C}", r"conv\1.conv.\2"),
        (rf"Conv3d_(1a|2b|2c)_\dx\d\.bn\.{_N}", r"conv\1.norm.\2"),
        (_MIXED + rf"conv3d\.{_C}", _branch(r"conv.\3")),
        (_MIXED + rf"bn\.{_N}", _branch(r"norm.\3")),
        (rf"logits\.conv3d\.{_P}", r"head.\1"),
    ),
    mean=(127.5,) * 3,
    std=(127.5,) * 3,
)

OMNISOURCE = Layout(
    "omnisource",
    ((r"(.+)", r"\1"),),
    ((r"usual_change", "the network's consensus does not look at change"),),
)

LAYOUTS = (
    OMNISOURCE,
    MMACTION,
    TORCHVISION_RESNET,
    TORCHVISION_EFFICIENTNET,
    TIMM_EFFICIENTNET,
    EFFICIENTNET_PYTORCH,
    VMZ,
    PYTORCHVIDEO,
    PYTORCH_I3D,
)
