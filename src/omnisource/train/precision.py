"""Low precision: where it is used, and the check that it computes what fp32 computes."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from omnisource.errors import UserError
from omnisource.networks import Network, norms

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_CLIPS, _ALIKE = 4, 0.9  # clips that are checked; the least mean cosine of gradients that passes
_LOSS_SCALE = 256.0  # keeps small gradients of fp16 from vanishing


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Where a forward pass runs in bf16 or fp16; nothing for fp32."""
    dtype = _DTYPES.get(precision)
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def check_precision(network: Network, clips: Tensor, labels: Tensor, precision: str) -> None:
    """Compares the gradients of a first batch with those in fp32: kernels of low precision have had their bugs.

    Args:
        network: in training mode; its gradients are gone afterwards.
        clips: float (N, C, T, H, W).
        labels: float (N, classes).
        precision: bf16 or fp16.

    Raises:
        UserError: the gradients differ.
    """
    clips, labels = clips[:_CLIPS], labels[:_CLIPS]
    found = []
    network.dropout.eval()
    for norm in norms(network):
        norm.eval()  # the statistics of a small batch would blow up every rounding
    for kind in ("fp32", precision):
        network.zero_grad()
        with autocast(clips.device, kind):
            logits = network(clips)
        loss = -(labels * logits.float().log_softmax(1)).sum(1).mean()
        (loss * _LOSS_SCALE).backward()
        grown = [p.grad for p in network.parameters() if p.grad is not None]
        found.append([g.full_tensor() if isinstance(g, DTensor) else g for g in grown])
    network.zero_grad()
    network.train()
    # Per parameter, as that of the classifier would outweigh all others; branches that begin as zero have none.
    alike = [
        nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0)
        for one, other in zip(*found, strict=True)
        if one.any()
    ]
    likeness = float(torch.stack(alike).mean())
    if not likeness > _ALIKE:
        raise UserError(
            f"precision: {precision} gives other gradients than fp32 here (cosine {likeness:.3f}); "
            "use `precision: fp32`"
        )
