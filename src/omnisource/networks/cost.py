"""What a network costs: parameters and multiply-accumulates."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from omnisource.networks.create import create
from omnisource.networks.layers import ConvNorm


@dataclass(frozen=True)
class Cost:
    """`parameters`: trained numbers. `macs`: multiply-accumulates of convolutions and the classifier, one clip."""

    parameters: int
    macs: int


def cost(name: str, num_classes: int, frames: int, size: int, in_channels: int = 3, **options: Any) -> Cost:
    """The cost of one clip of `frames` frames (snippets) of `size` x `size` pixels; computes shapes only."""
    macs = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        weight = layer.conv.weight if isinstance(layer, ConvNorm) else layer.get_parameter("weight")
        macs += output.numel() * weight[0].numel()

    with torch.device("meta"):
        network = create(name, num_classes, in_channels, **options).eval()
        for module in network.modules():
            if isinstance(module, ConvNorm | nn.Conv3d | nn.Linear):
                module.register_forward_hook(count)
        network(torch.zeros(1, in_channels, frames, size, size))
    return Cost(sum(p.numel() for p in network.parameters()), macs)
