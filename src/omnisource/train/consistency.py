"""Consistency on web units (Sohn et al., FixMatch, NeurIPS 2020): labels that the network gives itself.

What the network says of a unit's clip as it is (the weak view), where it is sure, must also be what it says of a strong
view of the same clip. With B_W all web units of a step:

    L = Eq. 1 + weight * ( sum over the sure units of B_W of CE(strong view, label by the weak view) ) / |B_W|

What a strong view shows follows from its slot's key alone, so it is the same in whatever process and pass it stands.
"""

import numpy as np
import torch
from torch import Tensor

from omnisource.clips.strong import DRAWS, strong_view
from omnisource.train import keys
from omnisource.train.decode import STRONG
from omnisource.train.keys import U64

_WORD = 64  # bits of a key


def strong_views(clips: Tensor, slot_keys: U64, flow: bool) -> Tensor:
    """Strong views of clips (n, C, T, H, W); of a fixed trunk's features (n, D) with every second one dropped.

    Args:
        slot_keys: (n,), of the clips' slots.
    """
    if clips.ndim == 5:
        draws = keys.uniform(keys.mix(STRONG, slot_keys[:, None], np.arange(DRAWS)))
        return strong_view(clips, torch.from_numpy(draws), flow)
    words = keys.mix(STRONG, slot_keys[:, None], np.arange(-(-clips.shape[1] // _WORD)))
    kept = np.unpackbits(words.astype("<u8").view(np.uint8), axis=1)[:, : clips.shape[1]]
    return clips * torch.from_numpy(2 * kept).to(clips)  # twice what is kept, so that the sum stays on average


def consistency_losses(weak: Tensor, strong: Tensor, confidence: float) -> tuple[Tensor, Tensor]:
    """Each unit's loss, 0 where the network is not sure, and where it is: float and bool (n,).

    Args:
        weak: logits (n, classes) of the weak views; no gradient goes there.
        strong: logits (n, classes) of the strong views.
        confidence: the least largest probability of a weak view that gives a label.
    """
    largest, label = weak.detach().softmax(1).max(1)
    sure = largest >= confidence
    return torch.nn.functional.cross_entropy(strong, label, reduction="none") * sure, sure
