"""Residual networks over clips: TSN (2D), SlowOnly and I3D.

He et al., "Deep residual learning for image recognition" (2016); Wang et al., "Temporal segment networks"
(2016); Feichtenhofer et al., "SlowFast networks" (2019), its slow pathway; Carreira and Zisserman, "Quo
vadis, action recognition?" (2017), inflated from a residual network. One trunk serves all: they differ in
which kernels reach through time.

    block of R50 and deeper               block of R18 and R34
    ktx1x1, width                         ktx3x3, width, stride 1,s,s
    1x3x3,  width, stride 1,s,s           1x3x3,  width
    1x1x1,  4 width                       + shortcut, ReLU
    + shortcut, ReLU

kt is 3 where the network reaches through time, else 1.
"""

from collections.abc import Callable, Sequence
from itertools import cycle, islice

from torch import Tensor, nn

from omnisource.errors import UserError
from omnisource.networks.base import Consensus, Network
from omnisource.networks.kernels import Triple
from omnisource.networks.layers import ConvNorm, max_pool, pooled

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class BasicBlock(nn.Module):
    """Two convolutions: (N, C, T, H, W) -> (N, width, T, H/s, W/s)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, kernel_t: int, stride: int) -> None:
        super().__init__()
        strides = (1, stride, stride)
        self.conv1 = ConvNorm(in_channels, width, (kernel_t, 3, 3), strides, act=nn.ReLU(inplace=True))
        self.conv2 = ConvNorm(width, width, (1, 3, 3), act=nn.ReLU(inplace=True))
        self.shortcut = shortcut(in_channels, width, strides)
        nn.init.zeros_(self.conv2.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.conv1(x), x if self.shortcut is None else self.shortcut(x))
        return y


class Bottleneck(nn.Module):
    """Three convolutions: (N, C, T, H, W) -> (N, 4 width, T, H/s, W/s)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, kernel_t: int, stride: int) -> None:
        super().__init__()
        strides = (1, stride, stride)
        self.conv1 = ConvNorm(in_channels, width, (kernel_t, 1, 1), act=nn.ReLU(inplace=True))
        self.conv2 = ConvNorm(width, width, (1, 3, 3), strides, act=nn.ReLU(inplace=True))
        self.conv3 = ConvNorm(width, 4 * width, (1, 1, 1), act=nn.ReLU(inplace=True))
        self.shortcut = shortcut(in_channels, 4 * width, strides)
        nn.init.zeros_(self.conv3.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv3(self.conv2(self.conv1(x)), x if self.shortcut is None else self.shortcut(x))
        return y


def shortcut(in_channels: int, out_channels: int, stride: Triple) -> ConvNorm | None:
    """What joins a block's input to its output: nothing while the shape stays, else a 1x1x1 convolution."""
    if in_channels == out_channels and stride == (1, 1, 1):
        return None
    return ConvNorm(in_channels, out_channels, (1, 1, 1), stride)


class ResNet(Network):
    """Stem, four stages of residual blocks; see the functions below for the three families."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        dropout: float,
        depth: int,
        base_width: int,
        stem_kernel_t: int,
        temporal: Sequence[Sequence[int]],
        consensus: Consensus = "mean",
    ) -> None:
        """`temporal`: per stage, the blocks' kernel sizes along time, repeated as often as the stage
        needs."""
        super().__init__(num_classes, in_channels, dropout)
        if base_width < 1:
            raise UserError(f"base_width must be at least 1, not {base_width}")
        block: Callable[..., BasicBlock | Bottleneck] = BasicBlock if depth < 50 else Bottleneck
        expansion = 1 if depth < 50 else 4
        self.stem_stride_t = 2 if stem_kernel_t > 1 else 1
        self.stem = ConvNorm(
            in_channels,
            base_width,
            (stem_kernel_t, 7, 7),
            (self.stem_stride_t, 2, 2),
            act=nn.ReLU(inplace=True),
        )
        self.stages = nn.ModuleList()
        channels = base_width
        for i, count in enumerate(BLOCKS[depth]):
            width = base_width * 2**i
            stage = nn.ModuleList()
            for j, kernel_t in enumerate(islice(cycle(temporal[i]), count)):
                stage.append(block(channels, width, kernel_t, 2 if i > 0 and j == 0 else 1))
                channels = width * expansion
            self.stages.append(stage)
        self.finish(channels, consensus)

    def trunk(self, x: Tensor) -> Tensor:
        x = pooled(self.stem, x, self.stem_stride_t)
        for i, stage in enumerate(self.stages):
            assert isinstance(stage, nn.ModuleList)
            x = self.run(stage, x)
            if i == 0 and self.stem_stride_t > 1:
                x = max_pool(x, (2, 1, 1), (2, 1, 1), (0, 0, 0))
        return x


def tsn_resnet(
    depth: int,
    num_classes: int,
    in_channels: int,
    dropout: float = 0.4,
    base_width: int = 64,
    consensus: Consensus = "mean",
) -> ResNet:
    """TSN: a 2D residual network on T snippets, features averaged over the snippets.

        stage   kernels                            output of a 224 x 224 input (R50)
        input                                      3    x T x 224 x 224
        stem    1x7x7, stride 1,2,2                64   x T x 112 x 112
        pool    max 1x3x3, stride 1,2,2            64   x T x 56 x 56
        1       [1x1x1, 1x3x3, 1x1x1] x 3          256  x T x 56 x 56
        2       [1x1x1, 1x3x3, 1x1x1] x 4          512  x T x 28 x 28
        3       [1x1x1, 1x3x3, 1x1x1] x 6          1024 x T x 14 x 14
        4       [1x1x1, 1x3x3, 1x1x1] x 3          2048 x T x 7 x 7

    R50 with 400 classes: 24.3 M parameters, 4.1 GMACs per snippet. Paper, section 4 (TSN 3seg).
    """
    network = ResNet(num_classes, in_channels, dropout, depth, base_width, 1, ((1,),) * 4, consensus)
    network.spatial = True
    return network


def slowonly(depth: int, num_classes: int, in_channels: int, dropout: float = 0.5, base_width: int = 64) -> ResNet:
    """SlowOnly: temporal kernels only in the first convolution of the blocks of the last two stages.

        stage   kernels                            output of an 8 x 224 x 224 input (R50)
        input                                      3    x 8 x 224 x 224
        stem    1x7x7, stride 1,2,2                64   x 8 x 112 x 112
        pool    max 1x3x3, stride 1,2,2            64   x 8 x 56 x 56
        1       [1x1x1, 1x3x3, 1x1x1] x 3          256  x 8 x 56 x 56
        2       [1x1x1, 1x3x3, 1x1x1] x 4          512  x 8 x 28 x 28
        3       [3x1x1, 1x3x3, 1x1x1] x 6          1024 x 8 x 14 x 14
        4       [3x1x1, 1x3x3, 1x1x1] x 3          2048 x 8 x 7 x 7

    R50 with 400 classes: 32.45 M parameters; 20.9 GMACs at 4 x 224, 41.7 at 8 x 224, 54.5 at 8 x 256 (the size for
    which the literature gives it). R101: 60.4 M; 85.4 GMACs at 8 x 224, 111.6 at 8 x 256. R18 and R34 have a 3x3x3
    kernel where the deeper ones have the 3x1x1. Paper, section 4 (SlowOnly 4x16 and 8x8).
    """
    return ResNet(num_classes, in_channels, dropout, depth, base_width, 1, ((1,), (1,), (3,), (3,)))


def i3d_resnet(depth: int, num_classes: int, in_channels: int, dropout: float = 0.5, base_width: int = 64) -> ResNet:
    """I3D on a residual network: 3x1x1 kernels in every second block, time shrunk eight times before stage 2.

        stage   kernels                                          output of a 32 x 224 x 224 input (R50)
        input                                                    3    x 32 x 224 x 224
        stem    5x7x7, stride 2,2,2                              64   x 16 x 112 x 112
        pool    max 1x3x3, stride 2,2,2                          64   x 8 x 56 x 56
        1       [3x1x1, 1x3x3, 1x1x1] x 3                        256  x 8 x 56 x 56
        pool    max 2x1x1, stride 2,1,1                          256  x 4 x 56 x 56
        2       3x1x1 and 1x1x1 in turn before 1x3x3, 1x1x1      512  x 4 x 28 x 28
        3       3x1x1 and 1x1x1 in turn                          1024 x 4 x 14 x 14
        4       1x1x1 and 3x1x1 in turn                          2048 x 4 x 7 x 7

    R50 with 400 classes: 28.0 M parameters, 33.1 GMACs at 32 x 224. Paper, section 4 (flow stream).
    """
    network = ResNet(num_classes, in_channels, dropout, depth, base_width, 5, ((3,), (3, 1), (3, 1), (1, 3)))
    network.min_frames = 5
    return network
