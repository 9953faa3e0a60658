"""Channel-separated networks: irCSN and ipCSN.

Tran et al., "Video classification with channel-separated convolutional networks" (2019). Space and time are
looked at by depthwise 3x3x3 convolutions alone; channels meet in the 1x1x1 ones.

    irCSN (interaction-reduced)           ipCSN (interaction-preserved)
    1x1x1, width                          1x1x1, width
                                          1x1x1, width, no ReLU
    depthwise 3x3x3, stride s             depthwise 3x3x3, stride s
    1x1x1, 4 width                        1x1x1, 4 width
    + shortcut, ReLU                      + shortcut, ReLU
"""

from functools import partial

from torch import Tensor, nn

from omnisource.errors import UserError
from omnisource.networks.base import Network
from omnisource.networks.layers import ConvNorm, pooled
from omnisource.networks.resnet import BLOCKS


class Bottleneck(nn.Module):
    """(N, C, T, H, W) -> (N, 4 width, T/s, H/s, W/s)."""

    def __init__(self, in_channels: int, width: int, stride: int, preserve: bool, eps: float) -> None:
        super().__init__()
        layer = partial(ConvNorm, eps=eps)
        strides = (stride, stride, stride)
        self.conv1 = layer(in_channels, width, (1, 1, 1), act=nn.ReLU(inplace=True))
        self.interact = layer(width, width, (1, 1, 1)) if preserve else None
        self.conv2 = layer(width, width, (3, 3, 3), strides, groups=width, act=nn.ReLU(inplace=True))
        self.conv3 = layer(width, 4 * width, (1, 1, 1), act=nn.ReLU(inplace=True))
        same = in_channels == 4 * width and stride == 1
        self.shortcut = None if same else layer(in_channels, 4 * width, (1, 1, 1), strides)
        nn.init.zeros_(self.conv3.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        if self.interact is not None:
            y = self.interact(y)
        z: Tensor = self.conv3(self.conv2(y), x if self.shortcut is None else self.shortcut(x))
        return z


class CSN(Network):
    """irCSN, or ipCSN with `preserve`.

        stage   kernels                                  output of a 32 x 224 x 224 input (R152)
        input                                            3    x 32 x 224 x 224
        stem    3x7x7, stride 1,2,2                      64   x 32 x 112 x 112
        pool    max 1x3x3, stride 1,2,2                  64   x 32 x 56 x 56
        1       [1x1x1, depthwise 3x3x3, 1x1x1] x 3      256  x 32 x 56 x 56
        2       [1x1x1, depthwise 3x3x3, 1x1x1] x 8      512  x 16 x 28 x 28
        3       [1x1x1, depthwise 3x3x3, 1x1x1] x 36     1024 x 8 x 14 x 14
        4       [1x1x1, depthwise 3x3x3, 1x1x1] x 3      2048 x 4 x 7 x 7

    irCSN-152 with 400 classes: 29.70 M parameters; 74.0 GMACs at 32 x 224, 96.7 at 32 x 256 (the
    size for which the literature gives it). Paper, section 4 (irCSN-152 32x2).
    """

    def __init__(
        self,
        depth: int,
        preserve: bool,
        num_classes: int,
        in_channels: int,
        dropout: float = 0.5,
        base_width: int = 64,
        norm_eps: float = 1e-3,
    ) -> None:
        """`norm_eps`: the norms' epsilon, 1e-3 as in the authors' code; weights of PyTorchVideo want 1e-5."""
        super().__init__(num_classes, in_channels, dropout)
        if base_width < 1 or not norm_eps > 0:
            raise UserError(f"base_width must be at least 1 and norm_eps positive, not {base_width} and {norm_eps}")
        self.stem = ConvNorm(in_channels, base_width, (3, 7, 7), (1, 2, 2), act=nn.ReLU(inplace=True), eps=norm_eps)
        self.stages = nn.ModuleList()
        channels = base_width
        for i, count in enumerate(BLOCKS[depth]):
            width = base_width * 2**i
            stage = nn.ModuleList()
            for j in range(count):
                stage.append(Bottleneck(channels, width, 2 if i > 0 and j == 0 else 1, preserve, norm_eps))
                channels = 4 * width
            self.stages.append(stage)
        self.finish(channels)

    def trunk(self, x: Tensor) -> Tensor:
        x = pooled(self.stem, x)
        for stage in self.stages:
            assert isinstance(stage, nn.ModuleList)
            x = self.run(stage, x)
        return x
