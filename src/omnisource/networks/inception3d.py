"""I3D on Inception-v1.

Carreira and Zisserman, "Quo vadis, action recognition? A new model and the Kinetics dataset" (2017). All
padding is as in TensorFlow, where the weights come from.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnisource.networks.base import Network
from omnisource.networks.kernels import Triple
from omnisource.networks.layers import ConvNorm, pad_same

Widths = tuple[int, int, int, int, int, int]

# Per module: 1x1 | 1x1 -> 3x3 | 1x1 -> 3x3 | pool -> 1x1.
MODULES: dict[str, Widths] = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}
POOLS: dict[str, tuple[Triple, Triple]] = {"4b": ((3, 3, 3), (2, 2, 2)), "5b": ((2, 2, 2), (2, 2, 2))}
"""Max pools (kernel, stride) that stand before a module."""


def _layer(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> ConvNorm:
    return ConvNorm(
        in_channels,
        out_channels,
        (kernel, kernel, kernel),
        (stride, stride, stride),
        act=nn.ReLU(inplace=True),
        eps=1e-3,
        momentum=0.01,
        same=True,
    )


def _pool(x: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    # Zeros in the padding never win against what a ReLU gives.
    return F.max_pool3d(pad_same(x, torch.Size(kernel), stride), kernel, stride)


class Inception(nn.Module):
    """Four branches side by side: (N, C, T, H, W) -> (N, C', T, H, W)."""

    def __init__(self, in_channels: int, widths: Widths) -> None:
        super().__init__()
        self.point = _layer(in_channels, widths[0], 1)
        self.reduce1 = _layer(in_channels, widths[1], 1)
        self.conv1 = _layer(widths[1], widths[2], 3)
        self.reduce2 = _layer(in_channels, widths[3], 1)
        self.conv2 = _layer(widths[3], widths[4], 3)
        self.pooled = _layer(in_channels, widths[5], 1)

    def forward(self, x: Tensor) -> Tensor:
        branches = (
            self.point(x),
            self.conv1(self.reduce1(x)),
            self.conv2(self.reduce2(x)),
            self.pooled(_pool(x, (3, 3, 3), (1, 1, 1))),
        )
        return torch.cat(branches, 1)


class InceptionI3D(Network):
    """I3D on Inception-v1, RGB or flow.

        stage   kernels                                  output of a 64 x 224 x 224 input
        input                                            3    x 64 x 224 x 224
        1a      7x7x7, stride 2                          64   x 32 x 112 x 112
        pool    max 1x3x3, stride 1,2,2                  64   x 32 x 56 x 56
        2b      1x1x1                                    64   x 32 x 56 x 56
        2c      3x3x3                                    192  x 32 x 56 x 56
        pool    max 1x3x3, stride 1,2,2                  192  x 32 x 28 x 28
        3b, c   Inception x 2                            480  x 32 x 28 x 28
        pool    max 3x3x3, stride 2                      480  x 16 x 14 x 14
        4b - f  Inception x 5                            832  x 16 x 14 x 14
        pool    max 2x2x2, stride 2                      832  x 8 x 7 x 7
        5b, c   Inception x 2                            1024 x 8 x 7 x 7

    With 400 classes: 12.7 M parameters, 111 GMACs at 64 x 224. Paper, section 4 (flow stream).
    """

    def __init__(self, num_classes: int, in_channels: int, dropout: float = 0.5) -> None:
        super().__init__(num_classes, in_channels, dropout)
        self.conv1a = _layer(in_channels, 64, 7, 2)
        self.conv2b = _layer(64, 64, 1)
        self.conv2c = _layer(64, 192, 3)
        self.blocks = nn.ModuleDict()
        channels = 192
        for name, widths in MODULES.items():
            self.blocks[name] = Inception(channels, widths)
            channels = widths[0] + widths[2] + widths[4] + widths[5]
        self.finish(channels)

    def trunk(self, x: Tensor) -> Tensor:
        x = _pool(self.conv1a(x), (1, 3, 3), (1, 2, 2))
        x = _pool(self.conv2c(self.conv2b(x)), (1, 3, 3), (1, 2, 2))
        for name, block in self.blocks.items():
            if name in POOLS:
                x = _pool(x, *POOLS[name])
            x = self.run([block], x)
        return x

    def pool(self, x: Tensor) -> Tensor:
        """Mean over space, then over time in windows of two frames, as the authors do: the first and the last
        frame count half."""
        x = x.mean((3, 4))
        return (x if x.shape[2] < 2 else (x[:, :, 1:] + x[:, :, :-1]) / 2).mean(2)
