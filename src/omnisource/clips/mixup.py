"""Mixing samples and labels on the device (paper, section 3.4; Zhang et al., mixup, ICLR 2018)."""

import torch
from torch import Tensor


def mix(x: Tensor, partner: Tensor, weight: Tensor) -> Tensor:
    """x[i] * weight[i] + x[partner[i]] * (1 - weight[i]); for clips and for soft labels alike.

    The plan decides who is mixed with whom: across datasets when partner[i] comes from another source, within one
    otherwise, not at all where weight[i] is 1.

    Args:
        x: float (N, ...).
        partner: int (N,), positions in the same batch.
        weight: float (N,) in [0, 1], drawn from Beta(alpha, alpha).

    Returns:
        (N, ...) of x's type; x itself when nothing is mixed.
    """
    mixed = (weight < 1).nonzero()[:, 0]
    if not len(mixed):
        return x
    share = weight[mixed].to(x.dtype).view(-1, *[1] * (x.dim() - 1))
    # index_put on a copy: only the mixed rows cost arithmetic.
    out = x.clone()
    out[mixed] = torch.lerp(x[partner[mixed]], x[mixed], share)
    return out


def soft_labels(classes: Tensor, num_classes: int, smoothing: float = 0.0) -> Tensor:
    """Class indices (N,) as rows of probabilities, float (N, num_classes).

    `smoothing` moves that share of the probability from the class to all classes evenly.
    """
    return smooth(torch.nn.functional.one_hot(classes, num_classes).float(), smoothing)


def smooth(labels: Tensor, smoothing: float) -> Tensor:
    """Soft labels (N, classes) with the share `smoothing` spread over all classes evenly."""
    return labels if smoothing == 0 else labels * (1 - smoothing) + smoothing / labels.shape[1]
