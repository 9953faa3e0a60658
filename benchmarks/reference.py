"""The reference implementation's networks beside ours, where `mmaction2` 1.x is importable.

    python benchmarks/reference.py --out benchmarks/results/reference-mmaction2.json

compares both for RGB and flow, from the same random weights: logits of evaluation in float32 (ours as called, and in
the fast form), and of a training step in float64 the loss, all gradients and the norms' running statistics.

mmaction2 1.1.0 runs with mmcv-lite 2.0.1; nothing of mmcv's compiled operators is needed.
"""

import argparse
import json
import platform
import re
import shlex
import sys
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnisource import __version__, networks
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


NETWORKS = [
    *(f"tsn_r{depth}" for depth in (18, 34, 50, 101, 152)),
    *(f"{family}_r{depth}" for family in ("slowonly", "ircsn", "ipcsn") for depth in (50, 101, 152)),
    "i3d_r50",
]
SIZE, FRAMES, CLASSES = 64, 16, 11


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", default=NETWORKS)
    parser.add_argument("--out", type=Path, help="where to write JSON")
    arguments = parser.parse_args()
    if version() is None:
        parser.error("mmaction2 is not importable: pip install --no-deps mmaction2==1.1.0 mmcv-lite==2.0.1 mmengine")
    report: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"omnisource": __version__, "torch": torch.__version__, "mmaction2": version()},
        "device": f"{platform.machine()}, CPU, {torch.get_num_threads()} threads",
        "clip": [2, "3 or 2", FRAMES, SIZE, SIZE],
        "results": [],
    }
    for name in arguments.network:
        for channels in (3, 2):
            result = {
                "network": name,
                "channels": channels,
                **in_evaluation(name, channels),
                **in_training(name, channels),
            }
            report["results"].append(result)
            print(json.dumps(result), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")


def pair(name: str, channels: int, frames: int = FRAMES) -> tuple[networks.Network, Reference, Tensor]:
    """Ours, theirs with the same weights, and clips."""
    torch.manual_seed(0)
    ours = networks.create(name, CLASSES, in_channels=channels, dropout=0.0)
    theirs = reference(ours)
    assert theirs is not None, f"mmaction2 has no {name}"
    return ours, theirs, torch.randn(2, channels, frames, SIZE, SIZE)


def in_evaluation(name: str, channels: int) -> dict[str, float]:
    """The largest logit, and the largest differences from it in float32."""
    ours, theirs, clips = pair(name, channels)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    ours.load_state_dict(weights.convert(theirs.state_dict(), ours))
    ours.eval()
    theirs.eval()
    with torch.no_grad():
        wanted, called = theirs(clips), ours(clips)
        with networks.fused(ours):
            fast = ours(clips)
    return {
        "largest_logit": float(wanted.abs().max()),
        "as_called": float((called - wanted).abs().max()),
        "fast_form": float((fast - wanted).abs().max()),
    }


def in_training(name: str, channels: int) -> dict[str, float]:
    """Differences after a step in float64: of the loss; and of all gradients and of the norms' statistics the worst, as
    a share of the largest value of its tensor."""
    ours, theirs, clips = pair(name, channels)
    clips, labels = clips.double(), torch.tensor([1, 5])
    losses = [F.cross_entropy(network.double().train()(clips), labels) for network in (ours, theirs)]
    for loss in losses:
        torch.autograd.backward(loss)
    state = theirs.state_dict()
    gradients = {key: value.grad for key, value in theirs.named_parameters() if value.grad is not None}
    wanted = weights.convert({**state, **gradients}, ours)
    after = weights.convert(state, ours)
    statistics = {key: value for key, value in ours.state_dict().items() if "running" in key}
    return {
        "loss": abs(float(losses[0] - losses[1])),
        "gradients": worst(
            {key: value.grad for key, value in ours.named_parameters() if value.grad is not None}, wanted
        ),
        "statistics": worst(statistics, after),
    }


def worst(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """The largest difference of a tensor as a share of its largest value."""
    return max(
        float((value - wanted[key]).abs().max() / wanted[key].abs().max().clamp(min=1e-12))
        for key, value in found.items()
    )


if __name__ == "__main__":
    main()
