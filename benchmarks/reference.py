"""The reference implementation's networks, where `mmaction2` (0.x or 1.x) is installed beside this project."""

import re
import warnings
from importlib.util import find_spec
from typing import Any, Self

import torch
from torch import Tensor, nn

from omnisource import networks
from omnisource.networks import weights


class Reference(nn.Module):
    """Trunk and classifier as mmaction2 builds them: clips (N, C, T, H, W) -> logits (N, classes)."""

    def __init__(self, backbone: nn.Module, cls_head: nn.Module, spatial: bool) -> None:
        super().__init__()
        self.backbone, self.cls_head, self.spatial = backbone, cls_head, spatial
        self.norm_frozen = False

    def forward(self, x: Tensor) -> Tensor:
        if self.spatial:
            count, _, frames = x.shape[:3]
            logits: Tensor = self.cls_head(self.backbone(x.transpose(1, 2).flatten(0, 1)), frames)
            return logits.view(count, -1)
        logits = self.cls_head(self.backbone(x))
        return logits

    def train(self, mode: bool = True) -> Self:
        """As its `norm_eval` does where norms are frozen."""
        super().train(mode)
        for module in self.modules():
            if self.norm_frozen and isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                module.eval().requires_grad_(False)
        return self


def version() -> str | None:
    """Of the mmaction2 that is importable."""
    if find_spec("mmaction") is None:
        return None
    import mmaction

    return str(mmaction.__version__)


def reference(network: networks.Network) -> Reference | None:
    """The same network by mmaction2, from random weights, which `network` takes over; None where it has none such."""
    # Its SlowOnly R18 and R34 have two kernels through time in a block, ours one: no checkpoint of them was published.
    match = re.fullmatch(r"(tsn|(?:slowonly|ircsn|ipcsn|i3d)(?!_r18|_r34))_r(\d+)", network.name)
    if version() is None or match is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about operators of mmcv that nothing here needs
        import mmaction.models  # noqa: F401  # it registers them
        from mmaction.registry import MODELS
    family, depth = match[1], int(match[2])
    common: dict[str, Any] = {
        "depth": depth,
        "pretrained": None,
        "norm_eval": False,
        "in_channels": network.in_channels,
    }
    deep: dict[str, Any] = common | {"zero_init_residual": False}
    plain_start = {"conv1_kernel": (1, 7, 7), "conv1_stride_t": 1, "pool1_stride_t": 1}
    backbones: dict[str, dict[str, Any]] = {
        "tsn": common | {"type": "ResNet"},
        "slowonly": deep | plain_start | {"type": "ResNet3dSlowOnly", "lateral": False, "inflate": (0, 0, 1, 1)},
        "ircsn": deep | {"type": "ResNet3dCSN", "with_pool2": False, "bottleneck_mode": "ir"},
        "ipcsn": deep | {"type": "ResNet3dCSN", "with_pool2": False, "bottleneck_mode": "ip"},
        "i3d": deep
        | {"type": "ResNet3d", "pretrained2d": False, "conv_cfg": {"type": "Conv3d"}}
        | {"conv1_kernel": (5, 7, 7), "conv1_stride_t": 2, "pool1_stride_t": 2}
        | {"inflate": ((1, 1, 1), (1, 0, 1, 0), (1, 0, 1, 0, 1, 0), (0, 1, 0))},
    }
    head = {"num_classes": network.num_classes, "in_channels": network.head.in_features, "dropout_ratio": 0.0}
    kind = (
        {"type": "TSNHead", "consensus": {"type": "AvgConsensus", "dim": 1}} if family == "tsn" else {"type": "I3DHead"}
    )
    model = Reference(MODELS.build(backbones[family]), MODELS.build(head | kind), network.spatial)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
    with torch.no_grad():
        network.load_state_dict(weights.convert(model.state_dict(), network))
    return model
