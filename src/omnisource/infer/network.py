"""One forward pass in evaluation."""

from typing import Literal

import torch
from torch import Tensor

from omnisource.networks import Network

Precision = Literal["fp32", "bf16", "fp16"]
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@torch.inference_mode()
def forward(network: Network, x: Tensor, precision: Precision = "fp32") -> tuple[Tensor, Tensor]:
    """(N, C, T, H, W) -> logits (N, classes) and features (N, D), float32, of one pass through the trunk.

    The features of a 2D network are the consensus of its snippets, as its classifier sees them.
    """
    with torch.autocast(x.device.type, _TYPES.get(precision), enabled=precision != "fp32"):
        features = network.agree(network.features(x))
        logits = network.head(features)
    return logits.float(), features.float()
