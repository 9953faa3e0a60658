"""TSN on EfficientNet B0 to B4 and EfficientNet-Lite0.

Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks" (2019). Lite0 is its
authors' mobile variant: no squeeze-and-excitation, ReLU6 in place of SiLU, stem and last convolution never
scaled.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from omnisource.errors import UserError
from omnisource.networks.base import Consensus, Network
from omnisource.networks.layers import ConvNorm


@dataclass(frozen=True)
class Stage:
    """One row of the paper's table 1, before scaling."""

    expansion: int
    channels: int
    blocks: int
    stride: int
    kernel: int


STAGES = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3),
)
SCALES = {"b0": (1.0, 1.0), "b1": (1.0, 1.1), "b2": (1.1, 1.2), "b3": (1.2, 1.4), "b4": (1.4, 1.8)}
"""Multipliers of width and depth."""


def round_channels(channels: float) -> int:
    """The multiple of 8 nearest to `channels`, but never more than a tenth below it."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class SqueezeExcite(nn.Module):
    """Scales each channel of each snippet by a gate computed from that snippet's mean over space."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv3d(channels, squeezed, 1)
        self.expand = nn.Conv3d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = F.silu(self.reduce(x.mean((3, 4), keepdim=True)))
        gate: Tensor = self.expand(squeezed)
        return x * gate.sigmoid()


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise kxk, gate, project 1x1, and the input added where shapes allow."""

    def __init__(
        self,
        channels: int,
        out: int,
        stage: Stage,
        stride: int,
        lite: bool,
        eps: float,
        momentum: float,
        same: bool,
    ) -> None:
        super().__init__()
        wide = channels * stage.expansion
        act = nn.ReLU6(inplace=True) if lite else nn.SiLU(inplace=True)
        self.expand = (
            ConvNorm(channels, wide, (1, 1, 1), act=act, eps=eps, momentum=momentum) if wide > channels else None
        )
        self.depthwise = ConvNorm(
            wide,
            wide,
            (1, stage.kernel, stage.kernel),
            (1, stride, stride),
            groups=wide,
            act=act,
            eps=eps,
            momentum=momentum,
            same=same,
        )
        self.gate = None if lite else SqueezeExcite(wide, max(1, channels // 4))
        self.project = ConvNorm(wide, out, (1, 1, 1), eps=eps, momentum=momentum)
        self.residual = channels == out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x if self.expand is None else self.expand(x)
        y = self.depthwise(y)
        if self.gate is not None:
            y = self.gate(y)
        y = self.project(y, x if self.residual else None)
        return y


class EfficientNet(Network):
    """A 2D network on T snippets, features averaged over the snippets (TSN).

        stage   kernels                            output of a 224 x 224 input (B0)
        input                                      3    x T x 224 x 224
        stem    3x3, stride 2                      32   x T x 112 x 112
        1       depthwise 3x3             x 1      16   x T x 112 x 112
        2       expand 6, depthwise 3x3   x 2      24   x T x 56 x 56
        3       expand 6, depthwise 5x5   x 2      40   x T x 28 x 28
        4       expand 6, depthwise 3x3   x 3      80   x T x 14 x 14
        5       expand 6, depthwise 5x5   x 3      112  x T x 14 x 14
        6       expand 6, depthwise 5x5   x 4      192  x T x 7 x 7
        7       expand 6, depthwise 3x3   x 1      320  x T x 7 x 7
        last    1x1                                1280 x T x 7 x 7

    With 1,000 classes: B0 5.29 M parameters, B1 7.79, B2 9.11, B3 12.23, B4 19.34, Lite0 4.65; per 224 x 224
    snippet B0 0.39 GMACs, Lite0 0.39. Paper, section 4.4 (TSN EfficientNet-B4).
    """

    def __init__(
        self,
        variant: Literal["b0", "b1", "b2", "b3", "b4", "lite0"],
        num_classes: int,
        in_channels: int,
        dropout: float = 0.4,
        padding: Literal["symmetric", "same"] | None = None,
        consensus: Consensus = "mean",
    ) -> None:
        """`padding`: "same" for weights that come from TensorFlow (Lite0, timm's tf_*), "symmetric" for
        those trained in PyTorch (torchvision, timm); by default "same" for lite0 only. With it goes the
        norms' epsilon."""
        super().__init__(num_classes, in_channels, dropout)
        self.spatial = True
        lite = variant == "lite0"
        width, depth = (1.0, 1.0) if lite else SCALES[variant]
        if padding not in (None, "symmetric", "same"):
            raise UserError(f"padding must be symmetric or same, not {padding!r}")
        same = padding == "same" if padding else lite
        eps, momentum = (1e-3, 0.01) if same else (1e-5, 0.1)
        act = nn.ReLU6(inplace=True) if lite else nn.SiLU(inplace=True)
        channels = round_channels(32 * width)
        self.stem = ConvNorm(
            in_channels, channels, (1, 3, 3), (1, 2, 2), act=act, eps=eps, momentum=momentum, same=same
        )
        self.stages = nn.ModuleList()
        for row in STAGES:
            out = round_channels(row.channels * width)
            stage = nn.ModuleList()
            for j in range(math.ceil(row.blocks * depth)):
                stride = row.stride if j == 0 else 1
                stage.append(InvertedResidual(channels, out, row, stride, lite, eps, momentum, same))
                channels = out
            self.stages.append(stage)
        last = round_channels(1280 * width)
        self.last = ConvNorm(channels, last, (1, 1, 1), act=act, eps=eps, momentum=momentum)
        self.finish(last, consensus)

    def trunk(self, x: Tensor) -> Tensor:
        first: tuple[nn.Module, ...] = (self.stem,)
        for stage in self.stages:
            assert isinstance(stage, nn.ModuleList)
            x = self.run([*first, *stage], x)
            first = ()
        return self.run([self.last], x)
